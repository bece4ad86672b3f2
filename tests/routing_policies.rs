//! Middleware and RateLimit, attached to rules by ExtensionRef: from YAML to bytes on a socket.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use fixtures::*;
use support::*;

fn site() -> Site {
    Site::start(&["policies.yaml"])
}

#[test]
fn request_headers() {
    let fields = ["x-set: old", "x-remove: me"];
    let answer = site().send("GET", "site.test", "/request-headers", &fields);
    assert_eq!(field_seen(&answer, "x-set"), Some("new"));
    assert_eq!(field_seen(&answer, "x-remove"), None);
}

#[test]
fn response_headers() {
    let answer = site().get("site.test", "/response-headers");
    assert_eq!(field(&answer, "x-set"), Some("new"));
    assert_eq!(field(&answer, "x-secret"), None);
}

#[test]
fn redirect() {
    let answer = site().get("site.test", "/redirect/x");
    assert_eq!(status(&answer), 308);
    assert_eq!(field(&answer, "location"), Some("https://site.test/redirect/x"));
}

#[test]
fn rewrite_with_captures() {
    let site = site();
    assert_eq!(path_seen(&site.get("site.test", "/users/42/orders?q=1")), "/orders/of/42?q=1");
    assert_eq!(path_seen(&site.get("site.test", "/users/me")), "/users/me", "no match, no change");
}

#[test]
fn cors_with_credentials() {
    let answer = site().send("GET", "site.test", "/cors", &["origin: https://app.test"]);
    assert_eq!(field(&answer, "access-control-allow-origin"), Some("https://app.test"));
    assert_eq!(field(&answer, "access-control-allow-credentials"), Some("true"));
}

#[test]
fn addresses_are_allowed_or_denied() {
    let site = site();
    assert_eq!(site.answers("site.test", "/allowed"), "one");
    assert_eq!(site.answers("site.test", "/denied"), "403");
}

#[test]
fn what_a_client_says_of_its_address_counts_for_nothing() {
    let fields = ["x-forwarded-for: 192.0.2.1", "x-real-ip: 192.0.2.1"];
    let answer = site().send("GET", "site.test", "/denied", &fields);
    assert_eq!(status(&answer), 403);
}

#[test]
fn only_who_knows_the_password_comes_in() {
    let site = site();
    let with = |fields: &[&str]| site.send("GET", "site.test", "/staff", fields);
    // alice:test, and alice:wrong.
    assert_eq!(who(&with(&["authorization: Basic YWxpY2U6dGVzdA=="])), "one");
    assert_eq!(status(&with(&["authorization: Basic YWxpY2U6d3Jvbmc="])), 401);
    let challenge = with(&[]);
    assert_eq!(status(&challenge), 401);
    let says = field(&challenge, "www-authenticate").unwrap();
    assert!(says.contains("realm=\"staff\""), "{says}");
}

#[test]
fn a_direct_response_needs_no_backend() {
    let site = site();
    let answer = site.get("site.test", "/teapot");
    assert_eq!((status(&answer), body(&answer)), (418, "short and stout"));
    assert_eq!(field(&answer, "content-type"), Some("text/plain"));
    assert_eq!(site.seen("one").len(), 0);
}

#[test]
fn a_rate_limit_counts_for_each_value_of_its_header() {
    let site = site();
    let with = |key: &str| {
        let answer = site.send("GET", "site.test", "/limited", &[&format!("x-api-key: {key}")]);
        status(&answer)
    };
    assert_eq!([with("a"), with("a"), with("a")], [200, 200, 429]);
    assert_eq!(with("b"), 200, "another client has its own");
}

#[test]
fn what_is_spent_stays_spent_when_the_config_changes() {
    let site = site();
    let limited = || status(&site.send("GET", "site.test", "/limited", &["x-api-key: a"]));
    assert_eq!([limited(), limited(), limited()], [200, 200, 429]);
    site.becomes(&["policies.yaml", "matches.yaml"], "");
    assert_eq!(site.answers("exact.test", "/a"), "two", "the change is live");
    assert_eq!(limited(), 429);
}

#[test]
fn a_policy_that_is_missing_or_broken_closes_its_rule_and_no_other() {
    let site = site();
    assert_eq!(site.answers("site.test", "/nothing"), "500");
    assert_eq!(site.answers("site.test", "/broken"), "500");
    assert_eq!(site.answers("site.test", "/allowed"), "one");
}
