//! Clients that stay with their endpoint (GEP-1619).

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use support::*;
use tidegate::graph::{
    Action, BackendProtocol, Cookie, CookieLifetime, RouteGraph, Session, SessionKind, Split,
    Target,
};

const NAMES: [&str; 4] = ["one", "two", "three", "four"];

fn session() -> Arc<Session> {
    let cookie = Cookie::new("stay", "/", CookieLifetime::Session).unwrap();
    Arc::new(Session::new(SessionKind::Cookie(cookie), None, "uid"))
}

fn graph(backends: &[RawBackend], session: Arc<Session>) -> RouteGraph {
    let mut graph = Graph::http(free_port());
    let to: Vec<_> = backends.iter().map(|backend| backend.addr).collect();
    let id = graph.backend("all", BackendProtocol::Http1, &to);
    let mut rule = forward(id);
    rule.session = Some(session);
    graph.rule("/", rule);
    graph.builder.build()
}

/// Asks with these cookies; the body, and the pair that the answer sets.
fn ask(proxy: &Proxy, cookies: &str) -> (String, Option<String>) {
    let response = proxy.exchange(&format!(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncookie: {cookies}\r\n\r\n"
    ));
    assert_eq!(status(&response), 200);
    let set = field(&response, "set-cookie").map(|set| set.split(';').next().unwrap().to_owned());
    (body(&response).to_owned(), set)
}

#[test]
fn a_client_with_the_cookie_stays_and_others_are_spread() {
    let backends = NAMES.map(RawBackend::named);
    let graph = graph(&backends, session());
    // Another replica: it shares nothing with the first one but the objects.
    let replica = Proxy::start(self::graph(&backends, session()));
    let proxy = Proxy::start(graph);
    let (first, cookie) = ask(&proxy, "theme=dark");
    let cookie = format!("theme=dark; {}", cookie.expect("a new session"));
    for proxy in [&proxy, &replica] {
        for _ in 0..25 {
            assert_eq!(ask(proxy, &cookie), (first.clone(), None));
        }
    }
    let others: BTreeSet<_> = (0..60).map(|_| ask(&proxy, "theme=dark").0).collect();
    assert_eq!(others.len(), 4);
}

#[test]
fn when_the_endpoint_is_gone_a_new_session_begins() {
    let backends = NAMES.map(RawBackend::named);
    let proxy = Proxy::start(graph(&backends, session()));
    let (first, cookie) = ask(&proxy, "a=1");
    let left: Vec<_> = backends
        .iter()
        .zip(NAMES)
        .filter(|(_, name)| *name != first)
        .map(|(b, _)| b.addr)
        .collect();
    let shared = proxy.shared.load();
    shared.backends_of("test", "all").for_each(|backend| backend.endpoints.replace(&left));
    let (second, new) = ask(&proxy, &cookie.unwrap());
    assert_ne!(second, first);
    assert_eq!(ask(&proxy, &new.expect("the new one is told")), (second, None));
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_left_for_another() {
    let (alive, dead) = (RawBackend::named("alive"), dead_endpoint());
    let session = session();
    let mut graph = Graph::http(free_port());
    let id = graph.backend("all", BackendProtocol::Http1, &[dead, alive.addr]);
    let mut rule = forward(id);
    rule.session = Some(Arc::clone(&session));
    graph.rule("/", rule);
    let graph = graph.builder.build();
    let token = session.seal(&graph.backends[0].key, dead, 1_700_000_000, [1; 12]);
    let proxy = Proxy::start(graph);
    let (body, new) = ask(&proxy, &format!("stay={token}"));
    assert_eq!(body, "alive");
    assert_eq!(ask(&proxy, &new.unwrap()), ("alive".to_owned(), None));
}

#[test]
fn weights_come_first_and_each_backend_has_its_own_session() {
    let (blue, green) = (["b1", "b2", "b3"], ["g1", "g2", "g3"]);
    let (blues, greens) = (blue.map(RawBackend::named), green.map(RawBackend::named));
    let mut graph = Graph::http(free_port());
    let addrs = |backends: &[RawBackend]| backends.iter().map(|b| b.addr).collect::<Vec<_>>();
    let first = graph.backend("blue", BackendProtocol::Http1, &addrs(&blues));
    let second = graph.backend("green", BackendProtocol::Http1, &addrs(&greens));
    let mut rule = forward(first);
    let target = |to, weight| Target { weight, to: Ok(to), transforms: Vec::new() };
    rule.action =
        Action::Forward(Split { targets: vec![target(first, 7), target(second, 3)], total: 10 });
    rule.session = Some(session());
    graph.rule("/", rule);
    let proxy = Proxy::start(graph.builder.build());
    let mut cookie = "a=1".to_owned();
    let mut seen = Vec::new();
    for _ in 0..300 {
        let (name, set) = ask(&proxy, &cookie);
        cookie = set.unwrap_or(cookie);
        seen.push(name);
    }
    let used: BTreeSet<_> = seen.iter().collect();
    assert_eq!(used.len(), 2, "one endpoint of each: {used:?}");
    let share = seen.iter().filter(|name| name.starts_with('b')).count();
    assert!((165..255).contains(&share), "{share} of 300 with a weight of 7 in 10");
}
