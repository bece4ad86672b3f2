//! `/config`: a summary of the live graph for people. No secrets: neither keys and certificates
//! nor what policies hold.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::graph::{
    Action, Backend, Datagrams, Listener, Protocol, RouteGraph, Rule, Split, Stream, TlsUse,
};

/// The graph as JSON.
pub(super) fn summary(graph: &RouteGraph) -> Value {
    json!({
        "generation": graph.generation,
        "listeners": graph.listeners.values().map(|l| listener(l)).collect::<Vec<_>>(),
        "datagrams": graph.datagrams.values().map(|d| datagrams(d)).collect::<Vec<_>>(),
        "rules": graph.rules.iter().map(|r| rule(graph, r)).collect::<Vec<_>>(),
        "backends": graph.backends.iter().map(backend).collect::<Vec<_>>(),
    })
}

fn listener(listener: &Listener) -> Value {
    json!({
        "port": listener.port,
        "publicPort": listener.public_port,
        "protocol": match listener.protocol {
            Protocol::Http => "HTTP",
            Protocol::Tls(_) => "TLS",
            Protocol::Tcp(_) => "TCP",
        },
        "sections": sections(listener),
    })
}

fn datagrams(datagrams: &Datagrams) -> Value {
    json!({
        "port": datagrams.port,
        "publicPort": datagrams.public_port,
        "protocol": "UDP",
        "sections": { &*datagrams.stream.name: hosts(&datagrams.stream) },
    })
}

/// The hosts under which each section has routes.
fn sections(listener: &Listener) -> BTreeMap<&str, BTreeSet<String>> {
    let mut sections = BTreeMap::new();
    for section in listener.sections.values().flatten() {
        let hosts = section.hosts.iter().chain(section.grpc.iter()).map(|(host, _)| host);
        sections.entry(&*section.name).or_insert_with(BTreeSet::new).extend(hosts);
    }
    let tls = listener.streams.values().filter_map(|to| match to {
        TlsUse::Http => None,
        TlsUse::Terminate(stream) | TlsUse::Passthrough(stream) => Some(stream),
    });
    let tcp = match &listener.protocol {
        Protocol::Tcp(stream) => Some(stream),
        Protocol::Http | Protocol::Tls(_) => None,
    };
    sections.extend(tls.chain(tcp).map(|stream| (&*stream.name, hosts(stream))));
    sections
}

fn hosts(stream: &Stream) -> BTreeSet<String> {
    stream.hosts.iter().map(|(host, _)| host).collect()
}

fn rule(graph: &RouteGraph, rule: &Rule) -> Value {
    let policies = rule.gates.iter().chain(&rule.transforms);
    json!({
        "name": name(rule),
        "policies": policies.map(|id| &*graph[*id].key).collect::<Vec<_>>(),
        "action": match &rule.action {
            Action::Forward(split) => forward(graph, split),
            Action::Refuse(reason) => json!({ "refuse": reason.as_str() }),
        },
    })
}

fn name(rule: &Rule) -> String {
    let name = &rule.name;
    format!("{}/{}/{}/{}", name.kind, name.namespace, name.name, name.rule)
}

fn forward(graph: &RouteGraph, split: &Split) -> Value {
    let targets = split.targets.iter().map(|target| match target.to {
        Ok(id) => json!({ "backend": key(&graph[id]), "weight": target.weight }),
        Err(reason) => json!({ "refuse": reason.as_str(), "weight": target.weight }),
    });
    json!({ "forward": targets.collect::<Vec<_>>() })
}

fn backend(backend: &Backend) -> Value {
    let mut value = json!({
        "backend": key(backend),
        "kind": backend.key.kind,
        "protocol": backend.key.protocol,
        "endpoints": backend.endpoints.addrs(),
    });
    if let Some(context) = &backend.key.context {
        value["context"] = json!(context);
    }
    value
}

fn key(backend: &Backend) -> String {
    let key = &backend.key;
    format!("{}/{}:{}", key.namespace, key.service, key.port)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::graph::testing::{backend, rule};
    use crate::graph::{BackendId, HostMap, PathTable, Section, Target};
    use crate::reason::Reason;

    #[test]
    fn the_summary_leads_from_the_port_to_the_endpoints() {
        let mut hosts = HostMap::default();
        hosts.insert("*.example.com", Arc::new(PathTable::default()));
        let section = Arc::new(Section {
            name: "gateway/ns/gw/http".into(),
            filters: Vec::new(),
            hosts,
            grpc: HostMap::default(),
        });
        let mut sections = HostMap::default();
        sections.insert("", vec![section]);
        let listener = Listener {
            port: 20000,
            public_port: 80,
            protocol: Protocol::Http,
            sections,
            streams: HostMap::default(),
        };
        let to = |to| Target { weight: 1, to, transforms: Vec::new() };
        let targets = vec![to(Ok(BackendId(0))), to(Err(Reason::BackendNotFound))];
        let mut route = rule("route");
        route.action = Action::Forward(Split { targets, total: 2 });
        let graph = RouteGraph {
            generation: 7,
            listeners: [(20000, Arc::new(listener))].into(),
            rules: vec![route].into(),
            backends: vec![backend("echo", 80, &[1])].into(),
            ..RouteGraph::default()
        };
        let shown = summary(&graph);
        assert_eq!(shown["generation"], 7);
        let sections = &shown["listeners"][0]["sections"];
        assert_eq!(sections["gateway/ns/gw/http"], json!(["*.example.com"]));
        assert_eq!(shown["rules"][0]["name"], "HTTPRoute/ns/route/0");
        let forward = &shown["rules"][0]["action"]["forward"];
        assert_eq!(forward[0]["backend"], "ns/echo:80");
        assert_eq!(forward[1]["refuse"], "BackendNotFound");
        assert_eq!(shown["backends"][0]["endpoints"], json!(["192.0.2.1:80"]));
    }
}
