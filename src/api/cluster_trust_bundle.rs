//! ClusterTrustBundle of `certificates.k8s.io`: certificates that the whole cluster may believe.
//!
//! An own type, because the API is young: it is served as v1, v1beta1 or v1alpha1, and the type of
//! `k8s-openapi` takes only one of them.

use serde::{Deserialize, Serialize};

/// See the module's documentation.
#[derive(kube::CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "certificates.k8s.io",
    version = "v1",
    kind = "ClusterTrustBundle",
    plural = "clustertrustbundles",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterTrustBundleSpec {
    /// Whose certificates these are; empty: nobody's in particular.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub signer_name: String,
    /// X.509 certificates in PEM, in no order.
    pub trust_bundle: String,
}
