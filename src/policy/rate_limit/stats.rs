//! How often a limit let requests through or not. Counters outlive graphs with the limit's counts.

use crate::policy::tally::Tally;

/// What a limit made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    Limited,
    /// It would have been refused, were the policy enforced.
    WouldLimit,
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Allowed, Outcome::Limited, Outcome::WouldLimit];

    /// The label of the metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Limited => "limited",
            Outcome::WouldLimit => "would_limit",
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Stats(Tally<{ Outcome::ALL.len() }>);

impl Stats {
    pub fn count(&self, outcome: Outcome) {
        self.0.count(outcome as usize);
    }

    /// The sums, in the order of [`Outcome::ALL`].
    pub fn totals(&self) -> [u64; Outcome::ALL.len()] {
        Outcome::ALL.map(|outcome| self.0.total(outcome as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_is_added_up() {
        let stats = Stats::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| stats.count(Outcome::Limited)));
            }
        });
        stats.count(Outcome::Allowed);
        assert_eq!(stats.totals(), [1, 400, 0]);
    }
}
