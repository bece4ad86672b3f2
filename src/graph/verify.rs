//! Whether a backend's certificate is good where its server name does not decide: by its subject
//! alternative names, or not at all. Where the name decides, rustls' own verifier is used.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;

use super::backend_tls::SubjectName;
use super::tls::provider;

/// Both verifiers ask for proof of the certificate's key.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let supported = &provider().signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, cert, dss, supported)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let supported = &provider().signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, dss, supported)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Believes every certificate.
#[derive(Debug)]
pub(super) struct TakeAll;

impl ServerCertVerifier for TakeAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

/// Believes certificates of a chain to one of the roots that have one of the names.
#[derive(Debug)]
pub(super) struct ToNames {
    roots: Arc<RootCertStore>,
    names: Vec<SubjectName>,
}

impl ToNames {
    pub fn new(roots: Arc<RootCertStore>, names: Vec<SubjectName>) -> Self {
        ToNames { roots, names }
    }
}

impl ServerCertVerifier for ToNames {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )?;
        if self.names.iter().any(|name| has(name, &certificate, end_entity)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    signatures!();
}

/// Whether the certificate is made out for the name.
fn has(name: &SubjectName, parsed: &ParsedCertificate<'_>, der: &CertificateDer<'_>) -> bool {
    match name {
        SubjectName::Dns(name) => verify_server_name(parsed, name).is_ok(),
        SubjectName::Below(suffix) => any_name(der, |name| match name {
            GeneralName::DNSName(name) => {
                let name = name.to_ascii_lowercase();
                let label = name.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.'));
                label.is_some_and(|label| !label.is_empty())
            }
            _ => false,
        }),
        SubjectName::Uri(uri) => {
            any_name(der, |name| matches!(name, GeneralName::URI(own) if own == uri))
        }
    }
}

fn any_name(der: &CertificateDer<'_>, holds: impl Fn(&GeneralName<'_>) -> bool) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else { return false };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyPair, SanType};

    use super::*;

    /// A CA, and a certificate of it with these names.
    fn issued(names: &[SanType]) -> (Arc<RootCertStore>, CertificateDer<'static>) {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = ca.self_signed(&ca_key).unwrap().der().clone();
        let issuer = Issuer::new(ca, ca_key);
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = names.to_vec();
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let mut store = RootCertStore::empty();
        store.add(root).unwrap();
        (Arc::new(store), leaf.der().clone())
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(uri.try_into().unwrap())
    }

    fn host(name: &str) -> SubjectName {
        SubjectName::Dns(name.to_owned().try_into().unwrap())
    }

    fn verified(has: &[SanType], wanted: Vec<SubjectName>) -> bool {
        let (roots, leaf) = issued(has);
        let sent = ServerName::try_from("sent.example").unwrap();
        let verifier = ToNames::new(roots, wanted);
        verifier.verify_server_cert(&leaf, &[], &sent, &[], UnixTime::now()).is_ok()
    }

    #[test]
    fn one_of_the_names_is_enough_and_the_server_name_does_not_count() {
        let has = [dns("a.example"), uri("spiffe://example/a")];
        assert!(verified(&has, vec![host("a.example")]));
        assert!(verified(&has, vec![SubjectName::Uri("spiffe://example/a".into())]));
        assert!(verified(&has, vec![host("b.example"), host("a.example")]));
        assert!(!verified(&has, vec![host("b.example")]));
        assert!(!verified(&[dns("sent.example")], vec![host("a.example")]));
    }

    #[test]
    fn a_uri_is_compared_as_a_whole_and_is_no_host_name() {
        let named = |text: &str| vec![SubjectName::Uri(text.into())];
        let has = [uri("spiffe://example/a")];
        assert!(!verified(&has, named("spiffe://example/")));
        assert!(!verified(&has, named("spiffe://example/a/b")));
        assert!(!verified(&[dns("spiffe.example")], named("spiffe.example")));
    }

    #[test]
    fn a_wildcard_stands_for_names_below_it() {
        let below = || vec![SubjectName::Below("example.com".into())];
        assert!(verified(&[dns("a.example.com")], below()));
        assert!(verified(&[dns("A.B.Example.com")], below()));
        assert!(verified(&[dns("*.example.com")], below()));
        assert!(!verified(&[dns("example.com")], below()));
        assert!(!verified(&[dns("badexample.com")], below()));
    }

    #[test]
    fn a_certificate_for_a_wildcard_covers_one_label() {
        assert!(verified(&[dns("*.example.com")], vec![host("a.example.com")]));
        assert!(!verified(&[dns("*.example.com")], vec![host("a.b.example.com")]));
    }

    #[test]
    fn a_name_of_another_authority_proves_nothing() {
        let (_, leaf) = issued(&[dns("a.example")]);
        let (roots, _) = issued(&[]);
        let verifier = ToNames::new(roots, vec![host("a.example")]);
        let sent = ServerName::try_from("a.example").unwrap();
        assert!(verifier.verify_server_cert(&leaf, &[], &sent, &[], UnixTime::now()).is_err());
    }
}
