//! Who asks, once an authentication policy has found out: what authorization, limits by
//! consumer and the access log go by. How it is found out is `authentication`'s work.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::consumer::Consumer;

/// The claims of a JWT (RFC 7519, 4).
pub type Claims = Map<String, Value>;

/// How somebody was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    Jwt,
    ApiKey,
    Basic,
    ClientCertificate,
    /// An external authorization service said so.
    External,
    /// Nobody in particular, where a policy lets such requests through under a consumer's name.
    Anonymous,
}

impl Method {
    pub const ALL: &[Method] = &[
        Method::Jwt,
        Method::ApiKey,
        Method::Basic,
        Method::ClientCertificate,
        Method::External,
        Method::Anonymous,
    ];

    /// The word in metrics and expressions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Jwt => "jwt",
            Method::ApiKey => "api_key",
            Method::Basic => "basic",
            Method::ClientCertificate => "client_certificate",
            Method::External => "external",
            Method::Anonymous => "anonymous",
        }
    }
}

/// Somebody who was recognised. Shared: credentials that are seen again give the same one.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    pub method: Method,
    /// A JWT's `sub`, a user name, a certificate's name, the name of a key: never a secret.
    pub subject: Box<str>,
    /// Who it is among the Consumers of the policy's namespace.
    pub consumer: Option<Arc<Consumer>>,
    /// Groups that the credentials themselves tell of, such as a JWT's claim.
    pub groups: Box<[Box<str>]>,
    /// A JWT's `scope` (RFC 8693, 4.2) or `scp`, word by word.
    pub scopes: Box<[Box<str>]>,
    /// Empty, but for a JWT.
    pub claims: Claims,
}

impl Identity {
    /// The Consumer's name, else the subject: what the log and the metrics show.
    pub fn name(&self) -> &str {
        self.consumer.as_ref().map_or(&self.subject, |consumer| &consumer.name)
    }

    /// Groups of the Consumer and of the credentials.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        let of_consumer = self.consumer.iter().flat_map(|consumer| consumer.groups.iter());
        of_consumer.chain(self.groups.iter()).map(|group| &**group)
    }

    /// The plan of the Consumer, if it has one.
    pub fn plan(&self) -> Option<&str> {
        self.consumer.as_ref()?.plan.as_deref()
    }

    /// See [`claim`].
    pub fn claim(&self, path: &str) -> Option<&Value> {
        claim(&self.claims, path)
    }
}

/// The claim at a path of names with dots between them (`realm_access.roles`); a claim whose
/// own name is the whole path comes first.
pub fn claim<'c>(claims: &'c Claims, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut parts = path.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_found_by_its_name_and_by_a_path() {
        let claims = serde_json::json!({"a.b": 1, "a": {"b": 2, "c": {"d": 3}}});
        let Value::Object(claims) = claims else { unreachable!("an object") };
        let identity = Identity {
            method: Method::Jwt,
            subject: "s".into(),
            consumer: None,
            groups: Box::default(),
            scopes: Box::default(),
            claims,
        };
        assert_eq!(identity.claim("a.b"), Some(&Value::from(1)));
        assert_eq!(identity.claim("a.c.d"), Some(&Value::from(3)));
        assert_eq!(identity.claim("a.x"), None);
        assert_eq!(identity.name(), "s");
    }
}
