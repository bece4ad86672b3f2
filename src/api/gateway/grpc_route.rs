//! GRPCRoute: which gRPC calls of which hosts go where. Filters and backends are those of HTTPRoute.

use serde::{Deserialize, Serialize};

use super::{
    DefaultScope, HeaderMatch, HttpBackendRef, HttpRouteFilter, ParentReference, RouteStatus,
    SessionPersistence, ValueMatchType,
};

/// See the module's documentation.
#[derive(kube::CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "GRPCRoute",
    plural = "grpcroutes",
    root = "GrpcRoute",
    namespaced,
    status = "RouteStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteSpec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parent_refs: Vec<ParentReference>,
    /// Experimental (GEP-3793): the Gateways that it attaches to without naming them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_default_gateways: Option<DefaultScope>,
    /// Names or `*.suffix`; empty: every host of the listeners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<GrpcRouteRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteRule {
    /// Unique in the route: the `sectionName` of policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// One of them must hold; empty: every call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<GrpcRouteMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<HttpRouteFilter>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<HttpBackendRef>,
    /// Experimental (GEP-1619).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// Both conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<GrpcMethodMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
}

/// `type` is `Exact` by default. At least one of the two names must be set; both in the case
/// that the call has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcMethodMatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<ValueMatchType>,
    /// `package.Service`; every service by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Every method by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}
