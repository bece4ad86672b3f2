//! Where keys of issuers are: the way to them, and who may refer to whom.

use serde_json::json;

use super::*;
use crate::policy::jwt::{Publicity, Remote, read_key_set};
use crate::translate::{KeyPlace, KeyServer, KeySetState, KeySource, key_place};

fn of(snapshot: &Snapshot, remote: Value) -> Result<KeyPlace, String> {
    let remote = serde_json::from_value(remote).unwrap();
    let source = KeySource { namespace: "infra".into(), remote };
    key_place(snapshot, &source).map_err(|invalid| invalid.to_string())
}

fn refused(snapshot: &Snapshot, remote: Value) -> String {
    of(snapshot, remote.clone()).expect_err(&remote.to_string())
}

#[test]
fn a_url_is_a_host_a_port_and_a_path() {
    let world = world(&[]);
    for (uri, host, port, authority, path) in [
        ("https://a.test/k.json?v=1", "a.test", 443, "a.test", "/k.json?v=1"),
        ("https://a.test:8443", "a.test", 8443, "a.test:8443", "/"),
        ("https://[2001:db8::1]/k", "2001:db8::1", 443, "[2001:db8::1]", "/k"),
    ] {
        let place = of(&world, json!({"uri": uri})).unwrap();
        assert_eq!(place.to, KeyServer::Named(host.into(), port));
        assert_eq!((&*place.authority, &*place.path), (authority, path));
        let tls = place.tls.unwrap();
        assert_eq!((&*tls.name, tls.authorities), (host, None));
    }
}

#[test]
fn clear_text_is_only_for_private_issuers() {
    let mut world = world(&[]);
    let uri = json!({"uri": "http://a.test/k"});
    assert!(refused(&world, uri.clone()).contains("use https"));
    world.settings = Arc::new(Settings { private_issuers: true, ..Settings::default() });
    let place = of(&world, uri).unwrap();
    assert_eq!((place.to, place.tls), (KeyServer::Named("a.test".into(), 80), None));
}

#[test]
fn a_service_is_its_ready_endpoints() {
    let world = world(&[SERVICE]);
    let place = of(&world, json!({"backendRef": {"name": "app", "port": 8080}})).unwrap();
    assert_eq!(place.to, KeyServer::Endpoints(vec!["10.0.0.1:3000".parse().unwrap()]));
    assert_eq!(&*place.authority, "app.infra.svc:8080");
    assert_eq!((&*place.path, place.tls), ("/.well-known/jwks.json", None));
}

#[test]
fn a_service_with_certificates_is_asked_by_tls_under_its_name() {
    let ca = "
kind: ConfigMap
metadata: {name: ca, namespace: infra}
data: {ca.crt: PEM}";
    let reference = json!({
        "backendRef": {"name": "app", "port": 8080},
        "caCertificateRef": {"kind": "ConfigMap", "name": "ca"},
    });
    let tls = of(&world(&[SERVICE, ca]), reference.clone()).unwrap().tls.unwrap();
    assert_eq!((&*tls.name, tls.authorities), ("app.infra.svc", Some(b"PEM".to_vec())));
    assert!(refused(&world(&[SERVICE]), reference).contains("ConfigMap infra/ca does not exist"));
}

#[test]
fn a_service_of_another_namespace_needs_a_grant_there() {
    let elsewhere = SERVICE.replace("namespace: infra", "namespace: other");
    let grant = |kind: &str, namespace: &str| {
        format!(
            "
kind: ReferenceGrant
metadata: {{name: g, namespace: other}}
spec:
  from: [{{group: tidegate.dev, kind: {kind}, namespace: {namespace}}}]
  to: [{{group: \"\", kind: Service, name: app}}]"
        )
    };
    let reference = json!({"backendRef": {"name": "app", "namespace": "other", "port": 8080}});
    let with = |grants: &[&str]| {
        let parts: Vec<&str> = [&*elsewhere].iter().chain(grants).copied().collect();
        of(&world(&parts), reference.clone()).map(|place| place.to)
    };
    assert!(with(&[]).unwrap_err().contains("ReferenceGrant"));
    assert!(with(&[&grant("Middleware", "infra")]).is_ok());
    assert!(with(&[&grant("HTTPRoute", "infra")]).is_err());
    assert!(with(&[&grant("Middleware", "foreign")]).is_err());
    let own = grant("Middleware", "infra").replace("namespace: other", "namespace: infra");
    assert!(with(&[&own]).is_err(), "who refers cannot permit it");
}

#[test]
fn what_is_wrong_with_a_reference_is_told_by_its_field() {
    let world = world(&[SERVICE]);
    let app = || json!({"name": "app", "port": 8080});
    for (remote, message) in [
        (json!({}), "exactly one of uri and backendRef"),
        (json!({"uri": "https://a.test", "backendRef": app()}), "exactly one"),
        (json!({"uri": "https://a.test", "path": "/k"}), "path: is part of uri"),
        (json!({"uri": "https://a.test", "refresh": "1s"}), "refresh: write 30s to 24h"),
        (json!({"uri": "https://a.test", "refresh": "25h"}), "refresh: write 30s to 24h"),
        (json!({"uri": "https://a.test", "refresh": "often"}), "refresh: "),
        (json!({"uri": "https://u:p@a.test"}), "uri: "),
        (json!({"uri": "ftp://a.test"}), "no https URL"),
        (json!({"uri": "a.test"}), "no https URL"),
        (json!({"backendRef": app(), "path": "k"}), "path: "),
        (json!({"backendRef": app(), "path": "/a b"}), "path: "),
        (json!({"backendRef": {"name": "app", "port": 1}}), "has no port 1"),
        (json!({"backendRef": {"name": "app", "port": 70000}}), "has no port 70000"),
        (json!({"backendRef": {"name": "gone", "port": 80}}), "infra/gone does not exist"),
        (json!({"uri": "https://a.test", "caCertificateRef": {"name": "ca"}}), "Secret infra/ca"),
    ] {
        let told = refused(&world, remote.clone());
        assert!(told.contains(message), "{remote}: {told}");
    }
}

const MIDDLEWARE: &str = "
kind: Middleware
metadata: {name: m, namespace: infra, generation: 2}
spec:
  authentication:
    methods:
    - jwt: {issuer: i, keys: {remote: {uri: \"https://a.test/k\"}}}";

const ROUTE: &str = "  rules:
  - filters: [{type: ExtensionRef, extensionRef: {group: tidegate.dev, kind: Middleware, name: m}}]
    backendRefs: [{name: app, port: 8080}]";

fn status_of(snapshot: &Snapshot) -> (String, String) {
    let translation = translate(snapshot);
    let status = written(&translation, ObjectKind::Middleware, "m").unwrap();
    let conditions = &status["ancestors"][0]["conditions"];
    let message = conditions[0]["message"].as_str().unwrap_or_default().to_owned();
    (condition(conditions, "Accepted"), message)
}

#[test]
fn a_policy_says_that_its_issuer_cannot_be_reached() {
    let mut world = world(&[GATEWAY, SERVICE, MIDDLEWARE, &route("r", ROUTE)]);
    assert_eq!(status_of(&world), ("True/Accepted".into(), String::new()));
    let uri = Some("https://a.test/k".to_owned());
    let remote = Remote { uri, ..Remote::default() };
    let source = KeySource { namespace: "infra".into(), remote };
    let failed = KeySetState { error: Some("no answer".into()), ..KeySetState::default() };
    world.key_sets = Arc::new([(source.clone(), failed.clone())].into());
    let (accepted, message) = status_of(&world);
    assert_eq!(accepted, "True/Accepted");
    let field = "spec.authentication.methods[0].jwt.keys.remote";
    assert_eq!(
        message,
        format!(
            "{field}: the keys of https://a.test/k cannot be fetched: no answer; requests with \
             tokens get 503 until they can"
        )
    );
    let notes = translate(&world).notes;
    assert!(notes.iter().any(|note| note.reason == "KeysUnreachable" && note.field == field));
    let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let keys = Some(Arc::new(read_key_set(set.as_bytes(), Publicity::Public).unwrap()));
    world.key_sets = Arc::new([(source, KeySetState { keys, ..failed })].into());
    assert!(status_of(&world).1.ends_with("those of the last time are used for 24 hours at most"));
}

#[test]
fn a_reference_to_keys_that_leads_nowhere_closes_the_rule() {
    let broken = MIDDLEWARE.replace("https:", "ftp:");
    let world = world(&[GATEWAY, SERVICE, &broken, &route("r", ROUTE)]);
    assert_eq!(outcome(&translate(&world).graph, 80, "h", "/"), "InvalidPolicy");
    let (accepted, message) = status_of(&world);
    assert_eq!(accepted, "False/Invalid");
    let field = "spec.authentication.methods[0].jwt.keys.remote.uri: ";
    assert!(message.starts_with(field), "{message}");
}
