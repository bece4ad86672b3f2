//! Where rules lead: weights, timeouts, what is missing, grants; and changes under load.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fixtures::*;
use support::*;

fn site() -> Site {
    Site::start(&["backends.yaml"])
}

/// How often each answered 200 requests.
fn shares(site: &Site, path: &str) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..200 {
        *shares.entry(site.answers("site.test", path)).or_default() += 1;
    }
    shares
}

#[test]
fn weights_share_the_requests() {
    let shares = shares(&site(), "/weights");
    // By chance: 150 are due, with a deviation of 6.
    assert!((110..=190).contains(&shares["one"]), "{shares:?}");
    assert_eq!(shares["one"] + shares["two"], 200);
}

#[test]
fn a_backend_of_weight_zero_gets_nothing() {
    assert_eq!(shares(&site(), "/zero"), BTreeMap::from([("two".to_owned(), 200)]));
}

#[test]
fn backends_that_all_weigh_nothing_are_500() {
    assert_eq!(site().answers("site.test", "/all-zero"), "500");
}

#[test]
fn a_backend_that_is_missing_answers_500_for_its_share() {
    let shares = shares(&site(), "/half-missing");
    assert!((60..=140).contains(&shares["500"]), "{shares:?}");
    assert_eq!(shares["one"] + shares["500"], 200);
}

#[test]
fn a_service_or_a_port_that_does_not_exist_is_500() {
    let site = site();
    assert_eq!(site.answers("site.test", "/missing"), "500");
    assert_eq!(site.answers("site.test", "/wrong-port"), "500");
}

#[test]
fn a_service_without_endpoints_is_503() {
    assert_eq!(site().answers("site.test", "/empty"), "503");
}

#[test]
fn the_timeout_of_the_request_is_504() {
    assert_eq!(site().answers("site.test", "/request-timeout"), "504");
}

#[test]
fn the_timeout_of_the_backend_is_504() {
    assert_eq!(site().answers("site.test", "/backend-timeout"), "504");
}

#[test]
fn what_is_wrong_with_one_rule_hurts_no_other() {
    assert_eq!(site().answers("site.test", "/near"), "one");
}

fn granted_to(namespace: &str) -> String {
    let grant = include_str!("fixtures/grant.yaml").replace("$FROM", namespace);
    let site = Site::with(&["backends.yaml"], &grant, |_| {});
    site.answers("site.test", "/no-grant")
}

#[test]
fn a_backend_of_another_namespace_needs_a_grant() {
    assert_eq!(site().answers("site.test", "/no-grant"), "500");
    assert_eq!(granted_to("web"), "two");
}

#[test]
fn a_grant_for_another_namespace_is_none() {
    assert_eq!(granted_to("elsewhere"), "500");
}

#[test]
fn a_grant_that_goes_takes_the_way_with_it() {
    let site = site();
    site.becomes(&["backends.yaml"], &include_str!("fixtures/grant.yaml").replace("$FROM", "web"));
    assert_eq!(site.answers("site.test", "/no-grant"), "two");
    site.becomes(&["backends.yaml"], "");
    assert_eq!(site.answers("site.test", "/no-grant"), "500");
}

/// A route for everything to this backend, with as many rules beside it.
fn everything_to(backend: &str, others: usize) -> String {
    let other = |i| {
        format!(
            "    - matches: [{{path: {{value: /other/{i}}}}}]\n      backendRefs: [{{name: two, port: 80}}]\n"
        )
    };
    let others: String = (0..others).map(other).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: all, namespace: web}}\n\
         spec:\n  parentRefs: [{{name: gw}}]\n  rules:\n    - backendRefs: [{{name: {backend}, port: 80}}]\n{others}"
    )
}

#[test]
fn configs_change_under_load_without_a_failed_request() {
    let site = Site::with(&[], &everything_to("one", 0), |_| {});
    let over = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = Vec::new();
                    let mut raw = site.proxy.connect();
                    while !over.load(Ordering::Relaxed) {
                        raw.send("GET /x HTTP/1.1\r\nhost: site.test\r\n\r\n");
                        let answer = raw.message();
                        answers.push(who(&answer));
                        // A connection carries 10,000 requests: a machine where changes are slow
                        // sends more of them.
                        if answer.contains("connection: close") {
                            raw = site.proxy.connect();
                        }
                    }
                    answers
                })
            })
            .collect();
        for i in 0..100 {
            let before = site.seen("one").len() + site.seen("two").len();
            site.becomes(&[], &everything_to(["two", "one"][i % 2], i));
            eventually("requests meet this config", || {
                site.seen("one").len() + site.seen("two").len() >= before + 8
            });
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(answers.iter().all(|answer| answer == "one" || answer == "two"));
    for backend in ["one", "two"] {
        assert!(answers.iter().any(|answer| answer == backend), "{backend} was never asked");
    }
}
