//! The short way of endpoints: from the watch of EndpointSlices into the live graph's backends,
//! without a pass. Which addresses a backend has is decided by `translate`, here as there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ObjectMeta;

use crate::graph::{Backend, Shared};
use crate::translate::{Key, MANAGED_BY, Objects, SERVICE_NAME, Settings, TIDEGATE, endpoints_of};

/// Whose an EndpointSlice is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub service: Option<Key>,
    /// Tidegate wrote it: `translate` compares it.
    ours: bool,
}

impl Slice {
    pub fn of(meta: &ObjectMeta) -> Self {
        let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name));
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        Slice {
            service: label(SERVICE_NAME).map(|name| Key::new(namespace, name)),
            ours: label(MANAGED_BY).is_some_and(|by| by == TIDEGATE),
        }
    }
}

/// What the addresses of one Service's backends follow from.
pub(super) struct View {
    pub services: Objects<Service>,
    pub slices: Objects<EndpointSlice>,
    pub resolved: Arc<BTreeMap<String, Vec<IpAddr>>>,
    pub settings: Arc<Settings>,
}

impl View {
    fn addresses(&self, backend: &Backend) -> Vec<SocketAddr> {
        endpoints_of(backend, &self.services, &self.slices, &self.resolved, &self.settings)
    }
}

/// The way to the live graph.
pub(super) struct Feed {
    shared: Arc<Shared>,
    /// The chart's own Service, whose endpoints are the peers.
    own_service: Option<Key>,
    /// Held from looking to replacing: a slow task must not bring back older endpoints.
    order: Mutex<()>,
}

impl Feed {
    pub fn new(shared: Arc<Shared>, own_service: Option<Key>) -> Self {
        Feed { shared, own_service, order: Mutex::new(()) }
    }

    /// Nobody but the data plane looks at it.
    pub fn is_plain(&self, slice: &Slice) -> bool {
        !slice.ours && (slice.service.is_none() || slice.service != self.own_service)
    }

    /// Replaces the endpoints of every live backend of these Services; returns how many.
    pub fn update(&self, view: impl Fn(&Key) -> View, services: &BTreeSet<Key>) -> u64 {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let graph = self.shared.load();
        let mut views: BTreeMap<Key, View> = BTreeMap::new();
        let mut updates = 0;
        for backend in &graph.backends {
            let Some(name) = &backend.slices else { continue };
            let service = Key::new(&*backend.key.namespace, &**name);
            if !services.contains(&service) {
                continue;
            }
            let view = views.entry(service).or_insert_with_key(&view);
            let addrs = view.addresses(backend);
            backend.endpoints.replace(&addrs);
            updates += 1;
        }
        updates
    }
}
