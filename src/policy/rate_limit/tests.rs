use http::HeaderMap;

use super::*;
use crate::policy::consumer::Consumer;
use crate::policy::identity::{Identity, Method};
use crate::policy::limit_key::{Part, PartType};
use crate::policy::rate_limit::spec::{AlgorithmName, LocalStore, Override, Replicas};
use crate::policy::testing::{answer, exchange};
use crate::reason::Reason;

fn limit(name: &str, requests: i64, part: PartType) -> spec::Limit {
    let (name, key) = (name.to_owned(), vec![Part { r#type: part, name: None }]);
    spec::Limit { name, requests, window: "1m".into(), key, ..Default::default() }
}

fn spec(limits: Vec<spec::Limit>) -> Spec {
    Spec { object: "ns/limit".into(), limits, ..Default::default() }
}

fn compile(spec: &Spec) -> RateLimit {
    RateLimit::compile(spec, &Refs::default()).unwrap()
}

fn from(ip: &str) -> Exchange<'static> {
    let mut ex = exchange("GET", "http://a.example/", &[]);
    ex.client.ip = ip.parse().unwrap();
    ex
}

fn admitted(limit: &RateLimit, ip: &str, tries: usize) -> usize {
    (0..tries).filter(|_| answer(limit, &mut from(ip)).is_none()).count()
}

fn head() -> ResponseHead {
    ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() }
}

fn text<'h>(head: &'h ResponseHead, name: &str) -> Vec<&'h str> {
    head.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn a_refusal_says_when_to_come_again_and_answers_what_is_left() {
    let limit = compile(&spec(vec![limit("tight", 1, PartType::All)]));
    let mut ex = from("192.0.2.1");
    assert!(answer(&limit, &mut ex).is_none());
    let mut res = head();
    limit.on_response(&ex, &mut res);
    assert_eq!(text(&res, "ratelimit"), ["\"tight\";r=0;t=60"]);
    assert_eq!(text(&res, "ratelimit-policy"), ["\"tight\";q=1;w=60"]);
    let mut ex = from("192.0.2.1");
    let reply = answer(&limit, &mut ex).unwrap();
    assert_eq!((reply.status.as_u16(), reply.reason), (429, Reason::RateLimited));
    assert_eq!(reply.headers["retry-after"], "60");
    let mut res = ResponseHead { status: reply.status, headers: reply.headers };
    limit.on_response(&ex, &mut res);
    for (name, value) in [
        ("ratelimit", "\"tight\";r=0;t=60"),
        ("ratelimit-policy", "\"tight\";q=1;w=60"),
        ("x-ratelimit-limit", "1"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "60"),
    ] {
        assert_eq!(text(&res, name), [value], "{name}");
    }
}

#[test]
fn answers_name_all_limits_and_tell_of_the_tightest() {
    for tight_first in [true, false] {
        let wide = compile(&spec(vec![limit("wide", 100, PartType::All)]));
        let tight = compile(&spec(vec![limit("tight", 3, PartType::All)]));
        let order = if tight_first { [&tight, &wide] } else { [&wide, &tight] };
        let mut ex = from("192.0.2.1");
        order.iter().for_each(|limit| assert!(answer(*limit, &mut ex).is_none()));
        let mut res = head();
        res.headers.insert("ratelimit-policy", "\"of the backend\";q=1".parse().unwrap());
        order.iter().rev().for_each(|limit| limit.on_response(&ex, &mut res));
        let mut policies = text(&res, "ratelimit-policy");
        policies.sort_unstable();
        assert_eq!(policies, ["\"tight\";q=3;w=60", "\"wide\";q=100;w=60"]);
        let mut left = text(&res, "ratelimit");
        left.sort_unstable();
        assert_eq!(left, ["\"tight\";r=2;t=20", "\"wide\";r=99;t=1"]);
        assert_eq!(text(&res, "x-ratelimit-limit"), ["3"]);
        assert_eq!(text(&res, "x-ratelimit-remaining"), ["2"]);
    }
}

#[test]
fn a_refusal_tells_what_is_left_of_limits_that_were_not_charged() {
    let limits = vec![limit("wide", 10, PartType::All), limit("tight", 1, PartType::All)];
    let policy = compile(&spec(limits));
    answer(&policy, &mut from("192.0.2.1"));
    for _ in 0..3 {
        let mut ex = from("192.0.2.1");
        assert!(answer(&policy, &mut ex).is_some());
        let mut res = head();
        policy.on_response(&ex, &mut res);
        assert!(text(&res, "ratelimit")[0].starts_with("\"wide\";r=9;"));
        assert_eq!(text(&res, "x-ratelimit-limit"), ["1"], "of the one that refused");
    }
}

#[test]
fn fields_are_left_out_as_asked_for_and_the_status_is_another() {
    for (headers, standard, legacy) in [
        (Headers::All, 1, 1),
        (Headers::Standard, 1, 0),
        (Headers::Legacy, 0, 1),
        (Headers::None, 0, 0),
    ] {
        let mut spec = spec(vec![limit("a", 1, PartType::All)]);
        spec.response = spec::Response { status: Some(503), headers };
        let limit = compile(&spec);
        answer(&limit, &mut from("192.0.2.1"));
        let mut ex = from("192.0.2.1");
        assert_eq!(answer(&limit, &mut ex).unwrap().status, 503);
        let mut res = head();
        limit.on_response(&ex, &mut res);
        for name in ["ratelimit", "ratelimit-policy"] {
            assert_eq!(text(&res, name).len(), standard, "{headers:?} {name}");
        }
        for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
            assert_eq!(text(&res, name).len(), legacy, "{headers:?} {name}");
        }
    }
}

#[test]
fn an_adopted_limit_stays_spent_also_when_pods_come_and_go() {
    for algorithm in [
        AlgorithmName::TokenBucket,
        AlgorithmName::LeakyBucket,
        AlgorithmName::FixedWindow,
        AlgorithmName::SlidingWindow,
        AlgorithmName::SlidingLog,
    ] {
        for part in [PartType::All, PartType::ClientIP] {
            let mut spec = spec(vec![spec::Limit { algorithm, ..limit("a", 6, part) }]);
            spec.store.local = Some(LocalStore { replicas: Replicas::Shared });
            let with = |replicas| {
                RateLimit::compile(&spec, &Refs { replicas, ..Refs::default() }).unwrap()
            };
            let fair = if algorithm == AlgorithmName::LeakyBucket { 1 } else { 2 };
            let old = with(3);
            assert_eq!(admitted(&old, "192.0.2.1", 9), fair, "{algorithm:?}");
            let mut new = with(3);
            new.adopt(&old);
            assert_eq!(admitted(&new, "192.0.2.1", 9), 0, "{algorithm:?}");
            let mut fewer = with(2);
            fewer.adopt(&new);
            assert!(admitted(&fewer, "192.0.2.1", 9) <= 3, "{algorithm:?}: it was counted on");
            assert_eq!(fewer.0.totals().next().unwrap().0, "ns/limit/a");
        }
    }
}

fn who(consumer: &str, plan: Option<&str>, groups: &[&str]) -> Exchange<'static> {
    let consumer = Consumer {
        namespace: "web".into(),
        name: consumer.into(),
        groups: groups.iter().map(|group| (*group).into()).collect(),
        plan: plan.map(Into::into),
    };
    let identity = Identity {
        method: Method::ApiKey,
        subject: consumer.name.clone(),
        consumer: Some(Arc::new(consumer)),
        groups: Box::default(),
        scopes: Box::default(),
        claims: Default::default(),
    };
    let mut ex = from("192.0.2.1");
    ex.identity = Some(Arc::new(identity));
    ex
}

#[test]
fn the_numbers_are_those_of_the_consumer_then_of_a_group_then_of_the_plan() {
    let other = |requests| Override { requests, ..Default::default() };
    let overrides = vec![
        Override { plan: Some("gold".into()), ..other(4) },
        Override { group: Some("apps".into()), ..other(3) },
        Override { consumer: Some("one".into()), ..other(2) },
        Override { group: Some("apps".into()), ..other(9) },
    ];
    let limit = spec::Limit { overrides, ..limit("a", 1, PartType::Consumer) };
    assert!(needs_identity(&limit));
    let policy = compile(&spec(vec![limit]));
    let admitted = |name, plan, groups: &[&str]| {
        (0..20).filter(|_| answer(&policy, &mut who(name, plan, groups)).is_none()).count()
    };
    assert_eq!(admitted("one", Some("gold"), &["apps"]), 2);
    assert_eq!(admitted("two", Some("gold"), &["x", "apps"]), 3);
    assert_eq!(admitted("three", Some("gold"), &[]), 4);
    assert_eq!(admitted("four", None, &["x"]), 1);
    let mut ex = who("five", Some("gold"), &[]);
    answer(&policy, &mut ex);
    let mut res = head();
    policy.on_response(&ex, &mut res);
    assert_eq!(text(&res, "ratelimit-policy"), ["\"a\";q=4;w=60"]);
}

#[test]
fn limits_of_everybody_and_of_who_asks_are_told_apart() {
    assert!(!needs_identity(&limit("a", 1, PartType::ClientIP)));
    assert!(!needs_identity(&limit("a", 1, PartType::All)));
    for part in [PartType::Consumer, PartType::Group, PartType::Plan, PartType::Subject] {
        assert!(needs_identity(&limit("a", 1, part)));
    }
}

#[test]
fn specs_that_make_no_sense_are_refused_by_field() {
    let base = || limit("a", 10, PartType::All);
    let cost = |number, expression: Option<&str>| {
        Some(spec::Cost { number, expression: expression.map(Into::into) })
    };
    let other = |requests| Override { plan: Some("p".into()), requests, ..Default::default() };
    for (limit, field) in [
        (spec::Limit { requests: 0, ..base() }, "limits[a].requests"),
        (spec::Limit { requests: 2_000_000_000, ..base() }, "limits[a].requests"),
        (spec::Limit { burst: Some(0), ..base() }, "limits[a].burst"),
        (spec::Limit { window: "500ms".into(), ..base() }, "limits[a].window"),
        (spec::Limit { window: "32d".into(), ..base() }, "limits[a].window"),
        (spec::Limit { window: "soon".into(), ..base() }, "limits[a].window"),
        (
            spec::Limit { algorithm: AlgorithmName::FixedWindow, burst: Some(1), ..base() },
            "limits[a].burst",
        ),
        (
            spec::Limit { algorithm: AlgorithmName::SlidingLog, requests: 10_001, ..base() },
            "limits[a].requests",
        ),
        (
            spec::Limit { requests: 1, burst: Some(1_000_000), window: "31d".into(), ..base() },
            "limits[a].burst",
        ),
        (spec::Limit { cost: cost(Some(0), None), ..base() }, "limits[a].cost.number"),
        (spec::Limit { cost: cost(None, None), ..base() }, "limits[a].cost"),
        (spec::Limit { overrides: vec![other(0)], ..base() }, "limits[a].overrides[0].requests"),
        (
            spec::Limit {
                overrides: vec![Override { requests: 1, ..Default::default() }],
                ..base()
            },
            "limits[a].overrides[0]",
        ),
        (spec::Limit { name: "A b".into(), ..base() }, "limits.name"),
    ] {
        let error = RateLimit::compile(&spec(vec![limit]), &Refs::default()).unwrap_err();
        assert_eq!(error.field, field);
    }
    let twice = spec(vec![base(), base()]);
    assert_eq!(RateLimit::compile(&twice, &Refs::default()).unwrap_err().field, "limits.name");
    let mut redis = spec(vec![base()]);
    redis.store.r#type = StoreType::Redis;
    assert_eq!(RateLimit::compile(&redis, &Refs::default()).unwrap_err().field, "store.redis");
    let mut status = spec(vec![base()]);
    status.response.status = Some(200);
    assert_eq!(RateLimit::compile(&status, &Refs::default()).unwrap_err().field, "response.status");
}
