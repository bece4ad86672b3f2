//! What routes follow from besides themselves, compared from pass to pass.
//!
//! Gateways, policies and the like are the world of all routes: where one of them changed, every
//! route is looked at anew. Services, their slices, ReferenceGrants and namespaces change all the
//! time, and each concerns only the routes that name it: those are told apart.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::endpoints::service_of;
use super::infrastructure::{MANAGED_BY, TIDEGATE};
use super::key_sets::{self, KeySets};
use super::middleware::ready_replicas;
use super::pass::map_of;
use super::{Key, Objects, Settings, Snapshot};
use crate::api::cluster_trust_bundle::ClusterTrustBundle;
use crate::api::consumer::Consumer;
use crate::api::gateway::{
    BackendTlsPolicy, Gateway, GatewayClass, ListenerSet, ReferenceGrant, ReferenceGrantTo,
    TcpRoute, TlsRoute, UdpRoute, XBackendTrafficPolicy,
};
use crate::api::middleware::Middleware;
use crate::api::rate_limit::RateLimit;

/// The objects that the last pass saw; they are held, so that the address of one is its own.
#[derive(Debug, Default)]
pub(super) struct World {
    settings: Arc<Settings>,
    gateway_classes: Vec<Arc<GatewayClass>>,
    gateways: Vec<Arc<Gateway>>,
    listener_sets: Vec<Arc<ListenerSet>>,
    backend_tls_policies: Vec<Arc<BackendTlsPolicy>>,
    x_backend_traffic_policies: Vec<Arc<XBackendTrafficPolicy>>,
    middlewares: Vec<Arc<Middleware>>,
    rate_limits: Vec<Arc<RateLimit>>,
    consumers: Vec<Arc<Consumer>>,
    secrets: Vec<Arc<Secret>>,
    config_maps: Vec<Arc<ConfigMap>>,
    cluster_trust_bundles: Vec<Arc<ClusterTrustBundle>>,
    resolved: Arc<BTreeMap<String, Vec<IpAddr>>>,
    key_sets: Arc<KeySets>,
    reference_grants: Vec<Arc<ReferenceGrant>>,
    services: Vec<Arc<Service>>,
    endpoint_slices: Vec<Arc<EndpointSlice>>,
    namespaces: Vec<Arc<Namespace>>,
    tls_routes: Vec<Arc<TlsRoute>>,
    tcp_routes: Vec<Arc<TcpRoute>>,
    udp_routes: Vec<Arc<UdpRoute>>,
    ingress_classes: Vec<Arc<IngressClass>>,
    ingresses: Vec<Arc<Ingress>>,
    replicas: u32,
}

/// What is not as it was in the last pass.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// All routes are to be looked at.
    pub world: bool,
    /// Those of which the Service or its slices changed, or were or are not there.
    pub services: HashSet<Key>,
    /// Namespaces where a ReferenceGrant to Services changed.
    pub grants: HashSet<String>,
    /// Namespaces that changed.
    pub namespaces: HashSet<String>,
    /// What is looked at in every pass and part of the graph: streams, Ingresses, XBackends.
    pub others: bool,
}

impl Changes {
    /// Whether nothing at all changed that graphs are made of, routes apart.
    pub fn are_none(&self) -> bool {
        let Changes { world, services, grants, namespaces, others } = self;
        !world && !others && services.is_empty() && grants.is_empty() && namespaces.is_empty()
    }
}

impl World {
    /// Takes note of what `snapshot` has, and says what of it is different.
    pub fn follow(&mut self, snapshot: &Snapshot) -> Changes {
        let Snapshot {
            // Each is compared by whom it concerns.
            http_routes: _,
            grpc_routes: _,
            // In statuses, infrastructure and notes only, which every pass makes.
            taken: _,
            undecodable: _,
            listening: _,
            invalid_services: _,
            // It stands for Secrets that are broken: that they are is a change of theirs.
            good_certificates: _,
            memo: _,
            x_backends,
            settings,
            gateway_classes,
            gateways,
            listener_sets,
            backend_tls_policies,
            x_backend_traffic_policies,
            middlewares,
            rate_limits,
            consumers,
            secrets,
            config_maps,
            cluster_trust_bundles,
            resolved,
            key_sets,
            reference_grants,
            services,
            endpoint_slices,
            namespaces,
            tls_routes,
            tcp_routes,
            udp_routes,
            ingress_classes,
            ingresses,
            peers: _,
        } = snapshot;
        let mut changes = Changes::default();
        macro_rules! like {
            ($($kind:ident),*) => {$(
                changes.world |= differ(&mut self.$kind, $kind, |a, b| {
                    a.spec == b.spec && same_meta(&a.metadata, &b.metadata)
                });
            )*};
        }
        // Their statuses we write ourselves.
        like!(gateway_classes, gateways, listener_sets, backend_tls_policies);
        like!(x_backend_traffic_policies, middlewares, rate_limits, consumers);
        changes.world |= differ(&mut self.secrets, secrets, |_, _| false);
        changes.world |= differ(&mut self.config_maps, config_maps, |_, _| false);
        changes.world |=
            differ(&mut self.cluster_trust_bundles, cluster_trust_bundles, |_, _| false);
        changes.world |= self.resolved != *resolved || !Arc::ptr_eq(&self.settings, settings);
        (self.resolved, self.settings) = (Arc::clone(resolved), Arc::clone(settings));
        // Limits go by how many pods there are.
        let replicas = if rate_limits.is_empty() { 0 } else { ready_replicas(snapshot) };
        changes.others |= self.replicas != replicas;
        self.replicas = replicas;
        changes.world |= key_sets::differ(&self.key_sets, key_sets);
        self.key_sets = Arc::clone(key_sets);
        // Those who name one are looked at in every pass, because they follow from much else.
        changes.others |= !x_backends.is_empty();
        changes.others |= differ(&mut self.tls_routes, tls_routes, |_, _| false);
        changes.others |= differ(&mut self.tcp_routes, tcp_routes, |_, _| false);
        changes.others |= differ(&mut self.udp_routes, udp_routes, |_, _| false);
        changes.others |= differ(&mut self.ingress_classes, ingress_classes, |_, _| false);
        changes.others |= differ(&mut self.ingresses, ingresses, |_, _| false);
        self.grants(reference_grants, &mut changes);
        self.services(services, endpoint_slices, &mut changes);
        self.namespaces(namespaces, &mut changes);
        changes
    }

    /// Grants for other kinds than Services are for Gateways.
    fn grants(&mut self, now: &Objects<ReferenceGrant>, changes: &mut Changes) {
        differences(
            &mut self.reference_grants,
            now,
            |g| &g.metadata,
            |grant| {
                changes.world |= !grant.spec.to.iter().all(is_service);
                changes.grants.extend(grant.metadata.namespace.clone());
            },
        );
    }

    /// The Services of Gateways record the ports of these.
    fn services(
        &mut self,
        services: &Objects<Service>,
        slices: &Objects<EndpointSlice>,
        changes: &mut Changes,
    ) {
        differences(
            &mut self.services,
            services,
            |service| &service.metadata,
            |service| {
                let by = map_of(service.metadata.labels.as_ref()).get(MANAGED_BY);
                changes.world |= by.is_some_and(|by| by == TIDEGATE);
                changes.services.insert(key_of(&service.metadata));
            },
        );
        differences(
            &mut self.endpoint_slices,
            slices,
            |slice| &slice.metadata,
            |slice| {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                changes.services.extend(service_of(slice).map(|name| Key::new(namespace, name)));
            },
        );
    }

    fn namespaces(&mut self, now: &Objects<Namespace>, changes: &mut Changes) {
        let sets = !self.listener_sets.is_empty();
        differences(
            &mut self.namespaces,
            now,
            |namespace| &namespace.metadata,
            |namespace| {
                // Which ListenerSets a Gateway takes follows from their namespaces.
                changes.world |= sets;
                changes.namespaces.extend(namespace.metadata.name.clone());
            },
        );
    }
}

fn is_service(to: &ReferenceGrantTo) -> bool {
    to.group.is_empty() && to.kind == "Service"
}

/// Whether there are other objects than there were, or one of them is not `alike`.
fn differ<T>(before: &mut Vec<Arc<T>>, now: &Objects<T>, alike: impl Fn(&T, &T) -> bool) -> bool {
    let same = |(a, b): (&Arc<T>, &Arc<T>)| Arc::ptr_eq(a, b);
    let pairs = || before.iter().zip(now.values());
    if before.len() == now.len() && pairs().all(same) {
        return false;
    }
    let same = |(a, b): (&Arc<T>, &Arc<T>)| Arc::ptr_eq(a, b) || alike(a, b);
    let differ = before.len() != now.len() || !pairs().all(same);
    *before = now.values().cloned().collect();
    differ
}

/// Tells of each object that is gone, new or another: as it was and as it is.
fn differences<T>(
    before: &mut Vec<Arc<T>>,
    now: &Objects<T>,
    meta: impl Fn(&T) -> &ObjectMeta,
    mut tell: impl FnMut(&T),
) {
    let mut different = before.len() != now.len();
    let mut old = before.iter().peekable();
    for new in now.values() {
        let key = name_of(meta(new));
        while let Some(gone) = old.next_if(|old| name_of(meta(old)) < key) {
            different = true;
            tell(gone);
        }
        let same = old.next_if(|old| name_of(meta(old)) == key);
        if same.is_none_or(|old| !Arc::ptr_eq(old, new)) {
            different = true;
            same.into_iter().for_each(|old| tell(old));
            tell(new);
        }
    }
    old.for_each(|gone| tell(gone));
    if different {
        *before = now.values().cloned().collect();
    }
}

/// In the order of the keys of snapshots.
fn name_of(meta: &ObjectMeta) -> (&str, &str) {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    (namespace, meta.name.as_deref().unwrap_or_default())
}

fn key_of(meta: &ObjectMeta) -> Key {
    let (namespace, name) = name_of(meta);
    Key::new(namespace, name)
}

/// Whether all is the same that translation reads of an object's metadata, and that is not only
/// repeated in its status.
fn same_meta(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    name_of(a) == name_of(b)
        && a.uid == b.uid
        && a.labels == b.labels
        && a.annotations == b.annotations
        && a.creation_timestamp == b.creation_timestamp
        && a.deletion_timestamp == b.deletion_timestamp
}
