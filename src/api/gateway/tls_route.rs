//! TLSRoute: where the connections of a TLS listener go, by the server name (SNI) of each.

use serde::{Deserialize, Serialize};

use super::{DefaultScope, ParentReference, RouteStatus, StreamRouteRule};

/// See the module's documentation.
#[derive(kube::CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "TLSRoute",
    plural = "tlsroutes",
    root = "TlsRoute",
    namespaced,
    status = "RouteStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsRouteSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// Experimental (GEP-3793): the Gateways that it attaches to without naming them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<DefaultScope>,
    /// Names or `*.suffix`; empty (v1alpha2 only): every name of the listeners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// The API server takes exactly one.
    pub rules: Vec<StreamRouteRule>,
}
