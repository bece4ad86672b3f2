//! TCPRoute: where the connections of a TCP listener go.

use serde::{Deserialize, Serialize};

use super::{DefaultScope, ParentReference, RouteStatus, StreamRouteRule};

/// See the module's documentation.
#[derive(kube::CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "TCPRoute",
    plural = "tcproutes",
    root = "TcpRoute",
    namespaced,
    status = "RouteStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpRouteSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// Experimental (GEP-3793): the Gateways that it attaches to without naming them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<DefaultScope>,
    /// The API server takes exactly one.
    pub rules: Vec<StreamRouteRule>,
}
