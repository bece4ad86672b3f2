//! How often a request is tried.
//!
//! Only what users say about it; choosing endpoints and counting tries is the proxy's work.

use std::time::Duration;

/// Trying again, by the will of the user (HTTPRoute `rules[].retry`, GEP-1731). Connections that
/// fail are tried again as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Status codes of answers that are thrown away for another try, sorted: 400 to 599.
    pub codes: Vec<u16>,
    /// How often a request is sent again at most, after the first time.
    pub attempts: u32,
    /// How long to wait before each further try; zero: not at all.
    pub backoff: Duration,
}

/// How much of a backend's load may be retries (XBackendTrafficPolicy `retryConstraint`, GEP-3388).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Of the requests of the last `interval`, how many of a hundred may be retries.
    pub percent: u32,
    pub interval: Duration,
    /// So many retries in this time are always allowed.
    pub min_rate: (u32, Duration),
}
