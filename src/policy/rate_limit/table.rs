//! A word or two for each key, in a table of bounded size without locks.
//!
//! Three levels, each eight times the one before and made when that has no room: a limit that
//! few clients meet costs 16 KiB, one that very many meet 1.2 MiB. In each level a key has the
//! choice of one set of eight slots. What words weigh is the caller's to say: those that weigh
//! nothing say nothing that new ones would not, so their slot is free for the next key.
//!
//! Bounds of the error: when all slots that a key could have are in use in all levels (at about
//! 65,000 keys that are counted now), what weighs least is forgotten, so its client may have up
//! to one burst or window more. Two requests of one key that both find it new may take two slots
//! where one falls free between them, and a slot may change hands between being found and being
//! counted in: each such race lets one request more through, or counts one against another key.
//! Keys of equal 64-bit hashes are counted as one.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

/// Slots that a key may have in a level: two cache lines.
const WAYS: usize = 8;
/// Slots of each level.
const LEVELS: [usize; 3] = [1 << 10, 1 << 13, 1 << 16];

/// See the module's documentation.
#[derive(Debug)]
pub struct Table<const WORDS: usize> {
    levels: [OnceLock<Box<[Slot<WORDS>]>>; LEVELS.len()],
}

/// What is known of a key.
pub type Words<const WORDS: usize> = [AtomicU64; WORDS];

#[derive(Debug)]
struct Slot<const WORDS: usize> {
    /// The hash of the key; 0 for none.
    key: AtomicU64,
    words: Words<WORDS>,
}

impl<const WORDS: usize> Default for Table<WORDS> {
    fn default() -> Self {
        Table { levels: Default::default() }
    }
}

impl<const WORDS: usize> Default for Slot<WORDS> {
    fn default() -> Self {
        Slot { key: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl<const WORDS: usize> Table<WORDS> {
    /// The words of `key`, a well mixed hash. `weigh` says what words of another key are worth.
    pub fn place(&self, key: u64, weigh: impl Fn(&Words<WORDS>) -> u64) -> &Words<WORDS> {
        let key = key.max(1);
        if let Some(words) = self.known(key) {
            return words;
        }
        let last = LEVELS.len() - 1;
        (0..last)
            .find_map(|level| claim(self.made(level, key), key, &weigh))
            .unwrap_or_else(|| displace(self.made(last, key), key, &weigh))
    }

    /// The words of `key`, if it has some.
    pub fn find(&self, key: u64) -> Option<&Words<WORDS>> {
        self.known(key.max(1))
    }

    fn known(&self, key: u64) -> Option<&Words<WORDS>> {
        let mut sets = (0..LEVELS.len()).map_while(|level| self.set(level, key));
        sets.find_map(|set| set.iter().find(|slot| slot.key.load(Relaxed) == key))
            .map(|slot| &slot.words)
    }

    fn set(&self, level: usize, key: u64) -> Option<&[Slot<WORDS>]> {
        Some(set_of(self.levels[level].get()?, key))
    }

    fn made(&self, level: usize, key: u64) -> &[Slot<WORDS>] {
        let make = || (0..LEVELS[level]).map(|_| Slot::default()).collect();
        set_of(self.levels[level].get_or_init(make), key)
    }
}

fn set_of<const WORDS: usize>(slots: &[Slot<WORDS>], key: u64) -> &[Slot<WORDS>] {
    // Masked to fewer bits than usize has on any machine that we run on.
    let set = (key & (slots.len() / WAYS - 1) as u64) as usize;
    &slots[set * WAYS..(set + 1) * WAYS]
}

/// Takes a slot that is free: never used, or of words that weigh nothing; or that of the key,
/// which another request of the same client may have taken a moment ago.
fn claim<'t, const WORDS: usize>(
    set: &'t [Slot<WORDS>],
    key: u64,
    weigh: &impl Fn(&Words<WORDS>) -> u64,
) -> Option<&'t Words<WORDS>> {
    set.iter().find_map(|slot| {
        // The words before the key, and in `Ok` the key before the words: who sees what another
        // request of this key has counted sees whose slot it is.
        let free = weigh(&slot.words) == 0;
        fence(Acquire);
        let other = slot.key.load(Relaxed);
        if other == key {
            return Some(&slot.words);
        }
        if !free {
            return None;
        }
        match slot.key.compare_exchange(other, key, Relaxed, Relaxed) {
            Ok(_) => {
                fence(Release);
                Some(&slot.words)
            }
            Err(taken) => (taken == key).then_some(&slot.words),
        }
    })
}

/// Takes a free slot, or that of the words that weigh least.
fn displace<'t, const WORDS: usize>(
    set: &'t [Slot<WORDS>],
    key: u64,
    weigh: &impl Fn(&Words<WORDS>) -> u64,
) -> &'t Words<WORDS> {
    if let Some(free) = claim(set, key, weigh) {
        return free;
    }
    let lightest = set.iter().min_by_key(|slot| weigh(&slot.words));
    let slot = lightest.expect("a set has slots");
    // Emptied first, so that nobody is refused for what the one before did.
    slot.words.iter().for_each(|word| word.store(0, Relaxed));
    slot.key.store(key, Relaxed);
    &slot.words
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    /// Hashes of one set in every level: they differ only above the bits that choose it.
    fn rivals() -> impl Iterator<Item = u64> {
        (1..).map(|n| n << 32)
    }

    fn weigh(words: &Words<1>) -> u64 {
        words[0].load(Relaxed)
    }

    fn put(table: &Table<1>, key: u64, weight: u64) {
        table.place(key, weigh)[0].store(weight, Relaxed);
    }

    fn at(words: &Words<1>) -> *const Words<1> {
        words
    }

    #[test]
    fn a_key_finds_its_own_words_again() {
        let table = Table::default();
        rivals().take(20).for_each(|key| put(&table, key, key));
        for key in rivals().take(20) {
            assert_eq!(table.place(key, weigh)[0].load(Relaxed), key);
            assert_eq!(table.find(key).map(weigh), Some(key));
        }
        assert!(table.find(77 << 32).is_none());
    }

    /// Each used to be able to pass over the slot that another had just taken and counted in,
    /// and so have a burst of its own.
    #[test]
    fn requests_of_a_new_key_that_come_at_once_share_its_slot() {
        const THREADS: usize = 4;
        for key in rivals().take(2_000) {
            let table = Table::<1>::default();
            let together = Barrier::new(THREADS);
            let one = || {
                together.wait();
                let words = table.place(key, weigh);
                words[0].fetch_add(1, Relaxed);
                at(words) as usize
            };
            let places: HashSet<usize> = thread::scope(|scope| {
                let all: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
                all.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(places.len(), 1);
        }
    }

    #[test]
    fn few_clients_need_only_the_first_level() {
        let table = Table::default();
        rivals().take(WAYS).for_each(|key| put(&table, key, 1));
        assert!(table.levels[1].get().is_none());
        table.place(77 << 32, weigh);
        assert!(table.levels[1].get().is_some() && table.levels[2].get().is_none());
    }

    #[test]
    fn words_that_weigh_nothing_make_room() {
        let table = Table::default();
        rivals().take(WAYS).for_each(|key| put(&table, key, 5));
        let fourth = table.place(rivals().nth(3).unwrap(), weigh);
        fourth[0].store(0, Relaxed);
        assert_eq!(at(table.place(77 << 32, weigh)), at(fourth));
        assert!(table.levels[1].get().is_none());
    }

    #[test]
    fn in_a_crowd_what_weighs_least_is_forgotten() {
        let table = Table::default();
        let all: Vec<_> = rivals().take(WAYS * LEVELS.len()).collect();
        (1..).zip(&all).for_each(|(n, key)| put(&table, *key, 100 + n));
        assert_eq!(weigh(table.place(77 << 32, weigh)), 0);
        // The first of the last level weighed least; the others are as they were.
        assert!(table.find(all[WAYS * 2]).is_none());
        assert_eq!(table.find(all[0]).map(weigh), Some(101));
        assert_eq!(table.find(all[WAYS * 2 + 1]).map(weigh), Some(100 + 18));
    }
}
