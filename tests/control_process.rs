//! The whole control plane against an API server: how little it writes, also when it starts anew.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fake_api;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fake_api::{FakeApi, Request, until};
use serde_json::{Value, json};
use tidegate::controller::Controller;
use tidegate::controller::peers::Peers;
use tidegate::graph::Shared;
use tidegate::health::Health;
use tidegate::lifecycle::{Lifecycle, Phase};
use tidegate::reconcile::Reconciler;
use tidegate::source::{ClusterSource, Source};
use tidegate::translate::{Key, Ports, Settings};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const WORLD: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: tidegate}
spec: {controllerName: tidegate.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: tidegate
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: infra}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: gone, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: tidegate, namespace: own}
spec: {ports: [{port: 80}]}
";

/// A process without its proxy: what that would do is done by a task.
struct Process {
    lifecycle: Lifecycle,
    health: Arc<Health>,
    controller: JoinHandle<()>,
    others: [JoinHandle<()>; 2],
}

/// Starts a process whose ports are bound `slowly` after they are asked for.
fn start(api: &FakeApi, identity: &str, slowly: Duration) -> Process {
    let settings = Arc::new(Settings {
        cluster: true,
        ports: Ports::Container { first: 20000, last: 20010 },
        ingress_http_port: 8080,
        ingress_https_port: 8443,
        own_service: Some(Key::new("own", "tidegate")),
        ..Settings::default()
    });
    let shared = Arc::new(Shared::default());
    let source = ClusterSource::start(api.client(), settings, Arc::clone(&shared));
    let source = Source::Cluster(source);
    let handle = source.handle().clone();
    let (lifecycle, health) = (Lifecycle::default(), Arc::new(Health::default()));
    let (bind, listening) = watch::channel(Arc::new(BTreeMap::new()));
    let reconciler = Reconciler::new(
        source,
        Arc::clone(&shared),
        lifecycle.clone(),
        listening.clone(),
        Arc::clone(&health),
    );
    let data_plane = tokio::spawn(async move {
        let mut published = shared.subscribe();
        while published.changed().await.is_ok() {
            tokio::time::sleep(slowly).await;
            let ports = shared.load().ports().into_iter().map(|port| (port, Ok(()))).collect();
            bind.send_replace(Arc::new(ports));
        }
    });
    let peers = Peers {
        identity: identity.to_owned(),
        pod_ip: Some(IpAddr::from([10, 0, 0, 7])),
        pod_name: Some("tidegate-0".into()),
        admin_port: 9901,
        lifecycle: lifecycle.clone(),
        listening,
        source: handle.clone(),
        health: Arc::clone(&health),
        gone: watch::Sender::default(),
    };
    let controller = Controller {
        client: api.client(),
        namespace: "own".into(),
        lease_name: "tidegate".into(),
        identity: identity.to_owned(),
        peers,
        source: handle,
        lifecycle: lifecycle.clone(),
        health: Arc::clone(&health),
        passes: reconciler.passes(),
    };
    let others = [tokio::spawn(reconciler.run()), data_plane];
    Process { lifecycle, health, controller: tokio::spawn(controller.run()), others }
}

impl Process {
    async fn stop(self) {
        self.lifecycle.advance(Phase::Leaving);
        self.controller.await.unwrap();
        self.others.iter().for_each(JoinHandle::abort);
    }
}

fn programmed(api: &FakeApi) -> Option<String> {
    let gateway = api.get("gateways", "infra", "gw").unwrap();
    let conditions = gateway["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|c| c["type"] == "Programmed")?;
    found["status"].as_str().map(str::to_owned)
}

/// What was written, but for the Lease.
fn writes(api: &FakeApi) -> Vec<Request> {
    let writes = |r: &Request| r.method != "GET" && !r.path.contains("/leases");
    api.requests().into_iter().filter(writes).collect()
}

/// Gives the Gateway's Service an address, as a load balancer does.
fn give_address(api: &FakeApi) {
    let mut service: Value = api.get("services", "infra", "gw-tidegate").unwrap();
    service["apiVersion"] = json!("v1");
    service["kind"] = json!("Service");
    service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } });
    api.put(service);
}

#[tokio::test]
async fn a_restart_of_the_only_replica_writes_nothing() {
    let api = FakeApi::start().await;
    api.apply(WORLD);
    let first = start(&api, "pod_1", Duration::ZERO);
    until("the Service is there", || api.get("services", "infra", "gw-tidegate").is_some()).await;
    give_address(&api);
    until("it is programmed", || programmed(&api).as_deref() == Some("True")).await;
    let route = || api.get("httproutes", "infra", "r").unwrap()["status"]["parents"].is_array();
    until("the route has a status", route).await;
    until("the event is there", || !api.list("events").is_empty()).await;
    first.stop().await;
    let before: BTreeSet<String> = writes(&api).into_iter().map(|r| r.path).collect();
    assert!(before.iter().any(|path| path.ends_with("gateways/gw/status")), "{before:?}");
    let count = writes(&api).len();
    let events = api.list("events").len();

    let second = start(&api, "pod_2", Duration::from_millis(300));
    until("it leads", || second.health.leader.get() == 1).await;
    until("it is ready", || second.lifecycle.phase() == Phase::Ready).await;
    // The note of the missing Service is offered again: with it, the pass was acted upon.
    until("it has written what it has to", || writes(&api).len() > count).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let new: Vec<Request> = writes(&api).split_off(count);
    assert!(new.iter().all(|r| r.path.ends_with("/events")), "{new:?}");
    assert_eq!(api.list("events").len(), events, "told already");
    assert_eq!(programmed(&api).as_deref(), Some("True"));
    second.stop().await;
}

#[tokio::test]
async fn changes_of_routes_cause_one_status_each_and_a_relist_none() {
    const ROUTES: usize = 20;
    let api = FakeApi::start().await;
    api.apply(WORLD);
    let process = start(&api, "pod_1", Duration::ZERO);
    until("the Service is there", || api.get("services", "infra", "gw-tidegate").is_some()).await;
    give_address(&api);
    until("it is programmed", || programmed(&api).as_deref() == Some("True")).await;
    let patches = |part: &str| writes(&api).iter().filter(|r| r.path.contains(part)).count();
    until("the route has a status", || patches("httproutes/r/status") == 1).await;
    let gateways = patches("gateways/gw/status");
    let attached = || {
        let gateway = api.get("gateways", "infra", "gw").unwrap();
        gateway["status"]["listeners"][0]["attachedRoutes"].as_u64().unwrap_or(0)
    };
    for i in 0..ROUTES {
        let mut route = api.get("httproutes", "infra", "r").unwrap();
        route["apiVersion"] = json!("gateway.networking.k8s.io/v1");
        route["kind"] = json!("HTTPRoute");
        route["metadata"] = json!({ "name": format!("r{i}"), "namespace": "infra" });
        route.as_object_mut().unwrap().remove("status");
        api.put(route);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until("all are attached", || attached() == ROUTES as u64 + 1).await;
    until("all have a status", || patches("httproutes/") == ROUTES + 1).await;
    assert!(patches("gateways/gw/status") - gateways <= ROUTES);
    let settled = |r: &Request| !r.path.ends_with("/events");
    let count = || writes(&api).into_iter().filter(settled).count();
    let before = count();
    api.compact(false);
    api.cut_connections();
    until("it watches again", || api.watches("httproutes") == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count(), before, "everything was listed again");
    process.stop().await;
}
