use std::sync::Arc;

use super::*;
use crate::policy::RouteRef;
use crate::policy::consumer::Consumer;
use crate::policy::identity::Method;
use crate::policy::testing::exchange;

fn part(r#type: PartType, name: Option<&str>) -> Part {
    Part { r#type, name: name.map(Into::into) }
}

fn key(parts: &[(PartType, Option<&str>)]) -> LimitKey {
    let parts: Vec<Part> = parts.iter().map(|(kind, name)| part(*kind, *name)).collect();
    LimitKey::compile("key", &parts).unwrap()
}

fn from(ip: &str, url: &str, headers: &[(&str, &str)]) -> Exchange<'static> {
    let mut ex = exchange("GET", url, headers);
    ex.client.ip = ip.parse().unwrap();
    ex
}

fn identity(subject: &str, consumer: Option<(&str, Option<&str>)>, groups: &[&str]) -> Identity {
    let consumer = consumer.map(|(name, plan)| Consumer {
        namespace: "ns".into(),
        name: name.into(),
        groups: Box::default(),
        plan: plan.map(Into::into),
    });
    Identity {
        method: Method::Jwt,
        subject: subject.into(),
        consumer: consumer.map(Arc::new),
        groups: groups.iter().map(|group| (*group).into()).collect(),
        scopes: Box::default(),
        claims: serde_json::from_str(r#"{"tenant": "a", "level": 3, "in": {"side": true}}"#)
            .unwrap(),
    }
}

fn by(who: Identity) -> Exchange<'static> {
    let mut ex = exchange("GET", "http://a.example/", &[]);
    ex.identity = Some(Arc::new(who));
    ex
}

/// Whether two requests are counted together, in this process and in every other alike.
fn same(key: &LimitKey, a: &Exchange<'_>, b: &Exchange<'_>) -> bool {
    let seed = RandomState::new();
    let local = key.local(a, &seed) == key.local(b, &seed);
    assert_eq!(local, key.shared(a) == key.shared(b));
    local
}

const URL: &str = "http://a.example/";

#[test]
fn addresses_are_told_apart_and_ipv6_by_its_64() {
    let key = key(&[]);
    let same = |a, b| same(&key, &from(a, URL, &[]), &from(b, URL, &[]));
    assert!(!same("192.0.2.1", "192.0.2.2"));
    assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
    assert!(same("2001:db8::1", "2001:db8::ffff:2"));
    assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
}

#[test]
fn all_requests_are_one_for_all() {
    let key = key(&[(PartType::All, None)]);
    assert!(key.is_all() && !key.needs_identity());
    assert!(same(&key, &from("192.0.2.1", URL, &[]), &from("192.0.2.2", URL, &[("x", "y")])));
}

#[test]
fn what_is_missing_is_replaced_by_the_address() {
    for (kind, name, url, headers) in [
        (PartType::Header, Some("x-key"), URL, vec![("x-key", "a")]),
        (PartType::Cookie, Some("key"), URL, vec![("cookie", "key=a")]),
        (PartType::Query, Some("key"), "http://a.example/?key=a", vec![]),
    ] {
        let key = key(&[(kind, name)]);
        let with = |ip| from(ip, url, &headers);
        let without = |ip| from(ip, URL, &[]);
        assert!(same(&key, &with("192.0.2.1"), &with("192.0.2.2")));
        assert!(!same(&key, &with("192.0.2.1"), &without("192.0.2.1")));
        assert!(!same(&key, &without("192.0.2.1"), &without("192.0.2.2")));
    }
    for kind in [PartType::Consumer, PartType::Group, PartType::Plan, PartType::Subject] {
        let key = key(&[(kind, None)]);
        assert!(key.needs_identity());
        assert!(!same(&key, &from("192.0.2.1", URL, &[]), &from("192.0.2.2", URL, &[])));
    }
}

#[test]
fn a_value_that_looks_like_an_address_is_none() {
    let key = key(&[(PartType::Header, Some("x-key"))]);
    let mut bytes = network("192.0.2.1".parse().unwrap()).to_vec();
    bytes.retain(|byte| *byte >= 32);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let headers = [("x-key", text.as_str())];
    assert!(!same(&key, &from("192.0.2.1", URL, &headers), &from("192.0.2.1", URL, &[])));
}

#[test]
fn parts_and_values_do_not_run_into_each_other() {
    let both = key(&[(PartType::Header, Some("x-a")), (PartType::Header, Some("x-b"))]);
    let with = |a: &str, b: &str| from("192.0.2.1", URL, &[("x-a", a), ("x-b", b)]);
    assert!(!same(&both, &with("ab", "c"), &with("a", "bc")));
    let one = key(&[(PartType::Header, Some("x-a"))]);
    let twice = from("192.0.2.1", URL, &[("x-a", "a"), ("x-a", "b")]);
    assert!(!same(&one, &twice, &from("192.0.2.1", URL, &[("x-a", "ab")])));
    let two = [("x-a", "a"), ("x-a", "b"), ("x-b", "c")];
    let other = [("x-a", "a"), ("x-b", "b"), ("x-b", "c")];
    assert!(!same(&both, &from("192.0.2.1", URL, &two), &from("192.0.2.1", URL, &other)));
}

/// Parameters may hold any byte, those that stand between values as well.
#[test]
fn one_value_is_never_counted_as_two() {
    let key = key(&[(PartType::Query, Some("k"))]);
    let ask = |query: &str| from("192.0.2.1", &format!("http://a.example/?{query}"), &[]);
    for between in 0..=8 {
        let one = ask(&format!("k=a%{between:02x}b"));
        assert!(!same(&key, &one, &ask("k=a&k=b")), "{between}");
    }
}

#[test]
fn an_encoded_parameter_is_the_same_one() {
    let key = key(&[(PartType::Query, Some("key"))]);
    let with = |query: &str| from("192.0.2.1", &format!("http://a.example/?{query}"), &[]);
    assert!(same(&key, &with("key=abc"), &with("x=1&k%65y=a%62c")));
    assert!(!same(&key, &with("key=abc"), &with("key=abc&key=d")));
}

#[test]
fn who_asks_is_counted_by_what_is_known_of_them() {
    let consumer = key(&[(PartType::Consumer, None)]);
    let gold = |name| identity("s", Some((name, Some("gold"))), &["apps", "web"]);
    let silver = |name| identity("t", Some((name, Some("silver"))), &["web"]);
    assert!(same(&consumer, &by(gold("a")), &by(silver("a"))));
    assert!(!same(&consumer, &by(gold("a")), &by(gold("b"))));
    assert!(!same(&consumer, &by(gold("s")), &by(identity("s", None, &[]))), "another s");
    assert!(same(&consumer, &by(identity("s", None, &[])), &by(identity("s", None, &["x"]))));
    let mut elsewhere = gold("a");
    Arc::make_mut(elsewhere.consumer.as_mut().unwrap()).namespace = "other".into();
    assert!(!same(&consumer, &by(gold("a")), &by(elsewhere)), "another namespace");
    for (kind, name) in [(PartType::Plan, None), (PartType::Group, None), (PartType::Subject, None)]
    {
        let key = key(&[(kind, name)]);
        assert!(same(&key, &by(gold("a")), &by(gold("b"))));
        assert!(!same(&key, &by(gold("a")), &by(silver("a"))));
    }
}

#[test]
fn claims_are_counted_by_their_values_of_any_type() {
    for path in ["tenant", "level", "in.side"] {
        let key = key(&[(PartType::Claim, Some(path))]);
        let mut other = identity("s", None, &[]);
        assert!(key.needs_identity());
        assert!(same(&key, &by(identity("s", None, &[])), &by(other.clone())));
        other.claims.clear();
        assert!(!same(&key, &by(identity("s", None, &[])), &by(other)));
    }
}

#[test]
fn the_target_of_a_request_can_be_a_part() {
    let base = || exchange("GET", "http://a.example/x", &[]);
    let route = |name| RouteRef { kind: "HTTPRoute", namespace: "ns", name, rule: "0" };
    let mut other = base();
    other.route = route("other");
    for (kind, other) in [
        (PartType::Method, exchange("POST", "http://a.example/x", &[])),
        (PartType::Host, exchange("GET", "http://b.example/x", &[])),
        (PartType::Path, exchange("GET", "http://a.example/y", &[])),
        (PartType::Route, other),
    ] {
        let key = key(&[(kind, None)]);
        assert!(!key.needs_identity());
        assert!(same(&key, &base(), &base()));
        assert!(!same(&key, &base(), &other), "{kind:?}");
    }
}

#[test]
fn keys_that_make_no_sense_are_refused_by_field() {
    use PartType::{All, Claim, ClientIP, Cookie, Header, Query};
    for (parts, field) in [
        (vec![part(Header, None)], "key[0].name"),
        (vec![part(ClientIP, None), part(Header, Some("a b"))], "key[1].name"),
        (vec![part(Header, Some("Host"))], "key[0].name"),
        (vec![part(Cookie, Some(""))], "key[0].name"),
        (vec![part(Query, None)], "key[0].name"),
        (vec![part(Claim, None)], "key[0].name"),
        (vec![part(ClientIP, Some("x"))], "key[0].name"),
        (vec![part(All, None), part(ClientIP, None)], "key"),
        (vec![part(ClientIP, None); 9], "key"),
    ] {
        let error = LimitKey::compile("key", &parts).unwrap_err();
        assert_eq!(error.field, field, "{parts:?}");
    }
}
