//! How much of a backend's load may be retries (GEP-3388): the user's bounds are
//! [`RetryBudget`], and what has happened lately is counted here, by all workers together.
//!
//! The counts live with a backend's endpoints, so they outlive graphs. Time comes from outside.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::RetryBudget;

/// The interval is counted in so many parts: the oldest one falls out at a time.
const SLOTS: u64 = 10;

/// Requests and retries of one backend.
#[derive(Debug, Default)]
pub struct RetryCounts {
    slots: [Slot; SLOTS as usize],
    /// Retries of the running interval of the minimum rate.
    recent: Slot,
}

#[derive(Debug, Default)]
struct Slot {
    /// The number of the part of time that is counted; 0: none yet.
    part: AtomicU64,
    requests: AtomicU32,
    retries: AtomicU32,
}

impl Slot {
    /// Begins anew if another part of time has come. Two workers that meet here may lose a
    /// count, which harms nobody.
    fn at(&self, part: u64) -> &Self {
        let seen = self.part.load(Relaxed);
        if seen != part && self.part.compare_exchange(seen, part, Relaxed, Relaxed).is_ok() {
            self.requests.store(0, Relaxed);
            self.retries.store(0, Relaxed);
        }
        self
    }
}

impl RetryCounts {
    /// Counts a client's request.
    pub fn request(&self, budget: &RetryBudget, now_ms: u64) {
        self.slot(budget, now_ms).requests.fetch_add(1, Relaxed);
    }

    /// Counts a retry, if the budget has room for one more.
    pub fn retry(&self, budget: &RetryBudget, now_ms: u64) -> bool {
        let (requests, retries) = self.sum(budget, now_ms);
        let all = u64::from(requests) + u64::from(retries) + 1;
        let in_budget = (u64::from(retries) + 1) * 100 <= u64::from(budget.percent) * all;
        let (least, time) = budget.min_rate;
        let recent = self.recent.at(now_ms / millis(time) + 1);
        let in_rate = recent.retries.load(Relaxed) < least;
        if in_budget || in_rate {
            recent.retries.fetch_add(1, Relaxed);
            self.slot(budget, now_ms).retries.fetch_add(1, Relaxed);
        }
        in_budget || in_rate
    }

    fn slot(&self, budget: &RetryBudget, now_ms: u64) -> &Slot {
        let part = part(budget, now_ms);
        self.slots[usize::try_from(part % SLOTS).unwrap_or_default()].at(part)
    }

    fn sum(&self, budget: &RetryBudget, now_ms: u64) -> (u32, u32) {
        let now = part(budget, now_ms);
        let fresh = |slot: &&Slot| {
            let part = slot.part.load(Relaxed);
            part <= now && part + SLOTS > now
        };
        self.slots.iter().filter(fresh).fold((0, 0), |(requests, retries), slot| {
            (requests + slot.requests.load(Relaxed), retries + slot.retries.load(Relaxed))
        })
    }
}

/// The number of the part of the interval that `now_ms` lies in, from 1.
fn part(budget: &RetryBudget, now_ms: u64) -> u64 {
    now_ms / (millis(budget.interval) / SLOTS).max(1) + 1
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn budget(percent: u32, least: u32) -> RetryBudget {
        let interval = Duration::from_secs(10);
        RetryBudget { percent, interval, min_rate: (least, Duration::from_secs(1)) }
    }

    fn retries(counts: &RetryCounts, budget: &RetryBudget, now_ms: u64) -> usize {
        (0..1000).take_while(|_| counts.retry(budget, now_ms)).count()
    }

    #[test]
    fn retries_are_a_share_of_all_requests_of_the_interval() {
        let (counts, budget) = (RetryCounts::default(), budget(20, 0));
        for ms in 0..80 {
            counts.request(&budget, NOW + ms * 100);
        }
        assert_eq!(retries(&counts, &budget, NOW + 8000), 20, "20 of 100");
        assert_eq!(retries(&counts, &budget, NOW + 9000), 0);
        assert_eq!(retries(&counts, &budget, NOW + 60_000), 0, "no requests, no retries");
    }

    #[test]
    fn some_retries_are_always_allowed() {
        let (counts, budget) = (RetryCounts::default(), budget(0, 3));
        assert_eq!(retries(&counts, &budget, NOW), 3);
        assert_eq!(retries(&counts, &budget, NOW + 999), 0);
        assert_eq!(retries(&counts, &budget, NOW + 1000), 3);
    }

    #[test]
    fn a_budget_of_all_requests_is_never_spent() {
        assert_eq!(retries(&RetryCounts::default(), &budget(100, 0), NOW), 1000);
    }
}
