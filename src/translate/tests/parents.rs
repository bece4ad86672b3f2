//! What routes attach to: Gateways, ListenerSets and default Gateways.

use super::*;

/// A Gateway `gw` and a ListenerSet `set` of namespace `team` at it, with listeners of one name.
const SET: &str = r#"
kind: GatewayClass
metadata: {name: tidegate}
spec: {controllerName: tidegate.dev/gateway-controller}
---
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: tidegate
  allowedListeners: {namespaces: {from: All}}
  listeners:
  - {name: web, port: 80, protocol: HTTP, hostname: gw.example, allowedRoutes: {namespaces: {from: All}}}
---
kind: ListenerSet
metadata: {name: set, namespace: team}
spec:
  parentRef: {name: gw, namespace: infra}
  listeners:
  - {name: web, port: 80, protocol: HTTP, hostname: set.example, allowedRoutes: {namespaces: {from: All}}}
  - {name: own, port: 80, protocol: HTTP, hostname: own.example}
"#;

const TO_SET: &str = "[{kind: ListenerSet, name: set, namespace: team}]";

fn with_parents(name: &str, parents: &str) -> String {
    route(name, TO_APP).replace("[{name: gw}]", parents)
}

/// `Accepted` of every parent of a route, with the parent's name.
fn accepted(translation: &Translation, name: &str) -> Vec<String> {
    let status = written(translation, ObjectKind::HttpRoute, name).expect("a status is written");
    let parents = status["parents"].as_array().unwrap().iter();
    let of = |parent: &Value| {
        let name = parent["parentRef"]["name"].as_str().unwrap();
        format!("{name} {}", condition(&parent["conditions"], "Accepted"))
    };
    parents.map(of).collect()
}

#[test]
fn a_route_of_a_gateway_has_the_gateways_own_listeners_only() {
    let translation = translate(&world(&[SET, SERVICE, &route("r", TO_APP)]));
    assert_eq!(outcome(&translation.graph, 80, "gw.example", "/"), "app*1");
    assert_eq!(outcome(&translation.graph, 80, "set.example", "/"), "NoRoute");
    assert_eq!(accepted(&translation, "r"), ["gw True/Accepted"]);
}

#[test]
fn a_route_of_a_listener_set_has_the_sets_listeners_only() {
    let translation = translate(&world(&[SET, SERVICE, &with_parents("r", TO_SET)]));
    assert_eq!(outcome(&translation.graph, 80, "set.example", "/"), "app*1");
    assert_eq!(outcome(&translation.graph, 80, "gw.example", "/"), "NoRoute");
    assert_eq!(outcome(&translation.graph, 80, "own.example", "/"), "NoRoute", "of the team only");
    assert_eq!(accepted(&translation, "r"), ["set True/Accepted"]);
    let status = written(&translation, ObjectKind::ListenerSet, "set").unwrap();
    let attached: Vec<_> = status["listeners"].as_array().unwrap().iter().collect();
    assert_eq!(attached[0]["attachedRoutes"], 1);
    assert_eq!(attached[1]["attachedRoutes"], 0);
}

#[test]
fn each_parent_has_a_word_of_its_own() {
    let parents = "[{name: gw, sectionName: own}, \
                   {kind: ListenerSet, name: set, namespace: team, sectionName: web}]";
    let translation = translate(&world(&[SET, SERVICE, &with_parents("r", parents)]));
    let expected = ["gw False/NoMatchingParent", "set True/Accepted"];
    assert_eq!(accepted(&translation, "r"), expected);
    assert_eq!(outcome(&translation.graph, 80, "set.example", "/"), "app*1");
}

#[test]
fn a_set_that_the_gateway_does_not_take_attaches_nothing() {
    let closed = SET.replace("allowedListeners: {namespaces: {from: All}}", "addresses: []");
    let translation = translate(&world(&[&closed, SERVICE, &with_parents("r", TO_SET)]));
    assert_eq!(accepted(&translation, "r"), ["set False/Pending"]);
    assert!(translation.graph.rules.is_empty());
}

#[test]
fn what_is_no_parent_of_ours_gets_no_word() {
    for parents in [
        "[{name: other}]",
        "[{kind: ListenerSet, name: set}]",
        "[{kind: Service, group: '', name: gw}]",
        "[{group: x.example, name: gw}]",
    ] {
        let translation = translate(&world(&[SET, SERVICE, &with_parents("r", parents)]));
        assert_eq!(written(&translation, ObjectKind::HttpRoute, "r"), None, "{parents}");
    }
}

/// The Gateway `gw` takes routes by default.
fn default_gateway() -> String {
    GATEWAY.replace("gatewayClassName: tidegate", "gatewayClassName: tidegate\n  defaultScope: All")
}

#[test]
fn a_route_that_asks_for_default_gateways_gets_them() {
    let asks = |scope: &str| {
        route("r", TO_APP)
            .replace("parentRefs: [{name: gw}]", &format!("useDefaultGateways: {scope}"))
    };
    let translation = translate(&world(&[&default_gateway(), SERVICE, &asks("All")]));
    assert_eq!(accepted(&translation, "r"), ["gw True/Accepted"]);
    assert_eq!(outcome(&translation.graph, 80, "h", "/"), "app*1");
    let status = written(&translation, ObjectKind::HttpRoute, "r").unwrap();
    assert_eq!(status["parents"][0]["parentRef"]["namespace"], "infra");
    for (gateway, scope) in [(default_gateway().as_str(), "None"), (GATEWAY, "All")] {
        let translation = translate(&world(&[gateway, SERVICE, &asks(scope)]));
        assert_eq!(written(&translation, ObjectKind::HttpRoute, "r"), None, "{scope}");
    }
}

#[test]
fn a_default_gateway_that_is_named_is_one_parent() {
    let both = route("r", TO_APP).replace("  rules", "  useDefaultGateways: All\n  rules");
    let translation = translate(&world(&[&default_gateway(), SERVICE, &both]));
    assert_eq!(accepted(&translation, "r"), ["gw True/Accepted"]);
    assert_eq!(listener_status(&translation, "http")["attachedRoutes"], 1);
}

#[test]
fn a_default_gateway_keeps_its_rules_about_namespaces() {
    let closed = default_gateway().replace("from: All", "from: Same");
    let elsewhere = route("r", TO_APP)
        .replace("parentRefs: [{name: gw}]", "useDefaultGateways: All")
        .replace("namespace: infra", "namespace: team");
    let translation = translate(&world(&[&closed, SERVICE, &elsewhere]));
    assert_eq!(accepted(&translation, "r"), ["gw False/NotAllowedByListeners"]);
}

#[test]
fn policies_of_a_gateway_hold_on_its_sets_and_those_of_a_set_only_there() {
    let middleware = |name: &str, namespace: &str, kind: &str, target: &str| {
        format!(
            "
kind: Middleware
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: {kind}, name: {target}}}]
  {}",
            if name == "gate" {
                "ipAccess: {deny: [192.0.2.0/24]}"
            } else {
                "requestHeaders: {remove: [a]}"
            }
        )
    };
    let parts = [
        SET.to_owned(),
        SERVICE.to_owned(),
        middleware("gate", "infra", "Gateway", "gw"),
        middleware("of-set", "team", "ListenerSet", "set"),
        route("gw", TO_APP),
        with_parents("set", TO_SET),
    ];
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let translation = translate(&world(&parts));
    let graph = &translation.graph;
    let of = |host| policies(graph, find(graph, 80, host, "/").unwrap());
    assert_eq!(of("gw.example"), ["ip_access"]);
    assert_eq!(of("set.example"), ["ip_access", "request_headers"]);
    let status = written(&translation, ObjectKind::Middleware, "of-set").unwrap();
    assert_eq!(condition(&status["ancestors"][0]["conditions"], "Accepted"), "True/Accepted");
}

#[test]
fn no_more_parents_are_told_than_fit() {
    let names: Vec<String> = (0..40).map(|i| format!("{{name: gw, sectionName: s{i}}}")).collect();
    let r = with_parents("r", &format!("[{}]", names.join(", ")));
    let translation = translate(&world(&[GATEWAY, SERVICE, &r]));
    assert_eq!(accepted(&translation, "r").len(), 32);
}
