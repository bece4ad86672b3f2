//! What the data plane tells of itself: metrics for Prometheus and one log line a request.
//!
//! Each worker counts into its own atomics and hands finished lines, many at once, to a writer
//! thread over a bounded queue, so that nothing here takes a lock or waits on the request path. Adding up
//! and rendering happen at the scrape. Program logs are `tracing`'s and not in here.

mod access_log;
mod append;
mod collect;
mod consumers;
mod counters;
mod identity;
mod json;
mod record;
mod store;
#[cfg(test)]
mod testing;
mod text;

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::registry::Registry;

use access_log::Lines;
pub use access_log::{AccessLog, Format, LINES_WAIT};
pub use append::Page;
use consumers::{Admitted, Consumers};
use counters::{WorkerCounters, count};
pub use record::{Outcome, Place, Record, StreamKind, StreamRecord};

use crate::graph::Shared;
use crate::policy::Kind;
use crate::reason::Reason;

/// All measuring of one process.
#[derive(Debug)]
pub struct Telemetry {
    workers: Arc<Mutex<Vec<Arc<WorkerCounters>>>>,
    consumers: Arc<Admitted>,
    started: AtomicUsize,
    access_log: Option<AccessLog>,
    registry: Mutex<Registry>,
}

impl Telemetry {
    /// Series of the routes are read from the live graph of `shared` at each scrape.
    pub fn new(shared: Arc<Shared>, access_log: Option<AccessLog>) -> Arc<Self> {
        let workers = Arc::default();
        let consumers = Arc::default();
        let mut registry = Registry::with_prefix("tidegate");
        registry.register_collector(Box::new(collect::DataPlane {
            shared,
            workers: Arc::clone(&workers),
            consumers: Arc::clone(&consumers),
            lost_lines: access_log.as_ref().map(AccessLog::lost),
        }));
        Arc::new(Telemetry {
            workers,
            consumers,
            started: AtomicUsize::new(0),
            access_log,
            registry: Mutex::new(registry),
        })
    }

    /// Adds the series of another part of the process; names get the prefix `tidegate_`.
    pub fn register(&self, collector: Box<dyn Collector>) {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(collector);
    }

    /// The handle that one worker thread counts with.
    pub fn worker(self: &Arc<Self>) -> WorkerTelemetry {
        let counters = Arc::new(WorkerCounters::default());
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counters));
        WorkerTelemetry(Rc::new(Worker {
            number: self.started.fetch_add(1, Ordering::Relaxed),
            counters,
            consumers: Consumers::new(Arc::clone(&self.consumers)),
            log: self.access_log.as_ref().map(AccessLog::lines),
        }))
    }

    /// Everything counted, in the OpenMetrics text format 1.0.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .expect("writing to a String cannot fail");
        text
    }

    /// What [`Telemetry::render`] returns, as a Content-Type.
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

/// One worker's counting; cheap to clone, stays on its thread.
#[derive(Clone, Debug)]
pub struct WorkerTelemetry(Rc<Worker>);

#[derive(Debug)]
struct Worker {
    number: usize,
    counters: Arc<WorkerCounters>,
    consumers: Consumers,
    log: Option<Lines>,
}

impl WorkerTelemetry {
    /// Whether there is an access log: what only it needs is not collected for nobody.
    pub fn logs(&self) -> bool {
        self.0.log.is_some()
    }

    /// Counts a request and writes its log line, if there is a log.
    pub fn request_done<'r>(&self, outcome: &Outcome<'_>, record: impl FnOnce() -> Record<'r>) {
        let worker = &*self.0;
        worker.counters.request(outcome);
        if let Some(consumer) = outcome.consumer {
            let status = outcome.counts.status;
            worker.consumers.count(&worker.counters.consumers, consumer, status);
        }
        if let Some(stats) = outcome.stats {
            stats.request(worker.number, &outcome.counts);
        }
        if let Some(log) = &worker.log {
            log.write(outcome, &record());
        }
    }

    /// Counts a stream and writes its log line.
    pub fn stream_done(&self, record: &StreamRecord<'_>) {
        let worker = &*self.0;
        worker.counters.stream(record);
        if let Some(stats) = record.stats {
            stats.stream(worker.number, record.bytes_received, record.bytes_sent);
        }
        if let Some(log) = &worker.log {
            log.write_stream(record);
        }
    }

    /// Hands the lines over that wait to be written: to be called again and again while the
    /// worker runs, with the pause of [`LINES_WAIT`].
    pub fn flush(&self) {
        if let Some(log) = &self.0.log {
            log.flush();
        }
    }

    /// A UDP session began.
    pub fn session_opened(&self) {
        count(&self.0.counters.sessions_opened);
    }

    /// A UDP session ended, in whatever way.
    pub fn session_closed(&self) {
        count(&self.0.counters.sessions_closed);
    }

    /// A datagram was not passed on.
    pub fn datagram_dropped(&self, reason: Reason) {
        count(&self.0.counters.datagrams_dropped[reason as usize]);
    }

    /// A client's connection was accepted.
    pub fn connection_opened(&self, _listener_port: u16) {
        count(&self.0.counters.connections_opened);
    }

    /// A client's connection ended, in whatever way.
    pub fn connection_closed(&self, _listener_port: u16) {
        count(&self.0.counters.connections_closed);
    }

    /// A TLS handshake failed or took too long.
    pub fn handshake_failed(&self, _listener_port: u16) {
        count(&self.0.counters.handshakes_failed);
    }

    /// A new connection to a backend was tried.
    pub fn upstream_connect(&self, ok: bool, took: Duration) {
        self.0.counters.upstream_connect(ok, took);
    }

    /// A request was sent again.
    pub fn upstream_retry(&self) {
        count(&self.0.counters.upstream_retries);
    }

    /// A policy in Shadow mode would have answered.
    pub fn policy_would_answer(&self, policy: Kind, reason: Reason) {
        count(self.0.counters.would_answer(policy, reason));
    }

    /// A policy answered instead of the backend.
    pub fn policy_answered(&self, policy: Kind, _reason: Reason) {
        count(&self.0.counters.policy_answers[policy as usize]);
    }
}
