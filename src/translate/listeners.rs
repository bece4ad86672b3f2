//! The listeners of a Gateway: which of them can serve, with what, and for whose routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::certificates::EXPIRED;
use super::certificates::Parsed;
use super::hostname;
use super::pass::{Pass, map_of};
use super::references::{From, To};
use super::status::Problem;
use super::{Key, ObjectKind, Snapshot};
use crate::api::gateway::{
    FromNamespaces, GROUP, Gateway, LabelSelector, Listener, ListenerStatus, Protocol,
    RouteGroupKind, TlsMode,
};
use crate::graph::SectionId;

/// A listener, and what became of it.
#[derive(Debug)]
pub(super) struct ListenerState<'s> {
    pub spec: &'s Listener,
    /// `spec.listeners[INDEX]`.
    pub field: String,
    pub port: u16,
    pub tls: bool,
    /// In lower case; empty for every host.
    pub hostname: String,
    /// The kinds of routes it takes, as its status lists them.
    pub kinds: Vec<RouteGroupKind>,
    namespaces: Namespaces<'s>,
    /// Why the listener cannot be served at all (`Accepted`).
    pub refused: Option<Problem>,
    /// Another listener of the Gateway that it cannot be told from (`Conflicted`).
    pub conflict: Option<Problem>,
    /// What it refers to and is not there or not allowed (`ResolvedRefs`).
    pub unresolved: Option<Problem>,
    /// Names of the listeners whose host names overlap with this one's, on a port with TLS.
    pub overlaps: BTreeSet<&'s str>,
    pub certificates: Vec<Arc<Parsed>>,
    /// The port that is bound for it; None: none is known yet.
    pub bound: Option<u16>,
    /// The port that users connect to; known as soon as `bound` is.
    pub public: Option<u16>,
    /// Its place in the graph, if it serves.
    pub section: Option<SectionId>,
    pub attached: i32,
}

/// The namespaces whose routes may attach.
#[derive(Debug)]
enum Namespaces<'s> {
    All,
    Same,
    Selected(&'s LabelSelector),
    None,
}

impl ListenerState<'_> {
    /// Whether it serves, provided that its port is bound.
    pub fn serves(&self) -> bool {
        self.refused.is_none()
            && self.conflict.is_none()
            && !self.kinds.is_empty()
            && (!self.tls || !self.certificates.is_empty())
    }

    /// The first reason for which it does not serve.
    pub fn why_not(&self) -> Option<&Problem> {
        self.refused.as_ref().or(self.conflict.as_ref()).or(self.unresolved.as_ref())
    }

    /// Whether HTTPRoutes of `namespace` may attach.
    pub fn allows(&self, snapshot: &Snapshot, gateway: &Key, namespace: &str) -> bool {
        let selected = |selector| {
            let object = snapshot.namespaces.get(&Key::new("", namespace));
            object.is_some_and(|object| selects(selector, map_of(object.metadata.labels.as_ref())))
        };
        !self.kinds.is_empty()
            && match self.namespaces {
                Namespaces::All => true,
                Namespaces::Same => gateway.namespace == namespace,
                Namespaces::Selected(selector) => selected(selector),
                Namespaces::None => false,
            }
    }

    /// The status that stands there for this listener.
    pub fn old<'g>(&self, gateway: &'g Gateway) -> Option<&'g ListenerStatus> {
        let status = gateway.status.as_ref()?;
        status.listeners.iter().find(|status| status.name == self.spec.name)
    }
}

impl<'s> Pass<'s> {
    /// Looks at every listener of a Gateway, without regard to other Gateways.
    pub fn listeners(&mut self, key: &Key, gateway: &'s Gateway) -> Vec<ListenerState<'s>> {
        let mut listeners: Vec<ListenerState<'s>> = gateway
            .spec
            .listeners
            .iter()
            .enumerate()
            .map(|(index, spec)| self.listener(key, gateway, index, spec))
            .collect();
        conflicts(&mut listeners);
        overlaps(&mut listeners);
        listeners
    }

    fn listener(
        &mut self,
        key: &Key,
        gateway: &Gateway,
        index: usize,
        spec: &'s Listener,
    ) -> ListenerState<'s> {
        let field = format!("spec.listeners[{index}]");
        let mut listener = ListenerState {
            spec,
            port: 0,
            tls: spec.protocol == Protocol::Https,
            hostname: String::new(),
            kinds: Vec::new(),
            namespaces: Namespaces::Same,
            refused: None,
            conflict: None,
            unresolved: None,
            overlaps: BTreeSet::new(),
            certificates: Vec::new(),
            bound: None,
            public: None,
            section: None,
            attached: 0,
            field,
        };
        if let Err(problem) = listener.accept(gateway) {
            listener.refused = Some(problem);
        }
        if listener.tls {
            self.certify(key, gateway, &mut listener);
        }
        listener
    }

    fn certify(&mut self, key: &Key, gateway: &Gateway, listener: &mut ListenerState<'s>) {
        let spec = listener.spec;
        let refs = spec.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs);
        let at = format!("{}.tls.certificateRefs", listener.field);
        if refs.is_empty() {
            let message = "no certificate; name a Secret of type kubernetes.io/tls";
            listener.unresolved.get_or_insert(Problem::new("InvalidCertificateRef", at, message));
            return;
        }
        let from = From { group: GROUP, kind: "Gateway", namespace: &key.namespace };
        for (i, reference) in refs.iter().enumerate() {
            let group = reference.group.as_deref().unwrap_or_default();
            let kind = reference.kind.as_deref().unwrap_or("Secret");
            let namespace = reference.namespace.as_deref().unwrap_or(&key.namespace);
            let secret = Key::new(namespace, &*reference.name);
            let to = To { group, kind, namespace, name: &reference.name };
            let problem = if !group.is_empty() || kind != "Secret" {
                let message = format!("{kind} of group {group:?} is not supported; use a Secret");
                Some(("InvalidCertificateRef", message))
            } else if !self.grants.permit(from, to) {
                let message = format!(
                    "Secret {secret} is in another namespace and no ReferenceGrant there allows \
                     Gateways of {}; ask its owner for one",
                    key.namespace
                );
                Some(("RefNotPermitted", message))
            } else {
                let certificate =
                    self.certificates.of(self.snapshot, &mut self.memo, &secret).clone();
                listener.certificates.extend(certificate.shown);
                if let Some(message) = certificate.expired {
                    let problem = Problem::new(EXPIRED, format!("{at}[{i}]"), message);
                    self.warn(ObjectKind::Gateway, key, &gateway.metadata, &problem);
                }
                certificate.problem.map(|message| ("InvalidCertificateRef", message))
            };
            if let Some((reason, message)) = problem {
                let problem = Problem::new(reason, format!("{at}[{i}]"), message);
                listener.unresolved.get_or_insert(problem);
            }
        }
    }
}

impl<'s> ListenerState<'s> {
    /// Everything that can be said by the listener alone.
    fn accept(&mut self, gateway: &Gateway) -> Result<(), Problem> {
        let prefix = self.field.clone();
        let at = |field: &str| format!("{prefix}.{field}");
        let unsupported =
            |field: &str, message: String| Problem::new("UnsupportedValue", at(field), message);
        let spec = self.spec;
        if !matches!(spec.protocol, Protocol::Http | Protocol::Https) {
            let message = format!("{} is not supported; use HTTP or HTTPS", spec.protocol);
            return Err(Problem::new("UnsupportedProtocol", at("protocol"), message));
        }
        self.kinds()?;
        self.port = u16::try_from(spec.port).ok().filter(|port| *port > 0).ok_or_else(|| {
            let message = format!("{} is not a port; use 1 to 65535", spec.port);
            Problem::new("PortUnavailable", at("port"), message)
        })?;
        if let Some(hostname) = spec.hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
            self.hostname = hostname::parse(hostname).map_err(|m| unsupported("hostname", m))?;
        }
        let mode = spec.tls.as_ref().and_then(|tls| tls.mode.as_ref());
        if let Some(mode) = mode.filter(|mode| self.tls && **mode != TlsMode::Terminate) {
            let message = format!("{mode} is not supported with HTTPS; use Terminate");
            return Err(unsupported("tls.mode", message));
        }
        // What would be left out here is protection that the owner asked for.
        if self.tls && gateway.spec.tls.as_ref().is_some_and(|tls| tls.frontend.is_some()) {
            let message = "client certificates (spec.tls.frontend) are not supported; remove it";
            return Err(unsupported("tls", message.to_owned()));
        }
        if spec.filters.is_some() {
            let message = "filters of listeners are not supported; remove them";
            return Err(unsupported("filters", message.to_owned()));
        }
        Ok(())
    }

    /// Which routes are taken: kinds and namespaces.
    fn kinds(&mut self) -> Result<(), Problem> {
        let http = RouteGroupKind { group: Some(GROUP.to_owned()), kind: "HTTPRoute".to_owned() };
        let at = format!("{}.allowedRoutes", self.field);
        let allowed = self.spec.allowed_routes.as_ref();
        let kinds = allowed.map_or(&[][..], |allowed| &allowed.kinds);
        let known = |kind: &RouteGroupKind| {
            kind.kind == http.kind && kind.group.as_deref().is_none_or(|group| group == GROUP)
        };
        if let Some(i) = kinds.iter().position(|kind| !known(kind)) {
            let message = format!("{} is not supported; use HTTPRoute", kinds[i].kind);
            let field = format!("{at}.kinds[{i}].kind");
            self.unresolved = Some(Problem::new("InvalidRouteKinds", field, message));
        }
        if kinds.is_empty() || kinds.iter().any(known) {
            self.kinds.push(http);
        }
        let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
        let from = namespaces.and_then(|namespaces| namespaces.from.as_ref());
        self.namespaces = match from {
            None | Some(FromNamespaces::Same) => Namespaces::Same,
            Some(FromNamespaces::All) => Namespaces::All,
            Some(FromNamespaces::None) => Namespaces::None,
            Some(FromNamespaces::Selector) => {
                let selector = namespaces.and_then(|namespaces| namespaces.selector.as_ref());
                // No selector selects nothing (metav1.LabelSelector).
                selector.map_or(Namespaces::None, Namespaces::Selected)
            }
            Some(FromNamespaces::Other(other)) => {
                self.namespaces = Namespaces::None;
                let message = format!("{other:?} is not supported; use All, Same or Selector");
                let field = format!("{at}.namespaces.from");
                return Err(Problem::new("UnsupportedValue", field, message));
            }
        };
        Ok(())
    }
}

/// Listeners that cannot be told apart are all refused: none may win (Gateway API,
/// `Gateway.spec.listeners`).
fn conflicts(listeners: &mut [ListenerState<'_>]) {
    let mut ports: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (i, listener) in listeners.iter().enumerate().filter(|(_, l)| l.refused.is_none()) {
        ports.entry(listener.port).or_default().push(i);
    }
    for (port, on_port) in ports {
        let mixed = on_port.iter().any(|i| listeners[*i].tls != listeners[on_port[0]].tls);
        let mut hosts: BTreeMap<String, usize> = BTreeMap::new();
        for i in &on_port {
            *hosts.entry(listeners[*i].hostname.clone()).or_default() += 1;
        }
        for i in on_port {
            let listener = &mut listeners[i];
            let problem = if mixed {
                let message =
                    format!("port {port} is used with HTTP and with HTTPS; separate them");
                Problem::new("ProtocolConflict", format!("{}.port", listener.field), message)
            } else if hosts[&listener.hostname] > 1 {
                let message = format!(
                    "another listener has the same port {port} and hostname {:?}; change one",
                    listener.hostname
                );
                Problem::new("HostnameConflict", format!("{}.hostname", listener.field), message)
            } else {
                continue;
            };
            listener.conflict = Some(problem);
        }
    }
}

/// HTTPS listeners on one port of which one claims hosts of another: clients may come to one
/// over a connection that was opened for the other.
fn overlaps(listeners: &mut [ListenerState<'_>]) {
    for a in 0..listeners.len() {
        for b in 0..listeners.len() {
            let (one, other) = (&listeners[a], &listeners[b]);
            let both = one.tls && other.tls && one.refused.is_none() && other.refused.is_none();
            if a != b
                && both
                && one.port == other.port
                && one.hostname != other.hostname
                && hostname::intersect(&one.hostname, &other.hostname)
            {
                let name = other.spec.name.as_str();
                listeners[a].overlaps.insert(name);
            }
        }
    }
}

/// Whether a selector chooses an object with these labels; what is not understood does not.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            match expression.operator.as_str() {
                "In" => value.is_some_and(|value| expression.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !expression.values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
