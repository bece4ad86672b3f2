//! TLSRoutes, TCPRoutes and UDPRoutes: which rule a connection or datagram meets.

use super::*;
use crate::graph::{BackendProtocol, Protocol, Stream, TlsUse};

/// A Gateway `gw` with a listener of each kind.
const STREAMS: &str = r#"
kind: GatewayClass
metadata: {name: tidegate}
spec: {controllerName: tidegate.dev/gateway-controller}
---
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: tidegate
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: tcp, port: 9000, protocol: TCP}
  - {name: other, port: 9001, protocol: TCP}
  - {name: udp, port: 5300, protocol: UDP}
  - {name: pass, port: 8443, protocol: TLS, hostname: '*.pass.example', tls: {mode: Passthrough}}
  - {name: end, port: 8443, protocol: TLS, hostname: '*.end.example', tls: {mode: Terminate, certificateRefs: [{name: cert}]}}
"#;

/// A Service with a TCP and a UDP port of one number.
const BOTH: &str = r#"
kind: Service
metadata: {name: app, namespace: infra}
spec: {ports: [{name: tcp, port: 8080}, {name: udp, port: 8080, protocol: UDP}]}
"#;

fn streams(routes: &[String]) -> Translation {
    let mut snapshot = world(&[STREAMS, BOTH]);
    put(&mut snapshot, secret("cert", "infra", &["*.end.example"]));
    routes.iter().for_each(|route| add(&mut snapshot, route));
    translate(&snapshot)
}

fn of(kind: &str, name: &str, section: &str, backends: &str) -> String {
    let spec = format!("  rules: [{{backendRefs: [{backends}]}}]");
    let section = format!("[{{name: gw, sectionName: {section}}}]");
    route_of(kind, name, &spec).replace("[{name: gw}]", &section)
}

fn tls(name: &str, section: &str, hosts: &str, to: &str) -> String {
    of("TLSRoute", name, section, to)
        .replace("  rules:", &format!("  hostnames: [{hosts}]\n  rules:"))
}

const APP: &str = "{name: app, port: 8080}";

/// Where a connection goes, and what is spoken there.
fn meets(graph: &RouteGraph, stream: &Stream, host: &str) -> String {
    let Some(id) = stream.find(host) else { return "none".into() };
    let outcome = action_of(graph, &graph[id]);
    let Action::Forward(split) = &graph[id].action else { return outcome };
    let spoken = split.targets.iter().filter_map(|target| target.to.ok());
    let spoken = spoken.map(|id| match graph[id].protocol {
        BackendProtocol::Tcp => "tcp",
        BackendProtocol::Udp => "udp",
        BackendProtocol::Tls(_) => "tls",
        BackendProtocol::Http1 | BackendProtocol::H2c => "http",
    });
    format!("{outcome} {}", spoken.collect::<Vec<_>>().join(" "))
}

fn tcp(graph: &RouteGraph, port: u16) -> String {
    let Protocol::Tcp(stream) = &graph.listeners[&port].protocol else { panic!() };
    meets(graph, stream, "")
}

fn by_name(graph: &RouteGraph, host: &str) -> String {
    match graph.listeners[&8443].streams.matching(host).next() {
        Some(TlsUse::Terminate(stream)) => format!("end {}", meets(graph, stream, host)),
        Some(TlsUse::Passthrough(stream)) => format!("pass {}", meets(graph, stream, host)),
        Some(TlsUse::Http) => "http".into(),
        None => "none".into(),
    }
}

#[test]
fn a_tcp_route_has_the_connections_of_its_listeners() {
    let translation = streams(&[of("TCPRoute", "r", "tcp", APP)]);
    assert_eq!(tcp(&translation.graph, 9000), "app*1 tcp");
    assert_eq!(tcp(&translation.graph, 9001), "none");
    assert_eq!(of_kind(&translation, ObjectKind::TcpRoute, "r", "Accepted"), "True/Accepted");
    assert_eq!(listener_status(&translation, "tcp")["attachedRoutes"], 1);
    assert_eq!(translation.graph.rules[0].name.kind, "TCPRoute");
}

#[test]
fn without_a_section_a_route_has_all_listeners_of_its_protocol_and_no_others() {
    let all = of("TCPRoute", "r", "tcp", APP).replace(", sectionName: tcp", "");
    let translation = streams(&[all]);
    for port in [9000, 9001] {
        assert_eq!(tcp(&translation.graph, port), "app*1 tcp");
    }
    assert_eq!(listener_status(&translation, "http")["attachedRoutes"], 0);
    assert_eq!(listener_status(&translation, "udp")["attachedRoutes"], 0);
}

#[test]
fn a_udp_route_has_the_datagrams_of_its_listener() {
    let translation = streams(&[of("UDPRoute", "r", "udp", APP)]);
    let stream = &translation.graph.datagrams[&5300].stream;
    assert_eq!(meets(&translation.graph, stream, ""), "app*1 udp");
    assert_eq!(of_kind(&translation, ObjectKind::UdpRoute, "r", "Accepted"), "True/Accepted");
}

#[test]
fn of_several_routes_the_oldest_has_the_listener_and_all_are_accepted() {
    let aged = |kind: &str, name: &str, section: &str, day: u8, weight: u8| {
        of(kind, name, section, &format!("{{name: app, port: 8080, weight: {weight}}}"))
            .replace("generation: 7", &format!("creationTimestamp: '2026-01-0{day}T00:00:00Z'"))
    };
    let translation = streams(&[
        aged("TCPRoute", "a", "tcp", 2, 2),
        aged("TCPRoute", "b", "tcp", 1, 1),
        aged("UDPRoute", "a", "udp", 2, 2),
        aged("UDPRoute", "b", "udp", 1, 1),
    ]);
    assert_eq!(tcp(&translation.graph, 9000), "app*1 tcp");
    let stream = &translation.graph.datagrams[&5300].stream;
    assert_eq!(meets(&translation.graph, stream, ""), "app*1 udp");
    for kind in [ObjectKind::TcpRoute, ObjectKind::UdpRoute] {
        for name in ["a", "b"] {
            assert_eq!(of_kind(&translation, kind, name, "Accepted"), "True/Accepted");
        }
    }
    for listener in ["tcp", "udp"] {
        assert_eq!(listener_status(&translation, listener)["attachedRoutes"], 2);
    }
}

#[test]
fn a_listener_of_another_protocol_allows_no_such_route() {
    for (kind, section) in [
        ("TCPRoute", "http"),
        ("TCPRoute", "udp"),
        ("TCPRoute", "pass"),
        ("UDPRoute", "tcp"),
        ("UDPRoute", "pass"),
        ("TLSRoute", "tcp"),
        ("TLSRoute", "http"),
        ("HTTPRoute", "tcp"),
        ("GRPCRoute", "pass"),
    ] {
        let translation = streams(&[of(kind, "r", section, APP)]);
        let of_kind = |r#type| {
            let all = ObjectKind::ALL.iter().find(|known| known.kind() == kind);
            of_kind(&translation, *all.unwrap(), "r", r#type)
        };
        assert_eq!(of_kind("Accepted"), "False/NotAllowedByListeners", "{kind} {section}");
        assert_eq!(of_kind("ResolvedRefs"), "True/ResolvedRefs", "{kind} {section}");
        assert_eq!(listener_status(&translation, section)["attachedRoutes"], 0);
        assert!(translation.graph.rules.is_empty());
    }
}

#[test]
fn the_server_name_leads_to_the_rule_and_the_mode_says_what_is_spoken() {
    let translation = streams(&[
        tls("a", "pass", "a.pass.example", APP),
        tls("b", "end", "b.end.example, c.pass.example", APP),
    ]);
    for (host, expected) in [
        ("a.pass.example", "pass app*1 tcp"),
        ("b.pass.example", "pass none"),
        ("b.end.example", "end app*1 tcp"),
        ("c.pass.example", "pass none"),
        ("c.end.example", "end none"),
        ("example.org", "none"),
    ] {
        assert_eq!(by_name(&translation.graph, host), expected, "{host}");
    }
    for name in ["a", "b"] {
        assert_eq!(of_kind(&translation, ObjectKind::TlsRoute, name, "Accepted"), "True/Accepted");
    }
}

#[test]
fn the_more_specific_name_of_a_route_wins_over_the_older_route() {
    let day = |route: String, day: u8| {
        route.replace("generation: 7", &format!("creationTimestamp: '2026-01-0{day}T00:00:00Z'"))
    };
    let to = |weight: u8| format!("{{name: app, port: 8080, weight: {weight}}}");
    let translation = streams(&[
        day(tls("wide", "pass", "'*.example'", &to(1)), 1),
        day(tls("wild", "pass", "'*.pass.example'", &to(2)), 2),
        day(tls("exact", "pass", "a.pass.example", &to(3)), 3),
        day(tls("late", "pass", "a.pass.example", &to(4)), 4),
    ]);
    assert_eq!(by_name(&translation.graph, "a.pass.example"), "pass app*3 tcp");
    assert_eq!(by_name(&translation.graph, "b.pass.example"), "pass app*2 tcp");
}

#[test]
fn names_that_meet_no_listener_are_told() {
    let translation = streams(&[tls("r", "pass", "a.example.org", APP)]);
    let accepted = of_kind(&translation, ObjectKind::TlsRoute, "r", "Accepted");
    assert_eq!(accepted, "False/NoMatchingListenerHostname");
}

#[test]
fn a_backend_that_cannot_be_had_keeps_its_share_of_connections() {
    let backends = "{name: app, port: 8080, weight: 7}, {name: gone, port: 1, weight: 3}, \
                    {name: app, port: 8080, weight: 0}";
    let translation = streams(&[of("TCPRoute", "r", "tcp", backends)]);
    assert_eq!(tcp(&translation.graph, 9000), "app*7 BackendNotFound*3 tcp");
    let resolved = of_kind(&translation, ObjectKind::TcpRoute, "r", "ResolvedRefs");
    assert_eq!(resolved, "False/BackendNotFound");
    assert_eq!(of_kind(&translation, ObjectKind::TcpRoute, "r", "Accepted"), "True/Accepted");
}

#[test]
fn references_that_cannot_be_followed_say_why() {
    for (backend, reason) in [
        ("{group: x.example.com, kind: Thing, name: app, port: 8080}", "InvalidKind"),
        ("{name: app, namespace: other, port: 8080}", "RefNotPermitted"),
        ("{name: app, port: 9999}", "BackendNotFound"),
    ] {
        let translation = streams(&[tls("r", "pass", "a.pass.example", backend)]);
        let resolved = of_kind(&translation, ObjectKind::TlsRoute, "r", "ResolvedRefs");
        assert_eq!(resolved, format!("False/{reason}"));
    }
}

#[test]
fn a_second_rule_is_dropped() {
    let two = of("TCPRoute", "r", "tcp", APP)
        .replace("rules: [", "rules: [{backendRefs: [{name: app, port: 8080, weight: 3}]}, ");
    let translation = streams(&[two]);
    assert_eq!(tcp(&translation.graph, 9000), "app*3 tcp");
    let partial = of_kind(&translation, ObjectKind::TcpRoute, "r", "PartiallyInvalid");
    assert_eq!(partial, "True/UnsupportedValue");
}
