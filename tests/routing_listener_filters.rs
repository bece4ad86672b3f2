//! Filters of listeners (GEP-5224): before a route is looked for, in their order, one pass.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use fixtures::*;
use support::*;

/// Sets `x-tenant` to `value`, and more.
fn setter(name: &str, value: &str, more: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1alpha1\nkind: Middleware\n\
         metadata: {{name: {name}, namespace: web}}\n\
         spec: {{requestHeaders: {{set: [{{name: x-tenant, value: {value}}}]}}{more}}}\n"
    )
}

/// The Gateway of the fixtures with these filters; requests of tenant `a` go to `one`, of
/// tenant `b` to `two`.
fn site(filters: &str, objects: &str) -> Site {
    let more = format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: filtered, namespace: web}}
spec:
  gatewayClassName: tidegate
  listeners:
  - name: filtered
    hostname: filtered.test
    port: $FILTERED
    protocol: HTTP
    filters: {{requests: [{filters}]}}
  - {{name: plain, port: $FILTERED, protocol: HTTP}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: web}}
spec:
  parentRefs: [{{name: filtered}}]
  rules:
  - matches: [{{headers: [{{name: x-tenant, value: a}}]}}]
    backendRefs: [{{name: one, port: 80}}]
  - matches: [{{headers: [{{name: x-tenant, value: b}}]}}, {{path: {{value: /clean}}}}]
    backendRefs: [{{name: two, port: 80}}]
{objects}"
    )
    .replace("$FILTERED", &free_port().to_string());
    Site::with(&[], &more, |_| {})
}

fn named(list: &[&str]) -> String {
    let one = |name: &&str| {
        format!(
            "{{type: ExtensionRef, extensionRef: {{group: tidegate.dev, kind: Middleware, \
             name: {name}}}}}"
        )
    };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The port of the Gateway `filtered`: the one that is not the fixtures' own and not Ingress.
fn port(site: &Site) -> u16 {
    let graph = site.proxy.shared.load();
    let own = [site.proxy.port, site.settings.ingress_http_port, site.settings.ingress_https_port];
    graph.listeners.keys().copied().find(|port| !own.contains(port)).unwrap()
}

fn get(site: &Site, host: &str, path: &str, fields: &[&str]) -> String {
    site.send_to(port(site), "GET", host, path, fields)
}

#[test]
fn filters_run_in_their_order_and_routes_see_what_they_left() {
    let objects = setter("a", "a", "") + &setter("b", "b", "");
    for (list, expected) in [(["a", "b"], "two"), (["b", "a"], "one")] {
        let site = site(&named(&list), &objects);
        // What the client says is what no route may see.
        for said in ["x-tenant: a", "x-tenant: b", "x-other: 1"] {
            assert_eq!(
                who(&get(&site, "filtered.test", "/", &[said])),
                expected,
                "{list:?} {said}"
            );
        }
    }
}

#[test]
fn other_listeners_of_the_port_are_not_concerned() {
    let site = site(&named(&["a"]), &setter("a", "a", ""));
    assert_eq!(who(&get(&site, "other.test", "/", &[])), "404");
    assert_eq!(who(&get(&site, "other.test", "/", &["x-tenant: b"])), "two");
    assert_eq!(who(&get(&site, "filtered.test", "/", &["x-tenant: b"])), "one");
}

#[test]
fn a_path_that_a_filter_wrote_is_compared_in_its_normal_form() {
    let rewrite = ", rewrite: {regex: {pattern: '^/dirty', substitution: '//%63lean'}}";
    let site = site(&named(&["norm"]), &setter("norm", "none", rewrite));
    let answer = get(&site, "filtered.test", "/dirty/x", &[]);
    assert_eq!((who(&answer), path_seen(&answer)), ("two".to_owned(), "/clean/x"));
}

#[test]
fn answers_pass_the_filters_too_also_where_no_route_matches() {
    let marks = ", responseHeaders: {set: [{name: x-mark, value: m}]}";
    let site = site(&named(&["m"]), &setter("m", "c", marks));
    let answer = get(&site, "filtered.test", "/clean", &[]);
    assert_eq!((who(&answer).as_str(), field(&answer, "x-mark")), ("two", Some("m")));
    let answer = get(&site, "filtered.test", "/", &[]);
    assert_eq!((status(&answer), field(&answer, "x-mark")), (404, Some("m")));
    assert_eq!(field(&get(&site, "other.test", "/", &[]), "x-mark"), None);
}

/// Identity that routing can trust: who comes is decided before where it goes.
#[test]
fn a_service_says_by_its_answer_where_a_request_goes_or_that_it_goes_nowhere() {
    let auth = RawBackend::start(|mut raw, _| {
        loop {
            let question = raw.message();
            let answer = match field(&question, "authorization") {
                None if question.is_empty() => return,
                Some("ann") => "200 OK\r\nx-tenant: a",
                Some("bob") => "200 OK\r\nx-tenant: b",
                _ => "401 No\r\nx-tenant: a",
            };
            raw.send(&format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let filters = format!(
        "{{type: ExternalAuth, externalAuth: {{protocol: HTTP, backendRef: {{name: auth, \
         port: 80}}, http: {{allowedResponseHeaders: [x-tenant]}}}}}}, {}",
        named(&["after"])
    );
    let objects = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: auth, namespace: web}}\n\
         spec: {{ports: [{{name: auth, port: 80}}]}}\n---\napiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\nmetadata: {{name: auth-a, namespace: web, \
         labels: {{kubernetes.io/service-name: auth}}}}\naddressType: IPv4\n\
         ports: [{{name: auth, port: {}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n\
         ---\napiVersion: tidegate.dev/v1alpha1\nkind: Middleware\n\
         metadata: {{name: after, namespace: web}}\n\
         spec: {{responseHeaders: {{set: [{{name: x-after, value: ran}}]}}}}\n",
        auth.addr.port()
    );
    let site = site(&filters, &objects);
    let of = |user: &str| get(&site, "filtered.test", "/", &[user, "x-tenant: b"]);
    assert_eq!(who(&of("authorization: ann")), "one");
    assert_eq!(who(&of("authorization: bob")), "two");
    let refused = of("authorization: eve");
    assert_eq!(status(&refused), 401);
    assert_eq!(field(&refused, "x-after"), None, "nothing runs after a refusal");
    assert_eq!(site.seen("one").len() + site.seen("two").len(), 2);
}
