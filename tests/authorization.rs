//! Who may do what, and policies that only watch: from YAML to bytes on a socket.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use fixtures::*;
use support::*;

const STAFF: &str = "x-api-key: key-of-the-staff";
const PARTNER: &str = "x-api-key: key-of-a-partner";

fn site() -> Site {
    Site::start(&["authorization.yaml"])
}

#[test]
fn nobody_is_asked_who_they_are_and_the_wrong_one_is_refused() {
    let site = site();
    let with = |path: &str, fields: &[&str]| who(&site.send("GET", "site.test", path, fields));
    assert_eq!(with("/staff/x", &[STAFF]), "one");
    assert_eq!(with("/staff/x", &[PARTNER]), "403");
    assert_eq!(with("/staff/x", &[]), "401");
    assert_eq!(with("/staff/x", &["x-api-key: key-of-somebody-else"]), "401");
    let challenge = site.get("site.test", "/staff/x");
    assert!(field(&challenge, "www-authenticate").is_some(), "{challenge}");
    assert_eq!(with("/nowhere", &[]), "403", "nobody at all may go there");
    assert_eq!(with("/public/x", &[]), "one");
    assert_eq!(with("/", &[]), "one");
}

#[test]
fn a_denied_path_stays_denied_however_it_is_written() {
    let site = site();
    for path in [
        "/staff/internal",
        "/staff/internal/x",
        "/staff//internal",
        "/staff/./internal",
        "/staff/x/../internal",
        "/staff/%69nternal",
        "/public/../internal",
        "/internal?x=/public",
    ] {
        let answer = site.send("GET", "site.test", path, &[STAFF]);
        assert_eq!(status(&answer), 403, "{path}: {answer}");
    }
    assert!(site.seen("one").is_empty());
    assert_eq!(who(&site.send("GET", "site.test", "/staff/internals", &[STAFF])), "one");
}

#[test]
fn methods_addresses_and_expressions_count() {
    let site = site();
    let with = |method: &str, path: &str, fields: &[&str]| {
        who(&site.send(method, "site.test", path, fields))
    };
    assert_eq!(with("GET", "/reports", &[PARTNER]), "one");
    assert_eq!(with("DELETE", "/reports", &[PARTNER]), "403");
    assert_eq!(with("GET", "/near", &[]), "one");
    assert_eq!(with("GET", "/far", &["x-forwarded-for: 192.0.2.1"]), "403");
    assert_eq!(with("GET", "/gold/ring", &[STAFF]), "one");
    assert_eq!(with("GET", "/gold/ring", &[PARTNER]), "403");
    assert_eq!(with("GET", "/gold/ring", &[]), "401");
    assert_eq!(with("GET", "/gold/r1ng", &[STAFF]), "403");
    assert_eq!(with("GET", "/public", &["X-Blocked: 1"]), "403");
}

#[test]
fn decisions_and_requests_of_consumers_are_counted() {
    let site = site();
    site.send("GET", "site.test", "/staff", &[STAFF]);
    site.send("GET", "site.test", "/staff", &[PARTNER]);
    site.get("site.test", "/staff");
    for series in [
        "tidegate_consumer_requests_total{consumer=\"web/sam\",class=\"2xx\"}",
        "tidegate_consumer_requests_total{consumer=\"web/paula\",class=\"4xx\"}",
    ] {
        site.proxy.wait(series, |proxy| proxy.metric(series) == 1.0);
    }
    // Other tests of this process decide as well.
    for result in ["allowed", "denied", "unauthenticated"] {
        let series = format!("tidegate_authorization_total{{result=\"{result}\"}}");
        assert!(site.proxy.metric(&series) >= 1.0, "{series}");
    }
}

#[test]
fn policies_in_shadow_mode_deny_nothing_change_nothing_and_are_counted() {
    let site = site();
    let fields = [PARTNER, "x-set: old", "x-consumer-name: mine"];
    let answer = site.send("GET", "site.test", "/watched", &fields);
    assert_eq!(who(&answer), "one");
    assert_eq!(field(&answer, "x-set"), None);
    assert_eq!(field_seen(&answer, "x-set"), Some("old"));
    assert_eq!(field_seen(&answer, "x-consumer-name"), Some("mine"));
    assert_eq!(field_seen(&answer, "x-api-key"), Some("key-of-a-partner"));
    for (policy, reason, count) in [
        ("ip_access", "IpDenied", 1.0),
        // It knows who it was: authentication watched as well.
        ("authorization", "AccessDenied", 1.0),
        ("authorization", "Unauthenticated", 0.0),
        ("redirect", "Redirected", 1.0),
    ] {
        let series = format!(
            "tidegate_policy_would_answer_total{{policy=\"{policy}\",reason=\"{reason}\"}}"
        );
        assert_eq!(site.proxy.metric(&series), count, "{series}");
    }
    assert_eq!(site.proxy.metric("tidegate_policy_answers_total"), 0.0);
}

#[test]
fn a_body_that_a_watching_policy_could_not_take_reaches_the_backend_whole() {
    let site = site();
    let mut raw = Raw::connect(([127, 0, 0, 1], site.proxy.port).into());
    raw.send(
        "POST /asked HTTP/1.1\r\nhost: site.test\r\ntransfer-encoding: chunked\r\nconnection: \
         close\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n3\r\nhij\r\n0\r\n\r\n",
    );
    let answer = raw.rest();
    assert_eq!(who(&answer), "one");
    let seen = site.seen("one").concat();
    let digits: String = seen.chars().filter(|c| ('a'..='j').contains(c)).collect();
    assert!(digits.ends_with("abcdefghij"), "{seen}");
    let series =
        "tidegate_policy_would_answer_total{policy=\"external_auth\",reason=\"BodyTooLarge\"}";
    assert_eq!(site.proxy.metric(series), 1.0);
}
