//! One worker's counters: atomics that only this worker adds to and the scrape reads, so that
//! adding is a load and a store.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::graph::stats::{Adders, Histogram};
use crate::policy::Kind;
use crate::reason::Reason;

use super::consumers::ConsumerCounters;
use super::{Outcome, StreamKind, StreamRecord};

/// Status codes that are counted one by one; others fall into their class.
const STATUSES: std::ops::Range<u16> = 100..600;

/// See the module's documentation.
#[derive(Debug)]
pub struct WorkerCounters {
    /// By status code, from 100 on.
    statuses: Box<[AtomicU64]>,
    pub reasons: [AtomicU64; Reason::ALL.len()],
    /// HTTP/1.0, HTTP/1.1, HTTP/2.
    pub protocols: [AtomicU64; 3],
    pub policy_answers: [AtomicU64; Kind::ALL.len()],
    /// What policies in Shadow mode would have answered, by policy and reason.
    would_answer: Box<[AtomicU64]>,
    pub consumers: ConsumerCounters,
    /// By [`StreamKind`].
    pub streams: [AtomicU64; StreamKind::ALL.len()],
    pub datagrams_dropped: [AtomicU64; Reason::ALL.len()],
    pub sessions_opened: AtomicU64,
    pub sessions_closed: AtomicU64,
    pub connections_opened: AtomicU64,
    pub connections_closed: AtomicU64,
    pub handshakes_failed: AtomicU64,
    pub upstream_connected: AtomicU64,
    pub upstream_connect_failed: AtomicU64,
    pub upstream_retries: AtomicU64,
    pub connect_time: Histogram,
    pub duration: Histogram,
    pub bytes_received: AtomicU64,
    pub bytes_sent: AtomicU64,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        let zeros = || std::iter::repeat_with(AtomicU64::default);
        WorkerCounters {
            statuses: zeros().take(STATUSES.len()).collect(),
            reasons: std::array::from_fn(|_| AtomicU64::default()),
            protocols: Default::default(),
            policy_answers: std::array::from_fn(|_| AtomicU64::default()),
            would_answer: zeros().take(Kind::ALL.len() * Reason::ALL.len()).collect(),
            consumers: ConsumerCounters::default(),
            streams: Default::default(),
            datagrams_dropped: std::array::from_fn(|_| AtomicU64::default()),
            sessions_opened: AtomicU64::default(),
            sessions_closed: AtomicU64::default(),
            connections_opened: AtomicU64::default(),
            connections_closed: AtomicU64::default(),
            handshakes_failed: AtomicU64::default(),
            upstream_connected: AtomicU64::default(),
            upstream_connect_failed: AtomicU64::default(),
            upstream_retries: AtomicU64::default(),
            connect_time: Histogram::default(),
            duration: Histogram::default(),
            bytes_received: AtomicU64::default(),
            bytes_sent: AtomicU64::default(),
        }
    }
}

/// Adds to a counter of the worker that runs here.
pub fn add(counter: &AtomicU64, more: u64) {
    Adders::One.add(counter, more);
}

/// The same, by one.
pub fn count(counter: &AtomicU64) {
    add(counter, 1);
}

impl WorkerCounters {
    pub fn request(&self, outcome: &Outcome<'_>) {
        let counts = &outcome.counts;
        let status = counts.status.clamp(STATUSES.start, STATUSES.end - 1);
        count(&self.statuses[usize::from(status - STATUSES.start)]);
        if let Some(reason) = outcome.reason {
            count(&self.reasons[reason as usize]);
        }
        let protocol = match outcome.protocol {
            http::Version::HTTP_2 => 2,
            http::Version::HTTP_11 => 1,
            _ => 0,
        };
        count(&self.protocols[protocol]);
        self.duration.observe(counts.duration, Adders::One);
        add(&self.bytes_received, counts.bytes_received);
        add(&self.bytes_sent, counts.bytes_sent);
    }

    pub fn would_answer(&self, policy: Kind, reason: Reason) -> &AtomicU64 {
        &self.would_answer[policy as usize * Reason::ALL.len() + reason as usize]
    }

    pub fn stream(&self, record: &StreamRecord<'_>) {
        count(&self.streams[record.kind as usize]);
        if let Some(reason) = record.reason {
            count(&self.reasons[reason as usize]);
        }
        add(&self.bytes_received, record.bytes_received);
        add(&self.bytes_sent, record.bytes_sent);
    }

    pub fn upstream_connect(&self, ok: bool, took: Duration) {
        let counter = if ok { &self.upstream_connected } else { &self.upstream_connect_failed };
        count(counter);
        if ok {
            self.connect_time.observe(took, Adders::One);
        }
    }

    /// Status codes that have occurred, with how often.
    pub fn statuses(&self) -> impl Iterator<Item = (u16, u64)> {
        STATUSES.zip(self.statuses.iter().map(|c| c.load(Relaxed))).filter(|(_, n)| *n > 0)
    }
}
