//! What the tests of this module write.

use std::time::Duration;

use http::Method;

use super::{Outcome, Record};
use crate::graph::stats::Counts;
use crate::policy::Scheme;
use crate::reason::Reason;

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
    }
}

pub fn record(path: &str) -> Record<'_> {
    Record {
        start_ms: 1_700_000_000_123,
        request_id: "id",
        client_ip: [192, 0, 2, 1].into(),
        peer: ([192, 0, 2, 1], 4711).into(),
        method: &Method::GET,
        scheme: Scheme::Http,
        host: "a.example.com",
        path,
        grpc_status: None,
        listener_port: 80,
        section: "ingress",
        rule: None,
        backend: None,
        endpoint: Some("[2001:db8::1]:80".parse().unwrap()),
        attempts: 0,
        user_agent: Some("a\"b\\c\u{7}"),
        referer: None,
        traceparent: None,
        tls_version: None,
        sni: None,
        consumer: Some("alice"),
    }
}
