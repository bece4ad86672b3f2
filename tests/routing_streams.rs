//! TCPRoutes, UDPRoutes and TLSRoutes from YAML to bytes on a socket.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;

use fixtures::*;
use support::streams::*;
use support::*;

/// A backend that says its name, as a Service of one endpoint.
fn service(name: &str, transport: &str, to: u16) -> String {
    format!(
        "
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: web}}
spec: {{ports: [{{name: p, port: 9000, protocol: {transport}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-a, namespace: web, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: p, port: {to}, protocol: {transport}}}]
endpoints: [{{addresses: [127.0.0.1]}}]"
    )
}

fn route(kind: &str, name: &str, section: &str, hosts: &str, backends: &str) -> String {
    format!(
        "
---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: web}}
spec:
  parentRefs: [{{name: streams, sectionName: {section}}}]
  {hosts}
  rules: [{{backendRefs: [{backends}]}}]"
    )
}

/// The ports of the Gateway `streams`.
struct Streams {
    site: Site,
    tcp: u16,
    closed: u16,
    udp: u16,
    tls: u16,
    ours: (String, String),
    theirs: (String, String),
}

/// Says its name to everybody and hangs up.
fn named(name: &'static str) -> u16 {
    RawBackend::start(move |mut raw, _| raw.send(name)).addr.port()
}

fn udp_backend() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&[b"udp: ", &buffer[..length]].concat(), from).unwrap();
        }
    });
    port
}

fn streams() -> Streams {
    let [tcp, closed, udp, tls] = std::array::from_fn(|_| free_port());
    let (ours, theirs) = (certificate(&["end.test"]), certificate(&["pass.test"]));
    let behind = tls_backend(&theirs, |mut tls| tls.write_all(b"behind tls").unwrap());
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let gateway = format!(
        "
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: streams, namespace: web}}
spec:
  gatewayClassName: tidegate
  listeners:
    - {{name: tcp, port: {tcp}, protocol: TCP}}
    - {{name: closed, port: {closed}, protocol: TCP}}
    - {{name: udp, port: {udp}, protocol: UDP}}
    - {{name: pass, port: {tls}, protocol: TLS, hostname: pass.test, tls: {{mode: Passthrough}}}}
    - name: end
      port: {tls}
      protocol: TLS
      hostname: '*.test'
      tls: {{mode: Terminate, certificateRefs: [{{name: ours}}]}}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {{name: ours, namespace: web}}
stringData: {{tls.crt: {}, tls.key: {}}}",
        quoted(&ours.0),
        quoted(&ours.1)
    );
    let more = [
        gateway,
        service("a", "TCP", named("from a")),
        service("b", "TCP", named("from b")),
        service("u", "UDP", udp_backend()),
        service("behind", "TCP", behind.addr.port()),
        route(
            "TCPRoute",
            "tcp",
            "tcp",
            "",
            "{name: a, port: 9000}, {name: b, port: 9000, weight: 0}",
        ),
        route("TCPRoute", "closed", "closed", "", "{name: gone, port: 9000}"),
        route("UDPRoute", "udp", "udp", "", "{name: u, port: 9000}"),
        route("TLSRoute", "pass", "pass", "hostnames: [pass.test]", "{name: behind, port: 9000}"),
        route("TLSRoute", "end", "end", "hostnames: [end.test]", "{name: b, port: 9000}"),
    ];
    let site = Site::with(&[], &more.concat(), |_| {});
    Streams { site, tcp, closed, udp, tls, ours, theirs }
}

fn connect(port: u16) -> Raw {
    Raw::connect(([127, 0, 0, 1], port).into())
}

/// What a client hears that asks for `name`, and the certificate it is shown.
fn over_tls(streams: &Streams, name: &str) -> Option<(String, Vec<u8>)> {
    let mut tls = handshake(connect(streams.tls), Some(name)).ok()?;
    let mut text = Vec::new();
    let _ = tls.read_to_end(&mut text);
    Some((String::from_utf8(text).unwrap(), shown(&tls)))
}

#[test]
fn a_connection_goes_to_the_backend_of_its_listener() {
    let streams = streams();
    for _ in 0..20 {
        assert_eq!(connect(streams.tcp).rest(), "from a");
    }
    assert_eq!(streams.site.answers("site.test", "/"), "404", "HTTP is not concerned");
}

#[test]
fn a_connection_for_a_backend_that_is_missing_is_closed() {
    assert!(connect(streams().closed).closes_within(SOON));
}

#[test]
fn a_datagram_is_answered_by_the_backend_of_its_listener() {
    let streams = streams();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let to: SocketAddr = ([127, 0, 0, 1], streams.udp).into();
    socket.send_to(b"hello", to).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"udp: hello"[..], to));
}

#[test]
fn the_server_name_says_who_ends_tls() {
    let streams = streams();
    let (text, shown) = over_tls(&streams, "pass.test").unwrap();
    assert_eq!((text.as_str(), shown), ("behind tls", der(&streams.theirs)));
    let (text, shown) = over_tls(&streams, "end.test").unwrap();
    assert_eq!((text.as_str(), shown), ("from b", der(&streams.ours)));
}

#[test]
fn a_server_name_that_no_route_has_gets_nothing() {
    let streams = streams();
    for name in ["other.test", "end.example"] {
        let heard = over_tls(&streams, name).map(|(text, _)| text).unwrap_or_default();
        assert_eq!(heard, "", "{name}");
    }
}
