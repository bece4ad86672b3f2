//! Whatever changes, a pass that carries over says what a pass over the same objects says that
//! begins with nothing.

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
            GrpcRoute in grpc_routes, TcpRoute in tcp_routes, ListenerSet in listener_sets,
            BackendTlsPolicy in backend_tls_policies, XBackend in x_backends,
            XBackendTrafficPolicy in x_backend_traffic_policies, Middleware in middlewares,
            RateLimit in rate_limits
        );
    }

    fn remove(&mut self, kind: &str, namespace: &str, name: &str) {
        let key = Key::new(namespace, name);
        let at = &mut self.snapshot;
        match kind {
            "HTTPRoute" => _ = Arc::make_mut(&mut at.http_routes).remove(&key),
            "GRPCRoute" => _ = Arc::make_mut(&mut at.grpc_routes).remove(&key),
            "TCPRoute" => _ = Arc::make_mut(&mut at.tcp_routes).remove(&key),
            "Ingress" => _ = Arc::make_mut(&mut at.ingresses).remove(&key),
            "Service" => _ = Arc::make_mut(&mut at.services).remove(&key),
            "EndpointSlice" => _ = Arc::make_mut(&mut at.endpoint_slices).remove(&key),
            "Middleware" => _ = Arc::make_mut(&mut at.middlewares).remove(&key),
            "RateLimit" => _ = Arc::make_mut(&mut at.rate_limits).remove(&key),
            "Namespace" => _ = Arc::make_mut(&mut at.namespaces).remove(&Key::new("", name)),
            "ReferenceGrant" => _ = Arc::make_mut(&mut at.reference_grants).remove(&key),
            "ListenerSet" => _ = Arc::make_mut(&mut at.listener_sets).remove(&key),
            "BackendTLSPolicy" => _ = Arc::make_mut(&mut at.backend_tls_policies).remove(&key),
            "XBackend" => _ = Arc::make_mut(&mut at.x_backends).remove(&key),
            "XBackendTrafficPolicy" => {
                _ = Arc::make_mut(&mut at.x_backend_traffic_policies).remove(&key);
            }
            other => panic!("{other}"),
        }
    }
}

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

/// Most in one, so that they meet.
const NAMESPACES: [&str; 6] = ["infra", "infra", "infra", "infra", "a", "b"];

/// A route of few names, so that hosts, backends and names meet.
fn some_route(rng: &mut Rng) -> String {
    let kind = one(rng, &["HTTPRoute", "HTTPRoute", "HTTPRoute", "GRPCRoute"]);
    let parent = one(
        rng,
        &[
            "{name: gw}",
            "{name: gw}, {name: gw, sectionName: tls}",
            "{name: gw, sectionName: http}",
            "{name: gone}",
            "{name: set, kind: ListenerSet}",
        ],
    );
    let parent = parent
        .replace("name: gw", "name: gw, namespace: infra")
        .replace("name: set", "name: set, namespace: infra");
    let host = one(
        rng,
        &[
            "",
            "hostnames: [a.example]",
            "hostnames: [a.example, b.example]",
            "hostnames: ['*.example']",
            "hostnames: [not_a_host]",
        ],
    );
    let path = match kind {
        "GRPCRoute" => one(rng, &["", "matches: [{method: {service: s}}],"]),
        _ => one(
            rng,
            &[
                "",
                "matches: [{path: {value: /a}}],",
                "matches: [{path: {type: Exact, value: /b}}, {path: {value: /c}}],",
                "matches: [{path: {type: RegularExpression, value: '/[a-z]+'}}],",
            ],
        ),
    };
    let filter = one(
        rng,
        &[
            "",
            "",
            "",
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: '1'}]}}],",
            "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x]}}],",
            "filters: [{type: ExtensionRef, extensionRef: {group: tidegate.dev, kind: Middleware, name: m}}],",
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: other, port: 80}}}],",
            "filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: app, port: 80}}}],",
        ],
    );
    let to = |rng: &mut Rng| {
        let name = one(rng, &["app", "app", "app", "other", "third"]);
        let namespace = one(rng, &["", "", "", ", namespace: infra", ", namespace: a"]);
        let port = one(rng, &["80", "80", "81"]);
        match rng.u8(..20) {
            0 => "{name: x, group: gateway.networking.x-k8s.io, kind: XBackend}".to_owned(),
            _ => format!("{{name: {name}{namespace}, port: {port}, weight: {}}}", rng.u8(..3)),
        }
    };
    let backends: Vec<String> = (0..rng.usize(..3)).map(|_| to(rng)).collect();
    let backends = backends.join(", ");
    let (name, namespace) = (one(rng, &["r1", "r2", "r3", "r4"]), one(rng, &NAMESPACES));
    let second = rng.u8(..3);
    let host = if host.is_empty() { String::new() } else { format!("{host}, ") };
    format!(
        "{{kind: {kind}, metadata: {{name: {name}, namespace: {namespace}, generation: 1, creationTimestamp: '2026-01-01T00:00:0{second}Z'}}, spec: {{parentRefs: [{parent}], {host}rules: [{{name: one, {path} {filter} backendRefs: [{backends}]}}]}}}}"
    )
}

fn some_object(rng: &mut Rng) -> String {
    let namespace = one(rng, &NAMESPACES);
    let service = one(rng, &["app", "app", "app", "other", "third"]);
    match rng.u8(..16) {
        0..5 => some_route(rng),
        5 | 6 => {
            let protocol = one(rng, &["", "", "appProtocol: kubernetes.io/h2c, ", "appProtocol: https, ", "appProtocol: wrong, "]);
            let balance = one(rng, &["", "annotations: {tidegate.dev/load-balancing: RoundRobin}", "annotations: {tidegate.dev/load-balancing: Wrong}"]);
            format!("{{kind: Service, metadata: {{name: {service}, namespace: {namespace}, {balance}}}, spec: {{ports: [{{{protocol}port: 80, targetPort: 3000}}]}}}}")
        }
        7 | 8 => format!(
            "{{kind: EndpointSlice, metadata: {{name: {service}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}}}, addressType: IPv4, ports: [{{port: 3000}}], endpoints: [{{addresses: [{}]}}]}}",
            one(rng, &["10.0.0.1", "10.0.0.2", "127.0.0.1"])
        ),
        9 => format!(
            "{{kind: ReferenceGrant, metadata: {{name: g, namespace: {namespace}}}, spec: {{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {}}}], to: [{{group: '', kind: {}}}]}}}}",
            one(rng, &NAMESPACES), one(rng, &["Service", "Service", "Secret"])
        ),
        10 => format!("{{kind: Namespace, metadata: {{name: {namespace}, labels: {{let: {}}}}}}}", one(rng, &["in", "out"])),
        11 => {
            let target = one(rng, &["", "{group: gateway.networking.k8s.io, kind: Gateway, name: gw}", "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r1}", "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r2, sectionName: one}"]);
            let spec = one(rng, &["requestHeaders: {set: [{name: x, value: '1'}]}", "ipAccess: {allow: [10.0.0.0/8]}", "ipAccess: {allow: [wrong]}", "externalAuth: {protocol: HTTP, backendRef: {name: app, port: 80}}"]);
            format!("{{kind: Middleware, metadata: {{name: {}, namespace: {namespace}}}, spec: {{targetRefs: [{target}], {spec}}}}}", one(rng, &["m", "m2"]))
        }
        12 => {
            let more = one(rng, &["", ", {name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}}, {name: tcp, port: 9000, protocol: TCP}"]);
            let from = one(rng, &["{from: All}", "{from: Same}", "{from: Selector, selector: {matchLabels: {let: in}}}"]);
            format!("{{kind: Gateway, metadata: {{name: gw, namespace: infra, creationTimestamp: '2026-01-01T00:00:00Z'}}, spec: {{gatewayClassName: tidegate, allowedListeners: {{namespaces: {{from: All}}}}, listeners: [{{name: http, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {from}}}}}{more}]}}}}")
        }
        13 => match rng.u8(..3) {
            0 => format!("{{kind: TCPRoute, metadata: {{name: t, namespace: infra}}, spec: {{parentRefs: [{{name: gw, sectionName: tcp}}], rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]}}}}"),
            1 => format!("{{kind: Ingress, metadata: {{name: i, namespace: {namespace}, annotations: {{kubernetes.io/ingress.class: tidegate}}}}, spec: {{rules: [{{host: i.example, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}}}]}}}}"),
            _ => "{kind: ListenerSet, metadata: {name: set, namespace: infra}, spec: {parentRef: {name: gw}, listeners: [{name: extra, port: 80, hostname: set.example, protocol: HTTP}]}}".to_owned(),
        },
        14 => match rng.u8(..3) {
            0 => format!("{{kind: BackendTLSPolicy, metadata: {{name: p, namespace: {namespace}}}, spec: {{targetRefs: [{{group: '', kind: Service, name: {service}}}], validation: {{hostname: a.example, wellKnownCACertificates: System}}}}}}"),
            1 => format!("{{kind: XBackendTrafficPolicy, metadata: {{name: q, namespace: {namespace}}}, spec: {{targetRefs: [{{group: '', kind: Service, name: {service}}}], retryConstraint: {{budget: {{percent: 10}}}}}}}}"),
            _ => format!("{{kind: XBackend, metadata: {{name: x, namespace: {namespace}}}, spec: {{type: ExternalHostname, externalHostname: {{hostname: {}.example}}, port: {{number: 80}}}}}}", one(rng, &["out", "else"])),
        },
        _ => format!("{{kind: RateLimit, metadata: {{name: l, namespace: {namespace}}}, spec: {{local: {{average: {}, period: 1s}}}}}}", rng.u8(1..3)),
    }
}

fn some_removal(rng: &mut Rng, cluster: &mut Cluster) -> String {
    let namespace = one(rng, &NAMESPACES);
    let (kind, names): (&str, &[&str]) = match rng.u8(..16) {
        0..5 => ("HTTPRoute", &["r1", "r2", "r3", "r4"]),
        5 => ("GRPCRoute", &["r1", "r2", "r3", "r4"]),
        6 => ("Service", &["app", "other", "third"]),
        7 => ("EndpointSlice", &["app-1", "other-1", "third-1"]),
        8 => ("Middleware", &["m", "m2"]),
        9 => ("ReferenceGrant", &["g"]),
        10 => ("Namespace", &["a", "b"]),
        11 => ("TCPRoute", &["t"]),
        12 => ("Ingress", &["i"]),
        13 => ("ListenerSet", &["set"]),
        14 => ("BackendTLSPolicy", &["p"]),
        _ => ("XBackend", &["x"]),
    };
    let name = one(rng, names);
    cluster.remove(kind, namespace, name);
    format!("without {kind} {namespace}/{name}")
}

#[test]
fn whatever_changes_a_pass_says_what_one_from_nothing_says() {
    let (mut passes, mut new) = (0, 0);
    for seed in 0..80 {
        let mut rng = Rng::with_seed(seed);
        let mut cluster = Cluster::new();
        let mut told = format!("seed {seed}");
        for _ in 0..25 {
            for _ in 0..rng.u8(..4) {
                let what = if rng.u8(..4) == 0 {
                    some_removal(&mut rng, &mut cluster)
                } else {
                    let object = some_object(&mut rng);
                    cluster.add(&object);
                    object
                };
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
