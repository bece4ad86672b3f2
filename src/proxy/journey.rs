//! What the metrics and the access log will say of one exchange.
//!
//! It travels with the exchange, from the head to the last byte of the answer, and reports
//! when it is dropped: so nothing is counted twice, and what is cut short is counted too.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, Version};

use super::clock;
use super::conn::Held;
use super::server::Client;
use super::worker::Graph;
use crate::graph::stats::Counts;
use crate::graph::{BackendId, BackendKey, RouteStats, RuleId, RuleName};
use crate::policy::concurrency::Slot;
use crate::policy::identity::Identity;
use crate::policy::{RequestHead, Shadowed};
use crate::reason::Reason;
use crate::telemetry::{Outcome, Place, Record};

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
    pub client_ip: IpAddr,
    pub fields: Fields,
    pub identity: Option<Arc<Identity>>,
    /// Its places in limits of concurrency, which it has until it is dropped.
    pub slots: Vec<Arc<Slot>>,
    /// What policies in Shadow mode would have done.
    shadowed: Option<Box<Shadowed>>,
    pub status: Option<StatusCode>,
    /// The request speaks gRPC, and how the call ended.
    pub is_grpc: bool,
    pub grpc_status: Option<u8>,
    pub reason: Option<Reason>,
    section: Option<Arc<str>>,
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
    /// The request's identifier, if it was made here.
    made_id: Option<[u8; 36]>,
    request_id: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl Fields {
    fn of(head: &RequestHead) -> Self {
        let made_id = head.told.as_ref().and_then(|told| told.id);
        let mut fields = Fields { made_id, ..Fields::default() };
        // One pass is cheaper than a lookup for each: that hashes a name.
        for (name, value) in &head.headers {
            let field = match name.as_str() {
                "x-request-id" => &mut fields.request_id,
                "user-agent" => &mut fields.user_agent,
                "referer" => &mut fields.referer,
                "traceparent" => &mut fields.traceparent,
                _ => continue,
            };
            field.get_or_insert_with(|| value.clone());
        }
        fields
    }

    fn id(&self) -> &[u8] {
        let made = self.made_id.as_ref().map(<[u8; 36]>::as_slice);
        made.or(bytes(&self.request_id)).unwrap_or_default()
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
        let start = clock::now();
        Box::new(Journey {
            client: Rc::clone(client),
            start,
            start_ms: clock::unix_ms_at(start),
            protocol,
            method,
            host: Box::default(),
            path: Box::default(),
            client_ip: client.peer.ip().to_canonical(),
            fields: Fields::default(),
            identity: None,
            slots: Vec::new(),
            shadowed: None,
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

    /// Notes where the listener's section is known, if somebody is going to read it: all workers
    /// share its name, and counting who has it takes it from the others' caches.
    pub fn note_section(&mut self, name: &Arc<str>) {
        if self.client.worker.telemetry.logs() {
            self.section = Some(Arc::clone(name));
        }
    }

    /// Notes what policies in Shadow mode would have done, and counts it.
    pub fn note_shadowed(&mut self, shadowed: Option<Box<Shadowed>>) {
        for (kind, reason) in shadowed.iter().flat_map(|shadowed| &shadowed.answers) {
            self.client.worker.telemetry.policy_would_answer(*kind, *reason);
        }
        self.shadowed = shadowed;
    }

    /// Notes a head that was accepted, as the client sent it, if somebody is going to read it.
    pub fn note(&mut self, head: &RequestHead) {
        if !self.client.worker.telemetry.logs() {
            return;
        }
        self.host = head.host.clone();
        self.path = head.path.clone();
        self.fields = Fields::of(head);
    }
}

fn bytes(value: &Option<HeaderValue>) -> Option<&[u8]> {
    value.as_ref().map(HeaderValue::as_bytes)
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
            duration: clock::now().saturating_duration_since(self.start),
            upstream: self.upstream,
            bytes_received: self.received,
            bytes_sent: self.sent,
        };
        let consumer = self.identity.as_ref().and_then(|who| who.consumer.as_deref());
        let outcome = Outcome { counts, reason, protocol: self.protocol, stats, consumer };
        client.worker.telemetry.request_done(&outcome, || Record {
            place: Place {
                start_ms: self.start_ms,
                client_ip: self.client_ip,
                peer: client.peer,
                listener_port: client.public_port,
                section: self.section.as_deref().unwrap_or_default(),
                rule,
                backend,
                endpoint: self.endpoint,
                attempts: self.attempts,
                tls_version: client.tls.as_ref().and_then(|tls| tls.version),
                sni: client.sni(),
            },
            request_id: self.fields.id(),
            method: &self.method,
            scheme: client.scheme(),
            host: &self.host,
            path: &self.path,
            grpc_status: self.grpc_status.filter(|_| self.is_grpc),
            user_agent: bytes(&self.fields.user_agent),
            referer: bytes(&self.fields.referer),
            traceparent: bytes(&self.fields.traceparent),
            consumer: self.identity.as_ref().map(|who| who.name()),
            shadow: self.shadowed.as_ref().map_or(&[], |shadowed| &shadowed.answers),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::told::{Common, Told};

    #[test]
    fn the_log_repeats_fields_of_the_client_and_the_identifier_that_the_backend_gets() {
        let fields = [("x-request-id", "sent"), ("user-agent", "a"), ("user-agent", "b")];
        let mut head = crate::policy::testing::head("GET", "http://a.example/", &fields);
        let sent = Fields::of(&head);
        assert_eq!((sent.id(), bytes(&sent.user_agent)), (&b"sent"[..], Some(&b"a"[..])));
        let value = HeaderValue::from_static;
        let common = Common::new(value("192.0.2.1"), value("http"), value("80"));
        head.told = Some(Told { common, authority: value("a.example"), id: Some([b'7'; 36]) });
        assert_eq!(Fields::of(&head).id(), [b'7'; 36]);
    }
}
