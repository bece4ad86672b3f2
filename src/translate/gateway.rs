//! Gateways of our classes: accepted or not, bound, and what their status says.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Service;

use super::gateway_class::Classes;
use super::hostname;
use super::infrastructure::{is_ours, service_name};
use super::listeners::ListenerState;
use super::pass::{Pass, created};
use super::ports::Container;
use super::status::{Problem, Said, conditions};
use super::{Key, ObjectKind, Ports, Snapshot};
use crate::api::gateway::{AddressType, Gateway, GatewayAddress, GatewayStatus, ListenerStatus};
use crate::graph::Transport;

/// A Gateway of ours, and what became of it.
#[derive(Debug)]
pub(super) struct GatewayState<'s> {
    pub key: &'s Key,
    pub object: &'s Gateway,
    /// Why it cannot be served at all.
    pub problem: Option<Problem>,
    pub listeners: Vec<ListenerState<'s>>,
    /// Its own Service, if it is there and ours.
    pub service: Option<&'s Service>,
    /// By listener port, where every one has a container port.
    pub containers: BTreeMap<u16, Container>,
    /// How many ready pods are endpoints of each container port.
    pub ready: BTreeMap<u16, usize>,
}

impl GatewayState<'_> {
    /// The ports of listeners that can be served, each once.
    pub fn ports(&self) -> Vec<u16> {
        if self.problem.is_some() {
            return Vec::new();
        }
        let served = self.listeners.iter().filter(|l| l.refused.is_none() && l.conflict.is_none());
        let mut ports: Vec<u16> = served.map(|listener| listener.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

impl<'s> Pass<'s> {
    /// The Gateways of our classes, the oldest first.
    pub fn gateways(&mut self, classes: &Classes<'s>) -> Vec<GatewayState<'s>> {
        let snapshot = self.snapshot;
        let mut gateways = Vec::new();
        for (key, object) in snapshot.gateways.iter() {
            let Some(class) = classes.get(object.spec.gateway_class_name.as_str()) else {
                continue;
            };
            let service = Key::new(&*key.namespace, service_name(&key.name));
            gateways.push(GatewayState {
                key,
                object,
                problem: class.as_ref().map(of_class).or_else(|| problem(object)),
                listeners: self.listeners(key, object),
                service: snapshot.services.get(&service).map(|service| &**service).filter(
                    |service| is_ours(&service.metadata, &snapshot.settings.controller_name),
                ),
                containers: BTreeMap::new(),
                ready: BTreeMap::new(),
            });
        }
        gateways.sort_by_key(|gateway| (created(&gateway.object.metadata), gateway.key));
        gateways
    }

    /// Binds the ports and opens a section for each listener that claims hosts on them.
    pub fn bind(&mut self, gateways: &mut [GatewayState<'s>]) {
        for gateway in gateways.iter_mut().filter(|gateway| gateway.problem.is_none()) {
            // A listener without certificates binds nothing, but nobody else may answer for its
            // hosts on a port that is bound for others.
            let serving: Vec<_> = gateway
                .listeners
                .iter()
                .filter(|l| l.serves())
                .filter_map(|l| Some((l.bound?, l.public?, l.tls)))
                .collect();
            for (port, public, tls) in serving {
                self.binds.bind(port, public, tls);
            }
            for listener in &mut gateway.listeners {
                if listener.refused.is_some() || listener.conflict.is_some() {
                    continue;
                }
                let Some(port) = listener.bound else { continue };
                let Key { namespace, name } = gateway.key;
                let label = format!("gateway/{namespace}/{name}/{}", listener.spec.name);
                let section = self.graph.section(port, &listener.hostname, label.into());
                if listener.serves() {
                    listener.section = Some(section);
                    self.show(port, listener);
                }
            }
        }
    }

    /// The first certificate is shown for all of the listener's hosts; further ones for those
    /// of them that they are made out for.
    fn show(&mut self, port: u16, listener: &ListenerState<'_>) {
        if let [_, _, ..] = listener.certificates.as_slice() {
            for certificate in &listener.certificates {
                let names = certificate.names.iter();
                for name in names.filter(|name| within(name, &listener.hostname)) {
                    self.binds.certify(port, name, &certificate.key);
                }
            }
        }
        if let Some(first) = listener.certificates.first() {
            self.binds.certify(port, &listener.hostname, &first.key);
        }
    }

    /// Says of every Gateway what became of it.
    pub fn gateway_statuses(&mut self, gateways: &[GatewayState<'s>]) {
        for gateway in gateways {
            let listeners: Vec<ListenerStatus> =
                gateway.listeners.iter().map(|l| self.listener_status(gateway, l)).collect();
            let old = gateway.object.status.as_ref();
            let before = old.map_or(&[][..], |status| &status.conditions);
            let said = [accepted(gateway), self.programmed(gateway)];
            let owned = ["Accepted", "Programmed"];
            let meta = &gateway.object.metadata;
            let new = GatewayStatus {
                addresses: addresses(self.snapshot, gateway),
                conditions: conditions(before, &owned, &said, meta.generation, &self.now),
                listeners,
                attached_listener_sets: old.and_then(|status| status.attached_listener_sets),
                other: old.map(|status| status.other.clone()).unwrap_or_default(),
            };
            let mut problems: Vec<Problem> = gateway.problem.iter().cloned().collect();
            for listener in &gateway.listeners {
                let all = [&listener.refused, &listener.conflict, &listener.unresolved];
                problems.extend(all.into_iter().flatten().cloned());
            }
            for problem in &problems {
                self.warn(ObjectKind::Gateway, gateway.key, meta, problem);
            }
            self.status(ObjectKind::Gateway, gateway.key, meta, old, new);
        }
    }

    fn listener_status(
        &self,
        gateway: &GatewayState<'_>,
        listener: &ListenerState<'_>,
    ) -> ListenerStatus {
        let not_programmed = self.not_programmed(gateway, listener);
        let conflicted = match &listener.conflict {
            Some(problem) => Said::yes("Conflicted", problem.reason, problem.to_string()),
            None => Said::no("Conflicted", "NoConflicts", ""),
        };
        let mut said = vec![
            Said::of("Accepted", "Accepted", listener.refused.as_ref()),
            Said::of("Programmed", "Programmed", not_programmed.as_ref()),
            Said::of("ResolvedRefs", "ResolvedRefs", listener.unresolved.as_ref()),
            conflicted,
        ];
        if !listener.overlaps.is_empty() {
            let names: Vec<&str> = listener.overlaps.iter().copied().collect();
            let message = format!("host names overlap with those of {}", names.join(", "));
            said.push(Said::yes("OverlappingTLSConfig", "OverlappingHostnames", message));
        }
        let owned =
            ["Accepted", "Programmed", "ResolvedRefs", "Conflicted", "OverlappingTLSConfig"];
        let old = listener.old(gateway.object);
        let before = old.map_or(&[][..], |status| &status.conditions);
        let generation = gateway.object.metadata.generation;
        ListenerStatus {
            name: listener.spec.name.clone(),
            supported_kinds: listener.kinds.clone(),
            attached_routes: listener.attached,
            conditions: conditions(before, &owned, &said, generation, &self.now),
            other: old.map(|status| status.other.clone()).unwrap_or_default(),
        }
    }

    /// Why a listener is not live on this pod.
    fn not_programmed(
        &self,
        gateway: &GatewayState<'_>,
        listener: &ListenerState<'_>,
    ) -> Option<Problem> {
        if !listener.serves() {
            let why = listener.why_not().map(Problem::to_string).unwrap_or_default();
            return Some(Problem::new("Invalid", "", why));
        }
        if gateway.problem.is_some() {
            return Some(Problem::new("Invalid", "", "the Gateway is not accepted"));
        }
        let pending = |message: String| Some(Problem::new("Pending", "", message));
        let Some(port) = listener.bound else {
            return pending("no container port is recorded on the Gateway's Service yet".into());
        };
        match self.snapshot.listening.get(&(Transport::Tcp, port)) {
            Some(Ok(())) => None,
            Some(Err(cause)) => pending(format!("port {port} cannot be bound: {cause}")),
            None => pending(format!("port {port} is not bound yet")),
        }
    }

    fn programmed(&self, gateway: &GatewayState<'_>) -> Said {
        let no = |reason, message: String| Said::no("Programmed", reason, message);
        if let Some(problem) = &gateway.problem {
            return no("Invalid", problem.to_string());
        }
        let waiting = gateway.listeners.iter().filter(|listener| listener.serves());
        let mut serving = 0;
        for listener in waiting {
            serving += 1;
            if let Some(problem) = self.not_programmed(gateway, listener) {
                return no("Pending", format!("listener {}: {problem}", listener.spec.name));
            }
        }
        if serving == 0 {
            return no("Invalid", "no listener can be served; see their conditions".into());
        }
        let settings = &self.snapshot.settings;
        if !settings.cluster || matches!(settings.ports, Ports::Own { .. }) {
            return Said::yes("Programmed", "Programmed", "");
        }
        let Some(service) = gateway.service else {
            let name = service_name(&gateway.key.name);
            let message = format!("Service {name} does not exist yet, or is somebody else's");
            return no("AddressNotAssigned", message);
        };
        let has = addresses(self.snapshot, gateway);
        if has.is_empty() {
            let name = service.metadata.name.as_deref().unwrap_or_default();
            let message = format!("Service {name} has no load balancer address yet");
            return no("AddressNotAssigned", message);
        }
        let wanted = gateway.object.spec.addresses.iter().filter(|a| !a.value.is_empty());
        for address in wanted {
            if !has.iter().any(|has| has.value == address.value) {
                let message = format!(
                    "the load balancer did not take address {}; ask for one that it has",
                    address.value
                );
                return no("AddressNotUsable", message);
            }
        }
        match gateway.ready.iter().find(|(_, ready)| **ready == 0) {
            Some((port, _)) => no("Pending", format!("no ready pod listens on port {port} yet")),
            None => Said::yes("Programmed", "Programmed", ""),
        }
    }
}

/// Whether `name` is one of the hosts of `listener`, or a wildcard for some of them.
fn within(name: &str, listener: &str) -> bool {
    name == listener || hostname::covers(listener, name)
}

fn of_class(problem: &Problem) -> Problem {
    let message = format!("the GatewayClass is not accepted: {problem}");
    Problem::new("InvalidParameters", "spec.gatewayClassName", message)
}

/// What is wrong with a Gateway as a whole.
fn problem(gateway: &Gateway) -> Option<Problem> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    if let Some(reference) = infrastructure.and_then(|i| i.parameters_ref.as_ref()) {
        let message = format!("{} is not supported as parameters; remove them", reference.kind);
        let field = "spec.infrastructure.parametersRef";
        return Some(Problem::new("InvalidParameters", field, message));
    }
    for (i, address) in gateway.spec.addresses.iter().enumerate() {
        let r#type = address.r#type.as_ref().unwrap_or(&AddressType::IpAddress);
        if *r#type != AddressType::IpAddress {
            let message = format!("type {type} is not supported; use IPAddress");
            let field = format!("spec.addresses[{i}].type");
            return Some(Problem::new("UnsupportedAddress", field, message));
        }
    }
    None
}

fn accepted(gateway: &GatewayState<'_>) -> Said {
    if let Some(problem) = &gateway.problem {
        return Said::no("Accepted", problem.reason, problem.to_string());
    }
    let bad = |l: &&ListenerState<'_>| l.refused.is_some() || l.conflict.is_some();
    let bad: Vec<&str> = gateway.listeners.iter().filter(bad).map(|l| &*l.spec.name).collect();
    let message = format!("not accepted: {}; see their conditions", bad.join(", "));
    if bad.is_empty() && !gateway.listeners.is_empty() {
        Said::yes("Accepted", "Accepted", "")
    } else if bad.len() < gateway.listeners.len() {
        Said::yes("Accepted", "ListenersNotValid", message)
    } else {
        Said::no("Accepted", "ListenersNotValid", message)
    }
}

/// Where a Gateway can be reached.
fn addresses(snapshot: &Snapshot, gateway: &GatewayState<'_>) -> Vec<GatewayAddress> {
    /// `GatewayStatus.addresses`
    const MAX: usize = 16;
    let address = |r#type, value: &str| GatewayAddress {
        r#type: Some(r#type),
        value: value.into(),
        routability: None,
    };
    if gateway.problem.is_some() {
        return Vec::new();
    }
    if snapshot.settings.cluster && matches!(snapshot.settings.ports, Ports::Own { .. }) {
        // Host mode: pods have the addresses of their nodes.
        let ready = snapshot.peers.iter().filter(|peer| peer.is_ready());
        let mut ips: Vec<String> = ready.map(|peer| peer.ip.to_string()).collect();
        ips.sort();
        ips.dedup();
        return ips.iter().take(MAX).map(|ip| address(AddressType::IpAddress, ip)).collect();
    }
    let status = gateway.service.and_then(|service| service.status.as_ref());
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let addresses = ingress.into_iter().flatten().filter_map(|ingress| {
        match (ingress.ip.as_deref(), ingress.hostname.as_deref()) {
            (Some(ip), _) if !ip.is_empty() => Some(address(AddressType::IpAddress, ip)),
            (_, Some(name)) if !name.is_empty() => Some(address(AddressType::Hostname, name)),
            _ => None,
        }
    });
    addresses.take(MAX).collect()
}

/// Gateways by their keys.
pub(super) type ByKey<'s> = HashMap<&'s Key, usize>;

pub(super) fn by_key<'s>(gateways: &[GatewayState<'s>]) -> ByKey<'s> {
    gateways.iter().enumerate().map(|(place, gateway)| (gateway.key, place)).collect()
}
