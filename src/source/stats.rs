//! What a source counts: plain atomics, read by the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct SourceStats {
    pub(super) events: AtomicU64,
    pub(super) watch_errors: AtomicU64,
    pub(super) watch_restarts: AtomicU64,
    pub(super) undecodable: AtomicU64,
    pub(super) echoes: AtomicU64,
    pub(super) endpoint_updates: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) reload_errors: AtomicU64,
    pub(super) key_fetches: AtomicU64,
    pub(super) key_errors: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Objects that arrived, by lists and watches or by reading files.
    pub events: u64,
    /// Errors of lists and watches; each was followed by another try.
    pub watch_errors: u64,
    /// Watches that were built anew because trying on did not help.
    pub watch_restarts: u64,
    /// Objects that arrived and could not be decoded.
    pub undecodable: u64,
    /// Events that were our own status writes.
    pub echoes: u64,
    /// Times that the endpoints of a live backend were replaced without a pass.
    pub endpoint_updates: u64,
    /// Panics in tasks of the source; each task was started again.
    pub panics: u64,
    /// Times that files were read and had problems.
    pub reload_errors: u64,
    /// Times that keys of an issuer were asked for.
    pub key_fetches: u64,
    /// Of these, those that brought no keys.
    pub key_errors: u64,
}

impl SourceStats {
    pub fn counts(&self) -> SourceCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SourceCounts {
            events: read(&self.events),
            watch_errors: read(&self.watch_errors),
            watch_restarts: read(&self.watch_restarts),
            undecodable: read(&self.undecodable),
            echoes: read(&self.echoes),
            endpoint_updates: read(&self.endpoint_updates),
            panics: read(&self.panics),
            reload_errors: read(&self.reload_errors),
            key_fetches: read(&self.key_fetches),
            key_errors: read(&self.key_errors),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
