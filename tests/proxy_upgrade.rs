//! Connections that change to another protocol.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use support::*;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Agrees to every upgrade and then sends back what it gets, after `wait`.
fn tunnel(wait: Duration) -> RawBackend {
    RawBackend::start(move |mut raw, _| {
        let head = raw.head();
        assert_eq!(field(&head, "upgrade"), Some("websocket"), "{head}");
        assert_eq!(field(&head, "connection"), Some("upgrade"), "{head}");
        assert!(field(&head, "sec-websocket-key").is_some(), "{head}");
        // What comes before the answer would be smuggled.
        raw.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(raw.rest_of_head(), 0);
        assert!(raw.stream.read(&mut [0]).is_err(), "bytes came before 101");
        raw.stream.set_read_timeout(Some(SOON)).unwrap();
        thread::sleep(wait);
        raw.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        let mut chunk = [0; 1024];
        while let Ok(read) = raw.stream.read(&mut chunk) {
            if read == 0 || raw.stream.write_all(&chunk[..read]).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_web_socket_carries_bytes_both_ways_and_none_before_the_101() {
    let backend = tunnel(Duration::ZERO);
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    client.send(&format!("{UPGRADE}early"));
    let head = client.head();
    assert_eq!(status(&head), 101);
    assert_eq!(field(&head, "upgrade"), Some("websocket"));
    assert_eq!(field(&head, "connection"), Some("upgrade"));
    assert!(field(&head, "sec-websocket-accept").is_some());
    assert_eq!(client.exactly(5), "early");
    for n in 0..100 {
        let text = format!("message {n}");
        client.send(&text);
        assert_eq!(client.exactly(text.len()), text);
    }
    drop(client);
    proxy.wait("the tunnel ends with its client", |proxy| {
        proxy.handle.as_ref().unwrap().connections() == 0
    });
    assert!((proxy.metric("tidegate_requests_total") - 1.0).abs() < 0.1);
}

#[test]
fn a_tunnel_that_falls_silent_is_closed() {
    let backend = tunnel(Duration::ZERO);
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.limits.response_idle = Duration::from_millis(300);
    });
    let mut client = proxy.connect();
    client.send(UPGRADE);
    assert_eq!(status(&client.head()), 101);
    assert!(client.closes_within(SOON));
}

#[test]
fn a_backend_that_does_not_want_to_change_answers_as_usual() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(UPGRADE);
        let response = client.message();
        assert_eq!(status(&response), 200);
        assert_eq!(field(body(&response), "upgrade"), Some("websocket"));
    }
}

#[test]
fn h2c_is_not_asked_for_on_behalf_of_a_client() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let response = proxy.exchange(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\n\
         http2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert_eq!(field(body(&response), "upgrade"), None);
    assert_eq!(field(body(&response), "http2-settings"), None);
}

#[test]
fn a_101_that_nobody_asked_for_is_a_bad_gateway() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.message();
        raw.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhi");
        raw.rest();
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let response = proxy.get("/");
    assert_eq!(status(&response), 502);
}
