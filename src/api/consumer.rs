//! `Consumer`: somebody who calls the APIs of a namespace: a name, groups, a plan, and what
//! authentication methods know them by.
//!
//! Nothing secret stands in a Consumer: keys and passwords are in Secrets that it names. The
//! form in which policies look Consumers up is `policy::consumer`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gateway::Condition;
use super::target::condition;

/// Who it is and what they are known by. The name is the object's own.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "Consumer",
    plural = "consumers",
    shortname = "cns",
    category = "tidegate",
    namespaced,
    status = "ConsumerStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "Somebody who calls APIs: credentials by Secret, groups and a plan. Known to the authentication policies of its own namespace.",
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.plan"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::duplicated_attributes, reason = "two columns are strings")]
#[x_kube(
    validation = Rule::new("!has(self.groups) || self.groups.all(one, self.groups.exists_one(other, other == one))")
        .message("groups: each group once")
)]
pub struct ConsumerSpec {
    /// What authorization rules and overrides of limits may go by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    pub groups: Vec<String>,
    /// The plan that limits may have numbers for, such as `gold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub plan: Option<String>,
    /// What methods of authentication know it by. Without any, it can only be the Consumer of
    /// requests without credentials.
    #[serde(default)]
    pub credentials: Credentials,
}

/// What somebody is known by; several of each are good at the same time, so that they can be
/// exchanged one after the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// API keys, for the method `apiKey`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub api_keys: Vec<ApiKey>,
    /// Users and passwords, for the method `basic`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub basic: Vec<Basic>,
    /// Tokens, for the method `jwt`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub jwt: Vec<Tokens>,
    /// Certificates, for the method `clientCertificate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub client_certificates: Vec<Certificate>,
}

/// An API key in a Secret of the Consumer's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Where it is.
    pub secret_ref: KeyRef,
    /// When it ends; never by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 64), extend("format" = "date-time"))]
    pub expires: Option<Time>,
}

/// One key of a Secret's data. Many Consumers may share a Secret, each with a key of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in its data, `apiKey` by default. The value is the API key itself (8 to 512
    /// visible ASCII characters), or `sha256:` and the 64 hexadecimal digits of its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// Users of a Secret of the Consumer's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Basic {
    /// The Secret whose key `auth` holds htpasswd lines: bcrypt, apr1 or {SHA}. Each of its
    /// users is this Consumer.
    pub secret_ref: SecretRef,
}

/// A Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Tokens of one issuer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// The issuer, exactly as the method `jwt` has it.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,
    /// Values of the claim that the method names by `consumerClaim` (`sub` by default).
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    pub values: Vec<String>,
}

/// A client certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// What the method takes from the certificate by its `identity`, exactly: a common name, a
    /// DNS name, a URI.
    #[schemars(length(min = 1, max = 512))]
    pub name: String,
}

/// What became of a Consumer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerStatus {
    /// `Accepted`: all credentials are good and nobody else's.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

fn conditions(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "`Accepted`: all credentials are good and nobody else's.",
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": condition(),
    })
}

impl KeyRef {
    /// The key in the Secret's data.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or("apiKey")
    }
}
