//! Keys of an issuer for tests: what signs tokens, and the key set that is published of it.
//! Tokens are put together from bytes, so that a test can write every wrong one.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

pub mod hostile;
pub mod server;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The algorithms that tokens can be signed with.
pub const ALGORITHMS: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "HS256", "HS384", "HS512",
];

/// One key with its private part.
pub struct SigningKey {
    pub kid: String,
    secret: Secret,
}

enum Secret {
    Rsa(Box<RsaKeyPair>),
    Ec(&'static str, Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
    Mac(Vec<u8>),
}

impl SigningKey {
    /// A new key that `algorithm` is made with.
    pub fn new(kid: &str, algorithm: &str) -> Self {
        let ec =
            |crv, algorithm| Secret::Ec(crv, Box::new(EcdsaKeyPair::generate(algorithm).unwrap()));
        let secret = match algorithm {
            "ES256" => ec("P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ec("P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES512" => ec("P-521", &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            "EdDSA" => Secret::Ed(Box::new(Ed25519KeyPair::generate().unwrap())),
            mac if mac.starts_with("HS") => {
                let mut bytes = vec![0; 64];
                aws_lc_rs::rand::fill(&mut bytes).unwrap();
                Secret::Mac(bytes)
            }
            _ => Secret::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())),
        };
        SigningKey { kid: kid.to_owned(), secret }
    }

    /// A shared secret of these bytes.
    pub fn mac(kid: &str, bytes: &[u8]) -> Self {
        SigningKey { kid: kid.to_owned(), secret: Secret::Mac(bytes.to_vec()) }
    }

    /// The public part as a JWK; of a shared secret all of it.
    pub fn jwk(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.secret {
            Secret::Rsa(_) => {
                let (n, e) = self.components();
                json!({"kty": "RSA", "n": b64(&n), "e": b64(&e)})
            }
            Secret::Ec(crv, pair) => {
                let (x, y) = pair.public_key().as_ref()[1..]
                    .split_at((pair.public_key().as_ref().len() - 1) / 2);
                json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y)})
            }
            Secret::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())})
            }
            Secret::Mac(bytes) => json!({"kty": "oct", "k": b64(bytes)}),
        };
        jwk["kid"] = json!(self.kid);
        jwk
    }

    /// Modulus and exponent of an RSA key.
    pub fn components(&self) -> (Vec<u8>, Vec<u8>) {
        use x509_parser::prelude::FromDer;
        use x509_parser::public_key::RSAPublicKey;
        let Secret::Rsa(pair) = &self.secret else { panic!("no RSA key") };
        let (_, key) = RSAPublicKey::from_der(pair.public_key().as_ref()).unwrap();
        let plain = |number: &[u8]| number.strip_prefix(&[0]).unwrap_or(number).to_vec();
        (plain(key.modulus), plain(key.exponent))
    }

    /// The public part as an X.509 SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = match &self.secret {
            Secret::Rsa(pair) => pair.public_key().as_der().unwrap(),
            Secret::Ec(_, pair) => pair.public_key().as_der().unwrap(),
            Secret::Ed(pair) => pair.public_key().as_der().unwrap(),
            Secret::Mac(_) => panic!("no public key"),
        };
        der.as_ref().to_vec()
    }

    pub fn pem(&self) -> String {
        let text = STANDARD.encode(self.spki());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// The signature of `message`. With a public key's algorithm and a key of another kind it
    /// panics: that cannot be signed.
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.secret {
            Secret::Rsa(pair) => {
                let encoding: &dyn RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut bytes).unwrap();
                bytes
            }
            Secret::Ec(_, pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Secret::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Secret::Mac(bytes) => {
                let hash = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, bytes), message).as_ref().to_vec()
            }
        }
    }

    /// A token with a usual header.
    pub fn token(&self, algorithm: &str, claims: &Value) -> String {
        let header = json!({"alg": algorithm, "kid": self.kid, "typ": "JWT"});
        self.token_of(algorithm, header.to_string(), claims.to_string())
    }

    /// A token of this header and these claims, as they are, signed in the way of `algorithm`
    /// whatever the header says.
    pub fn token_of(
        &self,
        algorithm: &str,
        header: impl AsRef<[u8]>,
        claims: impl AsRef<[u8]>,
    ) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key set of these keys.
pub fn jwks<'k>(keys: impl IntoIterator<Item = &'k SigningKey>) -> String {
    let keys: Vec<Value> = keys.into_iter().map(SigningKey::jwk).collect();
    json!({"keys": keys}).to_string()
}
