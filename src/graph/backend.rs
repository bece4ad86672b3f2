//! Backends and their endpoints.
//!
//! A backend is compiled; its endpoints are live: they are swapped inside the handle that every
//! graph's backend of the same key shares, so endpoint changes need no new graph. How one
//! endpoint is chosen is `proxy::balance`, how it is connected to is `proxy::pool`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwap;

/// What identifies a backend over generations: a Service port, as one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    pub port: u16,
    /// Two users of one port may speak different protocols to it (Ingress annotation).
    pub protocol: &'static str,
}

#[derive(Debug)]
pub struct Backend {
    pub key: BackendKey,
    pub protocol: BackendProtocol,
    pub balance: Balance,
    /// From the first SYN to an established connection, TLS included; 3 s by default.
    pub connect_timeout: Duration,
    pub endpoints: Arc<EndpointSet>,
}

#[derive(Clone, Debug)]
pub enum BackendProtocol {
    Http1,
    /// HTTP/2 with prior knowledge in clear text (`appProtocol: kubernetes.io/h2c`).
    H2c,
    /// TLS; HTTP/2 or HTTP/1.1 by ALPN.
    Tls(Arc<BackendTls>),
}

/// A TLS client's side, prebuilt.
#[derive(Debug)]
pub struct BackendTls {
    pub config: Arc<rustls::ClientConfig>,
    pub server_name: rustls_pki_types::ServerName<'static>,
    /// Equal identities may share connections: a digest of everything in `config`.
    pub identity: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Of two random endpoints the one with fewer requests in flight.
    #[default]
    PowerOfTwo,
    RoundRobin,
}

/// The endpoints of one backend, shared by all graphs that know its key.
#[derive(Debug, Default)]
pub struct EndpointSet {
    list: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Where round robin stands; all workers count it together.
    pub next: AtomicU32,
}

/// One address, with what is known of it.
#[derive(Debug)]
pub struct Endpoint {
    pub addr: SocketAddr,
    /// Requests sent whose answers are not complete.
    pub in_flight: AtomicU32,
    /// Milliseconds since the epoch until which connecting is not tried, because it failed
    /// lately; 0: healthy.
    pub avoid_until_ms: AtomicU64,
}

impl EndpointSet {
    /// The endpoints of this moment.
    pub fn load(&self) -> arc_swap::Guard<Arc<Vec<Arc<Endpoint>>>> {
        self.list.load()
    }

    /// Replaces the addresses; an address that stays keeps its state.
    pub fn replace(&self, addrs: &[SocketAddr]) {
        let old = self.list.load();
        let same = old.len() == addrs.len() && old.iter().zip(addrs).all(|(e, a)| e.addr == *a);
        if same {
            return;
        }
        let new = addrs
            .iter()
            .map(|addr| {
                old.iter().find(|e| e.addr == *addr).cloned().unwrap_or_else(|| {
                    Arc::new(Endpoint {
                        addr: *addr,
                        in_flight: AtomicU32::new(0),
                        avoid_until_ms: AtomicU64::new(0),
                    })
                })
            })
            .collect();
        self.list.store(Arc::new(new));
    }

    /// A set that holds `addrs`.
    pub fn of(addrs: &[SocketAddr]) -> Self {
        let set = EndpointSet::default();
        set.replace(addrs);
        set
    }

    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.list.load().iter().map(|e| e.addr).collect()
    }
}
