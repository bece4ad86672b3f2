//! How often each method accepted or refused, and why tokens were refused, for the metrics: one
//! set of numbers for the process, whose labels are few and known.

use crate::policy::Exchange;
use crate::policy::identity::Method;
use crate::policy::jwt::Refusal;
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

static REFUSALS: Tally<{ Refusal::ALL.len() }> = Tally::new();

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

/// Counts why a token is refused, unless the policy only watches, and hands it on.
pub fn refused(why: Refusal, ex: &Exchange<'_>) -> Refusal {
    if !ex.is_shadow {
        REFUSALS.count(why as usize);
    }
    why
}

/// Why tokens were refused and how often, of the causes that there were in this process.
pub fn refusals() -> impl Iterator<Item = (&'static str, u64)> {
    let totals = Refusal::ALL.iter().map(|why| (why.as_str(), REFUSALS.total(*why as usize)));
    totals.filter(|(_, count)| *count > 0)
}

const fn number(method: Method, outcome: Outcome) -> usize {
    method as usize * OUTCOMES.len() + outcome as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::exchange;

    #[test]
    fn what_is_counted_is_found_under_its_words() {
        let find = || {
            let mut found =
                all().filter(|(method, result, _)| (*method, *result) == ("external", "expired"));
            found.next().map_or(0, |(_, _, count)| count)
        };
        let before = find();
        // What a service says has no end: no other test of this process counts it.
        count(Method::External, Outcome::Expired);
        assert_eq!(find(), before + 1);
    }

    #[test]
    fn a_token_counts_under_its_cause_unless_the_policy_only_watches() {
        let mut ex = exchange("GET", "http://a.example/", &[]);
        let find = |cause: &str| refusals().find(|(why, _)| *why == cause).map_or(0, |(_, n)| n);
        // No token of another test of this process is refused for these.
        let causes = [Refusal::LivesTooLong, Refusal::Unsupported];
        for (n, why) in (1..).zip(causes) {
            let before = find(why.as_str());
            ex.is_shadow = true;
            assert_eq!(refused(why, &ex), why);
            ex.is_shadow = false;
            (0..n).for_each(|_| assert_eq!(refused(why, &ex), why));
            assert_eq!(find(why.as_str()), before + n);
        }
    }
}
