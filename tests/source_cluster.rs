//! The cluster's side of `source`, against an API server that does everything wrong that API
//! servers do.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fake_api;

use std::sync::Arc;
use std::time::Duration;

use fake_api::{Failure, FakeApi, until};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tidegate::api::gateway::HttpRoute;
use tidegate::graph::{
    Backend, BackendKey, BackendProtocol, EndpointSet, RouteGraph, Shared, Transport,
};
use tidegate::source::{ClusterSource, KeyTimes, Source, Timing};
use tidegate::translate::{Key, ObjectKind, Settings, Snapshot};

const KEYS: KeyTimes = KeyTimes {
    refetch: Duration::from_millis(50),
    retry: Duration::from_millis(20),
    patience: Duration::from_secs(1),
    stale: Duration::from_secs(60),
};

const FAST: Timing = Timing {
    backoff: Duration::from_millis(5),
    backoff_max: Duration::from_millis(20),
    missing: Duration::from_millis(50),
    poll: Duration::from_millis(50),
    watch_seconds: 60,
    keys: KEYS,
};

fn start(api: &FakeApi, settings: Settings) -> Source {
    start_with(api, settings, Arc::new(Shared::default()))
}

fn start_with(api: &FakeApi, settings: Settings, shared: Arc<Shared>) -> Source {
    let settings = Arc::new(Settings { cluster: true, ..settings });
    Source::Cluster(ClusterSource::start_with(api.client(), settings, shared, FAST))
}

/// The snapshot of the next pass.
async fn pass(source: &mut Source) -> Snapshot {
    tokio::time::timeout(Duration::from_secs(10), source.changed()).await.expect("a pass is due");
    source.snapshot()
}

/// Passes until `done`.
async fn passes(source: &mut Source, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
    loop {
        let snapshot = pass(source).await;
        if done(&snapshot) {
            return snapshot;
        }
    }
}

/// No pass becomes due.
async fn quiet(source: &mut Source) {
    let waited = tokio::time::timeout(Duration::from_millis(400), source.changed()).await;
    assert!(waited.is_err(), "a pass is due, but nothing changed");
}

fn route(name: &str, path: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"namespace": "a", "name": name, "managedFields": [{"manager": "x"}]},
        "spec": {"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}]}]},
    })
}

fn broken_route(name: &str) -> Value {
    let mut object = route(name, "/");
    object["spec"]["rules"] = json!([{"matches": 7}]);
    object
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": name},
           "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": 80}]}})
}

fn slice(name: &str, service: &str, address: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
           "metadata": {"namespace": "a", "name": name,
                        "labels": {"kubernetes.io/service-name": service}},
           "endpoints": [{"addresses": [address]}],
           "ports": [{"name": "", "port": 80, "protocol": "TCP"}]})
}

fn secret(name: &str, kind: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "a", "name": name},
           "type": kind, "data": {"auth": "eDp5"}})
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.http_routes.keys().map(|key| key.name.as_str()).collect()
}

fn a(name: &str) -> Key {
    Key::new("a", name)
}

#[tokio::test]
async fn the_first_pass_waits_until_everything_was_listed() {
    let api = FakeApi::start().await;
    for n in 0..1203 {
        api.put(service(&format!("s{n:04}")));
    }
    api.put(route("r", "/"));
    let refused = Failure { plural: "ingresses".into(), verb: Some("LIST"), status: 403 };
    api.fail(refused, 3);
    let mut source = start(&api, Settings::default());
    let snapshot = pass(&mut source).await;
    assert_eq!(snapshot.services.len(), 1203);
    assert_eq!(names(&snapshot), ["r"]);
    assert!(snapshot.http_routes[&a("r")].metadata.managed_fields.is_none());
    let pages = api.requests().iter().filter(|r| r.path == "/api/v1/services").count();
    assert!(pages >= 3, "a list of 1203 comes in pages of 500");
    let lists = api.requests().iter().filter(|r| r.path.ends_with("/ingresses")).count();
    assert!(lists >= 4, "the refused list was tried again");
    quiet(&mut source).await;
}

#[tokio::test]
async fn an_undecodable_object_hurts_only_itself() {
    let api = FakeApi::start().await;
    api.put(route("good", "/good"));
    api.put(broken_route("never-good"));
    api.put(route("turns-bad", "/before"));
    let mut source = start(&api, Settings::default());
    let snapshot = pass(&mut source).await;
    assert_eq!(names(&snapshot), ["good", "turns-bad"]);
    assert_eq!(snapshot.undecodable.len(), 1);
    assert_eq!(snapshot.undecodable[0].key, a("never-good"));
    let message = &snapshot.undecodable[0].message;
    assert!(message.starts_with("spec.rules[0].matches: "), "{message}");

    let before = Arc::clone(&snapshot.http_routes[&a("turns-bad")]);
    api.put(broken_route("turns-bad"));
    api.put(route("new", "/new"));
    let snapshot = passes(&mut source, |s| s.http_routes.contains_key(&a("new"))).await;
    assert_eq!(snapshot.undecodable.len(), 2);
    assert!(Arc::ptr_eq(&before, &snapshot.http_routes[&a("turns-bad")]), "last good version");

    api.put(route("never-good", "/"));
    let snapshot = passes(&mut source, |s| s.undecodable.len() == 1).await;
    assert!(snapshot.http_routes.contains_key(&a("never-good")));

    api.delete("httproutes", "a", "turns-bad");
    let snapshot = passes(&mut source, |s| s.undecodable.is_empty()).await;
    assert!(!snapshot.http_routes.contains_key(&a("turns-bad")));
}

#[tokio::test]
async fn a_410_event_lists_again() {
    let api = FakeApi::start().await;
    api.put(route("old", "/"));
    let mut source = start(&api, Settings::default());
    pass(&mut source).await;
    until("routes are watched", || api.watches("httproutes") == 1).await;
    api.expire_watches("httproutes");
    api.put(route("new", "/"));
    let snapshot = passes(&mut source, |s| s.http_routes.len() == 2).await;
    assert_eq!(names(&snapshot), ["new", "old"]);
}

#[tokio::test]
async fn a_410_answer_lists_again_and_does_not_loop() {
    let api = FakeApi::start().await;
    api.put(route("old", "/"));
    let mut source = start(&api, Settings::default());
    pass(&mut source).await;
    until("routes are watched", || api.watches("httproutes") == 1).await;
    api.compact(true);
    api.delete("httproutes", "a", "old");
    api.put(route("new", "/"));
    api.cut_connections();
    let snapshot = passes(&mut source, |s| s.http_routes.contains_key(&a("new"))).await;
    assert_eq!(names(&snapshot), ["new"]);
    assert!(source.handle().stats().counts().watch_restarts >= 1);
}

#[tokio::test]
async fn a_cut_connection_loses_nothing() {
    let api = FakeApi::start().await;
    api.put(route("old", "/"));
    let mut source = start(&api, Settings::default());
    pass(&mut source).await;
    until("routes are watched", || api.watches("httproutes") == 1).await;
    api.go_away();
    api.delete("httproutes", "a", "old");
    api.put(route("new", "/"));
    api.come_back();
    let snapshot = passes(&mut source, |s| !s.http_routes.contains_key(&a("old"))).await;
    assert_eq!(names(&snapshot), ["new"]);
}

#[tokio::test]
async fn a_kind_that_is_installed_later_is_found() {
    let api = FakeApi::start().await;
    api.uninstall("httproutes");
    api.uninstall("middlewares");
    let mut source = start(&api, Settings::default());
    assert!(pass(&mut source).await.http_routes.is_empty());
    api.install("httproutes");
    api.put(route("new", "/"));
    let snapshot = pass(&mut source).await;
    assert_eq!(names(&snapshot), ["new"]);
}

#[tokio::test]
async fn a_kind_that_is_removed_later_becomes_empty() {
    let api = FakeApi::start().await;
    api.put(route("r", "/"));
    let mut source = start(&api, Settings::default());
    pass(&mut source).await;
    api.uninstall("httproutes");
    passes(&mut source, |s| s.http_routes.is_empty()).await;
}

#[tokio::test]
async fn one_404_is_not_believed() {
    let api = FakeApi::start().await;
    api.put(route("r", "/"));
    let mut source = start(&api, Settings::default());
    pass(&mut source).await;
    until("routes are watched", || api.watches("httproutes") == 1).await;
    api.fail(Failure { plural: "httproutes".into(), verb: Some("LIST"), status: 404 }, 1);
    api.expire_watches("httproutes");
    until("they are watched again", || api.watches("httproutes") == 1).await;
    assert_eq!(names(&source.snapshot()), ["r"]);
    quiet(&mut source).await;
}

#[tokio::test]
async fn older_versions_of_reference_grants_are_read() {
    let api = FakeApi::start().await;
    // The fake server knows plurals only: the first list is the one of v1.
    api.fail(Failure { plural: "referencegrants".into(), verb: Some("LIST"), status: 404 }, 1);
    let mut source = start(&api, Settings::default());
    pass(&mut source).await;
    let older = "/apis/gateway.networking.k8s.io/v1beta1/referencegrants";
    assert!(api.requests().iter().any(|r| r.path == older));
}

#[tokio::test]
async fn errors_never_make_the_config_smaller() {
    let api = FakeApi::start().await;
    api.put(route("kept", "/"));
    api.put(route("deleted", "/"));
    let mut source = start(&api, Settings::default());
    pass(&mut source).await;
    until("routes are watched", || api.watches("httproutes") == 1).await;
    let before = source.handle().stats().counts().watch_errors;
    api.fail(Failure { plural: "httproutes".into(), verb: None, status: 500 }, 20);
    api.delete("httproutes", "a", "deleted");
    passes(&mut source, |s| s.http_routes.len() == 1).await;
    api.expire_watches("httproutes");
    until("many tries failed", || {
        assert_eq!(names(&source.snapshot()), ["kept"]);
        source.handle().stats().counts().watch_errors >= before + 20
    })
    .await;
    api.put(route("new", "/"));
    let snapshot = passes(&mut source, |s| s.http_routes.len() == 2).await;
    assert_eq!(names(&snapshot), ["kept", "new"]);
}

#[tokio::test]
async fn our_own_status_writes_call_for_no_pass_and_those_of_others_do() {
    let api = FakeApi::start().await;
    api.put(route("r", "/"));
    let mut source = start(&api, Settings::default());
    pass(&mut source).await;
    until("routes are watched", || api.watches("httproutes") == 1).await;
    let routes: Api<HttpRoute> = Api::namespaced(api.client(), "a");
    let write = async |parents: Value| {
        let mut object = api.get("httproutes", "a", "r").unwrap();
        object["status"] = json!({"parents": parents});
        let route: HttpRoute = serde_json::from_value(object).unwrap();
        let written = routes.replace_status("r", &PostParams::default(), &route).await.unwrap();
        written.metadata.resource_version.unwrap()
    };
    let parent = |by: &str| json!([{"parentRef": {"name": "g"}, "controllerName": by}]);

    let version = write(parent("us")).await;
    source.echoes().expect(ObjectKind::HttpRoute, &a("r"), &version);
    quiet(&mut source).await;
    let route = Arc::clone(&source.snapshot().http_routes[&a("r")]);
    assert_eq!(route.metadata.resource_version.as_deref(), Some(version.as_str()));
    assert_eq!(source.handle().stats().counts().echoes, 1);

    write(parent("others")).await;
    pass(&mut source).await;
}

#[tokio::test]
async fn a_write_that_changes_nothing_that_is_read_calls_for_no_pass() {
    let api = FakeApi::start().await;
    api.put(route("r", "/"));
    let mut source = start(&api, Settings::default());
    pass(&mut source).await;
    until("routes are watched", || api.watches("httproutes") == 1).await;
    let mut again = route("r", "/");
    again["metadata"]["managedFields"] = json!([{"manager": "another"}]);
    let version = api.put(again);
    until("the new version has come", || {
        let route = Arc::clone(&source.snapshot().http_routes[&a("r")]);
        route.metadata.resource_version.as_deref() == Some(version.as_str())
    })
    .await;
    quiet(&mut source).await;
}

fn live_graph(shared: &Shared, service: &str) -> Arc<EndpointSet> {
    let key = BackendKey {
        kind: "Service",
        namespace: "a".into(),
        service: service.into(),
        port: 80,
        protocol: "http",
        context: None,
    };
    let backend = Backend::new(key, BackendProtocol::Http1, &[]);
    shared.publish(RouteGraph { backends: vec![backend].into(), ..RouteGraph::default() });
    Arc::clone(&shared.load().backends[0].endpoints)
}

fn addresses(set: &EndpointSet) -> Vec<String> {
    set.addrs().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn endpoints_reach_the_live_graph_without_a_pass() {
    let api = FakeApi::start().await;
    api.put(service("s"));
    let shared = Arc::new(Shared::default());
    let mut source = start_with(&api, Settings::default(), Arc::clone(&shared));
    pass(&mut source).await;
    let set = live_graph(&shared, "s");
    api.put(slice("s-1", "s", "10.1.0.1"));
    until("the address is there", || addresses(&set) == ["10.1.0.1:80"]).await;
    api.put(slice("s-2", "s", "10.1.0.2"));
    until("both are there", || addresses(&set) == ["10.1.0.1:80", "10.1.0.2:80"]).await;
    api.delete("endpointslices", "a", "s-1");
    until("one is gone", || addresses(&set) == ["10.1.0.2:80"]).await;
    quiet(&mut source).await;

    // A graph that is made from an older snapshot gets what came since.
    live_graph(&shared, "s");
    until("it is there again", || {
        addresses(&shared.load().backends[0].endpoints) == ["10.1.0.2:80"]
    })
    .await;
}

#[tokio::test]
async fn slices_that_translate_compares_call_for_a_pass() {
    let api = FakeApi::start().await;
    let own_service = Some(Key::new("a", "tidegate"));
    let mut source = start(&api, Settings { own_service, ..Settings::default() });
    pass(&mut source).await;
    api.put(slice("own", "tidegate", "10.1.0.1"));
    pass(&mut source).await;
    let mut ours = slice("gateway", "g", "10.1.0.1");
    ours["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "tidegate".into();
    api.put(ours);
    pass(&mut source).await;
}

#[tokio::test]
async fn only_tls_secrets_and_those_that_are_referred_to_are_held() {
    let api = FakeApi::start().await;
    api.put(secret("cert", "kubernetes.io/tls"));
    api.put(secret("users", "Opaque"));
    api.put(secret("private", "Opaque"));
    let middleware = |secret: &str| {
        json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "Middleware",
               "metadata": {"namespace": "a", "name": "m"},
               "spec": {"authentication": {"methods": [{"basic": {"secretRef": {"name": secret}}}]}}})
    };
    api.put(middleware("users"));
    let mut source = start(&api, Settings::default());
    let held = |snapshot: &Snapshot| -> Vec<String> {
        snapshot.secrets.keys().map(|key| key.name.clone()).collect()
    };
    let snapshot = pass(&mut source).await;
    assert_eq!(held(&snapshot), ["cert", "users"], "the first pass has it already");

    api.put(secret("others", "Opaque"));
    api.put(middleware("others"));
    let snapshot = pass(&mut source).await;
    assert!(snapshot.secrets.contains_key(&a("others")), "no pass without it");
    until("the old one is let go", || held(&source.snapshot()) == ["cert", "others"]).await;

    let mut rotated = secret("others", "Opaque");
    rotated["data"]["auth"] = "eDp6".into();
    api.put(rotated);
    passes(&mut source, |s| {
        let data = s.secrets[&a("others")].data.as_ref().unwrap();
        data["auth"].0 == b"x:z"
    })
    .await;
}

fn gateway(secrets: &[&str]) -> Value {
    let refs: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
           "metadata": {"namespace": "a", "name": "g"},
           "spec": {"gatewayClassName": "tidegate", "listeners": [{
               "name": "tls", "port": 443, "protocol": "HTTPS",
               "tls": {"certificateRefs": refs}}]}})
}

fn named_watches(api: &FakeApi, plural: &str) -> Vec<String> {
    let watched = |r: &&fake_api::Request| {
        r.path.ends_with(plural)
            && r.query.contains("metadata.name")
            && !r.query.contains("watch=true")
    };
    let name = |r: &fake_api::Request| {
        let (_, name) = r.query.split_once("metadata.name%3D").unwrap();
        name.split('&').next().unwrap().to_owned()
    };
    api.requests().iter().filter(watched).map(name).collect()
}

#[tokio::test]
async fn a_certificate_of_any_type_is_held_and_only_the_odd_ones_are_watched_alone() {
    let api = FakeApi::start().await;
    api.put(secret("plain", "kubernetes.io/tls"));
    api.put(secret("odd", "Opaque"));
    api.put(gateway(&["plain", "odd"]));
    let mut source = start(&api, Settings::default());
    let snapshot = pass(&mut source).await;
    assert!(snapshot.secrets.contains_key(&a("plain")) && snapshot.secrets.contains_key(&a("odd")));
    assert_eq!(named_watches(&api, "secrets"), ["odd"]);

    // One that comes back as another type is found all the same.
    api.delete("secrets", "a", "plain");
    passes(&mut source, |s| !s.secrets.contains_key(&a("plain"))).await;
    api.put(secret("plain", "Opaque"));
    passes(&mut source, |s| s.secrets.contains_key(&a("plain"))).await;
}

#[tokio::test]
async fn only_config_maps_that_are_referred_to_are_held() {
    let api = FakeApi::start().await;
    let config_map = |name: &str, data: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
               "metadata": {"namespace": "a", "name": name}, "data": {"ca.crt": data}})
    };
    api.put(config_map("ca", "one"));
    api.put(config_map("private", "x"));
    api.put(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
        "metadata": {"namespace": "a", "name": "p"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "s"}],
                 "validation": {"hostname": "a.test", "caCertificateRefs": [
                     {"group": "", "kind": "ConfigMap", "name": "ca"}]}}}));
    let mut source = start(&api, Settings::default());
    let snapshot = pass(&mut source).await;
    assert_eq!(snapshot.config_maps.keys().collect::<Vec<_>>(), [&a("ca")]);
    assert!(!api.requests().iter().any(|r| r.path == "/api/v1/configmaps"), "never all of them");

    api.put(config_map("ca", "two"));
    passes(&mut source, |s| {
        s.config_maps[&a("ca")].data.as_ref().is_some_and(|data| data["ca.crt"] == "two")
    })
    .await;
    api.delete("backendtlspolicies", "a", "p");
    until("it is let go", || source.snapshot().config_maps.is_empty()).await;
}

#[tokio::test]
async fn the_standard_channel_is_enough_and_the_experimental_one_may_come_later() {
    let api = FakeApi::start().await;
    let experimental = ["xbackends", "xbackendtrafficpolicies", "clustertrustbundles"];
    experimental.iter().for_each(|plural| api.uninstall(plural));
    api.put(route("r", "/"));
    let mut source = start(&api, Settings::default());
    assert_eq!(names(&pass(&mut source).await), ["r"]);
    experimental.iter().for_each(|plural| api.install(plural));
    api.put(json!({"apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackend",
        "metadata": {"namespace": "a", "name": "b"},
        "spec": {"type": "ExternalHostname", "port": {"number": 443},
                 "externalHostname": {"hostname": "example.com"}}}));
    api.put(json!({"apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
        "metadata": {"name": "roots"}, "spec": {"trustBundle": "PEM"}}));
    let snapshot = passes(&mut source, |s| {
        s.x_backends.contains_key(&a("b")) && !s.cluster_trust_bundles.is_empty()
    })
    .await;
    assert_eq!(snapshot.x_backends[&a("b")].spec.port.number, 443);
    let bundle = &snapshot.cluster_trust_bundles[&Key::new("", "roots")];
    assert_eq!(bundle.spec.trust_bundle, "PEM");
}

#[tokio::test]
async fn hosts_of_backends_outside_are_resolved_without_external_names() {
    let api = FakeApi::start().await;
    api.put(json!({"apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackend",
        "metadata": {"namespace": "a", "name": "b"},
        "spec": {"type": "ExternalHostname", "port": {"number": 443},
                 "externalHostname": {"hostname": "192.0.2.1"}}}));
    let mut external = service("external");
    external["spec"] = json!({"type": "ExternalName", "externalName": "192.0.2.2"});
    api.put(external);
    let mut source = start(&api, Settings::default());
    let snapshot = pass(&mut source).await;
    assert_eq!(snapshot.resolved.keys().collect::<Vec<_>>(), ["192.0.2.1"]);
}

#[tokio::test]
async fn routes_of_an_older_gateway_api_are_read_in_its_version() {
    let api = FakeApi::start().await;
    api.put(json!({"apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "TLSRoute",
        "metadata": {"namespace": "a", "name": "t"},
        "spec": {"rules": [{"backendRefs": [{"name": "s", "port": 443}]}]}}));
    // The fake server knows plurals only: the lists of v1 and v1alpha3.
    api.fail(Failure { plural: "tlsroutes".into(), verb: Some("LIST"), status: 404 }, 2);
    let mut source = start(&api, Settings::default());
    let snapshot = pass(&mut source).await;
    assert_eq!(snapshot.tls_routes[&a("t")].spec.rules[0].backend_refs[0].target.name, "s");
    let oldest = "/apis/gateway.networking.k8s.io/v1alpha2/tlsroutes";
    assert!(api.requests().iter().any(|r| r.path == oldest));
}

#[tokio::test]
async fn only_named_namespaces_are_looked_at() {
    let api = FakeApi::start().await;
    api.put(route("r", "/"));
    let mut elsewhere = route("r", "/");
    elsewhere["metadata"]["namespace"] = "b".into();
    api.put(elsewhere);
    let settings = Settings {
        watch_namespaces: vec!["a".into()],
        own_service: Some(Key::new("system", "tidegate")),
        ..Settings::default()
    };
    let mut source = start(&api, settings);
    let snapshot = pass(&mut source).await;
    assert_eq!(snapshot.http_routes.keys().collect::<Vec<_>>(), [&a("r")]);
    let asked: Vec<String> = api.requests().into_iter().map(|r| r.path).collect();
    assert!(asked.contains(&"/api/v1/namespaces/system/services".to_owned()));
    assert!(!asked.contains(&"/api/v1/secrets".to_owned()));
    assert!(!asked.contains(&"/api/v1/namespaces/system/secrets".to_owned()));
}

#[tokio::test]
async fn a_good_certificate_is_kept_until_the_secret_is_deleted() {
    let api = FakeApi::start().await;
    api.put(secret("cert", "kubernetes.io/tls"));
    let mut source = start(&api, Settings::default());
    let snapshot = pass(&mut source).await;
    let good = Arc::clone(&snapshot.secrets[&a("cert")]);
    // A newer version arrives before the pass says what it found good.
    let mut newer = secret("cert", "kubernetes.io/tls");
    newer["data"]["auth"] = "YnJva2Vu".into();
    api.put(newer);
    until("it has come", || !Arc::ptr_eq(&good, &source.handle().snapshot().secrets[&a("cert")]))
        .await;
    source.remember_good(&[a("cert")]);
    let kept = Arc::clone(&source.snapshot().good_certificates[&a("cert")]);
    assert!(Arc::ptr_eq(&good, &kept));
    api.delete("secrets", "a", "cert");
    until("it is gone", || source.snapshot().good_certificates.is_empty()).await;
}

#[tokio::test]
async fn what_the_data_plane_and_the_peers_say_calls_for_a_pass_once() {
    let api = FakeApi::start().await;
    let mut source = start(&api, Settings::default());
    pass(&mut source).await;
    let port = (Transport::Tcp, 8080);
    let listening = [(port, Ok(()))];
    source.set_listening(listening.clone().into());
    assert_eq!(pass(&mut source).await.listening[&port], Ok(()));
    source.set_listening(listening.into());
    source.set_peers(Vec::new());
    quiet(&mut source).await;
}
