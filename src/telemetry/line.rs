//! How a line of the access log looks, as JSON or as text.
//!
//! Everything is appended to the worker's text in place: no part is a string of its own. The
//! query of a request is not logged, because secrets stand there.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Outcome, Record};
use crate::graph::{BackendKey, RuleName};

/// Writes moments as RFC 3339 does, and the date only once a second.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: Cell<u64>,
    /// Up to the seconds of `second`; empty before the first.
    text: RefCell<String>,
}

impl Clock {
    /// Appends a moment, in milliseconds since the Unix epoch.
    pub fn write(&self, out: &mut String, ms: u64) {
        let second = ms / 1000;
        let mut text = self.text.borrow_mut();
        if text.is_empty() || self.second.get() != second {
            self.second.set(second);
            let moment = i64::try_from(second).map(jiff::Timestamp::from_second);
            let moment = moment.ok().and_then(Result::ok).unwrap_or_default();
            *text = format!("{moment:.0}");
            text.pop();
        }
        out.push_str(&text);
        out.push('.');
        push_digits(out, ms % 1000, 3);
        out.push('Z');
    }
}

/// Appends a whole number.
fn push_number(out: &mut String, number: u64) {
    push_digits(out, number, 1);
}

/// Appends a whole number with at least so many digits, at most 20.
fn push_digits(out: &mut String, mut number: u64, least: usize) {
    let mut text = [b'0'; 20];
    let mut begin = text.len();
    for (at, digit) in text.iter_mut().enumerate().rev() {
        if number == 0 {
            break;
        }
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        begin = at;
    }
    let begin = begin.min(text.len() - least);
    out.push_str(str::from_utf8(&text[begin..]).expect("decimal digits are ASCII"));
}

/// Appends an address; the formatter of the standard library is left to the rarer kind.
fn push_ip(out: &mut String, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            push_number(out, a.into());
            for part in [b, c, d] {
                out.push('.');
                push_number(out, part.into());
            }
        }
        // Writing to a string does not fail.
        IpAddr::V6(ip) => write!(out, "{ip}").unwrap_or_default(),
    }
}

/// Appends an address and a port.
fn push_socket(out: &mut String, addr: SocketAddr) {
    match addr {
        SocketAddr::V4(addr) => {
            push_ip(out, IpAddr::V4(*addr.ip()));
            out.push(':');
            push_number(out, addr.port().into());
        }
        SocketAddr::V6(addr) => write!(out, "{addr}").unwrap_or_default(),
    }
}

/// Whether a text can stand in a line as it is, whatever the format. Looks at all of it, so that
/// the compiler can make it many bytes at a time.
fn is_plain(value: &str) -> bool {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\');
    value.bytes().fold(true, |all, byte| all & is_plain(byte))
}

/// Appends a text with escapes for what could end or forge a line.
fn push_escaped(out: &mut String, value: &str) {
    if is_plain(value) {
        out.push_str(value);
    } else {
        out.extend(value.escape_debug());
    }
}

/// Appends milliseconds with three decimals.
pub(super) fn push_ms(out: &mut String, duration: Duration) {
    let us = u64::try_from((duration.as_nanos() + 500) / 1000).unwrap_or(u64::MAX);
    push_number(out, us / 1000);
    out.push('.');
    push_digits(out, us % 1000, 3);
}

/// Without the IPv6 form that IPv4 clients have on sockets for both.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn protocol(outcome: &Outcome<'_>) -> &'static str {
    match outcome.protocol {
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_11 => "HTTP/1.1",
        _ => "HTTP/1.0",
    }
}

/// Appends one JSON object, field by field.
pub(super) struct Json<'o> {
    out: &'o mut String,
    is_first: bool,
}

impl<'o> Json<'o> {
    pub fn new(out: &'o mut String) -> Self {
        Json { out, is_first: true }
    }

    pub fn end(self) {
        self.out.push_str("}\n");
    }

    #[inline]
    fn key(&mut self, key: &str) {
        self.out.push_str(if self.is_first { "{\"" } else { ",\"" });
        self.is_first = false;
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    #[inline]
    pub fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        self.out.push('"');
        self.escaped(value);
        self.out.push('"');
    }

    /// A string of several parts.
    fn parts(&mut self, key: &str, parts: &[&str]) {
        self.key(key);
        self.out.push('"');
        parts.iter().for_each(|part| self.escaped(part));
        self.out.push('"');
    }

    /// As RFC 8259 asks.
    fn escaped(&mut self, value: &str) {
        if is_plain(value) {
            return self.out.push_str(value);
        }
        for c in value.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                c if c.is_control() => {
                    let _ = write!(self.out, "\\u{:04x}", u32::from(c));
                }
                c => self.out.push(c),
            }
        }
    }

    pub fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    #[inline]
    pub fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        push_number(self.out, value);
    }

    #[inline]
    pub fn ms(&mut self, key: &str, value: Duration) {
        self.key(key);
        push_ms(self.out, value);
    }

    /// What needs no escaping.
    fn quoted(&mut self, key: &str, write: impl FnOnce(&mut String)) {
        self.key(key);
        self.out.push('"');
        write(self.out);
        self.out.push('"');
    }

    pub fn moment(&mut self, key: &str, clock: &Clock, ms: u64) {
        self.quoted(key, |out| clock.write(out, ms));
    }

    /// The client's address, and the one of the other end of its connection.
    pub fn who(&mut self, client: IpAddr, peer: SocketAddr) {
        self.quoted("remote_addr", |out| push_ip(out, client));
        self.quoted("peer", |out| push_socket(out, canonical(peer)));
    }

    /// Where something went.
    pub fn place(
        &mut self,
        rule: Option<&RuleName>,
        backend: Option<&BackendKey>,
        endpoint: Option<SocketAddr>,
        attempts: u32,
    ) {
        if let Some(name) = rule {
            self.parts("route", &[name.kind, "/", &name.namespace, "/", &name.name]);
            self.string("rule", &name.rule);
        }
        if let Some(backend) = backend {
            self.parts("backend", &[&backend.namespace, "/", &backend.service, ":"]);
            self.out.pop();
            push_number(self.out, backend.port.into());
            self.out.push('"');
        }
        if let Some(endpoint) = endpoint {
            self.quoted("endpoint", |out| push_socket(out, endpoint));
        }
        if attempts > 0 {
            self.number("attempts", attempts.into());
        }
    }
}

pub(super) fn json(out: &mut String, clock: &Clock, outcome: &Outcome<'_>, record: &Record<'_>) {
    let counts = &outcome.counts;
    let mut line = Json::new(out);
    line.moment("timestamp", clock, record.start_ms);
    line.string("request_id", record.request_id);
    line.who(record.client_ip, record.peer);
    line.string("method", record.method.as_str());
    line.string("scheme", record.scheme.as_str());
    line.string("host", record.host);
    line.string("path", record.path);
    line.string("protocol", protocol(outcome));
    line.number("status", counts.status.into());
    line.optional("reason", outcome.reason.map(|r| r.as_str()));
    if let Some(code) = record.grpc_status {
        line.number("grpc_status", code.into());
    }
    line.ms("latency_ms", counts.duration);
    if let Some(upstream) = counts.upstream {
        line.ms("upstream_latency_ms", upstream);
    }
    line.number("bytes_received", counts.bytes_received);
    line.number("bytes_sent", counts.bytes_sent);
    line.number("port", record.listener_port.into());
    line.string("listener", record.section);
    line.place(record.rule, record.backend, record.endpoint, record.attempts);
    line.optional("user_agent", record.user_agent);
    line.optional("referer", record.referer);
    line.optional("traceparent", record.traceparent);
    line.optional("tls_version", record.tls_version);
    line.optional("sni", record.sni);
    line.optional("consumer", record.consumer);
    line.end();
}

/// `TIME ADDR "METHOD SCHEME://HOST/PATH PROTOCOL" STATUS BYTES LATENCYms …`
pub(super) fn text(out: &mut String, clock: &Clock, outcome: &Outcome<'_>, record: &Record<'_>) {
    let counts = &outcome.counts;
    clock.write(out, record.start_ms);
    out.push(' ');
    push_ip(out, record.client_ip);
    push_all(out, &[" \"", record.method.as_str(), " ", record.scheme.as_str(), "://"]);
    push_escaped(out, record.host);
    push_escaped(out, record.path);
    push_all(out, &[" ", protocol(outcome), "\" "]);
    push_number(out, counts.status.into());
    out.push(' ');
    push_number(out, counts.bytes_sent);
    out.push(' ');
    push_ms(out, counts.duration);
    out.push_str("ms");
    if let Some(name) = record.rule {
        push_all(out, &[" ", name.kind, "/", &name.namespace, "/", &name.name]);
    }
    if let Some(endpoint) = record.endpoint {
        out.push_str(" -> ");
        push_socket(out, endpoint);
    }
    if let Some(reason) = outcome.reason {
        push_all(out, &[" ", reason.as_str()]);
    }
    out.push(' ');
    push_escaped(out, record.request_id);
    out.push('\n');
}

fn push_all(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::{outcome, record};

    fn line(path: &str, write: fn(&mut String, &Clock, &Outcome<'_>, &Record<'_>)) -> String {
        let mut out = String::new();
        write(&mut out, &Clock::default(), &outcome(), &record(path));
        out
    }

    #[test]
    fn a_json_line_is_one_valid_object_with_the_promised_fields() {
        let line = line("/x", json);
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["remote_addr"], "192.0.2.1");
        assert_eq!(value["peer"], "192.0.2.1:4711");
        assert_eq!(value["user_agent"], "a\"b\\c\u{7}");
        assert_eq!(value["latency_ms"], 1.234);
        assert_eq!(value["upstream_latency_ms"], 1.0);
        assert_eq!(value["status"], 429);
        assert_eq!(value["endpoint"], "[2001:db8::1]:80");
        for field in
            ["request_id", "method", "path", "bytes_sent", "bytes_received", "consumer", "reason"]
        {
            assert!(!value[field].is_null(), "no {field} in {line}");
        }
    }

    #[test]
    fn a_line_break_in_a_path_cannot_forge_a_line() {
        for write in [json, text] {
            assert_eq!(line("/a\nb", write).matches('\n').count(), 1);
        }
    }

    #[test]
    fn a_text_line_begins_with_time_client_and_request() {
        let line = line("/x", text);
        let begin = "2023-11-14T22:13:20.123Z 192.0.2.1 \"GET http://a.example.com/x HTTP/1.1\" \
                     429 11 1.234ms -> [2001:db8::1]:80 RateLimited id\n";
        assert_eq!(line, begin);
    }

    #[test]
    fn what_could_forge_a_line_is_escaped_and_nothing_else() {
        let escaped = |value: &str| {
            let mut out = String::new();
            push_escaped(&mut out, value);
            out
        };
        assert_eq!(escaped(" /a~?%20"), " /a~?%20");
        assert_eq!(escaped("\u{7f}\"\\'\n\u{e9}"), "\\u{7f}\\\"\\\\\\'\\n\u{e9}");
        let line = line("it's \u{e9}\u{7f}", json);
        assert!(line.contains("\"path\":\"it's \u{e9}\\u007f\""), "{line}");
    }

    #[test]
    fn addresses_look_as_the_standard_library_writes_them() {
        for text in ["0.0.0.0:0", "255.10.9.100:65535", "[::1]:80", "[::ffff:192.0.2.1]:443"] {
            let addr: SocketAddr = text.parse().unwrap();
            let mut out = String::new();
            push_socket(&mut out, addr);
            out.push(' ');
            push_ip(&mut out, addr.ip());
            assert_eq!(out, format!("{addr} {}", addr.ip()));
        }
    }

    #[test]
    fn numbers_and_moments_have_their_digits() {
        let mut out = String::new();
        for number in [0, 9, 10, 1_234_567, u64::MAX] {
            push_number(&mut out, number);
            out.push(' ');
        }
        assert_eq!(out, format!("0 9 10 1234567 {} ", u64::MAX));
        let clock = Clock::default();
        let moment = |ms| {
            let mut out = String::new();
            clock.write(&mut out, ms);
            out
        };
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(moment(1_700_000_001_100), "2023-11-14T22:13:21.100Z");
        let mut out = String::new();
        push_ms(&mut out, Duration::from_nanos(61_000_001_400));
        assert_eq!(out, "61000.001");
    }
}
