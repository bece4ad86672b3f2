//! What a connection sees of a graph that is published while it begins.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;

use support::streams::*;
use support::*;
use tidegate::graph::{BackendProtocol, RouteGraph, Rule, TlsEnd};

/// A graph with a stream for each host, each with a rule and a backend of its own, in this order.
fn streams(port: u16, certificate: &(String, String), all: &[(&str, SocketAddr)]) -> RouteGraph {
    let certificates: Vec<_> = all.iter().map(|(host, _)| (*host, certificate)).collect();
    let mut graph = Graph::with(port, tls(&certificates));
    for (host, to) in all {
        let stream = graph.builder.tls_stream(port, host, TlsEnd::Here, (*host).into());
        let to = graph.backend(host, BackendProtocol::Tcp, &[*to]);
        let rule = graph.builder.rule(Rule { name: rule_name("TLSRoute"), ..forward(to) });
        graph.builder.stream_route(stream, "", (0, "test/test"), rule);
    }
    graph.builder.build()
}

#[test]
fn a_stream_that_was_accepted_before_meets_its_own_rule_and_not_one_of_the_new_graph() {
    let greeting = |text: &'static str| RawBackend::start(move |mut raw, _| raw.send(text));
    let (ours, theirs) = (greeting("ours"), greeting("theirs"));
    let certificate = certificate(&["a.test", "b.test", "c.test"]);
    let port = free_port();
    let before = [("b.test", theirs.addr), ("a.test", ours.addr)];
    // The number of the rule is another tenant's in the one, and nobody's in the other.
    let after =
        [vec![("a.test", ours.addr), ("b.test", theirs.addr)], vec![("c.test", theirs.addr)]];
    for after in after {
        let proxy = Proxy::start(streams(port, &certificate, &before));
        let raw = proxy.connect();
        proxy.wait("it is accepted", |p| p.metric("tidegate_connections") == 1.0);
        proxy.shared.publish(streams(port, &certificate, &after));
        let mut tls = handshake(raw, Some("a.test")).unwrap();
        let mut answer = String::new();
        let _ = tls.read_to_string(&mut answer);
        assert_eq!(answer, "ours");
        let _ = tls.flush();
    }
}
