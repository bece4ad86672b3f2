//! What it costs to find the rule of a request: `cargo bench --bench router`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use tidegate::graph::{
    Action, Entry, GraphBuilder, Matcher, PathMatch, Protocol, RouteGraph, Rule, RuleName,
};
use tidegate::policy::{RequestHead, Scheme};
use tidegate::reason::Reason;

const PORT: u16 = 80;

/// A graph with so many hosts, and on each so many prefixes.
fn graph(hosts: usize, paths: usize) -> RouteGraph {
    let mut builder = GraphBuilder::new();
    builder.listener(PORT, PORT, Protocol::Http);
    let section = builder.section(PORT, "", "bench".into());
    for host in 0..hosts {
        for path in 0..paths {
            let name = RuleName {
                kind: "HTTPRoute",
                namespace: "bench".into(),
                name: format!("{host}-{path}").into(),
                rule: "0".into(),
            };
            let rule = builder.rule(Rule::new(name, Action::Refuse(Reason::NoEndpoints)));
            let entry = Entry {
                path: PathMatch::Prefix(format!("/api/v{path}").into()),
                matcher: Matcher::default(),
                created: 0,
                object: "bench/bench".into(),
                order: (0, 0),
                rule,
            };
            builder.route(section, &format!("host-{host}.example.com"), entry);
        }
    }
    builder.build()
}

fn head(host: usize, path: usize) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        host: format!("host-{host}.example.com").into(),
        port: None,
        path: format!("/api/v{path}/items/1").into(),
        query: None,
        headers: HeaderMap::new(),
        told: None,
        upstream_host: None,
    }
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router");
    for (hosts, paths) in [(1, 1), (5_000, 1), (1, 1_000)] {
        let graph = graph(hosts, paths);
        let heads: Vec<_> = (0..1024).map(|n| head(n * 7919 % hosts, n * 7919 % paths)).collect();
        let mut next = heads.iter().cycle();
        group.bench_function(format!("find among {hosts} hosts with {paths} paths"), |bencher| {
            bencher.iter(|| {
                let head = next.next().expect("a cycle has no end");
                let found = graph.find(&graph.listeners[&PORT], None, black_box(head));
                found.expect("every head has a rule").id
            });
        });
    }
    group.finish();
}

criterion_group!(benches, find);
criterion_main!(benches);
