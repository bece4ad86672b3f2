//! The arithmetic of a token bucket (GCRA): its whole state is the time at which it is full.
//!
//! Time is in nanoseconds since the Unix epoch, which 64 bits hold until the year 2554. A
//! bucket that was full in the past is full, so the state 0 is a new bucket.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::policy::Quota;

/// By how much workers' readings of the clock may differ without meaning anything: 1 s.
const CLOCKS_APART: u64 = 1_000_000_000;

/// The parameters of a bucket; its state is a word elsewhere.
#[derive(Debug)]
pub struct Bucket {
    /// Nanoseconds in which one token comes back; rounded down, at least 1.
    interval: u64,
    /// Nanoseconds in which an empty bucket fills.
    fill: u64,
    burst: u32,
}

/// Whether a request got a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Admitted(Quota),
    Refused { quota: Quota, retry_after_s: u64 },
}

impl Bucket {
    /// `average` tokens come back in each `period`, `burst` tokens fit in. Whoever calls has
    /// seen to it that none is 0 and that filling takes less than a lifetime.
    pub fn new(average: u32, burst: u32, period: Duration) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let interval = (period / u64::from(average)).max(1);
        Bucket { interval, fill: interval.saturating_mul(burst.into()), burst }
    }

    /// Takes a token at `now_ms`, if there is one.
    pub fn take(&self, full_at: &AtomicU64, now_ms: u64) -> Verdict {
        let now = nanos(now_ms);
        let mut before = full_at.load(Ordering::Relaxed);
        loop {
            let missing = before.saturating_sub(now);
            if missing > self.fill + CLOCKS_APART {
                // Only a clock that was set back leaves more than a whole bucket missing: go
                // on with an empty one.
                before = exchange(full_at, before, now + self.fill).unwrap_or_else(|now| now);
                continue;
            }
            let missing = missing.min(self.fill);
            let after = missing + self.interval;
            if after > self.fill {
                let retry_after_s = seconds(after - self.fill).max(1);
                return Verdict::Refused { quota: self.quota(missing), retry_after_s };
            }
            match exchange(full_at, before, now + after) {
                Ok(_) => return Verdict::Admitted(self.quota(after)),
                Err(current) => before = current,
            }
        }
    }

    fn quota(&self, missing: u64) -> Quota {
        let left = (self.fill - missing) / self.interval;
        let remaining = u32::try_from(left).unwrap_or(self.burst);
        Quota { limit: self.burst, remaining, reset_s: seconds(missing) }
    }
}

/// The new word, or what is there instead of `before`. Relaxed: the word is all there is, nothing
/// else is published by it.
fn exchange(word: &AtomicU64, before: u64, after: u64) -> Result<u64, u64> {
    word.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed).map(|_| after)
}

/// The unit of this module.
pub fn nanos(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

/// Whole seconds, rounded up.
fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;

    /// How many of `tries` requests at `ms` after the start are let through.
    fn admitted(bucket: &Bucket, word: &AtomicU64, ms: u64, tries: u32) -> u32 {
        let take = |_| matches!(bucket.take(word, START + ms), Verdict::Admitted(_));
        (0..tries).map(take).map(u32::from).sum()
    }

    #[test]
    fn a_new_bucket_lets_a_burst_through_and_then_the_average() {
        let (bucket, word) = (Bucket::new(10, 20, Duration::from_secs(1)), AtomicU64::new(0));
        assert_eq!(admitted(&bucket, &word, 0, 50), 20);
        assert_eq!(admitted(&bucket, &word, 99, 5), 0);
        assert_eq!(admitted(&bucket, &word, 100, 5), 1);
        assert_eq!(admitted(&bucket, &word, 1100, 50), 10);
    }

    #[test]
    fn a_bucket_never_holds_more_than_its_burst() {
        let (bucket, word) = (Bucket::new(10, 5, Duration::from_secs(1)), AtomicU64::new(0));
        assert_eq!(admitted(&bucket, &word, 0, 50), 5);
        assert_eq!(admitted(&bucket, &word, 3_600_000, 50), 5);
    }

    #[test]
    fn over_a_long_time_the_average_holds() {
        let (bucket, word) = (Bucket::new(3, 1, Duration::from_secs(1)), AtomicU64::new(0));
        let sum: u32 = (0..100_000).step_by(10).map(|ms| admitted(&bucket, &word, ms, 1)).sum();
        // One token each 340 ms on a grid of 10 ms.
        assert_eq!(sum, 295);
    }

    #[test]
    fn what_is_left_and_when_to_come_again_are_told() {
        let (bucket, word) = (Bucket::new(1, 2, Duration::from_secs(10)), AtomicU64::new(0));
        let quota = |remaining, reset_s| Quota { limit: 2, remaining, reset_s };
        assert_eq!(bucket.take(&word, START), Verdict::Admitted(quota(1, 10)));
        assert_eq!(bucket.take(&word, START), Verdict::Admitted(quota(0, 20)));
        let refused = Verdict::Refused { quota: quota(0, 20), retry_after_s: 10 };
        assert_eq!(bucket.take(&word, START), refused);
        let refused = Verdict::Refused { quota: quota(0, 11), retry_after_s: 1 };
        assert_eq!(bucket.take(&word, START + 9_500), refused);
    }

    #[test]
    fn a_clock_that_was_set_back_costs_one_bucket_and_no_more() {
        let (bucket, word) = (Bucket::new(1, 1, Duration::from_secs(1)), AtomicU64::new(0));
        assert_eq!(admitted(&bucket, &word, 3_600_000, 1), 1);
        let Verdict::Refused { retry_after_s, .. } = bucket.take(&word, START) else {
            panic!("the bucket is taken for empty")
        };
        assert_eq!(retry_after_s, 1);
        assert_eq!(admitted(&bucket, &word, 1000, 5), 1);
    }

    #[test]
    fn a_worker_whose_clock_is_a_little_behind_frees_nothing() {
        let (bucket, word) = (Bucket::new(1, 2, Duration::from_secs(10)), AtomicU64::new(0));
        assert_eq!(admitted(&bucket, &word, 5, 2), 2);
        let quota = Quota { limit: 2, remaining: 0, reset_s: 20 };
        let refused = Verdict::Refused { quota, retry_after_s: 10 };
        assert_eq!(bucket.take(&word, START), refused);
        assert_eq!(word.load(Ordering::Relaxed), nanos(START + 5) + 20_000_000_000);
    }

    #[test]
    fn threads_together_get_no_more_than_the_burst() {
        let (bucket, word) = (Bucket::new(1, 100, Duration::from_secs(3600)), AtomicU64::new(0));
        let sum: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| admitted(&bucket, &word, 0, 100))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(sum, 100);
    }
}
