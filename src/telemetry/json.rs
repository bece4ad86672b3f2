//! The access log's lines as JSON: one object each, and what requests and streams have in common
//! under the same names.

use std::net::SocketAddr;
use std::time::Duration;

use super::append::{Clock, Page};
use super::record::{Outcome, Place, Record, StreamRecord};
use crate::policy::Kind;
use crate::reason::Reason;

/// The end of one member and the name of the next, as one constant.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// The same, up to the string that follows.
macro_rules! text {
    ($name:literal) => {
        concat!(",\"", $name, "\":\"")
    };
}

pub fn request(out: &mut Page, clock: &Clock, outcome: &Outcome<'_>, record: &Record<'_>) {
    let counts = &outcome.counts;
    begin(out, clock, &record.place);
    string(out, text!("request_id"), record.request_id);
    string(out, text!("method"), record.method.as_str());
    constant(out, text!("scheme"), record.scheme.as_str());
    string(out, text!("host"), record.host);
    string(out, text!("path"), record.path);
    constant(out, text!("protocol"), outcome.protocol());
    number(out, name!("status"), counts.status.into());
    if let Some(code) = record.grpc_status {
        number(out, name!("grpc_status"), code.into());
    }
    course(out, counts.duration, counts.upstream, outcome.reason);
    number(out, name!("bytes_received"), counts.bytes_received);
    number(out, name!("bytes_sent"), counts.bytes_sent);
    optional(out, text!("user_agent"), record.user_agent);
    optional(out, text!("referer"), record.referer);
    optional(out, text!("traceparent"), record.traceparent);
    optional(out, text!("consumer"), record.consumer);
    shadow(out, record.shadow);
    end(out, &record.place);
}

pub fn stream(out: &mut Page, clock: &Clock, record: &StreamRecord<'_>) {
    begin(out, clock, &record.place);
    constant(out, text!("protocol"), record.kind.as_str());
    course(out, record.duration, record.upstream, record.reason);
    number(out, name!("bytes_received"), record.bytes_received);
    number(out, name!("bytes_sent"), record.bytes_sent);
    end(out, &record.place);
}

/// When, and from whom: the client's address, and the other end of its connection.
fn begin(out: &mut Page, clock: &Clock, place: &Place<'_>) {
    out.push("{\"timestamp\":\"");
    clock.write(out, place.start_ms);
    out.push(concat!("\"", text!("remote_addr")));
    out.ip(place.client_ip);
    out.push(concat!("\"", text!("peer")));
    out.socket(canonical(place.peer));
    out.push("\"");
}

/// How it went.
fn course(out: &mut Page, duration: Duration, upstream: Option<Duration>, reason: Option<Reason>) {
    if let Some(reason) = reason {
        constant(out, text!("reason"), reason.as_str());
    }
    out.push(name!("latency_ms"));
    out.ms(duration);
    if let Some(upstream) = upstream {
        out.push(name!("upstream_latency_ms"));
        out.ms(upstream);
    }
}

/// Which policies in Shadow mode would have answered: `ip_access:IpDenied,…`.
fn shadow(out: &mut Page, answers: &[(Kind, Reason)]) {
    let Some(((kind, reason), others)) = answers.split_first() else { return };
    out.push(text!("shadow"));
    for part in [kind.as_str(), ":", reason.as_str()] {
        out.push(part);
    }
    for (kind, reason) in others {
        for part in [",", kind.as_str(), ":", reason.as_str()] {
            out.push(part);
        }
    }
    out.push("\"");
}

/// By which listener it came, and where it went.
fn end(out: &mut Page, place: &Place<'_>) {
    number(out, name!("port"), place.listener_port.into());
    string(out, text!("listener"), place.section);
    if let Some(name) = place.rule {
        out.push(text!("route"));
        out.push(name.kind);
        out.push("/");
        out.json(name.namespace.as_bytes());
        out.push("/");
        out.json(name.name.as_bytes());
        out.push("\"");
        string(out, text!("rule"), &*name.rule);
    }
    if let Some(backend) = place.backend {
        out.push(text!("backend"));
        out.json(backend.namespace.as_bytes());
        out.push("/");
        out.json(backend.service.as_bytes());
        out.push(":");
        out.number(backend.port.into());
        out.push("\"");
    }
    if let Some(endpoint) = place.endpoint {
        out.push(text!("endpoint"));
        out.socket(endpoint);
        out.push("\"");
    }
    if place.attempts > 0 {
        number(out, name!("attempts"), place.attempts.into());
    }
    optional(out, text!("tls_version"), place.tls_version);
    optional(out, text!("sni"), place.sni);
    out.push("}\n");
}

/// A member whose text is the client's or an object's.
#[inline(always)]
fn string(out: &mut Page, name: &str, text: impl AsRef<[u8]>) {
    out.push(name);
    out.json(text.as_ref());
    out.push("\"");
}

/// A member whose text is one of our own, which needs no escapes.
#[inline(always)]
fn constant(out: &mut Page, name: &str, text: &'static str) {
    out.push(name);
    out.push(text);
    out.push("\"");
}

#[inline(always)]
fn optional(out: &mut Page, name: &str, text: Option<impl AsRef<[u8]>>) {
    if let Some(text) = text {
        string(out, name, text);
    }
}

#[inline(always)]
fn number(out: &mut Page, name: &str, number: u64) {
    out.push(name);
    out.number(number);
}

/// Without the IPv6 form that IPv4 clients have on sockets for both.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::{outcome, record, stream_record};

    fn parsed(line: &[u8]) -> serde_json::Value {
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(line).unwrap()
    }

    fn request_line(path: &str) -> serde_json::Value {
        let mut line = Page::default();
        request(&mut line, &Clock::default(), &outcome(), &record(path));
        parsed(line.filled())
    }

    fn stream_line(sni: &str) -> serde_json::Value {
        let mut line = Page::default();
        stream(&mut line, &Clock::default(), &stream_record(Some(sni)));
        parsed(line.filled())
    }

    #[test]
    fn a_line_is_one_valid_object_with_the_promised_members() {
        let value = request_line("/x");
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["remote_addr"], "192.0.2.1");
        assert_eq!(value["peer"], "192.0.2.1:4711");
        assert_eq!(value["user_agent"], "a\"b\\c\u{7}");
        assert_eq!(value["latency_ms"], 1.234);
        assert_eq!(value["upstream_latency_ms"], 1.0);
        assert_eq!(value["status"], 429);
        assert_eq!(value["route"], "HTTPRoute/default/a");
        assert_eq!(value["backend"], "default/b:8080");
        assert_eq!(value["endpoint"], "[2001:db8::1]:80");
        assert_eq!(value["shadow"], "ip_access:IpDenied,rate_limit:RateLimited");
        for name in [
            "request_id",
            "method",
            "scheme",
            "host",
            "path",
            "protocol",
            "bytes_sent",
            "bytes_received",
            "port",
            "listener",
            "rule",
            "attempts",
            "consumer",
            "reason",
        ] {
            assert!(!value[name].is_null(), "no {name} in {value}");
        }
    }

    #[test]
    fn a_stream_has_the_names_that_a_request_has() {
        let (stream, request) = (stream_line("a.\"example"), request_line("/"));
        assert_eq!(stream["protocol"], "TLS");
        assert_eq!(stream["timestamp"], "2023-11-14T22:13:20.123Z");
        assert_eq!(stream["sni"], "a.\"example");
        assert_eq!(stream["peer"], "192.0.2.1:4711");
        assert_eq!((&stream["bytes_received"], &stream["bytes_sent"]), (&3.into(), &5.into()));
        assert_eq!(stream["reason"], "NoRoute");
        for name in stream.as_object().unwrap().keys().filter(|name| *name != "sni") {
            assert!(request.get(name).is_some(), "a request has no {name}");
        }
    }

    #[test]
    fn a_line_break_in_a_path_or_a_name_cannot_forge_a_line() {
        assert_eq!(request_line("/a\nb")["path"], "/a\nb");
        assert_eq!(stream_line("a\nb")["sni"], "a\nb");
    }
}
