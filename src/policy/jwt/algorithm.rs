//! Signature algorithms by their names (RFC 7518, 3.1; RFC 8037, 3.1). What each does is known to
//! `keys`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An `alg`. There is none for unsigned tokens.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[schemars(rename = "JwtAlgorithm")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
    /// The same as EdDSA with a key of that curve (RFC 9864, 2.2).
    Ed25519,
    HS256,
    HS384,
    HS512,
}

impl Algorithm {
    pub const ALL: &[Algorithm] = {
        use Algorithm::*;
        &[
            RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519, HS256,
            HS384, HS512,
        ]
    };

    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::RS256 => "RS256",
            Algorithm::RS384 => "RS384",
            Algorithm::RS512 => "RS512",
            Algorithm::PS256 => "PS256",
            Algorithm::PS384 => "PS384",
            Algorithm::PS512 => "PS512",
            Algorithm::ES256 => "ES256",
            Algorithm::ES384 => "ES384",
            Algorithm::ES512 => "ES512",
            Algorithm::EdDSA => "EdDSA",
            Algorithm::Ed25519 => "Ed25519",
            Algorithm::HS256 => "HS256",
            Algorithm::HS384 => "HS384",
            Algorithm::HS512 => "HS512",
        }
    }

    /// Exactly as it is registered: the names are case-sensitive (RFC 7515, 4.1.1).
    pub fn parse(text: &str) -> Option<Self> {
        Algorithm::ALL.iter().copied().find(|algorithm| algorithm.as_str() == text)
    }
}
