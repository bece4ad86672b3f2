use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Invalid, Policy, Refs};

/// Which other origins may use the answers (HTTPRoute filter `CORS`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Cors")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Origins that are allowed: `https://app.example.com`, `https://*.example.com`, or `*`
    /// alone for all. A `*` stands for any number of labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub allow_origins: Vec<String>,
    /// Whether requests may carry credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Methods that are allowed besides GET, HEAD and POST, or `*` alone for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)))]
    pub allow_methods: Vec<String>,
    /// Request header fields that are allowed, or `*` alone for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allow_headers: Vec<String>,
    /// Response header fields that scripts may read, or `*` alone for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub expose_headers: Vec<String>,
    /// Seconds for which a browser may remember the answer to a preflight; 5 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_age: Option<i32>,
}

#[derive(Debug)]
pub struct Cors {}

impl Policy for Cors {
    type Spec = Spec;

    fn compile(_spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        Ok(Cors {})
    }
}
