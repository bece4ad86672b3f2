//! Certificates out of Secrets.
//!
//! While a Secret is broken, its last version that was good keeps serving; the problem is told
//! all the same. A certificate that has ended is shown, because there is none better, and told.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::hostname;
use super::memo::Recall;
use super::{Key, Snapshot};
use crate::graph::certified_key;

/// The reason of a note about a certificate that has ended.
pub(super) const EXPIRED: &str = "CertificateExpired";

/// A certificate that can be shown, and what stands in it.
#[derive(Debug)]
pub(super) struct Parsed {
    pub key: Arc<CertifiedKey>,
    /// The host names that it is made out for (its subjectAltNames), wildcards too.
    pub names: Vec<String>,
    /// The last moment of its validity, if it can be read.
    ends: Option<Timestamp>,
}

/// What a Secret gave.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    /// The one to show: of the Secret as it is, or of its last good version.
    pub shown: Option<Arc<Parsed>>,
    /// What is wrong with the Secret as it is.
    pub problem: Option<String>,
    /// That the one that is shown has ended.
    pub expired: Option<String>,
}

/// What this pass has read.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    read: BTreeMap<Key, Certificate>,
}

impl Certificates {
    /// The certificate of the Secret `key` (`tls.crt` and `tls.key`).
    pub fn of(&mut self, snapshot: &Snapshot, memo: &mut Recall<'_>, key: &Key) -> &Certificate {
        self.read.entry(key.clone()).or_insert_with(|| {
            let secret = snapshot.secrets.get(key);
            let now = match secret {
                None => Err(format!("Secret {key} does not exist; create it")),
                Some(secret) => {
                    memo.certificate(secret).map_err(|message| format!("Secret {key}: {message}"))
                }
            };
            let (shown, problem) = match now {
                Ok(shown) => (Some(shown), None),
                Err(problem) => {
                    // A Secret that is gone was taken away on purpose.
                    let good = snapshot.good_certificates.get(key).filter(|_| secret.is_some());
                    let shown = good.and_then(|secret| memo.certificate(secret).ok());
                    let kept =
                        if shown.is_some() { "; its last good version is served" } else { "" };
                    (shown, Some(format!("{problem}{kept}")))
                }
            };
            let ends = shown.as_ref().and_then(|shown| shown.ends);
            let expired = ends.filter(|ends| *ends < snapshot.taken).map(|ends| {
                format!(
                    "the certificate of Secret {key} ended at {ends}, and clients refuse it; renew it"
                )
            });
            Certificate { shown, problem, expired }
        })
    }

    /// The Secrets that are good as they are.
    pub fn good(&self) -> impl Iterator<Item = &Key> {
        self.read.iter().filter(|(_, read)| read.problem.is_none()).map(|(key, _)| key)
    }
}

/// Reads `tls.crt` and `tls.key`.
///
/// # Errors
/// A message for the user, without anything of the key.
pub(super) fn parse(secret: &Secret) -> Result<Arc<Parsed>, String> {
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
    let (names, ends) = leaf(&key);
    Ok(Arc::new(Parsed { key: Arc::new(key), names, ends }))
}

/// The names of the certificate, and when it ends.
fn leaf(key: &CertifiedKey) -> (Vec<String>, Option<Timestamp>) {
    let leaf = key.cert.first();
    let Some((_, leaf)) = leaf.and_then(|der| x509_parser::parse_x509_certificate(der).ok()) else {
        return (Vec::new(), None);
    };
    let ends = Timestamp::from_second(leaf.validity().not_after.timestamp()).ok();
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return (Vec::new(), ends) };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => hostname::parse(name).ok(),
        _ => None,
    });
    (dns.collect(), ends)
}
