//! What is said about objects that are wrong, nothing about those that are right; and that our
//! types have every field that the schemas have.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::api::gateway::*;

fn route(spec: Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
           "metadata": {"name": "r", "labels": {"a.b/c": "d"}}, "spec": spec})
}

fn said(object: &Value) -> Vec<String> {
    check(object).into_iter().map(|f| format!("{}: {}", f.field, f.message)).collect()
}

#[test]
fn nothing_is_said_about_an_object_that_is_right() {
    let object = route(json!({
        "parentRefs": [{"name": "g"}],
        "hostnames": ["a.test"],
        "rules": [{"matches": [{"path": {"value": "/"}}], "filters": [],
                   "backendRefs": [{"name": "s", "port": 80, "weight": null}]}],
    }));
    assert!(said(&object).is_empty(), "{:?}", said(&object));
}

#[test]
fn a_misspelt_field_is_found_and_the_right_one_is_named() {
    let object = route(json!({"rules": [{"backendrefs": [], "matchs": [], "frobnicate": 1}]}));
    assert_eq!(
        said(&object),
        [
            "spec.rules[0].backendrefs: there is no such field; did you mean backendRefs?",
            "spec.rules[0].frobnicate: there is no such field",
            "spec.rules[0].matchs: there is no such field; did you mean matches?",
        ]
    );
    let mut object = route(json!({}));
    object["metadata"]["label"] = json!({});
    object["spek"] = json!({});
    let expected = [
        "metadata.label: there is no such field; did you mean labels?",
        "spek: there is no such field; did you mean spec?",
    ];
    assert_eq!(said(&object), expected);
}

#[test]
fn bounds_enumerations_patterns_and_types_are_held() {
    let object = route(json!({
        "hostnames": ["a_b"],
        "rules": [{"backendRefs": [{"name": "s", "port": 70000, "weight": "1"}],
                   "matches": [{"method": "FETCH"}]}],
    }));
    let said = said(&object).join("\n");
    assert!(said.contains("spec.hostnames[0]: \"a_b\" does not match"), "{said}");
    assert!(said.contains("backendRefs[0].port: must be at most 65535"), "{said}");
    assert!(said.contains("backendRefs[0].weight: must be of type integer"), "{said}");
    assert!(said.contains("matches[0].method: must be one of GET, "), "{said}");
}

#[test]
fn what_is_required_and_has_no_default_must_be_there() {
    let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "g"}, "spec": {"listeners": [{"name": "a", "protocol": "HTTP"}]}});
    let expected = ["spec.listeners[0].port: is required", "spec.gatewayClassName: is required"];
    assert_eq!(said(&object), expected);
}

#[test]
fn core_kinds_and_our_own_are_checked_too() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetport": 8}]}});
    let expected = "spec.ports[1].targetport: there is no such field; did you mean targetPort?";
    assert_eq!(said(&service), [expected]);
    let middleware = json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "Middleware",
        "metadata": {"name": "m"}, "spec": {"directresponse": {}}});
    let expected = "spec.directresponse: there is no such field; did you mean directResponse?";
    assert_eq!(said(&middleware), [expected]);
}

#[test]
fn a_kind_that_does_not_exist_is_told_from_one_that_is_not_ours() {
    let meant = |version, kind| meant(version, kind).unwrap_or_default();
    let v1 = "gateway.networking.k8s.io/v1";
    assert_eq!(
        meant(v1, "HttpRoutes"),
        "gateway.networking.k8s.io has no kind \"HttpRoutes\"; did you mean HTTPRoute?"
    );
    assert_eq!(
        meant("tidegate.dev/v1", "Middleware"),
        "Middleware is not in tidegate.dev/v1; use tidegate.dev/v1alpha1"
    );
    assert_eq!(meant(v1, "HTTPRoute"), "");
    assert_eq!(meant("apps/v1", "Deploiment"), "");
}

#[test]
fn hostile_objects_are_bounded() {
    let mut deep = json!(1);
    for _ in 0..1000 {
        deep = json!({ "a": deep });
    }
    check(&route(json!({ "rules": [{"filters": deep}] })));
    let many: Map<String, Value> = (0..10_000).map(|n| (format!("f{n}"), json!(1))).collect();
    assert_eq!(check(&route(Value::Object(many))).len(), MOST);
}

/// An object with every field that a schema has.
fn full(schema: &Value) -> Value {
    match schema["type"].as_str().unwrap_or_default() {
        "object" => match schema["properties"].as_object() {
            Some(fields) => {
                fields.iter().map(|(name, field)| (name.clone(), full(field))).collect()
            }
            None => json!({"k": full(&schema["additionalProperties"])}),
        },
        "array" => json!([full(&schema["items"])]),
        "integer" => schema.get("minimum").cloned().unwrap_or(json!(1)),
        "boolean" => json!(true),
        _ => match schema["enum"].as_array() {
            // An empty value may be left out.
            Some(values) => values.iter().find(|value| **value != "").unwrap().clone(),
            None => json!("text"),
        },
    }
}

fn keeps_all<T: DeserializeOwned + Serialize>(api_version: &str, kind: &str) {
    let schema = of(api_version, kind).unwrap();
    let mut object = full(schema);
    object["metadata"] = json!({"name": "x"});
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    let read: T = serde_json::from_value(object.clone()).unwrap();
    let written = serde_json::to_value(read).unwrap();
    for part in ["spec", "status"] {
        assert_eq!(written[part], object[part], "{kind} {api_version} {part}");
    }
}

#[test]
fn our_types_have_every_field_of_both_channels() {
    let v1 = "gateway.networking.k8s.io/v1";
    keeps_all::<GatewayClass>(v1, "GatewayClass");
    keeps_all::<Gateway>(v1, "Gateway");
    keeps_all::<ListenerSet>(v1, "ListenerSet");
    keeps_all::<HttpRoute>(v1, "HTTPRoute");
    keeps_all::<GrpcRoute>(v1, "GRPCRoute");
    keeps_all::<TlsRoute>(v1, "TLSRoute");
    keeps_all::<TcpRoute>(v1, "TCPRoute");
    keeps_all::<UdpRoute>(v1, "UDPRoute");
    keeps_all::<BackendTlsPolicy>(v1, "BackendTLSPolicy");
    keeps_all::<ReferenceGrant>(v1, "ReferenceGrant");
    let x = "gateway.networking.x-k8s.io/v1alpha1";
    keeps_all::<XBackend>(x, "XBackend");
    keeps_all::<XBackendTrafficPolicy>(x, "XBackendTrafficPolicy");
}

#[test]
fn older_versions_are_read_by_the_same_types() {
    let group = |version| format!("gateway.networking.k8s.io/{version}");
    keeps_all::<BackendTlsPolicy>(&group("v1alpha3"), "BackendTLSPolicy");
    keeps_all::<TlsRoute>(&group("v1alpha2"), "TLSRoute");
    keeps_all::<TlsRoute>(&group("v1alpha3"), "TLSRoute");
    keeps_all::<TcpRoute>(&group("v1alpha2"), "TCPRoute");
    keeps_all::<UdpRoute>(&group("v1alpha2"), "UDPRoute");
    keeps_all::<ReferenceGrant>(&group("v1beta1"), "ReferenceGrant");
    keeps_all::<HttpRoute>(&group("v1beta1"), "HTTPRoute");
}
