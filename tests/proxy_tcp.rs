//! TCP streams: both ways to their own end, weights, failover, limits, and what is refused.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use support::streams::*;
use support::*;
use tidegate::graph::{
    Action, BackendProtocol, GraphBuilder, RouteGraph, Rule, Split, Target, Transport,
};
use tidegate::lifecycle::Phase;
use tidegate::reason::Reason;

/// What a stream is given to: weights and endpoints, or why there is none.
type To<'t> = (u32, Result<&'t [SocketAddr], Reason>);

/// A graph with one TCP port whose rule splits like this.
fn tcp(port: u16, targets: &[To<'_>]) -> RouteGraph {
    let mut graph = Graph { builder: GraphBuilder::new(), port };
    let mut split = Split { targets: Vec::new(), total: 0 };
    for (n, (weight, to)) in targets.iter().enumerate() {
        let to = to.map(|to| graph.backend(&format!("tcp-{n}"), BackendProtocol::Tcp, to));
        split.total += weight;
        split.targets.push(Target { weight: *weight, to, transforms: Vec::new() });
    }
    let rule = Rule::new(rule_name("TCPRoute"), Action::Forward(split));
    let rule = graph.builder.rule(rule);
    let stream = graph.builder.tcp_stream(port, 9000, "gateway/test/gw/tcp".into());
    graph.builder.stream_route(stream, "", (0, "test/test"), rule);
    graph.builder.build()
}

fn start(targets: &[To<'_>]) -> Proxy {
    Proxy::start(tcp(free_port(), targets))
}

/// Sends back what it gets, and ends when the client's side ends.
fn echo() -> RawBackend {
    RawBackend::start(|raw, _| {
        let mut stream = raw.stream;
        let mut buffer = [0; 4096];
        while let Ok(read) = stream.read(&mut buffer) {
            if read == 0 || stream.write_all(&buffer[..read]).is_err() {
                return;
            }
        }
    })
}

/// Says its name to everybody and hangs up.
fn named(name: &'static str) -> RawBackend {
    RawBackend::start(move |mut raw, _| raw.send(name))
}

/// How a connection ends that gets nothing: by a reset, or regularly.
fn ends_with_reset(mut raw: Raw) -> bool {
    match raw.stream.read(&mut [0]) {
        Ok(read) => {
            assert_eq!(read, 0, "it got bytes");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            true
        }
    }
}

#[test]
fn bytes_go_both_ways_and_a_client_that_has_ended_still_gets_its_answer() {
    let backend = RawBackend::start(|mut raw, _| {
        let asked = raw.rest();
        raw.send(&format!("you said {asked}"));
    });
    let proxy = start(&[(1, Ok(&[backend.addr]))]);
    let mut client = proxy.connect();
    client.send("hello");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "you said hello");
    proxy.wait("the stream is counted", |p| p.metric("tidegate_streams_total") == 1.0);
    assert_eq!(proxy.metric("tidegate_received_bytes_total"), 5.0);
    assert_eq!(proxy.metric("tidegate_sent_bytes_total"), 14.0);
    assert_eq!(proxy.metric("tidegate_route_streams_total"), 1.0);
    assert_eq!(proxy.metric("tidegate_own_answers_total"), 0.0);
}

#[test]
fn a_backend_that_has_ended_still_gets_what_the_client_says() {
    let (told, hears) = mpsc::channel();
    let backend = RawBackend::start(move |mut raw, _| {
        raw.send("bye");
        raw.stream.shutdown(Shutdown::Write).unwrap();
        told.send(raw.rest()).unwrap();
    });
    let proxy = start(&[(1, Ok(&[backend.addr]))]);
    let mut client = proxy.connect();
    assert_eq!(client.rest(), "bye");
    client.send("one more thing");
    drop(client);
    assert_eq!(hears.recv_timeout(SOON).unwrap(), "one more thing");
}

#[test]
fn much_goes_both_ways_at_once_unchanged() {
    const BYTES: usize = 32 << 20;
    let backend = echo();
    let proxy = start(&[(1, Ok(&[backend.addr]))]);
    let client = proxy.connect().stream;
    let mut writer = client.try_clone().unwrap();
    let pattern = |n: usize| (n / 251 + n) as u8;
    let sending = thread::spawn(move || {
        let bytes: Vec<u8> = (0..BYTES).map(pattern).collect();
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::with_capacity(BYTES);
    let mut client = client;
    client.read_to_end(&mut got).unwrap();
    sending.join().unwrap();
    assert_eq!(got.len(), BYTES);
    assert!(got.iter().enumerate().all(|(n, byte)| *byte == pattern(n)));
}

#[test]
fn a_client_that_reads_slowly_stops_the_backend() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let backend = RawBackend::start(move |raw, _| {
        let mut stream = raw.stream;
        while let Ok(wrote) = stream.write(&[7; 64 * 1024]) {
            counted.fetch_add(wrote, Ordering::SeqCst);
        }
    });
    let proxy = start(&[(1, Ok(&[backend.addr]))]);
    let mut client = proxy.connect().stream;
    client.read_exact(&mut [0; 1024]).unwrap();
    let mut before = usize::MAX;
    eventually("the backend is stopped", || {
        thread::sleep(Duration::from_millis(100));
        let now = sent.load(Ordering::SeqCst);
        std::mem::replace(&mut before, now) == now
    });
    assert!(before < 32 << 20, "{before} bytes are somewhere between");
    client.read_exact(&mut vec![0; before]).unwrap();
    eventually("it goes on", || sent.load(Ordering::SeqCst) > before);
}

#[test]
fn a_silent_stream_is_reset_and_a_busy_one_is_not() {
    let backend = echo();
    let graph = tcp(free_port(), &[(1, Ok(&[backend.addr]))]);
    let idle = Duration::from_millis(600);
    let proxy = Proxy::start_with(graph, |config| config.limits.stream_idle = idle);
    let (silent, mut busy) = (proxy.connect(), proxy.connect());
    let start = Instant::now();
    while start.elapsed() < 2 * idle {
        busy.send("x");
        assert_eq!(busy.exactly(1), "x");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(ends_with_reset(silent));
    proxy.wait("the cause is told", |p| {
        p.metric("tidegate_own_answers_total{reason=\"IdleTimeout\"}") == 1.0
    });
    busy.send("y");
    assert_eq!(busy.exactly(1), "y");
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.exactly(1);
        socket2::SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let proxy = start(&[(1, Ok(&[backend.addr]))]);
    let mut client = proxy.connect();
    client.send("x");
    assert!(ends_with_reset(client));
    proxy.wait("the cause is told", |p| {
        p.metric("tidegate_own_answers_total{reason=\"UpstreamReset\"}") == 1.0
    });
}

#[test]
fn connections_are_spread_by_weight() {
    let (a, b, none) = (named("a"), named("b"), named("none"));
    let proxy = start(&[(3, Ok(&[a.addr])), (1, Ok(&[b.addr])), (0, Ok(&[none.addr]))]);
    let answers: Vec<String> = (0..400).map(|_| proxy.connect().rest()).collect();
    let of_a = answers.iter().filter(|answer| *answer == "a").count();
    assert!((250..350).contains(&of_a), "{of_a} of 400");
    assert_eq!(answers.iter().filter(|answer| *answer == "b").count(), 400 - of_a);
}

#[test]
fn an_endpoint_that_cannot_be_reached_gives_way_to_another() {
    let backend = named("alive");
    let endpoints = [dead_endpoint(), backend.addr, dead_endpoint()];
    let proxy = start(&[(1, Ok(&endpoints))]);
    for _ in 0..20 {
        assert_eq!(proxy.connect().rest(), "alive");
    }
}

#[test]
fn what_has_no_backend_is_reset_and_counted_by_its_cause() {
    let dead = [dead_endpoint()];
    let cases: [(&[To<'_>], Reason); 4] = [
        (&[(1, Err(Reason::BackendNotFound))], Reason::BackendNotFound),
        (&[(1, Err(Reason::RefNotPermitted))], Reason::RefNotPermitted),
        (&[(1, Ok(&[]))], Reason::NoEndpoints),
        (&[(1, Ok(&dead))], Reason::ConnectFailed),
    ];
    for (targets, reason) in cases {
        let proxy = start(targets);
        assert!(ends_with_reset(proxy.connect()), "{reason}");
        proxy.wait("the cause is told", |p| {
            p.metric(&format!("tidegate_own_answers_total{{reason=\"{reason}\"}}")) == 1.0
        });
    }
    let mut builder = GraphBuilder::new();
    builder.tcp_stream(free_port(), 9000, "gateway/test/gw/tcp".into());
    let proxy = Proxy::start(builder.build());
    assert!(ends_with_reset(proxy.connect()), "no route");
}

#[test]
fn a_backend_with_tls_is_spoken_to_by_tls() {
    let backend = tls_backend(&certificate(&["backend.example"]), |mut stream| {
        let mut asked = Vec::new();
        stream.read_to_end(&mut asked).unwrap();
        stream.write_all(b"secret ").unwrap();
        stream.write_all(&asked).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    });
    let mut graph = Graph { builder: GraphBuilder::new(), port: free_port() };
    let to = graph.backend("tls", client_tls("backend.example"), &[backend.addr]);
    let rule = graph.builder.rule(Rule { name: rule_name("TCPRoute"), ..forward(to) });
    let stream = graph.builder.tcp_stream(graph.port, 9000, "gateway/test/gw/tcp".into());
    graph.builder.stream_route(stream, "", (0, "test/test"), rule);
    let proxy = Proxy::start(graph.builder.build());
    let mut client = proxy.connect();
    client.send("ping");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "secret ping");
}

#[test]
fn streams_go_on_while_the_process_drains_and_new_ones_are_not_taken() {
    let backend = echo();
    let proxy = start(&[(1, Ok(&[backend.addr]))]);
    let mut client = proxy.connect();
    client.send("a");
    assert_eq!(client.exactly(1), "a");
    proxy.lifecycle.advance(Phase::Leaving);
    proxy.lifecycle.advance(Phase::Draining);
    eventually("nothing is accepted", || TcpStream::connect(proxy.addr()).is_err());
    client.send("b");
    assert_eq!(client.exactly(1), "b");
    assert_eq!(proxy.handle.as_ref().unwrap().connections(), 1);
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "");
    proxy.wait("it is drained", |p| p.handle.as_ref().unwrap().connections() == 0);
}

#[test]
fn streams_count_against_the_cap_of_connections() {
    let backend = echo();
    let graph = tcp(free_port(), &[(1, Ok(&[backend.addr]))]);
    let proxy = Proxy::start_with(graph, |config| {
        config.limits.connections = 2;
        config.workers = 1;
    });
    let mut open: Vec<Raw> = (0..2).map(|_| proxy.connect()).collect();
    for client in &mut open {
        client.send("x");
        assert_eq!(client.exactly(1), "x");
    }
    let mut late = proxy.connect();
    late.send("x");
    late.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(late.stream.read(&mut [0]).is_err(), "it is served beyond the cap");
    late.stream.set_read_timeout(Some(SOON)).unwrap();
    open.truncate(1);
    assert_eq!(late.exactly(1), "x");
}

#[test]
fn a_change_of_the_rule_concerns_new_connections_only() {
    let (old, new) = (echo(), named("new"));
    let port = free_port();
    let proxy = Proxy::start(tcp(port, &[(1, Ok(&[old.addr]))]));
    let mut client = proxy.connect();
    client.send("a");
    assert_eq!(client.exactly(1), "a");
    proxy.shared.publish(tcp(port, &[(1, Ok(&[new.addr]))]));
    proxy.wait("new ones go to the new backend", |p| p.connect().rest() == "new");
    client.send("b");
    assert_eq!(client.exactly(1), "b");
    let listening = proxy.handle.as_ref().unwrap().listening();
    assert_eq!(listening.borrow().get(&(Transport::Tcp, port)), Some(&Ok(())));
}
