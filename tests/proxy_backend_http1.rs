//! HTTP/1.1 towards backends: which connections are kept, what is no answer, and answers that
//! come before the end of their requests.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::*;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// More than all buffers on the way take.
const LARGE: usize = 32 << 20;

fn proxy(backend: &RawBackend) -> Proxy {
    Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.workers = 1;
    })
}

/// A backend whose first connection gives these answers, one after the other, and whose other
/// connections answer "other".
fn answers(first: &'static [&'static str]) -> RawBackend {
    RawBackend::start(move |mut raw, number| {
        for answer in if number == 0 { first } else { &[] } {
            raw.message();
            raw.send(answer);
        }
        while !raw.message().is_empty() {
            raw.send(&ok("other"));
        }
    })
}

#[test]
fn one_connection_serves_answers_of_every_framing() {
    let backend = answers(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ]);
    let proxy = proxy(&backend);
    let mut client = proxy.connect();
    for code in [200, 200, 204, 304, 200, 200] {
        client.send(GET);
        let head = client.head();
        assert_eq!(status(&head), code);
        match field(&head, "content-length").filter(|_| code == 200) {
            Some(length) => drop(client.exactly(length.parse().unwrap())),
            None if field(&head, "transfer-encoding").is_some() => drop(client.until("0\r\n\r\n")),
            None => {}
        }
    }
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn what_two_could_read_in_two_ways_is_a_bad_gateway_and_ends_the_connection() {
    for bad in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    ] {
        let backend = answers(Box::leak(Box::new([bad])));
        let proxy = proxy(&backend);
        let mut client = proxy.connect();
        client.send(GET);
        let response = client.message();
        assert_eq!((status(&response), body(&response)), (502, "UpstreamProtocol\n"), "{bad:?}");
        client.send(GET);
        assert_eq!(body(&client.message()), "other");
        assert_eq!(backend.connections.load(Ordering::SeqCst), 2);
    }
}

#[test]
fn a_chunk_that_cannot_be_read_cuts_the_answer_and_ends_the_connection() {
    let bad =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nbad\r\n0\r\n\r\n";
    let backend = answers(Box::leak(Box::new([bad])));
    let proxy = proxy(&backend);
    let response = proxy.exchange(GET);
    assert_eq!(status(&response), 200);
    assert!(!response.contains("bad") && !response.ends_with("0\r\n\r\n"), "{response:?}");
    assert_eq!(body(&proxy.get("/")), "other");
}

#[test]
fn what_follows_an_answer_is_never_taken_for_the_next_one() {
    let at_once = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 200 OK\r\n\
                   content-length: 8\r\n\r\ninjected";
    let backend = answers(Box::leak(Box::new([at_once])));
    let proxy_of_first = proxy(&backend);
    let mut client = proxy_of_first.connect();
    for body_of in ["a", "other"] {
        client.send(GET);
        assert_eq!(body(&client.message()), body_of);
    }
    let (injected, later) = mpsc::channel();
    let injected = std::sync::Mutex::new(injected);
    let backend = RawBackend::start(move |mut raw, number| {
        while !raw.message().is_empty() {
            raw.send(&ok(if number == 0 { "a" } else { "other" }));
            if number == 0 {
                thread::sleep(Duration::from_millis(50));
                raw.send(&ok("injected"));
                injected.lock().unwrap().send(()).unwrap();
            }
        }
    });
    let proxy = proxy(&backend);
    let mut client = proxy.connect();
    client.send(GET);
    assert_eq!(body(&client.message()), "a");
    later.recv_timeout(SOON).unwrap();
    thread::sleep(Duration::from_millis(50));
    client.send(GET);
    assert_eq!(body(&client.message()), "other");
}

#[test]
fn a_flood_of_interim_answers_is_a_bad_gateway() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.message();
        while raw.stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
    });
    let answers = proxy(&backend).get("/");
    let interim = "HTTP/1.1 102 Processing\r\n\r\n";
    assert!(answers.matches(interim).count() <= 10, "{answers}");
    let response = answers.trim_start_matches(interim);
    assert_eq!((status(response), body(response)), (502, "UpstreamProtocol\n"));
}

#[test]
fn an_answer_before_the_end_of_the_request_comes_at_once_and_the_rest_goes_on() {
    let (sender, received) = mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let backend = RawBackend::start(move |mut raw, _| {
        while !raw.head().is_empty() {
            raw.send(&ok("early"));
            sender.lock().unwrap().send(raw.exactly(10)).unwrap();
        }
    });
    let proxy = proxy(&backend);
    let mut client = proxy.connect();
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n";
    client.send(&format!("{head}01234"));
    let answer = client.head();
    assert_eq!(status(&answer), 200);
    client.send("56789");
    assert!(received.recv_timeout(SOON).unwrap().starts_with("01234"));
    // Nothing more comes: the backend must not wait for the rest for ever.
    let mut client = proxy.connect();
    client.send(&format!("{head}01234"));
    assert_eq!(status(&client.head()), 200);
    drop(client);
    assert_eq!(received.recv_timeout(SOON).unwrap(), "01234");
}

#[test]
fn an_echo_reaches_a_client_that_begins_to_read_late() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.head();
        raw.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"));
        let mut left = LARGE - raw.rest_of_head();
        raw.stream.write_all(&vec![b'x'; LARGE - left]).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let read = raw.stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the request breaks off with {left} bytes missing");
            raw.stream.write_all(&buffer[..read]).unwrap();
            left -= read;
        }
    });
    let proxy = proxy(&backend);
    let mut client = proxy.connect();
    client.send(&format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n"));
    let mut writing = client.stream.try_clone().unwrap();
    let writer = thread::spawn(move || writing.write_all(&vec![b'x'; LARGE]).unwrap());
    thread::sleep(Duration::from_millis(300));
    assert_eq!(status(&client.head()), 200);
    let mut left = LARGE - client.rest_of_head();
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let read = client.stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the answer breaks off with {left} bytes missing");
        left -= read;
    }
    writer.join().unwrap();
}

#[test]
fn interim_answers_reach_the_client_and_no_more_than_ten() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.message();
        let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nkeep-alive: timeout=5\r\n\r\n";
        raw.send(&hint.repeat(12));
        raw.send(&ok("final"));
    });
    let proxy = proxy(&backend);
    let mut client = proxy.connect();
    client.send(GET);
    for _ in 0..10 {
        let hint = client.head();
        assert_eq!((status(&hint), field(&hint, "link")), (103, Some("</a>")));
        assert_eq!(field(&hint, "keep-alive"), None);
    }
    assert_eq!(body(&client.message()), "final");
}
