//! What became of questions, for the metrics: of all policies together, since the process began.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
}

/// See the module's documentation.
pub static COUNTS: Counts = Counts([const { AtomicU64::new(0) }; Outcome::ALL.len()]);

/// How often each [`Outcome`] came.
#[derive(Debug)]
pub struct Counts([AtomicU64; Outcome::ALL.len()]);

impl Counts {
    pub(super) fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Relaxed);
    }

    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].load(Relaxed)
    }
}
