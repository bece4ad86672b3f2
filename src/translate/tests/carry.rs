//! Whatever changes, a pass that carries over says what a pass over the same objects says that
//! begins with nothing.

mod change;

use change::{SORTS, populate, some_change};
use fastrand::Rng;

use super::dump::dump;
use super::*;
use crate::graph::Shared;

/// A cluster whose objects change, and what serves it.
struct Cluster {
    snapshot: Snapshot,
    shared: Shared,
    version: u64,
    passes: (usize, usize),
}

impl Cluster {
    fn new() -> Self {
        let snapshot = cluster(&[
            GATEWAY,
            "kind: Service\nmetadata: {name: gw-tidegate, namespace: infra, labels: {app.kubernetes.io/managed-by: tidegate}, annotations: {tidegate.dev/controller: tidegate.dev/gateway-controller}}\nspec: {ports: [{port: 80, targetPort: 20000}, {port: 9000, targetPort: 20001}, {port: 443, targetPort: 20002}]}",
        ]);
        Cluster { snapshot, shared: Shared::default(), version: 0, passes: (0, 0) }
    }

    /// Puts the object into the cluster, as a version of its own.
    fn put(&mut self, mut object: Value) {
        self.version += 1;
        let meta = object["metadata"].as_object_mut().unwrap();
        let name = meta["name"].as_str().unwrap().to_owned();
        meta.insert("resourceVersion".into(), self.version.to_string().into());
        meta.insert("uid".into(), format!("u-{name}").into());
        put(&mut self.snapshot, object);
    }

    fn add(&mut self, yaml: &str) {
        let object: Value = serde_saphyr::from_str(yaml).unwrap();
        self.put(object);
    }

    /// A pass, held against one that knows nothing of those before.
    fn pass(&mut self, what: &str) -> Translation {
        let carried = translate(&self.snapshot);
        let fresh = Snapshot { memo: Arc::default(), ..self.snapshot.clone() };
        let fresh = translate(&fresh);
        let same = |a: BTreeSet<String>, b: BTreeSet<String>| {
            let [more, less]: [Vec<_>; 2] =
                [a.difference(&b).collect(), b.difference(&a).collect()];
            assert!(more.is_empty() && less.is_empty(), "{what}\n+ {more:#?}\n- {less:#?}");
        };
        let lines = |of: &Translation| -> BTreeSet<String> {
            let statuses = of.statuses.iter().map(|write| format!("{write:?}"));
            let made = of.infrastructure.iter().map(|write| format!("{write:?}"));
            statuses.chain(made).chain(of.notes.iter().map(|note| format!("{note:?}"))).collect()
        };
        same(dump(&carried.graph), dump(&fresh.graph));
        same(lines(&carried), lines(&fresh));
        assert_eq!(carried.statuses.len(), fresh.statuses.len(), "{what}");
        self.passes.0 += 1;
        if carried.graph_is_new {
            self.passes.1 += 1;
        } else {
            same(dump(&carried.graph), dump(&self.shared.load()));
        }
        carried
    }

    /// What the loop does with a Translation.
    fn publish(&mut self, translation: Translation) {
        if translation.graph_is_new {
            self.shared.publish(translation.graph);
            self.snapshot.memo.published(self.shared.load());
        }
        assert_eq!(dump(&self.shared.load()), {
            let fresh = Snapshot { memo: Arc::default(), ..self.snapshot.clone() };
            dump(&translate(&fresh).graph)
        });
    }

    /// Writes a status as the controller would.
    fn write(&mut self, write: &super::super::StatusWrite) {
        macro_rules! write {
            ($($kind:ident in $field:ident),*) => {
                match write.object.kind {
                    $(ObjectKind::$kind => {
                        let objects = Arc::make_mut(&mut self.snapshot.$field);
                        if let Some(object) = objects.get_mut(&write.object.key) {
                            let object = Arc::make_mut(object);
                            let status = serde_json::from_value(write.status.clone()).unwrap();
                            object.status = Some(status);
                            self.version += 1;
                            object.metadata.resource_version = Some(self.version.to_string());
                        }
                    })*
                    _ => {}
                }
            };
        }
        write!(
            GatewayClass in gateway_classes, Gateway in gateways, HttpRoute in http_routes,
            GrpcRoute in grpc_routes, TlsRoute in tls_routes, TcpRoute in tcp_routes,
            UdpRoute in udp_routes, ListenerSet in listener_sets,
            BackendTlsPolicy in backend_tls_policies, XBackend in x_backends,
            XBackendTrafficPolicy in x_backend_traffic_policies, Middleware in middlewares,
            RateLimit in rate_limits, Consumer in consumers
        );
    }

    fn remove(&mut self, kind: &str, namespace: &str, name: &str) {
        let key = Key::new(namespace, name);
        let at = &mut self.snapshot;
        macro_rules! remove {
            ($($kind:literal in $field:ident),*) => {
                match kind {
                    $($kind => _ = Arc::make_mut(&mut at.$field).remove(&key),)*
                    "Namespace" => {
                        _ = Arc::make_mut(&mut at.namespaces).remove(&Key::new("", name));
                    }
                    other => panic!("{other}"),
                }
            };
        }
        remove!(
            "HTTPRoute" in http_routes, "GRPCRoute" in grpc_routes, "TLSRoute" in tls_routes,
            "TCPRoute" in tcp_routes, "UDPRoute" in udp_routes, "Ingress" in ingresses,
            "Service" in services, "EndpointSlice" in endpoint_slices, "Secret" in secrets,
            "ConfigMap" in config_maps, "Middleware" in middlewares, "RateLimit" in rate_limits,
            "Consumer" in consumers, "ReferenceGrant" in reference_grants,
            "ListenerSet" in listener_sets,
            "BackendTLSPolicy" in backend_tls_policies, "XBackend" in x_backends,
            "XBackendTrafficPolicy" in x_backend_traffic_policies
        );
    }

    /// Changes what is no object: names that were resolved, and settings.
    fn change_state(&mut self, rng: &mut Rng) -> String {
        let at = &mut self.snapshot;
        if rng.bool() {
            let external_names = rng.u8(..4) > 0;
            at.settings = Arc::new(Settings { external_names, ..Settings::clone(&at.settings) });
            return format!("external names: {external_names}");
        }
        let known: Vec<IpAddr> = (1..rng.u8(1..4)).map(|n| [10, 9, 0, n].into()).collect();
        at.resolved = Arc::new(BTreeMap::from([("out.example".to_owned(), known)]));
        format!("resolved: {:?}", at.resolved)
    }
}

/// Sequences of changes: each sort of object is at the centre of some.
const SEEDS: u64 = 8 * SORTS as u64;

#[test]
fn whatever_changes_a_pass_says_what_one_from_nothing_says() {
    let (mut passes, mut new) = (0, 0);
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let focus = (seed % u64::from(SORTS)) as u8;
        let mut cluster = Cluster::new();
        let mut told = format!("seed {seed}{}", populate(&mut rng, &mut cluster));
        for _ in 0..25 {
            for _ in 0..rng.u8(..4) {
                let what = some_change(&mut rng, focus, &mut cluster);
                told = format!("{told}\n{what}");
            }
            let translation = cluster.pass(&told);
            let statuses = translation.statuses.clone();
            cluster.publish(translation);
            for write in statuses.iter().filter(|_| rng.u8(..4) > 0) {
                cluster.write(write);
            }
        }
        passes += cluster.passes.0;
        new += cluster.passes.1;
    }
    assert!(new < passes, "no pass ever left the graph as it was");
}

/// How many of the routes' rules are the very ones that the last graph has.
fn shared(cluster: &Cluster, translation: &Translation) -> usize {
    let live = cluster.shared.load();
    let of_live: Vec<_> = live.rules.iter().map(std::ptr::from_ref).collect();
    translation
        .graph
        .rules
        .iter()
        .filter(|rule| of_live.contains(&std::ptr::from_ref(*rule)))
        .count()
}

/// A cluster that serves two routes, each to a Service of its own.
fn two_routes() -> Cluster {
    let mut cluster = Cluster::new();
    for name in ["one", "two"] {
        cluster.add(&format!("{{kind: Service, metadata: {{name: {name}, namespace: infra}}, spec: {{ports: [{{port: 80}}]}}}}"));
        cluster.add(&route(name, &format!("  hostnames: [{name}.example]\n  rules: [{{backendRefs: [{{name: {name}, port: 80}}]}}]")));
    }
    let first = cluster.pass("first");
    cluster.publish(first);
    cluster
}

#[test]
fn only_the_route_that_changed_is_looked_at() {
    let mut cluster = two_routes();
    let again = cluster.pass("nothing changed");
    assert!(!again.graph_is_new && shared(&cluster, &again) == 2);
    cluster.add(&route(
        "one",
        "  hostnames: [new.example]\n  rules: [{backendRefs: [{name: one, port: 80}]}]",
    ));
    let changed = cluster.pass("a route changed");
    assert!(changed.graph_is_new && shared(&cluster, &changed) == 1);
}

#[test]
fn only_the_routes_of_a_service_are_looked_at_when_it_changes() {
    let mut cluster = two_routes();
    cluster.add("{kind: Service, metadata: {name: one, namespace: infra}, spec: {ports: [{port: 80, appProtocol: kubernetes.io/h2c}]}}");
    let changed = cluster.pass("a Service changed");
    assert!(changed.graph_is_new && shared(&cluster, &changed) == 1);
    cluster.publish(changed);
    cluster.add("{kind: Service, metadata: {name: stranger, namespace: infra}, spec: {ports: [{port: 80}]}}");
    let stranger = cluster.pass("a Service that nobody names");
    assert_eq!(shared(&cluster, &stranger), 2);
}

#[test]
fn statuses_that_were_written_change_no_graph() {
    let mut cluster = two_routes();
    let asked = cluster.pass("statuses are wanted still").statuses;
    assert!(asked.len() >= 3, "of the routes and the Gateway");
    asked.iter().for_each(|write| cluster.write(write));
    let written = cluster.pass("written");
    assert!(written.statuses.is_empty());
    assert_eq!(shared(&cluster, &written), 0, "each route is another object now");
    cluster.publish(written);
    let after = cluster.pass("and then");
    assert!(!after.graph_is_new);
}

#[test]
fn a_gateway_that_changed_concerns_all() {
    let mut cluster = two_routes();
    cluster.add("{kind: Gateway, metadata: {name: gw, namespace: infra}, spec: {gatewayClassName: tidegate, listeners: [{name: other, port: 80, protocol: HTTP}]}}");
    let changed = cluster.pass("a Gateway changed");
    assert!(changed.graph_is_new && shared(&cluster, &changed) == 0);
}

#[test]
fn nothing_is_carried_over_from_a_graph_that_is_not_live() {
    let mut cluster = two_routes();
    cluster.add(&route("three", "  rules: [{backendRefs: [{name: one, port: 80}]}]"));
    // Its graph is never published.
    let lost = cluster.pass("lost");
    assert_eq!(shared(&cluster, &lost), 2);
    let next = cluster.pass("next");
    assert!(next.graph_is_new && shared(&cluster, &next) == 0);
}
