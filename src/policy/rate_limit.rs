use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Invalid, Policy, Refs};

/// How many requests are let through, and by what they are counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitPolicy")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The limit, counted by each Tidegate pod for itself.
    pub local: Local,
    /// What is counted as one client; its address by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

/// A token bucket: `average` requests in each `period`, and `burst` at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Local {
    /// Requests in each period.
    #[schemars(range(min = 1, max = 1000000))]
    pub average: i32,
    /// Requests that may come at once; `average` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub burst: Option<i32>,
    /// The period, such as `1s` (the default), `1m` or `1h`; at most 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub period: Option<String>,
}

/// What is counted as one client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// `ClientIP` (IPv6 by /64), `Header`, or `All` for one limit that all share.
    pub r#type: KeyType,
    /// The name of the header field, for `Header`. Requests without it are counted by address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyType {
    #[default]
    ClientIP,
    Header,
    All,
}

#[derive(Debug)]
pub struct RateLimit {}

impl Policy for RateLimit {
    type Spec = Spec;

    fn compile(_spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        Ok(RateLimit {})
    }
}
