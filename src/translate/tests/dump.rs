//! A graph as text, without the numbers of its parts: equal for graphs that serve the same.

use std::collections::BTreeSet;

use crate::graph::{
    Action, Backend, BackendProtocol, HostMap, Listener, PathTable, PolicyId, Protocol, RouteGraph,
    Rule, RuleId, Stream, Target, TlsUse,
};
use crate::reason::Reason;

/// One line a fact, in order.
pub(super) fn dump(graph: &RouteGraph) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut say = |line: String| assert!(lines.insert(line.clone()), "twice: {line}");
    for (port, listener) in &graph.listeners {
        listener_lines(graph, *port, listener).into_iter().for_each(&mut say);
    }
    for (port, datagrams) in &graph.datagrams {
        let stream = stream(graph, &datagrams.stream);
        say(format!("udp {port} as {} {stream}", datagrams.public_port));
    }
    graph.rules.iter().for_each(|each| say(format!("rule {}", rule(graph, each))));
    graph.backends.iter().for_each(|each| say(format!("backend {}", backend(each))));
    for policy in &graph.policies {
        let services = policy.services.values().map(|id| backend(&graph.backends[id.0 as usize]));
        let services: Vec<String> = services.collect();
        say(format!("policy {} {:?} {services:?}", policy.key, policy.spec));
    }
    lines
}

fn listener_lines(graph: &RouteGraph, port: u16, listener: &Listener) -> Vec<String> {
    let protocol = match &listener.protocol {
        Protocol::Http => "http".to_owned(),
        Protocol::Tls(_) => "tls".to_owned(),
        Protocol::Tcp(tcp) => format!("tcp {}", stream(graph, tcp)),
    };
    let mut lines = vec![format!("port {port} as {} {protocol}", listener.public_port)];
    for (claim, sections) in listener.sections.iter() {
        for (n, section) in sections.iter().enumerate() {
            let at = format!("port {port} {claim} {n} {}", section.name);
            lines.push(format!("{at} filters {:?}", keys(graph, &section.filters)));
            for (kind, hosts) in [("http", &section.hosts), ("grpc", &section.grpc)] {
                let entries = entries(graph, hosts);
                lines.extend(entries.into_iter().map(|entry| format!("{at} {kind} {entry}")));
            }
        }
    }
    for (claim, to) in listener.streams.iter() {
        let to = match to {
            TlsUse::Http => "http".to_owned(),
            TlsUse::Terminate(to) => format!("terminate {}", stream(graph, to)),
            TlsUse::Passthrough(to) => format!("passthrough {}", stream(graph, to)),
        };
        lines.push(format!("port {port} stream {claim} {to}"));
    }
    lines
}

fn entries(graph: &RouteGraph, hosts: &HostMap<std::sync::Arc<PathTable>>) -> Vec<String> {
    let of_host = |(host, table): (String, &std::sync::Arc<PathTable>)| -> Vec<String> {
        let entry = |e: &crate::graph::Entry| {
            let (path, matcher, rule) = (&e.path, &e.matcher, rule(graph, &graph[e.rule]));
            let order = e.order;
            format!("{host} {path:?} {matcher:?} {} {} {order:?} {rule}", e.created, e.object)
        };
        table.entries().map(entry).collect()
    };
    hosts.iter().flat_map(of_host).collect()
}

fn stream(graph: &RouteGraph, stream: &Stream) -> String {
    let hosts = stream.hosts.iter();
    let hosts: BTreeSet<String> =
        hosts.map(|(host, id)| format!("{host} {}", rule(graph, &graph[*id as RuleId]))).collect();
    format!("{} {hosts:?}", stream.name)
}

fn rule(graph: &RouteGraph, rule: &Rule) -> String {
    let action = match &rule.action {
        Action::Refuse(reason) => format!("refuse {reason:?}"),
        Action::Forward(split) => {
            let targets = split.targets.iter().map(|each| target(graph, each));
            format!("{:?} of {}", targets.collect::<Vec<_>>(), split.total)
        }
    };
    let mirrors = rule.mirrors.iter().map(|mirror| {
        format!("{}/{} {}", mirror.numerator, mirror.denominator, backend(&graph[mirror.to]))
    });
    format!(
        "{:?} gates {:?} transforms {:?} {action} mirrors {:?} {:?} {:?} {}",
        rule.name,
        keys(graph, &rule.gates),
        keys(graph, &rule.transforms),
        mirrors.collect::<Vec<_>>(),
        rule.timeouts,
        rule.retry,
        rule.session.is_some(),
    )
}

fn target(graph: &RouteGraph, target: &Target) -> String {
    let to: Result<String, Reason> = target.to.map(|id| backend(&graph[id]));
    format!("{} {to:?} {:?}", target.weight, keys(graph, &target.transforms))
}

fn keys(graph: &RouteGraph, ids: &[PolicyId]) -> Vec<String> {
    ids.iter().map(|id| format!("{} {:?}", graph[*id].key, graph[*id].spec)).collect()
}

fn backend(backend: &Backend) -> String {
    let protocol = match &backend.protocol {
        BackendProtocol::Http1 => "http1",
        BackendProtocol::H2c => "h2c",
        BackendProtocol::Tls(_) => "tls",
        BackendProtocol::Tcp => "tcp",
        BackendProtocol::Udp => "udp",
    };
    let Backend { key, balance, retry_budget, slices, .. } = backend;
    let (session, endpoints) = (backend.session.is_some(), backend.endpoints.addrs());
    format!("{key:?} {protocol} {balance:?} {retry_budget:?} {slices:?} {session} {endpoints:?}")
}
