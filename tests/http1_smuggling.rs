//! Requests that two servers could read in different ways, sent to a running proxy: each is
//! answered, the connection is closed, and the backend never hears of it (hardening: a request
//! is smuggled where a proxy and its backend disagree about where one ends).

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use support::*;

const HEAD: &str = "POST /first HTTP/1.1\r\nhost: a\r\n";
/// Stands behind everything: whoever serves it was fooled.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

/// Heads that are refused as a whole: their last lines, and the status.
const HEADS: &[(&str, &str, u16)] = &[
    ("CL.TE", "content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG", 400),
    ("TE.CL", "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n5c\r\n", 400),
    ("CL 0 and TE", "content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE.TE unknown", "transfer-encoding: chunked\r\ntransfer-encoding: cow\r\n\r\n0\r\n\r\n", 400),
    (
        "TE.TE same",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("TE xchunked", "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("TE space colon", "transfer-encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE vertical tab", "transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("TE folded", "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE first in fold", "x: y\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE after bare LF", "x: y\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE after bare CR", "x: y\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE list", "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE list not last", "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    ("TE leading comma", "transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n", 400),
    ("TE quoted", "transfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
    ("TE parameter", "transfer-encoding: chunked;x=y\r\n\r\n0\r\n\r\n", 400),
    ("TE identity", "transfer-encoding: identity\r\n\r\n", 400),
    ("TE empty", "transfer-encoding:\r\n\r\n", 400),
    ("CL differ", "content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
    ("CL same", "content-length: 5\r\ncontent-length: 5\r\n\r\nhello", 400),
    ("CL list", "content-length: 5, 5\r\n\r\nhello", 400),
    ("CL sign", "content-length: +5\r\n\r\nhello", 400),
    ("CL negative", "content-length: -1\r\n\r\n", 400),
    ("CL hexadecimal", "content-length: 0x5\r\n\r\nhello", 400),
    ("CL space", "content-length: 5 5\r\n\r\nhello", 400),
    ("CL empty", "content-length:\r\n\r\n", 400),
    ("CL too large", "content-length: 18446744073709551616\r\n\r\n", 400),
    ("CL space colon", "content-length : 5\r\n\r\nhello", 400),
    ("bare LF ends the head", "x: y\n\nhello", 400),
    ("bare LF ends a line", "x: y\ncontent-length: 5\r\n\r\nhello", 400),
    ("bare LF as the empty line", "content-length: 5\r\n\nhello", 400),
    ("NUL in a value", "x: a\0b\r\n\r\n", 400),
    ("NUL in a name", "x\0y: b\r\n\r\n", 400),
    ("fold", "x: y\r\n z\r\n\r\n", 400),
    ("space before a colon", "x : y\r\n\r\n", 400),
    ("no colon", "x\r\n\r\n", 400),
    ("second host", "host: b\r\n\r\n", 400),
];

/// Whole requests that are refused, and the status.
const REQUESTS: &[(&str, &str, u16)] = &[
    ("TE in 1.0", "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("HTTP/0.9", "GET /\r\n", 400),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nhost: a\r\n\r\n", 505),
    ("HTTP/2 in words", "GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
    ("bare LF after the line", "GET / HTTP/1.1\nhost: a\r\n\r\n", 400),
    ("only LF", "GET / HTTP/1.1\nhost: a\n\n", 400),
    ("LF first", "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("two spaces", "GET  / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("space after the version", "GET / HTTP/1.1 \r\nhost: a\r\n\r\n", 400),
    ("tab", "GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("space in the target", "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("fragment", "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("asterisk", "GET * HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("authority", "GET a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", 400),
    ("another host", "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("space first", "GET / HTTP/1.1\r\n host: a\r\n\r\n", 400),
    ("tunnel", "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 501),
];

/// Bodies that break in the middle of a request that was good so far.
const BODIES: &[(&str, &str)] = &[
    ("size with a sign", "+5\r\nhello\r\n0\r\n\r\n"),
    ("size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("size with a space", "5 \r\nhello\r\n0\r\n\r\n"),
    ("size after a space", " 5\r\nhello\r\n0\r\n\r\n"),
    ("size of 17 digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("size over 64 bits", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("LF after the size", "5\nhello\r\n0\r\n\r\n"),
    ("CR after the size", "5\rhello\r\n0\r\n\r\n"),
    ("LF after an extension", "5;x\nhello\r\n0\r\n\r\n"),
    ("LF after the data", "5\r\nhello\n0\r\n\r\n"),
    ("CR after the data", "5\r\nhello\r0\r\n\r\n"),
    ("data without an end", "5\r\nhello0\r\n\r\n"),
    ("more data than told", "5\r\nhello!\r\n0\r\n\r\n"),
    ("NUL in an extension", "5;\0\r\nhello\r\n0\r\n\r\n"),
    ("LF ends the trailers", "0\r\nx: y\r\n\n"),
    ("LF in the trailers", "0\r\nx: y\n\r\n"),
    ("fold in the trailers", "0\r\nx: y\r\n z\r\n\r\n"),
    ("request as trailers", "0\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
];

/// A proxy before a backend that notes every byte it is sent, and answers each request once it
/// is whole.
fn watched() -> (Proxy, Arc<Mutex<Vec<String>>>, RawBackend) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let notes = Arc::clone(&seen);
    let backend = RawBackend::start(move |mut raw, _| {
        loop {
            let head = raw.head();
            if head.is_empty() {
                return;
            }
            notes.lock().unwrap().push(head.clone());
            if field(&head, "transfer-encoding").is_some()
                && !raw.until("0\r\n\r\n").ends_with("0\r\n\r\n")
            {
                return;
            }
            let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            raw.exactly(length);
            raw.send(&ok("served"));
        }
    });
    (Proxy::start(Graph::http(free_port()).all_to(&[backend.addr])), seen, backend)
}

/// Sends `request` and [`NEXT`]; all that comes back until the proxy closes. It may close while
/// we still send.
fn answers(proxy: &Proxy, request: &str) -> String {
    let mut raw = proxy.connect();
    let _ = raw.stream.write_all(format!("{request}{NEXT}").as_bytes());
    let mut all = Vec::new();
    let _ = raw.stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn heads_of_two_meanings_are_refused_and_end_the_connection() {
    let (proxy, seen, backend) = watched();
    let heads = HEADS.iter().map(|(name, rest, status)| (*name, format!("{HEAD}{rest}"), *status));
    let requests = REQUESTS.iter().map(|(name, text, status)| (*name, (*text).to_owned(), *status));
    for (name, text, expected) in heads.chain(requests) {
        let answers = answers(&proxy, &text);
        assert_eq!(status(&answers), expected, "{name}: {answers}");
        assert_eq!(
            answers.matches("HTTP/1.1 ").count(),
            1,
            "{name}: more than one answer: {answers}"
        );
        assert_eq!(field(&answers, "connection"), Some("close"), "{name}: {answers}");
    }
    assert_eq!(backend.connections.load(Ordering::SeqCst), 0, "{:?}", seen.lock().unwrap());
}

#[test]
fn bodies_that_break_end_both_connections_and_are_never_completed() {
    let (proxy, seen, _backend) = watched();
    for (name, text) in BODIES {
        let request = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{text}");
        let answers = answers(&proxy, &request);
        assert!(!answers.contains("served"), "{name}: {answers}");
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{name}: {answers}");
        if !answers.is_empty() {
            assert_eq!(status(&answers), 400, "{name}: {answers}");
        }
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|head| head.starts_with("POST /first ")), "{seen:?}");
}

#[test]
fn a_fault_ends_what_was_sent_after_good_requests() {
    let (proxy, seen, _backend) = watched();
    let good = "GET /good HTTP/1.1\r\nhost: a\r\n\r\n";
    for (name, rest, expected) in HEADS {
        seen.lock().unwrap().clear();
        let answers = answers(&proxy, &format!("{good}{good}{HEAD}{rest}"));
        let codes: Vec<&str> =
            answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(codes, ["200", "200", &expected.to_string()], "{name}: {answers}");
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 2, "{name}: {seen:?}");
        assert!(seen.iter().all(|head| head.starts_with("GET /good ")), "{name}: {seen:?}");
    }
}

#[test]
fn what_looks_like_a_request_in_a_body_stays_in_it() {
    let (proxy, seen, _backend) = watched();
    let inner = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let size = inner.len();
    for body in [
        format!("content-length: {size}\r\n\r\n{inner}"),
        format!("content-length: 00{size}\r\n\r\n{inner}"),
        format!("transfer-encoding: chunked\r\n\r\n{size:x}\r\n{inner}\r\n0\r\n\r\n"),
        format!(
            "Transfer-Encoding:\tCHUNKED \r\n\r\n{size:X};x=\"{size}\"\r\n{inner}\r\n0\r\n\r\n"
        ),
    ] {
        seen.lock().unwrap().clear();
        let mut raw = proxy.connect();
        raw.send(&format!(
            "{HEAD}{body}GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        ));
        let answers = raw.rest();
        assert_eq!(answers.matches("served").count(), 2, "{body:?}: {answers}");
        let seen = seen.lock().unwrap();
        let lines: Vec<&str> = seen.iter().map(|head| head.lines().next().unwrap()).collect();
        assert_eq!(lines, ["POST /first HTTP/1.1", "GET /next HTTP/1.1"], "{body:?}");
        let heads = seen.concat();
        assert!(
            !heads.contains(": 00") && !heads.contains("CHUNKED"),
            "sent on as it came: {heads}"
        );
    }
}

#[test]
fn a_body_that_ends_early_is_never_completed() {
    let (proxy, seen, _backend) = watched();
    for rest in [
        "content-length: 100\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n5\r\nhel",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        let mut raw = proxy.connect();
        raw.send(&format!("{HEAD}{rest}"));
        raw.stream.shutdown(Shutdown::Write).unwrap();
        assert!(!raw.rest().contains("served"), "{rest:?}");
    }
    let mut again = proxy.connect();
    again.send("GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(status(&again.rest()), 200);
    let seen = seen.lock().unwrap();
    assert!(seen.last().unwrap().starts_with("GET /next HTTP/1.1\r\n"), "{seen:?}");
}

/// What a backend may not answer: the client gets 502, and the connection to the backend is
/// used for nobody else.
const ANSWERS: &[(&str, &str)] = &[
    (
        "CL and TE",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("CL twice", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
    ("CL list", "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nab"),
    ("CL sign", "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab"),
    ("TE list", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("TE in 1.0", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("bare LF", "HTTP/1.1 200 OK\ncontent-length: 2\r\n\r\nab"),
    ("bare LF in a field", "HTTP/1.1 200 OK\r\nx: y\ncontent-length: 2\r\n\r\nab"),
    ("fold", "HTTP/1.1 200 OK\r\nx: y\r\n z\r\ncontent-length: 2\r\n\r\nab"),
    ("space before a colon", "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nab"),
    ("NUL", "HTTP/1.1 200 OK\r\nx: \0\r\ncontent-length: 2\r\n\r\nab"),
    ("another protocol", "ICY 200 OK\r\ncontent-length: 2\r\n\r\nab"),
    ("HTTP/2 in words", "HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nab"),
    ("two digits", "HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nab"),
    ("interim with a body", "HTTP/1.1 103 X\r\ncontent-length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n"),
];

#[test]
fn answers_of_two_meanings_are_not_passed_on() {
    for (name, answer) in ANSWERS {
        let backend = RawBackend::start(move |mut raw, _| {
            while !raw.message().is_empty() {
                raw.send(answer);
            }
        });
        let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
        let mut client = proxy.connect();
        for round in 1..=2 {
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            let answer = client.message();
            assert_eq!((status(&answer), body(&answer)), (502, "UpstreamProtocol\n"), "{name}");
            assert_eq!(backend.connections.load(Ordering::SeqCst), round, "{name}: used again");
        }
    }
}

#[test]
fn what_follows_an_answer_is_nobodys_answer() {
    for first in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        "HTTP/1.1 204 No Content\r\ncontent-length: 40\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nev",
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    ] {
        let backend = RawBackend::start(move |mut raw, number| {
            while !raw.message().is_empty() {
                raw.send(if number == 0 {
                    first
                } else {
                    "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
                });
            }
        });
        let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
            config.workers = 1;
        });
        let one = proxy.get("/");
        assert!(matches!(status(&one), 200 | 204) && !one.contains("evil"), "{first:?}: {one}");
        for _ in 0..3 {
            let next = proxy.get("/");
            assert_eq!(body(&next), "good", "{first:?}");
        }
    }
}
