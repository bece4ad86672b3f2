//! Ports that carry bytes and not HTTP: TCP, UDP, and TLS that is ended here or by the backend.
//!
//! What a connection or a UDP session meets is one [`Rule`](super::Rule) with its split, found by
//! the server name for TLS and without any name for the others. Reading the name off the wire
//! and carrying the bytes is the proxy's work.

use std::sync::Arc;

use super::{HostMap, RuleId};

/// One TLS, TCP or UDP listener of a Gateway.
#[derive(Debug)]
pub struct Stream {
    /// `gateway/NAMESPACE/NAME/SECTION`: label of metrics and log lines.
    pub name: Arc<str>,
    /// By the host names of TLSRoutes; TCP and UDP have one rule at most, for every host.
    pub hosts: HostMap<RuleId>,
}

impl Stream {
    /// The rule for a connection: `host` is the TLS server name in lower case, or empty.
    pub fn find(&self, host: &str) -> Option<RuleId> {
        self.hosts.matching(host).next().copied()
    }
}

/// What becomes of a TLS connection, by its server name.
#[derive(Clone, Debug)]
pub enum TlsUse {
    /// TLS is ended, and HTTP is spoken.
    Http,
    /// TLS is ended, and bytes go on.
    Terminate(Arc<Stream>),
    /// The backend ends TLS: all bytes go on as they are.
    Passthrough(Arc<Stream>),
}

/// Who ends the TLS of a stream (Gateway API, `listeners[].tls.mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsEnd {
    Here,
    Backend,
}

/// A UDP port.
#[derive(Debug)]
pub struct Datagrams {
    /// The port that is bound.
    pub port: u16,
    /// The port that users see.
    pub public_port: u16,
    pub stream: Arc<Stream>,
}
