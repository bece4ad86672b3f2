//! What a `validation` asks of a backend's certificate: of a BackendTLSPolicy and of an XBackend.
//!
//! While something of it cannot be had there is no [`TlsSpec`], and no connection may be made:
//! neither in clear text nor to somebody who has proved nothing.

use std::sync::Arc;

use rustls_pki_types::ServerName;

use super::authorities::Authority;
use super::hostname;
use super::pass::Pass;
use super::references::From;
use super::status::Problem;
use crate::api::gateway::{
    BackendTlsValidation, LocalObjectReference, SubjectAltName, SubjectAltNameType,
    WellKnownCaCertificates,
};
use crate::graph::{Bundle, Roots, SubjectName, TlsSpec, Verify};

/// Most `subjectAltNames` (BackendTLSPolicy).
const MAX_NAMES: usize = 5;

/// A validation that was looked through.
#[derive(Clone, Debug)]
pub(super) struct Validated {
    /// For HTTP, without a client certificate; or why there are no connections (`Accepted`).
    pub spec: Result<TlsSpec, Problem>,
    /// The first reference that leads to no CA certificate (`ResolvedRefs`).
    pub unresolved: Option<Problem>,
}

impl Pass<'_> {
    /// Looks through the validation that stands at the field `at` of the object of `from`.
    pub fn validated(&mut self, from: From<'_>, at: &str, of: &BackendTlsValidation) -> Validated {
        let (roots, unresolved) = self.roots(from, at, of);
        let spec = roots.and_then(|roots| {
            let hostname = precise(&of.hostname)
                .map_err(|message| invalid(format!("{at}.hostname"), message))?;
            let verify = verify(at, &of.subject_alt_names)?;
            Ok(TlsSpec { verify, ..TlsSpec::new(hostname, roots) })
        });
        Validated { spec, unresolved }
    }

    fn roots(
        &mut self,
        from: From<'_>,
        at: &str,
        of: &BackendTlsValidation,
    ) -> (Result<Roots, Problem>, Option<Problem>) {
        let refs = &of.ca_certificate_refs;
        let well_known = of.well_known_ca_certificates.as_ref();
        let wrong = |field: &str, message: String| invalid(format!("{at}.{field}"), message);
        match (well_known, refs.is_empty()) {
            (None, true) => {
                let message = "whom to believe is not said; set caCertificateRefs or \
                               wellKnownCACertificates";
                (Err(invalid(at.to_owned(), message.to_owned())), None)
            }
            (Some(_), false) => {
                let message = "both caCertificateRefs and wellKnownCACertificates are set; remove \
                               one";
                (Err(invalid(at.to_owned(), message.to_owned())), None)
            }
            (Some(WellKnownCaCertificates::System), true) => (Ok(Roots::System), None),
            (Some(other), true) => {
                let message = format!("{other} is not supported; use System");
                (Err(wrong("wellKnownCACertificates", message)), None)
            }
            (None, false) => {
                let (bundles, unresolved) = self.bundles(from, at, refs);
                if bundles.is_empty() {
                    let message = "no reference leads to a CA certificate, and without one nobody \
                                   can be believed; see ResolvedRefs";
                    let field = format!("{at}.caCertificateRefs");
                    (Err(Problem::new("NoValidCACertificate", field, message)), unresolved)
                } else {
                    (Ok(Roots::Own(Bundle::joined(&bundles))), unresolved)
                }
            }
        }
    }

    /// The certificates of the references that lead to good ones, and what is wrong with the
    /// first that does not.
    fn bundles(
        &mut self,
        from: From<'_>,
        at: &str,
        refs: &[LocalObjectReference],
    ) -> (Vec<Arc<Bundle>>, Option<Problem>) {
        let (mut bundles, mut unresolved) = (Vec::new(), None);
        for (i, reference) in refs.iter().enumerate() {
            let LocalObjectReference { group, kind, name } = reference;
            let pem = self.authority(from, Authority { group, kind, name, namespace: None });
            let good = pem.and_then(|pem| {
                let wrong =
                    |message| ("InvalidCACertificateRef", format!("{kind} {name}: {message}"));
                self.memo.bundle(&pem).map_err(wrong)
            });
            match good {
                Ok(bundle) => bundles.push(bundle),
                Err((reason, message)) => {
                    // Named otherwise in the status of a Gateway.
                    let reason = match reason {
                        "InvalidCACertificateKind" => "InvalidKind",
                        reason => reason,
                    };
                    let field = format!("{at}.caCertificateRefs[{i}]");
                    unresolved.get_or_insert(Problem::new(reason, field, message));
                }
            }
        }
        (bundles, unresolved)
    }
}

fn invalid(field: String, message: String) -> Problem {
    Problem::new("Invalid", field, message)
}

/// A host name without wildcard.
///
/// # Errors
/// A message for the user.
pub(super) fn precise(text: &str) -> Result<String, String> {
    let name = hostname::parse(text)?;
    if name.starts_with('*') {
        return Err(format!("{text:?} is a wildcard; use a name such as app.example.com"));
    }
    Ok(name)
}

fn verify(at: &str, names: &[SubjectAltName]) -> Result<Verify, Problem> {
    if names.is_empty() {
        return Ok(Verify::ServerName);
    }
    let at = format!("{at}.subjectAltNames");
    if names.len() > MAX_NAMES {
        let message = format!("{} names, at most {MAX_NAMES} are allowed", names.len());
        return Err(invalid(at, message));
    }
    let mut wanted = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let at = format!("{at}[{i}]");
        wanted.push(match &name.r#type {
            SubjectAltNameType::Hostname => host(&name.hostname)
                .map_err(|message| invalid(format!("{at}.hostname"), message))?,
            SubjectAltNameType::Uri => {
                uri(&name.uri).map_err(|message| invalid(format!("{at}.uri"), message))?
            }
            SubjectAltNameType::Other(other) => {
                let message = format!("{other:?} is not supported; use Hostname or URI");
                return Err(invalid(format!("{at}.type"), message));
            }
        });
    }
    Ok(Verify::Names(wanted))
}

fn host(text: &str) -> Result<SubjectName, String> {
    let name = hostname::parse(text)?;
    if let Some(suffix) = name.strip_prefix("*.") {
        return Ok(SubjectName::Below(suffix.to_owned()));
    }
    let name = ServerName::try_from(name).map_err(|_| format!("{text:?} is not a host name"))?;
    Ok(SubjectName::Dns(name))
}

/// An absolute URI: a scheme and something after it (RFC 3986, 4.3).
fn uri(text: &str) -> Result<SubjectName, String> {
    let wrong = || format!("{text:?} is not a URI; write it like spiffe://example.com/name");
    let (scheme, rest) = text.split_once(':').ok_or_else(wrong)?;
    let of_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    let good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(of_scheme)
        && !rest.is_empty()
        && rest.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(SubjectName::Uri(text.to_owned())) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_uris_are_names() {
        for good in ["spiffe://example.com/a", "urn:uuid:1", "http://a"] {
            assert_eq!(uri(good), Ok(SubjectName::Uri(good.into())));
        }
        for bad in ["", "a", "://a", "1a:b", "a:", "a b:c", "a:b c", "spiffe//x"] {
            assert!(uri(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_name_may_be_a_wildcard_where_names_are_compared_only() {
        assert_eq!(host("*.Example.com"), Ok(SubjectName::Below("example.com".into())));
        assert!(matches!(host("a.example.com"), Ok(SubjectName::Dns(_))));
        assert!(host("192.0.2.1").is_err());
        assert!(precise("*.example.com").is_err());
        assert_eq!(precise("A.example.com").as_deref(), Ok("a.example.com"));
    }
}
