//! What the data plane tells of itself: metrics for Prometheus and one log line a request.
//!
//! Each worker counts into its own atomics and hands finished lines to a writer thread over a
//! bounded queue, so that nothing here takes a lock or waits on the request path. Adding up
//! and rendering happen at the scrape. Program logs are `tracing`'s and not in here.

mod access_log;
mod collect;
mod counters;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use prometheus_client::collector::Collector;
use prometheus_client::registry::Registry;

pub use access_log::{AccessLog, Format};
use counters::WorkerCounters;
pub use stream::{StreamKind, StreamRecord};

use crate::graph::{BackendKey, RouteStats, RuleName, Shared};
use crate::policy::{Kind, Scheme};
use crate::reason::Reason;

/// All measuring of one process.
#[derive(Debug)]
pub struct Telemetry {
    workers: Arc<Mutex<Vec<Arc<WorkerCounters>>>>,
    started: AtomicUsize,
    access_log: Option<AccessLog>,
    registry: Mutex<Registry>,
}

impl Telemetry {
    /// Series of the routes are read from the live graph of `shared` at each scrape.
    pub fn new(shared: Arc<Shared>, access_log: Option<AccessLog>) -> Arc<Self> {
        let workers = Arc::default();
        let mut registry = Registry::with_prefix("tidegate");
        registry.register_collector(Box::new(collect::DataPlane {
            shared,
            workers: Arc::clone(&workers),
            lost_lines: access_log.as_ref().map(AccessLog::lost),
        }));
        Arc::new(Telemetry {
            workers,
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
            telemetry: Arc::clone(self),
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
    telemetry: Arc<Telemetry>,
}

/// A finished request.
#[derive(Debug)]
pub struct Record<'a> {
    /// Milliseconds since the Unix epoch at which its head was complete.
    pub start_ms: u64,
    pub duration: Duration,
    /// From the first attempt to the head of the backend's answer.
    pub upstream: Option<Duration>,
    pub request_id: &'a str,
    pub client_ip: IpAddr,
    pub peer: SocketAddr,
    pub method: &'a Method,
    pub scheme: Scheme,
    pub host: &'a str,
    /// Without the query, which may hold secrets.
    pub path: &'a str,
    pub protocol: http::Version,
    pub status: u16,
    pub reason: Option<Reason>,
    /// How a gRPC call ended.
    pub grpc_status: Option<u8>,
    pub listener_port: u16,
    pub section: &'a str,
    pub rule: Option<&'a RuleName>,
    /// The counters of the rule's route.
    pub stats: Option<&'a RouteStats>,
    pub backend: Option<&'a BackendKey>,
    pub endpoint: Option<SocketAddr>,
    pub attempts: u32,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub user_agent: Option<&'a str>,
    pub referer: Option<&'a str>,
    pub traceparent: Option<&'a str>,
    pub tls_version: Option<&'static str>,
    pub sni: Option<&'a str>,
    pub consumer: Option<&'a str>,
}

impl WorkerTelemetry {
    /// Counts a request and writes its log line.
    pub fn request_done(&self, record: &Record<'_>) {
        let worker = &*self.0;
        worker.counters.request(record);
        if let Some(stats) = record.stats {
            let route = stats.of_worker(worker.number);
            route.count_status(record.status);
            route.duration.observe(record.duration);
            if let Some(upstream) = record.upstream {
                route.upstream.observe(upstream);
            }
            route.bytes_received.fetch_add(record.bytes_received, Ordering::Relaxed);
            route.bytes_sent.fetch_add(record.bytes_sent, Ordering::Relaxed);
        }
        if let Some(log) = &worker.telemetry.access_log {
            log.write(record);
        }
    }

    /// Counts a stream and writes its log line.
    pub fn stream_done(&self, record: &StreamRecord<'_>) {
        let worker = &*self.0;
        worker.counters.stream(record);
        if let Some(stats) = record.stats {
            let route = stats.of_worker(worker.number);
            route.streams.fetch_add(1, Ordering::Relaxed);
            route.bytes_received.fetch_add(record.bytes_received, Ordering::Relaxed);
            route.bytes_sent.fetch_add(record.bytes_sent, Ordering::Relaxed);
        }
        if let Some(log) = &worker.telemetry.access_log {
            log.write_stream(record);
        }
    }

    /// A UDP session began.
    pub fn session_opened(&self) {
        self.0.counters.sessions_opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A UDP session ended, in whatever way.
    pub fn session_closed(&self) {
        self.0.counters.sessions_closed.fetch_add(1, Ordering::Relaxed);
    }

    /// A datagram was not passed on.
    pub fn datagram_dropped(&self, reason: Reason) {
        self.0.counters.datagrams_dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A client's connection was accepted.
    pub fn connection_opened(&self, _listener_port: u16) {
        self.0.counters.connections_opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A client's connection ended, in whatever way.
    pub fn connection_closed(&self, _listener_port: u16) {
        self.0.counters.connections_closed.fetch_add(1, Ordering::Relaxed);
    }

    /// A TLS handshake failed or took too long.
    pub fn handshake_failed(&self, _listener_port: u16) {
        self.0.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A new connection to a backend was tried.
    pub fn upstream_connect(&self, ok: bool, took: Duration) {
        self.0.counters.upstream_connect(ok, took);
    }

    /// A request was sent again.
    pub fn upstream_retry(&self) {
        self.0.counters.upstream_retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A policy answered instead of the backend.
    pub fn policy_answered(&self, policy: Kind, _reason: Reason) {
        self.0.counters.policy_answers[policy as usize].fetch_add(1, Ordering::Relaxed);
    }
}
