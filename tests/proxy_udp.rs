//! UDP: sessions, their table and their end, weights, backends that are gone, and draining.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::streams::*;
use support::*;
use tidegate::graph::{
    Action, BackendProtocol, GraphBuilder, RouteGraph, Rule, Split, Target, Transport,
};
use tidegate::lifecycle::Phase;
use tidegate::proxy::Config;
use tidegate::reason::Reason;

/// What sessions are given to: weights and endpoints, or why there is none.
type To<'t> = (u32, Result<&'t [SocketAddr], Reason>);

/// A graph with one UDP port whose rule splits like this.
fn udp(port: u16, targets: &[To<'_>]) -> RouteGraph {
    udp_ports(&[port], targets)
}

/// The same with several ports.
fn udp_ports(ports: &[u16], targets: &[To<'_>]) -> RouteGraph {
    let mut graph = Graph { builder: GraphBuilder::new(), port: ports[0] };
    let mut split = Split { targets: Vec::new(), total: 0 };
    for (n, (weight, to)) in targets.iter().enumerate() {
        let to = to.map(|to| graph.backend(&format!("udp-{n}"), BackendProtocol::Udp, to));
        split.total += weight;
        split.targets.push(Target { weight: *weight, to, transforms: Vec::new() });
    }
    let rule = graph.builder.rule(Rule::new(rule_name("UDPRoute"), Action::Forward(split)));
    for port in ports {
        let stream = graph.builder.udp_stream(*port, 5300, "gateway/test/gw/udp".into());
        graph.builder.stream_route(stream, "", (0, "test/test"), rule);
    }
    graph.builder.build()
}

fn start(targets: &[To<'_>], change: impl FnOnce(&mut Config)) -> Proxy {
    Proxy::start_with(udp(free_udp_port(), targets), change)
}

/// A port that is free for UDP too.
fn free_udp_port() -> u16 {
    loop {
        let port = free_port();
        if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// A backend that answers every datagram with its name, a colon and what it got.
struct Echo {
    addr: SocketAddr,
    /// Whom it has heard.
    heard: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Echo {
    fn start(name: &'static str) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = socket.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&heard);
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                told.lock().unwrap().push(from);
                let answer = [name.as_bytes(), b":", &buffer[..length]].concat();
                socket.send_to(&answer, from).unwrap();
            }
        });
        Echo { addr, heard }
    }

    /// How many sessions it has met.
    fn sessions(&self) -> usize {
        let mut heard = self.heard.lock().unwrap().clone();
        heard.sort();
        heard.dedup();
        heard.len()
    }
}

/// A client that is connected: it takes only datagrams from whom it sends to.
struct Client(UdpSocket);

impl Client {
    fn new(to: impl Into<SocketAddr>) -> Self {
        let to = to.into();
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Client(socket)
    }

    fn send(&self, text: &str) {
        self.0.send(text.as_bytes()).unwrap();
    }

    fn hear(&self) -> String {
        let mut buffer = vec![0; 65_536];
        let length = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn ask(&self, text: &str) -> String {
        self.send(text);
        self.hear()
    }

    /// Whether nothing comes for a while.
    fn is_left_alone(&self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let heard = self.0.recv(&mut [0; 100]);
        self.0.set_read_timeout(Some(SOON)).unwrap();
        heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

#[test]
fn datagrams_and_answers_of_many_clients_do_not_mix() {
    let echo = Echo::start("echo");
    let proxy = start(&[(1, Ok(&[echo.addr]))], |_| {});
    let clients: Vec<Client> = (0..100).map(|_| Client::new(proxy.addr())).collect();
    for round in 0..3 {
        for (n, client) in clients.iter().enumerate() {
            client.send(&format!("{n} {round}"));
        }
        for (n, client) in clients.iter().enumerate() {
            assert_eq!(client.hear(), format!("echo:{n} {round}"));
        }
    }
    assert_eq!(echo.sessions(), 100, "a session has one address for its backend");
    assert_eq!(proxy.metric("tidegate_udp_sessions"), 100.0);
    assert_eq!(proxy.metric("tidegate_udp_datagrams_dropped_total"), 0.0);
}

#[test]
fn the_longest_datagrams_and_empty_ones_pass_both_ways() {
    let echo = Echo::start("");
    let proxy = start(&[(1, Ok(&[echo.addr]))], |_| {});
    let client = Client::new(proxy.addr());
    // The echo adds a byte.
    for length in [0, 1, 1473, 9000, 65_506] {
        let text = "x".repeat(length);
        assert_eq!(client.ask(&text).len(), length + 1);
    }
}

#[test]
fn answers_come_from_the_address_that_the_client_spoke_to() {
    let echo = Echo::start("echo");
    let proxy = start(&[(1, Ok(&[echo.addr]))], |_| {});
    // Without care, the answer would come from 127.0.0.1, and a connected client drops that.
    for ip in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 1, 2, 3]] {
        assert_eq!(Client::new((ip, proxy.port)).ask("hi"), "echo:hi", "{ip:?}");
    }
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        assert_eq!(Client::new((Ipv6Addr::LOCALHOST, proxy.port)).ask("six"), "echo:six");
    }
}

#[test]
fn a_session_keeps_its_endpoint_and_sessions_are_spread_by_weight() {
    let (a, b, none) = (Echo::start("a"), Echo::start("b"), Echo::start("none"));
    let targets = [(3, Ok(&[a.addr][..])), (1, Ok(&[b.addr][..])), (0, Ok(&[none.addr][..]))];
    let proxy = start(&targets, |_| {});
    let mut of_a = 0;
    for _ in 0..400 {
        let client = Client::new(proxy.addr());
        let first = client.ask("x");
        assert_eq!(client.ask("x"), first);
        of_a += usize::from(first == "a:x");
        assert_ne!(first, "none:x");
    }
    assert!((250..350).contains(&of_a), "{of_a} of 400");
}

#[test]
fn a_silent_session_ends_and_is_counted_with_its_bytes() {
    let echo = Echo::start("echo");
    let idle = Duration::from_millis(300);
    let proxy = start(&[(1, Ok(&[echo.addr]))], |config| config.limits.udp_idle = idle);
    let client = Client::new(proxy.addr());
    let start = Instant::now();
    while start.elapsed() < 2 * idle {
        client.ask("hello");
        thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(echo.sessions(), 1, "a session that is used goes on");
    proxy.wait("it ends", |p| p.metric("tidegate_udp_sessions") == 0.0);
    assert_eq!(proxy.metric("tidegate_streams_total{protocol=\"UDP\"}"), 1.0);
    assert_eq!(proxy.metric("tidegate_route_streams_total"), 1.0);
    let received = proxy.metric("tidegate_route_received_bytes_total");
    assert_eq!(proxy.metric("tidegate_route_sent_bytes_total"), received * 2.0);
    client.ask("again");
    assert_eq!(echo.sessions(), 2);
}

#[test]
fn there_are_never_more_sessions_than_the_limit() {
    let echo = Echo::start("echo");
    let proxy = start(&[(1, Ok(&[echo.addr]))], |config| {
        config.workers = 1;
        config.limits.udp_sessions = 5;
    });
    let first: Vec<Client> = (0..5).map(|_| Client::new(proxy.addr())).collect();
    for client in &first {
        client.ask("x");
    }
    let late = Client::new(proxy.addr());
    late.send("x");
    assert!(late.is_left_alone(), "all the others are busy");
    let dropped = "tidegate_udp_datagrams_dropped_total{reason=\"Overloaded\"}";
    assert_eq!(proxy.metric(dropped), 1.0);
    thread::sleep(Duration::from_millis(1000));
    assert_eq!(late.ask("y"), "echo:y", "a silent one gives way");
    assert_eq!(proxy.metric("tidegate_udp_sessions"), 5.0);
    assert_eq!(proxy.metric("tidegate_own_answers_total{reason=\"Overloaded\"}"), 1.0);
}

#[test]
fn what_has_no_backend_is_dropped_and_counted_by_its_cause() {
    let cases: [(&[To<'_>], Reason); 3] = [
        (&[(1, Err(Reason::BackendNotFound))], Reason::BackendNotFound),
        (&[(1, Err(Reason::RefNotPermitted))], Reason::RefNotPermitted),
        (&[(1, Ok(&[]))], Reason::NoEndpoints),
    ];
    for (targets, reason) in cases {
        let proxy = start(targets, |_| {});
        let client = Client::new(proxy.addr());
        client.send("x");
        let metric = format!("tidegate_udp_datagrams_dropped_total{{reason=\"{reason}\"}}");
        proxy.wait("the cause is told", |p| p.metric(&metric) == 1.0);
        assert!(client.is_left_alone());
    }
}

#[test]
fn a_session_whose_endpoint_refuses_moves_to_another() {
    let echo = Echo::start("alive");
    let dead: SocketAddr = (Ipv4Addr::LOCALHOST, free_udp_port()).into();
    let proxy = start(&[(1, Ok(&[dead, echo.addr]))], |_| {});
    for _ in 0..20 {
        let client = Client::new(proxy.addr());
        client.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut buffer = [0; 100];
        let answered = (0..50).any(|_| {
            client.send("x");
            client.0.recv(&mut buffer).is_ok()
        });
        assert!(answered);
    }
    let alone = start(&[(1, Ok(&[dead]))], |_| {});
    let client = Client::new(alone.addr());
    for _ in 0..10 {
        client.send("x");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(alone.metric("tidegate_udp_sessions"), 1.0, "there is nowhere to move to");
}

#[test]
fn sessions_follow_the_endpoints_and_the_rule() {
    let (old, new) = (Echo::start("old"), Echo::start("new"));
    let port = free_udp_port();
    let proxy = Proxy::start(udp(port, &[(1, Ok(&[old.addr]))]));
    let client = Client::new(proxy.addr());
    assert_eq!(client.ask("x"), "old:x");
    // The same backend by other endpoints, without a graph of its own.
    proxy.shared.load().backends[0].endpoints.replace(&[new.addr]);
    assert_eq!(client.ask("x"), "new:x");
    proxy.shared.load().backends[0].endpoints.replace(&[old.addr, new.addr]);
    assert_eq!(client.ask("x"), "new:x", "an endpoint that stays keeps its sessions");
    // Another graph in which the backend has no weight.
    let targets = [(0, Ok(&[new.addr][..])), (1, Ok(&[old.addr][..]))];
    proxy.shared.publish(udp(port, &targets));
    assert_eq!(client.ask("x"), "old:x");
    let before = old.sessions();
    proxy.shared.publish(udp(port, &targets));
    assert_eq!(client.ask("x"), "old:x");
    assert_eq!(old.sessions(), before, "what concerns it not leaves a session alone");
}

#[test]
fn a_port_that_is_wanted_no_more_is_closed_and_tcp_may_have_the_same_number() {
    let echo = Echo::start("echo");
    let port = free_udp_port();
    let mut both = Graph::http(port);
    let backend = both.backend("udp", BackendProtocol::Udp, &[echo.addr]);
    let rule = both.builder.rule(Rule { name: rule_name("UDPRoute"), ..forward(backend) });
    let stream = both.builder.udp_stream(port, 53, "gateway/test/gw/udp".into());
    both.builder.stream_route(stream, "", (0, "test/test"), rule);
    let proxy = Proxy::start(both.all_to(&[]));
    let client = Client::new(proxy.addr());
    assert_eq!(client.ask("x"), "echo:x");
    assert_eq!(status(&proxy.get("/")), 503);
    proxy.shared.publish(Graph::http(port).all_to(&[]));
    let listening = proxy.handle.as_ref().unwrap().listening();
    eventually("UDP is closed", || !listening.borrow().contains_key(&(Transport::Udp, port)));
    proxy.wait("its sessions end", |p| p.handle.as_ref().unwrap().sessions() == 0);
    eventually("the port is free", || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok());
    assert_eq!(status(&proxy.get("/")), 503);
}

#[test]
fn sessions_go_on_while_the_process_drains_and_new_ones_do_not_begin() {
    let echo = Echo::start("echo");
    let proxy = start(&[(1, Ok(&[echo.addr]))], |config| {
        config.limits.drain_idle = Duration::from_millis(500);
    });
    let clients: Vec<Client> = (0..10).map(|_| Client::new(proxy.addr())).collect();
    for client in &clients {
        client.ask("x");
    }
    proxy.lifecycle.advance(Phase::Leaving);
    proxy.lifecycle.advance(Phase::Draining);
    let listening = proxy.handle.as_ref().unwrap().listening();
    eventually("draining has begun", || listening.borrow().is_empty());
    let stranger = Client::new(proxy.addr());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1000) {
        // The sessions of the others end meanwhile, maybe all of a worker.
        assert_eq!(clients[0].ask("y"), "echo:y");
        stranger.send("z");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(stranger.is_left_alone());
    assert!(drained(&proxy, SOON), "silent sessions are not waited for");
}

/// Whether the proxy says that it is drained, in time.
fn drained(proxy: &Proxy, time: Duration) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let handle = proxy.handle.as_ref().unwrap();
    runtime.block_on(async { tokio::time::timeout(time, handle.drained()).await.is_ok() })
}

#[test]
fn much_at_once_is_carried_without_growing() {
    let echo = Echo::start("");
    let proxy = start(&[(1, Ok(&[echo.addr]))], |_| {});
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let client = Client::new(proxy.addr());
                for n in 0..2000 {
                    let text = n.to_string();
                    assert_eq!(client.ask(&text), format!(":{text}"));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.load(Ordering::Relaxed), 8000);
    assert_eq!(echo.sessions(), 4);
}

#[test]
fn a_port_whose_table_is_full_leaves_others_their_share() {
    let echo = Echo::start("echo");
    let ports = [free_udp_port(), free_udp_port()];
    let proxy = Proxy::start_with(udp_ports(&ports, &[(1, Ok(&[echo.addr]))]), |config| {
        config.workers = 1;
        config.limits.udp_sessions = 4;
    });
    let client = |port: u16| Client::new((Ipv4Addr::LOCALHOST, port));
    let crowd: Vec<Client> = (0..4).map(|_| client(ports[0])).collect();
    for one in &crowd {
        assert_eq!(one.ask("a"), "echo:a");
    }
    let [one, two, three] = [(); 3].map(|()| client(ports[1]));
    assert_eq!((one.ask("b"), two.ask("b")), ("echo:b".to_owned(), "echo:b".to_owned()));
    three.send("b");
    assert!(three.is_left_alone(), "more than its share is not to be had");
    assert_eq!(proxy.metric("tidegate_udp_sessions"), 6.0);
}
