//! What the user writes for tokens of one issuer: `authentication.methods[].jwt`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use crate::policy::place;

/// Tokens (JWT, RFC 7519) of one issuer, signed with keys that are known here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Jwt")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The token's `iss`, exactly as it is written there.
    #[schemars(length(min = 1, max = 1024))]
    pub issuer: String,
    /// The token's `aud` must hold one of them. Empty: it is not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 1024)))]
    pub audiences: Vec<String>,
    /// Where the keys are that tokens are signed with.
    pub keys: Keys,
    /// Algorithms that are taken, of those that the keys allow; empty: all of these. Which one
    /// a key allows follows from the key and never from a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub algorithms: Vec<Algorithm>,
    /// How far clocks may differ; `60s` by default, at most `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub leeway: Option<String>,
    /// Longest time from `iat` to `exp`. With it tokens must have `iat`; `exp` they must have
    /// in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub max_lifetime: Option<String>,
    /// Claims that a token must have besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub required_claims: Vec<RequiredClaim>,
    /// Where the token is looked for; the field Authorization with the scheme Bearer by
    /// default. A request with a token in more than one of these places is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub from: Vec<place::Spec>,
    /// Fields that the backend gets with values of claims. What the client wrote in them is
    /// removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub claims_to_headers: Vec<ClaimToHeader>,
    /// The claim that Consumers are found by (`credentials.jwt` of a Consumer); `sub` by
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub consumer_claim: Option<String>,
    /// The claim that holds groups, a list or one name; `groups` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub groups_claim: Option<String>,
}

/// Keys: one of `remote`, `inline` and `secretRef`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// A JWKS that the issuer publishes. It is fetched now and then, and never while a request
    /// waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// A JWKS (RFC 7517) as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub inline: Option<String>,
    /// A key of a Secret in the same namespace: a JWKS, public keys in PEM, or, with `hmac`, a
    /// secret that the issuer shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// The algorithm of the shared secret that `secretRef` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<Hmac>,
}

/// Where an issuer publishes its keys: `uri`, or `backendRef` and `path`.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Remote {
    /// The URL, https. Addresses that are not public are refused, and so is http, unless
    /// Tidegate runs with `--private-issuers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub uri: Option<String>,
    /// A Service that publishes them, in clear or, with `caCertificateRef`, by TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<KeyService>,
    /// The path and query at that Service; `/.well-known/jwks.json` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// How often they are fetched; `10m` by default, from `30s` to `24h`. A token with an
    /// unknown key lets them be fetched at once, but no more than every 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub refresh: Option<String>,
    /// The certificates that the issuer's one must come from, key `ca.crt`; those of the system
    /// by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificate_ref: Option<CaCertificateRef>,
}

/// A port of a Service.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct KeyService {
    /// The name of the Service.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace, if it is another one; a ReferenceGrant there must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// A ConfigMap or a Secret in the same namespace.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct CaCertificateRef {
    /// `Secret` by default.
    #[serde(default, skip_serializing_if = "is_secret")]
    pub kind: CaKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum CaKind {
    #[default]
    Secret,
    ConfigMap,
}

fn is_secret(kind: &CaKind) -> bool {
    *kind == CaKind::Secret
}

/// A key of a Secret in the namespace of the object that refers to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Algorithms with a shared secret. It is as long as the hash at least (RFC 7518, 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Hmac {
    HS256,
    HS384,
    HS512,
}

/// A claim that must be there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequiredClaim {
    /// Its name, or a path of names with dots between them.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// It must be one of these, or a list with one of these; empty: whatever it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub values: Vec<String>,
}

/// A claim, and the field that the backend gets it in. Text, numbers and truth values are
/// written as they are, of lists the elements with commas between them; a claim that cannot be
/// written so is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimToHeader {
    /// Its name, or a path of names with dots between them.
    #[schemars(length(min = 1, max = 256))]
    pub claim: String,
    /// The name of the field.
    #[schemars(length(min = 1, max = 256))]
    pub header: String,
}

impl std::convert::From<Hmac> for Algorithm {
    fn from(hmac: Hmac) -> Self {
        match hmac {
            Hmac::HS256 => Algorithm::HS256,
            Hmac::HS384 => Algorithm::HS384,
            Hmac::HS512 => Algorithm::HS512,
        }
    }
}
