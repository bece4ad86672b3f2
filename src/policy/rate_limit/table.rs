//! A word for each client, in a table of bounded size without locks.
//!
//! Three levels, each eight times the one before and made when that has no room: a limit that
//! few clients meet costs 16 KiB, one that very many meet 1.2 MiB. In each level a key has the
//! choice of one set of eight slots. A slot whose bucket is full again says nothing that a new
//! one would not, so it is free for the next key.
//!
//! Bounds of the error: when all slots that a key could have are in use in all levels (at about
//! 65,000 clients with buckets that are not full), the bucket that is nearest to full is
//! forgotten, so its client may have up to one burst more. Two requests of one key that both
//! find it new may take two slots, and a slot may change hands between being found and being
//! counted in: each such race lets one request more through, or counts one against another key.
//! Keys of equal 64-bit hashes share a bucket.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Slots that a key may have in a level: two cache lines.
const WAYS: usize = 8;
/// Slots of each level.
const LEVELS: [usize; 3] = [1 << 10, 1 << 13, 1 << 16];

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Table {
    levels: [OnceLock<Box<[Slot]>>; LEVELS.len()],
}

#[derive(Debug, Default)]
struct Slot {
    /// The hash of the key; 0 for none.
    key: AtomicU64,
    /// When the key's bucket is full, in nanoseconds: see `bucket`.
    full_at: AtomicU64,
}

impl Table {
    /// The word of `key`, a well mixed hash.
    pub fn place(&self, key: u64, now: u64) -> &AtomicU64 {
        let key = key.max(1);
        let sets = (0..LEVELS.len()).map_while(|level| self.set(level, key));
        for set in sets {
            if let Some(slot) = set.iter().find(|slot| slot.key.load(Relaxed) == key) {
                return &slot.full_at;
            }
        }
        let last = LEVELS.len() - 1;
        (0..last)
            .find_map(|level| claim(self.made(level, key), key, now))
            .unwrap_or_else(|| displace(self.made(last, key), key, now))
    }

    fn set(&self, level: usize, key: u64) -> Option<&[Slot]> {
        Some(set_of(self.levels[level].get()?, key))
    }

    fn made(&self, level: usize, key: u64) -> &[Slot] {
        let make = || (0..LEVELS[level]).map(|_| Slot::default()).collect();
        set_of(self.levels[level].get_or_init(make), key)
    }
}

fn set_of(slots: &[Slot], key: u64) -> &[Slot] {
    // Masked to fewer bits than usize has on any machine that we run on.
    let set = (key & (slots.len() / WAYS - 1) as u64) as usize;
    &slots[set * WAYS..(set + 1) * WAYS]
}

/// Takes a slot that is free: never used, or its bucket is full again.
fn claim(set: &[Slot], key: u64, now: u64) -> Option<&AtomicU64> {
    set.iter().find_map(|slot| {
        let other = slot.key.load(Relaxed);
        if slot.full_at.load(Relaxed) > now {
            return None;
        }
        match slot.key.compare_exchange(other, key, Relaxed, Relaxed) {
            Ok(_) => Some(&slot.full_at),
            // Another request of the same client was first.
            Err(taken) => (taken == key).then_some(&slot.full_at),
        }
    })
}

/// Takes a free slot, or the one that is nearest to a full bucket.
fn displace(set: &[Slot], key: u64, now: u64) -> &AtomicU64 {
    if let Some(free) = claim(set, key, now) {
        return free;
    }
    let nearest = set.iter().min_by_key(|slot| slot.full_at.load(Relaxed));
    let slot = nearest.expect("a set has slots");
    // Filled first, so that nobody is refused for what the one before did.
    slot.full_at.store(now, Relaxed);
    slot.key.store(key, Relaxed);
    &slot.full_at
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    /// Hashes of one set in every level: they differ only above the bits that choose it.
    fn rivals() -> impl Iterator<Item = u64> {
        (1..).map(|n| n << 32)
    }

    fn at(word: &AtomicU64) -> *const AtomicU64 {
        word
    }

    #[test]
    fn a_key_finds_its_own_word_again() {
        let table = Table::default();
        for key in rivals().take(20) {
            table.place(key, NOW).store(NOW + key, Relaxed);
        }
        for key in rivals().take(20) {
            assert_eq!(table.place(key, NOW).load(Relaxed), NOW + key);
        }
    }

    #[test]
    fn few_clients_need_only_the_first_level() {
        let table = Table::default();
        for key in rivals().take(WAYS) {
            table.place(key, NOW).store(NOW + 1, Relaxed);
        }
        assert!(table.levels[1].get().is_none());
        table.place(77 << 32, NOW);
        assert!(table.levels[1].get().is_some() && table.levels[2].get().is_none());
    }

    #[test]
    fn a_full_bucket_makes_room() {
        let table = Table::default();
        let words: Vec<_> = rivals().take(WAYS).map(|key| table.place(key, NOW)).collect();
        words.iter().for_each(|word| word.store(NOW + 5, Relaxed));
        words[3].store(NOW, Relaxed);
        assert_eq!(at(table.place(77 << 32, NOW)), at(words[3]));
        assert!(table.levels[1].get().is_none());
    }

    #[test]
    fn in_a_crowd_the_bucket_nearest_to_full_is_forgotten() {
        let table = Table::default();
        let all: Vec<_> = rivals().take(WAYS * LEVELS.len()).collect();
        for (n, key) in (1..).zip(&all) {
            table.place(*key, NOW).store(NOW + 100 + n, Relaxed);
        }
        assert_eq!(table.place(77 << 32, NOW).load(Relaxed), NOW);
        // The first of the last level was nearest; the others are as they were.
        let first = table.place(all[0], NOW).load(Relaxed);
        assert_eq!(first, NOW + 101);
        let kept = table.place(all[WAYS * 2 + 1], NOW).load(Relaxed);
        assert_eq!(kept, NOW + 100 + 18);
    }
}
