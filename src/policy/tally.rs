//! Counts that policies keep, for the process or for each limit, by a few labels that are known
//! beforehand.
//!
//! Threads count in places of their own, so that no two workers write to one line of a cache.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Places that threads count in; with more threads some share one. Each limit has as many, of
/// 128 bytes.
const PLACES: usize = 16;

/// `N` counts.
#[derive(Debug)]
pub struct Tally<const N: usize>([Place<N>; PLACES]);

/// As far from others as processors fetch at once.
#[derive(Debug)]
#[repr(align(128))]
struct Place<const N: usize>([AtomicU64; N]);

impl<const N: usize> Tally<N> {
    pub const fn new() -> Self {
        Tally([const { Place([const { AtomicU64::new(0) }; N]) }; PLACES])
    }

    /// Adds one to the count of that number; `number` is below `N`.
    pub fn count(&self, number: usize) {
        self.0[place()].0[number].fetch_add(1, Relaxed);
    }

    pub fn total(&self, number: usize) -> u64 {
        self.0.iter().map(|place| place.0[number].load(Relaxed)).sum()
    }
}

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Tally::new()
    }
}

/// This thread's own.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: usize = NEXT.fetch_add(1, Relaxed) % PLACES);
    MINE.with(|place| *place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_is_added_up() {
        let tally = Tally::<2>::new();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| tally.count(1));
            }
        });
        assert_eq!((tally.total(0), tally.total(1)), (0, 40));
    }
}
