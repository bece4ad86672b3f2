//! One method of authentication, as the policy sees it: it says whether a request has its
//! credentials and whose they are, and takes them away.

use std::sync::Arc;

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api_key::{self, ApiKey};
use super::basic::{self, Basic};
use super::challenge::{Challenge, Realm};
use super::client_certificate::{self, ClientCertificate};
use super::counters;
use crate::policy::consumer::Consumers;
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
}

/// A [`Spec`], compiled.
#[derive(Debug)]
pub enum Method {
    Jwt(Box<Jwt>),
    ApiKey(ApiKey),
    Basic(Box<Basic>),
    ClientCertificate(ClientCertificate),
}

/// What a method makes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It has no credentials of this method.
    Absent,
    Accepted(Arc<Identity>),
    /// By a token, of which the backend gets some claims.
    Token(Arc<Verified>),
    /// It has, and they are wrong; of a token it is known how.
    Refused(Option<jwt::Refusal>),
    /// They were right once.
    Expired,
    /// Nobody can say whether they are right: an answer of this reason.
    Unavailable(Reason),
}

impl Outcome {
    /// The identity, if there is one.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Outcome::Accepted(identity) => Some(identity),
            Outcome::Token(verified) => Some(&verified.identity),
            _ => None,
        }
    }

    /// As it is counted; nothing is where nothing was shown.
    pub fn counted(&self) -> Option<counters::Outcome> {
        Some(match self {
            Outcome::Absent => return None,
            Outcome::Accepted(_) | Outcome::Token(_) => counters::Outcome::Allowed,
            Outcome::Refused(Some(jwt::Refusal::Expired)) | Outcome::Expired => {
                counters::Outcome::Expired
            }
            Outcome::Refused(_) => counters::Outcome::Invalid,
            Outcome::Unavailable(_) => counters::Outcome::Unavailable,
        })
    }
}

impl Method {
    /// # Errors
    /// The field below `methods[…]`.
    pub fn compile(spec: &Spec, refs: &Refs) -> Result<Self, Invalid> {
        let consumers = refs.consumers.clone();
        let below = |field: &str| {
            let field = field.to_owned();
            move |error: Invalid| Invalid::new(format!("{field}.{}", error.field), error.message)
        };
        match spec {
            Spec { jwt: Some(spec), api_key: None, basic: None, client_certificate: None } => {
                let find = consumer_of(spec.issuer.clone(), consumers);
                let jwt = Jwt::compile(spec, refs, find).map_err(below("jwt"))?;
                Ok(Method::Jwt(Box::new(jwt)))
            }
            Spec { jwt: None, api_key: Some(spec), basic: None, client_certificate: None } => {
                Ok(Method::ApiKey(ApiKey::compile(spec, consumers).map_err(below("apiKey"))?))
            }
            Spec { jwt: None, api_key: None, basic: Some(spec), client_certificate: None } => {
                let basic = Basic::compile(spec, refs).map_err(below("basic"))?;
                Ok(Method::Basic(Box::new(basic)))
            }
            Spec { jwt: None, api_key: None, basic: None, client_certificate: Some(spec) } => {
                Ok(Method::ClientCertificate(ClientCertificate::new(spec, consumers)))
            }
            _ => {
                Err(Invalid::new("", "set exactly one of jwt, apiKey, basic and clientCertificate"))
            }
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
        }
    }

    /// The fields that it tells the backend of an identity in.
    pub fn claim_headers(&self) -> &[HeaderName] {
        match self {
            Method::Jwt(jwt) => jwt.claim_headers(),
            _ => &[],
        }
    }

    /// Where its credentials stand in a request.
    pub fn places(&self) -> Option<&Places> {
        match self {
            Method::Jwt(jwt) => Some(jwt.places()),
            Method::ApiKey(keys) => Some(keys.places()),
            Method::Basic(basic) => Some(basic.places()),
            Method::ClientCertificate(_) => None,
        }
    }

    pub fn challenge(&self, realm: &Realm) -> Challenge {
        match self {
            Method::Jwt(_) => realm.challenge("Bearer", ""),
            Method::ApiKey(_) => realm.challenge("ApiKey", ""),
            Method::Basic(_) => realm.challenge("Basic", ", charset=\"UTF-8\""),
            Method::ClientCertificate(_) => realm.challenge("ClientCertificate", ""),
        }
    }

    pub const fn kind(&self) -> identity::Method {
        match self {
            Method::Jwt(_) => identity::Method::Jwt,
            Method::ApiKey(_) => identity::Method::ApiKey,
            Method::Basic(_) => identity::Method::Basic,
            Method::ClientCertificate(_) => identity::Method::ClientCertificate,
        }
    }

    /// Takes over what the same method of the policy before it remembers.
    pub fn adopt(&mut self, old: &Self, same_consumers: bool) {
        match (self, old) {
            (Method::Jwt(new), Method::Jwt(old)) if same_consumers => new.adopt(old),
            (Method::Basic(new), Method::Basic(old)) => new.adopt(old),
            _ => {}
        }
    }
}

/// Whom tokens of an issuer speak for.
fn consumer_of(issuer: String, consumers: Option<Arc<Consumers>>) -> jwt::FindConsumer {
    Box::new(move |value| consumers.as_ref()?.by_token(&issuer, value).cloned())
}
