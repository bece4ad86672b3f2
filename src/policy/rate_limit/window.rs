//! Fixed windows, and sliding ones that estimate from two fixed windows.
//!
//! The count of a window is one atomic word: the window's number and the cost that was let
//! through in it. A sliding window has two such words, which take turns: what was counted in the
//! window before does not change any more, so that counting is one compare-and-swap here, too.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::numbers::Numbers;
use super::table::Words;
use crate::services::store::Verdict;

/// A word: the window's number, and the cost in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    window: u32,
    cost: u32,
}

impl Count {
    fn of(word: u64) -> Self {
        Count { window: (word >> 32) as u32, cost: word as u32 }
    }

    fn word(self) -> u64 {
        u64::from(self.window) << 32 | u64::from(self.cost)
    }

    /// What it counts for in this window.
    fn within(self, window: u32) -> u64 {
        if self.window == window { self.cost.into() } else { 0 }
    }
}

/// A moment: the window it is in, and how many milliseconds of it are over.
#[derive(Clone, Copy, Debug)]
struct Moment {
    window: u32,
    elapsed: u64,
}

impl Moment {
    /// Windows of a second have numbers of 32 bits until the year 2106.
    fn of(now_ms: u64, window_ms: u64) -> Self {
        let window = u32::try_from(now_ms / window_ms).unwrap_or(u32::MAX);
        Moment { window, elapsed: now_ms % window_ms }
    }

    /// The clock of a count never goes back: if it is in the next window already, so are we.
    fn not_before(self, seen: u32) -> Self {
        if seen == self.window.wrapping_add(1) { Moment { window: seen, elapsed: 0 } } else { self }
    }
}

/// Charges `cost` to the fixed window of `now_ms`, if there is room; 0 only looks.
pub fn take_fixed(word: &AtomicU64, numbers: &Numbers, cost: u64, now_ms: u64) -> (Verdict, u32) {
    let mut before = word.load(Relaxed);
    loop {
        let count = Count::of(before);
        let at = Moment::of(now_ms, numbers.window_ms).not_before(count.window);
        let used = carried(count, at.window);
        let left = numbers.limit.saturating_sub(used);
        let rest = numbers.window_ms - at.elapsed;
        let verdict = |remaining, used| Verdict {
            admitted: true,
            remaining,
            reset_ms: if used > 0 { rest } else { 0 },
            retry_after_ms: 0,
        };
        if cost > left {
            let retry_after_ms = if cost > numbers.limit { numbers.window_ms } else { rest };
            return (Verdict { admitted: false, retry_after_ms, ..verdict(left, used) }, 0);
        }
        if cost == 0 {
            return (verdict(left, used), 0);
        }
        match exchange(word, before, at.window, used + cost) {
            Ok(window) => return (verdict(left - cost, used + cost), window),
            Err(current) => before = current,
        }
    }
}

/// Of a window that is more than one ahead the clock was set back: its count stays.
fn carried(count: Count, window: u32) -> u64 {
    if count.window > window { count.cost.into() } else { count.within(window) }
}

/// Charges `cost` to the sliding window that ends at `now_ms`, if there is room; 0 only looks.
pub fn take_sliding(words: &Words<2>, numbers: &Numbers, cost: u64, now_ms: u64) -> (Verdict, u32) {
    let first = Moment::of(now_ms, numbers.window_ms);
    loop {
        let after = Count::of(words[side(first.window.wrapping_add(1))].load(Relaxed));
        let at = first.not_before(after.window);
        let word = &words[side(at.window)];
        let before = word.load(Relaxed);
        let earlier = Count::of(words[side(at.window.wrapping_sub(1))].load(Relaxed));
        let slide = Slide {
            previous: carried(earlier, at.window.wrapping_sub(1)),
            current: carried(Count::of(before), at.window),
            elapsed: at.elapsed,
            window_ms: numbers.window_ms,
        };
        if slide.used() + cost > numbers.limit {
            let retry_after_ms = slide.retry_after(numbers.limit, cost);
            let verdict = slide.verdict(numbers.limit);
            return (Verdict { admitted: false, retry_after_ms, ..verdict }, 0);
        }
        if cost == 0 {
            return (slide.verdict(numbers.limit), 0);
        }
        let current = slide.current + cost;
        if let Ok(window) = exchange(word, before, at.window, current) {
            return (Slide { current, ..slide }.verdict(numbers.limit), window);
        }
    }
}

/// Which of two words a window has.
fn side(window: u32) -> usize {
    (window & 1) as usize
}

/// Gives back what was charged to `window`, unless it is over.
pub fn give_back(word: &AtomicU64, window: u32, cost: u64) {
    let less = |word: u64| {
        let count = Count::of(word);
        let cost = count.within(window).checked_sub(cost)?;
        Some(Count { window, cost: cost as u32 }.word())
    };
    // A window that is over needs nothing back.
    let _ = word.fetch_update(Relaxed, Relaxed, less);
}

/// Gives back what was charged to one of two words.
pub fn give_back_sliding(words: &Words<2>, window: u32, cost: u64) {
    give_back(&words[side(window)], window, cost);
}

/// What a fixed window's count weighs: nothing once it is over.
pub fn weight(word: &AtomicU64, numbers: &Numbers, now_ms: u64) -> u64 {
    let now = Moment::of(now_ms, numbers.window_ms).window;
    let count = Count::of(word.load(Relaxed));
    if count.window >= now { count.cost.into() } else { 0 }
}

/// The same for two words: the window before counts still.
pub fn weight_sliding(words: &Words<2>, numbers: &Numbers, now_ms: u64) -> u64 {
    let now = Moment::of(now_ms, numbers.window_ms).window;
    let counts = words.iter().map(|word| Count::of(word.load(Relaxed)));
    counts.filter(|count| count.window.saturating_add(1) >= now).map(|c| u64::from(c.cost)).sum()
}

/// Relaxed: the word is all there is, nothing else is published by it.
fn exchange(word: &AtomicU64, before: u64, window: u32, cost: u64) -> Result<u32, u64> {
    // Limits are at most 10^9, and what is counted never exceeds them.
    let cost = u32::try_from(cost).unwrap_or(u32::MAX);
    let after = Count { window, cost }.word();
    word.compare_exchange_weak(before, after, Relaxed, Relaxed).map(|_| window)
}

/// Two counts at a moment.
#[derive(Clone, Copy, Debug)]
struct Slide {
    previous: u64,
    current: u64,
    elapsed: u64,
    window_ms: u64,
}

impl Slide {
    /// Cost in the window that ends now, as it is estimated: rounded down. Costs have 30 bits and
    /// windows 32, so that nothing overflows.
    fn used(self) -> u64 {
        self.previous * (self.window_ms - self.elapsed) / self.window_ms + self.current
    }

    fn verdict(self, limit: u64) -> Verdict {
        let rest = self.window_ms - self.elapsed;
        let reset_ms = match (self.current, self.previous) {
            (0, 0) => 0,
            (0, _) => rest,
            _ => rest + self.window_ms,
        };
        let remaining = limit.saturating_sub(self.used());
        Verdict { admitted: true, remaining, reset_ms, retry_after_ms: 0 }
    }

    /// Milliseconds until there is room for `cost`: in this window, or in the next one.
    fn retry_after(self, limit: u64, cost: u64) -> u64 {
        if cost > limit {
            return self.window_ms;
        }
        if let Some(room) = limit.checked_sub(self.current + cost) {
            let then = self.elapsed_when(self.previous, room);
            if then < self.window_ms {
                return then.saturating_sub(self.elapsed);
            }
        }
        let rest = self.window_ms - self.elapsed;
        rest + self.elapsed_when(self.current, limit - cost)
    }

    /// How much of a window is over when no more than `room` reaches into it of `count` from the
    /// one before.
    fn elapsed_when(self, count: u64, room: u64) -> u64 {
        if count <= room {
            return 0;
        }
        // Rounded down, it is still `room` just before one more would fit.
        self.window_ms - ((room + 1) * self.window_ms).div_ceil(count) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A multiple of all windows that are used here.
    const START: u64 = 1_700_000_000_000 / 3_600_000 * 3_600_000;

    fn numbers(limit: u64, window_ms: u64) -> Numbers {
        Numbers::new(limit, limit, window_ms, 1)
    }

    fn fixed(word: &AtomicU64, numbers: &Numbers, ms: u64) -> Verdict {
        take_fixed(word, numbers, 1, START + ms).0
    }

    fn sliding(words: &Words<2>, numbers: &Numbers, ms: u64) -> Verdict {
        take_sliding(words, numbers, 1, START + ms).0
    }

    #[test]
    fn a_fixed_window_begins_at_a_multiple_of_its_length() {
        let (word, numbers) = (AtomicU64::new(0), numbers(2, 60_000));
        let first = fixed(&word, &numbers, 59_000);
        assert_eq!((first.admitted, first.remaining, first.reset_ms), (true, 1, 1000));
        assert!(fixed(&word, &numbers, 59_500).admitted);
        let third = fixed(&word, &numbers, 59_900);
        assert_eq!((third.admitted, third.retry_after_ms, third.reset_ms), (false, 100, 100));
        assert_eq!(fixed(&word, &numbers, 60_000).remaining, 1);
    }

    #[test]
    fn a_fixed_window_gives_back_what_it_has_and_nothing_of_one_that_is_over() {
        let (word, numbers) = (AtomicU64::new(0), numbers(5, 60_000));
        let (_, window) = take_fixed(&word, &numbers, 3, START);
        give_back(&word, window, 3);
        assert_eq!(take_fixed(&word, &numbers, 0, START).0.remaining, 5);
        let (_, window) = take_fixed(&word, &numbers, 3, START);
        take_fixed(&word, &numbers, 4, START + 60_000);
        give_back(&word, window, 3);
        assert_eq!(take_fixed(&word, &numbers, 0, START + 60_000).0.remaining, 1);
    }

    #[test]
    fn a_worker_whose_clock_is_a_little_behind_counts_in_the_next_window() {
        let (word, words) = (AtomicU64::new(0), Words::<2>::default());
        let numbers = numbers(2, 1000);
        for ms in [1000, 999] {
            assert!(fixed(&word, &numbers, ms).admitted);
            assert!(sliding(&words, &numbers, ms).admitted);
        }
        assert!(!fixed(&word, &numbers, 1001).admitted);
        assert!(!sliding(&words, &numbers, 1001).admitted);
    }

    #[test]
    fn a_clock_that_was_set_back_frees_nothing() {
        let (word, numbers) = (AtomicU64::new(0), numbers(1, 1000));
        assert!(fixed(&word, &numbers, 50_000).admitted);
        assert!(!fixed(&word, &numbers, 0).admitted);
        for ahead in [50_000, 51_000] {
            let words = Words::<2>::default();
            assert!(sliding(&words, &numbers, ahead).admitted);
            assert!(!sliding(&words, &numbers, 0).admitted, "{ahead}");
        }
    }

    #[test]
    fn a_sliding_window_weighs_the_one_before_by_what_is_left_of_it() {
        let (words, numbers) = (Words::<2>::default(), numbers(10, 1000));
        assert_eq!((0..20).filter(|_| sliding(&words, &numbers, 900).admitted).count(), 10);
        // 10 · 750 / 1000 = 7, so three more.
        let admitted = (0..20).filter(|_| sliding(&words, &numbers, 1250).admitted).count();
        assert_eq!(admitted, 3);
        let refused = sliding(&words, &numbers, 1250);
        assert_eq!((refused.remaining, refused.reset_ms), (0, 1750));
        // 10 · 699 / 1000 is less than 7 for the first time.
        assert_eq!(refused.retry_after_ms, 51);
        assert!(!sliding(&words, &numbers, 1300).admitted);
        assert!(sliding(&words, &numbers, 1301).admitted);
    }

    #[test]
    fn a_refusal_says_the_first_moment_at_which_there_is_room() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..500 {
            let numbers = numbers(random.u64(1..30), 1000 * random.u64(1..4));
            let words = Words::<2>::default();
            let mut ms = random.u64(0..5000);
            for _ in 0..60 {
                ms += random.u64(0..300);
                let cost = random.u64(1..=numbers.limit.min(4));
                let at = |ms| slide(&words, &numbers, START + ms);
                let (verdict, _) = take_sliding(&words, &numbers, cost, START + ms);
                let wait = verdict.retry_after_ms;
                let fits = |ms| at(ms).used() + cost <= numbers.limit;
                assert!(verdict.admitted || fits(ms + wait), "seed {seed}: too early by {wait}");
                assert!(verdict.admitted || !fits(ms + wait - 1), "seed {seed}: too late");
            }
        }
    }

    fn slide(words: &Words<2>, numbers: &Numbers, now_ms: u64) -> Slide {
        let at = Moment::of(now_ms, numbers.window_ms);
        let count = |window: u32| Count::of(words[side(window)].load(Relaxed)).within(window);
        Slide {
            previous: count(at.window - 1),
            current: count(at.window),
            elapsed: at.elapsed,
            window_ms: numbers.window_ms,
        }
    }

    #[test]
    fn threads_together_get_no_more_than_the_limit() {
        let (words, numbers) = (Words::<2>::default(), numbers(100, 60_000));
        let sum: usize = std::thread::scope(|scope| {
            let count = || (0..100).filter(|_| sliding(&words, &numbers, 5).admitted).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(sum, 100);
    }
}
