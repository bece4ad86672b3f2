//! User name and password by HTTP Basic (RFC 7617), checked against htpasswd lines of a Secret.
//!
//! Checking a password is slow on purpose, so it is done off the worker's thread, only a few at
//! a time, and a login that was good is remembered by a keyed hash (see [`logins`]). Unknown
//! users cost as much as the costliest known one. What the client sent goes no further than
//! here: `Authorization` is removed, and the name stands in [`Exchange::consumer`].

mod htpasswd;
mod logins;

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::htpasswd::{Hash, Users};
use self::logins::Logins;
use super::{Exchange, Invalid, Policy, Refs, Reply};
use crate::reason::Reason;

/// The key of the Secret that holds the htpasswd lines, as ingress-nginx has it.
const SECRET_KEY: &str = "auth";
/// Longest password that is looked at, in bytes.
const MAX_PASSWORD: usize = 1024;
/// Most requests of one policy that wait for a check; more are refused as overload.
const MAX_WAITING: usize = 128;

/// Checks of all policies that run at once: never more than there are CPUs.
static CHECKS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(cpus())));

/// User name and password, checked against a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "BasicAuth")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The Secret, in the same namespace, whose key `auth` holds htpasswd lines: bcrypt,
    /// apr1 or {SHA}.
    pub secret_ref: SecretRef,
    /// The realm that browsers show; `Restricted` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub realm: Option<String>,
}

/// A Secret in the namespace of the object that refers to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct BasicAuth {
    users: Users,
    challenge: HeaderValue,
    state: Arc<State>,
}

/// What outlives a graph.
#[derive(Debug)]
struct State {
    logins: Logins,
    /// Checks of this policy that run at once: half of all, so that logins of one tenant never
    /// keep out those of another.
    checks: Arc<Semaphore>,
    /// Places for those who wait for a check.
    waiting: Semaphore,
}

impl Policy for BasicAuth {
    type Spec = Spec;

    fn compile(spec: &Spec, refs: &Refs) -> Result<Self, Invalid> {
        let name = &spec.secret_ref.name;
        let wrong = |message: String| Invalid::new("secretRef", message);
        let lines = refs.secrets.get(name).and_then(|secret| secret.get(SECRET_KEY));
        let lines = lines.ok_or_else(|| {
            wrong(format!("Secret {name} has no key `{SECRET_KEY}`; put htpasswd lines there"))
        })?;
        let users = Users::parse(lines)
            .map_err(|error| wrong(format!("Secret {name}, key `{SECRET_KEY}`: {error}")))?;
        let realm = spec.realm.as_deref().unwrap_or("Restricted");
        Ok(BasicAuth { users, challenge: challenge(realm)?, state: Arc::default() })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        let Some((user, password)) = credentials(&ex.request.headers) else {
            return ControlFlow::Break(self.refusal());
        };
        match self.check(&user, password).await {
            Ok(true) => {
                ex.request.headers.remove(AUTHORIZATION);
                ex.consumer = Some(user);
                ControlFlow::Continue(())
            }
            Ok(false) => ControlFlow::Break(self.refusal()),
            Err(reason) => ControlFlow::Break(Reply::of(reason)),
        }
    }

    fn adopt(&mut self, old: &Self) {
        self.state = Arc::clone(&old.state);
    }
}

impl Default for State {
    fn default() -> Self {
        State {
            logins: Logins::default(),
            checks: Arc::new(Semaphore::new((cpus() / 2).max(1))),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }
}

impl BasicAuth {
    fn refusal(&self) -> Reply {
        let mut reply = Reply::of(Reason::Unauthenticated);
        reply.headers.insert(WWW_AUTHENTICATE, self.challenge.clone());
        reply
    }

    /// Whether `password` is the user's. An unknown user is checked against someone's hash, so
    /// that the time does not tell who exists.
    async fn check(&self, user: &str, password: Vec<u8>) -> Result<bool, Reason> {
        let (hash, known) = match self.users.get(user) {
            Some(hash) => (hash, true),
            None => (self.users.decoy(), false),
        };
        let login = self.state.logins.fingerprint(user, &password, hash.text());
        if known && self.state.logins.remembers(login) {
            return Ok(true);
        }
        // Boxed: rare, and every request has room for the future of any policy.
        let good = Box::pin(self.verify(Arc::clone(hash), password)).await? && known;
        if good {
            self.state.logins.remember(login);
        }
        Ok(good)
    }

    async fn verify(&self, hash: Arc<Hash>, password: Vec<u8>) -> Result<bool, Reason> {
        let permits = {
            let _place = self.state.waiting.try_acquire().map_err(|_| Reason::Overloaded)?;
            (permit(&self.state.checks).await?, permit(&CHECKS).await?)
        };
        // The permits go along: a client that goes away frees no CPU.
        let check = move || {
            let good = hash.verify(&password);
            drop(permits);
            good
        };
        tokio::task::spawn_blocking(check).await.map_err(|_| Reason::Internal)
    }
}

async fn permit(checks: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Reason> {
    // Closed semaphores alone give an error, and nobody closes these.
    Arc::clone(checks).acquire_owned().await.map_err(|_| Reason::Internal)
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// User and password of the one `Authorization` field, if it is one of scheme Basic.
fn credentials(headers: &HeaderMap) -> Option<(Box<str>, Vec<u8>)> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut user = BASE64.decode(token.trim()).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon + 1);
    user.pop();
    let user = String::from_utf8(user).ok()?;
    (password.len() <= MAX_PASSWORD).then_some((user.into(), password))
}

fn challenge(realm: &str) -> Result<HeaderValue, Invalid> {
    let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
    let printable = realm.bytes().all(|b| (b' '..=b'~').contains(&b));
    HeaderValue::from_str(&format!("Basic realm=\"{quoted}\", charset=\"UTF-8\""))
        .ok()
        .filter(|_| printable && realm.len() <= 128)
        .ok_or_else(|| {
            Invalid::new("realm", "not printable ASCII of at most 128 characters; change it")
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::policy::testing::exchange;

    /// alice: wonderland ({SHA}), bob: s3cret (bcrypt of cost 4), carol: myPassword (apr1).
    fn lines() -> String {
        let bob = bcrypt::hash("s3cret", 4).unwrap();
        format!(
            "# people\nalice:{{SHA}}tiY7sUhYKUwI5L3866kDY+ENcrQ=\n\nbob:{bob}\n\
             carol:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\n"
        )
    }

    fn policy(lines: &str) -> Result<BasicAuth, Invalid> {
        let data = BTreeMap::from([("auth".to_owned(), lines.as_bytes().to_vec())]);
        let secrets = BTreeMap::from([("users".to_owned(), data)]);
        let refs = Refs { secrets, ..Refs::default() };
        let secret_ref = SecretRef { name: "users".into() };
        BasicAuth::compile(&Spec { secret_ref, realm: Some("a \"b\"".into()) }, &refs)
    }

    fn basic(user: &str, password: &str) -> String {
        let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!("Basic {token}")
    }

    async fn login(policy: &BasicAuth, field: &str) -> (Option<Reply>, Exchange<'static>) {
        let mut ex = exchange("GET", "http://a.example/", &[("authorization", field)]);
        let reply = policy.on_request(&mut ex).await.break_value();
        (reply, ex)
    }

    #[tokio::test]
    async fn good_passwords_of_every_kind_pass_twice() {
        let policy = policy(&lines()).unwrap();
        for (user, password) in
            [("alice", "wonderland"), ("bob", "s3cret"), ("carol", "myPassword")]
        {
            for attempt in ["checked", "remembered"] {
                let (reply, ex) = login(&policy, &basic(user, password)).await;
                assert!(reply.is_none(), "{user} {attempt}");
                assert_eq!(ex.consumer.as_deref(), Some(user));
                assert!(!ex.request.headers.contains_key("authorization"));
            }
        }
    }

    #[tokio::test]
    async fn everything_else_is_challenged() {
        let policy = policy(&lines()).unwrap();
        let long = basic("bob", &"x".repeat(MAX_PASSWORD + 1));
        for field in [
            basic("bob", "wrong"),
            basic("bob", ""),
            basic("alice", "s3cret"),
            basic("carol", "mypassword"),
            basic("nobody", "s3cret"),
            basic("", ""),
            "Basic".into(),
            "Basic ???".into(),
            "Bearer abc".into(),
            long,
        ] {
            let (reply, ex) = login(&policy, &field).await;
            let reply = reply.unwrap();
            assert_eq!((reply.status.as_u16(), reply.reason), (401, Reason::Unauthenticated));
            assert_eq!(
                reply.headers["www-authenticate"],
                r#"Basic realm="a \"b\"", charset="UTF-8""#
            );
            assert_eq!(ex.consumer, None, "{field}");
        }
    }

    #[tokio::test]
    async fn two_authorization_fields_are_none() {
        let policy = policy(&lines()).unwrap();
        let field = basic("alice", "wonderland");
        let fields = [("authorization", &*field), ("authorization", &*field)];
        let mut ex = exchange("GET", "http://a.example/", &fields);
        assert!(policy.on_request(&mut ex).await.is_break());
    }

    #[tokio::test]
    async fn a_changed_password_ends_remembered_logins() {
        let old = policy("bob:{SHA}tiY7sUhYKUwI5L3866kDY+ENcrQ=").unwrap();
        assert!(login(&old, &basic("bob", "wonderland")).await.0.is_none());
        let mut new = policy(&lines()).unwrap();
        new.adopt(&old);
        assert!(login(&new, &basic("bob", "wonderland")).await.0.is_some());
        assert!(login(&new, &basic("bob", "s3cret")).await.0.is_none());
    }

    #[tokio::test]
    async fn a_flood_of_logins_is_refused_beyond_the_waiting_places() {
        let policy = policy(&lines()).unwrap();
        let _all = policy.state.waiting.acquire_many(MAX_WAITING as u32).await.unwrap();
        let (reply, _) = login(&policy, &basic("bob", "wrong")).await;
        assert_eq!(reply.unwrap().reason, Reason::Overloaded);
    }

    #[test]
    fn a_secret_without_the_key_or_with_bad_lines_is_refused() {
        let spec = Spec { secret_ref: SecretRef { name: "users".into() }, realm: None };
        let error = BasicAuth::compile(&spec, &Refs::default()).unwrap_err();
        assert!(error.message.contains("Secret users has no key `auth`"), "{error}");
        let error = policy("bob:plain").unwrap_err();
        assert!(error.message.contains("line 1") && !error.message.contains("plain"), "{error}");
    }
}
