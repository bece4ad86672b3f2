//! What each algorithm promises, over random sequences: seeds are printed with a failure.

use super::*;
use crate::policy::testing::exchange;

const ALL: [Algorithm; 5] = [
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket,
    Algorithm::FixedWindow,
    Algorithm::SlidingWindow,
    Algorithm::SlidingLog,
];

/// A multiple of all windows that are used here.
const START: u64 = 1_700_000_000_000 / 60_000 * 60_000;

struct Limit {
    key: LimitKey,
    counts: Counts,
    numbers: Numbers,
    ex: Exchange<'static>,
}

impl Limit {
    fn new(algorithm: Algorithm, limit: u64, burst: u64, window_ms: u64) -> Self {
        let key = LimitKey::compile("key", &[]).unwrap();
        let ticks = bucket::ticks(window_ms, [limit].into_iter());
        let counts = Counts::new(algorithm, &key);
        let numbers = Numbers::new(limit, burst, window_ms, ticks);
        Limit { key, counts, numbers, ex: exchange("GET", "http://a.example/", &[]) }
    }

    fn take(&mut self, ms: u64, cost: u64) -> (Verdict, Charge<'_>) {
        self.ex.now_ms = START + ms;
        self.counts.take(&self.key, &self.ex, &self.numbers, cost)
    }

    fn admits(&mut self, ms: u64, cost: u64) -> bool {
        self.take(ms, cost).0.admitted
    }
}

/// The most cost that was let through in any span of `window` milliseconds.
fn most_in_a_span(admitted: &[(u64, u64)], window: u64) -> u64 {
    let inside = |from: u64| {
        let entries = admitted.iter().filter(|(at, _)| (from..from + window).contains(at));
        entries.map(|(_, cost)| cost).sum()
    };
    admitted.iter().map(|(from, _)| inside(*from)).max().unwrap_or_default()
}

/// Requests at random times, some in bursts; what was let through, with the time.
fn played(limit: &mut Limit, random: &mut fastrand::Rng, requests: usize) -> Vec<(u64, u64)> {
    let (mut ms, mut admitted) = (random.u64(0..60_000), Vec::new());
    for _ in 0..requests {
        ms += if random.bool() { 0 } else { random.u64(0..limit.numbers.window_ms / 4) };
        let cost = random.u64(1..=3.min(limit.numbers.burst));
        if limit.admits(ms, cost) {
            admitted.push((ms, cost));
        }
    }
    admitted
}

#[test]
fn no_algorithm_lets_more_through_than_it_promises() {
    for algorithm in ALL {
        for _ in 0..40 {
            let seed = fastrand::u64(..);
            let mut random = fastrand::Rng::with_seed(seed);
            let (requests, burst) = (random.u64(1..40), random.u64(1..40));
            let window = 1000 * random.u64(1..4);
            let mut limit = Limit::new(algorithm, requests, burst.min(requests), window);
            let admitted = played(&mut limit, &mut random, 300);
            let most = most_in_a_span(&admitted, window);
            let bound = match algorithm {
                // A span that begins with a full bucket; a token more because it is half open.
                Algorithm::TokenBucket | Algorithm::LeakyBucket => requests + limit.numbers.burst,
                // All of one window at its end, and all of the next.
                Algorithm::FixedWindow | Algorithm::SlidingWindow => 2 * requests,
                Algorithm::SlidingLog => requests,
            };
            assert!(most <= bound, "{algorithm:?}, seed {seed}: {most} of {bound} in {window} ms");
        }
    }
}

#[test]
fn a_fixed_window_holds_no_more_than_its_limit() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut limit = Limit::new(Algorithm::FixedWindow, 20, 20, 1000);
    let admitted = played(&mut limit, &mut random, 2000);
    let mut windows = std::collections::BTreeMap::<u64, u64>::new();
    for (ms, cost) in admitted {
        *windows.entry(ms / 1000).or_default() += cost;
    }
    assert!(windows.values().all(|cost| *cost <= 20), "seed {seed}: {windows:?}");
}

#[test]
fn under_load_the_limit_is_what_comes_through() {
    for algorithm in ALL {
        let mut limit = Limit::new(algorithm, 50, 1, 1000);
        let admitted = (0..60_000).step_by(5).filter(|ms| limit.admits(*ms, 1)).count() as u64;
        let expected = 50 * 60;
        let off = admitted.abs_diff(expected);
        // A sliding window estimates: it is off by what came unevenly.
        let may = if algorithm == Algorithm::SlidingWindow { expected / 20 } else { 50 };
        assert!(off <= may, "{algorithm:?}: {admitted} of {expected}");
    }
}

#[test]
fn who_waits_as_long_as_told_is_let_through() {
    for algorithm in ALL {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut limit = Limit::new(algorithm, 7, 7, 3000);
        let mut ms = 0;
        for _ in 0..500 {
            ms += random.u64(0..500);
            let cost = random.u64(1..4);
            let (verdict, _) = limit.take(ms, cost);
            if !verdict.admitted {
                assert!(verdict.retry_after_ms > 0);
                assert!(!limit.admits(ms + verdict.retry_after_ms - 1, cost), "seed {seed}: late");
                ms += verdict.retry_after_ms;
                assert!(limit.admits(ms, cost), "{algorithm:?}, seed {seed}: early");
            }
        }
    }
}

#[test]
fn what_is_given_back_was_never_taken() {
    for algorithm in ALL {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut limit = Limit::new(algorithm, 10, 10, 1000);
        let mut ms = 0;
        for _ in 0..300 {
            ms += random.u64(0..300);
            let before = limit.take(ms, 0).0;
            let (verdict, charge) = limit.take(ms, random.u64(1..4));
            if !verdict.admitted || random.bool() {
                charge.give_back();
                assert_eq!(limit.take(ms, 0).0, before, "{algorithm:?}, seed {seed}");
            }
        }
    }
}

#[test]
fn a_request_that_costs_more_than_all_is_never_let_through() {
    for algorithm in ALL {
        let mut limit = Limit::new(algorithm, 5, 5, 1000);
        let verdict = limit.take(0, 6).0;
        assert_eq!((verdict.admitted, verdict.remaining), (false, 5), "{algorithm:?}");
        assert!(limit.admits(0, 5));
    }
}

#[test]
fn keys_are_counted_apart_and_all_together_where_the_key_is_all() {
    for algorithm in ALL {
        let mut limit = Limit::new(algorithm, 1, 1, 1000);
        assert!(limit.admits(0, 1) && !limit.admits(0, 1));
        limit.ex.client.ip = [192, 0, 2, 99].into();
        assert!(limit.admits(0, 1));
        let all = crate::policy::limit_key::Part {
            r#type: crate::policy::limit_key::PartType::All,
            name: None,
        };
        limit.key = LimitKey::compile("key", &[all]).unwrap();
        limit.counts = Counts::new(algorithm, &limit.key);
        assert!(limit.admits(0, 1));
        limit.ex.client.ip = [192, 0, 2, 98].into();
        assert!(!limit.admits(0, 1), "{algorithm:?}");
    }
}
