//! Objects in, a compiled route graph and statuses out: pure, no clock, no network, no async.
//!
//! The controller, the file mode, `validate` and what comes later all call [`translate`], so
//! they cannot disagree. A bad object hurts only itself: it becomes a condition and a note,
//! never an error that stops others.

mod annotations;
mod backends;
mod binds;
mod certificates;
mod draft;
mod endpoints;
mod filters;
mod gateway;
mod gateway_class;
mod hostname;
mod http_route;
mod infrastructure;
mod ingress;
mod ingress_status;
mod listeners;
mod matches;
mod memo;
mod middleware;
mod pass;
mod policy_status;
mod ports;
mod references;
mod rules;
mod service_backends;
pub mod snapshot;
mod status;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::graph::RouteGraph;
pub use annotations::{BACKEND_PROTOCOL, MIDDLEWARES, RATE_LIMITS, SSL_REDIRECT};
pub use endpoints::{SERVICE_NAME, endpoints_of};
pub use infrastructure::{MANAGED_BY, TIDEGATE};
pub use memo::Memo;
pub use service_backends::{TLS_HOSTNAME, TLS_SECRET, TLS_VERIFY};
pub use snapshot::{Key, Objects, Peer, PeerState, Ports, Settings, Snapshot, Undecodable};

/// What [`translate`] returns.
#[derive(Debug, Default)]
pub struct Translation {
    pub graph: RouteGraph,
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
    ReferenceGrant,
    IngressClass,
    Ingress,
    Service,
    EndpointSlice,
    Secret,
    Namespace,
    Middleware,
    RateLimit,
}

impl ObjectKind {
    pub const ALL: &[ObjectKind] = &[
        ObjectKind::GatewayClass,
        ObjectKind::Gateway,
        ObjectKind::HttpRoute,
        ObjectKind::ReferenceGrant,
        ObjectKind::IngressClass,
        ObjectKind::Ingress,
        ObjectKind::Service,
        ObjectKind::EndpointSlice,
        ObjectKind::Secret,
        ObjectKind::Namespace,
        ObjectKind::Middleware,
        ObjectKind::RateLimit,
    ];

    /// `apiVersion`, kind and plural, as the API server knows them.
    pub const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            ObjectKind::GatewayClass => {
                ("gateway.networking.k8s.io/v1", "GatewayClass", "gatewayclasses")
            }
            ObjectKind::Gateway => ("gateway.networking.k8s.io/v1", "Gateway", "gateways"),
            ObjectKind::HttpRoute => ("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes"),
            ObjectKind::ReferenceGrant => {
                ("gateway.networking.k8s.io/v1", "ReferenceGrant", "referencegrants")
            }
            ObjectKind::IngressClass => ("networking.k8s.io/v1", "IngressClass", "ingressclasses"),
            ObjectKind::Ingress => ("networking.k8s.io/v1", "Ingress", "ingresses"),
            ObjectKind::Service => ("v1", "Service", "services"),
            ObjectKind::EndpointSlice => ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
            ObjectKind::Secret => ("v1", "Secret", "secrets"),
            ObjectKind::Namespace => ("v1", "Namespace", "namespaces"),
            ObjectKind::Middleware => ("tidegate.dev/v1alpha1", "Middleware", "middlewares"),
            ObjectKind::RateLimit => ("tidegate.dev/v1alpha1", "RateLimit", "ratelimits"),
        }
    }

    pub const fn kind(self) -> &'static str {
        self.names().1
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
    pass.collect_policies();
    let classes = pass.gateway_classes();
    let mut gateways = pass.gateways(&classes);
    ports::assign(snapshot, &mut gateways);
    pass.bind(&mut gateways);
    let by_key = gateway::by_key(&gateways);
    pass.http_routes(&mut gateways, &by_key);
    pass.ingresses();
    pass.infrastructure(&mut gateways, &classes);
    pass.gateway_statuses(&gateways);
    pass.policy_statuses(&gateways, &by_key);
    pass.finish()
}

#[cfg(test)]
mod tests;
