//! References to what requests are sent to, resolved to the graph's backends.
//!
//! Which kinds can stand there, who may refer to them, and what goes over the connection is
//! decided here; the ports of Services are in `service_backends`.

use std::collections::HashMap;

use super::endpoints::{SliceIndex, Transport, index};
use super::gateway::GatewayState;
use super::pass::Pass;
use super::references::{From, To};
use super::{Key, Snapshot};
use crate::api::gateway::BackendObjectReference;
use crate::graph::{Alpn, BackendId};
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
}

impl<'s> Backends<'s> {
    pub fn new(snapshot: &'s Snapshot) -> Self {
        Backends { slices: index(&snapshot.endpoint_slices), known: HashMap::new() }
    }
}

impl<'s> Pass<'s> {
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
        if !group.is_empty() || kind != "Service" {
            let of = if group.is_empty() { "the core group" } else { group };
            let message = format!("kind {kind} of {of} cannot be a backend; use a Service");
            return Err(Unresolved::new(Reason::InvalidKind, message));
        }
        let namespace = reference.namespace.as_deref().unwrap_or(from.namespace);
        let name = reference.name.as_str();
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
        let _ = gateway;
        self.service_port(&Key::new(namespace, name), Port::Number(port), None, traffic)
    }
}

/// A Service port by number or by name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Port<'a> {
    Number(i32),
    Name(&'a str),
}
