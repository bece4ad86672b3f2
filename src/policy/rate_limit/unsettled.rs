//! Charges that nobody waits for: limits by address that would have been decided with those of
//! who asks, of a request that authentication refused.

use std::sync::Arc;

use super::decide::Asked;
use super::exhausted::Exhausted;
use super::stats::{Outcome, Stats};
use crate::services::store::{Check, Store};

/// What one store is to charge.
#[derive(Debug)]
pub struct Unsettled {
    store: Arc<dyn Store>,
    checks: Vec<Check>,
    noted: Vec<Noted>,
}

/// Where the verdict over a check is noted.
#[derive(Debug)]
struct Noted {
    stats: Arc<Stats>,
    /// None: not all requests of the key cost the same.
    exhausted: Option<Arc<Exhausted>>,
    key: u64,
    now_ms: u64,
}

impl Unsettled {
    pub(super) fn of(waiting: Vec<Asked<'_>>) -> Vec<Self> {
        let mut all: Vec<Unsettled> = Vec::new();
        for one in waiting {
            let limit = one.limit();
            let noted = Noted {
                stats: Arc::clone(&limit.stats),
                exhausted: limit.cost.is_constant().then(|| Arc::clone(&limit.exhausted)),
                key: one.key,
                now_ms: one.now_ms(),
            };
            let place = all.iter().position(|other| Arc::ptr_eq(&other.store, &one.store));
            let place = place.unwrap_or_else(|| {
                let store = Arc::clone(&one.store);
                all.push(Unsettled { store, checks: Vec::new(), noted: Vec::new() });
                all.len() - 1
            });
            all[place].checks.push(one.check);
            all[place].noted.push(noted);
        }
        all
    }

    /// Asks the store once, and notes what it says. A store that gives no answer charges nothing.
    pub async fn charge(self) {
        let Unsettled { store, checks, noted } = self;
        let Ok(verdicts) = store.decide(&checks).await else { return };
        for (verdict, noted) in verdicts.iter().zip(noted) {
            noted.stats.count(if verdict.admitted { Outcome::Allowed } else { Outcome::Limited });
            if let Some(exhausted) = noted.exhausted.filter(|_| !verdict.admitted) {
                exhausted.note(noted.key, verdict, noted.now_ms);
            }
        }
    }
}
