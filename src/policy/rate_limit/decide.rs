//! The decision over all limits of a request: either each has room and all are charged, or none is.
//!
//! What counts in this pod is decided at once, and given back should another limit refuse. What
//! counts in a store is asked of it in one trip. Limits that could be decided before anybody was
//! recognised wait for that trip where others follow that count in the same store: until then
//! they go by what this pod remembers to be spent. What still waits when another gate answers is
//! charged afterwards: see [`Ledger::unsettled`]. Between two stores nothing can be given back.
//!
//! Limits that are decided together all say how long they refuse, and the longest time is told.
//! What this pod refuses it asks no store for.

use std::ops::ControlFlow;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Limits;
use super::counts::Charge;
use super::limit::Limit;
use super::numbers::Numbers;
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
    entry: Entry<'p>,
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

/// Of the limits that refuse a request, the one that does so for the longest time: who comes
/// again before that is refused again.
#[derive(Debug)]
struct Refusal<'p> {
    entry: Entry<'p>,
    verdict: Verdict,
    most: u64,
}

impl<'p> Refusal<'p> {
    /// Notes another one, which takes the place of one that is over sooner.
    fn note(longest: &mut Option<Self>, entry: Entry<'p>, verdict: Verdict, most: u64) {
        let is_over = |other: &Self| other.verdict.retry_after_ms < verdict.retry_after_ms;
        if longest.as_ref().is_none_or(is_over) {
            *longest = Some(Refusal { entry, verdict, most });
        }
    }
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
        let mut asked = self.in_this_pod(policies, ex, later)?;
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

    /// Decides what this pod counts, and what it knows a store would refuse. What it has to ask
    /// for now is left.
    fn in_this_pod(
        &mut self,
        policies: impl IntoIterator<Item = &'p Limits>,
        ex: &mut Exchange<'_>,
        later: impl Fn(&Arc<dyn Store>) -> bool,
    ) -> ControlFlow<Reply, Vec<Asked<'p>>> {
        let (mut asked, mut refusal) = (Vec::new(), None);
        for policy in policies {
            for (place, limit) in policy.limits.iter().enumerate() {
                let entry = Entry::new(policy, place, limit, ex);
                let Some(store) = &policy.store else {
                    self.here(entry, ex, &mut refusal);
                    continue;
                };
                let one = entry.ask(store, ex);
                match one.remembered() {
                    Some(verdict) => {
                        Refusal::note(&mut refusal, entry, verdict, entry.most_in_all())
                    }
                    None if later(store) => self.waiting.push(one),
                    None => asked.push(one),
                }
            }
        }
        self.go_on(refusal, ex)?;
        ControlFlow::Continue(asked)
    }

    /// Counts in this pod.
    fn here(&mut self, entry: Entry<'p>, ex: &mut Exchange<'_>, refusal: &mut Option<Refusal<'p>>) {
        let Entry { limit, .. } = entry;
        let (verdict, charge) = limit.counts.take(&limit.key, ex, entry.here(), entry.cost);
        if !verdict.admitted {
            return Refusal::note(refusal, entry, verdict, entry.most_here());
        }
        self.charges.push(Charged { charge, entry, quota: ex.quotas.len() });
        limit.stats.count(Outcome::Allowed);
        ex.quotas.push(entry.quota(&verdict, entry.most_here()));
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
        let mut refusal = None;
        for ((entry, key), verdict) in entries.iter().zip(verdicts) {
            if verdict.admitted {
                entry.limit.stats.count(Outcome::Allowed);
                ex.quotas.push(entry.quota(verdict, entry.most_in_all()));
                continue;
            }
            entry.remember(*key, verdict);
            Refusal::note(&mut refusal, *entry, *verdict, entry.most_in_all());
        }
        self.go_on(refusal, ex)
    }

    /// Does what the policies say for a store that gives no answer.
    fn fall_back(
        &mut self,
        entries: &[(Entry<'p>, u64)],
        ex: &mut Exchange<'_>,
    ) -> ControlFlow<Reply> {
        let mut refusal = None;
        for (entry, _) in entries {
            match entry.of.failure_mode {
                FailureMode::Local => self.here(*entry, ex, &mut refusal),
                FailureMode::Open => entry.limit.stats.count(Outcome::Allowed),
                FailureMode::Closed => {
                    entry.limit.stats.count(Outcome::Limited);
                    self.give_back(ex);
                    return ControlFlow::Break(Reply::of(Reason::LimitUnavailable));
                }
            }
        }
        self.go_on(refusal, ex)
    }

    /// Answers with the refusal, if there is one.
    fn go_on(&mut self, refusal: Option<Refusal<'p>>, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        let Some(Refusal { entry, verdict, most }) = refusal else {
            return ControlFlow::Continue(());
        };
        let outcome = if ex.is_shadow { Outcome::WouldLimit } else { Outcome::Limited };
        entry.limit.stats.count(outcome);
        self.give_back(ex);
        self.waiting.clear();
        ex.quotas.push(entry.quota(&verdict, most));
        ControlFlow::Break(entry.of.refusal(&verdict))
    }

    fn give_back(&mut self, ex: &mut Exchange<'_>) {
        for Charged { charge, entry, quota } in self.charges.drain(..) {
            charge.give_back();
            let Entry { limit, .. } = entry;
            let (verdict, _) = limit.counts.take(&limit.key, ex, entry.here(), 0);
            ex.quotas[quota] = entry.quota(&verdict, entry.most_here());
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

    /// The numbers for counting in this pod.
    fn here(&self) -> &'p Numbers {
        &self.limit.numbers[self.numbers].here
    }

    /// What may come at once of this pod's count.
    fn most_here(&self) -> u64 {
        self.here().most(self.limit.algorithm)
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
