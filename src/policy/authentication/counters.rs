//! How often each method accepted or refused, for the metrics: one set of numbers for the
//! process, whose labels are few and known.

use crate::policy::identity::Method;
use crate::policy::tally::Tally;

/// What a method made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    /// There were no credentials of any method.
    Missing,
    Invalid,
    Expired,
    /// Nobody could say: no keys, no service, no room to check a password.
    Unavailable,
}

const OUTCOMES: [Outcome; 5] =
    [Outcome::Allowed, Outcome::Missing, Outcome::Invalid, Outcome::Expired, Outcome::Unavailable];

static REQUESTS: Tally<{ Method::ALL.len() * OUTCOMES.len() }> = Tally::new();

impl Outcome {
    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Missing => "missing",
            Outcome::Invalid => "invalid",
            Outcome::Expired => "expired",
            Outcome::Unavailable => "unavailable",
        }
    }
}

/// Counts one request.
pub fn count(method: Method, outcome: Outcome) {
    REQUESTS.count(number(method, outcome));
}

/// Method, result and how often, of those that happened in this process.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, u64)> {
    let pairs = Method::ALL.iter().flat_map(|method| OUTCOMES.map(|outcome| (*method, outcome)));
    pairs
        .map(|(method, outcome)| {
            (method.as_str(), outcome.as_str(), REQUESTS.total(number(method, outcome)))
        })
        .filter(|(_, _, count)| *count > 0)
}

const fn number(method: Method, outcome: Outcome) -> usize {
    method as usize * OUTCOMES.len() + outcome as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_found_under_its_words() {
        let find = || {
            let mut found = all()
                .filter(|(method, result, _)| (*method, *result) == ("external", "unavailable"));
            found.next().map_or(0, |(_, _, count)| count)
        };
        let before = find();
        count(Method::External, Outcome::Unavailable);
        assert_eq!(find(), before + 1);
    }
}
