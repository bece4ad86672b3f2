//! How many requests of each key are under way, in a table of bounded size without locks.
//!
//! A place is one word: part of the key's hash, and the count. A place whose count is 0 is free
//! for another key, and one that counts cannot be lost. Two levels, the second made when the
//! first has no room: 8 KiB, then 512 KiB. In each a key has the choice of one set of eight.
//!
//! Bounds of the error: when all places that a key could have are in use in both levels (at some
//! 60,000 keys with requests under way), its requests are let through uncounted. Two first
//! requests of one key at the same moment may take two places, if another key leaves one of them
//! just then: until they end, the key may have twice its limit. Keys whose hashes are equal in
//! 47 bits share a count.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Places that a key may have in a level: a cache line.
const WAYS: usize = 8;
/// Places of each level.
const LEVELS: [usize; 2] = [1 << 10, 1 << 16];
/// Bits of a word that count; the others are of the key.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// The greatest number that can be counted.
pub(super) const MOST: u64 = COUNT;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Slots {
    levels: [OnceLock<Box<[AtomicU64]>>; LEVELS.len()],
}

/// What became of a request for a place.
#[derive(Debug)]
pub(super) enum Taken {
    /// Counted, until it is dropped.
    Slot(Slot),
    /// There was no place to count in.
    Uncounted,
    /// As many as allowed are under way.
    Full,
}

/// One request that is counted, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    of: Arc<Slots>,
    level: usize,
    place: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(level) = self.of.levels[self.level].get() {
            // A place that counts keeps its key, so that only the count changes.
            level[self.place].fetch_sub(1, Relaxed);
        }
    }
}

impl Slots {
    /// One more request of `key`, a well mixed hash, unless `most` are under way.
    pub fn take(self: &Arc<Self>, key: u64, most: u64) -> Taken {
        let tag = key & !COUNT;
        for (level, places) in self.levels.iter().enumerate() {
            let Some(places) = places.get() else { continue };
            for place in set_of(places.len(), key) {
                if let Some(taken) = self.count(places, level, place, tag, most) {
                    return taken;
                }
            }
        }
        for (level, places) in self.levels.iter().enumerate() {
            let make = || (0..LEVELS[level]).map(|_| AtomicU64::new(0)).collect();
            let places = places.get_or_init(make);
            for place in set_of(places.len(), key) {
                let word = &places[place];
                let now = word.load(Relaxed);
                let is_free = now & COUNT == 0;
                if is_free && word.compare_exchange(now, tag | 1, Relaxed, Relaxed).is_ok() {
                    return self.slot(level, place);
                }
                // Another request of the same key may have been first.
                if let Some(taken) = self.count(places, level, place, tag, most) {
                    return taken;
                }
            }
        }
        Taken::Uncounted
    }

    /// Counts in this place, if it is the key's own.
    fn count(
        self: &Arc<Self>,
        places: &[AtomicU64],
        level: usize,
        place: usize,
        tag: u64,
        most: u64,
    ) -> Option<Taken> {
        let word = &places[place];
        let mut now = word.load(Relaxed);
        loop {
            let count = now & COUNT;
            // A place without requests is anybody's, whatever it says.
            if now & !COUNT != tag || count == 0 {
                return None;
            }
            if count >= most {
                return Some(Taken::Full);
            }
            match word.compare_exchange_weak(now, now + 1, Relaxed, Relaxed) {
                Ok(_) => return Some(self.slot(level, place)),
                Err(changed) => now = changed,
            }
        }
    }

    fn slot(self: &Arc<Self>, level: usize, place: usize) -> Taken {
        Taken::Slot(Slot { of: Arc::clone(self), level, place })
    }

    /// Requests that are under way.
    #[cfg(test)]
    pub fn under_way(&self) -> u64 {
        let words = self.levels.iter().filter_map(OnceLock::get).flatten();
        words.map(|word| word.load(Relaxed) & COUNT).sum()
    }
}

/// The places that a key may have, of so many. The set is chosen by the low bits of the hash,
/// which the word does not keep.
fn set_of(places: usize, key: u64) -> std::ops::Range<usize> {
    // Masked to fewer bits than usize has on any machine that we run on.
    let set = (key & (places / WAYS - 1) as u64) as usize;
    set * WAYS..(set + 1) * WAYS
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn take(slots: &Arc<Slots>, key: u64, most: u64) -> Option<Slot> {
        match slots.take(key, most) {
            Taken::Slot(slot) => Some(slot),
            Taken::Uncounted | Taken::Full => None,
        }
    }

    /// Hashes of one set in every level.
    fn rivals() -> impl Iterator<Item = u64> {
        (1..).map(|n| n << 32)
    }

    #[test]
    fn as_many_as_allowed_are_under_way_and_a_place_that_is_left_is_free() {
        let slots = Arc::<Slots>::default();
        let mut held: Vec<_> = (0..3).map(|_| take(&slots, 7, 3).unwrap()).collect();
        assert!(matches!(slots.take(7, 3), Taken::Full));
        assert!(take(&slots, 8 << 40, 3).is_some(), "another key");
        held.pop();
        held.push(take(&slots, 7, 3).unwrap());
        assert!(matches!(slots.take(7, 3), Taken::Full));
        drop(held);
        assert_eq!(slots.under_way(), 0);
        assert!(slots.levels[1].get().is_none(), "few keys need little room");
    }

    #[test]
    fn a_key_without_requests_gives_its_place_to_another() {
        let slots = Arc::<Slots>::default();
        for key in rivals().take(1000) {
            drop(take(&slots, key, 1).unwrap());
        }
        assert!(slots.levels[1].get().is_none());
    }

    #[test]
    fn when_there_is_no_place_requests_are_let_through_and_no_count_is_lost() {
        let slots = Arc::<Slots>::default();
        let held: Vec<_> = rivals().take(16).map(|key| take(&slots, key, 1).unwrap()).collect();
        assert!(matches!(slots.take(99 << 32, 1), Taken::Uncounted));
        for key in rivals().take(16) {
            assert!(matches!(slots.take(key, 1), Taken::Full));
        }
        drop(held);
        assert_eq!(slots.under_way(), 0);
    }

    #[test]
    fn many_threads_never_count_more_than_the_limit_of_a_key_in_use() {
        const MOST: u64 = 5;
        let slots = Arc::<Slots>::default();
        // As long as one is under way, the key's place is known.
        let first = take(&slots, 3 << 50, MOST).unwrap();
        let peak = AtomicU64::new(1);
        let now = AtomicU64::new(1);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(slot) = take(&slots, 3 << 50, MOST) {
                            peak.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                            now.fetch_sub(1, Relaxed);
                            drop(slot);
                        }
                    }
                });
            }
        });
        assert!(peak.load(Relaxed) <= MOST, "{peak:?}");
        drop(first);
        assert_eq!(slots.under_way(), 0);
    }
}
