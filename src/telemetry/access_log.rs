//! One line a request, as JSON or as text, written by a thread of its own.
//!
//! Workers hand finished lines over a bounded queue and never wait: a line that finds the
//! queue full is dropped and counted. The query of a request is not logged, because secrets
//! stand there.

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::Record;
use super::stream::{self, StreamRecord};
use crate::graph::{BackendKey, RuleName};

/// How many lines may wait for the writer.
const QUEUE: usize = 8_192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Takes lines and never blocks.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    queue: SyncSender<String>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer thread, which ends when the log is dropped and all is written.
    pub fn start(format: Format, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(&lines, out))?;
        Ok(AccessLog { format, queue, lost: Arc::default() })
    }

    /// How many lines were dropped.
    pub fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    pub fn write(&self, record: &Record<'_>) {
        let line = match self.format {
            Format::Json => json(record),
            Format::Text => text(record),
        };
        self.hand_over(line);
    }

    pub fn write_stream(&self, record: &StreamRecord<'_>) {
        let line = match self.format {
            Format::Json => stream::json(record),
            Format::Text => stream::text(record),
        };
        self.hand_over(line);
    }

    fn hand_over(&self, line: String) {
        if self.queue.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes until all senders are gone; what waits together is flushed together. A sink that
/// fails (a closed pipe) loses lines, not requests.
fn write_lines(lines: &Receiver<String>, out: impl Write) {
    let mut out = std::io::BufWriter::with_capacity(64 * 1024, out);
    while let Ok(first) = lines.recv() {
        let _ = out.write_all(first.as_bytes());
        for line in lines.try_iter() {
            let _ = out.write_all(line.as_bytes());
        }
        let _ = out.flush();
    }
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Without the IPv6 form that IPv4 clients have on sockets for both.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Of milliseconds since the Unix epoch.
pub(super) fn timestamp(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map(|t| format!("{t:.3}"))
        .unwrap_or_default()
}

fn protocol(record: &Record<'_>) -> &'static str {
    match record.protocol {
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_11 => "HTTP/1.1",
        _ => "HTTP/1.0",
    }
}

/// Appends `"key":"value"` with the value escaped as RFC 8259 asks.
pub(super) struct Json(String);

impl Json {
    pub fn new() -> Self {
        Json(String::with_capacity(512))
    }

    pub fn end(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }

    fn key(&mut self, key: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        let _ = write!(self.0, "\"{key}\":");
    }

    pub fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push('"');
        for c in value.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                c if c.is_control() => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }

    pub fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    pub fn number(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        let _ = write!(self.0, "{value}");
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
            self.string("route", &format!("{}/{}/{}", name.kind, name.namespace, name.name));
            self.string("rule", &name.rule);
        }
        if let Some(backend) = backend {
            let name = format!("{}/{}:{}", backend.namespace, backend.service, backend.port);
            self.string("backend", &name);
        }
        self.optional("endpoint", endpoint.map(|e| e.to_string()).as_deref());
        if attempts > 0 {
            self.number("attempts", attempts);
        }
    }
}

fn json(record: &Record<'_>) -> String {
    let mut line = Json::new();
    line.string("timestamp", &timestamp(record.start_ms));
    line.string("request_id", record.request_id);
    line.string("remote_addr", &record.client_ip.to_string());
    line.string("peer", &canonical(record.peer).to_string());
    line.string("method", record.method.as_str());
    line.string("scheme", record.scheme.as_str());
    line.string("host", record.host);
    line.string("path", record.path);
    line.string("protocol", protocol(record));
    line.number("status", record.status);
    line.optional("reason", record.reason.map(|r| r.as_str()));
    if let Some(code) = record.grpc_status {
        line.number("grpc_status", code);
    }
    line.number("latency_ms", milliseconds(record.duration));
    if let Some(upstream) = record.upstream {
        line.number("upstream_latency_ms", milliseconds(upstream));
    }
    line.number("bytes_received", record.bytes_received);
    line.number("bytes_sent", record.bytes_sent);
    line.number("port", record.listener_port);
    line.string("listener", record.section);
    line.place(record.rule, record.backend, record.endpoint, record.attempts);
    line.optional("user_agent", record.user_agent);
    line.optional("referer", record.referer);
    line.optional("traceparent", record.traceparent);
    line.optional("tls_version", record.tls_version);
    line.optional("sni", record.sni);
    line.optional("consumer", record.consumer);
    line.end()
}

/// `TIME ADDR "METHOD SCHEME://HOST/PATH PROTOCOL" STATUS BYTES LATENCYms …`
fn text(record: &Record<'_>) -> String {
    let mut line = String::with_capacity(256);
    let _ = write!(
        line,
        "{} {} \"{} {}://{}{} {}\" {} {} {}ms",
        timestamp(record.start_ms),
        record.client_ip,
        record.method,
        record.scheme.as_str(),
        record.host.escape_debug(),
        record.path.escape_debug(),
        protocol(record),
        record.status,
        record.bytes_sent,
        milliseconds(record.duration),
    );
    if let Some(name) = record.rule {
        let _ = write!(line, " {}/{}/{}", name.kind, name.namespace, name.name);
    }
    if let Some(endpoint) = record.endpoint {
        let _ = write!(line, " -> {endpoint}");
    }
    if let Some(reason) = record.reason {
        let _ = write!(line, " {reason}");
    }
    let _ = writeln!(line, " {}", record.request_id.escape_debug());
    line
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::policy::Scheme;
    use crate::reason::Reason;

    fn record<'a>(path: &'a str, method: &'a Method) -> Record<'a> {
        Record {
            start_ms: 1_700_000_000_123,
            duration: Duration::from_micros(1_234),
            upstream: Some(Duration::from_micros(1_000)),
            request_id: "id",
            client_ip: [192, 0, 2, 1].into(),
            peer: ([192, 0, 2, 1], 4711).into(),
            method,
            scheme: Scheme::Http,
            host: "a.example.com",
            path,
            protocol: http::Version::HTTP_11,
            status: 429,
            reason: Some(Reason::RateLimited),
            grpc_status: None,
            listener_port: 80,
            section: "ingress",
            rule: None,
            stats: None,
            backend: None,
            endpoint: None,
            attempts: 0,
            bytes_received: 0,
            bytes_sent: 11,
            user_agent: Some("a\"b\\c\u{7}"),
            referer: None,
            traceparent: None,
            tls_version: None,
            sni: None,
            consumer: Some("alice"),
        }
    }

    #[test]
    fn a_json_line_is_one_valid_object_with_the_promised_fields() {
        let line = json(&record("/x", &Method::GET));
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["remote_addr"], "192.0.2.1");
        assert_eq!(value["user_agent"], "a\"b\\c\u{7}");
        assert_eq!(value["latency_ms"], 1.234);
        for field in [
            "request_id",
            "method",
            "path",
            "status",
            "upstream_latency_ms",
            "bytes_sent",
            "consumer",
            "reason",
        ] {
            assert!(!value[field].is_null(), "no {field} in {line}");
        }
    }

    #[test]
    fn a_line_break_in_a_path_cannot_forge_a_text_line() {
        let line = text(&record("/a\nb", &Method::GET));
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        let (queue, _kept) = sync_channel(1);
        let log = AccessLog { format: Format::Text, queue, lost: Arc::default() };
        for _ in 0..3 {
            log.write(&record("/", &Method::GET));
        }
        assert_eq!(log.lost().load(Ordering::Relaxed), 2);
    }
}
