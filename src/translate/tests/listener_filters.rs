//! External authorization, on routes and on listeners (GEP-1494, GEP-5224).

use super::*;

/// A Service `auth` in `infra`, and one of the same name in `other`.
const AUTH: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: auth, namespace: infra}
spec: {ports: [{port: 9000}]}
---
apiVersion: v1
kind: Service
metadata: {name: auth, namespace: other}
spec: {ports: [{port: 9000}]}
"#;

/// The Gateway `gw`: a listener for `a.example` with these filters and one for every host.
fn gateway(filters: &str) -> String {
    let class = GATEWAY.split("\n---").next().unwrap();
    format!(
        "{class}
---
kind: Gateway
metadata: {{name: gw, namespace: infra, generation: 3, uid: u-gw}}
spec:
  gatewayClassName: tidegate
  listeners:
  - name: own
    port: 80
    protocol: HTTP
    hostname: a.example
    filters: {{requests: [{filters}]}}
  - {{name: any, port: 80, protocol: HTTP}}"
    )
}

fn auth(backend: &str) -> String {
    format!(
        "{{type: ExternalAuth, externalAuth: {{protocol: HTTP, http: {{}}, backendRef: {backend}}}}}"
    )
}

const NAMED: &str =
    "{type: ExtensionRef, extensionRef: {group: tidegate.dev, kind: Middleware, name: m}}";

fn middleware(spec: &str) -> String {
    format!("kind: Middleware\nmetadata: {{name: m, namespace: infra}}\nspec: {spec}")
}

fn filters(graph: &RouteGraph, host: &str) -> Vec<&'static str> {
    let sections = graph.listeners[&80].claimed(None, host).unwrap();
    let ids = sections.iter().flat_map(|section| &section.filters);
    ids.map(|id| graph[*id].policy.kind().as_str()).collect()
}

#[test]
fn filters_of_a_listener_stand_before_its_routes_in_their_order() {
    let list = format!("{NAMED}, {}", auth("{name: auth, port: 9000}"));
    let spec = "{requestHeaders: {remove: [x-user]}, ipAccess: {deny: [192.0.2.1]}}";
    let snapshot = world(&[&gateway(&list), SERVICE, AUTH, &middleware(spec), &route("r", TO_APP)]);
    let translation = translate(&snapshot);
    let graph = &translation.graph;
    assert_eq!(filters(graph, "a.example"), ["ip_access", "request_headers", "external_auth"]);
    assert_eq!(filters(graph, "b.example"), [""; 0]);
    assert_eq!(outcome(graph, 80, "a.example", "/"), "app*1");
    for condition in ["Accepted", "ResolvedRefs", "Programmed"] {
        let expected = format!("True/{condition}");
        assert_eq!(of_listener(&translation, "own", condition), expected);
    }
    let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
    let ancestor = &status["ancestors"][0]["ancestorRef"];
    assert_eq!((&ancestor["kind"], &ancestor["sectionName"]), (&"Gateway".into(), &"own".into()));
}

/// A filter that cannot run must not be left out, and no other listener may answer instead.
#[test]
fn a_listener_with_a_broken_filter_answers_nothing_and_keeps_its_hosts() {
    let ref_of = |kind: &str| NAMED.replace("Middleware", kind);
    for (filter, accepted, resolved) in [
        (auth("{name: gone, port: 9000}"), "True/Accepted", "False/InvalidListenerFilterRef"),
        (auth("{name: auth}"), "True/Accepted", "False/InvalidListenerFilterRef"),
        (
            auth("{name: auth, port: 9000, namespace: other}"),
            "True/Accepted",
            "False/RefNotPermitted",
        ),
        (ref_of("Gone"), "True/Accepted", "False/InvalidListenerFilterRef"),
        (ref_of("RateLimit"), "True/Accepted", "False/InvalidListenerFilterRef"),
        (NAMED.to_owned(), "False/InvalidListenerFilter", "True/ResolvedRefs"),
        ("{type: ExternalAuth}".to_owned(), "False/InvalidListenerFilter", "True/ResolvedRefs"),
        ("{type: CORS}".to_owned(), "False/UnsupportedValue", "True/ResolvedRefs"),
        (
            auth("{name: auth, port: 9000}").replace("http: {}", "http: {path: /../x}"),
            "False/InvalidListenerFilter",
            "True/ResolvedRefs",
        ),
    ] {
        let list = format!("{}, {filter}", auth("{name: auth, port: 9000}"));
        let other_host = middleware("{rewrite: {hostname: b.example}}");
        let parts = [&gateway(&list), SERVICE, AUTH, &other_host, &route("r", TO_APP)];
        let translation = translate(&world(&parts));
        assert_eq!(of_listener(&translation, "own", "Accepted"), accepted, "{filter}");
        assert_eq!(of_listener(&translation, "own", "ResolvedRefs"), resolved, "{filter}");
        assert!(
            listener_status(&translation, "own").to_string().contains("requests[1]"),
            "{filter}"
        );
        assert_eq!(of_listener(&translation, "any", "Accepted"), "True/Accepted");
        let graph = &translation.graph;
        assert_eq!(outcome(graph, 80, "a.example", "/"), "InvalidPolicy", "{filter}");
        assert_eq!(outcome(graph, 80, "b.example", "/"), "app*1", "{filter}");
    }
}

#[test]
fn a_grant_lets_a_listener_ask_a_service_of_another_namespace() {
    let grant = "
kind: ReferenceGrant
metadata: {name: g, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}]
  to: [{group: '', kind: Service, name: auth}]";
    let gateway = gateway(&auth("{name: auth, port: 9000, namespace: other}"));
    let translation = translate(&world(&[&gateway, AUTH, grant]));
    assert_eq!(of_listener(&translation, "own", "ResolvedRefs"), "True/ResolvedRefs");
    assert_eq!(filters(&translation.graph, "a.example"), ["external_auth"]);
}

fn rule(filter: &str) -> String {
    format!("  rules:\n  - filters: [{filter}]\n    backendRefs: [{{name: app, port: 8080}}]")
}

#[test]
fn a_rule_asks_its_service_or_answers_nothing() {
    let of = |filter: &str| {
        let spec = rule(filter);
        let translation = translate(&world(&[GATEWAY, SERVICE, AUTH, &route("r", &spec)]));
        let outcome = outcome(&translation.graph, 80, "h", "/");
        (outcome, of_route(&translation, "r", "ResolvedRefs"), translation)
    };
    let (to, resolved, translation) = of(&auth("{name: auth, port: 9000}"));
    assert_eq!((&*to, &*resolved), ("app*1", "True/ResolvedRefs"));
    let found = find(&translation.graph, 80, "h", "/").unwrap();
    assert_eq!(policies(&translation.graph, found), ["external_auth"]);
    for (backend, reason) in [
        ("{name: gone, port: 9000}", "BackendNotFound"),
        ("{name: auth, port: 9000, namespace: other}", "RefNotPermitted"),
        ("{name: auth, port: 9000, kind: Pod}", "InvalidKind"),
    ] {
        let (to, resolved, _) = of(&auth(backend));
        assert_eq!((to, resolved), (reason.to_owned(), format!("False/{reason}")));
    }
    let (to, _, translation) = of(&auth("{name: auth, port: 9000}").replace("HTTP", "SMTP"));
    assert_eq!(to, "UnsupportedValue");
    assert_eq!(of_route(&translation, "r", "Accepted"), "False/UnsupportedValue");
}

#[test]
fn what_speaks_grpc_is_reached_by_http2() {
    let grpc = auth("{name: auth, port: 9000}").replace("HTTP, http", "GRPC, grpc");
    let spec = rule(&grpc);
    let translation = translate(&world(&[GATEWAY, SERVICE, AUTH, &route("r", &spec)]));
    let auth = translation.graph.backends_of("infra", "auth").next().unwrap();
    assert_eq!(auth.key.protocol, "h2c");
}

#[test]
fn a_middleware_that_asks_a_service_needs_it_and_a_grant() {
    for (spec, field) in [
        ("{externalAuth: {protocol: HTTP, backendRef: BACKEND}}", "spec.externalAuth"),
        (
            "{authentication: {methods: [{apiKey: {}}, {external: {protocol: HTTP, \
             identity: {header: X-User}, backendRef: BACKEND}}]}}",
            "spec.authentication.methods[1].external",
        ),
    ] {
        let of = |backend: &str| {
            let spec = middleware(&spec.replace("BACKEND", backend));
            let route = route("r", &rule(NAMED));
            let translation = translate(&world(&[GATEWAY, SERVICE, AUTH, &spec, &route]));
            let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
            let conditions = &status["ancestors"][0]["conditions"];
            let message = conditions[0]["message"].as_str().unwrap().to_owned();
            let answer = outcome(&translation.graph, 80, "h", "/");
            (condition(conditions, "Accepted"), answer, message)
        };
        let (accepted, answer, _) = of("{name: auth, port: 9000}");
        assert_eq!((&*accepted, &*answer), ("True/Accepted", "app*1"), "{field}");
        for backend in ["{name: gone, port: 9000}", "{name: auth, port: 9000, namespace: other}"] {
            let (accepted, answer, message) = of(backend);
            assert_eq!((&*accepted, &*answer), ("False/Invalid", "InvalidPolicy"), "{field}");
            assert!(message.contains(&format!("{field}.backendRef")), "{message}");
        }
    }
}
