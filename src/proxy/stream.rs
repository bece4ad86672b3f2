//! Connections that carry bytes and not HTTP: TCP, and TLS that is ended here or by a backend.
//!
//! One connection meets one rule and one endpoint, for as long as it lives. Which connections
//! come here is decided in `server`; carrying the bytes is in `carry`, datagrams are in `udp`.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use super::balance::{InFlight, Tried, avoid, pick};
use super::carry::carry;
use super::connect;
use super::handle::choose;
use super::hello;
use super::passage::Passage;
use super::peeked::Peeked;
use super::tls;
use super::wire::Wire;
use super::worker::{Graph, Worker};
use crate::graph::{
    Action, Backend, Listener, ListenerTls, Protocol, RouteGraph, Rule, Stream, TlsUse,
};
use crate::reason::Reason;
use crate::telemetry::StreamKind;

/// How many endpoints are tried if connecting fails.
const MOST_ENDPOINTS: usize = 3;

/// A connection that was accepted.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub worker: Rc<Worker>,
    /// Of the moment in which it was accepted: everything about it is found in here, as a part
    /// of one graph means nothing in another.
    pub graph: Graph,
    pub peer: SocketAddr,
    /// The port that users connect to.
    pub public_port: u16,
}

/// What a TLS connection turned out to be.
#[derive(Debug)]
pub enum Sorted {
    /// Its TLS is to be ended, for HTTP.
    Http(Peeked),
    Stream(Box<TlsArrival>),
    /// It got its answer.
    Refused,
}

/// A TLS connection that is a stream's.
#[derive(Debug)]
pub struct TlsArrival {
    arrival: Arrival,
    client: Peeked,
    server_name: Option<Box<str>>,
    stream: Arc<Stream>,
    /// None: the backend ends it.
    end_here: Option<Arc<ServerConfig>>,
    /// Until when the handshake must be done.
    deadline: Instant,
}

impl Arrival {
    /// Serves a TCP connection to its end.
    pub async fn tcp(self, stream: Arc<Stream>, client: TcpStream) {
        let passage = self.begin(StreamKind::Tcp);
        self.serve(stream, "", Wire::plain(client), passage).await;
    }

    /// Reads the server name of a TLS connection and says whose it is. Only for ports that have
    /// streams.
    pub async fn sort(self, listener: &Listener, mut client: TcpStream) -> Sorted {
        let Protocol::Tls(tls) = &listener.protocol else { return Sorted::Refused };
        let deadline = Instant::now() + self.worker.config.limits.handshake_timeout;
        let hello = match timeout_at(deadline.into(), hello::read(&mut client)).await {
            Ok(Ok(hello)) => hello,
            failed => {
                self.worker.telemetry.handshake_failed(self.public_port);
                let error = failed.err().map_or_else(|| "broken".to_owned(), |e| e.to_string());
                tracing::debug!(error, peer = %self.peer, "a TLS client did not say hello");
                return Sorted::Refused;
            }
        };
        let name = hello.server_name.as_deref();
        let (stream, end_here) = match purpose(listener, name) {
            Some(TlsUse::Http) => return Sorted::Http(Peeked::new(hello.bytes, client)),
            Some(TlsUse::Terminate(stream)) => (stream, Some(stream_config(tls))),
            Some(TlsUse::Passthrough(stream)) => (stream, None),
            None => {
                let mut passage = self.begin(StreamKind::Tls);
                passage.sni = hello.server_name;
                // Closed without an alert: clients see the same as where nobody listens, and the
                // conformance suite takes nothing else for a refusal.
                passage.reason = Some(Reason::NoRoute);
                return Sorted::Refused;
            }
        };
        Sorted::Stream(Box::new(TlsArrival {
            client: Peeked::new(hello.bytes, client),
            server_name: hello.server_name,
            stream: Arc::clone(stream),
            end_here,
            deadline,
            arrival: self,
        }))
    }

    fn begin(&self, kind: StreamKind) -> Passage {
        Passage::begin(&self.worker, kind, self.peer, self.public_port)
    }

    /// Connects a client to the backend of its rule, and carries bytes until both have ended.
    async fn serve(self, stream: Arc<Stream>, name: &str, mut client: Wire, mut passage: Passage) {
        let Arrival { worker, graph, .. } = self;
        passage.section = Some(Arc::clone(&stream.name));
        let opened = open(&worker, &graph, &stream, name, &mut passage).await;
        // A stream of hours keeps neither the graph nor the listener that it came by.
        drop((graph, stream));
        let (mut backend, in_flight) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                passage.reason = Some(reason);
                return reset(client.tcp());
            }
        };
        passage.connected();
        let idle = worker.config.limits.stream_idle;
        let ended = carry(&mut client, &mut backend, &passage.progress, idle).await;
        passage.reason = ended.err();
        if ended.is_err() {
            reset(client.tcp());
            reset(backend.tcp());
        }
        drop(in_flight);
    }
}

/// What a connection for this server name is for.
fn purpose<'l>(listener: &'l Listener, name: Option<&str>) -> Option<&'l TlsUse> {
    match (listener.streams.matching(name.unwrap_or_default()).next(), name) {
        // Clients without a name get a certificate from HTTP listeners, as if there were no
        // streams beside them.
        (None, None) if !listener.sections.is_empty() => Some(&TlsUse::Http),
        (found, _) => found,
    }
}

fn stream_config(tls: &ListenerTls) -> Arc<ServerConfig> {
    Arc::clone(&tls.stream_config)
}

impl TlsArrival {
    /// Serves the connection to its end.
    pub async fn run(self) {
        let TlsArrival { arrival, client, server_name, stream, end_here, deadline } = self;
        let mut passage = arrival.begin(StreamKind::Tls);
        let name = server_name.clone().unwrap_or_default();
        passage.sni = server_name;
        // Without a route there is nothing to shake hands for.
        let Some(config) = end_here.filter(|_| stream.find(&name).is_some()) else {
            return arrival.serve(stream, &name, Wire::plain(client), passage).await;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match tls::accept(client, &config, false, left).await {
            Ok((client, tls)) => {
                passage.secured(&tls);
                drop(config);
                arrival.serve(stream, &name, Wire::tls(client), passage).await;
            }
            Err(error) => {
                passage.section = Some(Arc::clone(&stream.name));
                passage.reason = Some(Reason::ClientGone);
                arrival.worker.telemetry.handshake_failed(arrival.public_port);
                tracing::debug!(%error, peer = %arrival.peer, "a TLS handshake failed");
            }
        }
    }
}

/// Lets a socket end with a reset: the other side must not take it for a regular end.
fn reset(tcp: &TcpStream) {
    if let Err(error) = SockRef::from(tcp).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a connection ends without a reset");
    }
}

/// The rule for `name`, its backend, and a connection to one of that's endpoints.
async fn open(
    worker: &Worker,
    graph: &RouteGraph,
    stream: &Stream,
    name: &str,
    passage: &mut Passage,
) -> Result<(Wire, InFlight), Reason> {
    let (rule, backend) = meet(graph, stream, name);
    if let Some(rule) = rule {
        passage.meets(rule);
    }
    let backend = backend?;
    passage.backend = Some(backend.key.clone());
    if worker.common.pressure.is_critical() {
        return Err(Reason::Overloaded);
    }
    let mut tried = Tried::new();
    let mut last = Reason::NoEndpoints;
    while let Some(endpoint) = pick(backend, &tried) {
        if !tried.is_empty() {
            worker.telemetry.upstream_retry();
        }
        passage.endpoint = Some(endpoint.addr);
        passage.attempts += 1;
        let in_flight = InFlight::new(Arc::clone(&endpoint));
        match dial(worker, backend, endpoint.addr).await {
            Ok(transport) => return Ok((transport, in_flight)),
            Err(reason) => last = reason,
        }
        avoid(&endpoint);
        tried.push(endpoint);
        if tried.len() == MOST_ENDPOINTS {
            break;
        }
    }
    Err(last)
}

/// The rule for `name`, and the backend that a new stream is given to; `stream` is a part of
/// `graph`.
pub fn meet<'g>(
    graph: &'g RouteGraph,
    stream: &Stream,
    name: &str,
) -> (Option<&'g Rule>, Result<&'g Backend, Reason>) {
    let Some(rule) = stream.find(name).map(|id| &graph[id]) else {
        return (None, Err(Reason::NoRoute));
    };
    let backend = match &rule.action {
        Action::Refuse(reason) => Err(*reason),
        Action::Forward(split) => choose(split).to.map(|id| &graph[id]),
    };
    (Some(rule), backend)
}

async fn dial(worker: &Worker, backend: &Backend, addr: SocketAddr) -> Result<Wire, Reason> {
    let start = Instant::now();
    let dialed = timeout(backend.connect_timeout, connect::open(addr, &backend.protocol)).await;
    let reason = match &dialed {
        Ok(Ok(_)) => None,
        Ok(Err(_)) => Some(Reason::ConnectFailed),
        Err(_) => Some(Reason::ConnectTimeout),
    };
    worker.telemetry.upstream_connect(reason.is_none(), start.elapsed());
    let dialed = dialed.unwrap_or_else(|late| Err(io::Error::from(late)));
    dialed.map_err(|error| {
        tracing::debug!(%addr, %error, "connecting to an endpoint failed");
        reason.unwrap_or(Reason::ConnectFailed)
    })
}
