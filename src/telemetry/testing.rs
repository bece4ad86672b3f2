//! What the tests of this module write.

use std::sync::LazyLock;
use std::time::Duration;

use http::Method;

use super::{Outcome, Place, Record, StreamKind, StreamRecord};
use crate::graph::stats::Counts;
use crate::graph::{BackendKey, RuleName};
use crate::policy::{Kind, Scheme};
use crate::reason::Reason;

static RULE: LazyLock<RuleName> = LazyLock::new(|| RuleName {
    kind: "HTTPRoute",
    namespace: "default".into(),
    name: "a".into(),
    rule: "0".into(),
});

static BACKEND: LazyLock<BackendKey> = LazyLock::new(|| BackendKey {
    kind: "Service",
    namespace: "default".into(),
    service: "b".into(),
    port: 8080,
    protocol: "http",
    context: None,
});

pub fn outcome() -> Outcome<'static> {
    Outcome {
        counts: Counts {
            status: 429,
            duration: Duration::from_micros(1_234),
            upstream: Some(Duration::from_micros(1_000)),
            bytes_received: 0,
            bytes_sent: 11,
        },
        reason: Some(Reason::RateLimited),
        protocol: http::Version::HTTP_11,
        stats: None,
        consumer: None,
    }
}

pub fn record(path: &str) -> Record<'_> {
    Record {
        place: Place {
            start_ms: 1_700_000_000_123,
            client_ip: [192, 0, 2, 1].into(),
            peer: ([192, 0, 2, 1], 4711).into(),
            listener_port: 80,
            section: "ingress",
            rule: Some(&RULE),
            backend: Some(&BACKEND),
            endpoint: Some("[2001:db8::1]:80".parse().unwrap()),
            attempts: 2,
            tls_version: None,
            sni: None,
        },
        request_id: b"id",
        method: &Method::GET,
        scheme: Scheme::Http,
        host: "a.example.com",
        path,
        grpc_status: None,
        user_agent: Some(b"a\"b\\c\x07"),
        referer: None,
        traceparent: None,
        consumer: Some("alice"),
        shadow: &[(Kind::IpAccess, Reason::IpDenied), (Kind::RateLimit, Reason::RateLimited)],
    }
}

pub fn stream_record(sni: Option<&str>) -> StreamRecord<'_> {
    StreamRecord {
        place: Place {
            start_ms: 1_700_000_000_123,
            client_ip: [192, 0, 2, 1].into(),
            peer: ([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x201], 4711).into(),
            listener_port: 443,
            section: "gateway/ns/gw/tls",
            rule: None,
            backend: None,
            endpoint: None,
            attempts: 0,
            tls_version: None,
            sni,
        },
        kind: StreamKind::Tls,
        duration: Duration::from_micros(1_234),
        upstream: None,
        reason: Some(Reason::NoRoute),
        stats: None,
        bytes_received: 3,
        bytes_sent: 5,
    }
}
