//! Policies of a Gateway and of a tenant's route on it, which belong to two who do not trust each
//! other in the same way: from YAML to bytes on a socket.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use fixtures::*;

const OWNERS: &str = "x-owner-key: key-of-the-owner";
const TENANTS: &str = "x-tenant-key: key-of-the-tenant";

fn site() -> Site {
    Site::start(&["owners.yaml"])
}

fn ask(site: &Site, path: &str, fields: &[&str]) -> String {
    who(&site.send("GET", "tenant.test", path, fields))
}

/// A tenant could give its own callers any group, and so open what the Gateway's owner closes.
#[test]
fn groups_that_a_tenant_gives_open_nothing_that_the_gateway_closes() {
    let site = site();
    assert_eq!(ask(&site, "/staff", &[TENANTS]), "401");
    assert!(site.seen("two").is_empty());
    assert_eq!(ask(&site, "/staff", &[OWNERS]), "two");
    assert_eq!(ask(&site, "/staff", &[OWNERS, TENANTS]), "two");
}

#[test]
fn a_plan_that_a_tenant_gives_lifts_no_limit_of_the_gateway() {
    let site = site();
    let asked = |key| -> Vec<_> { (0..4).map(|_| ask(&site, "/open", &[key])).collect() };
    assert_eq!(asked(TENANTS), ["two", "two", "two", "429"]);
    assert_eq!(asked(OWNERS), ["two", "two", "two", "two"]);
}

#[test]
fn whom_the_gateway_recognises_the_tenant_knows_too() {
    let site = site();
    assert_eq!(ask(&site, "/open/inner", &[]), "401");
    assert_eq!(ask(&site, "/open/inner", &[TENANTS]), "two");
    let answer = site.send("GET", "tenant.test", "/open/inner", &[OWNERS]);
    assert_eq!(who(&answer), "two");
    assert_eq!(field_seen(&answer, "x-consumer-name"), Some("sam"));
}

#[test]
fn the_tenants_word_counts_in_the_tenants_own_policies() {
    let site = site();
    let answer = site.send("GET", "tenant.test", "/open/inner", &[OWNERS, TENANTS]);
    assert_eq!(field_seen(&answer, "x-consumer-name"), Some("tina"));
}
