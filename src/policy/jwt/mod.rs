//! Signed tokens of one issuer (JWT: RFC 7519, 7515, 7518): found in a request, verified, and
//! made an [`Identity`]. A part of the policy `authentication`, which says what becomes of
//! requests without one.
//!
//! Nothing that a token says of itself is believed before its signature is right: the algorithm
//! follows from the key ([`keys`]), and of the header only `alg` and `kid` are looked at, to
//! choose among the keys that are known. Parsing is strict ([`json`], [`token`]): what could be
//! read in two ways is refused. Keys are never fetched here; see [`remote`].

mod algorithm;
mod cache;
mod claims;
mod json;
mod jwks;
mod keys;
mod pem;
mod refusal;
mod remote;
mod spec;
#[cfg(test)]
mod tests;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

pub use self::algorithm::Algorithm;
use self::cache::Owner;
use self::claims::{Checks, Validity};
pub use self::jwks::{LONGEST as LONGEST_KEY_SET, Publicity, read as read_key_set};
pub use self::keys::KeySet;
pub use self::refusal::Refusal;
pub use self::remote::{Refetch, RemoteKeys};
pub use self::spec::{
    CaCertificateRef, CaKind, ClaimToHeader, Hmac, KeyService, Keys, Remote, RequiredClaim,
    SecretKeyRef, Spec,
};
use self::token::Token;
use super::consumer::Consumer;
use super::header_edits::header_name;
use super::identity::{Identity, Method, claim};
use super::place::{Found, Place, Places};
use super::{Invalid, Refs, RequestHead, duration};

/// The clocks of issuers and ours may differ by so much.
const LEEWAY: Duration = Duration::from_secs(60);
const LONGEST_LEEWAY: Duration = Duration::from_mins(5);

/// Finds a Consumer by the value of `consumerClaim`.
pub type FindConsumer = Box<dyn Fn(&str) -> Option<Arc<Consumer>> + Send + Sync>;

/// See the module's documentation.
pub struct Jwt {
    places: Places,
    /// In the order of [`Algorithm`].
    algorithms: Box<[Algorithm]>,
    keys: RemoteKeys,
    checks: Checks,
    consumer_claim: Box<str>,
    groups_claim: Box<str>,
    /// The claims of [`Jwt::claim_headers`], in the same order.
    claims: Box<[Box<str>]>,
    headers: Box<[HeaderName]>,
    find: FindConsumer,
    owner: Owner,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("issuer", &self.checks.issuer)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// What a request's token is worth.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// There is none.
    NoCredentials,
    Accepted(Arc<Verified>),
    Refused(Refusal),
    /// There is one, and there are no keys to verify it with: the issuer cannot be reached.
    Unavailable,
}

/// A token that was right. Shared by all requests that bring it.
#[derive(Debug)]
pub struct Verified {
    pub identity: Arc<Identity>,
    /// What the backend gets, as `claimsToHeaders` says.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    validity: Validity,
}

impl Jwt {
    /// # Errors
    /// The field of the Spec, the cause and the remedy.
    pub fn compile(spec: &Spec, refs: &Refs, find: FindConsumer) -> Result<Self, Invalid> {
        // RFC 6750, 2.1.
        let default = Place::Header { name: AUTHORIZATION, scheme: Some("Bearer".into()) };
        let places = Places::compile("from", &spec.from, Some("Bearer"), default)?;
        let mut headers = Vec::with_capacity(spec.claims_to_headers.len());
        for (at, one) in spec.claims_to_headers.iter().enumerate() {
            headers.push(header_name(&format!("claimsToHeaders[{at}].header"), &one.header)?);
        }
        if spec.issuer.is_empty() {
            return Err(Invalid::new("issuer", "is empty; write the `iss` of the tokens"));
        }
        let algorithms = match spec.algorithms.is_empty() {
            true => Algorithm::ALL.into(),
            false => spec.algorithms.clone().into(),
        };
        let consumer_claim = spec.consumer_claim.as_deref().unwrap_or("sub");
        let groups_claim = spec.groups_claim.as_deref().unwrap_or("groups");
        Ok(Jwt {
            places,
            algorithms,
            keys: keys_of(&spec.keys, refs)?,
            checks: checks_of(spec)?,
            consumer_claim: consumer_claim.into(),
            groups_claim: groups_claim.into(),
            claims: spec.claims_to_headers.iter().map(|one| one.claim.as_str().into()).collect(),
            headers: headers.into(),
            find,
            owner: Owner::new(),
        })
    }

    /// Takes over the tokens that `old` has verified. Only for the same Spec and Consumers.
    pub fn adopt(&mut self, old: &Self) {
        if self.keys.keys == old.keys.keys {
            self.owner = old.owner;
        }
    }

    /// Looks for a token and verifies it.
    pub fn authenticate(&self, head: &RequestHead, now_ms: u64) -> Verdict {
        let token = match self.places.find(head) {
            Found::One(token) => token,
            Found::Nothing => return Verdict::NoCredentials,
            Found::Several => return Verdict::Refused(Refusal::Several),
        };
        if token.len() > token::LONGEST {
            return Verdict::Refused(Refusal::TooLong);
        }
        let key = self.owner.key(&token);
        if let Some(known) = cache::find(&key) {
            return match known.validity.check(now_ms) {
                Ok(()) => Verdict::Accepted(known),
                Err(refusal) => {
                    cache::forget(&key);
                    Verdict::Refused(refusal)
                }
            };
        }
        match self.verify(&token, now_ms) {
            Ok((verified, values)) => {
                let verified = Arc::new(verified);
                cache::keep(key, &verified, token.len(), values);
                Verdict::Accepted(verified)
            }
            Err(Failure::Refused(refusal)) => Verdict::Refused(refusal),
            Err(Failure::NoKeys) => Verdict::Unavailable,
        }
    }

    /// Where tokens are looked for.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The fields that claims are written in, whatever the client wrote in them.
    pub fn claim_headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// What is cheap comes first, and `iss` before all keys: a token of another issuer must not
    /// let the keys of this one be fetched.
    fn verify(&self, text: &[u8], now_ms: u64) -> Result<(Verified, usize), Failure> {
        let token = Token::parse(text)?;
        self.checks.issuer(&token.claims)?;
        if !self.algorithms.contains(&token.algorithm) {
            return Err(Refusal::WrongAlgorithm.into());
        }
        let keys = self.keys.keys.as_ref().ok_or(Failure::NoKeys)?;
        keys.verify(&token).inspect_err(|refusal| {
            let unnamed = token.kid.is_none() && *refusal == Refusal::WrongSignature;
            if *refusal == Refusal::UnknownKey || unnamed {
                self.keys.refetch.ask();
            }
        })?;
        let validity = self.checks.all(&token.claims, now_ms)?;
        let values = token.values;
        Ok((self.verified(token, validity), values))
    }

    fn verified(&self, token: Token<'_>, validity: Validity) -> Verified {
        let claims = token.claims;
        let consumer_key = claim(&claims, &self.consumer_claim).and_then(Value::as_str);
        let consumer = consumer_key.and_then(|value| (self.find)(value));
        let subject = claims.get("sub").and_then(Value::as_str).or(consumer_key);
        let fields = self.headers.iter().zip(&self.claims);
        let headers =
            fields.filter_map(|(name, path)| claims::field(name, claim(&claims, path)?)).collect();
        let identity = Identity {
            method: Method::Jwt,
            subject: subject.unwrap_or_default().into(),
            consumer,
            groups: claims::names(claim(&claims, &self.groups_claim)),
            scopes: claims::scopes(&claims),
            claims,
        };
        Verified { identity: Arc::new(identity), headers, validity }
    }
}

/// Why a token is not accepted.
enum Failure {
    Refused(Refusal),
    NoKeys,
}

impl std::convert::From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

fn checks_of(spec: &Spec) -> Result<Checks, Invalid> {
    let time = |field: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => duration::parse(text).map(Some).map_err(|e| Invalid::new(field, e)),
    };
    let leeway = time("leeway", &spec.leeway)?.unwrap_or(LEEWAY);
    if leeway > LONGEST_LEEWAY {
        return Err(Invalid::new("leeway", "is longer than 5m; let the clocks be set instead"));
    }
    let longest = time("maxLifetime", &spec.max_lifetime)?;
    if longest.is_some_and(|longest| longest.is_zero()) {
        return Err(Invalid::new("maxLifetime", "is zero: no token could be used; remove it"));
    }
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Ok(Checks {
        issuer: spec.issuer.as_str().into(),
        audiences: spec.audiences.iter().map(|audience| audience.as_str().into()).collect(),
        leeway_ms: ms(leeway),
        max_lifetime_ms: longest.map(ms),
        required: spec.required_claims.clone().into(),
    })
}

/// The keys that a Spec names.
fn keys_of(keys: &Keys, refs: &Refs) -> Result<RemoteKeys, Invalid> {
    let fixed = |set: KeySet| RemoteKeys { keys: Some(Arc::new(set)), ..RemoteKeys::default() };
    if keys.hmac.is_some() && keys.secret_ref.is_none() {
        let message = "needs secretRef, where the secret is; set it, or remove hmac";
        return Err(Invalid::new("keys.hmac", message));
    }
    match keys {
        Keys { remote: Some(remote), inline: None, secret_ref: None, .. } => {
            refs.keys.get(remote).cloned().ok_or_else(|| {
                Invalid::new("keys.remote", "cannot be used; set uri, or backendRef and path")
            })
        }
        Keys { remote: None, inline: Some(text), secret_ref: None, .. } => {
            let wrong = |error| Invalid::new("keys.inline", error);
            jwks::read(text.as_bytes(), Publicity::Public).map(fixed).map_err(wrong)
        }
        Keys { remote: None, inline: None, secret_ref: Some(secret), hmac } => {
            in_secret(secret, *hmac, refs).map(fixed)
        }
        _ => Err(Invalid::new("keys", "set exactly one of remote, inline and secretRef")),
    }
}

fn in_secret(named: &SecretKeyRef, hmac: Option<Hmac>, refs: &Refs) -> Result<KeySet, Invalid> {
    let SecretKeyRef { name, key } = named;
    let Some(secret) = refs.secrets.get(name) else {
        let message = format!("Secret {name} does not exist; create it");
        return Err(Invalid::new("keys.secretRef.name", message));
    };
    let Some(value) = secret.get(key) else {
        let message = format!("Secret {name} has no key `{key}`; put it there");
        return Err(Invalid::new("keys.secretRef.key", message));
    };
    let read = match hmac {
        Some(hmac) => keys::Key::secret(None, value, Some(hmac.into()))
            .map(|key| KeySet::new(value, vec![key]))
            .map_err(str::to_owned),
        None if value.trim_ascii_start().starts_with(b"{") => jwks::read(value, Publicity::Secret),
        None => pem::read(value),
    };
    read.map_err(|error| {
        Invalid::new("keys.secretRef", format!("Secret {name}, key `{key}`: {error}"))
    })
}
