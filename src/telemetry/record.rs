//! What is told of a request or a stream that ended: the counters take some of it, a line of the
//! access log all.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Method;

use crate::graph::stats::Counts;
use crate::graph::{BackendKey, RouteStats, RuleName};
use crate::policy::consumer::Consumer;
use crate::policy::{Kind, Scheme};
use crate::reason::Reason;

/// What the counters want to know of a finished request.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    pub counts: Counts,
    pub reason: Option<Reason>,
    pub protocol: http::Version,
    /// The counters of the rule's route.
    pub stats: Option<&'a RouteStats>,
    /// Who asked, if it is a Consumer.
    pub consumer: Option<&'a Consumer>,
}

impl Outcome<'_> {
    pub(super) fn protocol(&self) -> &'static str {
        match self.protocol {
            http::Version::HTTP_2 => "HTTP/2",
            http::Version::HTTP_11 => "HTTP/1.1",
            _ => "HTTP/1.0",
        }
    }
}

/// What the access log wants to know besides.
#[derive(Debug)]
pub struct Record<'a> {
    pub place: Place<'a>,
    /// Fields of its head are bytes, as they came.
    pub request_id: &'a [u8],
    pub method: &'a Method,
    pub scheme: Scheme,
    pub host: &'a str,
    /// Without the query, which may hold secrets.
    pub path: &'a str,
    /// How a gRPC call ended.
    pub grpc_status: Option<u8>,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
    pub traceparent: Option<&'a [u8]>,
    pub consumer: Option<&'a str>,
    /// Which policies in Shadow mode would have answered, and why.
    pub shadow: &'a [(Kind, Reason)],
}

/// A finished stream: one connection, or one UDP session.
#[derive(Debug)]
pub struct StreamRecord<'a> {
    pub place: Place<'a>,
    pub kind: StreamKind,
    pub duration: Duration,
    /// From its beginning to the connection with the backend.
    pub upstream: Option<Duration>,
    /// Why it was refused or cut; none if both sides ended it.
    pub reason: Option<Reason>,
    /// The counters of the rule's route.
    pub stats: Option<&'a RouteStats>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

/// Where a request or a stream came from, when, and where it went.
#[derive(Debug)]
pub struct Place<'a> {
    /// Milliseconds since the Unix epoch: when the head of a request was complete, or a stream
    /// began.
    pub start_ms: u64,
    /// Who it is for, behind trusted proxies.
    pub client_ip: IpAddr,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The port that users connect to.
    pub listener_port: u16,
    pub section: &'a str,
    pub rule: Option<&'a RuleName>,
    pub backend: Option<&'a BackendKey>,
    pub endpoint: Option<SocketAddr>,
    pub attempts: u32,
    pub tls_version: Option<&'static str>,
    pub sni: Option<&'a str>,
}

/// What a stream was carried by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    Tcp,
    Tls,
    Udp,
}

impl StreamKind {
    pub const ALL: [StreamKind; 3] = [StreamKind::Tcp, StreamKind::Tls, StreamKind::Udp];

    pub const fn as_str(self) -> &'static str {
        match self {
            StreamKind::Tcp => "TCP",
            StreamKind::Tls => "TLS",
            StreamKind::Udp => "UDP",
        }
    }
}
