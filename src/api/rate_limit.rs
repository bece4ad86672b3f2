//! `RateLimit`: how many requests are let through, attached to routes as `Middleware` is.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::gateway::PolicyStatus;
use super::target::TargetRef;
use crate::policy::rate_limit;

/// A limit and what it is counted by.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "RateLimit",
    plural = "ratelimits",
    shortname = "rl",
    category = "tidegate",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A limit of requests, attached to routes by an ExtensionRef filter, by targetRefs or by an Ingress annotation.",
    printcolumn(name = "Average", type_ = "integer", json_path = ".spec.local.average"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.key) || (self.key.type == 'Header') == has(self.key.header)")
        .message("key: set header with type Header, and only then")
)]
pub struct RateLimitSpec {
    /// What it applies to besides the routes that name it; in its own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// The limit, counted by each Tidegate pod for itself.
    pub local: rate_limit::Local,
    /// What is counted as one client; its address by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<rate_limit::Key>,
}

impl RateLimitSpec {
    /// The policy, without where it is attached.
    pub fn policy(&self) -> rate_limit::Spec {
        rate_limit::Spec { local: self.local.clone(), key: self.key.clone() }
    }
}
