//! Gateway API v1.7 (both channels), as far as Tidegate reads and writes it.
//!
//! Own types, because they must be tolerant of fields and values that are newer than this
//! program: unknown fields are ignored in specs and kept in statuses, unknown values of
//! enumerations are kept as text and become a condition on their object
//! when `translate` meets them. One file per kind; what kinds share is in `common`. Nothing
//! here judges: that is `translate`'s work.

mod backend_tls_policy;
pub mod common;
mod external_auth;
#[allow(clippy::module_inception)] // The kind is called Gateway, and one file is one kind.
mod gateway;
mod gateway_class;
mod grpc_route;
mod http_route;
mod listener;
mod listener_set;
mod reference_grant;
mod route;
mod tcp_route;
mod tls_route;
mod udp_route;
mod x_backend;
mod x_backend_traffic_policy;

pub use backend_tls_policy::{
    BackendTlsPolicy, BackendTlsPolicySpec, BackendTlsValidation, SubjectAltName,
    SubjectAltNameType, WellKnownCaCertificates,
};
pub use common::{
    BackendObjectReference, Condition, Fraction, LabelSelector, LabelSelectorRequirement,
    LocalObjectReference, ObjectReference, ParentReference, PolicyAncestorStatus, PolicyStatus,
    PolicyTargetReference, RouteGroupKind, SecretObjectReference,
};
pub use external_auth::{
    ExternalAuthFilter, ExternalAuthProtocol, ForwardBodyConfig, GrpcAuthConfig, HttpAuthConfig,
};
pub use gateway::{
    AddressType, AllowedListeners, FrontendTls, FrontendTlsConfig, FrontendTlsPort,
    FrontendTlsValidation, FrontendValidationMode, Gateway, GatewayAddress, GatewayBackendTls,
    GatewayInfrastructure, GatewaySpec, GatewayStatus, GatewayTls, ListenerNamespaces,
    LocalParametersReference, Routability,
};
pub use gateway_class::{
    GatewayClass, GatewayClassSpec, GatewayClassStatus, ParametersReference, SupportedFeature,
};
pub use grpc_route::{GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule, GrpcRouteSpec};
pub use http_route::{
    CorsFilter, FilterType, HeaderFilter, HeaderMatch, HttpBackendRef, HttpHeader, HttpRoute,
    HttpRouteFilter, HttpRouteMatch, HttpRouteRetry, HttpRouteRule, HttpRouteSpec,
    HttpRouteTimeouts, MirrorFilter, PathMatch, PathMatchType, PathModifier, PathModifierType,
    QueryParamMatch, RedirectFilter, RewriteFilter, ValueMatchType,
};
pub use listener::{
    AllowedRoutes, FromNamespaces, Listener, ListenerFilter, ListenerFilterType, ListenerFilters,
    ListenerStatus, ListenerTls, Protocol, RouteNamespaces, TlsMode,
};
pub use listener_set::{ListenerSet, ListenerSetSpec, ListenerSetStatus, ParentGatewayReference};
pub use reference_grant::{
    ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo,
};
pub use route::{
    BackendRef, CookieConfig, CookieLifetimeType, DefaultScope, HeaderConfig, RouteParentStatus,
    RouteStatus, SessionPersistence, SessionPersistenceType, StreamRouteRule,
};
pub use tcp_route::{TcpRoute, TcpRouteSpec};
pub use tls_route::{TlsRoute, TlsRouteSpec};
pub use udp_route::{UdpRoute, UdpRouteSpec};
pub use x_backend::{
    EndpointSelector, ExternalHostname, XBackend, XBackendPort, XBackendProtocol, XBackendSpec,
    XBackendTls, XBackendTlsMode, XBackendType,
};
pub use x_backend_traffic_policy::{
    RequestRate, RetryBudget, RetryConstraint, XBackendTrafficPolicy, XBackendTrafficPolicySpec,
};

/// The API group of the kinds that are not experimental.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// The API group of the kinds whose names begin with X.
pub const X_GROUP: &str = "gateway.networking.x-k8s.io";

#[cfg(test)]
mod tests;
