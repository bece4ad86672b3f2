//! What the metrics and the access log will say of one stream: what [`super::journey`] is for
//! an exchange.
//!
//! It lives as long as the stream does and reports when it is dropped: so nothing is counted
//! twice, and what is cut short is counted too.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::carry::Progress;
use super::clock;
use super::tls::Tls;
use super::worker::Worker;
use crate::graph::{BackendKey, RouteStats, Rule, RuleName};
use crate::reason::Reason;
use crate::telemetry::{Place, StreamKind, StreamRecord};

/// See the module's documentation.
#[derive(Debug)]
pub struct Passage {
    worker: Rc<Worker>,
    kind: StreamKind,
    start: Instant,
    start_ms: u64,
    peer: SocketAddr,
    /// The port that users connect to.
    public_port: u16,
    pub section: Option<Arc<str>>,
    /// The TLS server name.
    pub sni: Option<Box<str>>,
    /// Where TLS was ended here.
    pub tls_version: Option<&'static str>,
    /// Copies, so that a stream of hours does not keep an old graph in memory.
    rule: Option<(RuleName, Arc<RouteStats>)>,
    pub backend: Option<BackendKey>,
    pub endpoint: Option<SocketAddr>,
    pub attempts: u32,
    /// From the beginning to the connection with the backend.
    pub connected: Option<Duration>,
    pub progress: Rc<Progress>,
    /// Set while the stream is open: that it was cut is what remains to be said then.
    pub reason: Option<Reason>,
}

impl Passage {
    pub fn begin(
        worker: &Rc<Worker>,
        kind: StreamKind,
        peer: SocketAddr,
        public_port: u16,
    ) -> Self {
        Passage {
            worker: Rc::clone(worker),
            kind,
            start: Instant::now(),
            start_ms: clock::unix_ms(),
            peer,
            public_port,
            section: None,
            sni: None,
            tls_version: None,
            rule: None,
            backend: None,
            endpoint: None,
            attempts: 0,
            connected: None,
            progress: Rc::default(),
            reason: Some(Reason::Stopped),
        }
    }

    /// TLS was ended here.
    pub fn secured(&mut self, tls: &Tls) {
        self.tls_version = tls.version;
    }

    pub fn meets(&mut self, rule: &Rule) {
        self.rule = Some((rule.name.clone(), Arc::clone(&rule.stats)));
    }

    /// The connection to the endpoint stands.
    pub fn connected(&mut self) {
        self.connected = Some(self.start.elapsed());
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.worker.telemetry.stream_done(&StreamRecord {
            place: Place {
                start_ms: self.start_ms,
                client_ip: self.peer.ip().to_canonical(),
                peer: self.peer,
                listener_port: self.public_port,
                section: self.section.as_deref().unwrap_or_default(),
                rule: self.rule.as_ref().map(|(name, _)| name),
                backend: self.backend.as_ref(),
                endpoint: self.endpoint,
                attempts: self.attempts,
                tls_version: self.tls_version,
                sni: self.sni.as_deref(),
            },
            kind: self.kind,
            duration: self.start.elapsed(),
            upstream: self.connected,
            reason: self.reason,
            stats: self.rule.as_ref().map(|(_, stats)| &**stats),
            bytes_received: self.progress.received.get(),
            bytes_sent: self.progress.sent.get(),
        });
    }
}
