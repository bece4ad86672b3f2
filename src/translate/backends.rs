//! References to what requests are sent to, resolved to the graph's backends.
//!
//! Which kinds can stand there, who may refer to them, and what goes over the connection is
//! decided here; the ports of Services are in `service_backends`.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::ancestors::Reached;
use super::endpoints::{SliceIndex, Transport, addresses, external, index};
use super::gateway::GatewayState;
use super::pass::Pass;
use super::references::{From, To};
use super::status::Problem;
use super::x_backend::{Place, Wanted};
use super::{Key, ObjectKind, Snapshot};
use crate::api::gateway::{BackendObjectReference, X_GROUP};
use crate::graph::{Alpn, Backend, BackendId, BackendKey, BackendProtocol, Roots, TlsSpec};
use crate::reason::Reason;

/// What goes through a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Traffic {
    /// HTTP, in the version that the backend wants.
    Http,
    /// HTTP/2 only.
    Grpc,
    /// Bytes in clear text (TCPRoute, TLSRoute with Terminate): TLS is put around them where
    /// the backend wants it.
    Stream,
    /// Bytes of the client's own TLS, which go on as they are.
    Passthrough,
    Udp,
}

impl Traffic {
    pub const fn transport(self) -> Transport {
        match self {
            Traffic::Udp => Transport::Udp,
            _ => Transport::Tcp,
        }
    }

    /// Whether policies of its Service count: what is nobody's but the client's is not touched.
    pub const fn obeys_policies(self) -> bool {
        matches!(self, Traffic::Http | Traffic::Grpc | Traffic::Stream)
    }

    /// What is agreed on where TLS is put around it.
    pub const fn alpn(self) -> Alpn {
        match self {
            Traffic::Http => Alpn::Http,
            Traffic::Grpc => Alpn::Http2,
            Traffic::Stream | Traffic::Passthrough | Traffic::Udp => Alpn::None,
        }
    }
}

/// What is spoken to a backend, before its TLS is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wire {
    Http1,
    H2c,
    Tls(Alpn),
    Tcp,
    Udp,
}

impl Wire {
    /// The part of a backend's key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Wire::Http1 => "http1",
            Wire::H2c => "h2c",
            Wire::Tls(Alpn::Http) => "tls",
            Wire::Tls(Alpn::Http1) => "tls-http1",
            Wire::Tls(Alpn::Http2) => "tls-h2",
            Wire::Tls(Alpn::None) => "tls-stream",
            Wire::Tcp => "tcp",
            Wire::Udp => "udp",
        }
    }
}

/// Why a reference leads nowhere. `reason` is also the condition's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub reason: Reason,
    pub message: String,
}

impl Unresolved {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Unresolved { reason, message: message.into() }
    }
}

/// What is known already: by kind, object, port, what is spoken, and whose client certificate
/// is shown.
pub(super) type Known =
    HashMap<(&'static str, Key, u16, Wire, Option<Key>), Result<BackendId, Unresolved>>;

/// What every reference to a backend needs.
#[derive(Debug)]
pub(super) struct Backends<'s> {
    pub slices: SliceIndex<'s>,
    pub known: Known,
    /// Through which Gateways.
    pub reached: Reached<'s>,
}

impl<'s> Backends<'s> {
    pub fn new(snapshot: &'s Snapshot) -> Self {
        let slices = index(&snapshot.endpoint_slices);
        Backends { slices, known: HashMap::new(), reached: Reached::default() }
    }
}

impl<'s> Pass<'s> {
    /// Looks through what is said about backends, before anybody refers to them.
    pub fn collect_backend_policies(&mut self) {
        self.collect_tls_policies();
        self.collect_traffic_policies();
        self.collect_x_backends();
    }

    /// Says what became of it, when all routes have been resolved.
    pub fn backend_statuses(&mut self) {
        self.tls_policy_statuses();
        self.traffic_policy_statuses();
        self.x_backend_services();
        self.x_backend_statuses();
    }

    /// The backend that a route's reference names. `gateway`: the one that requests come
    /// through, whose client certificate is shown and which is told in the statuses of the
    /// policies that apply; None for what no Gateway is concerned with.
    ///
    /// # Errors
    /// Why there is none, as the route's `ResolvedRefs` is to say it.
    pub fn backend_of(
        &mut self,
        from: From<'_>,
        gateway: Option<&GatewayState<'s>>,
        reference: &BackendObjectReference,
        traffic: Traffic,
    ) -> Result<BackendId, Unresolved> {
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or("Service");
        match (group, kind) {
            ("", "Service") => {}
            (X_GROUP, "XBackend") => return self.x_backend(from, gateway, reference, traffic),
            _ => {
                let of = if group.is_empty() { "the core group" } else { group };
                let message = format!(
                    "kind {kind} of {of} cannot be a backend; use a Service or an XBackend"
                );
                return Err(Unresolved::new(Reason::InvalidKind, message));
            }
        }
        let namespace = reference.namespace.as_deref().unwrap_or(from.namespace);
        let name = reference.name.as_str();
        let service = Key::new(namespace, name);
        self.carrying.trace.look_at(&service);
        if !self.grants.permit(from, To { group, kind, namespace, name }) {
            let message = format!(
                "Service {namespace}/{name} is in another namespace and no ReferenceGrant there \
                 allows {} of {}; ask its owner for one",
                from.kind, from.namespace
            );
            return Err(Unresolved::new(Reason::RefNotPermitted, message));
        }
        let Some(port) = reference.port else {
            let message = format!("Service {namespace}/{name} is named without a port; set it");
            return Err(Unresolved::new(Reason::BackendNotFound, message));
        };
        if let Some(gateway) = gateway.filter(|_| traffic.obeys_policies()) {
            let number = u16::try_from(port).unwrap_or_default();
            self.reached(&service, number, gateway.key);
        }
        self.service_port(&service, Port::Number(port), None, traffic, gateway)
    }

    fn x_backend(
        &mut self,
        from: From<'_>,
        gateway: Option<&GatewayState<'s>>,
        reference: &BackendObjectReference,
        traffic: Traffic,
    ) -> Result<BackendId, Unresolved> {
        self.carrying.trace.lose();
        let namespace = reference.namespace.as_deref().unwrap_or(from.namespace);
        let key = Key::new(namespace, &*reference.name);
        if namespace != from.namespace {
            let message = format!(
                "XBackend {key} is in another namespace; routes may name those beside them only"
            );
            return Err(Unresolved::new(Reason::RefNotPermitted, message));
        }
        if let Some(gateway) = gateway {
            self.backends.reached.add("XBackend", &key, 0, gateway.key);
        }
        if reference.port.is_some() {
            let message = format!("XBackend {key} says the port itself; leave it out here");
            return Err(Unresolved::new(Reason::UnsupportedValue, message));
        }
        let Some(state) = self.x_backends.all.get(&key) else {
            let message = format!("XBackend {key} does not exist; create it");
            return Err(Unresolved::new(Reason::BackendNotFound, message));
        };
        let wanted = state.wanted.clone().map_err(|problem| {
            let message = format!("XBackend {key} is invalid: {problem}");
            Unresolved::new(Reason::InvalidPolicy, message)
        })?;
        let wire = wanted.wire(&key, traffic)?;
        // The certificate of the backend itself stands above the Gateway's.
        let own = wanted.tls.as_ref().is_some_and(|tls| tls.client.is_some());
        let client = Client::of(gateway, wire).filter(|_| !own);
        let context = client.as_ref().map(|client| client.gateway.clone());
        let id = ("XBackend", key, wanted.port, wire, context);
        if let Some(known) = self.backends.known.get(&id) {
            return known.clone();
        }
        let resolved = self.x_resolve(&id.1, wanted, wire, client);
        self.backends.known.insert(id, resolved.clone());
        resolved
    }

    fn x_resolve(
        &mut self,
        key: &Key,
        wanted: Wanted,
        wire: Wire,
        client: Option<Client>,
    ) -> Result<BackendId, Unresolved> {
        let tls = wanted.tls.unwrap_or_else(|| TlsSpec::new("", Roots::System));
        let protocol = self.protocol(wire, &client, tls).map_err(|message| {
            let message = format!("XBackend {key}: spec.tls: {message}");
            Unresolved::new(Reason::InvalidPolicy, message)
        })?;
        let state = &self.x_backends.all[key];
        let Snapshot { resolved, settings, .. } = self.snapshot;
        let (endpoints, refused, slices) = match &wanted.place {
            Place::Host(host) => {
                let ips = resolved.get(host).map_or(&[][..], Vec::as_slice);
                let inside = &self.x_backends.inside;
                let (endpoints, refused) = external(ips, wanted.port, inside, settings);
                (endpoints, refused, None)
            }
            Place::Pods => match self.x_backends.made.of(key, state.object).first() {
                None => (Vec::new(), None, None),
                Some((made, service)) => {
                    let slices = self.backends.slices.get(&(&*made.namespace, &*made.name));
                    let slices = slices.into_iter().flatten().copied();
                    let port = (wanted.port, Transport::Tcp);
                    let (endpoints, refused) = addresses(service, port, slices, resolved, settings);
                    (endpoints, refused, Some(made.name.as_str().into()))
                }
            },
        };
        let meta = &state.object.metadata;
        if let Some(ip) = refused {
            let message = format!(
                "address {ip} is not used, because it is inside of the cluster, or a loopback, \
                 link-local, multicast or unspecified address; name a host outside"
            );
            let problem = Problem::new("AddressNotUsable", "", message);
            self.warn(ObjectKind::XBackend, key, meta, &problem);
        }
        let asked = self.traffic_policies.of("XBackend", key);
        let session = wanted.session.or(asked.session);
        let id = backend_key("XBackend", key, wanted.port, wire, &client);
        let made = || Backend {
            session,
            retry_budget: asked.budget,
            slices,
            ..Backend::new(id.clone(), protocol, &endpoints)
        };
        Ok(self.graph.backend(&id, made))
    }

    /// What connections are made with; `tls` counts where the wire says so.
    ///
    /// # Errors
    /// A message for the user.
    pub fn protocol(
        &mut self,
        wire: Wire,
        client: &Option<Client>,
        tls: TlsSpec,
    ) -> Result<BackendProtocol, String> {
        let alpn = match wire {
            Wire::Http1 => return Ok(BackendProtocol::Http1),
            Wire::H2c => return Ok(BackendProtocol::H2c),
            Wire::Tcp => return Ok(BackendProtocol::Tcp),
            Wire::Udp => return Ok(BackendProtocol::Udp),
            Wire::Tls(alpn) => alpn,
        };
        let shown = client.as_ref().map(|client| Arc::clone(&client.shown));
        let spec = TlsSpec { alpn, client: tls.client.clone().or(shown), ..tls };
        Ok(BackendProtocol::Tls(self.memo.backend_tls(&spec)?))
    }
}

/// The certificate that a Gateway shows to its backends.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub gateway: Key,
    shown: Arc<CertifiedKey>,
}

impl Client {
    pub fn of(gateway: Option<&GatewayState<'_>>, wire: Wire) -> Option<Self> {
        let gateway = gateway.filter(|_| matches!(wire, Wire::Tls(_)))?;
        let shown = Arc::clone(&gateway.identity.as_ref()?.key);
        Some(Client { gateway: gateway.key.clone(), shown })
    }
}

pub(super) fn backend_key(
    kind: &'static str,
    object: &Key,
    port: u16,
    wire: Wire,
    client: &Option<Client>,
) -> BackendKey {
    BackendKey {
        kind,
        namespace: object.namespace.as_str().into(),
        service: object.name.as_str().into(),
        port,
        protocol: wire.as_str(),
        context: client.as_ref().map(|client| client.gateway.to_string().into()),
    }
}

/// A Service port by number or by name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Port<'a> {
    Number(i32),
    Name(&'a str),
}
