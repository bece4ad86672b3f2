//! Requests that are sent again: by the rule's word, by HTTP/2's, and within which bounds.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use h2::Reason as H2Reason;
use http::{Request, Response};
use support::http2::*;
use support::*;
use tidegate::graph::{BackendProtocol, Retry, RetryBudget, RouteGraph, Timeouts};

const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";

fn retry(codes: &[u16], attempts: u32) -> Option<Retry> {
    Some(Retry { codes: codes.to_vec(), attempts, backoff: Duration::from_millis(10) })
}

fn graph(to: &[SocketAddr], retry: Option<Retry>, timeouts: Timeouts) -> RouteGraph {
    let mut graph = Graph::http(free_port());
    let id = graph.backend("all", BackendProtocol::Http1, to);
    let mut rule = forward(id);
    (rule.retry, rule.timeouts) = (retry, timeouts);
    graph.rule("/", rule);
    graph.builder.build()
}

/// A backend that gives `failure` to the first `times` requests, then sends back their bodies.
fn failing(times: usize, failure: &'static str) -> (RawBackend, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let backend = RawBackend::start(move |mut raw, _| {
        loop {
            let request = raw.message();
            if request.is_empty() {
                return;
            }
            if counted.fetch_add(1, Ordering::SeqCst) < times {
                raw.send(failure);
            } else {
                raw.send(&ok(body(&request)));
            }
        }
    });
    (backend, requests)
}

const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";

#[test]
fn an_answer_with_one_of_the_codes_is_thrown_away_and_the_whole_body_sent_again() {
    let (backend, requests) = failing(2, BUSY);
    let proxy = Proxy::start(graph(&[backend.addr], retry(&[500, 503], 3), Timeouts::default()));
    let mut client = proxy.connect();
    client.send(POST);
    let response = client.message();
    assert_eq!((status(&response), body(&response)), (200, "hello"));
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1, "short answers free a connection");
    assert!((proxy.metric("tidegate_upstream_retries_total") - 2.0).abs() < 0.1);
}

#[test]
fn after_the_last_attempt_the_client_gets_the_backends_own_answer() {
    for (codes, attempts, sent) in [(&[503][..], 2, 3), (&[503], 0, 1), (&[500, 502], 5, 1)] {
        let (backend, requests) = failing(9, BUSY);
        let graph = graph(&[backend.addr], retry(codes, attempts), Timeouts::default());
        let proxy = Proxy::start(graph);
        let response = proxy.get("/");
        assert_eq!((status(&response), body(&response)), (503, "busy"));
        assert_eq!(requests.load(Ordering::SeqCst), sent, "{codes:?} {attempts}");
    }
}

#[test]
fn a_body_that_is_too_long_to_keep_is_sent_once() {
    let (backend, requests) = failing(1, BUSY);
    let proxy = Proxy::start(graph(&[backend.addr], retry(&[503], 3), Timeouts::default()));
    let long = "x".repeat(200_000);
    let mut client = proxy.connect();
    client.send(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n{long}"));
    assert_eq!(status(&client.message()), 503);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[test]
fn a_body_that_is_still_coming_goes_on_in_the_next_attempt() {
    let count = AtomicUsize::new(0);
    let backend = RawBackend::start(move |mut raw, _| {
        let head = raw.head();
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            // An answer before the end of the request.
            assert_eq!(raw.exactly(3), "abc");
            raw.send(BUSY);
            thread::sleep(Duration::from_millis(300));
            return;
        }
        let length = field(&head, "content-length").unwrap().parse().unwrap();
        let whole = raw.exactly(length);
        raw.send(&ok(&whole));
    });
    let proxy = Proxy::start(graph(&[backend.addr], retry(&[503], 3), Timeouts::default()));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc");
    thread::sleep(Duration::from_millis(150));
    client.send("def");
    assert_eq!(body(&client.message()), "abcdef");
}

#[test]
fn other_endpoints_come_first_and_unreachable_ones_are_tried_as_often_as_the_rule_says() {
    let alive = RawBackend::named("alive");
    let many: Vec<_> = (0..6).map(|_| dead_endpoint()).chain([alive.addr]).collect();
    let proxy = Proxy::start(graph(&many, retry(&[], 10), Timeouts::default()));
    for _ in 0..10 {
        assert_eq!(body(&proxy.get("/")), "alive");
    }
    let proxy = Proxy::start(graph(&[dead_endpoint()], retry(&[], 3), Timeouts::default()));
    let response = proxy.get("/");
    assert_eq!((status(&response), body(&response)), (502, "ConnectFailed\n"));
    assert!((proxy.metric("tidegate_upstream_retries_total") - 3.0).abs() < 0.1);
}

/// A backend that takes `time` for each of the first `times` requests.
fn slow(times: usize, time: Duration) -> RawBackend {
    let count = AtomicUsize::new(0);
    RawBackend::start(move |mut raw, _| {
        while !raw.message().is_empty() {
            if count.fetch_add(1, Ordering::SeqCst) < times {
                thread::sleep(time);
            }
            raw.send(&ok("done"));
        }
    })
}

#[test]
fn an_attempt_that_takes_too_long_is_made_again_until_the_whole_time_is_over() {
    let backend_request = Some(Duration::from_millis(150));
    let backend = slow(2, Duration::from_secs(5));
    let timeouts = Timeouts { backend_request, ..Timeouts::default() };
    let proxy = Proxy::start(graph(&[backend.addr], retry(&[], 3), timeouts));
    assert_eq!(body(&proxy.get("/")), "done");

    let backend = slow(9, Duration::from_secs(5));
    let request = Some(Duration::from_millis(400));
    let timeouts = Timeouts { backend_request, request, ..Timeouts::default() };
    let proxy = Proxy::start(graph(&[backend.addr], retry(&[], 100), timeouts));
    let start = Instant::now();
    let response = proxy.get("/");
    assert_eq!((status(&response), body(&response)), (504, "RequestTimeout\n"));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_spent_budget_of_the_backend_ends_in_503() {
    let (backend, requests) = failing(100, BUSY);
    let mut graph = Graph::http(free_port());
    let id = graph.backend("all", BackendProtocol::Http1, &[backend.addr]);
    let mut rule = forward(id);
    rule.retry = retry(&[503], 9);
    graph.rule("/", rule);
    let mut graph = graph.builder.build();
    let hour = Duration::from_secs(3600);
    graph.backends[0].retry_budget =
        Some(RetryBudget { percent: 0, interval: hour, min_rate: (4, hour) });
    let proxy = Proxy::start(graph);
    for sent in [5, 6] {
        let response = proxy.get("/");
        assert_eq!((status(&response), body(&response)), (503, "RetryBudgetSpent\n"));
        assert_eq!(requests.load(Ordering::SeqCst), sent);
    }
}

fn h2c(addr: SocketAddr) -> RouteGraph {
    let mut graph = Graph::http(free_port());
    let id = graph.backend("h2c", BackendProtocol::H2c, &[addr]);
    graph.rule("/", forward(id));
    graph.builder.build()
}

#[test]
fn a_stream_that_the_backend_refuses_is_sent_again_with_its_body() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let (addr, _) = backend(move |request, mut respond| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                return respond.send_reset(H2Reason::REFUSED_STREAM);
            }
            echo(request, respond).await;
        }
    });
    let proxy = Proxy::start(h2c(addr));
    let mut client = proxy.connect();
    client.send(POST);
    assert_eq!(status(&client.head()), 200);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn a_stream_that_the_backend_began_with_is_not_sent_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let (addr, _) = backend(move |_, mut respond| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { respond.send_reset(H2Reason::INTERNAL_ERROR) }
    });
    let proxy = Proxy::start(h2c(addr));
    let mut client = proxy.connect();
    client.send(POST);
    let response = client.message();
    assert_eq!((status(&response), body(&response)), (502, "UpstreamReset\n"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// Frames by hand: an HTTP/2 backend whose first connection says GOAWAY to its first stream.
fn goes_away() -> RawBackend {
    RawBackend::start(|mut raw, number| {
        use std::io::{Read, Write};
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        raw.stream.write_all(&settings).unwrap();
        let mut seen = [0; 4096];
        let mut got = 0;
        // The preface, SETTINGS and the request's HEADERS.
        while !seen[24.min(got)..got].windows(4).any(|w| w == [0, 0, 0, 1]) {
            got += raw.stream.read(&mut seen[got..]).unwrap();
        }
        if number == 0 {
            // Last stream 0, NO_ERROR.
            let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            raw.stream.write_all(&goaway).unwrap();
        } else {
            // HEADERS of stream 1: END_STREAM and END_HEADERS, `:status: 204`.
            raw.stream.write_all(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x89]).unwrap();
        }
        thread::sleep(Duration::from_secs(1));
    })
}

#[test]
fn a_request_beyond_the_last_stream_of_a_goaway_goes_by_another_connection() {
    let backend = goes_away();
    let proxy = Proxy::start(h2c(backend.addr));
    let mut client = proxy.connect();
    client.send(POST);
    assert_eq!(status(&client.head()), 204);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn a_backend_that_takes_few_streams_gets_more_connections() {
    let (addr, connections) = serving(
        |_, mut respond| async move {
            tokio::time::sleep(Duration::from_millis(400)).await;
            respond.send_response(Response::new(()), true).unwrap();
        },
        |builder| _ = builder.max_concurrent_streams(1),
    );
    let proxy = Proxy::start_with(h2c(addr), |config| config.workers = 1);
    assert_eq!(status(&proxy.get("/")), 200, "now the limit is known");
    run(async {
        let (client, _ended) = connect(proxy.addr()).await;
        let start = Instant::now();
        let requests = (0..3).map(|_| {
            let mut client = client.clone();
            async move {
                let request = Request::get("http://a.test/").body(()).unwrap();
                client.send_request(request, true).unwrap().0.await.unwrap().status()
            }
        });
        for status in futures_util::future::join_all(requests).await {
            assert_eq!(status, 200);
        }
        assert!(start.elapsed() < Duration::from_millis(800), "nobody waited for another");
    });
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}
