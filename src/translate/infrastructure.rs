//! What a Gateway needs in a cluster: a Service of its own, and EndpointSlices with the pods
//! that listen for it.
//!
//! The Service stands in the Gateway's namespace, has no selector, and records the container
//! ports. There is a slice for each port and address family, so that a pod appears in it once
//! it listens on that port. Only what carries our label and names our controller is touched.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::endpoints::SERVICE_NAME;
use super::gateway::{GatewayState, Port};
use super::gateway_class::Classes;
use super::gateway_service;
use super::pass::{Pass, map_of};
use super::status::Problem;
use super::{InfrastructureWrite, Key, ObjectKind, Peer, PeerState, Ports};
use crate::graph::Transport;

/// The label of everything that Tidegate makes, with [`TIDEGATE`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const TIDEGATE: &str = "tidegate";
/// GEP-1762.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";
const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The controller that an object was made by: several Tidegates may live in one cluster.
pub(super) const CONTROLLER: &str = "tidegate.dev/controller";
/// The labels and annotations that came from `spec.infrastructure`, to be taken away with it.
const APPLIED: &str = "tidegate.dev/infrastructure";
/// Longest name of a Service and longest value of a label.
const MAX_LABEL: usize = 63;
/// Most endpoints of one slice, by the API.
const MAX_ENDPOINTS: usize = 1000;

/// Whether the Tidegate of this controller name made the object. The chart's admission policy
/// sees to it that nobody else writes such a Service.
pub(super) fn is_ours(meta: &ObjectMeta, controller: &str) -> bool {
    let label = map_of(meta.labels.as_ref()).get(MANAGED_BY);
    let by = map_of(meta.annotations.as_ref()).get(CONTROLLER);
    label.is_some_and(|label| label == TIDEGATE)
        && by.is_some_and(|by| by == controller)
        && meta.deletion_timestamp.is_none()
}

/// The name of a Gateway's Service: `NAME-tidegate`, with a hash where that is too long or no
/// name for a Service (which has no dots and begins with a letter).
pub(super) fn service_name(gateway: &str) -> String {
    let plain = gateway.replace('.', "-");
    let letter = plain.starts_with(|c: char| c.is_ascii_alphabetic());
    let full = format!("{plain}-{TIDEGATE}");
    if letter && plain == gateway && full.len() <= MAX_LABEL {
        return full;
    }
    let prefix = if letter { "" } else { "g-" };
    let mut head = format!("{prefix}{plain}");
    head.truncate(MAX_LABEL - TIDEGATE.len() - 10);
    format!("{}-{:08x}-{TIDEGATE}", head.trim_end_matches('-'), digest(gateway))
}

/// A name as the value of a label.
pub(super) fn label_value(name: &str) -> String {
    if name.len() <= MAX_LABEL {
        return name.to_owned();
    }
    let head = &name[..name.floor_char_boundary(MAX_LABEL - 9)];
    format!("{}-{:08x}", head.trim_end_matches(['-', '.']), digest(name))
}

/// Stable over versions of this program: it is part of names.
pub(super) fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl<'s> Pass<'s> {
    /// Asks for what the Gateways need, and for the end of what no Gateway needs any more.
    pub fn infrastructure(&mut self, gateways: &mut [GatewayState<'s>], classes: &Classes<'s>) {
        let settings = &self.snapshot.settings;
        if !settings.cluster || matches!(settings.ports, Ports::Own { .. }) {
            return;
        }
        let (mut services, mut slices) = (BTreeSet::new(), BTreeSet::new());
        for gateway in gateways {
            let service = Key::new(&*gateway.key.namespace, service_name(&gateway.key.name));
            if gateway.ports().is_empty() && gateway.service.is_none() {
                continue;
            }
            self.service(gateway, &service);
            self.slices(gateway, &service, &mut slices);
            services.insert(service);
        }
        self.orphans(&services, &slices, classes);
    }

    fn service(&mut self, gateway: &GatewayState<'_>, key: &Key) {
        let there = self.snapshot.services.get(key);
        if there.is_some_and(|service| service.metadata.deletion_timestamp.is_some()) {
            return;
        }
        let controller = &self.snapshot.settings.controller_name;
        if there.is_some_and(|service| !is_ours(&service.metadata, controller)) {
            let message = format!(
                "Service {key} is not Tidegate's and has the name that the Gateway's Service \
                 needs; rename or delete it"
            );
            let problem = Problem::new("AddressNotAssigned", "", message);
            self.warn(ObjectKind::Gateway, gateway.key, &gateway.object.metadata, &problem);
            return;
        }
        let there = there.map(|service| &**service);
        let base = Base { gateway, service: key, controller };
        let wanted = gateway_service::wanted(base, there);
        // A Gateway whose listeners are all refused keeps its Service, and with it its address.
        let empty =
            wanted.spec.as_ref().and_then(|spec| spec.ports.as_ref()).is_none_or(Vec::is_empty);
        if !empty && there != Some(&wanted) {
            self.infrastructure.push(InfrastructureWrite::Service(Box::new(wanted)));
        }
    }

    /// A slice for each recorded port and address family.
    fn slices(&mut self, gateway: &mut GatewayState<'_>, service: &Key, all: &mut BTreeSet<Key>) {
        let snapshot = self.snapshot;
        // This pod is a peer: none at all means that nobody has looked yet.
        let unknown = snapshot.peers.is_empty();
        let recorded: Vec<(Port, u16)> = gateway
            .containers
            .iter()
            .filter(|(_, container)| container.recorded)
            .map(|(port, container)| (*port, container.number))
            .collect();
        for (port, number) in recorded {
            let mut ready = 0;
            for v6 in [false, true] {
                let listens = |p: &&Peer| {
                    p.state != PeerState::Away
                        && p.ports.contains(&(port.0, number))
                        && p.ip.is_ipv6() == v6
                };
                let mut peers: Vec<&Peer> = snapshot.peers.iter().filter(listens).collect();
                peers.sort_by_key(|peer| peer.ip);
                peers.dedup_by_key(|peer| peer.ip);
                peers.truncate(MAX_ENDPOINTS);
                ready += peers.len();
                let family = if v6 { "ipv6" } else { "ipv4" };
                let name = slice_name(&service.name, port, family);
                let key = Key::new(&*service.namespace, name);
                let there = snapshot.endpoint_slices.get(&key).map(|slice| &**slice);
                all.insert(key.clone());
                if unknown {
                    let endpoints = there.and_then(|slice| slice.endpoints.as_ref());
                    ready += endpoints.map_or(0, Vec::len);
                }
                if unknown || (there.is_none() && peers.is_empty()) {
                    continue;
                }
                if there.is_some_and(|slice| {
                    !is_ours(&slice.metadata, &snapshot.settings.controller_name)
                }) {
                    continue;
                }
                let namespace = snapshot.settings.own_service.as_ref().map(|key| &*key.namespace);
                let controller = &snapshot.settings.controller_name;
                let base = Base { gateway, service, controller };
                let slice = base.slice(&key, (port, number), &peers, namespace, there, v6);
                if there != Some(&slice) {
                    let write = InfrastructureWrite::EndpointSlice(Box::new(slice));
                    self.infrastructure.push(write);
                }
            }
            gateway.ready.insert(port, ready);
        }
    }

    /// Deletes what we made for Gateways that are gone, or are another controller's now.
    fn orphans(&mut self, services: &BTreeSet<Key>, slices: &BTreeSet<Key>, classes: &Classes<'s>) {
        let snapshot = self.snapshot;
        let unreadable: BTreeSet<String> = snapshot
            .undecodable
            .iter()
            .filter(|object| object.kind == "Gateway")
            .map(|object| service_name(&object.key.name))
            .collect();
        // While a class is missing nobody knows whose its Gateways are.
        let undecided: BTreeSet<(&str, String)> = snapshot
            .gateways
            .iter()
            .filter(|(_, gateway)| {
                let class = gateway.spec.gateway_class_name.as_str();
                let known = snapshot.gateway_classes.contains_key(&Key::new("", class));
                !known || classes.contains_key(class)
            })
            .map(|(key, _)| (key.namespace.as_str(), service_name(&key.name)))
            .collect();
        let keep = |namespace: &str, service: &str| {
            unreadable.contains(service) || undecided.contains(&(namespace, service.to_owned()))
        };
        let controller = &snapshot.settings.controller_name;
        let made_here = |meta: &ObjectMeta| {
            is_ours(meta, controller) && map_of(meta.labels.as_ref()).contains_key(GATEWAY_NAME)
        };
        for (key, service) in snapshot.services.iter() {
            if made_here(&service.metadata)
                && !services.contains(key)
                && !keep(&key.namespace, &key.name)
            {
                self.infrastructure.push(InfrastructureWrite::DeleteService(key.clone()));
            }
        }
        for (key, slice) in snapshot.endpoint_slices.iter() {
            if !made_here(&slice.metadata) || slices.contains(key) {
                continue;
            }
            let labels = map_of(slice.metadata.labels.as_ref());
            let service = labels.get(SERVICE_NAME).map_or("", String::as_str);
            let alive = services.contains(&Key::new(&*key.namespace, service));
            if alive || !keep(&key.namespace, service) {
                self.infrastructure.push(InfrastructureWrite::DeleteEndpointSlice(key.clone()));
            }
        }
    }
}

/// What is common to the objects of a Gateway.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    pub gateway: &'a GatewayState<'a>,
    pub service: &'a Key,
    pub controller: &'a str,
}

impl Base<'_> {
    /// The metadata of an object, over what stands there: ours wins over the Gateway's
    /// `spec.infrastructure`, and that over everybody else's.
    pub fn meta(&self, key: &Key, there: Option<&ObjectMeta>, more: &[(&str, &str)]) -> ObjectMeta {
        let gateway = self.gateway.object;
        let mut meta = there.cloned().unwrap_or_default();
        meta.namespace = Some(key.namespace.clone());
        meta.name = Some(key.name.clone());
        let mut labels = meta.labels.take().unwrap_or_default();
        let mut annotations = meta.annotations.take().unwrap_or_default();
        for applied in annotations.remove(APPLIED).iter().flat_map(|list| list.split(',')) {
            match applied.split_once('=') {
                Some(("label", name)) => drop(labels.remove(name)),
                Some(("annotation", name)) => drop(annotations.remove(name)),
                _ => {}
            }
        }
        let mut applied = Vec::new();
        if let Some(infrastructure) = &gateway.spec.infrastructure {
            for (name, value) in &infrastructure.labels {
                labels.insert(name.clone(), value.clone());
                applied.push(format!("label={name}"));
            }
            for (name, value) in &infrastructure.annotations {
                annotations.insert(name.clone(), value.clone());
                applied.push(format!("annotation={name}"));
            }
        }
        let name = label_value(&self.gateway.key.name);
        let class = label_value(&gateway.spec.gateway_class_name);
        let ours = [(MANAGED_BY, TIDEGATE), (GATEWAY_NAME, &*name), (GATEWAY_CLASS, &*class)];
        for (label, value) in ours.iter().chain(more) {
            labels.insert((*label).to_owned(), (*value).to_owned());
        }
        annotations.insert(CONTROLLER.to_owned(), self.controller.to_owned());
        if !applied.is_empty() {
            annotations.insert(APPLIED.to_owned(), applied.join(","));
        }
        meta.labels = Some(labels);
        meta.annotations = Some(annotations);
        meta.owner_references = Some(vec![OwnerReference {
            api_version: "gateway.networking.k8s.io/v1".to_owned(),
            kind: "Gateway".to_owned(),
            name: self.gateway.key.name.clone(),
            uid: gateway.metadata.uid.clone().unwrap_or_default(),
            block_owner_deletion: None,
            controller: Some(true),
        }]);
        meta
    }

    fn slice(
        &self,
        key: &Key,
        (port, number): (Port, u16),
        peers: &[&Peer],
        namespace: Option<&str>,
        there: Option<&EndpointSlice>,
        v6: bool,
    ) -> EndpointSlice {
        let more = [(SERVICE_NAME, &*self.service.name), (SLICE_MANAGED_BY, "tidegate.dev")];
        EndpointSlice {
            address_type: if v6 { "IPv6" } else { "IPv4" }.to_owned(),
            endpoints: Some(peers.iter().map(|peer| endpoint(peer, namespace)).collect()),
            metadata: self.meta(key, there.map(|slice| &slice.metadata), &more),
            ports: Some(vec![EndpointPort {
                app_protocol: None,
                name: Some(port_name(port)),
                port: Some(i32::from(number)),
                protocol: Some(port.0.as_str().to_owned()),
            }]),
        }
    }
}

fn endpoint(peer: &Peer, namespace: Option<&str>) -> Endpoint {
    let pod = |(name, namespace): (&String, &str)| ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.clone()),
        ..ObjectReference::default()
    };
    Endpoint {
        addresses: vec![peer.ip.to_string()],
        // Where no endpoint is ready, kube-proxy takes those that still serve, instead of
        // dropping what comes: so a rollout may be quicker than the news of it.
        conditions: Some(EndpointConditions {
            ready: Some(peer.is_ready()),
            serving: Some(true),
            terminating: Some(!peer.is_ready()),
        }),
        node_name: peer.node_name.clone(),
        target_ref: peer.pod_name.as_ref().zip(namespace).map(pod),
        ..Endpoint::default()
    }
}

/// By it, a port of the Service and the port of its slices belong together.
pub(super) fn port_name((transport, port): Port) -> String {
    match transport {
        Transport::Tcp => format!("port-{port}"),
        Transport::Udp => format!("port-{port}-udp"),
    }
}

fn slice_name(service: &str, (transport, port): Port, family: &str) -> String {
    match transport {
        Transport::Tcp => format!("{service}-{port}-{family}"),
        Transport::Udp => format!("{service}-{port}-udp-{family}"),
    }
}
