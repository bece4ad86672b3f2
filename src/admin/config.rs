//! `/config`: a summary of the live graph for people. No secrets: neither keys and certificates
//! nor what policies hold.

use serde_json::{Value, json};

use crate::graph::{Action, Backend, Listener, Protocol, RouteGraph, Rule, Split};

/// The graph as JSON.
pub(super) fn summary(graph: &RouteGraph) -> Value {
    json!({
        "generation": graph.generation,
        "listeners": graph.listeners.values().map(|l| listener(l)).collect::<Vec<_>>(),
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
            Protocol::Https(_) => "HTTPS",
        },
    })
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
    json!({
        "backend": key(backend),
        "protocol": backend.key.protocol,
        "endpoints": backend.endpoints.addrs(),
    })
}

fn key(backend: &Backend) -> String {
    let key = &backend.key;
    format!("{}/{}:{}", key.namespace, key.service, key.port)
}
