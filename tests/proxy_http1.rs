//! HTTP/1.1 through the data plane, byte by byte.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use support::*;

#[test]
fn a_request_reaches_the_backend_and_its_answer_comes_back() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let response = proxy.exchange(
        "POST /a/../b%7e?q=%2e HTTP/1.1\r\nHost: Example.com:80\r\ncontent-length: 5\r\n\
         connection: close\r\n\r\nhello",
    );
    assert_eq!(status(&response), 200);
    let seen = body(&response);
    assert!(seen.starts_with("POST /b~?q=%2e HTTP/1.1\r\n"), "{seen}");
    assert!(seen.ends_with("\r\n\r\nhello"), "{seen}");
    assert_eq!(field(seen, "host"), Some("example.com:80"));
    assert_eq!(field(seen, "connection"), None);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.workers = 1;
    });
    let mut client = proxy.connect();
    for n in 0..5 {
        client.send(&format!("GET /{n} HTTP/1.1\r\nhost: test\r\n\r\n"));
        assert!(client.message().contains(&format!("GET /{n} HTTP/1.1")));
    }
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
    let again = proxy.get("/");
    assert_eq!(status(&again), 200);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn what_belongs_to_the_connection_and_what_is_forged_does_not_reach_the_backend() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let response = proxy.exchange(
        "GET / HTTP/1.1\r\nhost: test\r\nconnection: close, x-secret, x-forwarded-for, host\r\n\
         x-secret: 1\r\nkeep-alive: 5\r\nte: gzip, trailers\r\nproxy-authorization: x\r\n\
         x-forwarded-for: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\nx-forwarded-prefix: /evil\r\n\
         x-real-ip: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\ntraceparent: 00-a-b-01\r\n\r\n",
    );
    let seen = body(&response);
    for gone in ["x-secret", "keep-alive", "proxy-authorization", "x_forwarded_for", "forwarded"] {
        assert_eq!(field(seen, gone), None, "{gone} in {seen}");
    }
    assert!(!seen.contains("6.6.6.6") && !seen.contains("/evil"), "{seen}");
    assert_eq!(field(seen, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(seen, "x-forwarded-proto"), Some("http"));
    assert_eq!(field(seen, "te"), Some("trailers"));
    assert_eq!(field(seen, "traceparent"), Some("00-a-b-01"));
    assert_eq!(field(seen, "x-request-id").map(str::len), Some(36));
}

#[test]
fn a_trusted_proxy_is_believed() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let response = proxy.exchange(
        "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\nx-request-id: mine\r\n\
         x-forwarded-for: 198.51.100.7\r\nx-forwarded-proto: https\r\n\r\n",
    );
    let seen = body(&response);
    assert_eq!(field(seen, "x-forwarded-for"), Some("198.51.100.7, 127.0.0.1"));
    assert_eq!(field(seen, "x-real-ip"), Some("198.51.100.7"));
    assert_eq!(field(seen, "x-forwarded-proto"), Some("https"));
    assert_eq!(field(seen, "x-request-id"), Some("mine"));
}

#[test]
fn heads_that_break_the_rules_are_answered_and_the_connection_is_closed() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let long_target = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(17 * 1024));
    let long_field = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(33 * 1024));
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many_fields = format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n");
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
        ("GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nhost: a\n\n", 400),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("GET / HTTP/2.5\r\nhost: a\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded\r\n\r\n", 400),
        ("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 501),
        (&long_target, 414),
        (&many_fields, 431),
    ] {
        let response = proxy.exchange(request);
        assert_eq!(status(&response), expected, "{}", &request[..request.len().min(80)]);
    }
    let mut client = proxy.connect();
    client.send(&long_field);
    assert_eq!(status(&client.message()), 431);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn paths_without_a_normal_form_are_refused_and_the_connection_stays() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    for path in ["/%2e%2e/x", "/a%5cb", "/a%00", "/%zz"] {
        client.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
        let response = client.message();
        assert_eq!((status(&response), body(&response)), (400, "InvalidPath\n"), "{path}");
    }
    client.send("GET /ok HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(status(&client.message()), 200);
}

#[test]
fn what_no_rule_matches_is_not_found() {
    let backend = RawBackend::echo();
    let mut graph = Graph::http(free_port());
    let id = graph.backend("a", tidegate::graph::BackendProtocol::Http1, &[backend.addr]);
    graph.rule("/a", forward(id));
    let proxy = Proxy::start(graph.builder.build());
    assert_eq!(status(&proxy.get("/a/b")), 200);
    let response = proxy.get("/b");
    assert_eq!((status(&response), body(&response)), (404, "NoRoute\n"));
}

#[test]
fn a_slow_head_is_cut_off_and_an_idle_connection_lives_longer() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.limits.header_timeout = Duration::from_millis(300);
    });
    let mut silent = proxy.connect();
    let mut slow = proxy.connect();
    slow.send("GET / HTTP/1.1\r\nhos");
    let mut idle = proxy.connect();
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(status(&idle.message()), 200);
    assert!(slow.closes_within(SOON));
    assert!(silent.closes_within(SOON));
    assert!(!idle.closes_within(Duration::from_millis(400)));
    idle.send("GET / HTTP/1.1\r\nho");
    assert!(idle.closes_within(SOON));
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.limits.keep_alive_idle = Duration::from_millis(300);
    });
    let mut idle = proxy.connect();
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(status(&idle.message()), 200);
    assert!(idle.closes_within(SOON));
}

#[test]
fn a_connection_is_asked_to_move_after_its_number_of_requests() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.limits.keep_alive_requests = 2;
    });
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(field(&client.message(), "connection"), None);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(field(&client.message(), "connection"), Some("close"));
    assert!(client.closes_within(SOON));
}

#[test]
fn head_has_the_length_and_no_body_and_the_connection_goes_on() {
    let backend = RawBackend::start(|mut raw, _| {
        while !raw.message().is_empty() {
            raw.send("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n");
        }
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
        let head = client.head();
        assert_eq!((status(&head), field(&head, "content-length")), (200, Some("1234")));
    }
}

#[test]
fn not_modified_and_no_content_have_no_body() {
    let backend = RawBackend::start(|mut raw, _| {
        loop {
            let request = raw.message();
            match request.split(' ').nth(1) {
                Some("/304") => {
                    raw.send("HTTP/1.1 304 Not Modified\r\netag: x\r\ncontent-length: 9\r\n\r\n")
                }
                Some(_) => raw.send("HTTP/1.1 204 No Content\r\n\r\n"),
                None => return,
            }
        }
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    for expected in [304, 204, 304] {
        client.send(&format!("GET /{expected} HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert_eq!(status(&client.head()), expected);
    }
}

#[test]
fn http_1_0_gets_an_answer_and_no_second_one() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let response = proxy.exchange("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
    assert_eq!(status(&response), 200);
    assert!(body(&response).starts_with("GET / HTTP/1.1"));
}

#[test]
fn trailers_pass_both_ways_without_framing_fields() {
    let backend = RawBackend::start(|mut raw, _| {
        let head = raw.head();
        let chunks = raw.until("0\r\n");
        let trailers = raw.head();
        assert!(chunks.contains("hello"), "{chunks}");
        assert!(field(&head, "transfer-encoding") == Some("chunked"), "{head}");
        let seen = trailers.replace("\r\n", "|");
        raw.send(&format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, host\r\n\r\n\
             {:x}\r\n{seen}\r\n0\r\nx-sum: 7\r\nhost: evil\r\n\r\n",
            seen.len()
        ));
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    client.send(
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\n\
         transfer-encoding: chunked\r\ntrailer: x-check, content-length\r\n\r\n\
         5\r\nhello\r\n0\r\nx-check: ok\r\ncontent-length: 0\r\n\r\n",
    );
    let response = client.rest();
    assert_eq!(status(&response), 200);
    assert!(response.contains("x-check: ok|"), "{response}");
    assert!(!response.contains("content-length: 0"), "{response}");
    assert!(response.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{response}");
}

#[test]
fn beyond_the_most_connections_clients_wait_until_there_is_room() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.workers = 1;
        config.limits.connections = 2;
    });
    let mut held: Vec<Raw> = (0..2).map(|_| proxy.connect()).collect();
    for client in &mut held {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(status(&client.message()), 200);
    }
    let mut waiting = proxy.connect();
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(!waiting.closes_within(Duration::from_millis(200)));
    held.pop();
    assert_eq!(status(&waiting.message()), 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    let all: String = (0..20)
        .map(|n| format!("POST /{n} HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody"))
        .collect();
    client.send(&all);
    for n in 0..20 {
        let response = client.message();
        let seen = body(&response);
        assert!(seen.starts_with(&format!("POST /{n} HTTP/1.1")) && seen.ends_with("body"));
    }
}

#[test]
fn early_hints_reach_clients_that_know_them() {
    let backend = RawBackend::start(|mut raw, _| {
        while !raw.message().is_empty() {
            raw.send(
                "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n",
            );
            raw.send(&ok("done"));
        }
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let hints = client.head();
    assert_eq!((status(&hints), field(&hints, "link")), (103, Some("</a.css>")));
    assert_eq!((field(&hints, "x-hop"), field(&hints, "connection")), (None, None));
    assert_eq!(body(&client.message()), "done");
    let old = proxy.exchange("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!((status(&old), body(&old)), (200, "done"));
}

#[test]
fn a_client_that_is_refused_while_it_sends_sees_the_whole_answer() {
    let proxy = Proxy::start(Graph::http(free_port()).builder.build());
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n");
    client.send(&"x".repeat(150_000));
    let response = client.rest();
    assert_eq!((status(&response), field(&response, "connection")), (404, Some("close")));
    assert_eq!(body(&response), "NoRoute\n");
}
