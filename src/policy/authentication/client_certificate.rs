//! Client certificates that the listener asked for and verified (Gateway API,
//! `spec.tls.frontend`): the name that is taken for the identity.
//!
//! Nothing is verified here. The proxy hands over names only of certificates that an authority
//! of the listener signed; where any certificate will do there are none.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::method::Outcome;
use crate::policy::certificate::Names;
use crate::policy::consumer::Consumers;
use crate::policy::identity::{Claims, Identity, Method};

/// The client's certificate, which the listener has verified.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ClientCertificateMethod")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// What in the certificate says who it is. A certificate that has no such name is refused;
    /// of several names, the first that is a Consumer's counts.
    #[serde(default)]
    pub identity: Source,
}

/// A name in a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Source {
    /// The common name of the subject.
    #[default]
    CommonName,
    /// The whole subject, as in RFC 4514: `CN=app,O=example`.
    Subject,
    /// DNS names (subjectAltName).
    #[serde(rename = "DNS")]
    Dns,
    /// URIs (subjectAltName), such as a SPIFFE ID.
    #[serde(rename = "URI")]
    Uri,
    /// E-mail addresses (subjectAltName).
    Email,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ClientCertificate {
    source: Source,
    consumers: Option<Arc<Consumers>>,
}

impl ClientCertificate {
    pub fn new(spec: &Spec, consumers: Option<Arc<Consumers>>) -> Self {
        ClientCertificate { source: spec.identity, consumers }
    }

    /// By the names of the certificate that the client has shown, if one was verified.
    pub fn check(&self, names: Option<&Names>) -> Outcome {
        let Some(names) = names else { return Outcome::Absent };
        let all = match self.source {
            Source::CommonName => names.common_name.as_slice(),
            Source::Subject => std::slice::from_ref(&names.subject),
            Source::Dns => &names.dns,
            Source::Uri => &names.uris,
            Source::Email => &names.emails,
        };
        let all = || all.iter().filter(|name| !name.is_empty());
        let known = self.consumers.as_ref();
        let known = known.and_then(|known| all().find_map(|name| known.by_certificate(name)));
        match (known, all().next()) {
            (Some(identity), _) => Outcome::Accepted(Arc::clone(identity)),
            (None, Some(name)) => Outcome::Accepted(Arc::new(Identity {
                method: Method::ClientCertificate,
                subject: name.clone(),
                consumer: None,
                groups: Box::default(),
                scopes: Box::default(),
                claims: Claims::default(),
            })),
            (None, None) => Outcome::Refused(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::consumer::Consumer;

    fn names() -> Names {
        Names {
            subject: "CN=app,O=example".into(),
            common_name: Some("app".into()),
            dns: ["a.example".into(), "b.example".into()].into(),
            uris: Box::default(),
            emails: Box::default(),
        }
    }

    #[test]
    fn the_named_part_is_the_identity_and_a_consumer_s_name_goes_first() {
        let mut consumers = Consumers::default();
        let consumer = Consumer {
            namespace: "ns".into(),
            name: "partner".into(),
            groups: [].into(),
            plan: None,
        };
        let partner = consumers.add(consumer);
        consumers.add_certificate(&partner, "b.example").unwrap();
        let consumers = Some(Arc::new(consumers));
        for (source, expected) in [
            (Source::CommonName, Some("app")),
            (Source::Subject, Some("CN=app,O=example")),
            (Source::Dns, Some("partner")),
            (Source::Uri, None),
            (Source::Email, None),
        ] {
            let method = ClientCertificate::new(&Spec { identity: source }, consumers.clone());
            let outcome = method.check(Some(&names()));
            assert_eq!(outcome.identity().map(|identity| identity.name()), expected, "{source:?}");
            assert!(matches!(method.check(None), Outcome::Absent));
        }
    }
}
