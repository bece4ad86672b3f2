//! XBackendTrafficPolicy (experimental): sessions and a budget of retries for Services, whatever
//! route leads to them.

use serde::{Deserialize, Serialize};

use super::{PolicyStatus, PolicyTargetReference, SessionPersistence};

/// See the module's documentation.
#[derive(kube::CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.x-k8s.io",
    version = "v1alpha1",
    kind = "XBackendTrafficPolicy",
    plural = "xbackendtrafficpolicies",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct XBackendTrafficPolicySpec {
    /// In the policy's own namespace; `sectionName` is not a part of this kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<PolicyTargetReference>,
    /// GEP-3388.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_constraint: Option<RetryConstraint>,
    /// GEP-1619.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// Which share of the requests to a backend may be retries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryConstraint {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<RetryBudget>,
    /// Retries that are always allowed; 10 in a second by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_retry_rate: Option<RequestRate>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// 0 to 100; 20 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<i64>,
    /// A duration as GEP-2257 writes it; 10s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestRate {
    /// 1 to 1,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// A duration as GEP-2257 writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
}
