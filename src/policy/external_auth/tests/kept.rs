//! Verdicts that are kept.

use super::*;
use crate::policy::limit_key::{Part, PartType};

fn caching(duration: &str, refusals: Option<&str>, key: &[(PartType, Option<&str>)]) -> Spec {
    let part = |(r#type, name): &(PartType, Option<&str>)| Part {
        r#type: *r#type,
        name: name.map(Into::into),
    };
    let cache = CacheSpec {
        duration: duration.into(),
        refusal_duration: refusals.map(Into::into),
        key: key.iter().map(part).collect(),
    };
    Spec { cache: Some(cache), ..Spec::default() }
}

/// How often the service is asked by these requests, one after the other; each with its time in
/// seconds and its fields.
fn asked(policy: &ExternalAuth, fake: &Fake, requests: &[(u64, Fields<'_>)]) -> usize {
    for (second, fields) in requests {
        let mut ex = get(fake, fields);
        ex.now_ms = second * 1000;
        let _ = answer(policy, &mut ex);
    }
    fake.asked.take().len()
}

const A: &[(&str, &str)] = &[("authorization", "a"), ("cookie", "s=1; t=2"), ("x-request-id", "1")];

#[test]
fn the_same_question_is_asked_once_while_its_answer_holds() {
    let fake = Fake::answers(200, &[("x-user", "ann")], "");
    let policy = policy(&caching("5m", None, &[]));
    let again: &[(&str, &str)] = &[("authorization", "a"), ("x-request-id", "2")];
    assert_eq!(asked(&policy, &fake, &[(0, A), (1, again), (299, A)]), 1);
    assert_eq!(asked(&policy, &fake, &[(300, A), (301, A)]), 1);
    let mut ex = get(&fake, &[("authorization", "a"), ("x-user", "evil")]);
    ex.now_ms = 302_000;
    assert!(answer(&policy, &mut ex).is_none());
    assert_eq!(ex.request.headers["x-user"], "ann", "kept answers change the request too");
    assert!(fake.asked.take().is_empty());
}

#[test]
fn what_is_sent_and_differs_is_another_question() {
    let fake = Fake::answers(200, &[], "");
    let policy = policy(&caching("5m", None, &[]));
    for (method, url, authorization) in [
        ("GET", "https://a.example/", "a"),
        ("POST", "https://a.example/", "a"),
        ("GET", "https://b.example/", "a"),
        ("GET", "https://a.example:8443/", "a"),
        ("GET", "https://a.example/x", "a"),
        ("GET", "https://a.example/?x", "a"),
        ("GET", "https://a.example/", "b"),
    ] {
        let mut ex = exchange_with(&fake, method, url, &[("authorization", authorization)]);
        assert!(answer(&policy, &mut ex).is_none());
        assert_eq!(fake.asked.take().len(), 1, "{method} {url} {authorization}");
    }
}

type Fields<'a> = &'a [(&'a str, &'a str)];

#[test]
fn a_key_of_the_users_tells_apart_absent_empty_and_repeated_parts() {
    let cases: [(PartType, &[Fields<'_>]); 2] = [
        (
            PartType::Header,
            &[
                &[],
                &[("x-k", "")],
                &[("x-k", "a")],
                &[("x-k", "a"), ("x-k", "b")],
                &[("x-k", "a, b")],
                &[("x-k", "b"), ("x-k", "a")],
            ],
        ),
        (
            PartType::Cookie,
            &[
                &[],
                &[("cookie", "x-k=")],
                &[("cookie", "x-k=a")],
                &[("cookie", "x-k=a; x-k=b")],
                &[("cookie", "X-K=a")],
            ],
        ),
    ];
    for (kind, different) in cases {
        let fake = Fake::answers(200, &[], "");
        let policy = policy(&caching("5m", None, &[(kind, Some("x-k"))]));
        // A cookie under another name is none.
        let expected = different.len() - usize::from(kind == PartType::Cookie);
        let all: Vec<_> = different.iter().map(|fields| (0, *fields)).collect();
        assert_eq!(asked(&policy, &fake, &all), expected, "{kind:?}");
        assert_eq!(asked(&policy, &fake, &all), 0, "{kind:?}");
        assert_eq!(asked(&policy, &fake, &[(0, &[("cookie", "o=1"), ("x-other", "1")])]), 0);
    }
}

#[test]
fn refusals_hold_shorter_and_only_those_that_are_of_the_client() {
    for (status, refusals, second, times) in [
        (403, None, 9, 1),
        (401, None, 9, 1),
        (401, None, 10, 2),
        (403, Some("1m"), 59, 1),
        (403, Some("0s"), 0, 2),
        (404, None, 1, 2),
        (302, None, 1, 2),
        (500, None, 1, 2),
    ] {
        let fake = Fake::answers(status, &[("x-why", "1")], "no");
        let policy = policy(&caching("5m", refusals, &[]));
        assert_eq!(asked(&policy, &fake, &[(0, A), (second, A)]), times, "{status} {refusals:?}");
        if times == 1 {
            let mut ex = get(&fake, A);
            ex.now_ms = 1000;
            let reply = answer(&policy, &mut ex).unwrap();
            assert_eq!((reply.status.as_u16(), &reply.body[..]), (status, &b"no"[..]));
        }
    }
}

#[test]
fn the_service_says_itself_what_may_be_kept() {
    for (field, value, second, times) in [
        ("cache-control", "private, Max-Age=20", 19, 1),
        ("cache-control", "max-age=20", 20, 2),
        ("cache-control", "max-age=x", 0, 2),
        ("cache-control", "no-store", 0, 2),
        ("cache-control", "private, no-cache", 0, 2),
        ("set-cookie", "a=b", 0, 2),
        ("x-long", "x".repeat(9000).leak(), 0, 2),
    ] {
        let fake = Fake::answers(200, &[(field, value)], "");
        let policy = policy(&caching("5m", None, &[]));
        assert_eq!(asked(&policy, &fake, &[(0, A), (second, A)]), times, "{field}: {value}");
    }
}

#[test]
fn nobody_else_is_sent_back_to_what_one_client_asked_for() {
    let mut spec = caching("5m", Some("5m"), &[(PartType::Cookie, Some("s"))]);
    let sign_in = Some(SignIn { url: "/start".into(), parameter: None });
    spec.http = Some(Box::new(HttpSpec { sign_in, ..HttpSpec::default() }));
    let (fake, policy) = (Fake::answers(401, &[], ""), policy(&spec));
    assert_eq!(asked(&policy, &fake, &[(0, A), (0, A)]), 2);
}

#[test]
fn grpc_answers_are_kept_too_whatever_port_the_client_has() {
    let mut spec = caching("5m", None, &[]);
    spec.protocol = Protocol::Grpc;
    let policy = policy(&spec);
    let yes = CheckResponse { status: Some(Status { code: 0 }), ..CheckResponse::default() };
    let fake = Fake::checks(&yes);
    for (port, id) in [(50000, "1"), (50001, "2")] {
        let mut ex = get(&fake, &[("authorization", "a"), ("x-request-id", id)]);
        ex.client.peer.set_port(port);
        ex.now_ms = u64::from(port);
        assert!(answer(&policy, &mut ex).is_none());
    }
    assert_eq!(fake.asked.take().len(), 1);
    let mut ex = get(&fake, &[("authorization", "a")]);
    ex.client.ip = "192.0.2.7".parse().unwrap();
    assert!(answer(&policy, &mut ex).is_none());
    assert_eq!(fake.asked.take().len(), 1, "the service sees the address");
}

#[test]
fn kept_answers_outlive_a_graph_and_are_bounded() {
    let (fake, spec) = (Fake::answers(200, &[], ""), caching("5m", None, &[]));
    let old = policy(&spec);
    assert_eq!(asked(&old, &fake, &[(0, A)]), 1);
    let mut new = policy(&spec);
    new.adopt(&old);
    assert_eq!(asked(&new, &fake, &[(1, A)]), 0);
    for n in 0..30_000 {
        let authorization = n.to_string();
        let _ = answer(&new, &mut get(&fake, &[("authorization", &authorization)]));
        fake.asked.borrow_mut().clear();
    }
    let text = format!("{:?}", new.judge.cache);
    let entries = text.split("entries: ").nth(1).unwrap().split([' ', ',']).next().unwrap();
    assert!(entries.parse::<usize>().unwrap() <= 16_384, "{text}");
}

#[test]
fn what_cannot_be_kept_is_refused_by_field() {
    let header = PartType::Header;
    let with_body = Spec {
        forward_body: Some(ForwardBody { max_size: 1 }),
        ..caching("1m", None, &[(PartType::Path, None)])
    };
    for (spec, field) in [
        (caching("0s", None, &[]), "cache.duration"),
        (caching("61m", None, &[]), "cache.duration"),
        (caching("a", None, &[]), "cache.duration"),
        (caching("1m", Some("2m"), &[]), "cache.refusalDuration"),
        (caching("1m", None, &[(header, None)]), "cache.key[0].name"),
        (caching("1m", None, &[(header, Some("a b"))]), "cache.key[0].name"),
        (caching("1m", None, &[(PartType::Cookie, Some(""))]), "cache.key[0].name"),
        (caching("1m", None, &[(PartType::Path, Some("a"))]), "cache.key[0].name"),
        (caching("1m", None, &[(PartType::Path, None); 9]), "cache.key"),
        (caching("1m", None, &[(PartType::All, None)]), "cache.key"),
        (with_body, "cache.key"),
    ] {
        assert_eq!(ExternalAuth::compile(&spec, &refs()).unwrap_err().field, field);
    }
}
