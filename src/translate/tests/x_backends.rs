//! XBackends and XBackendTrafficPolicies.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;

use super::*;
use crate::graph::{BackendProtocol, RetryBudget};

/// An XBackend `NAME` in `infra`.
fn x_backend(name: &str, spec: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {{name: {name}, namespace: infra, uid: u-{name}}}
spec: {spec}"
    )
}

/// A route to the XBackend `x`.
fn to_x() -> String {
    let group = "group: gateway.networking.x-k8s.io, kind: XBackend";
    route("r", &format!("  rules: [{{backendRefs: [{{{group}, name: x}}]}}]"))
}

const OUTSIDE: &str =
    "{type: ExternalHostname, externalHostname: {hostname: api.example.com}, port: {number: 443}}";
const PODS: &str =
    "{type: EndpointSelector, endpointSelector: {matchLabels: {app: a}}, port: {number: 3000}}";

fn resolve(snapshot: &mut Snapshot, ips: &[&str]) {
    let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    snapshot.resolved = Arc::new(BTreeMap::from([("api.example.com".to_owned(), ips)]));
}

fn addrs(graph: &RouteGraph) -> Vec<String> {
    graph.backends[0].endpoints.addrs().iter().map(ToString::to_string).collect()
}

fn of_x(translation: &Translation, r#type: &str) -> String {
    let status = written(translation, ObjectKind::XBackend, "x").expect("a status is written");
    assert_eq!(status["ancestors"][0]["ancestorRef"]["name"], "gw");
    condition(&status["ancestors"][0]["conditions"], r#type)
}

/// The Services that are asked for, but for the Gateway's own.
fn services(translation: &Translation) -> Vec<&Service> {
    let writes = translation.infrastructure.iter();
    let services = writes.filter_map(|write| match write {
        InfrastructureWrite::Service(service) => Some(&**service),
        _ => None,
    });
    services.filter(|s| s.spec.as_ref().unwrap().selector.is_some()).collect()
}

#[test]
fn a_host_outside_is_reached_at_its_addresses() {
    let mut snapshot = cluster(&[GATEWAY, &to_x(), &x_backend("x", OUTSIDE)]);
    resolve(&mut snapshot, &["198.51.100.2", "198.51.100.1"]);
    let translation = translate(&snapshot);
    assert_eq!(addrs(&translation.graph), ["198.51.100.1:443", "198.51.100.2:443"]);
    assert_eq!(of_x(&translation, "Accepted"), "True/Accepted");
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "True/ResolvedRefs");
    assert_eq!(translation.graph.backends_of("infra", "x").count(), 0, "no slices feed it");
}

#[test]
fn a_host_outside_cannot_lead_inside() {
    let service = "
kind: Service
metadata: {name: secret, namespace: other}
spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], ports: [{port: 443}]}";
    let mut snapshot = cluster(&[GATEWAY, service, &to_x(), &x_backend("x", OUTSIDE)]);
    // The metadata service, this pod, a Service, and one that is good.
    let ips =
        ["169.254.169.254", "127.0.0.1", "10.1.0.1", "10.96.0.7", "::ffff:10.96.0.7", "192.0.2.1"];
    resolve(&mut snapshot, &ips);
    let translation = translate(&snapshot);
    assert_eq!(addrs(&translation.graph), ["192.0.2.1:443"]);
    assert_eq!(notes(&translation, "x"), ["AddressNotUsable "]);
}

#[test]
fn a_host_outside_leads_neither_to_pods_nor_to_the_api_server() {
    let slice = |namespace: &str, service: &str, endpoint: &str| {
        format!(
            "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {service}-1
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: {service}}}
addressType: IPv4
endpoints: [{endpoint}]
ports: [{{port: 8080}}]"
        )
    };
    let pod = slice("other", "db", "{addresses: [10.244.3.9], targetRef: {kind: Pod, name: db-0}}");
    let api = slice("default", "kubernetes", "{addresses: [10.0.0.5]}");
    // What somebody wrote by hand is outside like any other host.
    let hand = slice("other", "legacy", "{addresses: [192.0.2.7]}");
    let x = x_backend("x", OUTSIDE);
    let mut snapshot = cluster(&[GATEWAY, &pod, &api, &hand, &to_x(), &x]);
    let ips = ["10.244.3.9", "::ffff:10.244.3.9", "10.0.0.5", "fd00:ec2::254", "192.0.2.7"];
    resolve(&mut snapshot, &ips);
    assert_eq!(addrs(&translate(&snapshot).graph), ["192.0.2.7:443"]);
}

#[test]
fn what_an_x_backend_cannot_be_is_said_in_its_status_and_refused() {
    for spec in [
        OUTSIDE.replace("api.example.com", "web.other.svc.cluster.local"),
        OUTSIDE.replace("api.example.com", "192.0.2.1"),
        OUTSIDE.replace("443", "0"),
        OUTSIDE.replace("}}", "}, protocol: HTTP2}"),
        OUTSIDE.replace("}}", "}, tls: {mode: ServerOnly}}"),
        OUTSIDE.replace("}}", "}, sessionPersistence: {}}"),
        PODS.replace("{app: a}", "{}"),
        "{type: Other, port: {number: 1}}".to_owned(),
    ] {
        let translation = translate(&cluster(&[GATEWAY, &to_x(), &x_backend("x", &spec)]));
        assert_eq!(of_x(&translation, "Accepted"), "False/Invalid", "{spec}");
        assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "False/InvalidPolicy");
        assert_eq!(translation.graph.backends.len(), 0);
    }
}

#[test]
fn tls_is_spoken_as_the_x_backend_says() {
    let tls = "}, tls: {mode: ClientAndServer, clientCertificateRef: {name: client}, validation: \
               {hostname: api.example.com, wellKnownCACertificates: System}}}";
    let x = x_backend("x", &OUTSIDE.replace("}}", tls));
    let mut snapshot = cluster(&[GATEWAY, &to_x(), &x]);
    let refused = translate(&snapshot);
    assert_eq!(of_x(&refused, "ResolvedRefs"), "False/InvalidClientCertificateRef");
    assert_eq!(refused.graph.backends.len(), 0);
    put(&mut snapshot, secret("client", "infra", &["client.example"]));
    let translation = translate(&snapshot);
    let BackendProtocol::Tls(tls) = &translation.graph.backends[0].protocol else { panic!() };
    assert_eq!(tls.server_name.to_str(), "api.example.com");
    assert!(tls.config.client_auth_cert_resolver.has_certs());
}

#[test]
fn routes_name_only_x_backends_beside_them_and_no_port() {
    let elsewhere = to_x().replace("name: x}", "name: x, namespace: other}");
    let grant = "
kind: ReferenceGrant
metadata: {name: g, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: infra}]
  to: [{group: gateway.networking.x-k8s.io, kind: XBackend}]";
    let x = x_backend("x", OUTSIDE);
    let other = x.replace("namespace: infra", "namespace: other");
    let translation = translate(&cluster(&[GATEWAY, grant, &elsewhere, &other]));
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "False/RefNotPermitted");
    let with_port = to_x().replace("name: x}", "name: x, port: 1}");
    let translation = translate(&cluster(&[GATEWAY, &with_port, &x]));
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "False/UnsupportedValue");
    let translation = translate(&cluster(&[GATEWAY, &to_x()]));
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "False/BackendNotFound");
}

#[test]
fn pods_are_found_by_a_headless_service_without_a_name_to_rely_on() {
    let mut snapshot = cluster(&[GATEWAY, &to_x(), &x_backend("x", PODS)]);
    let translation = translate(&snapshot);
    let [service] = services(&translation)[..] else { panic!() };
    let mut service = service.clone();
    let (meta, spec) = (&service.metadata, service.spec.as_ref().unwrap());
    assert_eq!((meta.name.as_deref(), meta.generate_name.as_deref()), (None, Some("x-")));
    assert_eq!(meta.owner_references.as_ref().unwrap()[0].uid, "u-x");
    assert_eq!(spec.cluster_ip.as_deref(), Some("None"));
    assert_eq!(spec.selector.as_ref().unwrap()["app"], "a");
    assert_eq!(addrs(&translation.graph), [""; 0]);

    // The API server names it, and its controllers find the pods.
    service.metadata.name = Some("x-abcde".into());
    put(&mut snapshot, serde_json::to_value(&service).unwrap());
    let slice = "
kind: EndpointSlice
metadata: {name: x-abcde-1, namespace: infra, labels: {kubernetes.io/service-name: x-abcde}}
addressType: IPv4
ports: [{name: '', port: 3000, protocol: TCP}]
endpoints: [{addresses: [10.0.0.9]}]";
    add(&mut snapshot, slice);
    let translation = translate(&snapshot);
    assert_eq!(services(&translation), [] as [&Service; 0]);
    assert_eq!(addrs(&translation.graph), ["10.0.0.9:3000"]);
    let fed: Vec<_> = translation.graph.backends_of("infra", "x-abcde").collect();
    assert_eq!((fed[0].key.kind, &*fed[0].key.service), ("XBackend", "x"));
}

#[test]
fn the_service_of_pods_follows_and_one_is_enough() {
    let mut snapshot = cluster(&[GATEWAY, &to_x(), &x_backend("x", PODS)]);
    let translation = translate(&snapshot);
    let made = services(&translation)[0].clone();
    for name in ["x-b", "x-a"] {
        let mut service = made.clone();
        service.metadata.name = Some(name.into());
        put(&mut snapshot, serde_json::to_value(&service).unwrap());
    }
    let deleted = |translation: &Translation| -> Vec<String> {
        let writes = translation.infrastructure.iter();
        let keys = writes.filter_map(|write| match write {
            InfrastructureWrite::DeleteService(key) => Some(key.name.clone()),
            _ => None,
        });
        keys.collect()
    };
    assert_eq!(deleted(&translate(&snapshot)), ["x-b"]);
    add(&mut snapshot, &x_backend("x", &PODS.replace("app: a", "app: b")));
    let translation = translate(&snapshot);
    let [service] = services(&translation)[..] else { panic!() };
    assert_eq!(service.metadata.name.as_deref(), Some("x-a"));
    assert_eq!(service.spec.as_ref().unwrap().selector.as_ref().unwrap()["app"], "b");
    add(&mut snapshot, &x_backend("x", OUTSIDE));
    assert_eq!(deleted(&translate(&snapshot)), ["x-a", "x-b"]);
}

#[test]
fn the_service_of_another_owner_is_not_taken() {
    let mut snapshot = cluster(&[GATEWAY, &to_x(), &x_backend("x", PODS)]);
    let mut service = services(&translate(&snapshot))[0].clone();
    service.metadata.name = Some("x-old".into());
    service.metadata.owner_references.as_mut().unwrap()[0].uid = "u-before".into();
    put(&mut snapshot, serde_json::to_value(&service).unwrap());
    let translation = translate(&snapshot);
    assert_eq!(services(&translation).len(), 1);
    assert_eq!(translation.graph.backends_of("infra", "x-old").count(), 0);
}

#[test]
fn nothing_is_made_for_an_x_backend_that_nobody_reaches() {
    let translation = translate(&cluster(&[GATEWAY, &x_backend("x", PODS)]));
    assert_eq!(services(&translation).len(), 0);
    assert_eq!(written(&translation, ObjectKind::XBackend, "x"), None);
}

/// An XBackendTrafficPolicy in `infra`.
fn traffic(name: &str, target: &str, spec: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {{name: {name}, namespace: infra}}
spec: {{targetRefs: [{target}], {spec}}}"
    )
}

const TO_SERVICE: &str = "{group: '', kind: Service, name: app}";

fn of_traffic(translation: &Translation, name: &str) -> String {
    let kind = ObjectKind::XBackendTrafficPolicy;
    let status = written(translation, kind, name).expect("a status is written");
    condition(&status["ancestors"][0]["conditions"], "Accepted")
}

#[test]
fn a_traffic_policy_gives_its_target_a_budget_and_sessions() {
    let policy = traffic("p", TO_SERVICE, "retryConstraint: {}, sessionPersistence: {}");
    let translation = translate(&world(&[GATEWAY, SERVICE, &route("r", TO_APP), &policy]));
    let backend = &translation.graph.backends[0];
    let second = Duration::from_secs(1);
    let budget = RetryBudget { percent: 20, interval: 10 * second, min_rate: (10, second) };
    assert_eq!(backend.retry_budget, Some(budget));
    assert!(backend.session.is_some());
    assert_eq!(of_traffic(&translation, "p"), "True/Accepted");
}

#[test]
fn the_first_traffic_policy_holds_and_an_invalid_one_changes_nothing() {
    let first = traffic("a", TO_SERVICE, "retryConstraint: {budget: {percent: 101}}");
    let second = traffic("b", TO_SERVICE, "retryConstraint: {}");
    let parts = [GATEWAY, SERVICE, &route("r", TO_APP), &first, &second];
    let translation = translate(&world(&parts));
    assert_eq!(of_traffic(&translation, "a"), "False/Invalid");
    assert_eq!(of_traffic(&translation, "b"), "False/Conflicted");
    assert_eq!(translation.graph.backends[0].retry_budget, None);
    assert_eq!(of_route(&translation, "r", "ResolvedRefs"), "True/ResolvedRefs");
}

#[test]
fn the_sessions_of_an_x_backend_stand_above_its_policys() {
    let sessions = "{sessionPersistence: {absoluteTimeout: 1h}, type";
    let x = x_backend("x", &PODS.replace("{type", sessions));
    let target = "{group: gateway.networking.x-k8s.io, kind: XBackend, name: x}";
    let policy = traffic("p", target, "retryConstraint: {}, sessionPersistence: {}");
    let translation = translate(&cluster(&[GATEWAY, &to_x(), &x, &policy]));
    let backend = &translation.graph.backends[0];
    let absolute = backend.session.as_ref().unwrap().absolute;
    assert_eq!(absolute, Some(Duration::from_secs(3600)));
    assert!(backend.retry_budget.is_some());
    assert_eq!(of_traffic(&translation, "p"), "True/Accepted");
}
