//! The access log's lines as text, for people.

use std::io::Write as _;
use std::time::Duration;

use super::append::{Clock, Page};
use super::record::{Outcome, Place, Record, StreamRecord};
use crate::reason::Reason;

/// `TIME ADDR "METHOD SCHEME://HOST/PATH PROTOCOL" STATUS BYTES LATENCYms …`
pub fn request(out: &mut Page, clock: &Clock, outcome: &Outcome<'_>, record: &Record<'_>) {
    let counts = &outcome.counts;
    clock.write(out, record.place.start_ms);
    out.push(" ");
    out.ip(record.place.client_ip);
    for part in [" \"", record.method.as_str(), " ", record.scheme.as_str(), "://"] {
        out.push(part);
    }
    out.text(record.host.as_bytes());
    out.text(record.path.as_bytes());
    for part in [" ", outcome.protocol(), "\" "] {
        out.push(part);
    }
    course(out, counts.status.into(), counts.bytes_sent, counts.duration);
    way(out, &record.place, outcome.reason);
    for (kind, reason) in record.shadow {
        for part in [" shadow:", kind.as_str(), ":", reason.as_str()] {
            out.push(part);
        }
    }
    out.push(" ");
    out.text(record.request_id);
    out.push("\n");
}

/// `TIME ADDR "PROTOCOL LISTENER" RECEIVED SENT LATENCYms SNI ROUTE -> ENDPOINT REASON`
pub fn stream(out: &mut Page, clock: &Clock, record: &StreamRecord<'_>) {
    let place = &record.place;
    clock.write(out, place.start_ms);
    out.push(" ");
    out.ip(place.client_ip);
    for part in [" \"", record.kind.as_str(), " "] {
        out.push(part);
    }
    // A connection that is nobody's came to a port all the same.
    if place.section.is_empty() {
        out.push(":");
        out.number(place.listener_port.into());
    } else {
        out.text(place.section.as_bytes());
    }
    out.push("\" ");
    course(out, record.bytes_received, record.bytes_sent, record.duration);
    if let Some(sni) = place.sni {
        out.push(" ");
        out.text(sni.as_bytes());
    }
    way(out, place, record.reason);
    out.push("\n");
}

/// How it went: two numbers, and how long it took.
fn course(out: &mut Page, first: u64, second: u64, duration: Duration) {
    out.number(first);
    out.push(" ");
    out.number(second);
    out.push(" ");
    out.ms(duration);
    out.push("ms");
}

/// Where it went, and why it went wrong.
fn way(out: &mut Page, place: &Place<'_>, reason: Option<Reason>) {
    if let Some(name) = place.rule {
        // Writing to a page does not fail.
        write!(out, " {}/{}/{}", name.kind, name.namespace, name.name).unwrap_or_default();
    }
    if let Some(endpoint) = place.endpoint {
        out.push(" -> ");
        out.socket(endpoint);
    }
    if let Some(reason) = reason {
        out.push(" ");
        out.push(reason.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::{outcome, record, stream_record};

    fn request_line(path: &str) -> String {
        let mut line = Page::default();
        request(&mut line, &Clock::default(), &outcome(), &record(path));
        str::from_utf8(line.filled()).unwrap().to_owned()
    }

    fn stream_line(sni: Option<&str>) -> String {
        let mut line = Page::default();
        stream(&mut line, &Clock::default(), &stream_record(sni));
        str::from_utf8(line.filled()).unwrap().to_owned()
    }

    #[test]
    fn a_request_begins_with_time_client_and_what_was_asked() {
        let begin = "2023-11-14T22:13:20.123Z 192.0.2.1 \"GET http://a.example.com/x HTTP/1.1\" \
                     429 11 1.234ms HTTPRoute/default/a -> [2001:db8::1]:80 RateLimited \
                     shadow:ip_access:IpDenied shadow:rate_limit:RateLimited id\n";
        assert_eq!(request_line("/x"), begin);
    }

    #[test]
    fn a_stream_begins_with_time_client_and_listener() {
        let begin = "2023-11-14T22:13:20.123Z 192.0.2.1 \"TLS gateway/ns/gw/tls\" 3 5 1.234ms \
                     a.example NoRoute\n";
        assert_eq!(stream_line(Some("a.example")), begin);
    }

    #[test]
    fn a_line_break_in_a_path_or_a_name_cannot_forge_a_line() {
        assert_eq!(request_line("/a\nb").matches('\n').count(), 1);
        assert_eq!(stream_line(Some("a\nb")).matches('\n').count(), 1);
    }
}
