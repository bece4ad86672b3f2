//! What the metrics and the access log will say of one exchange.
//!
//! It travels with the exchange, from the head to the last byte of the answer, and reports
//! when it is dropped: so nothing is counted twice, and what is cut short is counted too.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::clock;
use super::conn::Held;
use super::forwarded::REQUEST_ID;
use super::server::Client;
use super::worker::Graph;
use crate::graph::stats::Counts;
use crate::graph::{BackendId, BackendKey, RouteStats, RuleId, RuleName};
use crate::policy::RequestHead;
use crate::reason::Reason;
use crate::telemetry::{Outcome, Record};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The status that the log gives for a client that left before there was one.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// See the module's documentation.
#[derive(Debug)]
pub struct Journey {
    pub client: Rc<Client>,
    pub start: Instant,
    pub start_ms: u64,
    pub protocol: Version,
    pub method: Method,
    pub host: Box<str>,
    pub path: Box<str>,
    request_id: Option<HeaderValue>,
    pub client_ip: IpAddr,
    pub fields: Fields,
    pub consumer: Option<Box<str>>,
    pub status: Option<StatusCode>,
    /// The request speaks gRPC, and how the call ended.
    pub is_grpc: bool,
    pub grpc_status: Option<u8>,
    pub reason: Option<Reason>,
    pub section: Option<Arc<str>>,
    pub route: Route,
    pub endpoint: Option<SocketAddr>,
    pub attempts: u32,
    pub upstream: Option<Duration>,
    pub received: u64,
    pub sent: u64,
    /// The connection has work as long as this lives.
    _held: Held,
}

/// Fields of the request that the log repeats.
#[derive(Debug, Default)]
pub struct Fields {
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl Fields {
    fn of(headers: &HeaderMap) -> Self {
        Fields {
            user_agent: headers.get(USER_AGENT).cloned(),
            referer: headers.get(REFERER).cloned(),
            traceparent: headers.get(TRACEPARENT).cloned(),
        }
    }
}

/// Where a request went.
#[derive(Debug)]
pub enum Route {
    None,
    InGraph {
        graph: Graph,
        rule: RuleId,
        backend: Option<BackendId>,
    },
    /// Taken out of the graph, so that an exchange of hours does not keep an old one in memory.
    Detached {
        rule: RuleName,
        stats: Arc<RouteStats>,
        backend: Option<BackendKey>,
    },
}

impl Route {
    pub fn set_backend(&mut self, to: BackendId) {
        if let Route::InGraph { backend, .. } = self {
            *backend = Some(to);
        }
    }

    /// Lets go of the graph.
    pub fn detach(&mut self) {
        if let Route::InGraph { graph, rule, backend } = self {
            let rule = &graph[*rule];
            *self = Route::Detached {
                rule: rule.name.clone(),
                stats: Arc::clone(&rule.stats),
                backend: backend.map(|id| graph[id].key.clone()),
            };
        }
    }

    fn parts(&self) -> (Option<&RuleName>, Option<&RouteStats>, Option<&BackendKey>) {
        match self {
            Route::None => (None, None, None),
            Route::InGraph { graph, rule, backend } => {
                let rule = &graph[*rule];
                (Some(&rule.name), Some(&rule.stats), backend.map(|id| &graph[id].key))
            }
            Route::Detached { rule, stats, backend } => (Some(rule), Some(stats), backend.as_ref()),
        }
    }
}

impl Journey {
    pub fn begin(client: &Rc<Client>, method: Method, protocol: Version) -> Box<Self> {
        let start = Instant::now();
        clock::ms_of(start);
        Box::new(Journey {
            client: Rc::clone(client),
            start,
            start_ms: clock::unix_ms_at(start),
            protocol,
            method,
            host: Box::default(),
            path: Box::default(),
            request_id: None,
            client_ip: client.peer.ip().to_canonical(),
            fields: Fields::default(),
            consumer: None,
            status: None,
            is_grpc: false,
            grpc_status: None,
            reason: None,
            section: None,
            route: Route::None,
            endpoint: None,
            attempts: 0,
            upstream: None,
            received: 0,
            sent: 0,
            _held: Held::new(&client.timeline),
        })
    }

    /// Notes a head that was accepted, as the client sent it, if somebody is going to read it.
    pub fn note(&mut self, head: &RequestHead) {
        if !self.client.worker.telemetry.logs() {
            return;
        }
        self.host = head.host.clone();
        self.path = head.path.clone();
        self.request_id = head.headers.get(REQUEST_ID).cloned();
        self.fields = Fields::of(&head.headers);
    }
}

fn text(value: &Option<HeaderValue>) -> Option<&str> {
    value.as_ref().and_then(|value| value.to_str().ok())
}

impl Drop for Journey {
    fn drop(&mut self) {
        let client = &*self.client;
        let reason = match self.status {
            None => {
                client.timeline.give_up_request();
                self.reason.or(Some(Reason::ClientGone))
            }
            Some(_) => self.reason,
        };
        let (rule, stats, backend) = self.route.parts();
        let counts = Counts {
            status: self.status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16()),
            duration: self.start.elapsed(),
            upstream: self.upstream,
            bytes_received: self.received,
            bytes_sent: self.sent,
        };
        let outcome = Outcome { counts, reason, protocol: self.protocol, stats };
        client.worker.telemetry.request_done(&outcome, || Record {
            start_ms: self.start_ms,
            request_id: text(&self.request_id).unwrap_or_default(),
            client_ip: self.client_ip,
            peer: client.peer,
            method: &self.method,
            scheme: client.scheme(),
            host: &self.host,
            path: &self.path,
            grpc_status: self.grpc_status.filter(|_| self.is_grpc),
            listener_port: client.public_port,
            section: self.section.as_deref().unwrap_or_default(),
            rule,
            backend,
            endpoint: self.endpoint,
            attempts: self.attempts,
            user_agent: text(&self.fields.user_agent),
            referer: text(&self.fields.referer),
            traceparent: text(&self.fields.traceparent),
            tls_version: client.tls.as_ref().and_then(|tls| tls.version),
            sni: client.sni(),
            consumer: self.consumer.as_deref(),
        });
    }
}
