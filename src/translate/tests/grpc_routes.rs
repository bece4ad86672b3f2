//! GRPCRoutes: methods, precedence, filters, and how backends are spoken to.

use super::*;
use crate::graph::BackendProtocol;

fn grpc(name: &str, spec: &str) -> String {
    route_of("GRPCRoute", name, spec)
}

/// Where a call goes.
fn call(graph: &RouteGraph, host: &str, path: &str) -> String {
    let mut head = head(host, path);
    head.method = Method::POST;
    head.headers.insert("content-type", "application/grpc".parse().unwrap());
    match graph.find(&graph.listeners[&80], None, &head) {
        Ok(found) => action_of(graph, found.rule),
        Err(reason) => reason.to_string(),
    }
}

/// Rules that are told apart by the weight of their backend: 1, 2, 3, ...
fn ranked(matches: &[&str]) -> String {
    let rule = |(i, m): (usize, &&str)| {
        format!(
            "  - {{matches: [{m}], backendRefs: [{{name: app, port: 8080, weight: {}}}]}}\n",
            i + 1
        )
    };
    let rules: String = matches.iter().enumerate().map(rule).collect();
    format!("  rules:\n{rules}")
}

#[test]
fn a_call_is_found_by_service_and_method() {
    let spec = ranked(&[
        "{method: {service: a.Echo, method: Get}}",
        "{method: {service: a.Echo}}",
        "{method: {method: Put}}",
        "{headers: [{name: version, value: two}]}",
    ]);
    let translation = translate(&world(&[GATEWAY, SERVICE, &grpc("r", &spec)]));
    let graph = &translation.graph;
    for (path, expected) in [
        ("/a.Echo/Get", "app*1"),
        ("/a.Echo/Put", "app*2"),
        ("/a.Echo/Other", "app*2"),
        ("/b.Echo/Put", "app*3"),
        ("/b.Echo/Get", "NoRoute"),
        ("/a.EchoTwo/Get", "NoRoute"),
    ] {
        assert_eq!(call(graph, "h", path), expected, "{path}");
    }
    assert_eq!(outcome(graph, 80, "h", "/a.Echo/Get"), "NoRoute", "not a call");
    assert_eq!(of_kind(&translation, ObjectKind::GrpcRoute, "r", "Accepted"), "True/Accepted");
    assert_eq!(
        of_kind(&translation, ObjectKind::GrpcRoute, "r", "ResolvedRefs"),
        "True/ResolvedRefs"
    );
    assert_eq!(listener_status(&translation, "http")["attachedRoutes"], 1);
}

#[test]
fn a_route_without_matches_takes_every_call() {
    let parts = [GATEWAY, SERVICE, &grpc("r", TO_APP)];
    assert_eq!(call(&translate(&world(&parts)).graph, "h", "/a.B/C"), "app*1");
}

#[test]
fn expressions_match_the_whole_service_and_method() {
    let expression = |parts: &str| format!("{{method: {{type: RegularExpression, {parts}}}}}");
    let spec = ranked(&[
        &expression("service: 'a|b', method: 'Get.*'"),
        &expression("service: 'a|b'"),
        &expression("method: 'Put|Post'"),
    ]);
    let graph = translate(&world(&[GATEWAY, SERVICE, &grpc("r", &spec)])).graph;
    for (path, expected) in [
        ("/a/GetAll", "app*1"),
        ("/b/List", "app*2"),
        ("/c/Post", "app*3"),
        ("/c/GetAll", "NoRoute"),
        ("/a/b/GetAll", "NoRoute"),
        ("/ab/Get", "NoRoute"),
    ] {
        assert_eq!(call(&graph, "h", path), expected, "{path}");
    }
}

#[test]
fn methods_that_cannot_be_are_refused() {
    for method in [
        "{}",
        "{service: 'a/b'}",
        "{service: a, method: 'b c'}",
        "{type: Glob, service: a}",
        "{type: RegularExpression, service: 'a)|(b'}",
        "{type: RegularExpression, method: '('}",
    ] {
        let spec = ranked(&[&format!("{{method: {method}}}")]);
        let translation = translate(&world(&[GATEWAY, SERVICE, &grpc("r", &spec)]));
        let accepted = of_kind(&translation, ObjectKind::GrpcRoute, "r", "Accepted");
        assert_eq!(accepted, "False/UnsupportedValue", "{method}");
        assert_eq!(notes(&translation, "r")[0], "UnsupportedValue spec.rules[0].matches[0].method");
    }
}

#[test]
fn expressions_of_calls_are_bounded_with_all_others() {
    let one = |i| format!("{{method: {{method: M{i}}}}}");
    let all: Vec<String> = (0..65).map(one).collect();
    let spec = ranked(&[&all.join(", ")]);
    let translation = translate(&world(&[GATEWAY, SERVICE, &grpc("r", &spec)]));
    let accepted = of_kind(&translation, ObjectKind::GrpcRoute, "r", "Accepted");
    assert_eq!(accepted, "False/UnsupportedValue");
}

#[test]
fn calls_and_other_requests_of_one_host_do_not_meet() {
    let parts = [
        GATEWAY,
        SERVICE,
        &grpc("calls", "  rules: [{backendRefs: [{name: app, port: 8080, weight: 2}]}]"),
        &route("calls", TO_APP),
    ];
    let translation = translate(&world(&parts));
    assert_eq!(call(&translation.graph, "h", "/a.B/C"), "app*2");
    assert_eq!(outcome(&translation.graph, 80, "h", "/a.B/C"), "app*1");
    for kind in [ObjectKind::HttpRoute, ObjectKind::GrpcRoute] {
        assert_eq!(of_kind(&translation, kind, "calls", "Accepted"), "True/Accepted");
    }
    assert_eq!(listener_status(&translation, "http")["attachedRoutes"], 2);
}

#[test]
fn backends_are_spoken_to_in_http2_in_clear() {
    let parts = [GATEWAY, SERVICE, &grpc("r", TO_APP)];
    let graph = translate(&world(&parts)).graph;
    assert!(matches!(graph.backends[0].protocol, BackendProtocol::H2c));
}

#[test]
fn filters_of_calls_are_those_of_grpc_routes() {
    let filtered = |filter: &str| {
        format!("  rules: [{{filters: [{filter}], backendRefs: [{{name: app, port: 8080}}]}}]")
    };
    let good = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}]}}, \
                {type: RequestMirror, requestMirror: {backendRef: {name: app, port: 8080}}}";
    let graph = translate(&world(&[GATEWAY, SERVICE, &grpc("r", &filtered(good))])).graph;
    assert_eq!(policies(&graph, &graph.rules[0]), ["request_headers"]);
    assert_eq!(graph.rules[0].mirrors.len(), 1);
    for bad in [
        "{type: URLRewrite, urlRewrite: {hostname: a.example}}",
        "{type: RequestRedirect, requestRedirect: {hostname: a.example}}",
        "{type: CORS, cors: {}}",
    ] {
        let translation = translate(&world(&[GATEWAY, SERVICE, &grpc("r", &filtered(bad))]));
        let accepted = of_kind(&translation, ObjectKind::GrpcRoute, "r", "Accepted");
        assert_eq!(accepted, "False/UnsupportedValue", "{bad}");
        assert_eq!(call(&translation.graph, "h", "/a.B/C"), "UnsupportedValue", "{bad}");
    }
}

#[test]
fn policies_attach_to_grpc_routes_and_their_named_rules() {
    let target = |section: &str| {
        format!("{{group: gateway.networking.k8s.io, kind: GRPCRoute, name: r{section}}}")
    };
    for (section, found) in [("", true), (", sectionName: main", true), (", sectionName: x", false)]
    {
        let m = format!(
            "
kind: Middleware
metadata: {{name: m, namespace: infra}}
spec: {{targetRefs: [{}], requestHeaders: {{remove: [a]}}}}",
            target(section)
        );
        let spec = "  rules: [{name: main, backendRefs: [{name: app, port: 8080}]}]";
        let translation = translate(&world(&[GATEWAY, SERVICE, &m, &grpc("r", spec)]));
        let rule = &translation.graph.rules[0];
        let expected: &[&str] = if found { &["request_headers"] } else { &[] };
        assert_eq!(policies(&translation.graph, rule), expected, "{section}");
        let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
        let said = condition(&status["ancestors"][0]["conditions"], "Accepted");
        assert_eq!(said, if found { "True/Accepted" } else { "False/TargetNotFound" });
    }
}

#[test]
fn a_rule_may_keep_clients_with_their_endpoint() {
    let spec = "  rules:
  - sessionPersistence: {type: Header, header: {name: x-session}}
    backendRefs: [{name: app, port: 8080}]";
    let graph = translate(&world(&[GATEWAY, SERVICE, &grpc("r", spec)])).graph;
    assert!(graph.rules[0].session.is_some());
}
