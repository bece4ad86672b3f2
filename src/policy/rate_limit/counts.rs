//! The counts of one limit in this pod: by its algorithm, for all requests or for each key.
//!
//! All workers share them, and the next graph takes them over. What was charged can be given
//! back, so that a request which another limit refuses has cost nothing: in between, for some
//! nanoseconds or while a store is asked, others may find less room than there is.

use std::hash::RandomState;
use std::sync::Arc;

use super::log::Logs;
use super::numbers::Numbers;
use super::table::{Table, Words};
use super::{bucket, window};
use crate::policy::Exchange;
use crate::policy::limit_key::LimitKey;
use crate::services::store::{Algorithm, Verdict};

/// See the module's documentation.
#[derive(Clone, Debug)]
pub enum Counts {
    Bucket(Arc<Cells<1>>),
    Fixed(Arc<Cells<1>>),
    Sliding(Arc<Cells<2>>),
    Log(Arc<Logged>),
}

/// Words for everybody, or for each key. The random seed keeps an attacker from choosing keys
/// that share a place.
#[derive(Debug)]
pub enum Cells<const WORDS: usize> {
    One(Words<WORDS>),
    ByKey(RandomState, Table<WORDS>),
}

#[derive(Debug, Default)]
pub struct Logged {
    seed: RandomState,
    logs: Logs,
}

/// What a request was charged.
#[derive(Clone, Copy, Debug)]
pub enum Charge<'c> {
    Nothing,
    /// The bucket, and ticks.
    Bucket(&'c Words<1>, u64),
    /// The words, the window's number, and the cost.
    Fixed(&'c Words<1>, u32, u64),
    Sliding(&'c Words<2>, u32, u64),
    /// The logs, the key, and the cost.
    Log(&'c Logs, u64, u64),
}

impl<const WORDS: usize> Cells<WORDS> {
    fn new(is_all: bool) -> Arc<Self> {
        Arc::new(if is_all {
            Cells::One(std::array::from_fn(|_| 0.into()))
        } else {
            Cells::ByKey(RandomState::new(), Table::default())
        })
    }

    fn place(
        &self,
        key: &LimitKey,
        ex: &Exchange<'_>,
        weigh: impl Fn(&Words<WORDS>) -> u64,
    ) -> &Words<WORDS> {
        match self {
            Cells::One(words) => words,
            Cells::ByKey(seed, table) => table.place(key.local(ex, seed), weigh),
        }
    }
}

impl Counts {
    pub fn new(algorithm: Algorithm, key: &LimitKey) -> Self {
        match algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                Counts::Bucket(Cells::new(key.is_all()))
            }
            Algorithm::FixedWindow => Counts::Fixed(Cells::new(key.is_all())),
            Algorithm::SlidingWindow => Counts::Sliding(Cells::new(key.is_all())),
            Algorithm::SlidingLog => Counts::Log(Arc::default()),
        }
    }

    /// Charges a request, if there is room; a `cost` of 0 only looks.
    pub fn take(
        &self,
        key: &LimitKey,
        ex: &Exchange<'_>,
        numbers: &Numbers,
        cost: u64,
    ) -> (Verdict, Charge<'_>) {
        let now = ex.now_ms;
        match self {
            Counts::Bucket(cells) => {
                let words = cells.place(key, ex, |w| bucket::weight(&w[0], numbers, now));
                let (verdict, ticks) = bucket::take(&words[0], numbers, cost, now);
                (verdict, Charge::Bucket(words, ticks).unless(ticks == 0))
            }
            Counts::Fixed(cells) => {
                let words = cells.place(key, ex, |w| window::weight(&w[0], numbers, now));
                let (verdict, number) = window::take_fixed(&words[0], numbers, cost, now);
                (verdict, Charge::Fixed(words, number, cost).unless(!verdict.admitted))
            }
            Counts::Sliding(cells) => {
                let words = cells.place(key, ex, |w| window::weight_sliding(w, numbers, now));
                let (verdict, number) = window::take_sliding(words, numbers, cost, now);
                (verdict, Charge::Sliding(words, number, cost).unless(!verdict.admitted))
            }
            Counts::Log(logged) => {
                let key = key.local(ex, &logged.seed);
                let verdict = logged.logs.take(key, numbers, cost, now);
                (verdict, Charge::Log(&logged.logs, key, cost).unless(!verdict.admitted))
            }
        }
    }

    /// Goes on with what `old` counted.
    pub fn adopt(&mut self, old: &Self) {
        self.clone_from(old);
    }
}

impl Charge<'_> {
    fn unless(self, nothing: bool) -> Self {
        if nothing { Charge::Nothing } else { self }
    }

    /// Takes the charge back: another limit refused the request.
    pub fn give_back(self) {
        match self {
            Charge::Nothing => {}
            Charge::Bucket(words, ticks) => bucket::give_back(&words[0], ticks),
            Charge::Fixed(words, number, cost) => window::give_back(&words[0], number, cost),
            Charge::Sliding(words, number, cost) => window::give_back_sliding(words, number, cost),
            Charge::Log(logs, key, cost) => logs.give_back(key, cost),
        }
    }
}

#[cfg(test)]
mod tests;
