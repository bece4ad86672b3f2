//! The arithmetic of token and leaky buckets (GCRA): the whole state of a bucket is the time at
//! which it is full.
//!
//! That time is one atomic word and counts ticks since the Unix epoch. How long a tick is follows
//! from the limit, such that what a request takes is a whole number of ticks: nothing is rounded,
//! but for limits of no round number over a million a second. A bucket that was full in the past
//! is full, so the state 0 is a new bucket. Of the others a token takes up to a tick less than it
//! should: by a part of limit a second / 2^31 more is let through.

use std::sync::atomic::{AtomicU64, Ordering};

use super::numbers::Numbers;
use crate::services::store::Verdict;

/// By how much workers' readings of the clock may differ without meaning anything, in ms.
pub const CLOCKS_APART: u64 = 1_000;
/// Most ticks of a millisecond: half a nanosecond each, which 64 bits hold until the year 2200.
const MOST_TICKS: u64 = 1 << 21;

/// Ticks of a millisecond, such that in each window all of `limits` divide it into whole ticks.
pub fn ticks(window_ms: u64, limits: impl Iterator<Item = u64>) -> u64 {
    let mut ticks = 1;
    for limit in limits {
        let part = limit / gcd(limit, window_ms);
        ticks *= part / gcd(ticks, part);
        if ticks > MOST_TICKS {
            return MOST_TICKS;
        }
    }
    ticks
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Takes `cost` tokens at `now_ms`, if there are as many; 0 only looks. With it come the ticks to
/// give back should the request be refused elsewhere.
pub fn take(full_at: &AtomicU64, numbers: &Numbers, cost: u64, now_ms: u64) -> (Verdict, u64) {
    let Numbers { ticks, interval, fill, .. } = *numbers;
    let now = now_ms.saturating_mul(ticks);
    let charge = interval.saturating_mul(cost);
    let mut before = full_at.load(Ordering::Relaxed);
    loop {
        let missing = before.saturating_sub(now);
        if missing > fill + CLOCKS_APART * ticks {
            // Only a clock that was set back, or a limit that was raised, leaves more than a
            // whole bucket missing: go on with an empty one.
            before = exchange(full_at, before, now + fill).unwrap_or_else(|current| current);
            continue;
        }
        let missing = missing.min(fill);
        let after = missing.saturating_add(charge);
        if cost > numbers.burst || after > fill {
            return (refused(numbers, missing, after, cost), 0);
        }
        if cost == 0 {
            return (verdict(numbers, missing), 0);
        }
        match exchange(full_at, before, now + after) {
            Ok(_) => return (verdict(numbers, after), charge),
            Err(current) => before = current,
        }
    }
}

/// Gives back what [`take`] took.
pub fn give_back(full_at: &AtomicU64, ticks: u64) {
    let less = |at: u64| Some(at.saturating_sub(ticks));
    // It cannot fail: there is always a new value.
    let _ = full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

/// Ticks until the bucket is full: what its word weighs.
pub fn weight(full_at: &AtomicU64, numbers: &Numbers, now_ms: u64) -> u64 {
    full_at.load(Ordering::Relaxed).saturating_sub(now_ms.saturating_mul(numbers.ticks))
}

fn verdict(numbers: &Numbers, missing: u64) -> Verdict {
    Verdict {
        admitted: true,
        remaining: (numbers.fill - missing) / numbers.interval,
        reset_ms: missing.div_ceil(numbers.ticks),
        retry_after_ms: 0,
    }
}

fn refused(numbers: &Numbers, missing: u64, after: u64, cost: u64) -> Verdict {
    let retry_after_ms = if cost > numbers.burst {
        numbers.window_ms
    } else {
        (after - numbers.fill).div_ceil(numbers.ticks)
    };
    Verdict { admitted: false, retry_after_ms, ..verdict(numbers, missing) }
}

/// The new word, or what is there instead of `before`. Relaxed: the word is all there is, nothing
/// else is published by it.
fn exchange(word: &AtomicU64, before: u64, after: u64) -> Result<u64, u64> {
    word.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed).map(|_| after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;

    fn bucket(limit: u64, burst: u64, window_s: u64) -> Numbers {
        let window_ms = window_s * 1000;
        Numbers::new(limit, burst, window_ms, ticks(window_ms, [limit].into_iter()))
    }

    /// How many of `tries` requests at `ms` after the start are let through.
    fn admitted(bucket: &Numbers, word: &AtomicU64, ms: u64, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(take(word, bucket, 1, START + ms).0.admitted)).sum()
    }

    #[test]
    fn a_new_bucket_lets_a_burst_through_and_then_the_average() {
        let (bucket, word) = (bucket(10, 20, 1), AtomicU64::new(0));
        assert_eq!(admitted(&bucket, &word, 0, 50), 20);
        assert_eq!(admitted(&bucket, &word, 99, 5), 0);
        assert_eq!(admitted(&bucket, &word, 100, 5), 1);
        assert_eq!(admitted(&bucket, &word, 1100, 50), 10);
        assert_eq!(admitted(&bucket, &word, 3_600_000, 50), 20, "never more than its burst");
    }

    #[test]
    fn a_bucket_of_one_lets_through_what_is_evenly_spaced() {
        let (bucket, word) = (bucket(3, 1, 1), AtomicU64::new(0));
        let sum: u32 = (0..100_000).step_by(10).map(|ms| admitted(&bucket, &word, ms, 1)).sum();
        // One token each 340 ms on a grid of 10 ms.
        assert_eq!(sum, 295);
    }

    #[test]
    fn what_is_taken_is_exact_for_limits_that_divide_no_window() {
        for limit in [3, 7, 11, 999, 1000, 1_000_000] {
            let (bucket, word) = (bucket(limit, limit, 1), AtomicU64::new(0));
            assert_eq!(bucket.interval * limit, 1000 * bucket.ticks, "{limit}");
            let all = u32::try_from(limit).unwrap();
            for second in 0..3 {
                assert_eq!(admitted(&bucket, &word, second * 1000, all + 1), all, "{limit}");
            }
        }
    }

    #[test]
    fn a_tick_suits_all_limits_of_a_key() {
        assert_eq!(ticks(60_000, [100, 1000, 10_000].into_iter()), 1);
        assert_eq!(ticks(1000, [3, 7, 1000].into_iter()), 21);
        assert_eq!(ticks(1000, [1_000_000_000].into_iter()), 1_000_000);
        assert_eq!(ticks(1000, [999_999_937].into_iter()), MOST_TICKS);
    }

    /// The bound that docs/rate-limits.md states: limit a second / 2^31.
    #[test]
    fn limits_of_no_round_number_over_two_million_a_second_let_hardly_more_through() {
        for limit in [2_097_169_u64, 9_999_991, 99_999_989] {
            let (bucket, word) = (bucket(limit, limit, 1), AtomicU64::new(0));
            assert_eq!(bucket.ticks, MOST_TICKS, "{limit}");
            let cost = limit / 1000;
            let asked = (0..10_000).flat_map(|ms| [START + ms; 3]);
            let admitted = asked.filter(|now| take(&word, &bucket, cost, *now).0.admitted).count();
            // Ten seconds, and the bucket that was full.
            let through = (admitted as u64 * cost) as f64 / (limit * 11) as f64;
            let most = 1.0 + limit as f64 / f64::from(1_u32 << 31);
            assert!((0.999..=most).contains(&through), "{limit}: {through} of {most}");
        }
    }

    #[test]
    fn what_is_left_and_when_to_come_again_are_told() {
        let (bucket, word) = (bucket(1, 2, 10), AtomicU64::new(0));
        let told = |ms| take(&word, &bucket, 1, START + ms).0;
        let verdict = |admitted, remaining, reset_ms, retry_after_ms| Verdict {
            admitted,
            remaining,
            reset_ms,
            retry_after_ms,
        };
        assert_eq!(told(0), verdict(true, 1, 10_000, 0));
        assert_eq!(told(0), verdict(true, 0, 20_000, 0));
        assert_eq!(told(0), verdict(false, 0, 20_000, 10_000));
        assert_eq!(told(9_500), verdict(false, 0, 10_500, 500));
    }

    #[test]
    fn a_request_takes_what_it_costs_and_gives_it_back() {
        let (bucket, word) = (bucket(10, 10, 1), AtomicU64::new(0));
        let (seven, ticks) = take(&word, &bucket, 7, START);
        assert_eq!((seven.admitted, seven.remaining), (true, 3));
        let (more, nothing) = take(&word, &bucket, 4, START);
        assert_eq!((more.admitted, more.retry_after_ms, nothing), (false, 100, 0));
        give_back(&word, ticks);
        assert!(take(&word, &bucket, 10, START).0.admitted);
        let (never, _) = take(&word, &bucket, 11, START + 100_000);
        assert_eq!((never.admitted, never.remaining, never.retry_after_ms), (false, 10, 1000));
    }

    #[test]
    fn a_clock_that_was_set_back_costs_one_bucket_and_no_more() {
        let (bucket, word) = (bucket(1, 1, 1), AtomicU64::new(0));
        assert_eq!(admitted(&bucket, &word, 3_600_000, 1), 1);
        assert_eq!(take(&word, &bucket, 1, START).0.retry_after_ms, 1000);
        assert_eq!(admitted(&bucket, &word, 1000, 5), 1);
    }

    #[test]
    fn a_worker_whose_clock_is_a_little_behind_frees_nothing() {
        let (bucket, word) = (bucket(1, 2, 10), AtomicU64::new(0));
        assert_eq!(admitted(&bucket, &word, 5, 2), 2);
        assert_eq!(take(&word, &bucket, 1, START).0.retry_after_ms, 10_000);
        assert_eq!(word.load(Ordering::Relaxed), START + 5 + 20_000);
    }

    #[test]
    fn threads_together_get_no_more_than_the_burst() {
        let (bucket, word) = (bucket(1, 100, 3600), AtomicU64::new(0));
        let sum: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| admitted(&bucket, &word, 0, 100))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(sum, 100);
    }
}
