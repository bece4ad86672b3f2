//! Whether a request is sent again, to which endpoint, and after which time.
//!
//! Without the user's word a request is sent again only where that is safe, at most twice and
//! at once:
//! - it could not be connected: to another endpoint, while there is one;
//! - the backend did not begin to process it (RFC 9113, 6.8 and 8.7; or nothing was sent);
//! - the connection broke before any byte of the answer came, and the method is idempotent
//!   (RFC 9110, 9.2.2), as the backend may have acted on it already.
//!
//! With a `retry` (GEP-1731) the same holds as often as it says, other endpoints come first and
//! then all again, and answers with its status codes, whatever the method, and the rule's
//! `backendRequest` timeout are reasons too. `attempts: 0` switches all of it off. A kept
//! connection that turns out to be dead is never an attempt.
//!
//! In all cases the body must not have passed the bound of what is kept of it.

use std::sync::Arc;
use std::time::Duration;

use super::balance::{Tried, pick};
use crate::graph::{Backend, Endpoint, Retry};

/// How often a request is sent again where the user has not said it.
const RETRIES: u32 = 2;
/// How many kept connections may turn out to be dead.
const MOST_DEAD: u32 = 3;
/// The first wait where the user names none; later ones double up to ten times the first.
const BACKOFF: Duration = Duration::from_millis(25);
const MOST_DOUBLINGS: u32 = 8;

/// Why an attempt did not end in an answer that the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no connection.
    Unreachable,
    /// The backend did not process anything of it.
    Unprocessed,
    /// A connection that had served before was dead: nothing was sent.
    Dead,
    /// The connection broke before the answer.
    Broken,
    /// No answer in the time that the rule gives one attempt.
    Late,
    /// An answer with one of the user's status codes.
    Refused,
    /// Trying again is no use or not safe.
    Final,
}

/// What has been tried for one request.
#[derive(Debug)]
pub struct Tries<'a> {
    backend: &'a Backend,
    retry: Option<&'a Retry>,
    is_idempotent: bool,
    tried: Tried,
    again: u32,
    dead: u32,
}

/// The next attempt.
#[derive(Debug)]
pub struct Next {
    pub endpoint: Arc<Endpoint>,
    pub wait: Duration,
    /// It counts as a retry.
    pub counts: bool,
}

impl<'a> Tries<'a> {
    pub fn new(backend: &'a Backend, retry: Option<&'a Retry>, is_idempotent: bool) -> Self {
        Tries { backend, retry, is_idempotent, tried: Tried::new(), again: 0, dead: 0 }
    }

    /// What follows a failure of `endpoint`; `None` if that was the last attempt.
    pub fn next(&mut self, failure: Failure, endpoint: &Arc<Endpoint>) -> Option<Next> {
        if failure == Failure::Dead {
            self.dead += 1;
            let (endpoint, wait) = (Arc::clone(endpoint), Duration::ZERO);
            return (self.dead < MOST_DEAD).then_some(Next { endpoint, wait, counts: false });
        }
        let allowed = match failure {
            Failure::Final => false,
            Failure::Broken => self.is_idempotent,
            Failure::Late | Failure::Refused => self.retry.is_some(),
            Failure::Unreachable | Failure::Unprocessed | Failure::Dead => true,
        };
        if !allowed || self.again >= self.retry.map_or(RETRIES, |retry| retry.attempts) {
            return None;
        }
        self.tried.push(Arc::clone(endpoint));
        let other = pick(self.backend, &self.tried);
        let is_other = other.is_some();
        let endpoint = match (other, self.retry) {
            (Some(other), _) => other,
            // Nobody else: where nothing was processed the same one may do.
            (None, None) if failure != Failure::Unprocessed => return None,
            (None, _) => {
                self.tried.clear();
                pick(self.backend, &self.tried)?
            }
        };
        self.again += 1;
        let wait = self.wait(is_other && failure == Failure::Unreachable);
        Some(Next { endpoint, wait, counts: true })
    }

    fn wait(&self, at_once: bool) -> Duration {
        match self.retry {
            None => Duration::ZERO,
            Some(retry) if retry.backoff.is_zero() && at_once => Duration::ZERO,
            Some(retry) if retry.backoff.is_zero() => backoff(BACKOFF, self.again),
            Some(retry) => backoff(retry.backoff, self.again),
        }
    }
}

/// The wait before the retry of that number, from 1: between half and all of a time that doubles
/// from `base` up to ten times as much, so that clients do not come back together.
fn backoff(base: Duration, number: u32) -> Duration {
    let doubled = base.saturating_mul(1 << number.saturating_sub(1).min(MOST_DOUBLINGS));
    let most = doubled.min(base.saturating_mul(10));
    most.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::graph::{BackendKey, BackendProtocol};

    fn backend(endpoints: u16) -> Backend {
        let addrs: Vec<_> =
            (1..=endpoints).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let key = BackendKey {
            kind: "Service",
            namespace: "n".into(),
            service: "s".into(),
            port: 1,
            protocol: "http",
            context: None,
        };
        Backend::new(key, BackendProtocol::Http1, &addrs)
    }

    fn retry(attempts: u32) -> Retry {
        Retry { codes: vec![503], attempts, backoff: Duration::ZERO }
    }

    /// How often a request is sent when every attempt fails in this way.
    fn sent(endpoints: u16, retry: Option<&Retry>, idempotent: bool, failure: Failure) -> u32 {
        let backend = backend(endpoints);
        let mut endpoint = pick(&backend, &Tried::new()).unwrap();
        let mut tries = Tries::new(&backend, retry, idempotent);
        let mut sent = 1;
        while let Some(next) = tries.next(failure, &endpoint) {
            sent += 1;
            endpoint = next.endpoint;
        }
        sent
    }

    #[test]
    fn without_a_retry_only_what_is_safe_is_sent_again() {
        for (endpoints, idempotent, failure, times) in [
            (5, false, Failure::Unreachable, 3),
            (2, false, Failure::Unreachable, 2),
            (1, true, Failure::Unreachable, 1),
            (5, true, Failure::Broken, 3),
            (5, false, Failure::Broken, 1),
            (1, false, Failure::Unprocessed, 3),
            (1, false, Failure::Dead, 3),
            (5, true, Failure::Refused, 1),
            (5, true, Failure::Late, 1),
            (5, true, Failure::Final, 1),
        ] {
            assert_eq!(sent(endpoints, None, idempotent, failure), times, "{failure:?}");
        }
    }

    #[test]
    fn a_retry_says_how_often_and_zero_means_never() {
        for failure in [Failure::Unreachable, Failure::Unprocessed, Failure::Refused, Failure::Late]
        {
            assert_eq!(sent(1, Some(&retry(7)), false, failure), 8, "{failure:?}");
            assert_eq!(sent(3, Some(&retry(0)), true, failure), 1, "{failure:?}");
        }
        assert_eq!(sent(3, Some(&retry(7)), false, Failure::Broken), 1);
        assert_eq!(sent(3, Some(&retry(4)), true, Failure::Broken), 5);
        assert_eq!(sent(3, Some(&retry(7)), true, Failure::Final), 1);
    }

    #[test]
    fn every_endpoint_is_tried_before_one_is_tried_again() {
        let backend = backend(3);
        let retry = retry(5);
        let mut tries = Tries::new(&backend, Some(&retry), true);
        let mut endpoint = pick(&backend, &Tried::new()).unwrap();
        let mut order = vec![endpoint.addr.port()];
        while let Some(next) = tries.next(Failure::Refused, &endpoint) {
            endpoint = next.endpoint;
            order.push(endpoint.addr.port());
        }
        let (mut first, mut second) = (order[..3].to_vec(), order[3..].to_vec());
        first.sort_unstable();
        second.sort_unstable();
        assert_eq!((first, second), (vec![1, 2, 3], vec![1, 2, 3]));
    }

    #[test]
    fn waits_grow_to_ten_times_the_base_and_differ() {
        let base = Duration::from_millis(100);
        for (number, most) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (99, 1000)] {
            let wait = backoff(base, number).as_millis();
            assert!((most / 2..=most).contains(&wait), "{number}: {wait}");
        }
        let waits: std::collections::BTreeSet<_> = (0..20).map(|_| backoff(base, 3)).collect();
        assert!(waits.len() > 10);
    }

    #[test]
    fn another_endpoint_is_asked_at_once_when_one_cannot_be_reached() {
        let backend = backend(2);
        let wait = |backoff, failure| {
            let retry = Retry { backoff, ..retry(3) };
            let endpoint = pick(&backend, &Tried::new()).unwrap();
            Tries::new(&backend, Some(&retry), true).next(failure, &endpoint).unwrap().wait
        };
        assert!(wait(Duration::ZERO, Failure::Unreachable).is_zero());
        assert!(!wait(Duration::ZERO, Failure::Refused).is_zero());
        assert!(wait(Duration::from_secs(1), Failure::Unreachable) >= Duration::from_millis(500));
    }
}
