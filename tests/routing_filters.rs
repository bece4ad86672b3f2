//! The filters of HTTPRoutes: from YAML to bytes on a socket.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use fixtures::*;
use support::*;
use tidegate::translate::{Ports, Settings};

fn site() -> Site {
    Site::start(&["filters.yaml"])
}

#[test]
fn request_headers_are_set_added_and_removed() {
    let fields = ["x-set: old", "x-add: some", "x-remove: me"];
    let answer = site().send("GET", "site.test", "/request-headers", &fields);
    assert_eq!(field_seen(&answer, "x-set"), Some("new"));
    assert_eq!(field_seen(&answer, "x-remove"), None);
    let request = body(&answer).to_lowercase();
    assert!(request.contains("x-add: some"), "{request}");
    assert!(request.contains("more"), "{request}");
    assert!(!request.contains("old"), "{request}");
}

#[test]
fn response_headers_are_set_added_and_removed() {
    let answer = site().get("site.test", "/response-headers");
    assert_eq!(field(&answer, "x-backend"), Some("hidden"));
    assert_eq!(field(&answer, "x-served-by"), Some("tidegate"));
    assert_eq!(field(&answer, "x-secret"), None);
}

#[test]
fn filters_of_a_backend_are_for_its_requests() {
    let answer = site().get("site.test", "/backend-filters");
    assert_eq!(field_seen(&answer, "x-backend-filter"), Some("yes"));
}

#[test]
fn a_mirror_gets_a_copy_and_the_client_the_answer_of_the_backend() {
    let site = site();
    assert_eq!(site.answers("site.test", "/mirror/x"), "one");
    eventually("the copy arrives", || !site.seen("two").is_empty());
    assert!(site.seen("two")[0].starts_with("GET /mirror/x "), "{:?}", site.seen("two"));
}

#[test]
fn a_preflight_is_answered_and_reaches_no_backend() {
    let site = site();
    let fields = [
        "origin: https://app.test",
        "access-control-request-method: PUT",
        "access-control-request-headers: x-token",
    ];
    let answer = site.send("OPTIONS", "site.test", "/cors", &fields);
    assert_eq!(field(&answer, "access-control-allow-origin"), Some("https://app.test"));
    assert_eq!(field(&answer, "access-control-max-age"), Some("60"));
    assert!(field(&answer, "access-control-allow-methods").unwrap().contains("PUT"), "{answer}");
    assert_eq!(site.seen("one").len(), 0);
}

#[test]
fn the_answer_says_which_origin_may_read_it() {
    let site = site();
    let origin = |origin: &str| {
        let answer = site.send("GET", "site.test", "/cors", &[&format!("origin: {origin}")]);
        assert_eq!(who(&answer), "one");
        field(&answer, "access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(origin("https://app.test").as_deref(), Some("https://app.test"));
    assert_eq!(origin("https://evil.test"), None);
}

#[test]
fn a_redirect_keeps_what_it_does_not_name() {
    let site = site();
    let expected = format!("http://site.test:{}/redirect/plain/x?q=1", site.gateway);
    let answer = site.get("site.test", "/redirect/plain/x?q=1");
    assert_eq!(status(&answer), 302);
    assert_eq!(field(&answer, "location"), Some(&*expected));
}

#[test]
fn a_redirect_of_the_scheme_alone_leads_to_its_well_known_port() {
    assert_eq!(site().location("/redirect/scheme"), "https://site.test/redirect/scheme");
}

#[test]
fn a_redirect_of_the_port_keeps_the_scheme() {
    assert_eq!(site().location("/redirect/port"), "http://site.test:8443/redirect/port");
}

#[test]
fn a_redirect_may_name_scheme_and_port() {
    let answer = site().get("site.test", "/redirect/scheme-and-port");
    assert_eq!(status(&answer), 308);
    let expected = "https://site.test:8443/redirect/scheme-and-port";
    assert_eq!(field(&answer, "location"), Some(expected));
}

#[test]
fn a_well_known_port_is_not_written() {
    assert_eq!(site().location("/redirect/well-known"), "https://site.test/redirect/well-known");
}

#[test]
fn a_redirect_to_another_host() {
    let answer = site().get("site.test", "/redirect/host");
    assert_eq!(status(&answer), 301);
    assert_eq!(field(&answer, "location"), Some("http://other.test/redirect/host"));
}

#[test]
fn a_redirect_replaces_the_path_or_its_prefix_and_keeps_the_query() {
    let site = site();
    for (path, expected) in [
        ("/redirect/full/x?q=1", "http://site.test/done?q=1"),
        ("/redirect/prefix", "http://site.test/new"),
        ("/redirect/prefix/", "http://site.test/new/"),
        ("/redirect/prefix/x?q=1", "http://site.test/new/x?q=1"),
    ] {
        assert_eq!(site.location(path), expected, "{path}");
    }
}

#[test]
fn with_an_offset_users_are_led_to_the_port_that_is_bound() {
    let bound = free_port();
    let shift = |settings: &mut Settings| settings.ports = Ports::Own { offset: bound - 80 };
    let site = Site::with(&["filters.yaml"], "", shift);
    let expected = format!("http://site.test:{bound}/redirect/plain");
    assert_eq!(site.location("/redirect/plain"), expected);
    let answer = site.get("site.test", "/request-headers");
    assert_eq!(field_seen(&answer, "x-forwarded-port"), Some(&*bound.to_string()));
}

#[test]
fn a_rewrite_changes_host_and_path_for_the_backend() {
    let answer = site().get("site.test", "/full/x?q=1");
    assert_eq!(path_seen(&answer), "/fixed?q=1");
    assert_eq!(field_seen(&answer, "host"), Some("inside.test"));
    assert_eq!(field_seen(&answer, "x-forwarded-host"), Some("site.test"));
}

#[test]
fn a_rewritten_prefix_makes_neither_two_slashes_nor_none() {
    let site = site();
    for (path, expected) in [
        ("/old", "/new"),
        ("/old/", "/new/"),
        ("/old/x", "/new/x"),
        ("/old/x/", "/new/x/"),
        ("/strip", "/"),
        ("/strip/", "/"),
        ("/strip/x?q=/strip", "/x?q=/strip"),
    ] {
        assert_eq!(path_seen(&site.get("site.test", path)), expected, "{path}");
    }
}
