//! Gateways of our classes: what they ask for, and their place in the graph. What their status
//! says is in `gateway_status`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use super::certificates::Parsed;
use super::gateway_class::Classes;
use super::hostname;
use super::infrastructure::{is_ours, service_name};
use super::intake::Intake;
use super::listener_set::{self, SetState};
use super::listeners::{ListenerState, NoSecret, Owner, Parent, Place};
use super::pass::{Pass, created};
use super::ports::Container;
use super::references::{From, To};
use super::status::Problem;
use super::{Key, conflicts};
use crate::api::gateway::{AddressType, DefaultScope, GROUP, Gateway};
use crate::graph::{TlsEnd, Transport};

/// A port that a Gateway's users connect to.
pub(super) type Port = (Transport, u16);

/// A Gateway of ours, and what became of it.
#[derive(Debug)]
pub(super) struct GatewayState<'s> {
    pub key: &'s Key,
    pub object: &'s Gateway,
    /// Why it cannot be served at all.
    pub problem: Option<Problem>,
    /// Its own, and after them those of its ListenerSets, in the order of their precedence.
    pub listeners: Vec<ListenerState<'s>>,
    /// The ListenerSets that name it, allowed or not, the oldest first.
    pub sets: Vec<SetState<'s>>,
    /// The certificate that it shows to backends (`spec.tls.backend`).
    pub identity: Option<Arc<Parsed>>,
    /// Why there is none, or not the one that is named (`ResolvedRefs`).
    pub unresolved: Option<Problem>,
    /// Why the API server does not make the Service that it asked for, with such a ClusterIP.
    pub invalid_service: Option<&'s str>,
    /// Its own Service, if it is there and ours.
    pub service: Option<&'s Service>,
    /// By listener port, where every one has a container port.
    pub containers: BTreeMap<Port, Container>,
    /// How many ready pods are endpoints of each container port.
    pub ready: BTreeMap<Port, usize>,
}

impl<'s> GatewayState<'s> {
    /// The ports of listeners that can be served, each once.
    pub fn ports(&self) -> Vec<Port> {
        if self.problem.is_some() {
            return Vec::new();
        }
        let served = self.listeners.iter().filter(|listener| listener.is_accepted());
        let mut ports: Vec<Port> = served.map(ListenerState::service_port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The listeners that stand in its own spec.
    pub fn own(&self) -> impl Iterator<Item = &ListenerState<'s>> {
        self.of(Parent::Gateway(self.key))
    }

    /// The listeners that stand in an object.
    pub fn of(&self, parent: Parent<'s>) -> impl Iterator<Item = &ListenerState<'s>> {
        self.listeners.iter().filter(move |listener| listener.parent == parent)
    }

    /// Whether routes attach to it that ask for any default Gateway (GEP-3793).
    pub fn is_default(&self) -> bool {
        self.object.spec.default_scope == Some(DefaultScope::All)
    }
}

impl<'s> Pass<'s> {
    /// The Gateways of our classes, the oldest first.
    pub fn gateways(&mut self, classes: &Classes<'s>) -> Vec<GatewayState<'s>> {
        let snapshot = self.snapshot;
        let mut sets = listener_set::by_gateway(snapshot);
        let mut gateways = Vec::new();
        for (key, object) in snapshot.gateways.iter() {
            let Some(class) = classes.get(object.spec.gateway_class_name.as_str()) else {
                continue;
            };
            let sets = sets.remove(key).unwrap_or_default();
            let problem = class.as_ref().map(of_class).or_else(|| problem(object));
            gateways.push(self.gateway(key, object, problem, &sets));
        }
        gateways.sort_by_key(|gateway| (created(&gateway.object.metadata), gateway.key));
        gateways
    }

    fn gateway(
        &mut self,
        key: &'s Key,
        object: &'s Gateway,
        problem: Option<Problem>,
        sets: &[listener_set::Named<'s>],
    ) -> GatewayState<'s> {
        let snapshot = self.snapshot;
        let old = object.status.as_ref().map_or(&[][..], |status| &status.listeners);
        let (parent, meta) = (Parent::Gateway(key), &object.metadata);
        let own = &object.spec.listeners;
        let mut listeners = self.listeners(Owner { parent, meta, listeners: own, old });
        let sets = self.listener_sets(key, object, sets, &mut listeners);
        conflicts::find(&mut listeners);
        self.frontend(key, object, &mut listeners);
        let service = Key::new(&*key.namespace, service_name(&key.name));
        let invalid_service = snapshot.invalid_services.get(&service).map(String::as_str);
        let service = snapshot.services.get(&service).map(|service| &**service);
        let ours = |s: &&Service| is_ours(&s.metadata, &snapshot.settings.controller_name);
        let (identity, unresolved) = self.identity(key, object);
        GatewayState {
            key,
            object,
            problem,
            listeners,
            sets,
            identity,
            unresolved,
            invalid_service,
            service: service.filter(ours),
            containers: BTreeMap::new(),
            ready: BTreeMap::new(),
        }
    }

    /// The certificate that a Gateway shows to backends, and what is wrong with the one it names.
    fn identity(&mut self, key: &Key, gateway: &Gateway) -> (Option<Arc<Parsed>>, Option<Problem>) {
        let tls = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
        let Some(reference) = tls.and_then(|backend| backend.client_certificate_ref.as_ref())
        else {
            return (None, None);
        };
        let from = From { group: GROUP, kind: "Gateway", namespace: &key.namespace };
        let to = To {
            group: reference.group.as_deref().unwrap_or_default(),
            kind: reference.kind.as_deref().unwrap_or("Secret"),
            namespace: reference.namespace.as_deref().unwrap_or(&key.namespace),
            name: &reference.name,
        };
        let problem = |reason, message| {
            Problem::new(reason, "spec.tls.backend.clientCertificateRef", message)
        };
        match self.secret(from, to) {
            Err(NoSecret::Kind(message)) => {
                (None, Some(problem("InvalidClientCertificateRef", message)))
            }
            Err(NoSecret::Grant(message)) => (None, Some(problem("RefNotPermitted", message))),
            Ok(secret) => {
                let read = self.certificates.of(self.snapshot, &mut self.memo, &secret).clone();
                let wrong = read.problem.map(|m| problem("InvalidClientCertificateRef", m));
                (read.shown, wrong)
            }
        }
    }

    /// Binds the ports and opens a section or stream for each listener on them.
    pub fn bind(&mut self, gateways: &mut [GatewayState<'s>]) {
        for gateway in gateways.iter_mut().filter(|gateway| gateway.problem.is_none()) {
            // A listener without certificates binds nothing, but nobody else may answer for its
            // hosts on a port that is bound for others.
            for listener in gateway.listeners.iter().filter(|listener| listener.serves()) {
                let Some((port, public)) = listener.bound.zip(listener.public) else { continue };
                match listener.intake {
                    Intake::Http => {
                        self.binds.bind(port, public, false);
                    }
                    Intake::Tcp => {
                        self.binds.stream(port);
                    }
                    Intake::Udp | Intake::Unknown => {}
                    Intake::Https | Intake::TlsTerminate | Intake::TlsPassthrough => {
                        self.binds.bind(port, public, true);
                        self.binds.demand(port, &listener.clients);
                    }
                }
            }
            for listener in gateway.listeners.iter_mut().filter(|l| l.claims()) {
                let place = self.place(listener);
                if listener.serves() {
                    listener.place = place.filter(|_| listener.filters.is_some());
                    self.show(listener);
                }
            }
        }
    }

    /// Opens a listener's place in the graph.
    fn place(&mut self, listener: &ListenerState<'_>) -> Option<Place> {
        let (port, public) = listener.bound.zip(listener.public)?;
        let (host, label) = (&*listener.hostname, listener.label());
        Some(match listener.intake {
            Intake::Http | Intake::Https => {
                let section = self.graph.section(port, host, label);
                self.install_filters(listener, section);
                Place::Http(section)
            }
            Intake::TlsTerminate => {
                Place::Stream(self.graph.tls_stream(port, host, TlsEnd::Here, label))
            }
            Intake::TlsPassthrough => {
                Place::Stream(self.graph.tls_stream(port, host, TlsEnd::Backend, label))
            }
            // What cannot serve must not bind.
            Intake::Tcp | Intake::Udp if !listener.serves() => return None,
            Intake::Tcp => Place::Stream(self.graph.tcp_stream(port, public, label)),
            Intake::Udp => Place::Stream(self.graph.udp_stream(port, public, label)),
            Intake::Unknown => return None,
        })
    }

    /// The first certificate is shown for all of the listener's hosts; further ones for those
    /// of them that they are made out for.
    fn show(&mut self, listener: &ListenerState<'_>) {
        let Some(port) = listener.bound.filter(|_| listener.intake.needs_certificate()) else {
            return;
        };
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
        let message = match r#type {
            AddressType::IpAddress => continue,
            AddressType::Hostname if address.value.is_empty() => continue,
            AddressType::Hostname => {
                "a load balancer chooses its own host name; leave the value out".to_owned()
            }
            AddressType::Named | AddressType::Other(_) => {
                format!("type {type} is not supported; use IPAddress")
            }
        };
        let field = format!("spec.addresses[{i}]");
        return Some(Problem::new("UnsupportedAddress", field, message));
    }
    None
}

/// Gateways by their keys.
pub(super) type ByKey<'s> = HashMap<&'s Key, usize>;

pub(super) fn by_key<'s>(gateways: &[GatewayState<'s>]) -> ByKey<'s> {
    gateways.iter().enumerate().map(|(place, gateway)| (gateway.key, place)).collect()
}

/// The Gateways that ListenerSets name, by the keys of the sets, allowed or not.
pub(super) fn by_set<'s>(gateways: &[GatewayState<'s>]) -> ByKey<'s> {
    let all = gateways.iter().enumerate();
    all.flat_map(|(place, gateway)| gateway.sets.iter().map(move |set| (set.key, place))).collect()
}
