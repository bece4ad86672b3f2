//! Candidates for the Lease against an API server: who leads, and who never does.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fake_api;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fake_api::{FakeApi, until};
use serde_json::json;
use tidegate::controller::leader::{Candidate, Leadership, Times};
use tidegate::health::Health;
use tidegate::lifecycle::{Lifecycle, Phase};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A Lease's duration is in whole seconds: one is the least.
const TIMES: Times = Times {
    duration: Duration::from_secs(1),
    deadline: Duration::from_millis(500),
    retry: Duration::from_millis(50),
    poll: Duration::from_millis(20),
    call: Duration::from_millis(300),
};

struct Replica {
    lifecycle: Lifecycle,
    leadership: Leadership,
    health: Arc<Health>,
    gone: watch::Sender<Arc<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

fn replica(api: &FakeApi, identity: &str) -> Replica {
    let lifecycle = Lifecycle::default();
    let health = Arc::new(Health::default());
    let gone = watch::Sender::new(Arc::default());
    let candidate = Candidate::new(
        api.client(),
        "own",
        "tidegate",
        identity,
        lifecycle.clone(),
        Arc::clone(&health),
        gone.subscribe(),
    )
    .with_times(TIMES);
    let leadership = candidate.leadership();
    Replica { lifecycle, leadership, health, gone, task: tokio::spawn(candidate.run()) }
}

fn holder(api: &FakeApi) -> String {
    let lease = api.get("leases", "own", "tidegate").unwrap_or_default();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_candidates_never_lead_together() {
    let api = FakeApi::start().await;
    let replicas = [replica(&api, "a"), replica(&api, "b"), replica(&api, "c")];
    let leaders = || replicas.iter().filter(|r| r.leadership.holds()).count();
    until("one leads", || leaders() == 1).await;
    // The leader dies without a word; the others wait until its Lease has run out.
    let first = replicas.iter().position(|r| r.leadership.holds()).unwrap();
    replicas[first].task.abort();
    let mut changed = false;
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(3) {
        assert!(leaders() <= 1, "two lead at once");
        changed |= replicas.iter().enumerate().any(|(n, r)| n != first && r.leadership.holds());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(changed, "nobody took the Lease of the dead");
}

#[tokio::test]
async fn a_lease_given_back_is_taken_at_once() {
    let api = FakeApi::start().await;
    let first = replica(&api, "a");
    until("the first leads", || first.leadership.holds()).await;
    let second = replica(&api, "b");
    first.lifecycle.advance(Phase::Leaving);
    first.task.await.unwrap();
    assert!(!first.leadership.holds());
    let given_back = Instant::now();
    until("the second leads", || second.leadership.holds()).await;
    assert!(given_back.elapsed() < TIMES.duration, "it waited for the Lease to run out");
    assert_eq!(holder(&api), "b");
}

#[tokio::test]
async fn the_lease_of_a_process_that_is_gone_is_taken_at_once() {
    let api = FakeApi::start().await;
    let first = replica(&api, "a");
    until("the first leads", || first.leadership.holds()).await;
    let second = replica(&api, "b");
    first.task.abort();
    let died = Instant::now();
    second.gone.send_replace(Arc::new(["a".to_owned()].into()));
    until("the second leads", || second.leadership.holds()).await;
    assert!(died.elapsed() < TIMES.duration, "it waited for the Lease to run out");
}

#[tokio::test]
async fn a_conflict_is_tried_again_from_what_is_there() {
    let api = FakeApi::start().await;
    let only = replica(&api, "a");
    until("it leads", || only.leadership.holds()).await;
    for _ in 0..5 {
        // Somebody touches the Lease: the version that the holder knows is out of date.
        let mut lease = api.get("leases", "own", "tidegate").unwrap();
        lease["metadata"]["labels"] = json!({ "touched": "yes" });
        let version = api.put(lease);
        let renewed = || {
            let lease = api.get("leases", "own", "tidegate").unwrap();
            lease["metadata"]["resourceVersion"] != version.as_str()
        };
        until("it was renewed", renewed).await;
        assert!(only.leadership.holds());
    }
    let lease = api.get("leases", "own", "tidegate").unwrap();
    assert_eq!(lease["metadata"]["labels"]["touched"], "yes", "what others wrote was lost");
}

#[tokio::test]
async fn without_the_api_server_nobody_leads_and_nobody_gives_up() {
    let api = FakeApi::start().await;
    let only = replica(&api, "a");
    until("it leads", || only.leadership.holds()).await;
    api.go_away();
    let away = Instant::now();
    until("it stops leading", || !only.leadership.holds()).await;
    assert!(away.elapsed() < TIMES.duration, "it led on while others might have begun");
    until("it was noticed", || only.health.lease_errors.get() > 0).await;
    assert!(!only.task.is_finished());
    api.come_back();
    until("it leads again", || only.leadership.holds()).await;
}

#[tokio::test]
async fn leaving_does_not_wait_for_an_api_server_that_is_away() {
    let api = FakeApi::start().await;
    let only = replica(&api, "a");
    until("it leads", || only.leadership.holds()).await;
    api.go_away();
    only.lifecycle.advance(Phase::Leaving);
    tokio::time::timeout(TIMES.call * 3, only.task).await.unwrap().unwrap();
}
