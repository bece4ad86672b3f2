//! The numbers of a limit that hold for a request, ready for the algorithms.

use std::time::Duration;

use crate::services::store::Algorithm;

/// Longest time for an empty bucket to fill: keeps the arithmetic far from overflow.
pub const MAX_FILL: Duration = Duration::from_hours(10 * 365 * 24);

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Cost that is let through in each window, at least 1.
    pub limit: u64,
    /// Cost that may come at once, for the buckets, at least 1.
    pub burst: u64,
    /// Length of a window, at least 1000.
    pub window_ms: u64,
    /// Ticks of a millisecond: see [`bucket`](super::bucket).
    pub ticks: u64,
    /// Ticks in which one token comes back, at least 1.
    pub interval: u64,
    /// Ticks in which an empty bucket fills.
    pub fill: u64,
}

impl Numbers {
    /// `ticks` are those that [`bucket::ticks`](super::bucket::ticks) gives; filling takes at most [`MAX_FILL`].
    pub fn new(limit: u64, burst: u64, window_ms: u64, ticks: u64) -> Self {
        Numbers::part(limit, burst, window_ms, ticks, 1)
    }

    /// What one of `replicas` pods lets through that count each for itself: a token comes back
    /// as many times as slowly, and of whole numbers each has the share, rounded down, and 1 at
    /// least.
    pub fn share(&self, replicas: u32) -> Self {
        let Numbers { limit, burst, window_ms, ticks, .. } = *self;
        Numbers::part(limit, burst, window_ms, ticks, u64::from(replicas.max(1)))
    }

    fn part(limit: u64, burst: u64, window_ms: u64, ticks: u64, parts: u64) -> Self {
        let interval = (window_ms * ticks * parts / limit).max(1);
        let burst = (burst / parts).max(1);
        let fill = interval.saturating_mul(burst);
        Numbers { limit: (limit / parts).max(1), burst, window_ms, ticks, interval, fill }
    }

    /// Cost that may come at once, where nothing was charged.
    pub fn most(&self, algorithm: Algorithm) -> u64 {
        match algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => self.burst,
            Algorithm::FixedWindow | Algorithm::SlidingWindow | Algorithm::SlidingLog => self.limit,
        }
    }

    /// Whether filling an empty bucket takes no longer than [`MAX_FILL`].
    pub fn fills_in_time(limit: u64, burst: u64, window_ms: u64) -> bool {
        let fill = u128::from(burst) * u128::from(window_ms) / u128::from(limit);
        fill <= MAX_FILL.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rate_limit::bucket;

    #[test]
    fn shares_add_up_to_no_more_than_the_whole() {
        let ticks = bucket::ticks(1000, [100].into_iter());
        let whole = Numbers::new(100, 50, 1000, ticks);
        assert_eq!(whole.share(1), whole);
        let third = whole.share(3);
        assert_eq!((third.limit, third.burst), (33, 16));
        assert_eq!(third.interval, whole.interval * 3);
        let tiny = Numbers::new(1, 1, 1000, 1).share(5);
        assert_eq!((tiny.limit, tiny.burst, tiny.interval), (1, 1, 5000));
    }

    #[test]
    fn buckets_that_would_never_fill_are_known() {
        assert!(Numbers::fills_in_time(1, 100, 60_000));
        assert!(!Numbers::fills_in_time(1, 1_000_000_000, 31 * 86_400_000));
    }
}
