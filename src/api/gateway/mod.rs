//! Gateway API v1.7 (standard channel), as far as Tidegate reads and writes it.
//!
//! Own types, because they must be tolerant of fields and values that are newer than this
//! program: unknown fields are ignored in specs and kept in statuses, unknown values of
//! enumerations are kept as text and become a condition on their object
//! when `translate` meets them. One file per kind; what kinds share is in `common`. Nothing
//! here judges: that is `translate`'s work.

pub mod common;
#[allow(clippy::module_inception)] // The kind is called Gateway, and one file is one kind.
mod gateway;
mod gateway_class;
mod http_route;
mod reference_grant;

pub use common::{
    BackendObjectReference, Condition, Fraction, LabelSelector, LabelSelectorRequirement,
    LocalObjectReference, ParentReference, PolicyAncestorStatus, PolicyStatus, RouteGroupKind,
    SecretObjectReference,
};
pub use gateway::{
    AddressType, AllowedRoutes, FromNamespaces, Gateway, GatewayAddress, GatewayInfrastructure,
    GatewaySpec, GatewayStatus, Listener, ListenerFilter, ListenerFilterType, ListenerFilters,
    ListenerStatus, ListenerTls, LocalParametersReference, Protocol, RouteNamespaces, TlsMode,
};
pub use gateway_class::{
    GatewayClass, GatewayClassSpec, GatewayClassStatus, ParametersReference, SupportedFeature,
};
pub use http_route::{
    CorsFilter, ExternalAuthFilter, ExternalAuthProtocol, FilterType, ForwardBody, GrpcAuth, HeaderFilter, HeaderMatch, HttpAuth, HttpBackendRef, HttpHeader, HttpRoute,
    HttpRouteFilter, HttpRouteMatch, HttpRouteRule, HttpRouteSpec, HttpRouteStatus,
    HttpRouteTimeouts, MirrorFilter, PathMatch, PathMatchType, PathModifier, PathModifierType,
    QueryParamMatch, RedirectFilter, RewriteFilter, RouteParentStatus, ValueMatchType,
};
pub use reference_grant::{
    ReferenceGrant, ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo,
};

/// The API group of every kind in here.
pub const GROUP: &str = "gateway.networking.k8s.io";
