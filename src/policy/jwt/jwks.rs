//! Key sets as issuers publish them (JWKS, RFC 7517), read strictly.
//!
//! A key that cannot be used is passed over, as the RFC asks (section 5): other types and
//! curves, keys for encryption, weak ones. So is a key whose private part is told to everybody.
//! A set in which no key is left is an error: nobody means to publish that.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::json::{self, Bounds};
use super::keys::{Curve, Key, KeySet, Material};

/// Longest text of a set in bytes.
pub const LONGEST: usize = 1024 * 1024;
/// Most keys of a set.
const MOST: usize = 1000;
/// A set may hold certificates beside its keys.
const BOUNDS: Bounds = Bounds { depth: 8, values: 100_000 };
/// Longest `kid`: as long as a token's may be.
const LONGEST_KID: usize = 512;

/// Who can read the text of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publicity {
    /// Everybody: shared secrets and private keys in it are worth nothing.
    Public,
    /// Those who may read a Secret.
    Secret,
}

/// Reads a set.
///
/// # Errors
/// A message for the user, as the end of a sentence about the text.
pub fn read(text: &[u8], publicity: Publicity) -> Result<KeySet, String> {
    if text.len() > LONGEST {
        return Err(format!("is longer than {LONGEST} bytes"));
    }
    let read = json::object(text, BOUNDS).map_err(|error| format!("is no JWKS: {error}"))?;
    let Some(Value::Array(list)) = read.object.get("keys") else {
        return Err("is no JWKS: it has no list `keys`".into());
    };
    if list.len() > MOST {
        return Err(format!("has {} keys; {MOST} are taken at most", list.len()));
    }
    let mut keys = Vec::new();
    let mut passed_over = None;
    for (place, jwk) in list.iter().enumerate() {
        match key(jwk, publicity) {
            Ok(key) => keys.push(key),
            Err(why) => passed_over = passed_over.or(Some((place, why))),
        }
    }
    match (keys.is_empty(), passed_over) {
        (false, _) => Ok(KeySet::new(text, keys)),
        (true, None) => Err("is a JWKS without any key".into()),
        (true, Some((place, why))) => Err(format!("has no usable key: keys[{place}] {why}")),
    }
}

fn key(jwk: &Value, publicity: Publicity) -> Result<Key, &'static str> {
    let jwk = jwk.as_object().ok_or("is no object")?;
    for_signatures(jwk)?;
    let kid = match jwk.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= LONGEST_KID => Some(kid.as_str().into()),
        Some(_) => return Err("has a kid that is no text or too long"),
    };
    let only = match jwk.get("alg") {
        None => None,
        Some(Value::String(alg)) => {
            Some(Algorithm::parse(alg).ok_or("has an alg that is not for signatures")?)
        }
        Some(_) => return Err("has an alg that is no text"),
    };
    let kty = jwk.get("kty").and_then(Value::as_str).ok_or("has no kty")?;
    if publicity == Publicity::Public && (kty == "oct" || jwk.contains_key("d")) {
        return Err("is a secret that everybody can read; keep it in a Secret");
    }
    match kty {
        "RSA" => {
            let (n, e) = (integer(jwk, "n")?, integer(jwk, "e")?);
            Key::public(kid, Material::Rsa { n: &n, e: &e }, only)
        }
        "EC" => {
            let curve = match text(jwk, "crv")? {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                "P-521" => Curve::P521,
                _ => return Err("has a crv that is not supported"),
            };
            // Uncompressed (SEC 1, 2.3.3).
            let mut point = vec![4];
            for name in ["x", "y"] {
                point.extend(exactly(jwk, name, curve.length())?);
            }
            Key::public(kid, Material::Curve(curve, &point), only)
        }
        "OKP" if text(jwk, "crv")? == "Ed25519" => {
            let point = exactly(jwk, "x", Curve::Ed25519.length())?;
            Key::public(kid, Material::Curve(Curve::Ed25519, &point), only)
        }
        "OKP" => Err("has a crv that is not supported"),
        "oct" => Key::secret(kid, &bytes(jwk, "k")?, only),
        _ => Err("has a kty that is not supported"),
    }
}

/// A key for signatures, and that may be used for verifying them (RFC 7517, 4.2 and 4.3).
fn for_signatures(jwk: &Map<String, Value>) -> Result<(), &'static str> {
    if jwk.get("use").is_some_and(|purpose| purpose != "sig") {
        return Err("is not for signatures (use)");
    }
    let verify = |operations: &Value| {
        operations.as_array().is_some_and(|list| list.iter().any(|one| one == "verify"))
    };
    match jwk.get("key_ops") {
        Some(operations) if !verify(operations) => Err("is not for verifying (key_ops)"),
        _ => Ok(()),
    }
}

fn text<'j>(jwk: &'j Map<String, Value>, name: &str) -> Result<&'j str, &'static str> {
    jwk.get(name).and_then(Value::as_str).ok_or("lacks a member that its kty must have")
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    let text = text(jwk, name)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "has a member that is not in base64url")
}

/// An unsigned integer: without zeros before it (RFC 7518, 2), which some issuers write anyway.
fn integer(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    let bytes = bytes(jwk, name)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}

/// A coordinate: with the zeros before it (RFC 7518, 6.2.1.2).
fn exactly(jwk: &Map<String, Value>, name: &str, length: usize) -> Result<Vec<u8>, &'static str> {
    let bytes = bytes(jwk, name)?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err("has a coordinate of the wrong length"),
    }
}
