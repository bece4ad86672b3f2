//! Backends and their endpoints.
//!
//! A backend is compiled; its endpoints are live: they are swapped inside the handle that every
//! graph's backend of the same key shares, so endpoint changes need no new graph. How one
//! endpoint is chosen is `proxy::balance`, how it is connected to is `proxy::pool`; TLS to
//! backends is `backend_tls`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;

use super::{BackendTls, RetryBudget, RetryCounts, Session};

/// [`Backend::connect_timeout`] where nobody says another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What identifies a backend over generations: a port of a Service or XBackend, as one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    /// `Service` or `XBackend`.
    pub kind: &'static str,
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    pub port: u16,
    /// Two users of one port may speak different protocols to it (Ingress annotation).
    pub protocol: &'static str,
    /// Tells users apart who speak to one port in different ways: the Gateway whose client
    /// certificate is shown.
    pub context: Option<Arc<str>>,
}

#[derive(Debug)]
pub struct Backend {
    pub key: BackendKey,
    pub protocol: BackendProtocol,
    pub balance: Balance,
    /// From the first SYN to an established connection, TLS included; 3 s by default.
    pub connect_timeout: Duration,
    pub session: Option<Arc<Session>>,
    pub retry_budget: Option<RetryBudget>,
    /// The Service, in the key's namespace, whose EndpointSlices bring the endpoints; None:
    /// they change with graphs only.
    pub slices: Option<Arc<str>>,
    pub endpoints: Arc<EndpointSet>,
}

impl Backend {
    /// A backend with the defaults for all that nobody has said.
    pub fn new(key: BackendKey, protocol: BackendProtocol, endpoints: &[SocketAddr]) -> Self {
        let slices = (key.kind == "Service").then(|| Arc::clone(&key.service));
        Backend {
            key,
            protocol,
            balance: Balance::default(),
            connect_timeout: CONNECT_TIMEOUT,
            session: None,
            retry_budget: None,
            slices,
            endpoints: Arc::new(EndpointSet::of(endpoints)),
        }
    }
}

#[derive(Clone, Debug)]
pub enum BackendProtocol {
    Http1,
    /// HTTP/2 with prior knowledge in clear text (`appProtocol: kubernetes.io/h2c`).
    H2c,
    /// TLS: HTTP/2 or HTTP/1.1 by ALPN, or a stream without ALPN.
    Tls(Arc<BackendTls>),
    /// A stream in clear text.
    Tcp,
    Udp,
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
    /// What counts against the budget for retries.
    pub retries: RetryCounts,
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

impl Endpoint {
    fn new(addr: SocketAddr) -> Arc<Self> {
        let (in_flight, avoid_until_ms) = (AtomicU32::new(0), AtomicU64::new(0));
        Arc::new(Endpoint { addr, in_flight, avoid_until_ms })
    }
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
        let known: FxHashMap<SocketAddr, &Arc<Endpoint>> =
            old.iter().map(|e| (e.addr, e)).collect();
        let kept = |addr: &SocketAddr| known.get(addr).map(|endpoint| Arc::clone(endpoint));
        let new = addrs.iter().map(|addr| kept(addr).unwrap_or_else(|| Endpoint::new(*addr)));
        self.list.store(Arc::new(new.collect()));
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn addr(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 80).into()
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_state() {
        let set = EndpointSet::of(&[addr(1), addr(2)]);
        set.load()[1].in_flight.store(7, Relaxed);
        set.replace(&[addr(3), addr(2)]);
        assert_eq!(set.addrs(), [addr(3), addr(2)]);
        let counts: Vec<_> = set.load().iter().map(|e| e.in_flight.load(Relaxed)).collect();
        assert_eq!(counts, [0, 7]);
    }
}
