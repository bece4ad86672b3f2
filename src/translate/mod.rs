//! Objects in, a compiled route graph and statuses out: pure, no clock, no network, no async.
//!
//! The controller, the file mode, `validate` and what comes later all call [`translate`], so
//! they cannot disagree. A bad object hurts only itself: it becomes a condition and a note,
//! never an error that stops others.

mod addresses;
mod ancestors;
mod annotations;
mod authentication;
mod authorities;
mod backend_tls;
mod backend_tls_policy;
mod backends;
mod binds;
mod carry;
mod certificates;
mod conflicts;
mod consumers;
mod draft;
mod endpoints;
mod external_auth;
mod filters;
mod frontend;
mod gateway;
mod gateway_class;
mod gateway_service;
mod gateway_status;
mod hostname;
mod infrastructure;
mod ingress;
mod ingress_path;
mod ingress_status;
mod intake;
mod key_sets;
mod links;
mod listener_filters;
mod listener_set;
mod listeners;
mod matches;
mod memo;
mod merge;
mod methods;
mod middleware;
mod namespaces;
mod parents;
mod pass;
mod policy_status;
mod ports;
mod rate_limit_store;
mod references;
mod retry;
mod routes;
mod rules;
mod serve;
mod service_backends;
mod session;
pub mod snapshot;
mod status;
mod streams;
mod traffic_policy;
mod world;
mod x_backend;
mod x_backend_service;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::graph::RouteGraph;
pub use annotations::{BACKEND_PROTOCOL, MIDDLEWARES, RATE_LIMITS, SSL_REDIRECT};
pub use endpoints::{SERVICE_NAME, endpoints_of};
pub use infrastructure::{MANAGED_BY, TIDEGATE};
pub use key_sets::{KeyPlace, KeyServer, KeySetState, KeySets, KeySource, KeyTls, key_place};
pub use memo::Memo;
pub use service_backends::{TLS_HOSTNAME, TLS_SECRET, TLS_VERIFY};
pub use snapshot::{Key, Objects, Peer, PeerState, Ports, Settings, Snapshot, Undecodable};

/// What [`translate`] returns.
#[derive(Debug, Default)]
pub struct Translation {
    pub graph: RouteGraph,
    /// The graph says something else than that of the last pass, or there was none that is live:
    /// see [`Memo::published`].
    pub graph_is_new: bool,
    /// Statuses that differ from what the objects in the snapshot say.
    pub statuses: Vec<StatusWrite>,
    /// Services and EndpointSlices of Gateways that differ from what is there.
    pub infrastructure: Vec<InfrastructureWrite>,
    /// Everything that users should be told, whether or not it has been said before.
    pub notes: Vec<Note>,
    /// Secrets whose certificate and key were found good in this pass: the source keeps them
    /// and hands them back as [`Snapshot::good_certificates`].
    pub good_certificates: Vec<Key>,
}

/// The kinds that Tidegate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    GatewayClass,
    Gateway,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    UdpRoute,
    ListenerSet,
    BackendTlsPolicy,
    XBackend,
    XBackendTrafficPolicy,
    ReferenceGrant,
    IngressClass,
    Ingress,
    Service,
    EndpointSlice,
    Secret,
    /// Only those that objects name.
    ConfigMap,
    ClusterTrustBundle,
    Namespace,
    Middleware,
    RateLimit,
    Consumer,
}

impl ObjectKind {
    pub const ALL: &[ObjectKind] = &[
        ObjectKind::GatewayClass,
        ObjectKind::Gateway,
        ObjectKind::HttpRoute,
        ObjectKind::GrpcRoute,
        ObjectKind::TlsRoute,
        ObjectKind::TcpRoute,
        ObjectKind::UdpRoute,
        ObjectKind::ListenerSet,
        ObjectKind::BackendTlsPolicy,
        ObjectKind::XBackend,
        ObjectKind::XBackendTrafficPolicy,
        ObjectKind::ReferenceGrant,
        ObjectKind::IngressClass,
        ObjectKind::Ingress,
        ObjectKind::Service,
        ObjectKind::EndpointSlice,
        ObjectKind::Secret,
        ObjectKind::ConfigMap,
        ObjectKind::ClusterTrustBundle,
        ObjectKind::Namespace,
        ObjectKind::Middleware,
        ObjectKind::RateLimit,
        ObjectKind::Consumer,
    ];

    /// `apiVersion`, kind and plural, as the API server knows them.
    pub const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            ObjectKind::GatewayClass => {
                ("gateway.networking.k8s.io/v1", "GatewayClass", "gatewayclasses")
            }
            ObjectKind::Gateway => ("gateway.networking.k8s.io/v1", "Gateway", "gateways"),
            ObjectKind::HttpRoute => ("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes"),
            ObjectKind::GrpcRoute => ("gateway.networking.k8s.io/v1", "GRPCRoute", "grpcroutes"),
            ObjectKind::TlsRoute => ("gateway.networking.k8s.io/v1", "TLSRoute", "tlsroutes"),
            ObjectKind::TcpRoute => ("gateway.networking.k8s.io/v1", "TCPRoute", "tcproutes"),
            ObjectKind::UdpRoute => ("gateway.networking.k8s.io/v1", "UDPRoute", "udproutes"),
            ObjectKind::ListenerSet => {
                ("gateway.networking.k8s.io/v1", "ListenerSet", "listenersets")
            }
            ObjectKind::BackendTlsPolicy => {
                ("gateway.networking.k8s.io/v1", "BackendTLSPolicy", "backendtlspolicies")
            }
            ObjectKind::XBackend => {
                ("gateway.networking.x-k8s.io/v1alpha1", "XBackend", "xbackends")
            }
            ObjectKind::XBackendTrafficPolicy => (
                "gateway.networking.x-k8s.io/v1alpha1",
                "XBackendTrafficPolicy",
                "xbackendtrafficpolicies",
            ),
            ObjectKind::ReferenceGrant => {
                ("gateway.networking.k8s.io/v1", "ReferenceGrant", "referencegrants")
            }
            ObjectKind::IngressClass => ("networking.k8s.io/v1", "IngressClass", "ingressclasses"),
            ObjectKind::Ingress => ("networking.k8s.io/v1", "Ingress", "ingresses"),
            ObjectKind::Service => ("v1", "Service", "services"),
            ObjectKind::EndpointSlice => ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
            ObjectKind::Secret => ("v1", "Secret", "secrets"),
            ObjectKind::ConfigMap => ("v1", "ConfigMap", "configmaps"),
            ObjectKind::ClusterTrustBundle => {
                ("certificates.k8s.io/v1", "ClusterTrustBundle", "clustertrustbundles")
            }
            ObjectKind::Namespace => ("v1", "Namespace", "namespaces"),
            ObjectKind::Middleware => ("tidegate.dev/v1alpha1", "Middleware", "middlewares"),
            ObjectKind::RateLimit => ("tidegate.dev/v1alpha1", "RateLimit", "ratelimits"),
            ObjectKind::Consumer => ("tidegate.dev/v1alpha1", "Consumer", "consumers"),
        }
    }

    pub const fn kind(self) -> &'static str {
        self.names().1
    }

    /// The versions in which the kind may be served, with the same fields as far as they are
    /// read here: that of [`ObjectKind::names`] first, then older ones.
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            ObjectKind::GatewayClass | ObjectKind::Gateway | ObjectKind::HttpRoute => {
                &["v1", "v1beta1"]
            }
            ObjectKind::ReferenceGrant => &["v1", "v1beta1"],
            ObjectKind::BackendTlsPolicy => &["v1", "v1alpha3"],
            ObjectKind::TlsRoute => &["v1", "v1alpha3", "v1alpha2"],
            ObjectKind::TcpRoute | ObjectKind::UdpRoute => &["v1", "v1alpha2"],
            ObjectKind::ClusterTrustBundle => &["v1", "v1beta1", "v1alpha1"],
            ObjectKind::XBackend
            | ObjectKind::XBackendTrafficPolicy
            | ObjectKind::Middleware
            | ObjectKind::RateLimit
            | ObjectKind::Consumer => &["v1alpha1"],
            _ => &["v1"],
        }
    }
}

/// One object, for writing to it and talking about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    pub kind: ObjectKind,
    pub key: Key,
    pub uid: String,
    pub resource_version: String,
}

/// A whole `status`, foreign entries and old transition times kept, to be written with the
/// object's resourceVersion: a conflict means that a newer object is on its way to us.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    pub object: ObjectRef,
    pub status: serde_json::Value,
}

/// A change to what each Gateway needs in the cluster. All objects carry our label.
#[derive(Clone, Debug, PartialEq)]
pub enum InfrastructureWrite {
    /// Create, or replace at the resourceVersion that the object carries.
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    DeleteService(Key),
    DeleteEndpointSlice(Key),
}

/// Something about an object that its owner should know: an Event in a cluster, a line of
/// `validate`, a log line in file mode.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Note {
    pub kind: ObjectKind,
    pub key: Key,
    pub uid: Option<String>,
    pub warning: bool,
    /// CamelCase: a condition reason or a [`crate::reason::Reason`].
    pub reason: String,
    /// The path of the field, such as `spec.rules[0].backendRefs[1]`; empty for the whole.
    pub field: String,
    /// The cause and the remedy.
    pub message: String,
}

/// Compiles everything. Deterministic: equal snapshots give equal translations.
pub fn translate(snapshot: &Snapshot) -> Translation {
    let mut pass = pass::Pass::new(snapshot);
    pass.undecodable();
    pass.collect_backend_policies();
    pass.collect_consumers();
    pass.collect_policies();
    let classes = pass.gateway_classes();
    let mut gateways = pass.gateways(&classes);
    pass.listener_filters(&mut gateways);
    ports::assign(snapshot, &mut gateways);
    pass.bind(&mut gateways);
    let by_key = gateway::by_key(&gateways);
    pass.carrying.world_is_made();
    pass.routes(&mut gateways);
    pass.ingresses();
    pass.infrastructure(&mut gateways, &classes);
    pass.gateway_statuses(&gateways);
    pass.listener_set_statuses(&gateways);
    pass.backend_statuses();
    pass.policy_statuses(&gateways, &by_key);
    pass.consumer_statuses();
    pass.finish()
}

#[cfg(test)]
mod tests;
