//! What became of questions, for the metrics: of all policies together, since the process began.

use crate::policy::Exchange;
use crate::policy::tally::Tally;

/// What became of one request that a service was to decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    Denied,
    /// By an earlier answer, whatever it was.
    Cached,
    /// Refused, because there was no usable answer.
    Unavailable,
    /// Let through, because there was none and the policy has `failOpen`.
    FailedOpen,
}

static OUTCOMES: Tally<{ Outcome::ALL.len() }> = Tally::new();

impl Outcome {
    pub const ALL: [Outcome; 5] = [
        Outcome::Allowed,
        Outcome::Denied,
        Outcome::Cached,
        Outcome::Unavailable,
        Outcome::FailedOpen,
    ];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Allowed => "allowed",
            Outcome::Denied => "denied",
            Outcome::Cached => "cached",
            Outcome::Unavailable => "unavailable",
            Outcome::FailedOpen => "failed_open",
        }
    }

    /// How often it came in this process, where it was enforced.
    pub fn total(self) -> u64 {
        OUTCOMES.total(self as usize)
    }

    /// Counts one request.
    pub(super) fn count(self, ex: &Exchange<'_>) {
        if !ex.is_shadow {
            OUTCOMES.count(self as usize);
        }
    }
}
