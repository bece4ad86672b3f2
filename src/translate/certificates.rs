//! Certificates out of Secrets, each read once a pass.
//!
//! While a Secret is broken, its last version that was good keeps serving; the problem is told
//! all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::hostname;
use super::{Key, Snapshot};
use crate::graph::certified_key;

/// What a Secret gave.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    /// The one to show: of the Secret as it is, or of its last good version.
    pub shown: Option<Arc<CertifiedKey>>,
    /// What is wrong with the Secret as it is.
    pub problem: Option<String>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    read: BTreeMap<Key, Certificate>,
}

impl Certificates {
    /// The certificate of the Secret `key` (`tls.crt` and `tls.key`).
    pub fn of(&mut self, snapshot: &Snapshot, key: &Key) -> &Certificate {
        self.read.entry(key.clone()).or_insert_with(|| {
            let secret = snapshot.secrets.get(key);
            let now = match secret {
                None => Err(format!("Secret {key} does not exist; create it")),
                Some(secret) => read(secret).map_err(|message| format!("Secret {key}: {message}")),
            };
            match now {
                Ok(shown) => Certificate { shown: Some(shown), problem: None },
                Err(problem) => {
                    // A Secret that is gone was taken away on purpose.
                    let good = snapshot.good_certificates.get(key).filter(|_| secret.is_some());
                    let shown = good.and_then(|secret| read(secret).ok());
                    let kept =
                        if shown.is_some() { "; its last good version is served" } else { "" };
                    Certificate { shown, problem: Some(format!("{problem}{kept}")) }
                }
            }
        })
    }

    /// The Secrets that are good as they are.
    pub fn good(&self) -> impl Iterator<Item = &Key> {
        self.read.iter().filter(|(_, read)| read.problem.is_none()).map(|(key, _)| key)
    }
}

fn read(secret: &Secret) -> Result<Arc<CertifiedKey>, String> {
    let field = |name: &str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(name))
            .map(|bytes| bytes.0.as_slice())
            .or_else(|| secret.string_data.as_ref()?.get(name).map(|text| text.as_bytes()))
            .ok_or_else(|| format!("{name} is missing; a kubernetes.io/tls Secret has it"))
    };
    let key = certified_key(field("tls.crt")?, field("tls.key")?)?;
    Ok(Arc::new(key))
}

/// The host names that the certificate is made out for (its subjectAltNames), wildcards too.
pub(super) fn names(certificate: &CertifiedKey) -> Vec<String> {
    let leaf = certificate.cert.first();
    let Some((_, leaf)) = leaf.and_then(|der| x509_parser::parse_x509_certificate(der).ok()) else {
        return Vec::new();
    };
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => hostname::parse(name).ok(),
        _ => None,
    });
    dns.collect()
}
