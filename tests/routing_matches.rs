//! Which rule of an HTTPRoute answers: from YAML to bytes on a socket.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use fixtures::*;

fn site() -> Site {
    Site::start(&["matches.yaml"])
}

#[test]
fn an_exact_path_stands_before_a_prefix_of_the_same_text() {
    let site = site();
    assert_eq!(site.answers("exact.test", "/a"), "two");
    assert_eq!(site.answers("exact.test", "/a/"), "one");
    assert_eq!(site.answers("exact.test", "/a/b"), "one");
}

#[test]
fn the_longest_prefix_wins_and_ends_at_a_segment() {
    let site = site();
    for (path, backend) in
        [("/", "one"), ("/a", "one"), ("/a/b", "two"), ("/a/b/c", "two"), ("/a/bc", "one")]
    {
        assert_eq!(site.answers("longest.test", path), backend, "{path}");
    }
}

#[test]
fn a_path_is_matched_in_its_normal_form() {
    let site = site();
    assert_eq!(site.answers("longest.test", "/x/../a//%62/c"), "two");
}

#[test]
fn a_regular_expression_matches_whole_paths() {
    let site = site();
    assert_eq!(site.answers("regex.test", "/users/42"), "two");
    assert_eq!(site.answers("regex.test", "/users/42/x"), "404");
    assert_eq!(site.answers("regex.test", "/users/me"), "404");
}

#[test]
fn all_headers_of_a_match_must_hold() {
    let site = site();
    let get = |fields: &[&str]| who(&site.send("GET", "header.test", "/", fields));
    assert_eq!(get(&["x-version: 2", "X-WHO: aaa"]), "two", "names in any case");
    assert_eq!(get(&["x-version: 2"]), "one");
    assert_eq!(get(&["x-version: 2", "x-who: aab"]), "one");
    assert_eq!(get(&["x-version: 3", "x-who: a"]), "one");
}

#[test]
fn a_query_parameter_chooses_the_rule() {
    let site = site();
    assert_eq!(site.answers("query.test", "/?x=1&color=blue"), "two");
    assert_eq!(site.answers("query.test", "/?color=blues"), "one");
    assert_eq!(site.answers("query.test", "/?Color=blue"), "one", "names as they are written");
}

#[test]
fn a_method_chooses_the_rule() {
    let site = site();
    let send = |method| who(&site.send(method, "method.test", "/", &["content-length: 0"]));
    assert_eq!(send("POST"), "two");
    assert_eq!(send("PUT"), "one");
}

#[test]
fn the_method_stands_before_headers_however_many() {
    let site = site();
    let fields = ["x-a: 1", "x-b: 1", "content-length: 0"];
    assert_eq!(who(&site.send("POST", "order.test", "/", &fields)), "two");
    assert_eq!(who(&site.send("PUT", "order.test", "/", &fields)), "one");
}

#[test]
fn headers_stand_before_the_query_however_long() {
    let site = site();
    assert_eq!(who(&site.send("GET", "order.test", "/q?a=1&b=1", &["x-a: 1"])), "two");
    assert_eq!(who(&site.send("GET", "order.test", "/q?a=1&b=1", &[])), "one");
}

#[test]
fn any_match_of_a_rule_is_enough() {
    let site = site();
    assert_eq!(site.answers("any.test", "/a"), "one");
    assert_eq!(site.answers("any.test", "/b"), "one");
    assert_eq!(site.answers("any.test", "/c"), "404");
}

#[test]
fn an_exact_host_stands_before_a_wildcard_which_takes_any_labels() {
    let site = site();
    for (host, backend) in [
        ("tame.wild.test", "two"),
        ("TAME.wild.test:8080", "two"),
        ("a.wild.test", "one"),
        ("b.a.wild.test", "one"),
        ("wild.test", "404"),
        ("other.test", "404"),
    ] {
        assert_eq!(site.answers(host, "/"), backend, "{host}");
    }
}

#[test]
fn of_two_equal_matches_the_older_route_answers() {
    assert_eq!(site().answers("age.test", "/"), "two");
}
