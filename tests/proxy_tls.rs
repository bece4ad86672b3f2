//! TLS: which certificate is shown, and that changing it drops nothing.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use support::*;
use tidegate::graph::{BackendProtocol, BackendTls, Protocol, Roots, RouteGraph};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A client's TLS that believes every certificate: the tests look at it themselves. What it is
/// given for taking sessions up again is kept for all of its connections.
fn client(alpn: &[&str]) -> Arc<ClientConfig> {
    let any = BackendTls::new("any.test", &Roots::System, false).unwrap();
    let mut config = ClientConfig::clone(&any.config);
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn connect(proxy: &Proxy, name: &str, alpn: &[&str]) -> Result<Tls, std::io::Error> {
    connect_as(&client(alpn), proxy.port, name)
}

fn connect_as(config: &Arc<ClientConfig>, port: u16, name: &str) -> Result<Tls, std::io::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    tls.conn.complete_io(&mut tls.sock)?;
    Ok(tls)
}

fn shown(tls: &Tls) -> Vec<u8> {
    tls.conn.peer_certificates().unwrap()[0].to_vec()
}

fn der(pair: &(String, String)) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap().to_vec()
}

fn get(tls: &mut Tls, host: &str) -> String {
    write!(tls, "GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = tls.read(&mut chunk).unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&seen);
        let complete = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            field(head, "content-length")
                .is_some_and(|length| body.len() == length.parse::<usize>().unwrap())
        });
        if complete {
            return text.into_owned();
        }
    }
}

fn graph(port: u16, backend: &RawBackend, protocol: Protocol) -> RouteGraph {
    Graph::with(port, protocol).all_to(&[backend.addr])
}

#[test]
fn the_most_specific_certificate_is_shown_and_unknown_names_are_refused() {
    let exact = certificate(&["a.example.test"]);
    let wild = certificate(&["*.example.test"]);
    let backend = RawBackend::echo();
    let protocol = tls(&[("a.example.test", &exact), ("*.example.test", &wild)]);
    let proxy = Proxy::start(graph(free_port(), &backend, protocol));
    for (name, expected) in [
        ("a.example.test", &exact),
        ("A.Example.test", &exact),
        ("b.example.test", &wild),
        ("c.b.example.test", &wild),
    ] {
        let tls = connect(&proxy, name, &["http/1.1"]).unwrap();
        assert!(shown(&tls) == der(expected), "{name}");
    }
    assert!(connect(&proxy, "example.test", &[]).is_err());
    assert!(connect(&proxy, "other.test", &[]).is_err());
    proxy.wait("failed handshakes are counted", |proxy| {
        (proxy.metric("tidegate_handshakes_failed_total") - 2.0).abs() < 0.1
    });
}

#[test]
fn the_backend_learns_that_the_client_came_by_tls() {
    let pair = certificate(&["a.test"]);
    let backend = RawBackend::echo();
    let proxy = Proxy::start(graph(free_port(), &backend, tls(&[("a.test", &pair)])));
    let mut client = connect(&proxy, "a.test", &["http/1.1"]).unwrap();
    let response = get(&mut client, "a.test");
    assert_eq!(field(body(&response), "x-forwarded-proto"), Some("https"));
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let (old, new) = (certificate(&["a.test"]), certificate(&["a.test"]));
    let backend = RawBackend::echo();
    let port = free_port();
    let proxy = Proxy::start(graph(port, &backend, tls(&[("a.test", &old)])));
    let mut before = connect(&proxy, "a.test", &["http/1.1"]).unwrap();
    assert_eq!(status(&get(&mut before, "a.test")), 200);
    proxy.shared.publish(graph(port, &backend, tls(&[("a.test", &new)])));
    let after = connect(&proxy, "a.test", &["http/1.1"]).unwrap();
    assert!(shown(&before) == der(&old));
    assert!(shown(&after) == der(&new));
    assert_eq!(status(&get(&mut before, "a.test")), 200);
}

#[test]
fn a_session_is_taken_up_again_on_every_worker_but_not_on_another_port() {
    let pair = certificate(&["a.test"]);
    let backend = RawBackend::echo();
    let (port, other) = (free_port(), free_port());
    let mut two = Graph::with(port, tls_on(port, &[("a.test", &pair)]));
    two.builder.listener(other, other, tls_on(other, &[("a.test", &pair)]));
    let _proxy = Proxy::start(two.all_to(&[backend.addr]));
    let config = client(&["http/1.1"]);
    let kind = |port| {
        let mut tls = connect_as(&config, port, "a.test").unwrap();
        // Tickets come with the first answer.
        get(&mut tls, "a.test");
        (tls.conn.handshake_kind().unwrap(), tls.conn.tls13_tickets_received())
    };
    assert_eq!(kind(port), (HandshakeKind::Full, 2));
    // The kernel leads half of them to each of the two workers.
    for _ in 0..16 {
        assert_eq!(kind(port), (HandshakeKind::Resumed, 2));
    }
    assert_eq!(kind(other).0, HandshakeKind::Full);
}

#[test]
fn a_handshake_that_takes_too_long_is_cut_off() {
    let pair = certificate(&["a.test"]);
    let backend = RawBackend::echo();
    let graph = graph(free_port(), &backend, tls(&[("a.test", &pair)]));
    let proxy = Proxy::start_with(graph, |config| {
        config.limits.handshake_timeout = Duration::from_millis(200);
    });
    assert!(proxy.connect().closes_within(SOON));
}

#[test]
fn backends_are_reached_by_tls_and_their_certificates_are_checked() {
    let pair = certificate(&["backend.test"]);
    // Another Tidegate is a backend with TLS.
    let plain = RawBackend::echo();
    let behind = Proxy::start(graph(free_port(), &plain, tls(&[("backend.test", &pair)])));
    for (roots, expected) in [(&pair, 200), (&certificate(&["backend.test"]), 502)] {
        let roots = Roots::pem(roots.0.as_bytes()).unwrap();
        let client = BackendTls::new("backend.test", &roots, true).unwrap();
        let mut graph = Graph::http(free_port());
        let id = graph.backend("tls", BackendProtocol::Tls(Arc::new(client)), &[behind.addr()]);
        graph.rule("/", forward(id));
        let proxy = Proxy::start(graph.builder.build());
        let response =
            proxy.exchange("GET / HTTP/1.1\r\nhost: backend.test\r\nconnection: close\r\n\r\n");
        assert_eq!(status(&response), expected);
    }
}
