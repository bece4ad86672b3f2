//! Middlewares and RateLimits: where they attach, and which of them win.

use super::*;
use crate::graph::PolicyId;
use crate::policy::{Kind, Mode};

const CORE: &str = "gateway.networking.k8s.io";

fn middleware(name: &str, targets: &str, spec: &str) -> String {
    format!(
        "
kind: Middleware
metadata: {{name: {name}, namespace: infra, generation: 2}}
spec: {{targetRefs: [{targets}], {spec}}}"
    )
}

fn target(kind: &str, name: &str, section: &str) -> String {
    let section = if section.is_empty() { "" } else { &format!(", sectionName: {section}") };
    format!("{{group: {CORE}, kind: {kind}, name: {name}{section}}}")
}

/// A header modifier that shows by its value where it came from.
fn mark(value: &str) -> String {
    format!("requestHeaders: {{set: [{{name: x-from, value: {value}}}]}}")
}

fn keys(graph: &RouteGraph, ids: &[PolicyId]) -> Vec<String> {
    ids.iter().map(|id| graph[*id].key.to_string()).collect()
}

const EXTENSION: &str = "  rules:
  - name: main
    filters: [{type: ExtensionRef, extensionRef: {group: tidegate.dev, kind: Middleware, name: m}}]
    backendRefs: [{name: app, port: 8080}]";

#[test]
fn an_extension_ref_puts_all_policies_of_a_middleware_on_its_rule() {
    let spec = format!("ipAccess: {{deny: [10.0.0.0/8]}}, {}", mark("m"));
    let m = middleware("m", "", &spec);
    let translation = translate(&world(&[GATEWAY, SERVICE, &m, &route("r", EXTENSION)]));
    let rule = find(&translation.graph, 80, "h", "/").unwrap();
    assert_eq!(policies(&translation.graph, rule), ["ip_access", "request_headers"]);
    let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
    assert_eq!(status["ancestors"][0]["ancestorRef"]["name"], "r");
    assert_eq!(condition(&status["ancestors"][0]["conditions"], "Accepted"), "True/Accepted");
}

#[test]
fn an_extension_that_is_missing_or_unknown_closes_its_rule() {
    for (kind, reason) in [("Middleware", "BackendNotFound"), ("Thing", "InvalidKind")] {
        let spec = EXTENSION.replace("kind: Middleware", &format!("kind: {kind}"));
        let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", &spec)]));
        assert_eq!(outcome(&translation.graph, 80, "h", "/"), "InvalidPolicy");
        assert_eq!(of_route(&translation, "r", "ResolvedRefs"), format!("False/{reason}"));
    }
}

#[test]
fn an_invalid_middleware_closes_the_rules_that_use_it_and_no_others() {
    let m = middleware("m", "", "rewrite: {regex: {pattern: '(', substitution: a}}");
    let good = route(
        "good",
        "  hostnames: [good.example]\n  rules: [{backendRefs: [{name: app, port: 8080}]}]",
    );
    let translation = translate(&world(&[GATEWAY, SERVICE, &m, &good, &route("r", EXTENSION)]));
    assert_eq!(outcome(&translation.graph, 80, "h", "/"), "InvalidPolicy");
    assert_eq!(outcome(&translation.graph, 80, "good.example", "/"), "app*1");
    let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
    assert_eq!(condition(&status["ancestors"][0]["conditions"], "Accepted"), "False/Invalid");
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "False/InvalidPolicy");
    assert_eq!(notes(&translation, "m"), ["Invalid spec.rewrite.regex.pattern"]);
}

#[test]
fn an_invalid_middleware_that_nobody_uses_says_so_all_the_same() {
    let m = middleware("m", "", "rewrite: {regex: {pattern: '(', substitution: a}}");
    let translation = translate(&world(&[GATEWAY, &m]));
    let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
    assert_eq!(status["ancestors"][0]["ancestorRef"]["kind"], "Middleware");
    assert_eq!(condition(&status["ancestors"][0]["conditions"], "Accepted"), "False/Invalid");
}

#[test]
fn a_policy_that_nothing_uses_says_so_until_something_does() {
    let m = middleware("m", "", &mark("m"));
    let said = |parts: &[&str]| {
        let translation = translate(&world(parts));
        let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
        assert_eq!(status["ancestors"].as_array().unwrap().len(), 1);
        let ancestor = &status["ancestors"][0];
        let message = ancestor["conditions"][0]["message"].as_str().unwrap().to_owned();
        let accepted = condition(&ancestor["conditions"], "Accepted");
        (ancestor["ancestorRef"]["kind"].as_str().unwrap().to_owned(), accepted, message)
    };
    let (kind, accepted, message) = said(&[GATEWAY, &m]);
    assert_eq!((kind.as_str(), accepted.as_str()), ("Middleware", "True/Accepted"));
    assert!(message.starts_with("nothing uses it"), "{message}");
    let used = said(&[GATEWAY, SERVICE, &m, &route("r", EXTENSION)]);
    assert_eq!((used.0.as_str(), used.2.as_str()), ("HTTPRoute", ""));
}

#[test]
fn of_one_kind_of_transform_the_most_specific_level_wins() {
    let levels = [
        ("gateway", target("Gateway", "gw", "")),
        ("listener", target("Gateway", "gw", "http")),
        ("route", target("HTTPRoute", "r", "")),
        ("rule", target("HTTPRoute", "r", "main")),
        ("m", String::new()),
    ];
    let mut parts = vec![GATEWAY.to_owned(), SERVICE.to_owned(), route("r", EXTENSION)];
    parts.push(route(
        "plain",
        "  hostnames: [plain.example]\n  rules: [{backendRefs: [{name: app, port: 8080}]}]",
    ));
    parts.push(middleware("m", "", &mark("m")));
    for (name, target) in &levels[..4] {
        parts.push(middleware(name, target, &mark(name)));
    }
    let all: Vec<&str> = parts.iter().map(String::as_str).collect();
    let translation = translate(&world(&all));
    let rule = find(&translation.graph, 80, "h", "/").unwrap();
    assert_eq!(keys(&translation.graph, &rule.transforms), ["Middleware/infra/m/requestHeaders"]);
    let plain = find(&translation.graph, 80, "plain.example", "/").unwrap();
    let of_plain = keys(&translation.graph, &plain.transforms);
    assert_eq!(of_plain, ["Middleware/infra/listener/requestHeaders"]);
    let status = written(&translation, ObjectKind::Middleware, "route").unwrap();
    let message = status["ancestors"][0]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("overridden by Middleware infra/m"), "{message}");
}

#[test]
fn gates_of_all_levels_add_up() {
    let gateway = middleware("gw", &target("Gateway", "gw", ""), "ipAccess: {deny: [10.0.0.0/8]}");
    let of_route =
        middleware("r", &target("HTTPRoute", "r", ""), "ipAccess: {allow: [10.0.0.0/8]}");
    let limit = format!(
        "
kind: RateLimit
metadata: {{name: slow, namespace: infra}}
spec: {{targetRefs: [{}], limits: [{{name: a, requests: 5, window: 1s}}]}}",
        target("Gateway", "gw", "")
    );
    let parts = [GATEWAY, SERVICE, &gateway, &of_route, &limit, &route("r", TO_APP)];
    let graph = translate(&world(&parts)).graph;
    let rule = find(&graph, 80, "h", "/").unwrap();
    assert_eq!(policies(&graph, rule), ["ip_access", "ip_access", "rate_limit"]);
}

/// Who says who somebody is comes after the gates of an owner further out; owners may be the same.
#[test]
fn from_authentication_on_gates_run_owner_by_owner() {
    let identity = "ipAccess: {deny: [10.0.0.0/8]}, authentication: {methods: [{apiKey: {}}]}, \
                    authorization: {rules: [{groups: [a]}]}";
    let outer = middleware("gw", &target("Gateway", "gw", ""), identity);
    let inner = middleware("r", &target("HTTPRoute", "r", ""), identity);
    let kinds = |inner: &str, route: &str| {
        let graph = translate(&world(&[GATEWAY, SERVICE, &outer, inner, route])).graph;
        let rule = find(&graph, 80, "h", "/").unwrap();
        policies(&graph, rule)
    };
    let together = ["authentication", "authentication", "authorization", "authorization"];
    assert_eq!(kinds(&inner, &route("r", TO_APP))[2..], together);
    let tenants = |text: &str| text.replacen("namespace: infra", "namespace: tenant", 1);
    let route = tenants(&route("r", TO_APP)).replace("name: gw", "name: gw, namespace: infra");
    let apart = ["authentication", "authorization", "authentication", "authorization"];
    let found = kinds(&tenants(&inner), &route);
    assert_eq!(found[..2], ["ip_access", "ip_access"]);
    assert_eq!(found[2..], apart);
}

#[test]
fn of_cors_only_the_most_specific_counts() {
    let cors = |name: &str, target: &str| {
        middleware(name, target, "cors: {allowOrigins: ['https://a.example']}")
    };
    let parts =
        [cors("gw", &target("Gateway", "gw", "")), cors("r", &target("HTTPRoute", "r", ""))];
    let graph =
        translate(&world(&[GATEWAY, SERVICE, &parts[0], &parts[1], &route("r", TO_APP)])).graph;
    let rule = find(&graph, 80, "h", "/").unwrap();
    assert_eq!(keys(&graph, &rule.gates), ["Middleware/infra/r/cors"]);
    assert_eq!(graph[rule.gates[0]].policy.kind(), Kind::Cors);
}

#[test]
fn a_target_that_is_not_there_is_said() {
    let m = middleware("m", &target("HTTPRoute", "gone", ""), &mark("m"));
    let translation = translate(&world(&[GATEWAY, &m]));
    let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
    let accepted = condition(&status["ancestors"][0]["conditions"], "Accepted");
    assert_eq!(accepted, "False/TargetNotFound");
}

#[test]
fn a_kind_of_another_group_is_not_meant() {
    let there = target("Gateway", "gw", "").replace(CORE, "example.com");
    let m = middleware("m", &there, &mark("m"));
    let graph = translate(&world(&[GATEWAY, SERVICE, &m, &route("r", TO_APP)])).graph;
    assert!(find(&graph, 80, "h", "/").unwrap().transforms.is_empty());
}

#[test]
fn policies_of_another_namespace_do_not_attach() {
    let m = middleware("m", &target("Gateway", "gw", ""), &mark("m")).replace("infra", "other");
    let graph = translate(&world(&[GATEWAY, SERVICE, &m, &route("r", TO_APP)])).graph;
    let rule = find(&graph, 80, "h", "/").unwrap();
    assert!(rule.transforms.is_empty());
}

#[test]
fn ancestors_of_other_controllers_are_kept_and_the_list_is_bounded() {
    let entry = "{ancestorRef: {name: x}, controllerName: example.com/other, conditions: []}";
    let m = middleware("m", "", &mark("m")) + &format!("\nstatus: {{ancestors: [{entry}]}}");
    let routes: Vec<String> = (0..20).map(|i| route(&format!("r{i}"), EXTENSION)).collect();
    let mut parts = vec![GATEWAY, SERVICE, &*m];
    parts.extend(routes.iter().map(String::as_str));
    let translation = translate(&world(&parts));
    let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
    let ancestors = status["ancestors"].as_array().unwrap();
    assert_eq!(ancestors.len(), 16);
    assert_eq!(ancestors[0]["controllerName"], "example.com/other");
}

#[test]
fn one_rate_limit_is_one_policy_however_many_rules_use_it() {
    let limit = "
kind: RateLimit
metadata: {name: m, namespace: infra}
spec: {limits: [{name: a, requests: 5, window: 1s}]}";
    let spec = EXTENSION.replace("kind: Middleware", "kind: RateLimit");
    let (a, b) = (
        route("a", &spec),
        route("b", &spec.replace("  rules", "  hostnames: [b.example]\n  rules")),
    );
    let graph = translate(&world(&[GATEWAY, SERVICE, limit, &a, &b])).graph;
    let (a, b) = (find(&graph, 80, "h", "/").unwrap(), find(&graph, 80, "b.example", "/").unwrap());
    assert_eq!(a.gates, b.gates);
}

fn accepted(translation: &Translation, name: &str) -> (String, String) {
    let status = written(translation, ObjectKind::Middleware, name).unwrap();
    let conditions = &status["ancestors"][0]["conditions"];
    let message = conditions[0]["message"].as_str().unwrap_or_default().to_owned();
    (condition(conditions, "Accepted"), message)
}

#[test]
fn the_status_says_what_is_not_enforced() {
    let spec = "ipAccess: {mode: Shadow, deny: [10.0.0.0/8]}, cors: {mode: 'Off', \
                allowOrigins: ['https://a.example']}";
    let m = middleware("m", "", spec);
    let translation = translate(&world(&[GATEWAY, SERVICE, &m, &route("r", EXTENSION)]));
    let rule = find(&translation.graph, 80, "h", "/").unwrap();
    assert_eq!(policies(&translation.graph, rule), ["ip_access"]);
    assert_eq!(translation.graph[rule.gates[0]].mode, Mode::Shadow);
    let (condition, message) = accepted(&translation, "m");
    assert_eq!(condition, "True/Accepted");
    assert_eq!(
        message,
        "ipAccess is in Shadow mode: nothing is denied; cors is Off: it is not applied"
    );
}

#[test]
fn an_invalid_policy_in_shadow_mode_is_left_out_and_closes_nothing() {
    let spec = "ipAccess: {mode: Shadow, deny: [nonsense]}, responseHeaders: {remove: [x-a]}";
    let m = middleware("m", "", spec);
    let translation = translate(&world(&[GATEWAY, SERVICE, &m, &route("r", EXTENSION)]));
    let rule = find(&translation.graph, 80, "h", "/").unwrap();
    assert_eq!(policies(&translation.graph, rule), ["response_headers"]);
    let (condition, message) = accepted(&translation, "m");
    assert_eq!(condition, "False/Invalid");
    assert!(message.starts_with("spec.ipAccess.deny[0]: "), "{message}");
    assert!(message.ends_with("ipAccess is in Shadow mode: nothing is denied"), "{message}");
}

#[test]
fn a_policy_in_shadow_mode_takes_no_other_s_place() {
    let watch = mark("m").replace("{set", "{mode: Shadow, set");
    let (m, outer) = (
        middleware("m", "", &watch),
        middleware("outer", &target("Gateway", "gw", ""), &mark("outer")),
    );
    let parts = [GATEWAY, SERVICE, &m, &outer, &route("r", EXTENSION)];
    let translation = translate(&world(&parts));
    let rule = find(&translation.graph, 80, "h", "/").unwrap();
    let both = ["Middleware/infra/outer/requestHeaders", "Middleware/infra/m/requestHeaders"];
    assert_eq!(keys(&translation.graph, &rule.transforms), both);
    let enforced = m.replace("mode: Shadow, ", "");
    let watching = outer.replace("{set", "{mode: Shadow, set");
    let parts = [GATEWAY, SERVICE, &enforced, &watching, &route("r", EXTENSION)];
    let translation = translate(&world(&parts));
    let rule = find(&translation.graph, 80, "h", "/").unwrap();
    assert_eq!(keys(&translation.graph, &rule.transforms), both[1..]);
}

#[test]
fn a_middleware_whose_policies_are_off_is_no_error() {
    let m = middleware("m", "", "ipAccess: {mode: 'Off', deny: [nonsense]}");
    let translation = translate(&world(&[GATEWAY, SERVICE, &m, &route("r", EXTENSION)]));
    assert_eq!(outcome(&translation.graph, 80, "h", "/"), "app*1");
    assert_eq!(accepted(&translation, "m").0, "True/Accepted");
}
