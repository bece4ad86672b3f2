use std::future::ready;
use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::*;
use crate::policy::limit_key::{Part, PartType};
use crate::policy::rate_limit::RateLimit;
use crate::policy::rate_limit::spec::{self, Response, Spec, StoreType};
use crate::policy::testing::exchange;
use crate::policy::{Policy, Refs};

/// A store that admits what costs no more than `room`, and remembers its trips.
#[derive(Debug, Default)]
struct Double {
    room: Mutex<Option<u64>>,
    trips: Mutex<Vec<Vec<Check>>>,
}

impl Double {
    fn new(room: impl Into<Option<u64>>) -> Arc<Self> {
        Arc::new(Double { room: Mutex::new(room.into()), trips: Mutex::default() })
    }

    fn trips(&self) -> Vec<usize> {
        self.trips.lock().unwrap().iter().map(Vec::len).collect()
    }
}

impl Store for Double {
    fn decide<'a>(
        &'a self,
        checks: &'a [Check],
    ) -> LocalBoxFuture<'a, Result<Vec<Verdict>, StoreError>> {
        self.trips.lock().unwrap().push(checks.to_vec());
        let Some(room) = *self.room.lock().unwrap() else {
            return Box::pin(ready(Err(StoreError::Down)));
        };
        let verdict = |check: &Check| Verdict {
            admitted: check.cost <= room,
            remaining: room.saturating_sub(check.cost),
            reset_ms: 2500,
            retry_after_ms: if check.cost <= room { 0 } else { 500 * check.cost },
        };
        Box::pin(ready(Ok(checks.iter().map(verdict).collect())))
    }
}

fn limit(name: &str, requests: i64, part: PartType, cost: i32) -> spec::Limit {
    spec::Limit {
        name: name.into(),
        requests,
        window: "1m".into(),
        key: vec![Part { r#type: part, name: None }],
        cost: Some(spec::Cost { number: Some(cost), expression: None }),
        ..Default::default()
    }
}

fn here(limits: Vec<spec::Limit>) -> RateLimit {
    compile(Spec { object: "ns/here".into(), limits, ..Default::default() }, None, 1)
}

fn there(store: &Arc<Double>, mode: FailureMode, limits: Vec<spec::Limit>) -> RateLimit {
    let redis = Some(spec::RedisStore::default());
    let at = spec::Store { r#type: StoreType::Redis, redis, local: None };
    let object = "ns/there".into();
    let spec =
        Spec { object, store: at, failure_mode: mode, limits, response: Response::default() };
    compile(spec, Some(Arc::clone(store) as Arc<dyn Store>), 4)
}

fn compile(spec: Spec, store: Option<Arc<dyn Store>>, replicas: u32) -> RateLimit {
    RateLimit::compile(&spec, &Refs { store, replicas, ..Refs::default() }).unwrap()
}

fn from(ip: &str) -> Exchange<'static> {
    let mut ex = exchange("GET", "http://a.example/", &[]);
    ex.client.ip = ip.parse().unwrap();
    ex
}

/// The answer to a request that these policies decide together.
fn decided(policies: &[&RateLimit], ip: &str) -> Option<Reply> {
    let mut ledger = Ledger::default();
    let mut ex = from(ip);
    let policies = policies.iter().map(|policy| &policy.0);
    let flow = ledger.decide(policies, &mut ex, |_| false).now_or_never();
    flow.expect("nobody waits").break_value()
}

/// How many of `tries` requests are let through.
fn admitted(policies: &[&RateLimit], ip: &str, tries: usize) -> usize {
    (0..tries).filter(|_| decided(policies, ip).is_none()).count()
}

#[test]
fn what_one_limit_refuses_costs_nothing_of_the_others() {
    let clients = here(vec![limit("clients", 100, PartType::ClientIP, 1)]);
    let all = here(vec![limit("all", 2, PartType::All, 1)]);
    assert_eq!(admitted(&[&clients, &all], "192.0.2.1", 50), 2);
    assert_eq!(admitted(&[&clients], "192.0.2.1", 200), 98);
    let both = vec![limit("a", 100, PartType::ClientIP, 1), limit("b", 3, PartType::ClientIP, 1)];
    let both = here(both);
    assert_eq!(admitted(&[&both], "192.0.2.1", 50), 3);
    assert_eq!(both.0.totals().map(|(_, totals)| totals[1]).sum::<u64>(), 47);
}

#[test]
fn what_a_store_refuses_costs_nothing_here() {
    let store = Double::new(0);
    let local = here(vec![limit("local", 5, PartType::ClientIP, 1)]);
    let shared = there(&store, FailureMode::Local, vec![limit("shared", 5, PartType::All, 1)]);
    assert_eq!(admitted(&[&local, &shared], "192.0.2.1", 20), 0);
    assert_eq!(admitted(&[&local], "192.0.2.1", 20), 5);
}

#[test]
fn all_limits_of_a_store_are_asked_for_in_one_trip() {
    let (store, other) = (Double::new(9), Double::new(9));
    let limits = || vec![limit("a", 5, PartType::ClientIP, 1), limit("b", 5, PartType::All, 2)];
    let first = there(&store, FailureMode::Local, limits());
    let second = there(&store, FailureMode::Local, limits());
    let third = there(&other, FailureMode::Local, limits());
    assert!(decided(&[&first, &second, &third], "192.0.2.1").is_none());
    assert_eq!((store.trips(), other.trips()), (vec![4], vec![2]));
    let trips = store.trips.lock().unwrap();
    let [a, b, ..] = &trips[0][..] else { panic!("four checks") };
    assert_eq!((a.limit, a.burst, a.window_ms, a.cost, b.cost), (5, 5, 60_000, 1, 2));
    assert_eq!(&*a.tag, "ns");
    assert!(a.key.starts_with(b"ns/there/a/b60000/"), "{:?}", a.key);
    assert_ne!(a.key, b.key);
}

#[test]
fn the_longest_wait_is_told() {
    let store = Double::new(1);
    let limits = vec![
        limit("a", 5, PartType::ClientIP, 2),
        limit("b", 9, PartType::All, 7),
        limit("c", 9, PartType::All, 3),
    ];
    let policy = there(&store, FailureMode::Local, limits);
    let reply = decided(&[&policy], "192.0.2.1").unwrap();
    assert_eq!(
        (reply.status.as_u16(), &reply.headers["retry-after"]),
        (429, &"4".parse().unwrap())
    );
}

/// The first limit that refused used to be the only one that was asked, so that a client which
/// waited as long as told was refused by the next one.
#[test]
fn the_longest_wait_is_told_of_limits_that_count_here() {
    let windows = [("a", "10s"), ("b", "1h"), ("c", "1m")];
    let limits = windows.map(|(name, window)| spec::Limit {
        window: window.into(),
        algorithm: spec::AlgorithmName::SlidingLog,
        ..limit(name, 1, PartType::All, 1)
    });
    for fallen_back in [false, true] {
        let limits = limits.to_vec();
        let policy = match fallen_back {
            true => there(&Double::new(None), FailureMode::Local, limits),
            false => here(limits),
        };
        assert!(decided(&[&policy], "192.0.2.1").is_none());
        let reply = decided(&[&policy], "192.0.2.1").unwrap();
        assert_eq!(reply.headers["retry-after"], "3600", "fallen back: {fallen_back}");
        let limited = policy.0.totals().map(|(_, [_, limited, _])| limited);
        assert_eq!(limited.collect::<Vec<_>>(), [0, 1, 0], "of the one that was told");
    }
}

#[test]
fn what_this_pod_remembers_of_a_store_may_be_the_longest_wait() {
    let store = Double::new(0);
    let remembers = there(&store, FailureMode::Local, vec![limit("a", 5, PartType::All, 7)]);
    assert!(decided(&[&remembers], "192.0.2.1").is_some());
    let local = here(vec![limit("b", 60, PartType::All, 60)]);
    assert!(decided(&[&local], "192.0.2.1").is_none());
    for order in [[&local, &remembers], [&remembers, &local]] {
        let reply = decided(&order, "192.0.2.1").unwrap();
        assert_eq!(reply.headers["retry-after"], "60");
    }
    assert_eq!(store.trips(), [1], "nobody is asked for what this pod refuses");
}

#[test]
fn what_is_spent_is_refused_without_another_trip() {
    let store = Double::new(0);
    let policy = there(&store, FailureMode::Local, vec![limit("a", 5, PartType::ClientIP, 1)]);
    assert_eq!(admitted(&[&policy], "192.0.2.1", 10), 0);
    assert_eq!(store.trips(), [1]);
    assert_eq!(admitted(&[&policy], "192.0.2.2", 10), 0, "another key");
    assert_eq!(store.trips(), [1, 1]);
}

#[test]
fn without_an_answer_each_policy_does_what_it_says() {
    let store = Double::new(None);
    let limits = || vec![limit("a", 8, PartType::ClientIP, 1)];
    let policy = |mode| there(&store, mode, limits());
    // A share of 8 between 4 pods.
    assert_eq!(admitted(&[&policy(FailureMode::Local)], "192.0.2.1", 20), 2);
    assert_eq!(admitted(&[&policy(FailureMode::Open)], "192.0.2.1", 20), 20);
    let closed = decided(&[&policy(FailureMode::Closed)], "192.0.2.1").unwrap();
    assert_eq!((closed.status.as_u16(), closed.reason), (503, Reason::LimitUnavailable));
}

#[test]
fn what_fails_closed_costs_nothing_here() {
    let store = Double::new(None);
    let local = here(vec![limit("local", 5, PartType::ClientIP, 1)]);
    let closed = there(&store, FailureMode::Closed, vec![limit("a", 5, PartType::All, 1)]);
    assert_eq!(admitted(&[&local, &closed], "192.0.2.1", 20), 0);
    assert_eq!(admitted(&[&local], "192.0.2.1", 20), 5);
}

#[test]
fn a_store_that_is_back_is_asked_again() {
    let store = Double::new(None);
    let policy = there(&store, FailureMode::Open, vec![limit("a", 8, PartType::ClientIP, 1)]);
    assert!(decided(&[&policy], "192.0.2.1").is_none());
    *store.room.lock().unwrap() = Some(0);
    assert!(decided(&[&policy], "192.0.2.1").is_some());
}

#[test]
fn an_answer_with_too_few_verdicts_is_none() {
    assert_eq!(complete(Vec::new(), 1), Err(StoreError::Protocol));
}

/// Decides `early`, which is asked for later, and then `late`, unless a gate between them answers.
fn in_two_phases(early: &RateLimit, late: &RateLimit, refused: bool) -> (Option<Reply>, usize) {
    let mut ledger = Ledger::default();
    let mut ex = from("192.0.2.1");
    let flow = ledger.decide([&early.0], &mut ex, |store| late.0.count_in(store)).now_or_never();
    let mut answer = flow.expect("nobody waits").break_value();
    if answer.is_none() && !refused {
        let flow = ledger.decide([&late.0], &mut ex, |_| false).now_or_never();
        answer = flow.expect("nobody waits").break_value();
    }
    let unsettled = ledger.unsettled();
    let charges = unsettled.len();
    for one in unsettled {
        one.charge().now_or_never().expect("nobody waits");
    }
    (answer, charges)
}

#[test]
fn early_limits_go_along_with_those_of_who_asks() {
    let store = Double::new(5);
    let early = there(&store, FailureMode::Local, vec![limit("e", 5, PartType::ClientIP, 1)]);
    let late = there(&store, FailureMode::Local, vec![limit("l", 5, PartType::All, 1)]);
    let (answer, charges) = in_two_phases(&early, &late, false);
    assert!(answer.is_none() && charges == 0);
    assert_eq!(store.trips(), [2]);
}

#[test]
fn a_flood_that_authentication_refuses_is_soon_refused_before_it() {
    let store = Double::new(0);
    let early = there(&store, FailureMode::Local, vec![limit("e", 5, PartType::ClientIP, 1)]);
    let late = there(&store, FailureMode::Local, vec![limit("l", 5, PartType::All, 1)]);
    let (answer, charges) = in_two_phases(&early, &late, true);
    assert!(answer.is_none() && charges == 1, "it is charged afterwards");
    assert_eq!(store.trips(), [1]);
    for _ in 0..10 {
        let (answer, charges) = in_two_phases(&early, &late, true);
        assert_eq!((answer.unwrap().status.as_u16(), charges), (429, 0));
    }
    assert_eq!(store.trips(), [1], "from memory");
}

#[test]
fn early_limits_of_another_store_do_not_wait() {
    let (store, other) = (Double::new(5), Double::new(5));
    let early = there(&store, FailureMode::Local, vec![limit("e", 5, PartType::ClientIP, 1)]);
    let late = there(&other, FailureMode::Local, vec![limit("l", 5, PartType::All, 1)]);
    in_two_phases(&early, &late, false);
    assert_eq!((store.trips(), other.trips()), (vec![1], vec![1]));
}
