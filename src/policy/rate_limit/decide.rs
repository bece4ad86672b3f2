//! The decision over all limits of a request: either each has room and all are charged, or none is.
//!
//! What counts in this pod is decided at once, and given back should another limit refuse. What
//! counts in a store is asked of it in one trip. Limits that could be decided before anybody was
//! recognised wait for that trip where others follow that count in the same store: until then
//! they go by what this pod remembers to be spent. What still waits when another gate answers is
//! charged afterwards: see [`Ledger::unsettled`]. Between two stores nothing can be given back.

use std::ops::ControlFlow;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Limits;
use super::counts::Charge;
use super::limit::Limit;
use super::spec::FailureMode;
use super::stats::Outcome;
use super::unsettled::Unsettled;
use crate::policy::{Exchange, Quota, Reply};
use crate::reason::Reason;
use crate::services::store::{Check, Store, StoreError, Verdict};

/// What a request was charged by its limits, and what it is still to be charged.
#[derive(Debug, Default)]
pub struct Ledger<'p> {
    charges: SmallVec<[Charged<'p>; 2]>,
    waiting: Vec<Asked<'p>>,
}

/// What a limit of this pod charged, and where its quota stands.
#[derive(Debug)]
struct Charged<'p> {
    charge: Charge<'p>,
    cost: u64,
    quota: usize,
}

/// A limit that a request is counted by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'p> {
    of: &'p Limits,
    pub limit: &'p Limit,
    /// Its place in the policy, and that of the numbers that hold for the request.
    place: usize,
    numbers: usize,
    cost: u64,
    now_ms: u64,
}

/// One that a store is asked about.
#[derive(Debug)]
pub(super) struct Asked<'p> {
    entry: Entry<'p>,
    pub store: Arc<dyn Store>,
    pub check: Check,
    /// The number of the request's key, for what this pod remembers.
    pub key: u64,
}

impl<'p> Ledger<'p> {
    /// Decides the limits of `policies`. What counts in a store that is asked `later`, for this
    /// request, waits for that.
    pub async fn decide(
        &mut self,
        policies: impl IntoIterator<Item = &'p Limits>,
        ex: &mut Exchange<'_>,
        later: impl Fn(&Arc<dyn Store>) -> bool,
    ) -> ControlFlow<Reply> {
        let mut asked = Vec::new();
        for policy in policies {
            for (place, limit) in policy.limits.iter().enumerate() {
                let entry = Entry::new(policy, place, limit, ex);
                let Some(store) = &policy.store else {
                    self.here(entry, ex)?;
                    continue;
                };
                let one = entry.ask(store, ex);
                if let Some(verdict) = one.remembered() {
                    return self.refuse(&entry, &verdict, entry.most_in_all(), ex);
                }
                if later(store) { &mut self.waiting } else { &mut asked }.push(one);
            }
        }
        if asked.is_empty() {
            return ControlFlow::Continue(());
        }
        let takes_along = |one: &Asked<'_>| asked.iter().any(|a| Arc::ptr_eq(&a.store, &one.store));
        let (along, waiting) = self.waiting.drain(..).partition(takes_along);
        self.waiting = waiting;
        asked.extend::<Vec<_>>(along);
        // Boxed: most limits count in this pod.
        Box::pin(self.ask(asked, ex)).await
    }

    /// Counts in this pod.
    fn here(&mut self, entry: Entry<'p>, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        let Entry { limit, .. } = entry;
        let numbers = &limit.numbers[entry.numbers].here;
        let (verdict, charge) = limit.counts.take(&limit.key, ex, numbers, entry.cost);
        let most = numbers.most(limit.algorithm);
        if !verdict.admitted {
            return self.refuse(&entry, &verdict, most, ex);
        }
        self.charges.push(Charged { charge, cost: entry.cost, quota: ex.quotas.len() });
        limit.stats.count(Outcome::Allowed);
        ex.quotas.push(entry.quota(&verdict, most));
        ControlFlow::Continue(())
    }

    /// Asks one store after the other; there is seldom more than one.
    async fn ask(
        &mut self,
        mut asked: Vec<Asked<'p>>,
        ex: &mut Exchange<'_>,
    ) -> ControlFlow<Reply> {
        while let Some(first) = asked.first() {
            let store = Arc::clone(&first.store);
            let is_here = |one: &Asked<'_>| Arc::ptr_eq(&one.store, &store);
            let (trip, rest): (Vec<_>, Vec<_>) = asked.into_iter().partition(is_here);
            asked = rest;
            let (checks, entries): (Vec<Check>, Vec<(Entry<'p>, u64)>) =
                trip.into_iter().map(|one| (one.check, (one.entry, one.key))).unzip();
            let answer = store.decide(&checks).await;
            match answer.and_then(|verdicts| complete(verdicts, checks.len())) {
                Ok(verdicts) => self.settle(&entries, &verdicts, ex)?,
                Err(_) => self.fall_back(&entries, ex)?,
            }
        }
        ControlFlow::Continue(())
    }

    fn settle(
        &mut self,
        entries: &[(Entry<'p>, u64)],
        verdicts: &[Verdict],
        ex: &mut Exchange<'_>,
    ) -> ControlFlow<Reply> {
        let mut worst: Option<(&Entry<'p>, &Verdict)> = None;
        for ((entry, key), verdict) in entries.iter().zip(verdicts) {
            if verdict.admitted {
                entry.limit.stats.count(Outcome::Allowed);
                ex.quotas.push(entry.quota(verdict, entry.most_in_all()));
                continue;
            }
            entry.remember(*key, verdict);
            if worst.is_none_or(|(_, before)| before.retry_after_ms < verdict.retry_after_ms) {
                worst = Some((entry, verdict));
            }
        }
        match worst {
            Some((entry, verdict)) => self.refuse(entry, verdict, entry.most_in_all(), ex),
            None => ControlFlow::Continue(()),
        }
    }

    /// Does what the policies say for a store that gives no answer.
    fn fall_back(
        &mut self,
        entries: &[(Entry<'p>, u64)],
        ex: &mut Exchange<'_>,
    ) -> ControlFlow<Reply> {
        for (entry, _) in entries {
            match entry.of.failure_mode {
                FailureMode::Local => self.here(*entry, ex)?,
                FailureMode::Open => entry.limit.stats.count(Outcome::Allowed),
                FailureMode::Closed => {
                    entry.limit.stats.count(Outcome::Limited);
                    self.give_back(ex);
                    return ControlFlow::Break(Reply::of(Reason::LimitUnavailable));
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn refuse(
        &mut self,
        entry: &Entry<'p>,
        verdict: &Verdict,
        most: u64,
        ex: &mut Exchange<'_>,
    ) -> ControlFlow<Reply> {
        let outcome = if ex.is_shadow { Outcome::WouldLimit } else { Outcome::Limited };
        entry.limit.stats.count(outcome);
        self.give_back(ex);
        self.waiting.clear();
        ex.quotas.push(entry.quota(verdict, most));
        ControlFlow::Break(entry.of.refusal(verdict))
    }

    fn give_back(&mut self, ex: &mut Exchange<'_>) {
        for Charged { charge, cost, quota } in self.charges.drain(..) {
            charge.give_back();
            let quota = &mut ex.quotas[quota];
            quota.remaining = (quota.remaining + cost).min(quota.most);
        }
    }

    /// What is to be charged still, because another gate answered: nobody waits for it.
    pub fn unsettled(&mut self) -> Vec<Unsettled> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        Unsettled::of(std::mem::take(&mut self.waiting))
    }
}

/// An answer of a store with a verdict for each check.
fn complete(verdicts: Vec<Verdict>, checks: usize) -> Result<Vec<Verdict>, StoreError> {
    if verdicts.len() == checks { Ok(verdicts) } else { Err(StoreError::Protocol) }
}

impl<'p> Entry<'p> {
    fn new(of: &'p Limits, place: usize, limit: &'p Limit, ex: &Exchange<'_>) -> Self {
        let (numbers, cost) = (limit.numbers_of(ex), limit.cost.of(ex));
        Entry { of, limit, place, numbers, cost, now_ms: ex.now_ms }
    }

    fn ask(self, store: &Arc<dyn Store>, ex: &Exchange<'_>) -> Asked<'p> {
        let numbers = &self.limit.numbers[self.numbers].whole;
        let digest = self.limit.key.shared(ex);
        let (first, _) = digest.split_first_chunk().expect("a digest has 16 bytes");
        let check = Check {
            key: self.of.store_key(self.limit, &digest),
            tag: Arc::clone(&self.of.namespace),
            algorithm: self.limit.algorithm,
            limit: numbers.limit,
            burst: numbers.burst,
            window_ms: numbers.window_ms,
            cost: self.cost,
        };
        // Those who have other numbers are not spent at the same time.
        let key = u64::from_le_bytes(*first) ^ (self.numbers as u64).rotate_right(8);
        Asked { entry: self, store: Arc::clone(store), check, key }
    }

    fn quota(&self, verdict: &Verdict, most: u64) -> Quota {
        Quota {
            by: self.of.address(),
            limit: self.place,
            numbers: self.numbers,
            admitted: verdict.admitted,
            most,
            remaining: verdict.remaining,
            reset_s: verdict.reset_ms.div_ceil(1000),
        }
    }

    /// What may come at once of a store's whole count.
    fn most_in_all(&self) -> u64 {
        self.limit.numbers[self.numbers].whole.most(self.limit.algorithm)
    }

    /// Keeps in mind what a store refused, unless another request of the same key may cost less.
    fn remember(&self, key: u64, verdict: &Verdict) {
        if self.limit.cost.is_constant() {
            self.limit.exhausted.note(key, verdict, self.now_ms);
        }
    }
}

impl Asked<'_> {
    fn remembered(&self) -> Option<Verdict> {
        self.entry.limit.exhausted.refusal(self.key, self.entry.now_ms)
    }

    pub(super) fn limit(&self) -> &Limit {
        self.entry.limit
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.entry.now_ms
    }
}

#[cfg(test)]
mod tests;
