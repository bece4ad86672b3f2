use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Invalid, Policy, Refs};

/// User name and password, checked against a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "BasicAuth")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The Secret, in the same namespace, whose key `auth` holds htpasswd lines: bcrypt,
    /// apr1 or {SHA}.
    pub secret_ref: SecretRef,
    /// The realm that browsers show; `Restricted` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub realm: Option<String>,
}

/// A Secret in the namespace of the object that refers to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

#[derive(Debug)]
pub struct BasicAuth {}

impl Policy for BasicAuth {
    type Spec = Spec;

    fn compile(_spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        Ok(BasicAuth {})
    }
}
