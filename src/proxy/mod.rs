//! The data plane: from a client's connection to a backend's, and back.
//!
//! ```text
//! listener (binds) -> accept -> server (TLS, HTTP, deadlines) -> handle
//!     -> head, hop_by_hop, forwarded   what a request may look like
//!     -> graph.find -> permit                gates and transforms
//!     -> forward -> balance, pool, connect   to an endpoint
//!     -> request_body, response_body         streaming, with back-pressure
//!        server -> hello -> stream -> carry      TCP and TLS that is not HTTP
//! listener (binds) -> udp                    datagrams in sessions
//! ```
//!
//! Each worker is a thread that shares nothing with the others but the graph, the endpoints
//! and counters, so no lock and no other core is on the way of a request. What Kubernetes is
//! stays outside: everything comes in by [`crate::graph::Shared`].

mod accept;
mod account;
mod balance;
mod call;
mod carry;
mod clock;
mod config;
mod conn;
mod connect;
mod discard;
mod forward;
mod forwarded;
mod gather;
mod grpc;
mod handle;
mod head;
mod hello;
mod hop_by_hop;
pub mod http1;
mod http2;
mod incoming;
mod journey;
mod lend;
mod listener;
mod mirror;
mod outgoing;
mod outline;
mod paced;
mod passage;
mod peeked;
mod permit;
mod pool;
mod pressure;
mod relay;
mod replay;
mod reply;
mod request_body;
mod response_body;
mod retry;
mod server;
mod session;
mod sniff;
mod stage;
mod stream;
mod timer;
mod tls;
mod turn;
mod udp;
mod upgrade;
mod way_around;
mod wire;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

pub use config::{Config, Http2Limits, Limits};
pub use listener::Listening;
use listener::Supervisor;
use pressure::Pressure;
use worker::Common;

use crate::graph::Shared;
use crate::lifecycle::{Lifecycle, Phase};
use crate::telemetry::Telemetry;

/// The data plane could not start: no thread or no file descriptor was to be had.
#[derive(Debug, thiserror::Error)]
#[error("the data plane cannot start: {0}")]
pub struct StartError(#[from] io::Error);

/// The running data plane. It follows the lifecycle that it was started with: it stops
/// accepting at [`Phase::Draining`] and cuts what it still holds at [`Phase::Stopped`].
#[derive(Debug)]
pub struct ProxyHandle {
    common: Arc<Common>,
    listening: watch::Receiver<Listening>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts the workers and binds what the graph of `shared` wants, now and later.
pub fn start(
    config: Config,
    shared: Arc<Shared>,
    lifecycle: Lifecycle,
    telemetry: Arc<Telemetry>,
) -> Result<ProxyHandle, StartError> {
    let connection_cap = config.limits.connection_cap();
    let session_cap = (config.limits.session_cap() / config.workers.max(1)).max(1);
    let common = Arc::new(Common {
        config: Arc::new(config),
        shared,
        lifecycle,
        telemetry,
        pressure: Pressure::watch(),
        connections: AtomicUsize::new(0),
        connection_cap,
        sessions: AtomicUsize::new(0),
        session_cap,
        accepting: AtomicUsize::new(0),
        kept_bytes: Arc::default(),
    });
    let (listening, listening_rx) = watch::channel(Listening::default());
    let mut threads = Vec::new();
    let mut workers = Vec::new();
    for number in 0..common.config.workers.max(1) {
        let (commands, inbox) = mpsc::unbounded_channel();
        let common = Arc::clone(&common);
        let thread = Builder::new().name(format!("worker-{number}"));
        threads.push(thread.spawn(move || worker::run(common, inbox))?);
        workers.push(commands);
    }
    let supervisor = Supervisor { common: Arc::clone(&common), workers, listening };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let supervise = move || runtime.block_on(supervisor.run());
    threads.push(Builder::new().name("listeners".into()).spawn(supervise)?);
    Ok(ProxyHandle { common, listening: listening_rx, threads })
}

impl ProxyHandle {
    /// The ports that are bound, and why others are not.
    pub fn listening(&self) -> watch::Receiver<Listening> {
        self.listening.clone()
    }

    /// Client connections that are open, tunnels included.
    pub fn connections(&self) -> usize {
        self.common.connections.load(Ordering::Acquire)
    }

    /// UDP sessions that are open.
    pub fn sessions(&self) -> usize {
        self.common.sessions.load(Ordering::Acquire)
    }

    /// Returns once draining has begun, nothing is accepted, and no client connection and no UDP
    /// session is open.
    pub async fn drained(&self) {
        self.common.lifecycle.reached(Phase::Draining).await;
        let accepts = || {
            self.common.accepting.load(Ordering::Acquire) > 0 || !self.listening.borrow().is_empty()
        };
        while accepts() || self.connections() > 0 || self.sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for all threads to end, which they do at [`Phase::Stopped`].
    pub fn join(self) {
        for thread in self.threads {
            // A thread that panicked has ended the process.
            let _ = thread.join();
        }
    }
}
