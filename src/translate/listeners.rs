//! Listeners of Gateways and ListenerSets: which of them can serve, with what, and for whose
//! routes. Which of them are in each other's way is in `conflicts`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::certificates::{EXPIRED, Parsed};
use super::gateway::Port;
use super::hostname;
use super::intake::Intake;
use super::namespaces::Namespaces;
use super::pass::Pass;
use super::references::{From, To};
use super::status::Problem;
use super::{Key, ObjectKind, Snapshot, frontend};
use crate::api::gateway::{
    AllowedRoutes, FromNamespaces, GROUP, Listener, ListenerStatus, RouteGroupKind, TlsMode,
};
use crate::graph::{ClientAuth, PolicyId, SectionId, StreamId};

/// A listener, and what became of it.
#[derive(Debug)]
pub(super) struct ListenerState<'s> {
    pub spec: &'s Listener,
    /// The object that it stands in.
    pub parent: Parent<'s>,
    /// `spec.listeners[INDEX]` of that object.
    pub field: String,
    /// What its status said last.
    pub old: Option<&'s ListenerStatus>,
    pub intake: Intake,
    pub port: u16,
    /// In lower case; empty for every host, and where the protocol knows no hosts.
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
    pub overlaps: Vec<String>,
    pub certificates: Vec<Arc<Parsed>>,
    /// What requests pass before a route is looked for; None: it is broken, and nothing may
    /// pass without it.
    pub filters: Option<Vec<PolicyId>>,
    /// What clients have to show, on HTTPS.
    pub clients: ClientAuth,
    /// The port that is bound for it; None: none is known yet.
    pub bound: Option<u16>,
    /// The port that users connect to; known as soon as `bound` is.
    pub public: Option<u16>,
    /// Its place in the graph, if it serves.
    pub place: Option<Place>,
    pub attached: i32,
}

/// The object that a listener stands in, and that routes name as their parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Parent<'s> {
    Gateway(&'s Key),
    ListenerSet(&'s Key),
}

impl<'s> Parent<'s> {
    pub fn key(self) -> &'s Key {
        match self {
            Parent::Gateway(key) | Parent::ListenerSet(key) => key,
        }
    }

    pub fn kind(self) -> ObjectKind {
        match self {
            Parent::Gateway(_) => ObjectKind::Gateway,
            Parent::ListenerSet(_) => ObjectKind::ListenerSet,
        }
    }
}

impl std::fmt::Display for Parent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind().kind(), self.key())
    }
}

/// Where routes of a listener go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Http(SectionId),
    Stream(StreamId),
}

impl Place {
    /// The section, if the listener is one for HTTP.
    pub fn section(self) -> Option<SectionId> {
        match self {
            Place::Http(section) => Some(section),
            Place::Stream(_) => None,
        }
    }
}

impl ListenerState<'_> {
    /// Whether it serves, provided that its port is bound.
    pub fn serves(&self) -> bool {
        self.is_accepted()
            && !self.kinds.is_empty()
            && (!self.intake.needs_certificate() || !self.certificates.is_empty())
    }

    /// Whether it has its port and hosts, be it that it cannot serve them for want of something.
    pub fn is_accepted(&self) -> bool {
        self.refused.is_none() && self.conflict.is_none()
    }

    /// Whether nobody else may answer for its hosts, be it that it answers with errors or not at
    /// all: what it was to protect would go on without.
    pub fn claims(&self) -> bool {
        let protects =
            |refused: &Problem| self.filters.is_none() || refused.reason == frontend::NO_AUTHORITY;
        self.conflict.is_none() && self.refused.as_ref().is_none_or(protects)
    }

    /// Its port on the Gateway's Service.
    pub fn service_port(&self) -> Port {
        (self.intake.transport(), self.port)
    }

    /// The first reason for which it does not serve.
    pub fn why_not(&self) -> Option<&Problem> {
        self.refused.as_ref().or(self.conflict.as_ref()).or(self.unresolved.as_ref())
    }

    /// Whether routes of this kind (`HTTPRoute`, ...) and namespace may attach.
    pub fn allows(&self, snapshot: &Snapshot, kind: &str, namespace: &str) -> bool {
        let own = &self.parent.key().namespace;
        self.kinds.iter().any(|known| known.kind == kind)
            && self.namespaces.allow(snapshot, own, namespace)
    }

    /// `gateway/NAMESPACE/NAME/SECTION`, or `listenerset/NAMESPACE/NAME/SECTION`.
    pub fn label(&self) -> Arc<str> {
        let (kind, Key { namespace, name }) = match self.parent {
            Parent::Gateway(key) => ("gateway", key),
            Parent::ListenerSet(key) => ("listenerset", key),
        };
        format!("{kind}/{namespace}/{name}/{}", self.spec.name).into()
    }
}

/// The object whose listeners are looked at.
#[derive(Clone, Copy)]
pub(super) struct Owner<'s> {
    pub parent: Parent<'s>,
    pub meta: &'s ObjectMeta,
    pub listeners: &'s [Listener],
    /// What its status said of them last.
    pub old: &'s [ListenerStatus],
}

impl<'s> Pass<'s> {
    /// Looks at every listener of an object, without regard to others.
    pub fn listeners(&mut self, owner: Owner<'s>) -> Vec<ListenerState<'s>> {
        let all = owner.listeners.iter().enumerate();
        all.map(|(index, spec)| self.listener(owner, index, spec)).collect()
    }

    fn listener(
        &mut self,
        owner: Owner<'s>,
        index: usize,
        spec: &'s Listener,
    ) -> ListenerState<'s> {
        let mut listener = ListenerState {
            spec,
            parent: owner.parent,
            field: format!("spec.listeners[{index}]"),
            old: owner.old.iter().find(|status| status.name == spec.name),
            intake: Intake::of(spec),
            port: 0,
            hostname: String::new(),
            kinds: Vec::new(),
            namespaces: Namespaces::None,
            refused: None,
            conflict: None,
            unresolved: None,
            overlaps: Vec::new(),
            certificates: Vec::new(),
            filters: Some(Vec::new()),
            clients: ClientAuth::None,
            bound: None,
            public: None,
            place: None,
            attached: 0,
        };
        if let Err(problem) = listener.accept() {
            listener.refused = Some(problem);
        }
        if listener.intake.needs_certificate() {
            self.certify(owner, &mut listener);
        }
        listener
    }

    fn certify(&mut self, owner: Owner<'s>, listener: &mut ListenerState<'s>) {
        let spec = listener.spec;
        let refs = spec.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs);
        let at = format!("{}.tls.certificateRefs", listener.field);
        if refs.is_empty() {
            let message = "no certificate; name a Secret of type kubernetes.io/tls";
            listener.unresolved.get_or_insert(Problem::new("InvalidCertificateRef", at, message));
            return;
        }
        let (kind, key) = (owner.parent.kind(), owner.parent.key());
        let from = From { group: GROUP, kind: kind.kind(), namespace: &key.namespace };
        for (i, reference) in refs.iter().enumerate() {
            let to = To {
                group: reference.group.as_deref().unwrap_or_default(),
                kind: reference.kind.as_deref().unwrap_or("Secret"),
                namespace: reference.namespace.as_deref().unwrap_or(&key.namespace),
                name: &reference.name,
            };
            let problem = match self.secret(from, to) {
                Err(NoSecret::Kind(message)) => Some(("InvalidCertificateRef", message)),
                Err(NoSecret::Grant(message)) => Some(("RefNotPermitted", message)),
                Ok(secret) => {
                    let certificate =
                        self.certificates.of(self.snapshot, &mut self.memo, &secret).clone();
                    listener.certificates.extend(certificate.shown);
                    if let Some(message) = certificate.expired {
                        let problem = Problem::new(EXPIRED, format!("{at}[{i}]"), message);
                        self.warn(kind, key, owner.meta, &problem);
                    }
                    certificate.problem.map(|message| ("InvalidCertificateRef", message))
                }
            };
            if let Some((reason, message)) = problem {
                let problem = Problem::new(reason, format!("{at}[{i}]"), message);
                listener.unresolved.get_or_insert(problem);
            }
        }
    }

    /// The Secret that a reference of a Gateway or ListenerSet leads to.
    ///
    /// # Errors
    /// Why it leads to none.
    pub fn secret(&self, from: From<'_>, to: To<'_>) -> Result<Key, NoSecret> {
        if !to.group.is_empty() || to.kind != "Secret" {
            let (kind, group) = (to.kind, to.group);
            let message = format!("{kind} of group {group:?} is not supported; use a Secret");
            return Err(NoSecret::Kind(message));
        }
        let secret = Key::new(to.namespace, to.name);
        if self.grants.permit(from, to) {
            return Ok(secret);
        }
        Err(NoSecret::Grant(format!(
            "Secret {secret} is in another namespace and no ReferenceGrant there allows {}s of {}; \
             ask its owner for one",
            from.kind, from.namespace
        )))
    }
}

/// Why a reference leads to no Secret.
#[derive(Debug)]
pub(super) enum NoSecret {
    /// It names an object of another kind.
    Kind(String),
    /// Nobody allows it.
    Grant(String),
}

impl<'s> ListenerState<'s> {
    /// Everything that can be said by the listener alone.
    fn accept(&mut self) -> Result<(), Problem> {
        let prefix = self.field.clone();
        let at = |field: &str| format!("{prefix}.{field}");
        let unsupported =
            |field: &str, message: String| Problem::new("UnsupportedValue", at(field), message);
        let spec = self.spec;
        if self.intake == Intake::Unknown {
            let message =
                format!("{} is not supported; use HTTP, HTTPS, TLS, TCP or UDP", spec.protocol);
            return Err(Problem::new("UnsupportedProtocol", at("protocol"), message));
        }
        self.routes()?;
        self.port = u16::try_from(spec.port).ok().filter(|port| *port > 0).ok_or_else(|| {
            let message = format!("{} is not a port; use 1 to 65535", spec.port);
            Problem::new("PortUnavailable", at("port"), message)
        })?;
        let hostname = spec.hostname.as_deref().filter(|hostname| !hostname.is_empty());
        if let Some(hostname) = hostname.filter(|_| self.intake.has_hosts()) {
            self.hostname = hostname::parse(hostname).map_err(|m| unsupported("hostname", m))?;
        }
        match spec.tls.as_ref().and_then(|tls| tls.mode.as_ref()) {
            Some(mode) if self.intake == Intake::Https && *mode != TlsMode::Terminate => {
                let message = format!("{mode} is not supported with HTTPS; use Terminate");
                Err(unsupported("tls.mode", message))
            }
            Some(TlsMode::Other(mode)) if self.intake == Intake::TlsTerminate => {
                let message = format!("{mode:?} is not supported; use Terminate or Passthrough");
                Err(unsupported("tls.mode", message))
            }
            _ => Ok(()),
        }
    }

    /// Which routes are taken: kinds and namespaces.
    fn routes(&mut self) -> Result<(), Problem> {
        let at = format!("{}.allowedRoutes", self.field);
        let allowed = self.spec.allowed_routes.as_ref();
        self.route_kinds(allowed, &at);
        let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
        let from = namespaces.and_then(|namespaces| namespaces.from.as_ref());
        let from = from.unwrap_or(&FromNamespaces::Same);
        let selector = namespaces.and_then(|namespaces| namespaces.selector.as_ref());
        self.namespaces = Namespaces::of(from, selector).ok_or_else(|| {
            let message = format!("{from} is not supported; use All, Same or Selector");
            Problem::new("UnsupportedValue", format!("{at}.namespaces.from"), message)
        })?;
        Ok(())
    }

    fn route_kinds(&mut self, allowed: Option<&AllowedRoutes>, at: &str) {
        let group_kind =
            |kind: &str| RouteGroupKind { group: Some(GROUP.to_owned()), kind: kind.to_owned() };
        let possible = self.intake.routes();
        let asked = allowed.map_or(&[][..], |allowed| &allowed.kinds);
        if asked.is_empty() {
            self.kinds = possible.iter().map(|kind| group_kind(kind)).collect();
            return;
        }
        for (i, kind) in asked.iter().enumerate() {
            let ours = kind.group.as_deref().is_none_or(|group| group == GROUP);
            if !ours || !possible.contains(&kind.kind.as_str()) {
                let message = format!(
                    "{} is not supported on listeners of protocol {}; use {}",
                    kind.kind,
                    self.spec.protocol,
                    possible.join(" or ")
                );
                let field = format!("{at}.kinds[{i}].kind");
                let problem = Problem::new("InvalidRouteKinds", field, message);
                self.unresolved.get_or_insert(problem);
            } else if self.kinds.iter().all(|known| known.kind != kind.kind) {
                self.kinds.push(group_kind(&kind.kind));
            }
        }
    }
}
