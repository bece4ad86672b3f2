//! What the stored state of a counter says to a check: exact, in integers, and the same for
//! every store, whether it lives in this process or answers from outside.
//!
//! Times are whole milliseconds, except for the debt of a bucket: that is counted in parts of
//! 1/`limit` millisecond ("ticks"), in which the time that a cost takes is an integer.

use super::{Check, Verdict};

/// Longest debt and largest capacity of a bucket in milliseconds, about 71,000 years: the sum of
/// the two and of any clock stays far below 2^53, where doubles stop counting (Lua has no others).
pub const MAX_DEBT_MS: u64 = 1 << 51;

/// The state of one counter at the moment of a check, before the check is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Ticks until the bucket is full; at most its capacity.
    Bucket { debt: u128 },
    /// Cost in the current window, and milliseconds since it began (less than its length).
    Fixed { count: u64, elapsed_ms: u64 },
    /// Costs in the current and the previous window, and milliseconds since the current began.
    Sliding { current: u64, previous: u64, elapsed_ms: u64 },
    /// Cost in the window that ends now, milliseconds until the youngest of it has left, and
    /// until so much has left that the check is admitted (0 if it is).
    Log { count: u64, reset_ms: u64, retry_ms: u64 },
}

/// Ticks that the check takes from a bucket.
pub fn charge(check: &Check) -> u128 {
    ticks(check, check.cost)
}

/// Ticks that a bucket of the check holds: one with more debt admits nothing.
pub fn capacity(check: &Check) -> u128 {
    ticks(check, check.burst)
}

fn ticks(check: &Check, cost: u64) -> u128 {
    let most = u128::from(MAX_DEBT_MS) * u128::from(check.limit.max(1));
    (u128::from(cost) * u128::from(check.window_ms)).min(most)
}

/// The share of the previous window in the window that ends now, rounded down.
pub fn carried(previous: u64, elapsed_ms: u64, window_ms: u64) -> u64 {
    let rest = window_ms.saturating_sub(elapsed_ms);
    let share = u128::from(previous) * u128::from(rest) / u128::from(window_ms.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

impl State {
    /// Whether there is room for the check's cost.
    pub fn admits(&self, check: &Check) -> bool {
        match *self {
            State::Bucket { debt } => {
                check.cost <= check.burst && debt + charge(check) <= capacity(check)
            }
            State::Fixed { count, .. } | State::Log { count, .. } => fits(check, count),
            State::Sliding { current, previous, elapsed_ms } => {
                fits(check, current.saturating_add(carried(previous, elapsed_ms, check.window_ms)))
            }
        }
    }

    /// The answer to the check. `charged`: the request went on, and this check was charged.
    pub fn verdict(&self, check: &Check, charged: bool) -> Verdict {
        let admitted = self.admits(check);
        let cost = if charged { check.cost } else { 0 };
        let retry_after_ms = if admitted { 0 } else { self.retry(check).max(1) };
        let (remaining, reset_ms) = match *self {
            State::Bucket { debt } => {
                let debt = debt + if charged { charge(check) } else { 0 };
                let room =
                    capacity(check).saturating_sub(debt) / u128::from(check.window_ms.max(1));
                (u64::try_from(room).unwrap_or(u64::MAX), to_ms(check, debt))
            }
            State::Fixed { count, elapsed_ms } => {
                let count = count.saturating_add(cost);
                let reset = if count == 0 { 0 } else { check.window_ms - elapsed_ms };
                (check.limit.saturating_sub(count), reset)
            }
            State::Sliding { current, previous, elapsed_ms } => {
                let current = current.saturating_add(cost);
                let count = current.saturating_add(carried(previous, elapsed_ms, check.window_ms));
                let rest = check.window_ms - elapsed_ms;
                let reset = match (current, previous) {
                    (0, 0) => 0,
                    (0, _) => rest,
                    _ => rest + check.window_ms,
                };
                (check.limit.saturating_sub(count), reset)
            }
            State::Log { count, reset_ms, .. } => {
                let reset = if cost > 0 { check.window_ms } else { reset_ms };
                (check.limit.saturating_sub(count.saturating_add(cost)), reset)
            }
        };
        Verdict { admitted, remaining, reset_ms, retry_after_ms }
    }

    /// Milliseconds until a check that was refused would be admitted, if nobody else comes. What
    /// costs more than ever fits in is told to wait for a window, and then again.
    fn retry(&self, check: &Check) -> u64 {
        match *self {
            State::Bucket { .. } if check.cost > check.burst => check.window_ms,
            State::Bucket { debt } => {
                to_ms(check, (debt + charge(check)).saturating_sub(capacity(check)))
            }
            _ if check.cost > check.limit => check.window_ms,
            State::Fixed { elapsed_ms, .. } => check.window_ms - elapsed_ms,
            State::Sliding { current, previous, elapsed_ms } => {
                sliding_retry(check, current, previous, elapsed_ms)
            }
            State::Log { retry_ms, .. } => retry_ms,
        }
    }
}

fn fits(check: &Check, count: u64) -> bool {
    count.checked_add(check.cost).is_some_and(|sum| sum <= check.limit)
}

/// Ticks in milliseconds, rounded up.
fn to_ms(check: &Check, ticks: u128) -> u64 {
    u64::try_from(ticks.div_ceil(u128::from(check.limit.max(1)))).unwrap_or(u64::MAX)
}

fn sliding_retry(check: &Check, current: u64, previous: u64, elapsed_ms: u64) -> u64 {
    let rest = check.window_ms - elapsed_ms;
    let room = check.limit - check.cost;
    if current <= room {
        // The previous window has to fade, at most until it is over.
        return rest - fades_to(previous, room - current, check.window_ms).min(rest);
    }
    // In the next window, what is current now is the previous.
    rest + check.window_ms - fades_to(current, room, check.window_ms).min(check.window_ms)
}

/// The longest rest of the window at which no more than `room` of `count` is carried over.
fn fades_to(count: u64, room: u64, window_ms: u64) -> u64 {
    if count == 0 {
        return window_ms;
    }
    let longest = ((u128::from(room) + 1) * u128::from(window_ms) - 1) / u128::from(count);
    u64::try_from(longest).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::*;

    fn check(algorithm: Algorithm, limit: u64, window_ms: u64, cost: u64) -> Check {
        let key = b"k"[..].into();
        let tag = "test".into();
        Check { key, tag, algorithm, limit, burst: limit, window_ms, cost }
    }

    #[test]
    fn a_bucket_fills_evenly_and_to_the_last_part_of_a_millisecond() {
        // 3 in a second: one takes 333 1/3 ms.
        let check = check(Algorithm::TokenBucket, 3, 1000, 1);
        let full = State::Bucket { debt: 0 };
        assert_eq!(
            full.verdict(&check, true),
            Verdict { admitted: true, remaining: 2, reset_ms: 334, retry_after_ms: 0 }
        );
        let empty = State::Bucket { debt: 3000 };
        assert_eq!(
            empty.verdict(&check, false),
            Verdict { admitted: false, remaining: 0, reset_ms: 1000, retry_after_ms: 334 }
        );
        // 333 ms later a third of a millisecond is missing; one more and there is room.
        assert!(!State::Bucket { debt: 3000 - 333 * 3 }.admits(&check));
        assert!(State::Bucket { debt: 3000 - 334 * 3 }.admits(&check));
    }

    #[test]
    fn the_largest_numbers_overflow_nothing() {
        for algorithm in [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::FixedWindow]
        {
            let month = 31 * 24 * 3_600_000;
            let check = check(algorithm, 1_000_000_000, month, 1_000_000_000);
            let states = [
                State::Bucket { debt: capacity(&check) },
                State::Fixed { count: u64::MAX, elapsed_ms: month - 1 },
                State::Sliding { current: u64::MAX, previous: u64::MAX, elapsed_ms: 0 },
                State::Log { count: u64::MAX, reset_ms: month, retry_ms: month },
            ];
            for state in states {
                let verdict = state.verdict(&check, true);
                assert!(!verdict.admitted && verdict.remaining == 0, "{state:?}: {verdict:?}");
            }
        }
    }

    #[test]
    fn what_never_fits_is_refused_and_told_to_wait_for_a_window() {
        let mut check = check(Algorithm::TokenBucket, 10, 60_000, 11);
        let states = [
            State::Bucket { debt: 0 },
            State::Fixed { count: 0, elapsed_ms: 10 },
            State::Sliding { current: 0, previous: 0, elapsed_ms: 10 },
            State::Log { count: 0, reset_ms: 0, retry_ms: 0 },
        ];
        for state in states {
            let verdict = state.verdict(&check, false);
            assert_eq!((verdict.admitted, verdict.retry_after_ms), (false, 60_000), "{state:?}");
        }
        check.cost = 10;
        assert!(states.iter().all(|state| state.admits(&check)));
    }

    /// Going forward by what was told, and no less, is enough: found by trying.
    #[test]
    fn a_sliding_window_says_exactly_when_there_is_room_again() {
        let window_ms = 100;
        for limit in [1, 2, 7] {
            for (current, previous) in [(0, 7), (1, 3), (2, 2), (7, 0), (7, 7), (3, 70)] {
                for elapsed_ms in [0, 1, 50, 99] {
                    let check = check(Algorithm::SlidingWindow, limit, window_ms, 1);
                    let now = State::Sliding { current, previous, elapsed_ms };
                    let after = |ms: u64| {
                        let at = elapsed_ms + ms;
                        match at / window_ms {
                            0 => State::Sliding { current, previous, elapsed_ms: at },
                            1 => State::Sliding {
                                current: 0,
                                previous: current,
                                elapsed_ms: at - window_ms,
                            },
                            _ => State::Sliding { current: 0, previous: 0, elapsed_ms: 0 },
                        }
                    };
                    let first = (0..).find(|ms| after(*ms).admits(&check)).unwrap();
                    assert_eq!(now.verdict(&check, false).retry_after_ms, first, "{now:?} {limit}");
                }
            }
        }
    }
}
