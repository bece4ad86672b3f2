//! What a pass costs with thousands of routes: the first, one over nothing new, and one over one
//! changed object; the publish of its graph; the end of the graph before.
//!
//! `cargo bench --bench translate -- [ROUTES] [PASSES]`. Prints medians in microseconds. No
//! criterion: a pass leaves a memo to the next, so passes are not independent samples.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidegate::graph::Shared;
use tidegate::translate::{
    Key, Objects, Ports, Settings, Snapshot, StatusWrite, Translation, translate,
};

const GROUP: &str = "gateway.networking.k8s.io/v1";
const NAMESPACES: usize = 50;

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let (routes, passes): (usize, usize) = (args.next().unwrap_or(5000), args.next().unwrap_or(51));
    let mut snapshot = snapshot(routes);
    let shared = Shared::default();
    let timed = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64() * 1e6
    };
    let mut first = None;
    let cold = timed(&mut || first = Some(translate(&snapshot)));
    let mut first = first.unwrap();
    println!(
        "{routes} routes, {} rules, {} statuses",
        first.graph.rules.len(),
        first.statuses.len()
    );
    println!("first pass           {cold:9.0} us");
    let publish = timed(&mut || _ = shared.publish(std::mem::take(&mut first.graph)));
    println!("first publish        {publish:9.0} us");
    settle(&mut snapshot, &first.statuses);
    let full = timed(&mut || drop(translate(&snapshot)));
    println!("a pass from nothing  {full:9.0} us");
    go_on(&shared, &snapshot, translate(&snapshot));
    let mut rows: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for pass in 0..passes {
        rows.entry("a pass, nothing new")
            .or_default()
            .push(timed(&mut || drop(translate(&snapshot))));
        change(&mut snapshot, pass % routes, pass);
        let mut made = None;
        let took = timed(&mut || made = Some(translate(&snapshot)));
        rows.entry("a pass, one changed").or_default().push(took);
        let made = made.unwrap();
        assert!(made.statuses.len() < 3, "only of the Gateway and its class");
        let mut made = Some(made);
        let took = timed(&mut || go_on(&shared, &snapshot, made.take().unwrap()));
        rows.entry("publish").or_default().push(took);
        let took = timed(&mut || _ = shared.clean_up());
        rows.entry("end of a graph").or_default().push(took);
    }
    for (name, mut times) in rows {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[(part * (times.len() - 1) as f64) as usize];
        println!("{name:20} {:9.0} us (best {:.0}, p99 {:.0})", at(0.5), at(0.0), at(0.99));
    }
}

/// What the loop does with what a pass made.
fn go_on(shared: &Shared, snapshot: &Snapshot, made: Translation) {
    if made.graph_is_new {
        shared.publish(made.graph);
        snapshot.memo.published(shared.load());
    }
}

fn snapshot(routes: usize) -> Snapshot {
    let class = json!({"apiVersion": GROUP, "kind": "GatewayClass", "metadata": {"name": "t"},
        "spec": {"controllerName": "tidegate.dev/gateway-controller"}});
    let gateway = json!({"apiVersion": GROUP, "kind": "Gateway",
        "metadata": {"name": "g", "namespace": "default"},
        "spec": {"gatewayClassName": "t", "listeners": [{"name": "http", "port": 80,
            "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}]}});
    let namespace = |n: &usize| {
        json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": format!("cp-{n}")}})
    };
    let grant = json!({"apiVersion": GROUP, "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": "default"},
        "spec": {"to": [{"group": "", "kind": "Service"}],
            "from": (0..NAMESPACES).map(|n| json!({"group": "gateway.networking.k8s.io",
                "kind": "HTTPRoute", "namespace": format!("cp-{n}")})).collect::<Vec<_>>()}});
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "echo", "namespace": "default"},
        "spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "echo-1", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "echo"}},
        "addressType": "IPv4", "ports": [{"port": 8080}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}]});
    Snapshot {
        settings: Arc::new(Settings { ports: Ports::Own { offset: 8000 }, ..Settings::default() }),
        gateway_classes: objects([class]),
        gateways: objects([gateway]),
        namespaces: objects((0..NAMESPACES).collect::<Vec<_>>().iter().map(namespace)),
        reference_grants: objects([grant]),
        services: objects([service]),
        endpoint_slices: objects([slice]),
        http_routes: objects((0..routes).map(|n| route(n, "/a"))),
        ..Snapshot::default()
    }
}

fn route(n: usize, path: &str) -> Value {
    json!({"apiVersion": GROUP, "kind": "HTTPRoute",
        "metadata": {"name": format!("r{n}"), "namespace": format!("cp-{}", n % NAMESPACES),
            "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"parentRefs": [{"name": "g", "namespace": "default"}],
            "hostnames": [format!("h{n}.example.com")],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}],
                "backendRefs": [{"name": "echo", "namespace": "default", "port": 80}]}]}})
}

fn objects<T: DeserializeOwned>(all: impl IntoIterator<Item = Value>) -> Objects<T> {
    let read = |object: Value| {
        let meta = &object["metadata"];
        let text = |name: &str| meta[name].as_str().unwrap_or_default().to_owned();
        let key = Key::new(text("namespace"), text("name"));
        (key, Arc::new(serde_json::from_value(object).unwrap()))
    };
    Arc::new(all.into_iter().map(read).collect())
}

/// Puts the statuses that were asked for into the routes, as the API server would.
fn settle(snapshot: &mut Snapshot, statuses: &[StatusWrite]) {
    let routes = Arc::make_mut(&mut snapshot.http_routes);
    for write in statuses {
        if let Some(route) = routes.get_mut(&write.object.key) {
            let status = serde_json::from_value(write.status.clone()).unwrap();
            Arc::make_mut(route).status = Some(status);
        }
    }
}

fn change(snapshot: &mut Snapshot, n: usize, pass: usize) {
    let key = Key::new(format!("cp-{}", n % NAMESPACES), format!("r{n}"));
    let routes = Arc::make_mut(&mut snapshot.http_routes);
    let old = routes.get_mut(&key).unwrap();
    let mut new: tidegate::api::gateway::HttpRoute =
        serde_json::from_value(route(n, &format!("/p{pass}"))).unwrap();
    new.status = old.status.clone();
    *old = Arc::new(new);
}
