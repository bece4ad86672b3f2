//! One method of authentication, as the policy sees it: it says whether a request has its
//! credentials and whose they are, and takes them away.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api_key::{self, ApiKey};
use super::basic::{self, Basic};
use super::challenge::{Challenge, Realm};
use super::client_certificate::{self, ClientCertificate};
use super::external::External;
use super::{Presence, counters};
use crate::policy::consumer::Consumers;
use crate::policy::external_auth::{self, Changes, Refusal};
use crate::policy::identity::{self, Identity};
use crate::policy::jwt::{self, Jwt, Verified};
use crate::policy::place::Places;
use crate::policy::{Exchange, Invalid, Refs};
use crate::reason::Reason;

/// One way to be recognised: exactly one of its members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuthenticationMethod")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Signed tokens of an issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<jwt::Spec>,
    /// API keys of the namespace's Consumers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<api_key::Spec>,
    /// User name and password by HTTP Basic (RFC 7617).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<basic::Spec>,
    /// A certificate that the listener asked for and verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<client_certificate::Spec>,
    /// A service that says who asks: forward auth by HTTP, or Envoy's protocol by gRPC. The fields
    /// are those of `externalAuth`; `identity` must be set, `failOpen` cannot. A policy has one
    /// such method at most. With AnyOf the service is asked only if no method before it accepts.
    /// A yes that says who it is accepts; one that does not is refused. If nobody is recognised,
    /// a no is answered as the service says it (a redirect, a body), where it is 401 with the
    /// challenges of the other methods. Without an answer of the service it is 503. With presence
    /// Optional, a 401 of the service counts as no credentials, so that `signIn` is not used;
    /// every other no is wrong ones. The backend gets only fields that are listed, and what
    /// clients write in these and in those of `identity` is removed, whichever method accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Box<external_auth::Spec>>,
}

/// A [`Spec`], compiled.
#[derive(Debug)]
pub enum Method {
    Jwt(Box<Jwt>),
    ApiKey(ApiKey),
    Basic(Box<Basic>),
    ClientCertificate(ClientCertificate),
    External(Box<External>),
}

/// What a method makes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It has no credentials of this method.
    Absent,
    Accepted(Arc<Identity>),
    /// By a token, of which the backend gets some claims.
    Token(Arc<Verified>),
    /// By a service, with what it wants changed.
    Vouched(Arc<Identity>, Arc<Changes>),
    /// It has, and they are wrong; of a token it is known how.
    Refused(Option<jwt::Refusal>),
    /// A service said no: its own answer.
    Denied(Arc<Refusal>),
    /// They were right once.
    Expired,
    /// Nobody can say whether they are right: an answer of this reason.
    Unavailable(Reason),
}

impl Outcome {
    /// The identity, if there is one.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Outcome::Accepted(identity) | Outcome::Vouched(identity, _) => Some(identity),
            Outcome::Token(verified) => Some(&verified.identity),
            _ => None,
        }
    }

    /// As it is counted; nothing is where nothing was shown.
    pub fn counted(&self) -> Option<counters::Outcome> {
        Some(match self {
            Outcome::Absent => return None,
            Outcome::Accepted(_) | Outcome::Token(_) | Outcome::Vouched(..) => {
                counters::Outcome::Allowed
            }
            Outcome::Refused(Some(jwt::Refusal::Expired)) | Outcome::Expired => {
                counters::Outcome::Expired
            }
            Outcome::Refused(_) | Outcome::Denied(_) => counters::Outcome::Invalid,
            Outcome::Unavailable(_) => counters::Outcome::Unavailable,
        })
    }
}

impl Method {
    /// # Errors
    /// The field below `methods[…]`.
    pub fn compile(spec: &Spec, presence: Presence, refs: &Refs) -> Result<Self, Invalid> {
        let consumers = refs.consumers.clone();
        let below = |field: &str| {
            let field = field.to_owned();
            move |error: Invalid| Invalid::new(format!("{field}.{}", error.field), error.message)
        };
        let Spec { jwt, api_key, basic, client_certificate, external } = spec;
        match (jwt, api_key, basic, client_certificate, external) {
            (Some(spec), None, None, None, None) => {
                let find = consumer_of(spec.issuer.clone(), consumers);
                let jwt = Jwt::compile(spec, refs, find).map_err(below("jwt"))?;
                Ok(Method::Jwt(Box::new(jwt)))
            }
            (None, Some(spec), None, None, None) => {
                Ok(Method::ApiKey(ApiKey::compile(spec, consumers).map_err(below("apiKey"))?))
            }
            (None, None, Some(spec), None, None) => {
                let basic = Basic::compile(spec, refs).map_err(below("basic"))?;
                Ok(Method::Basic(Box::new(basic)))
            }
            (None, None, None, Some(spec), None) => {
                Ok(Method::ClientCertificate(ClientCertificate::new(spec, consumers)))
            }
            (None, None, None, None, Some(spec)) => {
                let external =
                    External::compile(spec, presence, refs).map_err(below("external"))?;
                Ok(Method::External(Box::new(external)))
            }
            _ => Err(Invalid::new(
                "",
                "set exactly one of jwt, apiKey, basic, clientCertificate and external",
            )),
        }
    }

    pub async fn check(&self, ex: &Exchange<'_>) -> Outcome {
        match self {
            Method::Jwt(jwt) => match jwt.authenticate(&ex.request, ex.now_ms) {
                jwt::Verdict::NoCredentials => Outcome::Absent,
                jwt::Verdict::Accepted(verified) => Outcome::Token(verified),
                jwt::Verdict::Refused(why) => Outcome::Refused(Some(counters::refused(why, ex))),
                jwt::Verdict::Unavailable => Outcome::Unavailable(Reason::AuthUnavailable),
            },
            Method::ApiKey(keys) => keys.check(&ex.request, ex.now_ms),
            Method::Basic(basic) => basic.check(&ex.request.headers).await,
            Method::ClientCertificate(certificate) => certificate.check(ex.lent.certificate()),
            Method::External(external) => external.check(ex).await,
        }
    }

    /// The fields that it tells the backend of an identity in.
    pub fn claim_headers(&self) -> Vec<&HeaderName> {
        match self {
            Method::Jwt(jwt) => jwt.claim_headers().iter().collect(),
            Method::External(external) => external.identity_headers().collect(),
            Method::ApiKey(_) | Method::Basic(_) | Method::ClientCertificate(_) => Vec::new(),
        }
    }

    /// Removes what nobody but it may write in the request, once it is decided.
    pub fn strip(&self, headers: &mut HeaderMap) {
        if let Method::External(external) = self {
            external.strip(headers);
        }
    }

    /// Where its credentials stand in a request, as far as we know.
    pub fn places(&self) -> Option<&Places> {
        match self {
            Method::Jwt(jwt) => Some(jwt.places()),
            Method::ApiKey(keys) => Some(keys.places()),
            Method::Basic(basic) => Some(basic.places()),
            Method::ClientCertificate(_) | Method::External(_) => None,
        }
    }

    pub fn challenge(&self, realm: &Realm) -> Challenge {
        match self {
            Method::Jwt(_) => realm.challenge("Bearer", ""),
            Method::ApiKey(_) => realm.challenge("ApiKey", ""),
            Method::Basic(_) => realm.challenge("Basic", ", charset=\"UTF-8\""),
            Method::ClientCertificate(_) => realm.challenge("ClientCertificate", ""),
            Method::External(_) => realm.challenge("External", ""),
        }
    }

    pub const fn kind(&self) -> identity::Method {
        match self {
            Method::Jwt(_) => identity::Method::Jwt,
            Method::ApiKey(_) => identity::Method::ApiKey,
            Method::Basic(_) => identity::Method::Basic,
            Method::ClientCertificate(_) => identity::Method::ClientCertificate,
            Method::External(_) => identity::Method::External,
        }
    }

    /// Takes over what the same method of the policy before it remembers.
    pub fn adopt(&mut self, old: &Self, same_consumers: bool) {
        match (self, old) {
            (Method::Jwt(new), Method::Jwt(old)) if same_consumers => new.adopt(old),
            (Method::Basic(new), Method::Basic(old)) => new.adopt(old),
            (Method::External(new), Method::External(old)) => new.adopt(old),
            _ => {}
        }
    }
}

/// Whom tokens of an issuer speak for.
fn consumer_of(issuer: String, consumers: Option<Arc<Consumers>>) -> jwt::FindConsumer {
    Box::new(move |value| consumers.as_ref()?.by_token(&issuer, value).cloned())
}
