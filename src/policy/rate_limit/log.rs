//! Sliding logs: every request that was let through is remembered for as long as it counts.
//!
//! An entry is the time and the sum of all costs up to there, so that a span of time is the
//! difference of two entries and is found by bisection. Keys share a table of sets with a lock
//! each, as many as [`SETS`]. A lock is held for one bisection and one entry, some hundred
//! nanoseconds, and nobody sleeps while they wait for it; a limit of at most [`MOST_REQUESTS`]
//! keeps what is moved when a log grows to 80 KB. When a set is full, the log that is over soonest
//! is forgotten; when all logs together are longer than [`MOST_ENTRIES`], a log that would grow
//! joins neighbours instead: these count as long as the later one, so that never more is let
//! through, but room comes back later.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, TryLockError};

use super::numbers::Numbers;
use crate::services::store::Verdict;

/// Most requests that a log remembers.
pub const MOST_REQUESTS: u64 = 10_000;
/// Sets of keys, and keys in each.
const SETS: usize = 2048;
const WAYS: usize = 16;
/// Entries of all logs of a limit: 64 MiB.
const MOST_ENTRIES: usize = 4 << 20;
/// Entries that any log may have, however many there are in all.
const FEWEST: usize = 16;

/// The logs of one limit.
#[derive(Debug)]
pub struct Logs {
    sets: Box<[Mutex<Vec<Log>>]>,
    entries: AtomicUsize,
}

#[derive(Debug)]
struct Log {
    key: u64,
    /// In the order of time.
    entries: VecDeque<Entry>,
    /// The sum of all costs up to the first entry that counts, without it.
    gone: u64,
}

/// All costs up to `at`, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    sum: u64,
}

impl Default for Logs {
    fn default() -> Self {
        let sets = (0..SETS).map(|_| Mutex::default()).collect();
        Logs { sets, entries: AtomicUsize::new(0) }
    }
}

impl Logs {
    /// Charges `cost` to `key` at `now_ms`, if there is room; 0 only looks.
    pub fn take(&self, key: u64, numbers: &Numbers, cost: u64, now_ms: u64) -> Verdict {
        let window = numbers.window_ms;
        let mut set = self.set(key);
        let place = match set.iter().position(|log| log.key == key) {
            Some(place) => place,
            None if cost == 0 => return Log::new(key).verdict(numbers, now_ms),
            None => self.begin(&mut set, key),
        };
        let log = &mut set[place];
        log.forget(now_ms, window);
        let used = log.used();
        if used + cost > numbers.limit {
            let retry_after_ms = log.retry_after(numbers, cost, now_ms);
            let verdict = log.verdict(numbers, now_ms);
            return Verdict { admitted: false, retry_after_ms, ..verdict };
        }
        if cost > 0 {
            self.remember(log, cost, now_ms);
        }
        log.verdict(numbers, now_ms)
    }

    /// Gives back what was charged to `key` last.
    pub fn give_back(&self, key: u64, cost: u64) {
        let mut set = self.set(key);
        let Some(log) = set.iter_mut().find(|log| log.key == key) else { return };
        let end = log.end().saturating_sub(cost).max(log.gone);
        while log.entries.back().is_some_and(|last| last.sum > end) {
            let last = log.entries.pop_back().expect("there is a last one");
            let before = log.end();
            if before < end {
                log.entries.push_back(Entry { sum: end, ..last });
            }
        }
    }

    /// Nobody sleeps for a lock that is held for nanoseconds.
    fn set(&self, key: u64) -> MutexGuard<'_, Vec<Log>> {
        // Masked to fewer bits than usize has on any machine that we run on.
        let set = &self.sets[(key & (SETS - 1) as u64) as usize];
        loop {
            match set.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
    }

    /// A place for a new key: that of the log which is over soonest, if there is no other.
    fn begin(&self, set: &mut Vec<Log>, key: u64) -> usize {
        if set.len() < WAYS {
            set.push(Log::new(key));
            return set.len() - 1;
        }
        let last = |log: &Log| log.entries.back().map(|entry| entry.at);
        let place = (0..set.len()).min_by_key(|n| last(&set[*n])).unwrap_or_default();
        let before = std::mem::replace(&mut set[place], Log::new(key));
        self.entries.fetch_sub(before.entries.capacity(), Relaxed);
        place
    }

    fn remember(&self, log: &mut Log, cost: u64, now_ms: u64) {
        let sum = log.end() + cost;
        let entries = &mut log.entries;
        if let Some(last) = entries.back_mut().filter(|last| last.at >= now_ms) {
            last.sum = sum;
            return;
        }
        let before = entries.capacity();
        if entries.len() == before {
            let is_short = self.entries.load(Relaxed) + before > MOST_ENTRIES;
            if is_short && before >= FEWEST {
                join(entries);
            } else {
                entries.reserve_exact(before.max(FEWEST));
                self.entries.fetch_add(entries.capacity() - before, Relaxed);
            }
        }
        entries.push_back(Entry { at: now_ms, sum });
    }
}

/// Leaves out every second entry: what it stood for counts with the one after it.
fn join(entries: &mut VecDeque<Entry>) {
    let last = entries.len() - 1;
    let mut place = 0;
    entries.retain(|_| {
        place += 1;
        (place - 1) % 2 == last % 2
    });
}

impl Log {
    fn new(key: u64) -> Self {
        Log { key, entries: VecDeque::new(), gone: 0 }
    }

    fn end(&self) -> u64 {
        self.entries.back().map_or(self.gone, |last| last.sum)
    }

    fn used(&self) -> u64 {
        self.end() - self.gone
    }

    fn forget(&mut self, now_ms: u64, window_ms: u64) {
        let over = self.entries.partition_point(|entry| entry.at + window_ms <= now_ms);
        if over > 0 {
            self.gone = self.entries[over - 1].sum;
            self.entries.drain(..over);
        }
    }

    fn verdict(&self, numbers: &Numbers, now_ms: u64) -> Verdict {
        let last = self.entries.back();
        Verdict {
            admitted: true,
            remaining: numbers.limit.saturating_sub(self.used()),
            reset_ms: last.map_or(0, |last| (last.at + numbers.window_ms).saturating_sub(now_ms)),
            retry_after_ms: 0,
        }
    }

    /// When so much is over that `cost` has room.
    fn retry_after(&self, numbers: &Numbers, cost: u64, now_ms: u64) -> u64 {
        let too_much = (self.used() + cost).saturating_sub(numbers.limit);
        let gone = self.gone + too_much;
        let place = self.entries.partition_point(|entry| entry.sum < gone);
        let when = self.entries.get(place).filter(|_| cost <= numbers.limit);
        when.map_or(numbers.window_ms, |e| (e.at + numbers.window_ms).saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;

    fn numbers(limit: u64) -> Numbers {
        Numbers::new(limit, limit, 1000, 1)
    }

    fn take(logs: &Logs, limit: u64, ms: u64) -> Verdict {
        logs.take(1, &numbers(limit), 1, START + ms)
    }

    #[test]
    fn each_request_counts_for_exactly_one_window() {
        let logs = Logs::default();
        for ms in [0, 400, 400] {
            assert!(take(&logs, 3, ms).admitted);
        }
        let refused = take(&logs, 3, 500);
        assert_eq!((refused.admitted, refused.retry_after_ms, refused.reset_ms), (false, 500, 900));
        assert!(!take(&logs, 3, 999).admitted);
        assert_eq!((take(&logs, 3, 1000).admitted, take(&logs, 3, 1399).admitted), (true, false));
        assert_eq!(take(&logs, 3, 1400).remaining, 1);
    }

    #[test]
    fn a_request_waits_until_all_that_it_costs_has_room() {
        let logs = Logs::default();
        for ms in 0..5 {
            assert!(logs.take(1, &numbers(10), 2, START + ms * 100).admitted);
        }
        let refused = logs.take(1, &numbers(10), 5, START + 450);
        assert_eq!((refused.remaining, refused.retry_after_ms), (0, 750));
        assert!(!logs.take(1, &numbers(10), 5, START + 1199).admitted);
        assert!(logs.take(1, &numbers(10), 5, START + 1200).admitted);
        assert_eq!(logs.take(1, &numbers(10), 11, START + 9999).retry_after_ms, 1000);
    }

    #[test]
    fn what_is_given_back_was_never_taken() {
        let logs = Logs::default();
        for (ms, cost) in [(0, 2), (1, 3), (1, 1)] {
            assert!(logs.take(1, &numbers(10), cost, START + ms).admitted);
        }
        logs.give_back(1, 1);
        assert_eq!(logs.take(1, &numbers(10), 0, START + 1).remaining, 5);
        logs.give_back(1, 4);
        assert_eq!(logs.take(1, &numbers(10), 0, START + 1).remaining, 9);
        assert_eq!(logs.take(1, &numbers(10), 0, START + 1000).remaining, 10);
    }

    #[test]
    fn in_a_crowd_the_log_that_is_over_soonest_is_forgotten() {
        let logs = Logs::default();
        let rival = |n: u64| 1 + n * SETS as u64;
        for n in 0..=WAYS as u64 {
            assert!(logs.take(rival(n), &numbers(1), 1, START + n).admitted);
        }
        let taken = |n| !logs.take(rival(n), &numbers(1), 1, START + 20).admitted;
        assert!((1..=WAYS as u64).all(taken));
        assert!(!taken(0));
    }

    #[test]
    fn where_memory_is_short_room_comes_back_later_and_never_sooner() {
        let logs = Logs::default();
        logs.entries.store(MOST_ENTRIES, Relaxed);
        let limit = 4 * FEWEST as u64;
        let admitted = |ms: u64| take(&logs, limit, ms).admitted;
        assert_eq!((0..1000).filter(|ms| admitted(*ms)).count() as u64, limit);
        let length = logs.set(1)[0].entries.len();
        assert!(length <= FEWEST, "{length}");
        let mut times: Vec<u64> = (0..limit).collect();
        for ms in 1000..2000 {
            let inside = times.iter().filter(|at| **at + 1000 > ms).count() as u64;
            if admitted(ms) {
                assert!(inside < limit, "at {ms}");
                times.push(ms);
            }
        }
        assert!(times.len() as u64 > limit, "room comes back");
    }

    #[test]
    fn threads_together_get_no_more_than_the_limit() {
        let logs = Logs::default();
        let sum: usize = std::thread::scope(|scope| {
            let count = || (0..100).filter(|_| take(&logs, 100, 5).admitted).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(sum, 100);
    }
}
