//! TLS ports that have streams: the server name decides between HTTP, streams whose TLS is ended
//! here, and streams whose TLS is the backend's.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use support::streams::*;
use support::*;
use tidegate::graph::{BackendProtocol, Rule, TlsEnd};
use tidegate::proxy::Config;

/// What is behind the names of [`Site::start`].
struct Site {
    proxy: Proxy,
    /// Of the listener, for `*.here.test` and `*.web.test`.
    own: (String, String),
    /// Of the backend of `*.through.test`.
    behind: (String, String),
    _backends: Vec<RawBackend>,
}

impl Site {
    /// One port with
    /// - `*.here.test`: a stream whose TLS is ended here, with routes for `*.here.test`, and for
    ///   `b.here.test` to another backend;
    /// - `*.through.test`: a stream whose TLS is the backend's, with a route for all names;
    /// - `empty.test`: a stream without routes;
    /// - `*.web.test`: HTTP.
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let own = certificate(&["*.here.test", "*.web.test"]);
        let behind = certificate(&["behind.test"]);
        let (here, b, web) = (shout("here:"), shout("b:"), RawBackend::named("web"));
        let through = tls_backend(&behind, |mut stream| {
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).unwrap();
            stream.write_all(b"through:").unwrap();
            stream.write_all(&asked).unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        });
        let protocol = tls(&[("*.here.test", &own), ("empty.test", &own), ("*.web.test", &own)]);
        let mut graph = Graph::with(free_port(), protocol);
        let port = graph.port;
        let mut stream = |claim: &str, end, routes: &[(&str, &str, SocketAddr)]| {
            let name = format!("gateway/test/gw/{claim}");
            let stream = graph.builder.tls_stream(port, claim, end, name.into());
            for (host, backend, to) in routes {
                let to = graph.backend(backend, BackendProtocol::Tcp, &[*to]);
                let rule = Rule { name: rule_name("TLSRoute"), ..forward(to) };
                let rule = graph.builder.rule(rule);
                graph.builder.stream_route(stream, host, (0, "test/test"), rule);
            }
        };
        let to_here = [("*.here.test", "here", here.addr), ("b.here.test", "b", b.addr)];
        stream("*.here.test", TlsEnd::Here, &to_here);
        stream("*.through.test", TlsEnd::Backend, &[("", "through", through.addr)]);
        stream("empty.test", TlsEnd::Here, &[]);
        let to = graph.backend("web", BackendProtocol::Http1, &[web.addr]);
        graph.rule_of("*.web.test", "/", forward(to));
        let proxy = Proxy::start_with(graph.builder.build(), change);
        Site { proxy, own, behind, _backends: vec![here, b, web, through] }
    }

    fn open(&self, name: &str) -> std::io::Result<Tls> {
        handshake(self.proxy.connect(), Some(name))
    }
}

/// Answers with `name` and what it got, once the client has ended.
fn shout(name: &'static str) -> RawBackend {
    RawBackend::start(move |mut raw, _| {
        let asked = raw.rest();
        raw.send(&format!("{name}{asked}"));
    })
}

/// Says `text`, ends its side, and returns what comes until the other side has ended its.
fn ask(tls: &mut Tls, text: &str) -> String {
    tls.write_all(text.as_bytes()).unwrap();
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).unwrap();
    answer
}

fn get(tls: &mut Tls, host: &str) -> String {
    write!(tls, "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_server_name_decides_who_answers_and_whose_certificate_is_shown() {
    let site = Site::start(|_| {});
    for (name, answer, own) in [
        ("a.here.test", "here:hi", true),
        ("A.Here.TEST", "here:hi", true),
        ("b.here.test", "b:hi", true),
        ("deep.b.here.test", "here:hi", true),
        ("a.through.test", "through:hi", false),
    ] {
        let mut tls = site.open(name).unwrap();
        assert!(shown(&tls) == der(if own { &site.own } else { &site.behind }), "{name}");
        assert_eq!(ask(&mut tls, "hi"), answer, "{name}");
    }
    let mut tls = site.open("a.web.test").unwrap();
    assert_eq!(body(&get(&mut tls, "a.web.test")), "web");
    let streams = "tidegate_streams_total{protocol=\"TLS\"}";
    site.proxy.wait("streams are counted", |p| p.metric(streams) == 5.0);
    assert_eq!(site.proxy.metric("tidegate_own_answers_total"), 0.0);
}

#[test]
fn names_that_nobody_serves_are_turned_away_before_any_handshake() {
    let site = Site::start(|_| {});
    for name in ["here.test", "other.test", "through.test", "empty.test"] {
        assert!(site.open(name).is_err(), "{name}");
    }
    let refused = "tidegate_own_answers_total{reason=\"NoRoute\"}";
    site.proxy.wait("each is counted", |p| p.metric(refused) == 4.0);
}

#[test]
fn a_client_without_a_server_name_is_http_s_as_on_ports_without_streams() {
    let site = Site::start(|_| {});
    // The listener has no certificate for those without a name: its handshake fails, but no
    // stream gets it.
    assert!(handshake(site.proxy.connect(), None).is_err());
    site.proxy.wait("it failed", |p| p.metric("tidegate_handshakes_failed_total") == 1.0);
    assert_eq!(site.proxy.metric("tidegate_streams_total"), 0.0);
}

#[test]
fn a_client_hello_in_many_pieces_is_understood() {
    let site = Site::start(|_| {});
    for (name, answer) in [("a.here.test", "here:hi"), ("a.through.test", "through:hi")] {
        let mut connection = client(Some(name));
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).unwrap();
        let mut raw = site.proxy.connect();
        for piece in hello.chunks(hello.len() / 10) {
            raw.stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        let mut tls = rustls::StreamOwned::new(connection, raw.stream);
        tls.conn.complete_io(&mut tls.sock).unwrap();
        assert_eq!(ask(&mut tls, "hi"), answer, "{name}");
    }
}

#[test]
fn what_is_no_client_hello_is_turned_away_at_once() {
    let site = Site::start(|_| {});
    for garbage in [&b"GET / HTTP/1.1\r\nhost: a.here.test\r\n\r\n"[..], &[0x16; 400], &[0; 400]] {
        let mut raw = site.proxy.connect();
        raw.stream.write_all(garbage).unwrap();
        let told = raw.rest();
        assert!(told.len() <= 7, "an alert at most: {told:?}");
    }
    // A handshake message that is longer than any hello may be.
    let mut raw = site.proxy.connect();
    let long = [&[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..], &[0; 20_000]].concat();
    let _ = raw.stream.write_all(&long);
    raw.rest();
    site.proxy.wait("each is counted", |p| p.metric("tidegate_handshakes_failed_total") == 4.0);
}

#[test]
fn a_client_that_is_slow_with_its_hello_is_cut() {
    let limit = Duration::from_millis(300);
    let site = Site::start(|config| config.limits.handshake_timeout = limit);
    let mut silent = site.proxy.connect();
    let mut slow = site.proxy.connect();
    let mut connection = client(Some("a.through.test"));
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    for byte in hello.iter().take(100) {
        if slow.stream.write_all(&[*byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(slow.closes_within(SOON));
    assert!(silent.closes_within(SOON));
    site.proxy.wait("both are counted", |p| p.metric("tidegate_handshakes_failed_total") == 2.0);
}

#[test]
fn a_side_of_a_stream_over_tls_ends_without_the_other() {
    let site = Site::start(|_| {});
    // `ask` ends the client's side before there is an answer; here the backend's answer is long.
    let mut tls = site.open("a.here.test").unwrap();
    let text = "x".repeat(1 << 20);
    tls.conn.set_buffer_limit(None);
    assert_eq!(ask(&mut tls, &text).len(), "here:".len() + text.len());
    site.proxy.wait("it is over", |p| p.handle.as_ref().unwrap().connections() == 0);
    assert_eq!(site.proxy.metric("tidegate_own_answers_total"), 0.0);
}

#[test]
fn a_client_that_breaks_off_its_tls_does_not_end_regularly_for_the_backend() {
    let site = Site::start(|_| {});
    let mut tls = site.open("a.here.test").unwrap();
    tls.write_all(b"half a sen").unwrap();
    tls.flush().unwrap();
    // The connection ends, but not its TLS: what came may be a part only.
    tls.sock.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    assert!(tls.sock.read_to_end(&mut rest).is_err() || rest.is_empty());
    let cause = "tidegate_own_answers_total{reason=\"ClientGone\"}";
    site.proxy.wait("the cause is told", |p| p.metric(cause) == 1.0);
}
