//! Bodies: streaming, back-pressure, silence, Expect.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::*;

/// Kilobytes of memory that this process has in RAM.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes of the large body: 256 MB; 5 GB if `TIDEGATE_LONG` is set.
fn large() -> u64 {
    if std::env::var_os("TIDEGATE_LONG").is_some() { 5 << 30 } else { 256 << 20 }
}

#[test]
fn a_large_body_passes_both_ways_in_constant_memory() {
    let size = large();
    let backend = RawBackend::start(move |mut raw, _| {
        raw.head();
        let mut buffer = vec![0; 256 * 1024];
        let mut left = size - raw.rest_of_head() as u64;
        while left > 0 {
            let read = raw.stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the body ended {left} bytes early");
            left -= read as u64;
        }
        raw.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n"));
        let chunk = vec![b'x'; 256 * 1024];
        for _ in 0..size / chunk.len() as u64 {
            raw.stream.write_all(&chunk).unwrap();
        }
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let before = resident_kb();
    let most = Arc::new(AtomicU64::new(0));
    let mut client = proxy.connect();
    client.send(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n"));
    let mut writer = client.stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        let chunk = vec![b'y'; 256 * 1024];
        for _ in 0..size / chunk.len() as u64 {
            writer.write_all(&chunk).unwrap();
        }
    });
    assert_eq!(status(&client.head()), 200);
    sending.join().unwrap();
    let mut received = client.rest_of_head() as u64;
    let mut buffer = vec![0; 64 * 1024];
    while received < size {
        let read = client.stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the response ended after {received} bytes");
        received += read as u64;
        most.fetch_max(resident_kb(), Ordering::Relaxed);
    }
    let grown = most.load(Ordering::Relaxed).saturating_sub(before);
    assert!(grown < 64 * 1024, "memory grew by {grown} KB");
}

#[test]
fn a_client_that_does_not_read_holds_the_backend_back() {
    let written = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&written);
    let backend = RawBackend::start(move |mut raw, _| {
        raw.head();
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        let chunk = vec![b'x'; 64 * 1024];
        while raw.stream.write_all(&chunk).is_ok() {
            counted.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        }
    });
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.limits.write_stall = Duration::from_secs(1);
    });
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    thread::sleep(Duration::from_millis(500));
    let held = written.load(Ordering::SeqCst);
    assert!(held < 64 << 20, "{held} bytes were taken from the backend");
    // It is cut off after the stall, and the backend's connection with it.
    proxy.wait("the connection is cut", |proxy| proxy.handle.as_ref().unwrap().connections() == 0);
}

#[test]
fn the_backend_decides_about_expect_continue() {
    let backend = RawBackend::start(|mut raw, _| {
        loop {
            let head = raw.head();
            match head.split(' ').nth(1) {
                Some("/no") => {
                    assert_eq!(field(&head, "expect"), Some("100-continue"));
                    raw.send("HTTP/1.1 417 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    assert_eq!(raw.rest(), "", "the body came although it was refused");
                    return;
                }
                Some("/yes") => {
                    thread::sleep(Duration::from_millis(100));
                    raw.send("HTTP/1.1 100 Continue\r\n\r\n");
                    let body = raw.exactly(5);
                    raw.send(&ok(&body));
                }
                Some(_) => {
                    // Never says 100: waits for the body.
                    let body = raw.exactly(5);
                    raw.send(&ok(&body));
                }
                None => return,
            }
        }
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let head = |path| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        )
    };
    for path in ["/yes", "/silent"] {
        let mut client = proxy.connect();
        client.send(&head(path));
        assert_eq!(status(&client.head()), 100, "{path}");
        client.send("hello");
        let response = client.message();
        assert_eq!((status(&response), body(&response)), (200, "hello"), "{path}");
    }
    let mut client = proxy.connect();
    client.send(&head("/no"));
    assert_eq!(status(&client.head()), 417);
}

#[test]
fn a_refused_request_gets_no_100() {
    let proxy = Proxy::start(Graph::http(free_port()).builder.build());
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(status(&client.head()), 404);
}

#[test]
fn a_request_body_that_falls_silent_is_a_client_timeout() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.limits.request_body_idle = Duration::from_millis(200);
    });
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhe");
    let response = client.message();
    assert_eq!((status(&response), body(&response)), (408, "ClientTimeout\n"));
}

#[test]
fn an_answer_that_falls_silent_is_cut() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.message();
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        raw.rest();
    });
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.limits.response_idle = Duration::from_millis(200);
    });
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(body(&client.rest()), "half");
}

#[test]
fn parts_of_an_answer_are_passed_on_as_they_come() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.message();
        raw.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        raw.send("8\r\ndata: 1\n\r\n");
        // The second event only once the first was seen.
        raw.until("\n");
        raw.rest();
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client.head();
    assert_eq!(client.until("data: 1\n"), "8\r\ndata: 1\n");
}
