//! BackendTLSPolicies, client certificates of Gateways, and ports by protocol.

use serde_json::json;

use super::*;
use crate::graph::{BackendKey, BackendProtocol};

/// A ConfigMap `NAME` in `infra` with a CA certificate.
fn authority(name: &str) -> Value {
    let made = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "infra"},
        "data": {"ca.crt": made.cert.pem()},
    })
}

/// A policy in `infra` for `target`, with this validation.
fn policy(name: &str, target: &str, validation: &str) -> String {
    format!(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name}, namespace: infra, generation: 4, creationTimestamp: "2026-02-01T00:00:00Z"}}
spec:
  targetRefs: [{{group: "", kind: Service, {target}}}]
  validation: {validation}"#
    )
}

const TRUST: &str =
    "{hostname: a.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}";

/// A world with the CA `ca`, a route to the Service `app`, and these objects.
fn with(parts: &[&str]) -> Snapshot {
    let route = route("r", TO_APP);
    let mut all = vec![GATEWAY, SERVICE, &route];
    all.extend(parts);
    let mut snapshot = world(&all);
    put(&mut snapshot, authority("ca"));
    snapshot
}

/// A condition that the policy says to its only ancestor.
fn of_policy(translation: &Translation, name: &str, r#type: &str) -> String {
    let status = written(translation, ObjectKind::BackendTlsPolicy, name).expect("a status");
    let [ancestor] = &status["ancestors"].as_array().unwrap()[..] else { panic!("{status}") };
    let expected = json!({
        "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "infra", "name": "gw",
    });
    assert_eq!(ancestor["ancestorRef"], expected);
    for condition in ancestor["conditions"].as_array().unwrap() {
        assert_eq!(condition["observedGeneration"], 4);
    }
    condition(&ancestor["conditions"], r#type)
}

/// The names that the backends' TLS sends, sorted; empty for clear text.
fn names(graph: &RouteGraph) -> Vec<String> {
    let name = |protocol: &BackendProtocol| match protocol {
        BackendProtocol::Tls(tls) => tls.server_name.to_str().into_owned(),
        _ => String::new(),
    };
    let mut names: Vec<_> = graph.backends.iter().map(|b| name(&b.protocol)).collect();
    names.sort();
    names
}

#[test]
fn a_policy_makes_the_connection_tls_and_says_so_to_the_gateway() {
    let translation = translate(&with(&[&policy("p", "name: app", TRUST)]));
    assert_eq!(names(&translation.graph), ["a.example"]);
    assert_eq!(of_policy(&translation, "p", "Accepted"), "True/Accepted");
    assert_eq!(of_policy(&translation, "p", "ResolvedRefs"), "True/ResolvedRefs");
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "True/ResolvedRefs");
}

#[test]
fn a_status_that_stands_is_not_written_again() {
    let mut snapshot = with(&[&policy("p", "name: app", TRUST)]);
    let first = translate(&snapshot);
    apply(&mut snapshot, &first);
    assert_eq!(translate(&snapshot).statuses, []);
}

#[test]
fn nobody_hears_of_a_policy_that_no_gateway_reaches() {
    let other = "
kind: Service
metadata: {name: other, namespace: infra}
spec: {ports: [{port: 80}]}";
    let translation = translate(&with(&[other, &policy("p", "name: other", TRUST)]));
    assert_eq!(written(&translation, ObjectKind::BackendTlsPolicy, "p"), None);
    assert_eq!(names(&translation.graph), [""]);
}

#[test]
fn entries_of_other_controllers_stay_and_ours_that_are_over_go() {
    let mut snapshot = with(&[]);
    let entry = |by: &str, gateway: &str| {
        json!({
            "controllerName": by,
            "ancestorRef": {"name": gateway},
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted"}],
        })
    };
    let mut object: Value = serde_saphyr::from_str(&policy("p", "name: app", TRUST)).unwrap();
    object["status"] = json!({"ancestors": [
        entry("example.com/other", "theirs"),
        entry("tidegate.dev/gateway-controller", "gone"),
    ]});
    put(&mut snapshot, object);
    let translation = translate(&snapshot);
    let status = written(&translation, ObjectKind::BackendTlsPolicy, "p").unwrap();
    let names: Vec<_> = status["ancestors"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2);
    assert_eq!(names[0]["ancestorRef"], json!({"name": "theirs"}));
    assert_eq!(names[1]["ancestorRef"]["name"], "gw");
}

#[test]
fn of_several_policies_for_one_target_the_older_and_then_the_first_by_name_holds() {
    let older = policy("z", "name: app", "{hostname: z.example, wellKnownCACertificates: System}")
        .replace("2026-02-01", "2026-01-01");
    let parts = [&policy("a", "name: app", TRUST), &policy("b", "name: app", TRUST), &*older];
    let of = |parts: &[&str]| {
        let translation = translate(&with(parts));
        let said = |name| of_policy(&translation, name, "Accepted");
        (said("a"), said("b"), names(&translation.graph))
    };
    let (held, lost) = ("True/Accepted".to_owned(), "False/Conflicted".to_owned());
    let name = |name: &str| vec![name.to_owned()];
    assert_eq!(of(&parts[..2]), (held, lost.clone(), name("a.example")));
    assert_eq!(of(&[parts[0], parts[1], parts[2]]), (lost.clone(), lost, name("z.example")));
}

#[test]
fn a_policy_for_a_port_stands_above_the_one_for_the_service() {
    let service = "
kind: Service
metadata: {name: two, namespace: infra}
spec: {ports: [{name: one, port: 1}, {name: two, port: 2}]}";
    let spec = "  rules: [{backendRefs: [{name: two, port: 1}, {name: two, port: 2}]}]";
    let of_port = TRUST.replace("a.example", "port.example");
    let parts = [
        service,
        &route("r", spec),
        &policy("all", "name: two", TRUST),
        &policy("one", "name: two, sectionName: one", &of_port),
    ];
    let translation = translate(&with(&parts));
    assert_eq!(names(&translation.graph), ["a.example", "port.example"]);
    assert_eq!(of_policy(&translation, "all", "Accepted"), "True/Accepted");
    assert_eq!(of_policy(&translation, "one", "Accepted"), "True/Accepted");
}

#[test]
fn a_port_that_does_not_exist_is_told_and_changes_nothing() {
    let translation = translate(&with(&[&policy("p", "name: app, sectionName: nope", TRUST)]));
    assert_eq!(of_policy(&translation, "p", "Accepted"), "False/TargetNotFound");
    assert_eq!(names(&translation.graph), [""]);
}

#[test]
fn an_invalid_policy_closes_its_backend() {
    let missing = TRUST.replace("name: ca", "name: missing");
    let empty = TRUST.replace("name: ca", "name: empty");
    let kind = TRUST.replace("ConfigMap", "Pod");
    let both = TRUST.replace("}]}", "}], wellKnownCACertificates: System}");
    let sans = |san: &str| TRUST.replace("}]}", &format!("}}], subjectAltNames: [{san}]}}"));
    let no_ca = "False/NoValidCACertificate";
    let (unresolved, resolved) = ("False/InvalidCACertificateRef", "True/ResolvedRefs");
    for (validation, accepted, refs) in [
        (missing, no_ca, unresolved),
        (empty, no_ca, unresolved),
        (kind, no_ca, "False/InvalidKind"),
        (both, "False/Invalid", resolved),
        ("{hostname: a.example}".to_owned(), "False/Invalid", resolved),
        (
            "{hostname: a.example, wellKnownCACertificates: Other}".to_owned(),
            "False/Invalid",
            resolved,
        ),
        (TRUST.replace("a.example", "'*.example'"), "False/Invalid", resolved),
        (sans("{type: URI, uri: nope}"), "False/Invalid", resolved),
        (sans("{type: Email, hostname: a}"), "False/Invalid", resolved),
    ] {
        let empty = "
kind: ConfigMap
metadata: {name: empty, namespace: infra}
data: {ca.crt: ''}";
        let translation = translate(&with(&[empty, &policy("p", "name: app", &validation)]));
        assert_eq!(of_policy(&translation, "p", "Accepted"), accepted, "{validation}");
        assert_eq!(of_policy(&translation, "p", "ResolvedRefs"), refs, "{validation}");
        assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "False/InvalidPolicy");
        assert_eq!(outcome(&translation.graph, 80, "x.test", "/"), "InvalidPolicy*1");
        assert_eq!(translation.graph.backends.len(), 0, "nothing is sent in clear text");
    }
}

#[test]
fn one_good_authority_is_enough_and_the_bad_one_is_told() {
    let both = TRUST.replace("}]}", "}, {group: '', kind: ConfigMap, name: missing}]}");
    let translation = translate(&with(&[&policy("p", "name: app", &both)]));
    assert_eq!(of_policy(&translation, "p", "Accepted"), "True/Accepted");
    assert_eq!(of_policy(&translation, "p", "ResolvedRefs"), "False/InvalidCACertificateRef");
    assert_eq!(names(&translation.graph), ["a.example"]);
}

#[test]
fn cluster_trust_bundles_and_secrets_are_authorities_too() {
    let pem = authority("x")["data"]["ca.crt"].clone();
    for (group, kind, object) in [
        (
            "certificates.k8s.io",
            "ClusterTrustBundle",
            json!({"metadata": {"name": "own"}, "spec": {"trustBundle": pem}}),
        ),
        (
            "''",
            "Secret",
            json!({"metadata": {"name": "own", "namespace": "infra"}, "stringData": {"ca.crt": pem}}),
        ),
    ] {
        let refs = format!("[{{group: {group}, kind: {kind}, name: own}}]");
        let validation = format!("{{hostname: a.example, caCertificateRefs: {refs}}}");
        let mut snapshot = with(&[&policy("p", "name: app", &validation)]);
        let mut object = object;
        object["kind"] = kind.into();
        put(&mut snapshot, object);
        let translation = translate(&snapshot);
        assert_eq!(of_policy(&translation, "p", "ResolvedRefs"), "True/ResolvedRefs", "{kind}");
        assert_eq!(names(&translation.graph), ["a.example"]);
    }
}

#[test]
fn a_policy_stands_above_the_annotations_of_the_service() {
    let service = "
kind: Service
metadata: {name: app, namespace: infra, annotations: {tidegate.dev/backend-tls-verify: 'false'}}
spec: {ports: [{port: 8080, appProtocol: https}]}";
    let identity = |parts: &[&str]| {
        let graph = translate(&with(parts)).graph;
        let BackendProtocol::Tls(tls) = &graph.backends[0].protocol else { panic!() };
        tls.identity
    };
    let system = "{hostname: app.infra.svc, wellKnownCACertificates: System}";
    assert_ne!(identity(&[service]), identity(&[service, &policy("p", "name: app", system)]));
}

#[test]
fn of_the_options_only_ours_must_be_known() {
    for (option, accepted) in [
        ("example.com/x: yes-please", "True/Accepted"),
        ("tidegate.dev/min-tls-version: '1.3'", "True/Accepted"),
        ("tidegate.dev/min-tls-version: '1.1'", "False/Invalid"),
        ("tidegate.dev/ciphers: all", "False/Invalid"),
    ] {
        let policy = format!("{}\n  options: {{{option}}}", policy("p", "name: app", TRUST));
        let translation = translate(&with(&[&policy]));
        assert_eq!(of_policy(&translation, "p", "Accepted"), accepted, "{option}");
    }
}

#[test]
fn a_gateway_shows_its_certificate_over_connections_of_its_own() {
    let mutual = GATEWAY.split("\n---").nth(1).unwrap().replace("name: gw,", "name: mutual,")
        + "  tls: {backend: {clientCertificateRef: {name: client}}}";
    let both = route("r", TO_APP).replace("{name: gw}", "{name: gw}, {name: mutual}");
    let mut snapshot = with(&[&mutual, &both, &policy("p", "name: app", TRUST)]);
    put(&mut snapshot, secret("client", "infra", &["client.example"]));
    let translation = translate(&snapshot);
    let contexts = |key: &BackendKey| key.context.as_deref().map(str::to_owned);
    let mut all: Vec<_> = translation.graph.backends.iter().map(|b| contexts(&b.key)).collect();
    all.sort();
    assert_eq!(all, [None, Some("infra/mutual".to_owned())]);
    let shows = |b: &crate::graph::Backend| match &b.protocol {
        BackendProtocol::Tls(tls) => {
            (tls.config.client_auth_cert_resolver.has_certs(), tls.identity)
        }
        other => panic!("{other:?}"),
    };
    let shown: BTreeMap<_, _> = translation.graph.backends.iter().map(shows).collect();
    assert_eq!(shown.keys().copied().collect::<Vec<_>>(), [false, true]);
    assert_ne!(shown[&true], shown[&false]);
    let status = written(&translation, ObjectKind::BackendTlsPolicy, "p").unwrap();
    assert_eq!(status["ancestors"].as_array().unwrap().len(), 2);
}

#[test]
fn sixteen_ancestors_are_the_most() {
    let gateway = GATEWAY.split("\n---").nth(1).unwrap();
    let names: Vec<String> = (10..30).map(|n| format!("g{n}")).collect();
    let gateways: Vec<String> =
        names.iter().map(|n| gateway.replace("name: gw,", &format!("name: {n},"))).collect();
    let parents: Vec<String> = names.iter().map(|n| format!("{{name: {n}}}")).collect();
    let route = route("r", TO_APP).replace("{name: gw}", &parents.join(", "));
    let policy = policy("p", "name: app", TRUST);
    let mut parts = vec![&*route, &policy];
    parts.extend(gateways.iter().map(String::as_str));
    let translation = translate(&with(&parts));
    let status = written(&translation, ObjectKind::BackendTlsPolicy, "p").unwrap();
    assert_eq!(status["ancestors"].as_array().unwrap().len(), 16);
}
