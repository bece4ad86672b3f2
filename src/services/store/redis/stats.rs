//! What is counted of all Redis stores of the process together. It outlives stores and graphs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::failure::{Failure, KINDS};

/// Upper bounds of the buckets in seconds; the last bucket is open.
pub const STORE_BOUNDS: [f64; 11] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0];

#[derive(Debug)]
pub(super) struct Stats {
    errors: [AtomicU64; KINDS.len()],
    healed: AtomicU64,
    buckets: [AtomicU64; STORE_BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

pub(super) static STATS: Stats = Stats {
    errors: [const { AtomicU64::new(0) }; KINDS.len()],
    healed: AtomicU64::new(0),
    buckets: [const { AtomicU64::new(0) }; STORE_BOUNDS.len() + 1],
    sum_us: AtomicU64::new(0),
};

/// Everything counted so far.
#[derive(Clone, Debug, Default)]
pub struct StoreTotals {
    /// Questions without an answer, by kind of failure.
    pub errors: Vec<(&'static str, u64)>,
    /// Keys of a wrong kind that were deleted.
    pub healed: u64,
    /// Questions that went out, by the time they took; not cumulative, the last one is open.
    pub buckets: [u64; STORE_BOUNDS.len() + 1],
    pub sum_seconds: f64,
}

/// The totals of all Redis stores of this process.
pub fn totals() -> StoreTotals {
    let read = AtomicU64::load;
    StoreTotals {
        errors: KINDS.iter().zip(&STATS.errors).map(|(k, n)| (*k, read(n, Relaxed))).collect(),
        healed: STATS.healed.load(Relaxed),
        buckets: std::array::from_fn(|n| STATS.buckets[n].load(Relaxed)),
        sum_seconds: STATS.sum_us.load(Relaxed) as f64 / 1e6,
    }
}

impl Stats {
    pub fn failed(&self, failure: &Failure) {
        self.errors[failure.kind()].fetch_add(1, Relaxed);
    }

    pub fn healed(&self, keys: u64) {
        if keys > 0 {
            self.healed.fetch_add(keys, Relaxed);
            tracing::warn!(keys, "the store held keys of another kind under our names: deleted");
        }
    }

    pub fn took(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = STORE_BOUNDS.iter().take_while(|bound| **bound < seconds).count();
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}
