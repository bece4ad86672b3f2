//! Client certificates at the front (Gateway API, `spec.tls.frontend`, GEP-91): whether a TLS
//! port asks for one, and whether it has to be right.
//!
//! Only the verifiers. Which port has which is translate's work; that a session of one port is
//! not taken up again on another is seen to in [`super::tls`].

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::Bundle;
use super::tls::provider;

/// What the clients of a TLS port have to show.
#[derive(Clone, Debug, Default)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// A certificate for client authentication that one of the port's authorities signed
    /// (`AllowValidOnly`). Whoever has none fails the handshake.
    Require(Arc<dyn ClientCertVerifier>),
    /// They are asked, and any certificate or none will do (`AllowInsecureFallback`). Nothing of
    /// it is verified or used.
    Offer,
}

impl ClientAuth {
    /// Demands certificates of these authorities (PEM, one or more).
    ///
    /// # Errors
    /// A message for the user: there is no certificate in `authorities`, or one that is none.
    pub fn require(authorities: &[u8]) -> Result<Self, String> {
        let roots = Bundle::new(authorities)?.store;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(ClientAuth::Require(verifier))
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        match self {
            ClientAuth::None => WebPkiClientVerifier::no_client_auth(),
            ClientAuth::Require(verifier) => Arc::clone(verifier),
            ClientAuth::Offer => Arc::new(TakeAny),
        }
    }
}

/// Lets everyone in. The proof of the key is not looked at either: it would only refuse clients
/// whose certificate we cannot read, and nobody believes it.
#[derive(Debug)]
struct TakeAny;

impl ClientCertVerifier for TakeAny {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::pem;

    #[test]
    fn authorities_that_cannot_be_used_are_refused_with_a_message() {
        assert!(ClientAuth::require(b"").unwrap_err().contains("no certificate"));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(ClientAuth::require(broken).unwrap_err().contains("not a CA certificate"));
        assert!(ClientAuth::require(pem("ca.example").0.as_bytes()).is_ok());
    }
}
