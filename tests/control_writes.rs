//! The controller against an API server: what is written, by whom, and how often.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fake_api;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fake_api::{Failure, FakeApi, until};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::controller::peers::Peers;
use tidegate::controller::{Controller, Pass};
use tidegate::health::Health;
use tidegate::lifecycle::{Lifecycle, Phase};
use tidegate::source::{ClusterSource, Source};
use tidegate::translate::{
    InfrastructureWrite, Key, Note, ObjectKind, ObjectRef, Settings, StatusWrite,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A controller that is fed by hand.
struct Replica {
    passes: watch::Sender<Arc<Pass>>,
    lifecycle: Lifecycle,
    health: Arc<Health>,
    task: JoinHandle<()>,
    source: Source,
}

fn replica(api: &FakeApi) -> Replica {
    let settings = Arc::new(Settings { cluster: true, ..Settings::default() });
    let source = Source::Cluster(ClusterSource::start(api.client(), settings, Arc::default()));
    let lifecycle = Lifecycle::default();
    let health = Arc::new(Health::default());
    let passes = watch::Sender::new(Arc::new(Pass::default()));
    let (_, listening) = watch::channel(Arc::new(BTreeMap::new()));
    let peers = Peers {
        identity: "pod_1".into(),
        pod_ip: None,
        pod_name: None,
        admin_port: 9901,
        lifecycle: lifecycle.clone(),
        listening,
        source: source.handle().clone(),
        health: Arc::clone(&health),
        gone: watch::Sender::default(),
    };
    let controller = Controller {
        client: api.client(),
        namespace: "own".into(),
        lease_name: "tidegate".into(),
        identity: "pod_1".into(),
        peers,
        source: source.handle().clone(),
        lifecycle: lifecycle.clone(),
        health: Arc::clone(&health),
        passes: passes.subscribe(),
    };
    let task = tokio::spawn(controller.run());
    Replica { passes, lifecycle, health, task, source }
}

fn route(api: &FakeApi) -> String {
    api.put(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": "r",
            "namespace": "ns",
            "labels": { "team": "a" },
            "annotations": { "note": "mine" },
        },
        "spec": {},
    }))
}

fn status(version: &str, word: &str) -> StatusWrite {
    StatusWrite {
        object: ObjectRef {
            kind: ObjectKind::HttpRoute,
            key: Key::new("ns", "r"),
            uid: "u".into(),
            resource_version: version.into(),
        },
        status: json!({ "parents": [{ "is": word }] }),
    }
}

fn feed(replica: &Replica, statuses: Vec<StatusWrite>) {
    replica.passes.send_replace(Arc::new(Pass { statuses, ..Pass::default() }));
}

fn written(api: &FakeApi) -> Value {
    api.get("httproutes", "ns", "r").unwrap()["status"]["parents"][0]["is"].clone()
}

fn calls(api: &FakeApi, method: &str, part: &str) -> usize {
    let requests = api.requests();
    requests.iter().filter(|r| r.method == method && r.path.contains(part)).count()
}

#[tokio::test]
async fn a_status_is_written_once_and_leaves_the_rest_alone() {
    let api = FakeApi::start().await;
    let version = route(&api);
    let replica = replica(&api);
    feed(&replica, vec![status(&version, "good")]);
    until("it was written", || written(&api) == "good").await;
    // Passes over the object as it was before our write came back to us.
    for _ in 0..5 {
        feed(&replica, vec![status(&version, "good")]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(calls(&api, "PATCH", "httproutes/r/status"), 1);
    let route = api.get("httproutes", "ns", "r").unwrap();
    assert_eq!(route["metadata"]["labels"]["team"], "a");
    assert_eq!(route["metadata"]["annotations"]["note"], "mine");
}

#[tokio::test]
async fn the_event_of_our_own_write_causes_no_pass() {
    let api = FakeApi::start().await;
    let version = route(&api);
    let replica = replica(&api);
    let mut source = replica.source;
    source.changed().await;
    let pass = Pass { statuses: vec![status(&version, "good")], ..Pass::default() };
    replica.passes.send_replace(Arc::new(pass));
    let counts = source.handle().clone();
    until("the echo was heard", || counts.stats().counts().echoes == 1).await;
    let more = tokio::time::timeout(Duration::from_millis(300), source.changed());
    assert!(more.await.is_err(), "a pass over what we wrote ourselves");
}

#[tokio::test]
async fn a_change_of_mind_is_written_before_the_watch_comes_back() {
    let api = FakeApi::start().await;
    let version = route(&api);
    let replica = replica(&api);
    feed(&replica, vec![status(&version, "good")]);
    until("the first was written", || written(&api) == "good").await;
    feed(&replica, vec![status(&version, "bad")]);
    until("the second was written", || written(&api) == "bad").await;
}

#[tokio::test]
async fn a_conflict_leaves_the_newer_object_alone_until_a_pass_has_seen_it() {
    let api = FakeApi::start().await;
    let old = route(&api);
    let new = route(&api);
    let replica = replica(&api);
    feed(&replica, vec![status(&old, "outdated")]);
    until("it was tried", || calls(&api, "PATCH", "httproutes/r/status") == 1).await;
    assert_eq!(written(&api), Value::Null);
    feed(&replica, vec![status(&new, "good")]);
    until("it was written", || written(&api) == "good").await;
    assert_eq!(replica.health.status_write_errors.get(), 0, "a conflict is no error");
}

#[tokio::test]
async fn what_the_api_server_refused_is_tried_again() {
    let api = FakeApi::start().await;
    let version = route(&api);
    api.fail(Failure { plural: "httproutes".into(), verb: Some("PATCH"), status: 500 }, 1);
    let replica = replica(&api);
    feed(&replica, vec![status(&version, "good")]);
    until("it was written", || written(&api) == "good").await;
    assert_eq!(replica.health.status_write_errors.get(), 1);
}

#[tokio::test]
async fn nothing_is_written_without_the_lease_or_after_it_was_given_back() {
    let api = FakeApi::start().await;
    let version = route(&api);
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    api.put(json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": "tidegate", "namespace": "own" },
        "spec": { "holderIdentity": "other", "leaseDurationSeconds": 1, "renewTime": now },
    }));
    let replica = replica(&api);
    feed(&replica, vec![status(&version, "good")]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(written(&api), Value::Null, "written without the Lease");
    until("the Lease was won and the newest pass written", || written(&api) == "good").await;

    replica.lifecycle.advance(Phase::Leaving);
    replica.task.await.unwrap();
    let lease = api.get("leases", "own", "tidegate").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "");
    replica.passes.send_replace(Arc::new(Pass {
        statuses: vec![status(&route(&api), "late")],
        ..Pass::default()
    }));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(calls(&api, "PATCH", "status"), 1, "written after the Lease was given back");
}

fn service(name: &str) -> InfrastructureWrite {
    let service = json!({
        "metadata": {
            "name": name,
            "namespace": "ns",
            "labels": { "app.kubernetes.io/managed-by": "tidegate" },
        },
    });
    InfrastructureWrite::Service(Box::new(serde_json::from_value(service).unwrap()))
}

fn build(replica: &Replica, infrastructure: Vec<InfrastructureWrite>) {
    replica.passes.send_replace(Arc::new(Pass { infrastructure, ..Pass::default() }));
}

#[tokio::test]
async fn services_are_made_and_only_our_own_are_deleted() {
    let api = FakeApi::start().await;
    api.put(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "foreign", "namespace": "ns" },
    }));
    let replica = replica(&api);
    build(&replica, vec![service("gw")]);
    until("it was made", || api.get("services", "ns", "gw").is_some()).await;
    // The same again, as long as the watch has not brought it: it is there already.
    build(&replica, vec![service("gw")]);
    until("it was tried", || calls(&api, "POST", "services") == 2).await;

    let delete = |name: &str| InfrastructureWrite::DeleteService(Key::new("ns", name));
    build(&replica, vec![delete("foreign"), delete("absent"), delete("gw")]);
    until("it was deleted", || api.get("services", "ns", "gw").is_none()).await;
    assert!(api.get("services", "ns", "foreign").is_some(), "a foreign Service was deleted");
    assert_eq!(replica.health.infrastructure_write_errors.get(), 0);
}

#[tokio::test]
async fn a_service_that_cannot_be_made_is_told_until_it_can() {
    let api = FakeApi::start().await;
    api.fail(Failure { plural: "services".into(), verb: Some("POST"), status: 422 }, 1);
    let replica = replica(&api);
    let invalid = || replica.source.handle().snapshot().invalid_services;
    build(&replica, vec![service("gw")]);
    until("it was told", || invalid().contains_key(&Key::new("ns", "gw"))).await;
    until("it was made", || api.get("services", "ns", "gw").is_some()).await;
    until("it was forgotten", || invalid().is_empty()).await;
}

#[tokio::test]
async fn a_note_becomes_one_event() {
    let api = FakeApi::start().await;
    let replica = replica(&api);
    let note = Note {
        kind: ObjectKind::HttpRoute,
        key: Key::new("ns", "r"),
        uid: Some("u".into()),
        warning: true,
        reason: "BackendNotFound".into(),
        field: "spec.rules[0].backendRefs[0]".into(),
        message: "there is no Service ns/x; make it or change the name".into(),
    };
    let tell = |notes: Vec<Note>| {
        replica.passes.send_replace(Arc::new(Pass { notes, ..Pass::default() }));
    };
    tell(vec![note.clone()]);
    until("it was told", || api.list("events").len() == 1).await;
    for _ in 0..3 {
        tell(vec![note.clone()]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let other = Note { message: "something else".into(), ..note.clone() };
    let told = note.clone();
    tell(vec![note, other]);
    until("the other was told", || api.list("events").len() == 2).await;
    assert_eq!(calls(&api, "POST", "events"), 2);
    let event = &api.list("events")[0];
    assert_eq!(event["regarding"]["name"], "r");
    assert_eq!(event["reason"], "BackendNotFound");
    // A new leader finds it there.
    replica.lifecycle.advance(Phase::Leaving);
    until("the Lease was given back", || replica.task.is_finished()).await;
    let next = self::replica(&api);
    next.passes.send_replace(Arc::new(Pass { notes: vec![told], ..Pass::default() }));
    until("it was offered again", || calls(&api, "POST", "events") == 3).await;
    until("the answer came", || next.health.leader.get() == 1).await;
    assert_eq!(api.list("events").len(), 2);
    assert_eq!(next.health.events_dropped.get(), 0);
}
