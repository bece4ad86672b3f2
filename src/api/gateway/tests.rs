//! What the API server may send and what a file may hold is read as far as it can be.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn read<T: DeserializeOwned>(spec: Value) -> T {
    serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).unwrap()
}

#[test]
fn unknown_values_are_kept_as_text() {
    let gateway: Gateway = read(json!({
        "gatewayClassName": "c",
        "defaultScope": "Some",
        "addresses": [{"value": "x", "routability": "example.com/private"}],
        "tls": {"frontend": {"default": {"validation": {
            "caCertificateRefs": [], "mode": "Sometimes"}}}},
        "listeners": [{"name": "a", "port": 1, "protocol": "example.com/quic", "filters":
            {"requests": [{"type": "Magic", "magic": {}}]}}],
    }));
    let spec = gateway.spec;
    assert_eq!(spec.default_scope, Some(DefaultScope::Other("Some".into())));
    let routability = spec.addresses[0].routability.as_ref().unwrap();
    assert_eq!(routability.as_str(), "example.com/private");
    let frontend = spec.tls.unwrap().frontend.unwrap();
    let mode = frontend.default.validation.unwrap().mode.unwrap();
    assert_eq!(mode, FrontendValidationMode::Other("Sometimes".into()));
    let filter = &spec.listeners[0].filters.as_ref().unwrap().requests[0];
    assert_eq!(filter.r#type, ListenerFilterType::Other("Magic".into()));
}

#[test]
fn every_field_of_an_experimental_gateway_is_read() {
    let gateway: Gateway = read(json!({
        "gatewayClassName": "c",
        "allowedListeners": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {}}}},
        "addresses": [{"routability": "Cluster"}, {"routability": ""}],
        "tls": {
            "backend": {"clientCertificateRef": {"name": "client"}},
            "frontend": {
                "default": {},
                "perPort": [{"port": 8443, "tls": {"validation": {
                    "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}],
                    "mode": "AllowInsecureFallback"}}}],
            },
        },
        "listeners": [],
    }));
    let spec = gateway.spec;
    let from = spec.allowed_listeners.unwrap().namespaces.unwrap().from;
    assert_eq!(from, Some(FromNamespaces::Selector));
    assert_eq!(spec.addresses[0].routability, Some(Routability::Cluster));
    assert_eq!(spec.addresses[1].routability, Some(Routability::Default));
    let tls = spec.tls.unwrap();
    assert_eq!(tls.backend.unwrap().client_certificate_ref.unwrap().name, "client");
    let frontend = tls.frontend.unwrap();
    assert_eq!(frontend.default.validation, None);
    let port = &frontend.per_port[0];
    let validation = port.tls.validation.as_ref().unwrap();
    assert_eq!((port.port, validation.ca_certificate_refs[0].name.as_str()), (8443, "ca"));
    assert_eq!(validation.mode, Some(FrontendValidationMode::AllowInsecureFallback));
}

#[test]
fn retries_sessions_and_questions_of_a_rule_are_read() {
    let route: HttpRoute = read(json!({"useDefaultGateways": "All", "rules": [{
        "retry": {"codes": [500, 503], "attempts": 3, "backoff": "100ms"},
        "sessionPersistence": {"type": "Header", "absoluteTimeout": "1h", "header": {"name": "s"},
                               "cookie": {"lifetimeType": "Permanent"}},
        "filters": [{"type": "ExternalAuth", "externalAuth": {
            "protocol": "HTTP", "backendRef": {"name": "auth", "port": 80},
            "http": {"path": "/check", "allowedHeaders": ["x-a"],
                     "allowedResponseHeaders": ["x-b"]},
            "forwardBody": {"maxSize": 1024}}}],
    }]}));
    assert_eq!(route.spec.use_default_gateways, Some(DefaultScope::All));
    let rule = &route.spec.rules[0];
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!((retry.codes.as_slice(), retry.attempts), (&[500, 503][..], Some(3)));
    let session = rule.session_persistence.as_ref().unwrap();
    assert_eq!(session.header.as_ref().unwrap().name, "s");
    let lifetime = session.cookie.as_ref().unwrap().lifetime_type.clone();
    assert_eq!(lifetime, Some(CookieLifetimeType::Permanent));
    let auth = rule.filters[0].external_auth.as_ref().unwrap();
    assert_eq!(auth.protocol, ExternalAuthProtocol::Http);
    assert_eq!(auth.http.as_ref().unwrap().allowed_response_headers, ["x-b"]);
    assert_eq!(auth.forward_body.as_ref().unwrap().max_size, 1024);
}

#[test]
fn certificate_authorities_of_backends_are_read_by_their_odd_names() {
    let policy: BackendTlsPolicy = read(json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": "s", "sectionName": "https"}],
        "validation": {
            "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}],
            "wellKnownCACertificates": "System",
            "hostname": "a.test",
            "subjectAltNames": [{"type": "URI", "uri": "spiffe://a"},
                                {"type": "Hostname", "hostname": "b.test"}, {"type": "Odd"}],
        },
    }));
    let validation = &policy.spec.validation;
    assert_eq!(validation.ca_certificate_refs.len(), 1);
    assert_eq!(validation.well_known_ca_certificates, Some(WellKnownCaCertificates::System));
    let names = &validation.subject_alt_names;
    assert_eq!(
        (names[0].r#type.clone(), names[0].uri.as_str()),
        (SubjectAltNameType::Uri, "spiffe://a")
    );
    assert_eq!(names[2].r#type, SubjectAltNameType::Other("Odd".into()));
    assert_eq!(policy.spec.target_refs[0].section_name.as_deref(), Some("https"));
}

#[test]
fn backends_of_either_type_are_read() {
    let outside: XBackend = read(json!({
        "type": "ExternalHostname", "port": {"number": 443}, "protocol": "HTTP11",
        "externalHostname": {"hostname": "example.com"},
        "tls": {"mode": "ClientAndServer", "clientCertificateRef": {"name": "c"},
                "validation": {"hostname": "example.com"}},
    }));
    let tls = outside.spec.tls.unwrap();
    assert_eq!(tls.mode, Some(XBackendTlsMode::ClientAndServer));
    assert_eq!(outside.spec.protocol, Some(XBackendProtocol::Http11));
    let pods: XBackend = read(json!({"type": "EndpointSelector", "port": {"number": 8080},
        "endpointSelector": {"matchLabels": {"app": "a"}}}));
    assert_eq!(pods.spec.endpoint_selector.unwrap().match_labels["app"], "a");
}

#[test]
fn statuses_keep_what_is_newer() {
    fn same<T: DeserializeOwned + serde::Serialize>(status: Value) {
        let read: T = serde_json::from_value(status.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), status);
    }
    let condition = json!({"type": "Accepted", "status": "True", "reason": "Accepted",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "severity": "High"});
    same::<RouteStatus>(json!({"summary": "x", "parents": [{
        "parentRef": {"name": "g"}, "controllerName": "c", "conditions": [condition], "x": 1}]}));
    same::<ListenerSetStatus>(json!({"x": 1, "conditions": [condition], "listeners": [{
        "name": "a", "supportedKinds": [], "attachedRoutes": 1, "conditions": [], "port": 80}]}));
    same::<GatewayStatus>(json!({"addresses": [{"value": "192.0.2.1", "routability": "Cluster"}],
        "conditions": [], "listeners": [], "attachedListenerSets": 2, "x": 1}));
    same::<PolicyStatus>(json!({"ancestors": [{
        "ancestorRef": {"name": "g"}, "controllerName": "c", "conditions": [], "x": 1}]}));
}
