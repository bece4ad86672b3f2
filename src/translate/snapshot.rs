//! The objects at one moment: all that `translate` may know.
//!
//! Made by `source`, from a cluster or from files. It carries the time it was taken and the
//! state of the data plane and of the peers, so that `translate` needs no clock and no network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::Memo;
use super::key_sets::KeySets;
use crate::api::cluster_trust_bundle::ClusterTrustBundle;
use crate::api::consumer::Consumer;
use crate::api::gateway::{
    BackendTlsPolicy, Gateway, GatewayClass, GrpcRoute, HttpRoute, ListenerSet, ReferenceGrant,
    TcpRoute, TlsRoute, UdpRoute, XBackend, XBackendTrafficPolicy,
};
use crate::api::middleware::Middleware;
use crate::api::rate_limit::RateLimit;
use crate::graph::{Bound, Transport};

/// A namespace (empty for cluster-scoped kinds) and a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            ns => write!(f, "{ns}/{}", self.name),
        }
    }
}

/// All objects of a kind, shared with the source that keeps them.
pub type Objects<T> = Arc<BTreeMap<Key, Arc<T>>>;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub taken: Timestamp,
    pub settings: Arc<Settings>,
    pub gateway_classes: Objects<GatewayClass>,
    pub gateways: Objects<Gateway>,
    pub http_routes: Objects<HttpRoute>,
    pub grpc_routes: Objects<GrpcRoute>,
    pub tls_routes: Objects<TlsRoute>,
    pub tcp_routes: Objects<TcpRoute>,
    pub udp_routes: Objects<UdpRoute>,
    pub listener_sets: Objects<ListenerSet>,
    pub backend_tls_policies: Objects<BackendTlsPolicy>,
    pub x_backends: Objects<XBackend>,
    pub x_backend_traffic_policies: Objects<XBackendTrafficPolicy>,
    pub reference_grants: Objects<ReferenceGrant>,
    pub ingress_classes: Objects<IngressClass>,
    pub ingresses: Objects<Ingress>,
    pub services: Objects<Service>,
    pub endpoint_slices: Objects<EndpointSlice>,
    /// Those of type `kubernetes.io/tls`, and those that objects name.
    pub secrets: Objects<Secret>,
    /// Only those that objects name.
    pub config_maps: Objects<ConfigMap>,
    pub cluster_trust_bundles: Objects<ClusterTrustBundle>,
    pub namespaces: Objects<Namespace>,
    pub middlewares: Objects<Middleware>,
    pub rate_limits: Objects<RateLimit>,
    pub consumers: Objects<Consumer>,
    /// Addresses of ExternalName Services and XBackends by their host names, resolved by the source.
    pub resolved: Arc<BTreeMap<String, Vec<IpAddr>>>,
    /// Keys of issuers by where they are fetched from, by the source.
    pub key_sets: Arc<KeySets>,
    /// Objects that could not be decoded. Where a last good version exists, it stands in the
    /// map of its kind.
    pub undecodable: Arc<Vec<Undecodable>>,
    /// Last certificate and key that were good, by Secret, kept while the Secret is broken.
    pub good_certificates: Arc<BTreeMap<Key, Arc<Secret>>>,
    /// What this pod's data plane listens on: the port, or why it cannot.
    pub listening: Arc<Bound>,
    /// Services of Gateways that the API server does not make as they are asked for, and why.
    pub invalid_services: Arc<BTreeMap<Key, String>>,
    /// The Tidegate pods that answer, this one included, as the leader last saw them.
    pub peers: Arc<Vec<Peer>>,
    /// What passes leave to each other, so that they need not do the same again.
    pub memo: Arc<Memo>,
}

/// An object that is there and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// `HTTPRoute`, as in the object's `kind`.
    pub kind: String,
    pub key: Key,
    pub uid: Option<String>,
    /// Where it was read from: `file.yaml:12` in file mode.
    pub origin: Option<String>,
    /// The path of the field and what is wrong with it.
    pub message: String,
}

/// A Tidegate pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub ip: IpAddr,
    pub pod_name: Option<String>,
    pub node_name: Option<String>,
    pub state: PeerState,
    /// The Gateway container ports that it has been seen to listen on.
    pub ports: BTreeSet<(Transport, u16)>,
}

/// What a Tidegate pod can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Ready by its own word and not terminating.
    Ready,
    /// On its way out, but serving as before: better than nobody, where nobody is ready.
    Leaving,
    /// Starting, draining or silent.
    Away,
}

impl Peer {
    pub fn is_ready(&self) -> bool {
        self.state == PeerState::Ready
    }
}

/// How ports of listeners become ports that are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every (Gateway, listener port) has a container port of its own, recorded on the
    /// Gateway's Service; allocated from this inclusive range.
    Container { first: u16, last: u16 },
    /// A listener binds its own port plus an offset: host mode and file mode. The offset is
    /// added only to privileged ports (below 1024) in file mode; in host mode likewise.
    Own { offset: u16 },
}

impl Ports {
    /// The port that is bound for a listener's `port` where it is its own.
    pub fn own(self, port: u16) -> u16 {
        match self {
            Ports::Own { offset } if port < 1024 => port.saturating_add(offset),
            _ => port,
        }
    }
}

/// What the command line decides and translation depends on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The GatewayClass `controllerName` that is ours.
    pub controller_name: String,
    /// The IngressClass `controller` that is ours.
    pub ingress_controller_name: String,
    /// The value of the old `kubernetes.io/ingress.class` annotation that is ours.
    pub ingress_class: String,
    pub ports: Ports,
    /// Ports bound for Ingress, clear and TLS.
    pub ingress_http_port: u16,
    pub ingress_https_port: u16,
    /// The namespace of this pod and the name of the chart's own Service: whose addresses go
    /// into the status of Ingresses. None in file mode.
    pub own_service: Option<Key>,
    /// ExternalName Services may be backends (file mode; in a cluster by opt-in).
    pub external_names: bool,
    /// Issuers may have private addresses, and http URLs.
    pub private_issuers: bool,
    /// In file mode no Service of type LoadBalancer is made, and Gateways are programmed at
    /// the addresses of this machine.
    pub cluster: bool,
    /// Statuses are wanted: somebody reads them.
    pub statuses: bool,
    /// Only these namespaces are looked at; empty: all.
    pub watch_namespaces: Vec<String>,
    /// Peers whose X-Forwarded-* are believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            controller_name: "tidegate.dev/gateway-controller".into(),
            ingress_controller_name: "tidegate.dev/ingress-controller".into(),
            ingress_class: "tidegate".into(),
            ports: Ports::Own { offset: 0 },
            ingress_http_port: 80,
            ingress_https_port: 443,
            own_service: None,
            external_names: false,
            private_issuers: false,
            cluster: false,
            statuses: true,
            watch_namespaces: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}
