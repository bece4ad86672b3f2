//! Keeps a store that does not answer off the request path, for all workers at once.
//!
//! The circuit has a number, its epoch. A connection that was proven in the current epoch may be
//! used; when too many questions stay without an answer, the epoch ends, and each worker proves
//! its connections again, in the background, before it uses them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Questions without an answer that end the epoch, within [`SPAN_MS`].
const MISSES: u64 = 5;
const SPAN_MS: u64 = 1000;

#[derive(Debug)]
pub struct Circuit {
    epoch: AtomicU64,
    /// When counting began (milliseconds since `start`), and how many misses more than answers
    /// there were since: the lowest 8 bits.
    misses: AtomicU64,
    start: Instant,
}

impl Circuit {
    pub fn new() -> Self {
        Circuit { epoch: AtomicU64::new(1), misses: AtomicU64::new(0), start: Instant::now() }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// There was an answer: it makes up for one that failed to come.
    pub fn answered(&self) {
        let misses = self.misses.load(Relaxed);
        if misses & 0xff != 0 {
            // Whoever comes in between counts, and this one does not: it is an estimate.
            let _ = self.misses.compare_exchange(misses, misses - 1, Relaxed, Relaxed);
        }
    }

    /// There was no answer in time. Whether that ended the epoch.
    pub fn missed(&self) -> bool {
        self.missed_at(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn missed_at(&self, now_ms: u64) -> bool {
        let next = |misses: u64| {
            let (since, count) = (misses >> 8, misses & 0xff);
            if count == 0 || now_ms.saturating_sub(since) >= SPAN_MS {
                (now_ms << 8) | 1
            } else if count + 1 >= MISSES {
                0
            } else {
                misses + 1
            }
        };
        let update = self.misses.fetch_update(Relaxed, Relaxed, |misses| Some(next(misses)));
        let has_ended = update.is_ok_and(|before| next(before) == 0);
        if has_ended {
            self.epoch.fetch_add(1, Relaxed);
        }
        has_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_misses_within_a_second_end_the_epoch() {
        let circuit = Circuit::new();
        let missed: Vec<bool> = (0..10).map(|n| circuit.missed_at(n * 100)).collect();
        assert_eq!(missed.iter().position(|ended| *ended), Some(4));
        assert_eq!(circuit.epoch(), 3, "and five more the next");
    }

    #[test]
    fn misses_that_are_far_apart_do_not() {
        let circuit = Circuit::new();
        assert!((1..100).all(|n| !circuit.missed_at(n * 300)));
        assert_eq!(circuit.epoch(), 1);
    }

    #[test]
    fn an_answer_makes_up_for_a_miss() {
        let circuit = Circuit::new();
        for _ in 0..100 {
            assert!(!circuit.missed_at(5));
            circuit.answered();
        }
        assert!((0..4).all(|_| !circuit.missed_at(5)));
        assert!(circuit.missed_at(5));
    }
}
