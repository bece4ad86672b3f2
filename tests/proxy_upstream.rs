//! Between us and the backends: keeping connections, trying again, balancing, timeouts.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::*;
use tidegate::graph::{Action, BackendProtocol, Mirror, Split, Target, Timeouts};
use tidegate::reason::Reason;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";

fn one_worker(config: &mut tidegate::proxy::Config) {
    config.workers = 1;
}

/// A backend that answers the first request of a connection, reads the second, and closes.
fn closes_on_the_second_request() -> (RawBackend, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let backend = RawBackend::start(move |mut raw, number| {
        let first = raw.message();
        counted.fetch_add(1, Ordering::SeqCst);
        raw.send(&ok(&format!("{number} {}", &first[..3])));
        if number == 0 {
            raw.message();
            counted.fetch_add(1, Ordering::SeqCst);
            return;
        }
        while !raw.message().is_empty() {
            counted.fetch_add(1, Ordering::SeqCst);
            raw.send(&ok("again"));
        }
    });
    (backend, requests)
}

#[test]
fn a_get_whose_kept_connection_dies_is_sent_again() {
    let (backend, requests) = closes_on_the_second_request();
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), one_worker);
    let mut client = proxy.connect();
    client.send(GET);
    assert_eq!(body(&client.message()), "0 GET");
    client.send(GET);
    assert_eq!(body(&client.message()), "1 GET");
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    assert!((proxy.metric("tidegate_upstream_retries_total") - 1.0).abs() < 0.1);
}

#[test]
fn a_post_of_which_bytes_were_sent_is_not_sent_again() {
    let (backend, requests) = closes_on_the_second_request();
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), one_worker);
    let mut client = proxy.connect();
    client.send(POST);
    assert_eq!(body(&client.message()), "0 POS");
    client.send(POST);
    let response = client.message();
    assert_eq!((status(&response), body(&response)), (502, "UpstreamReset\n"));
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[test]
fn a_post_on_a_connection_that_was_closed_before_is_sent_on_another() {
    let backend = RawBackend::start(|mut raw, _| {
        let request = raw.message();
        raw.send(&ok(request.split("\r\n\r\n").nth(1).unwrap_or_default()));
        // Closed without `Connection: close`: only the closed socket tells.
    });
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), one_worker);
    let mut client = proxy.connect();
    for _ in 0..50 {
        client.send(POST);
        let response = client.message();
        assert_eq!((status(&response), body(&response)), (200, "hi"));
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_endpoint_that_refuses_is_passed_over() {
    let backend = RawBackend::named("alive");
    let endpoints = [dead_endpoint(), backend.addr, dead_endpoint()];
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&endpoints));
    let mut client = proxy.connect();
    for _ in 0..30 {
        client.send(POST);
        assert_eq!(body(&client.message()), "alive");
    }
}

#[test]
fn when_no_endpoint_can_be_reached_the_reason_says_so() {
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[dead_endpoint(), dead_endpoint()]));
    let response = proxy.get("/");
    assert_eq!((status(&response), body(&response)), (502, "ConnectFailed\n"));
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[]));
    let response = proxy.get("/");
    assert_eq!((status(&response), body(&response)), (503, "NoEndpoints\n"));
}

#[test]
fn endpoints_and_routes_change_under_load_without_a_failed_request() {
    let (blue, green) = (RawBackend::named("blue"), RawBackend::named("green"));
    let port = free_port();
    let proxy = Proxy::start(Graph::http(port).all_to(&[blue.addr]));
    let stop = AtomicBool::new(false);
    let done = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = proxy.connect();
                while !stop.load(Ordering::SeqCst) {
                    client.send(GET);
                    let response = client.message();
                    assert_eq!(status(&response), 200);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 0..60 {
            let to = if round % 2 == 0 { green.addr } else { blue.addr };
            if round % 3 == 0 {
                proxy.shared.publish(Graph::http(port).all_to(&[to]));
            } else {
                let graph = proxy.shared.load();
                graph.backends_of("test", "all").for_each(|b| b.endpoints.replace(&[to]));
            }
            thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(done.load(Ordering::SeqCst) > 100);
    let graph = proxy.shared.load();
    graph.backends_of("test", "all").for_each(|b| b.endpoints.replace(&[green.addr]));
    assert_eq!(body(&proxy.get("/")), "green");
}

#[test]
fn weights_decide_and_a_target_that_cannot_be_resolved_answers_its_share() {
    let (a, b) = (RawBackend::named("a"), RawBackend::named("b"));
    let mut graph = Graph::http(free_port());
    let first = graph.backend("a", BackendProtocol::Http1, &[a.addr]);
    let second = graph.backend("b", BackendProtocol::Http1, &[b.addr]);
    let target = |weight, to| Target { weight, to, transforms: Vec::new() };
    let mut rule = forward(first);
    rule.action = Action::Forward(Split {
        targets: vec![
            target(6, Ok(first)),
            target(0, Ok(second)),
            target(4, Err(Reason::BackendNotFound)),
        ],
        total: 10,
    });
    graph.rule("/", rule);
    let proxy = Proxy::start(graph.builder.build());
    let mut client = proxy.connect();
    let mut good = 0;
    for _ in 0..500 {
        client.send(GET);
        let response = client.message();
        match status(&response) {
            200 => good += 1,
            500 => assert_eq!(body(&response), "BackendNotFound\n"),
            other => panic!("{other}"),
        }
        assert_ne!(body(&response), "b");
    }
    assert!((230..370).contains(&good), "{good} of 500 with a weight of 6 in 10");
}

/// A backend that answers only after `time`.
fn slow(time: Duration) -> RawBackend {
    RawBackend::start(move |mut raw, _| {
        while !raw.message().is_empty() {
            thread::sleep(time);
            raw.send(&ok("slow"));
        }
    })
}

fn with_timeouts(backend: &RawBackend, timeouts: Timeouts) -> Proxy {
    let mut graph = Graph::http(free_port());
    let id = graph.backend("slow", BackendProtocol::Http1, &[backend.addr]);
    let mut rule = forward(id);
    rule.timeouts = timeouts;
    graph.rule("/", rule);
    Proxy::start(graph.builder.build())
}

#[test]
fn the_timeouts_of_a_rule_hold_and_each_has_its_reason() {
    let backend = slow(Duration::from_secs(2));
    let short = Some(Duration::from_millis(200));
    for (timeouts, reason) in [
        (Timeouts { backend_request: short, ..Timeouts::default() }, "BackendTimeout\n"),
        (Timeouts { request: short, ..Timeouts::default() }, "RequestTimeout\n"),
    ] {
        let proxy = with_timeouts(&backend, timeouts);
        let start = Instant::now();
        let response = proxy.get("/");
        assert_eq!((status(&response), body(&response)), (504, reason));
        assert!(start.elapsed() < Duration::from_millis(1500));
    }
    let zero = Some(Duration::ZERO);
    let proxy =
        with_timeouts(&backend, Timeouts { request: zero, backend_request: zero, idle: None });
    assert_eq!(body(&proxy.get("/")), "slow");
}

#[test]
fn a_slow_upload_does_not_count_as_the_backend_being_slow() {
    let backend = RawBackend::echo();
    let timeouts =
        Timeouts { backend_request: Some(Duration::from_millis(300)), ..Default::default() };
    let proxy = with_timeouts(&backend, timeouts);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n");
    for byte in ["h", "e", "l", "l", "o"] {
        thread::sleep(Duration::from_millis(150));
        client.send(byte);
    }
    assert_eq!(status(&client.message()), 200);
}

#[test]
fn an_answer_that_breaks_off_breaks_off_for_the_client_too() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.message();
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    client.send(GET);
    let response = client.rest();
    assert_eq!((status(&response), body(&response)), (200, "half"));
}

#[test]
fn what_is_no_http_is_a_bad_gateway() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.message();
        raw.send("SSH-2.0-x\r\n\r\n");
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let response = proxy.get("/");
    assert_eq!((status(&response), body(&response)), (502, "UpstreamProtocol\n"));
}

#[test]
fn fields_of_the_backends_connection_stay_there() {
    let backend = RawBackend::start(|mut raw, _| {
        while !raw.message().is_empty() {
            raw.send(
                "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
                 server: theirs\r\ncontent-length: 0\r\n\r\n",
            );
        }
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    client.send(GET);
    let head = client.head();
    for gone in ["x-hop", "keep-alive", "connection", "via"] {
        assert_eq!(field(&head, gone), None, "{gone}");
    }
    assert_eq!(field(&head, "server"), Some("theirs"));
    assert!(field(&head, "date").is_some());
}

#[test]
fn a_mirror_gets_a_copy_with_its_body_and_never_holds_up_the_original() {
    let copies = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&copies);
    let mirror = RawBackend::start(move |mut raw, _| {
        while !raw.message().is_empty() {
            counted.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(300));
            raw.send(&ok("ignored"));
        }
    });
    let body_seen = RawBackend::echo();
    let mut graph = Graph::http(free_port());
    let main = graph.backend("main", BackendProtocol::Http1, &[body_seen.addr]);
    let to = graph.backend("mirror", BackendProtocol::Http1, &[mirror.addr]);
    let dead = graph.backend("dead", BackendProtocol::Http1, &[dead_endpoint()]);
    let mut rule = forward(main);
    let whole = |to| Mirror { to, numerator: 1, denominator: 1 };
    rule.mirrors = vec![whole(dead), whole(to), Mirror { to, numerator: 0, denominator: 100 }];
    graph.rule("/", rule);
    let proxy = Proxy::start(graph.builder.build());
    let mut client = proxy.connect();
    let start = Instant::now();
    for request in [GET, POST, GET] {
        client.send(request);
        let response = client.message();
        assert_eq!(status(&response), 200);
    }
    assert!(start.elapsed() < Duration::from_millis(300));
    eventually("all copies arrive", || copies.load(Ordering::SeqCst) == 3);
}
