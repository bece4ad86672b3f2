//! Keys that tokens are verified with, and sets of them.
//!
//! A key knows the algorithms that it may be used with: the one that its `alg` names, or those
//! that its type and curve allow (RFC 7517, 4.4; RFC 8725, 3.1). A token can only name one of
//! them; so a public key is never taken for a shared secret. Reading key sets is in `jwks`,
//! PEM in `pem`.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents};
use aws_lc_rs::{hmac, signature};

use super::algorithm::Algorithm;
use super::refusal::Refusal;
use super::token::Token;

/// Most keys that one token is tried with: those of one `kid`, or, if it names none, all that
/// its algorithm fits.
const MOST_TRIED: usize = 8;
/// Bits of RSA moduli: shorter ones are weak, longer ones are slow.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Longest public exponent of RSA in bytes; 65537 has three.
const RSA_EXPONENT: usize = 4;

/// One key.
pub(super) struct Key {
    pub kid: Option<Box<str>>,
    verifiers: Box<[(Algorithm, Verifier)]>,
}

enum Verifier {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

/// Nothing of a key is shown: some are secrets.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms = self.verifiers.iter().map(|(algorithm, _)| algorithm.as_str());
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &algorithms.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// What a public key is made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Material<'m> {
    /// Modulus and exponent, big-endian.
    Rsa { n: &'m [u8], e: &'m [u8] },
    /// A point as X9.62 writes it without compression, or an Ed25519 key.
    Curve(Curve, &'m [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
    Ed25519,
}

impl Curve {
    /// Length of a coordinate, and of an Ed25519 key, in bytes.
    pub const fn length(self) -> usize {
        match self {
            Curve::P256 | Curve::Ed25519 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }
}

impl Material<'_> {
    /// The algorithms that such a key is good for.
    pub fn algorithms(&self) -> &'static [Algorithm] {
        match self {
            Material::Rsa { .. } => {
                use Algorithm::*;
                &[RS256, RS384, RS512, PS256, PS384, PS512]
            }
            Material::Curve(Curve::P256, _) => &[Algorithm::ES256],
            Material::Curve(Curve::P384, _) => &[Algorithm::ES384],
            Material::Curve(Curve::P521, _) => &[Algorithm::ES512],
            Material::Curve(Curve::Ed25519, _) => &[Algorithm::EdDSA, Algorithm::Ed25519],
        }
    }

    fn verifier(&self, algorithm: Algorithm) -> Option<Verifier> {
        let parsed = match self {
            Material::Rsa { n, e } => {
                let components = RsaPublicKeyComponents { n, e };
                components.to_parsed_public_key(of_rsa(algorithm)?)
            }
            Material::Curve(_, point) => ParsedPublicKey::new(of_curve(algorithm)?, point),
        };
        parsed.ok().map(Verifier::Public)
    }
}

impl Key {
    /// A public key; `only` is what its `alg` says.
    ///
    /// # Errors
    /// What is wrong with it, such as `is too short`.
    pub fn public(
        kid: Option<Box<str>>,
        material: Material<'_>,
        only: Option<Algorithm>,
    ) -> Result<Self, &'static str> {
        if let Material::Rsa { n, e } = material {
            check_rsa(n, e)?;
        }
        let algorithms = material.algorithms();
        let named = |algorithm: &&Algorithm| only.is_none_or(|only| only == **algorithm);
        let mut verifiers = Vec::new();
        for algorithm in algorithms.iter().filter(named) {
            let verifier = material.verifier(*algorithm).ok_or("is no key of its kind")?;
            verifiers.push((*algorithm, verifier));
        }
        match verifiers.is_empty() {
            true => Err("has an alg that such keys cannot be used with"),
            false => Ok(Key { kid, verifiers: verifiers.into() }),
        }
    }

    /// A shared secret. It is as long as the hash at least (RFC 7518, 3.2); without `only` it
    /// is good for every algorithm that it is long enough for.
    pub fn secret(
        kid: Option<Box<str>>,
        secret: &[u8],
        only: Option<Algorithm>,
    ) -> Result<Self, &'static str> {
        let mut verifiers = Vec::new();
        for algorithm in Algorithm::ALL {
            let Some((hash, length)) = of_secret(*algorithm) else { continue };
            if only.is_none_or(|only| only == *algorithm) && secret.len() >= length {
                let key = Box::new(hmac::Key::new(hash, secret));
                verifiers.push((*algorithm, Verifier::Secret(key)));
            }
        }
        match verifiers.is_empty() {
            true => Err("is shorter than the hash of its algorithm; use 32 bytes for HS256, 48 \
                         for HS384 or 64 for HS512"),
            false => Ok(Key { kid, verifiers: verifiers.into() }),
        }
    }

    fn verifier(&self, algorithm: Algorithm) -> Option<&Verifier> {
        let found = self.verifiers.iter().find(|(one, _)| *one == algorithm);
        found.map(|(_, verifier)| verifier)
    }
}

/// None for keys that are not RSA's.
fn of_rsa(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// None for RSA and for a shared secret.
fn of_curve(algorithm: Algorithm) -> Option<&'static dyn signature::VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
        Algorithm::EdDSA | Algorithm::Ed25519 => &signature::ED25519,
        _ => return None,
    })
}

/// With the length of its hash in bytes; None for a public key.
fn of_secret(algorithm: Algorithm) -> Option<(hmac::Algorithm, usize)> {
    Some(match algorithm {
        Algorithm::HS256 => (hmac::HMAC_SHA256, 32),
        Algorithm::HS384 => (hmac::HMAC_SHA384, 48),
        Algorithm::HS512 => (hmac::HMAC_SHA512, 64),
        _ => return None,
    })
}

/// With an exponent of 1 anybody could sign.
fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), &'static str> {
    let Some(first) = n.first().filter(|first| **first != 0) else {
        return Err("has no modulus without zeros before it");
    };
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    if !RSA_BITS.contains(&bits) {
        return Err("has not 2048 to 8192 bits");
    }
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    if !odd(n) {
        return Err("has a modulus that is no product of two large primes");
    }
    if !odd(e) || e == [1] || e.first() == Some(&0) || e.len() > RSA_EXPONENT {
        return Err("has an exponent that is not an odd number from 3 to 32 bits");
    }
    Ok(())
}

impl Verifier {
    fn verify(&self, token: &Token<'_>) -> bool {
        match self {
            Verifier::Public(key) => key.verify_sig(token.signed, &token.signature).is_ok(),
            // In constant time.
            Verifier::Secret(key) => hmac::verify(key, token.signed, &token.signature).is_ok(),
        }
    }
}

/// Keys, found by their `kid`.
#[derive(Debug)]
pub struct KeySet {
    /// SHA-256 of what they were read from.
    digest: [u8; 32],
    keys: Vec<Key>,
    by_kid: HashMap<Box<str>, Vec<usize>>,
    /// Keys that have none: a token may name whatever it likes.
    without_kid: Vec<usize>,
}

/// Those that were read from the same text are the same.
impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl KeySet {
    pub(super) fn new(document: &[u8], keys: Vec<Key>) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, document).as_ref());
        let mut by_kid: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut without_kid = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            match &key.kid {
                Some(kid) => by_kid.entry(kid.clone()).or_default().push(place),
                None => without_kid.push(place),
            }
        }
        KeySet { digest: bytes, keys, by_kid, without_kid }
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// There is none without a key; asked for by those who have both in view.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the token is signed by one of the keys.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), Refusal> {
        let named: &[usize] = match &token.kid {
            Some(kid) => self.by_kid.get(kid).map_or(&[], Vec::as_slice),
            None => &[],
        };
        let mut candidates = 0;
        let mut tried = 0;
        // Keys of that name first; a token that names none may be from any.
        let all = 0..if token.kid.is_none() { self.keys.len() } else { 0 };
        let unnamed = self.without_kid.iter().filter(|_| token.kid.is_some());
        for place in named.iter().chain(unnamed).copied().chain(all) {
            candidates += 1;
            let Some(verifier) = self.keys[place].verifier(token.algorithm) else { continue };
            tried += 1;
            if tried > MOST_TRIED {
                // Which one it is must be said: trying all would cost whoever guesses nothing.
                return Err(Refusal::UnknownKey);
            }
            if verifier.verify(token) {
                return Ok(());
            }
        }
        match (candidates, tried) {
            (0, _) => Err(Refusal::UnknownKey),
            (_, 0) => Err(Refusal::WrongAlgorithm),
            _ => Err(Refusal::WrongSignature),
        }
    }
}
