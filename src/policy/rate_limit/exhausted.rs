//! What this pod knows to be spent in a store, so that a flood is refused without asking it.
//!
//! What was refused is refused again until there is room for it, as the store said, but no longer
//! than for [`TRUSTED_MS`] without asking: a counter may have been lost or a limit raised. Room
//! comes back with time alone, so that nobody is refused who would have been let through, but for
//! that second. The table is bounded; what it forgets is asked for again.

use std::sync::atomic::Ordering::Relaxed;

use super::table::{Table, Words};
use crate::services::store::Verdict;

/// How long a refusal is repeated without asking the store, in milliseconds.
const TRUSTED_MS: u64 = 1_000;

/// Of each key: when there is room again, and when the store said so.
#[derive(Debug, Default)]
pub struct Exhausted(Table<2>);

impl Exhausted {
    /// Keeps a refusal in mind.
    pub fn note(&self, key: u64, verdict: &Verdict, now_ms: u64) {
        let [until, asked] = self.0.place(key, |words| weight(words, now_ms));
        asked.store(now_ms, Relaxed);
        until.store(now_ms.saturating_add(verdict.retry_after_ms), Relaxed);
    }

    /// The refusal that the store would give.
    pub fn refusal(&self, key: u64, now_ms: u64) -> Option<Verdict> {
        let words @ [_, asked] = self.0.find(key)?;
        let wait = weight(words, now_ms);
        let is_fresh = now_ms < asked.load(Relaxed).saturating_add(TRUSTED_MS);
        let refusal =
            Verdict { admitted: false, remaining: 0, reset_ms: wait, retry_after_ms: wait };
        (wait > 0 && is_fresh).then_some(refusal)
    }
}

fn weight([until, _]: &Words<2>, now_ms: u64) -> u64 {
    until.load(Relaxed).saturating_sub(now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(retry_after_ms: u64) -> Verdict {
        Verdict { admitted: false, remaining: 0, reset_ms: 0, retry_after_ms }
    }

    #[test]
    fn a_refusal_is_repeated_until_there_is_room_and_for_a_second_at_most() {
        let exhausted = Exhausted::default();
        exhausted.note(1, &refused(500), 1000);
        exhausted.note(2, &refused(60_000), 1000);
        let wait = |key, now| exhausted.refusal(key, now).map(|v| v.retry_after_ms);
        assert_eq!((wait(1, 1000), wait(1, 1499), wait(1, 1500)), (Some(500), Some(1), None));
        assert_eq!((wait(2, 1999), wait(2, 2000)), (Some(59_001), None));
        assert_eq!(wait(3, 1000), None);
    }
}
