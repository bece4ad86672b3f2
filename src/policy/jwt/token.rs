//! The compact form of a signed JWT (RFC 7515, 7.1), taken apart. Nothing in here is trusted:
//! whether the signature is right is said by the key, whether the claims are right by `claims`.
//!
//! What a header may ask for and we do not do is refused, never overlooked: extensions (`crit`,
//! RFC 7515, 4.1.11), payloads that are not encoded (`b64`, RFC 7797), compression and encryption.
//! What it says of keys (`jku`, `x5u`, `jwk`, `x5c`) is not looked at.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::json::{self, Bounds};
use super::refusal::Refusal;
use crate::policy::identity::Claims;

/// Longest token in bytes.
pub const LONGEST: usize = 16 * 1024;
/// Longest header in its encoded form.
const LONGEST_HEADER: usize = 4 * 1024;
/// Longest `kid`.
const LONGEST_KID: usize = 512;
/// What a header and claims may hold.
const HEADER: Bounds = Bounds { depth: 4, values: 64 };
const CLAIMS: Bounds = Bounds { depth: 16, values: 2048 };

/// Members of a header that mean something we do not do.
const UNSUPPORTED: &[&str] = &["crit", "b64", "zip", "enc", "epk", "apu", "apv"];

/// A token whose parts are well-formed.
#[derive(Debug)]
pub(super) struct Token<'t> {
    /// What it says that it is signed with.
    pub algorithm: Algorithm,
    pub kid: Option<Box<str>>,
    /// What is signed: header and claims as they came.
    pub signed: &'t [u8],
    pub signature: Vec<u8>,
    pub claims: Claims,
    /// How many values the claims hold, for those who count memory.
    pub values: usize,
}

impl<'t> Token<'t> {
    pub fn parse(text: &'t [u8]) -> Result<Self, Refusal> {
        if text.len() > LONGEST {
            return Err(Refusal::TooLong);
        }
        let dots = text.iter().filter(|byte| **byte == b'.').count();
        match dots {
            2 => {}
            // A JWE in its compact form (RFC 7516, 7.1).
            4 => return Err(Refusal::Unsupported),
            _ => return Err(Refusal::Malformed),
        }
        let mut ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
        let (Some(first), Some(second)) = (ends.next(), ends.next()) else {
            return Err(Refusal::Malformed);
        };
        let (header, payload) = (&text[..first], &text[first + 1..second]);
        let signature = &text[second + 1..];
        // A token without a signature is not signed, whatever its header says.
        if header.len() > LONGEST_HEADER || signature.is_empty() {
            return Err(Refusal::Malformed);
        }
        let (algorithm, kid) = read_header(&decode(header)?)?;
        let claims = json::object(&decode(payload)?, CLAIMS).map_err(|_| Refusal::Malformed)?;
        Ok(Token {
            algorithm,
            kid,
            signed: &text[..second],
            signature: decode(signature)?,
            claims: claims.object,
            values: claims.values,
        })
    }
}

/// Without padding, and with exactly one way to write the last bits (RFC 7515, 2).
fn decode(part: &[u8]) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)
}

fn read_header(text: &[u8]) -> Result<(Algorithm, Option<Box<str>>), Refusal> {
    let header = json::object(text, HEADER).map_err(|_| Refusal::Malformed)?.object;
    if UNSUPPORTED.iter().any(|name| header.contains_key(*name)) {
        return Err(Refusal::Unsupported);
    }
    for name in ["typ", "cty"] {
        if header.get(name).is_some_and(|value| !value.is_string()) {
            return Err(Refusal::Malformed);
        }
    }
    // A JWT in a JWT (RFC 7519, 5.2): what is inside is not what we would read.
    let nested = header.get("cty").and_then(Value::as_str);
    if nested.is_some_and(|cty| cty.eq_ignore_ascii_case("JWT")) {
        return Err(Refusal::Unsupported);
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= LONGEST_KID => Some(kid.as_str().into()),
        Some(_) => return Err(Refusal::Malformed),
    };
    match header.get("alg") {
        Some(Value::String(alg)) => {
            Ok((Algorithm::parse(alg).ok_or(Refusal::WrongAlgorithm)?, kid))
        }
        _ => Err(Refusal::Malformed),
    }
}
