//! Which endpoint gets the next request.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::clock;
use crate::graph::{Backend, Balance, Endpoint};

/// How long an endpoint is passed over after connecting to it failed.
const AVOID_MS: u64 = 1000;

/// The endpoints that this request has tried: at most three, so a list is enough.
pub type Tried = Vec<Arc<Endpoint>>;

/// An endpoint that is not in `tried`; one that failed lately only if there is no other.
pub fn pick(backend: &Backend, tried: &Tried) -> Option<Arc<Endpoint>> {
    let list = backend.endpoints.load();
    if let ([only], []) = (&list[..], &tried[..]) {
        return Some(Arc::clone(only));
    }
    let now = clock::unix_ms_at(clock::known());
    let fresh = |e: &&Arc<Endpoint>| !tried.iter().any(|t| t.addr == e.addr);
    let good = |e: &&Arc<Endpoint>| fresh(e) && e.avoid_until_ms.load(Relaxed) <= now;
    let start = match backend.balance {
        Balance::PowerOfTwo => {
            if let Some(endpoint) = two_random(&list, &good) {
                return Some(endpoint);
            }
            fastrand::usize(..list.len().max(1))
        }
        Balance::RoundRobin => backend.endpoints.next.fetch_add(1, Relaxed) as usize,
    };
    let from = start % list.len().max(1);
    let around = || list[from..].iter().chain(&list[..from]);
    around().find(good).or_else(|| around().find(fresh)).cloned()
}

/// Of two random endpoints the one with fewer requests in flight, if both will do.
fn two_random(
    list: &[Arc<Endpoint>],
    good: &impl Fn(&&Arc<Endpoint>) -> bool,
) -> Option<Arc<Endpoint>> {
    if list.len() < 2 {
        return None;
    }
    let first = fastrand::usize(..list.len());
    let second = (first + 1 + fastrand::usize(..list.len() - 1)) % list.len();
    let (first, second) = (&list[first], &list[second]);
    if !good(&first) || !good(&second) {
        return None;
    }
    let fewer =
        if second.in_flight.load(Relaxed) < first.in_flight.load(Relaxed) { second } else { first };
    Some(Arc::clone(fewer))
}

/// Connecting failed: others are asked first for a while.
pub fn avoid(endpoint: &Endpoint) {
    endpoint.avoid_until_ms.store(clock::unix_ms() + AVOID_MS, Relaxed);
}

/// Counts a request as in flight until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Relaxed);
        InFlight(endpoint)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::BackendProtocol;
    use crate::graph::testing::key;
    use std::net::SocketAddr;

    fn backend(endpoints: u16, balance: Balance) -> Backend {
        let addrs: Vec<_> =
            (1..=endpoints).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        Backend { balance, ..Backend::new(key("s", 1), BackendProtocol::Http1, &addrs) }
    }

    fn ports(backend: &Backend, times: usize) -> Vec<u16> {
        (0..times).map(|_| pick(backend, &Tried::new()).unwrap().addr.port()).collect()
    }

    #[test]
    fn round_robin_takes_turns() {
        assert_eq!(ports(&backend(3, Balance::RoundRobin), 5), [1, 2, 3, 1, 2]);
    }

    #[test]
    fn of_two_the_less_busy_one_is_taken() {
        let backend = backend(2, Balance::PowerOfTwo);
        let busy = InFlight::new(Arc::clone(&backend.endpoints.load()[0]));
        assert_eq!(ports(&backend, 20), [2; 20]);
        drop(busy);
        assert!(ports(&backend, 100).contains(&1));
    }

    #[test]
    fn a_failing_endpoint_is_passed_over_unless_there_is_no_other() {
        for balance in [Balance::RoundRobin, Balance::PowerOfTwo] {
            let backend = backend(2, balance);
            avoid(&backend.endpoints.load()[0]);
            assert_eq!(ports(&backend, 20), [2; 20]);
            avoid(&backend.endpoints.load()[1]);
            assert!(pick(&backend, &Tried::new()).is_some());
        }
    }

    #[test]
    fn no_endpoint_is_tried_twice() {
        let backend = backend(3, Balance::PowerOfTwo);
        let mut tried = Tried::new();
        while let Some(endpoint) = pick(&backend, &tried) {
            tried.push(endpoint);
        }
        assert_eq!(tried.len(), 3);
        assert!(pick(&self::backend(0, Balance::RoundRobin), &Tried::new()).is_none());
    }
}
