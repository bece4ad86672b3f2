//! Public keys and certificates in PEM (RFC 7468), as people keep them in Secrets. They have no
//! `kid`, so tokens may name whatever they like. Of a certificate only the key counts: it is
//! trusted because it stands there, not because somebody signed it.

use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::keys::{Curve, Key, KeySet, Material};

/// Most keys.
const MOST: usize = 16;
/// The algorithms and curves by their object identifiers (RFC 5480, 2.1; RFC 8410, 3).
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const P521: &str = "1.3.132.0.35";
const ED25519: &str = "1.3.101.112";

/// Reads all keys of the text.
///
/// # Errors
/// A message for the user, as the end of a sentence about the text.
pub(super) fn read(text: &[u8]) -> Result<KeySet, String> {
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (kind, der) = section.map_err(|error| format!("is no PEM: {error}"))?;
        let key = match kind {
            SectionKind::PublicKey => public_key(&der),
            SectionKind::Certificate => certificate(&der),
            _ => Err("is neither a PUBLIC KEY nor a CERTIFICATE; write it as one of these"),
        };
        keys.push(key.map_err(|why| format!("has a section that {why}"))?);
        if keys.len() > MOST {
            return Err(format!("has more than {MOST} keys; use a JWKS"));
        }
    }
    match keys.is_empty() {
        true => Err("has neither a JWKS nor a PUBLIC KEY in PEM".into()),
        false => Ok(KeySet::new(text, keys)),
    }
}

fn certificate(der: &[u8]) -> Result<Key, &'static str> {
    let parsed = x509_parser::parse_x509_certificate(der);
    let (_, certificate) = parsed.map_err(|_| "is no certificate")?;
    key(certificate.public_key())
}

fn public_key(der: &[u8]) -> Result<Key, &'static str> {
    match SubjectPublicKeyInfo::from_der(der) {
        Ok((&[], info)) => key(&info),
        _ => Err("is no public key"),
    }
}

fn key(info: &SubjectPublicKeyInfo<'_>) -> Result<Key, &'static str> {
    let unsupported = "is a key of a kind or curve that is not supported";
    if info.algorithm.algorithm.to_id_string() == ED25519 {
        let point = &*info.subject_public_key.data;
        return Key::public(None, Material::Curve(Curve::Ed25519, point), None);
    }
    match info.parsed().map_err(|_| unsupported)? {
        PublicKey::RSA(rsa) => {
            let n = without_zeros(rsa.modulus);
            Key::public(None, Material::Rsa { n, e: without_zeros(rsa.exponent) }, None)
        }
        PublicKey::EC(point) => {
            let parameters = info.algorithm.parameters.as_ref();
            let curve = parameters.and_then(|parameters| parameters.as_oid().ok());
            let curve = match curve.map(|curve| curve.to_id_string()).as_deref() {
                Some(P256) => Curve::P256,
                Some(P384) => Curve::P384,
                Some(P521) => Curve::P521,
                _ => return Err(unsupported),
            };
            Key::public(None, Material::Curve(curve, point.data()), None)
        }
        _ => Err(unsupported),
    }
}

/// DER writes a zero before a number whose first bit is set.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
