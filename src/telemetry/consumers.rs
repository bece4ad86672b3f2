//! Requests by Consumer (`NAMESPACE/NAME`) and class of status.
//!
//! Each worker counts into its own atomics; which Consumers have numbers of their own is decided
//! once for the process, the first come first. All others are counted together: so there are
//! never more series than [`MAX_CONSUMERS`] and one, however many Consumers there are.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::graph::stats::Adders;
use crate::policy::consumer::Consumer;

/// Consumers with series of their own.
pub const MAX_CONSUMERS: usize = 1_000;
/// The name under which all others are counted.
const OTHER: &str = "_other";
/// Names of a namespace that a worker remembers, so that it asks for each only once.
const MAX_KNOWN: usize = 64_000;

/// 1xx to 5xx.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The numbers of Consumers, by name.
type Numbers = HashMap<Box<str>, usize>;
type Classes = [AtomicU64; CLASSES.len()];

/// Which Consumers have numbers of their own.
#[derive(Debug, Default)]
pub struct Admitted(Mutex<Numbers>);

impl Admitted {
    /// The number of this Consumer, or [`MAX_CONSUMERS`] if there are too many. Asked once for
    /// each by a worker, so it never waits for long.
    fn number(&self, consumer: &Consumer) -> usize {
        let name = format!("{}/{}", consumer.namespace, consumer.name);
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = numbers.len();
        match numbers.get(&*name) {
            Some(number) => *number,
            None if next < MAX_CONSUMERS => {
                numbers.insert(name.into(), next);
                next
            }
            None => MAX_CONSUMERS,
        }
    }

    /// The totals of all workers, by name and class.
    pub fn totals<'c>(
        &self,
        workers: impl Iterator<Item = &'c ConsumerCounters>,
    ) -> BTreeMap<String, [u64; CLASSES.len()]> {
        let numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals: Vec<[u64; CLASSES.len()]> = vec![Default::default(); MAX_CONSUMERS + 1];
        for worker in workers {
            for (total, counted) in totals.iter_mut().zip(worker.0.get().into_iter().flatten()) {
                for (total, counted) in total.iter_mut().zip(counted) {
                    *total += counted.load(Relaxed);
                }
            }
        }
        let named = numbers.iter().map(|(name, number)| (name.to_string(), totals[*number]));
        let mut by_name: BTreeMap<_, _> = named.collect();
        if totals[MAX_CONSUMERS].iter().any(|n| *n > 0) {
            by_name.insert(OTHER.to_owned(), totals[MAX_CONSUMERS]);
        }
        by_name
    }
}

/// One worker's numbers, made when it meets the first Consumer.
#[derive(Debug, Default)]
pub struct ConsumerCounters(OnceLock<Box<[Classes]>>);

impl ConsumerCounters {
    fn count(&self, number: usize, status: u16) {
        let all = self.0.get_or_init(|| {
            std::iter::repeat_with(Classes::default).take(MAX_CONSUMERS + 1).collect()
        });
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        Adders::One.add(&all[number][class], 1);
    }
}

/// A worker's way from a Consumer to its number; it stays on the worker's thread.
#[derive(Debug)]
pub struct Consumers {
    admitted: Arc<Admitted>,
    /// By namespace and name.
    known: RefCell<HashMap<Box<str>, Numbers>>,
}

impl Consumers {
    pub fn new(admitted: Arc<Admitted>) -> Self {
        Consumers { admitted, known: RefCell::default() }
    }

    pub fn count(&self, counters: &ConsumerCounters, consumer: &Consumer, status: u16) {
        let mut known = self.known.borrow_mut();
        let of_namespace = known.get(&consumer.namespace);
        let number = of_namespace.and_then(|names| names.get(&consumer.name).copied());
        let number = number.unwrap_or_else(|| {
            let number = self.admitted.number(consumer);
            let names = known.entry(consumer.namespace.clone()).or_default();
            // Consumers come and go: those that are gone are not kept for ever.
            if names.len() >= MAX_KNOWN {
                names.clear();
            }
            names.insert(consumer.name.clone(), number);
            number
        });
        counters.count(number, status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(name: &str) -> Consumer {
        let (namespace, name) = ("ns".into(), name.into());
        Consumer { namespace, name, groups: Box::default(), plan: None }
    }

    #[test]
    fn consumers_have_series_of_their_own_until_there_are_too_many() {
        let admitted = Arc::<Admitted>::default();
        let counters = [ConsumerCounters::default(), ConsumerCounters::default()];
        let workers = [0, 1].map(|_| Consumers::new(Arc::clone(&admitted)));
        for n in 0..MAX_CONSUMERS + 5 {
            let consumer = consumer(&format!("c{n}"));
            for (worker, counters) in workers.iter().zip(&counters) {
                worker.count(counters, &consumer, 200);
            }
        }
        workers[0].count(&counters[0], &consumer("c7"), 403);
        let totals = admitted.totals(counters.iter());
        assert_eq!(totals.len(), MAX_CONSUMERS + 1);
        assert_eq!(totals["ns/c7"], [0, 2, 0, 1, 0]);
        assert_eq!(totals[OTHER], [0, 10, 0, 0, 0]);
    }

    #[test]
    fn nothing_is_told_of_nobody() {
        let admitted = Admitted::default();
        assert!(admitted.totals([ConsumerCounters::default()].iter()).is_empty());
    }
}
