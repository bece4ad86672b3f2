//! RateLimits, from YAML to bytes on a socket: several limits of a request, plans, costs, what
//! answers say, and the trips to a Redis that pods share.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod redis_server;
mod support;

use std::fmt::Write as _;

use fixtures::*;
use redis_server::Server;
use support::*;

/// A key that nobody has.
const WRONG: &str = "x-api-key: none";

/// Routes at `/a`, `/b`, …, each with these objects, and the objects themselves.
fn site(routes: &[(&str, &[&str])], objects: &str) -> Site {
    let mut text = String::from(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {name: limited, namespace: web}\nspec:\n  parentRefs: [{name: gw}]\n  rules:\n",
    );
    for (path, names) in routes {
        let filters: Vec<String> = names
            .iter()
            .map(|name| {
                let (kind, name) = name.split_once('/').unwrap();
                format!(
                    "{{type: ExtensionRef, extensionRef: \
                     {{group: tidegate.dev, kind: {kind}, name: {name}}}}}"
                )
            })
            .collect();
        writeln!(
            text,
            "    - matches: [{{path: {{value: /{path}}}}}]\n      filters: [{}]\n      \
             backendRefs: [{{name: one, port: 80}}]",
            filters.join(", ")
        )
        .unwrap();
    }
    Site::with(&[], &format!("{text}{objects}"), |_| {})
}

fn limit(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: RateLimit\n\
         metadata: {{name: {name}, namespace: web}}\nspec: {{{spec}}}\n"
    )
}

/// A Middleware that asks for a key, and a Consumer for each of the two plans.
const KEYS: &str = "
---
apiVersion: tidegate.dev/v1alpha1
kind: Middleware
metadata: {name: keys, namespace: web}
spec: {authentication: {methods: [{apiKey: {from: [{header: X-API-Key}]}}]}}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: web}
stringData: {rich: a-key-of-the-rich, poor: a-key-of-the-poor}
---
apiVersion: tidegate.dev/v1alpha1
kind: Consumer
metadata: {name: rich, namespace: web}
spec: {plan: gold, credentials: {apiKeys: [{secretRef: {name: keys, key: rich}}]}}
---
apiVersion: tidegate.dev/v1alpha1
kind: Consumer
metadata: {name: poor, namespace: web}
spec: {credentials: {apiKeys: [{secretRef: {name: keys, key: poor}}]}}
";

const RICH: &str = "x-api-key: a-key-of-the-rich";
const POOR: &str = "x-api-key: a-key-of-the-poor";

/// The statuses of so many requests.
fn statuses(site: &Site, path: &str, field: &str, requests: usize) -> Vec<u16> {
    (0..requests).map(|_| status(&site.send("GET", "site.test", path, &[field]))).collect()
}

fn admitted(site: &Site, path: &str, field: &str, requests: usize) -> usize {
    statuses(site, path, field, requests).iter().filter(|status| **status == 200).count()
}

#[test]
fn every_algorithm_lets_its_limit_through_and_refuses_the_rest() {
    let algorithms = ["TokenBucket", "LeakyBucket", "FixedWindow", "SlidingWindow", "SlidingLog"];
    let mut objects = String::new();
    for algorithm in algorithms {
        let name = algorithm.to_lowercase();
        let burst = if algorithm == "LeakyBucket" { ", burst: 3" } else { "" };
        let spec = format!(
            "limits: [{{name: l, requests: 3, window: 31d, algorithm: {algorithm}{burst}}}]"
        );
        objects += &limit(&name, &spec);
    }
    let names: Vec<String> = algorithms.iter().map(|a| a.to_lowercase()).collect();
    let filters: Vec<[String; 1]> =
        names.iter().map(|name| [format!("RateLimit/{name}")]).collect();
    let filters: Vec<[&str; 1]> = filters.iter().map(|[name]| [name.as_str()]).collect();
    let routes: Vec<(&str, &[&str])> =
        names.iter().zip(&filters).map(|(name, list)| (name.as_str(), &list[..])).collect();
    let site = site(&routes, &objects);
    for name in &names {
        let found = statuses(&site, &format!("/{name}"), "x-a: b", 5);
        assert_eq!(found, [200, 200, 200, 429, 429], "{name}");
    }
}

#[test]
fn a_request_that_one_limit_refuses_is_charged_to_none() {
    let wide = limit("wide", "limits: [{name: wide, requests: 5, window: 1h, key: [{type: All}]}]");
    let tight = limit("tight", "limits: [{name: tight, requests: 2, window: 1h}]");
    let routes: [(&str, &[&str]); 2] =
        [("both", &["RateLimit/wide", "RateLimit/tight"]), ("wide", &["RateLimit/wide"])];
    let site = site(&routes, &(wide + &tight));
    assert_eq!(admitted(&site, "/both", "x-a: b", 20), 2);
    assert_eq!(admitted(&site, "/wide", "x-a: b", 20), 3);
}

#[test]
fn answers_say_what_is_left() {
    let two = "limits: [{name: day, requests: 9, window: 1d, algorithm: FixedWindow}, \
               {name: minute, requests: 2, window: 1m, key: [{type: All}]}], \
               response: {status: 430}";
    let site = site(&[("a", &["RateLimit/two"])], &limit("two", two));
    let first = site.get("site.test", "/a");
    assert_eq!(field(&first, "x-ratelimit-limit"), Some("2"));
    assert_eq!(field(&first, "x-ratelimit-remaining"), Some("1"));
    assert_eq!(field(&first, "x-ratelimit-reset"), Some("30"));
    assert!(first.contains("ratelimit-policy: \"minute\";q=2;w=60\r\n"), "{first}");
    assert!(first.contains("ratelimit-policy: \"day\";q=9;w=86400\r\n"), "{first}");
    assert!(first.contains("ratelimit: \"minute\";r=1;t=30\r\n"), "{first}");
    site.get("site.test", "/a");
    let refused = site.get("site.test", "/a");
    assert_eq!(status(&refused), 430);
    assert_eq!(field(&refused, "retry-after"), Some("30"));
    assert!(refused.contains("ratelimit: \"day\";r=7;"), "not charged: {refused}");
}

#[test]
fn a_plan_has_numbers_of_its_own_and_limits_by_address_come_before_credentials() {
    let plans = "limits: [{name: flood, requests: 12, window: 1h}, \
                 {name: plans, requests: 1, window: 1h, key: [{type: Consumer}], \
                 overrides: [{plan: gold, requests: 4}]}]";
    let objects = limit("plans", plans) + KEYS;
    let site = site(&[("a", &["Middleware/keys", "RateLimit/plans"])], &objects);
    assert_eq!(statuses(&site, "/a", POOR, 2), [200, 429]);
    assert_eq!(statuses(&site, "/a", RICH, 5), [200, 200, 200, 200, 429]);
    // What was refused by the plan was given back: five are charged to the address.
    assert_eq!(statuses(&site, "/a", WRONG, 8), [401, 401, 401, 401, 401, 401, 401, 429]);
    assert_eq!(statuses(&site, "/a", RICH, 1), [429], "whoever comes from there");
}

#[test]
fn a_request_takes_what_it_costs() {
    let cost = "request.method == 'POST' ? 5 : 1";
    let spec = format!(
        "limits: [{{name: l, requests: 11, window: 1h, cost: {{expression: \"{cost}\"}}}}]"
    );
    let site = site(&[("a", &["RateLimit/cost"])], &limit("cost", &spec));
    let post = || status(&site.send("POST", "site.test", "/a", &["content-length: 0"]));
    assert_eq!([post(), post(), post()], [200, 200, 429]);
    assert_eq!(statuses(&site, "/a", "x-a: b", 2), [200, 429]);
}

fn redis(server: &Server) -> String {
    format!("store: {{type: Redis, redis: {{addresses: ['{}'], timeout: 1s}}}}", server.address())
}

/// How often the script ran.
fn trips(server: &Server) -> usize {
    let stats: String = server.command("INFO commandstats");
    let calls = |line: &str| {
        let rest = line
            .strip_prefix("cmdstat_evalsha:calls=")
            .or(line.strip_prefix("cmdstat_eval:calls="))?;
        rest.split(',').next()?.parse::<usize>().ok()
    };
    stats.lines().filter_map(calls).sum()
}

#[test]
fn limits_before_and_after_credentials_are_one_trip() {
    let server = Server::start(&[]);
    let spec = format!(
        "{}, limits: [{{name: flood, requests: 100, window: 1h}}, \
         {{name: plans, requests: 3, window: 1h, key: [{{type: Consumer}}]}}]",
        redis(&server)
    );
    let site = site(&[("a", &["Middleware/keys", "RateLimit/r"])], &(limit("r", &spec) + KEYS));
    // The first one may find no connection yet, and is counted here.
    eventually("requests are counted in the store", || {
        statuses(&site, "/a", RICH, 1);
        trips(&server) > 0
    });
    let before = trips(&server);
    let found = statuses(&site, "/a", POOR, 3);
    assert_eq!(found, [200, 200, 200]);
    assert!(trips(&server) <= before + 4, "one trip a request, and a first one without script");
    assert_eq!(statuses(&site, "/a", POOR, 1), [429]);
}

#[test]
fn a_flood_without_credentials_is_refused_before_them_and_without_trips() {
    let server = Server::start(&[]);
    let spec = format!(
        "{}, limits: [{{name: flood, requests: 5, window: 31d}}, \
         {{name: plans, requests: 100, window: 1h, key: [{{type: Consumer}}]}}]",
        redis(&server)
    );
    let site = site(&[("a", &["Middleware/keys", "RateLimit/r"])], &(limit("r", &spec) + KEYS));
    // What authentication refuses is charged afterwards, while nobody waits.
    eventually("the flood is refused", || statuses(&site, "/a", WRONG, 1) == [429]);
    let (before, requests) = (trips(&server), 200);
    let found = statuses(&site, "/a", WRONG, requests);
    let refused = found.iter().filter(|status| **status == 429).count();
    assert!(refused >= requests * 9 / 10, "{refused} of {requests}");
    assert!(trips(&server) - before <= requests / 10, "{} trips", trips(&server) - before);
}
