//! User name and password by HTTP Basic (RFC 7617), checked against htpasswd lines of a Secret
//! and of the Consumers of the namespace.
//!
//! Checking a password is slow on purpose, so it is done off the worker's thread, only a few at
//! a time, and a login that was good is remembered by a keyed hash (see [`logins`]). Unknown
//! users cost as much as the costliest known one.

pub mod htpasswd;
mod logins;

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::htpasswd::{Hash, Users};
use self::logins::Logins;
use super::method::Outcome;
use crate::policy::consumer::Consumers;
use crate::policy::identity::{Claims, Identity, Method};
use crate::policy::place::{Place, Places};
use crate::policy::{Invalid, Refs};
use crate::reason::Reason;

/// The key of the Secret that holds the htpasswd lines, as ingress-nginx has it.
pub const SECRET_KEY: &str = "auth";
/// Longest password that is looked at, in bytes.
const MAX_PASSWORD: usize = 1024;
/// Most requests of one policy that wait for a check; more are refused as overload.
const MAX_WAITING: usize = 128;

/// Checks of all policies that run at once: never more than there are CPUs.
static CHECKS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(cpus())));

/// User name and password: those of a Secret, and those of the namespace's Consumers. Of a user
/// that both have, the Consumer's password counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "BasicMethod")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The Secret, in the same namespace, whose key `auth` holds htpasswd lines: bcrypt,
    /// apr1 or {SHA}. Without it, only Consumers are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
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
pub struct Basic {
    users: Option<Users>,
    consumers: Option<Arc<Consumers>>,
    places: Places,
    /// The hash of all that takes longest to check; None: there is no user.
    decoy: Option<Arc<Hash>>,
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

impl Default for State {
    fn default() -> Self {
        State {
            logins: Logins::default(),
            checks: Arc::new(Semaphore::new((cpus() / 2).max(1))),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }
}

impl Basic {
    /// # Errors
    /// The Secret is not there, or it has no lines that can be read.
    pub fn compile(spec: &Spec, refs: &Refs) -> Result<Self, Invalid> {
        let users = match &spec.secret_ref {
            Some(secret) => Some(users_of(&secret.name, refs)?),
            None => None,
        };
        let consumers = refs.consumers.clone();
        let decoys = [users.as_ref().map(Users::decoy), consumers.as_ref().and_then(|c| c.decoy())];
        let decoy = decoys.into_iter().flatten().max_by_key(|hash| hash.cost()).cloned();
        let places =
            Places::one(Place::Header { name: AUTHORIZATION, scheme: Some("Basic".into()) });
        Ok(Basic { users, consumers, places, decoy, state: Arc::default() })
    }

    /// Where user and password stand.
    pub fn places(&self) -> &Places {
        &self.places
    }

    pub async fn check(&self, headers: &HeaderMap) -> Outcome {
        let mut fields = headers.get_all(AUTHORIZATION).iter().filter(|field| is_basic(field));
        let (field, more) = (fields.next(), fields.next());
        let Some(field) = field else { return Outcome::Absent };
        let Some((user, password)) = credentials(field).filter(|_| more.is_none()) else {
            return Outcome::Refused(None);
        };
        match self.login(&user, password).await {
            Ok(Some(identity)) => Outcome::Accepted(identity),
            Ok(None) => Outcome::Refused(None),
            Err(reason) => Outcome::Unavailable(reason),
        }
    }

    /// Keeps the logins that `old` remembers, and its places: a login is remembered with the
    /// hash that it was good for.
    pub fn adopt(&mut self, old: &Self) {
        self.state = Arc::clone(&old.state);
    }

    /// The identity, if `password` is the user's. An unknown user is checked against someone's
    /// hash, so that the time does not tell who exists.
    async fn login(&self, user: &str, password: Vec<u8>) -> Result<Option<Arc<Identity>>, Reason> {
        let consumer = self.consumers.as_ref().and_then(|consumers| consumers.by_user(user));
        let own = || self.users.as_ref().and_then(|users| users.get(user));
        let known = consumer.map(|consumer| &consumer.hash).or_else(own);
        let Some(hash) = known.or(self.decoy.as_ref()) else { return Ok(None) };
        let login = self.state.logins.fingerprint(user, &password, hash.text());
        let remembered = known.is_some() && self.state.logins.remembers(login);
        // Boxed: rare, and every request has room for the future of any policy.
        if !remembered && !Box::pin(self.verify(Arc::clone(hash), password)).await? {
            return Ok(None);
        }
        if known.is_none() {
            return Ok(None);
        }
        if !remembered {
            self.state.logins.remember(login);
        }
        let identity = consumer.map(|consumer| Arc::clone(&consumer.identity));
        Ok(Some(identity.unwrap_or_else(|| Arc::new(somebody(user)))))
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

fn users_of(name: &str, refs: &Refs) -> Result<Users, Invalid> {
    let wrong = |message: String| Invalid::new("secretRef", message);
    let Some(secret) = refs.secrets.get(name) else {
        return Err(wrong(format!("Secret {name} does not exist; create it")));
    };
    let lines = secret.get(SECRET_KEY).ok_or_else(|| {
        wrong(format!("Secret {name} has no key `{SECRET_KEY}`; put htpasswd lines there"))
    })?;
    Users::parse(lines)
        .map_err(|error| wrong(format!("Secret {name}, key `{SECRET_KEY}`: {error}")))
}

/// A user of the Secret, who is no Consumer.
fn somebody(user: &str) -> Identity {
    Identity {
        method: Method::Basic,
        subject: user.into(),
        consumer: None,
        groups: Box::default(),
        scopes: Box::default(),
        claims: Claims::default(),
    }
}

async fn permit(checks: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Reason> {
    // Closed semaphores alone give an error, and nobody closes these.
    Arc::clone(checks).acquire_owned().await.map_err(|_| Reason::Internal)
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Whether the scheme is Basic, whatever follows (RFC 9110, 11.4: in any case).
fn is_basic(field: &HeaderValue) -> bool {
    let field = field.as_bytes().trim_ascii_start();
    let scheme = field.split(|byte| matches!(byte, b' ' | b'\t')).next();
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
}

/// User and password of a field of scheme Basic.
fn credentials(field: &HeaderValue) -> Option<(Box<str>, Vec<u8>)> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

    let (_, token) = field.to_str().ok()?.trim_start().split_once([' ', '\t'])?;
    let mut user = BASE64.decode(token.trim()).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon + 1);
    user.pop();
    let user = String::from_utf8(user).ok()?;
    (password.len() <= MAX_PASSWORD).then_some((user.into(), password))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::policy::consumer::Consumer;
    use crate::policy::testing::head;

    /// alice: wonderland ({SHA}), bob: s3cret (bcrypt of cost 4), carol: myPassword (apr1).
    fn lines() -> String {
        let bob = bcrypt::hash("s3cret", 4).unwrap();
        format!(
            "# people\nalice:{{SHA}}tiY7sUhYKUwI5L3866kDY+ENcrQ=\n\nbob:{bob}\n\
             carol:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\n"
        )
    }

    fn method(lines: &str) -> Result<Basic, Invalid> {
        let data = BTreeMap::from([("auth".to_owned(), lines.as_bytes().to_vec())]);
        let secrets = BTreeMap::from([("users".to_owned(), data)]);
        Basic::compile(&spec(), &Refs { secrets, ..Refs::default() })
    }

    fn spec() -> Spec {
        Spec { secret_ref: Some(SecretRef { name: "users".into() }) }
    }

    fn basic(user: &str, password: &str) -> String {
        let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!("Basic {token}")
    }

    async fn login(method: &Basic, fields: &[&str]) -> Outcome {
        let fields: Vec<_> = fields.iter().map(|field| ("authorization", *field)).collect();
        method.check(&head("GET", "http://a.example/", &fields).headers).await
    }

    fn name(outcome: &Outcome) -> Option<&str> {
        outcome.identity().map(|identity| identity.name())
    }

    #[tokio::test]
    async fn good_passwords_of_every_kind_pass_twice() {
        let method = method(&lines()).unwrap();
        for (user, password) in
            [("alice", "wonderland"), ("bob", "s3cret"), ("carol", "myPassword")]
        {
            for attempt in ["checked", "remembered"] {
                let outcome = login(&method, &[&basic(user, password)]).await;
                assert_eq!(name(&outcome), Some(user), "{attempt}");
            }
        }
    }

    #[tokio::test]
    async fn everything_else_is_refused_and_other_schemes_are_none_of_it() {
        let method = method(&lines()).unwrap();
        let long = basic("bob", &"x".repeat(MAX_PASSWORD + 1));
        for field in [
            basic("bob", "wrong"),
            basic("bob", ""),
            basic("alice", "s3cret"),
            basic("carol", "mypassword"),
            basic("nobody", "s3cret"),
            basic("", ""),
            "Basic".into(),
            "bAsic ???".into(),
            long,
        ] {
            let outcome = login(&method, &[&field]).await;
            assert!(matches!(outcome, Outcome::Refused(None)), "{field}: {outcome:?}");
        }
        for fields in [&[][..], &["Bearer abc"], &["Basics abc"]] {
            assert!(matches!(login(&method, fields).await, Outcome::Absent));
        }
    }

    #[tokio::test]
    async fn two_fields_are_refused_and_one_beside_another_scheme_counts() {
        let method = method(&lines()).unwrap();
        let good = basic("alice", "wonderland");
        assert!(matches!(login(&method, &[&good, &good]).await, Outcome::Refused(None)));
        assert_eq!(name(&login(&method, &["Bearer x", &good]).await), Some("alice"));
    }

    #[tokio::test]
    async fn a_changed_password_ends_remembered_logins() {
        let old = method("bob:{SHA}tiY7sUhYKUwI5L3866kDY+ENcrQ=").unwrap();
        assert_eq!(name(&login(&old, &[&basic("bob", "wonderland")]).await), Some("bob"));
        let mut new = method(&lines()).unwrap();
        new.adopt(&old);
        assert_eq!(name(&login(&new, &[&basic("bob", "wonderland")]).await), None);
        assert_eq!(name(&login(&new, &[&basic("bob", "s3cret")]).await), Some("bob"));
    }

    #[tokio::test]
    async fn a_flood_of_logins_is_refused_beyond_the_waiting_places() {
        let method = method(&lines()).unwrap();
        let _all = method.state.waiting.acquire_many(MAX_WAITING as u32).await.unwrap();
        let outcome = login(&method, &[&basic("bob", "wrong")]).await;
        assert!(matches!(outcome, Outcome::Unavailable(Reason::Overloaded)));
    }

    #[tokio::test]
    async fn a_consumer_s_password_counts_before_the_secret_s() {
        let mut consumers = Consumers::default();
        let partner = consumers.add(Consumer {
            namespace: "ns".into(),
            name: "partner".into(),
            groups: Box::default(),
            plan: None,
        });
        let users = Users::parse(b"bob:{SHA}tiY7sUhYKUwI5L3866kDY+ENcrQ=").unwrap();
        consumers.add_users(&partner, &users).unwrap();
        let mut method = method(&lines()).unwrap();
        method.consumers = Some(Arc::new(consumers));
        assert_eq!(name(&login(&method, &[&basic("bob", "wonderland")]).await), Some("partner"));
        assert_eq!(name(&login(&method, &[&basic("bob", "s3cret")]).await), None);
        assert_eq!(name(&login(&method, &[&basic("alice", "wonderland")]).await), Some("alice"));
    }

    #[tokio::test]
    async fn without_users_nobody_logs_in() {
        let method = Basic::compile(&Spec::default(), &Refs::default()).unwrap();
        let outcome = login(&method, &[&basic("bob", "s3cret")]).await;
        assert!(matches!(outcome, Outcome::Refused(None)));
    }

    #[test]
    fn a_secret_that_is_missing_without_the_key_or_with_bad_lines_is_refused() {
        let error = Basic::compile(&spec(), &Refs::default()).unwrap_err();
        assert!(error.message.contains("Secret users does not exist"), "{error}");
        let secrets = BTreeMap::from([("users".to_owned(), BTreeMap::new())]);
        let error = Basic::compile(&spec(), &Refs { secrets, ..Refs::default() }).unwrap_err();
        assert!(error.message.contains("has no key `auth`"), "{error}");
        let error = method("bob:plain").unwrap_err();
        assert!(error.message.contains("line 1") && !error.message.contains("plain"), "{error}");
    }
}
