//! Finished streams: connections and UDP sessions that were carried as bytes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::line::{Clock, Json, push_ms};
use crate::graph::{BackendKey, RouteStats, RuleName};
use crate::reason::Reason;

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

/// A finished stream: one connection, or one UDP session.
#[derive(Debug)]
pub struct StreamRecord<'a> {
    pub kind: StreamKind,
    /// Milliseconds since the Unix epoch at which it began.
    pub start_ms: u64,
    pub duration: Duration,
    /// From its beginning to the connection with the backend.
    pub upstream: Option<Duration>,
    pub peer: SocketAddr,
    /// Why it was refused or cut; none if both sides ended it.
    pub reason: Option<Reason>,
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
    pub tls_version: Option<&'static str>,
    pub sni: Option<&'a str>,
}

/// The access log's line of a stream, with the names that a request's has.
pub(super) fn json(out: &mut String, clock: &Clock, record: &StreamRecord<'_>) {
    let mut line = Json::new(out);
    line.moment("timestamp", clock, record.start_ms);
    line.who(record.peer.ip().to_canonical(), record.peer);
    line.string("protocol", record.kind.as_str());
    line.optional("reason", record.reason.map(|r| r.as_str()));
    line.ms("latency_ms", record.duration);
    if let Some(upstream) = record.upstream {
        line.ms("upstream_latency_ms", upstream);
    }
    line.number("bytes_received", record.bytes_received);
    line.number("bytes_sent", record.bytes_sent);
    line.number("port", record.listener_port.into());
    line.string("listener", record.section);
    line.place(record.rule, record.backend, record.endpoint, record.attempts);
    line.optional("tls_version", record.tls_version);
    line.optional("sni", record.sni);
    line.end();
}

/// `TIME ADDR "PROTOCOL LISTENER" RECEIVED SENT LATENCYms SNI ROUTE -> ENDPOINT REASON`
pub(super) fn text(out: &mut String, clock: &Clock, record: &StreamRecord<'_>) {
    let port = format!(":{}", record.listener_port);
    // A connection that is nobody's came to a port all the same.
    let place = if record.section.is_empty() { port.as_str() } else { record.section };
    clock.write(out, record.start_ms);
    let _ = write!(
        out,
        " {} \"{} {}\" {} {} ",
        record.peer.ip().to_canonical(),
        record.kind.as_str(),
        place.escape_debug(),
        record.bytes_received,
        record.bytes_sent,
    );
    push_ms(out, record.duration);
    out.push_str("ms");
    if let Some(sni) = record.sni {
        let _ = write!(out, " {}", sni.escape_debug());
    }
    if let Some(name) = record.rule {
        let _ = write!(out, " {}/{}/{}", name.kind, name.namespace, name.name);
    }
    if let Some(endpoint) = record.endpoint {
        let _ = write!(out, " -> {endpoint}");
    }
    if let Some(reason) = record.reason {
        let _ = write!(out, " {reason}");
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sni: Option<&str>) -> StreamRecord<'_> {
        StreamRecord {
            kind: StreamKind::Tls,
            start_ms: 1_700_000_000_123,
            duration: Duration::from_micros(1_234),
            upstream: None,
            peer: ([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x201], 4711).into(),
            reason: Some(Reason::NoRoute),
            listener_port: 443,
            section: "gateway/ns/gw/tls",
            rule: None,
            stats: None,
            backend: None,
            endpoint: None,
            attempts: 0,
            bytes_received: 3,
            bytes_sent: 5,
            tls_version: None,
            sni,
        }
    }

    #[test]
    fn a_json_line_is_one_valid_object() {
        let mut line = String::new();
        json(&mut line, &Clock::default(), &record(Some("a.\"example")));
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["protocol"], "TLS");
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["sni"], "a.\"example");
        assert_eq!(value["peer"], "192.0.2.1:4711");
        assert_eq!((&value["bytes_received"], &value["bytes_sent"]), (&3.into(), &5.into()));
        assert_eq!(value["reason"], "NoRoute");
    }

    #[test]
    fn a_server_name_cannot_forge_a_text_line() {
        let mut line = String::new();
        text(&mut line, &Clock::default(), &record(Some("a\nb")));
        assert_eq!(line.matches('\n').count(), 1);
    }
}
