//! Changes by chance, of few names, so that objects meet.

use std::sync::LazyLock;

use fastrand::Rng;

use super::Cluster;

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
            "{name: gw, sectionName: https}",
            "{name: gone}",
            "{name: set, kind: ListenerSet}",
        ],
    );
    let set = format!("name: set, namespace: {}", one(rng, &["infra", "a"]));
    let parent =
        parent.replace("name: gw", "name: gw, namespace: infra").replace("name: set", &set);
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
    // Where a route is looked at in every pass, each pass has a new graph: that hides much.
    let path = match kind {
        "HTTPRoute" if rng.u8(..24) == 0 => {
            "matches: [{path: {type: RegularExpression, value: '/[a-z]+'}}],"
        }
        "GRPCRoute" => one(rng, &["", "matches: [{method: {service: s}}],"]),
        _ => one(
            rng,
            &[
                "",
                "matches: [{path: {value: /a}}],",
                "matches: [{path: {type: Exact, value: /b}}, {path: {value: /c}}],",
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

/// Of how many sorts objects are.
pub(super) const SORTS: u8 = 24;

/// An object of this sort, of few names.
fn some_object(rng: &mut Rng, sort: u8) -> String {
    let namespace = one(rng, &NAMESPACES);
    let service = one(rng, &["app", "app", "app", "other", "third"]);
    match sort {
        0..5 => some_route(rng),
        5 | 6 => some_service(rng, service, namespace),
        7 | 8 => format!(
            "{{kind: EndpointSlice, metadata: {{name: {service}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}}}, addressType: IPv4, ports: [{{port: 3000}}], endpoints: [{{addresses: [{}]}}]}}",
            one(rng, &["10.0.0.1", "10.0.0.2", "127.0.0.1"])
        ),
        9 => format!(
            "{{kind: ReferenceGrant, metadata: {{name: g, namespace: {namespace}}}, spec: {{from: [{{group: gateway.networking.k8s.io, kind: {}, namespace: {}}}], to: [{{group: '', kind: {}}}]}}}}",
            one(rng, &["HTTPRoute", "Gateway"]),
            one(rng, &NAMESPACES),
            one(rng, &["Service", "Service", "Secret"])
        ),
        10 => format!(
            "{{kind: Namespace, metadata: {{name: {namespace}, labels: {{let: {}}}}}}}",
            one(rng, &["in", "out"])
        ),
        11 => some_middleware(rng, namespace),
        12 => some_gateway(rng),
        13 => some_stream(rng, service),
        14 => match rng.u8(..3) {
            0 => {
                let trust = one(
                    rng,
                    &[
                        "wellKnownCACertificates: System",
                        "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]",
                        "caCertificateRefs: [{group: certificates.k8s.io, kind: ClusterTrustBundle, name: bundle}]",
                    ],
                );
                format!(
                    "{{kind: BackendTLSPolicy, metadata: {{name: p, namespace: {namespace}}}, spec: {{targetRefs: [{{group: '', kind: Service, name: {service}}}], validation: {{hostname: a.example, {trust}}}}}}}"
                )
            }
            1 => format!(
                "{{kind: XBackendTrafficPolicy, metadata: {{name: q, namespace: {namespace}}}, spec: {{targetRefs: [{{group: '', kind: Service, name: {service}}}], retryConstraint: {{budget: {{percent: {}}}}}}}}}",
                rng.u8(10..12)
            ),
            _ => format!(
                "{{kind: XBackend, metadata: {{name: x, namespace: {namespace}}}, spec: {{type: ExternalHostname, externalHostname: {{hostname: {}.example}}, port: {{number: 80}}}}}}",
                one(rng, &["out", "else"])
            ),
        },
        15 => format!(
            "{{kind: RateLimit, metadata: {{name: l, namespace: {namespace}, creationTimestamp: '2026-01-01T00:00:0{}Z'}}, spec: {{targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r1}}], limits: [{{name: a, requests: {}, window: 1s}}]}}}}",
            rng.u8(..3),
            rng.u8(1..3)
        ),
        16 => {
            let (crt, key) = one_of(rng, &*CERTIFICATES);
            format!(
                "{{kind: Secret, type: kubernetes.io/tls, metadata: {{name: cert, namespace: {}}}, stringData: {{tls.crt: {crt:?}, tls.key: {key:?}}}}}",
                one(rng, &["infra", "a"])
            )
        }
        17 => format!(
            "{{kind: ConfigMap, metadata: {{name: ca, namespace: {namespace}}}, data: {{ca.crt: {:?}}}}}",
            one_of(rng, &*CERTIFICATES).0
        ),
        18 => format!(
            "{{kind: ClusterTrustBundle, metadata: {{name: bundle}}, spec: {{trustBundle: {:?}}}}}",
            one_of(rng, &*CERTIFICATES).0
        ),
        19 => match rng.u8(..2) {
            0 => format!(
                "{{kind: IngressClass, metadata: {{name: other}}, spec: {{controller: {}}}}}",
                one(rng, &["tidegate.dev/ingress-controller", "else"])
            ),
            _ => format!(
                "{{kind: GatewayClass, metadata: {{name: tidegate}}, spec: {{controllerName: tidegate.dev/{}}}}}",
                if rng.u8(..8) > 0 { "gateway-controller" } else { "else" }
            ),
        },
        20 => format!(
            "{{kind: ListenerSet, metadata: {{name: set, namespace: {}}}, spec: {{parentRef: {{name: gw, namespace: infra}}, listeners: [{{name: extra, port: 80, hostname: {}.example, protocol: HTTP, allowedRoutes: {{namespaces: {{from: {}}}}}}}]}}}}",
            one(rng, &["infra", "a"]),
            one(rng, &["set", "a"]),
            one(rng, &["All", "Same"])
        ),
        21 => {
            let trust = one(
                rng,
                &[
                    "{group: '', kind: ConfigMap, name: ca}",
                    "{group: certificates.k8s.io, kind: ClusterTrustBundle, name: bundle}",
                ],
            );
            format!(
                "{{kind: BackendTLSPolicy, metadata: {{name: p, namespace: infra}}, spec: {{targetRefs: [{{group: '', kind: Service, name: app}}], validation: {{hostname: a.example, caCertificateRefs: [{trust}]}}}}}}"
            )
        }
        22 => format!(
            "{{kind: Consumer, metadata: {{name: {}, namespace: {namespace}, creationTimestamp: '2026-01-01T00:00:0{}Z'}}, spec: {{groups: [{}], credentials: {{apiKeys: [{{secretRef: {{name: cert, key: tls.key}}}}, {{secretRef: {{name: {}}}}}]}}}}}}",
            one(rng, &["c", "d"]),
            rng.u8(..3),
            one(rng, &["g1", "g2"]),
            one(rng, &["gone", "cert"])
        ),
        // The ports of the Gateway's listeners are recorded here.
        _ => format!(
            "{{kind: Service, metadata: {{name: gw-tidegate, namespace: infra, labels: {{app.kubernetes.io/managed-by: tidegate}}, annotations: {{tidegate.dev/controller: tidegate.dev/gateway-controller}}}}, spec: {{ports: [{{port: 80, targetPort: {}}}, {{port: 9000, targetPort: 20001}}]}}}}",
            rng.u16(20000..20006)
        ),
    }
}

fn some_service(rng: &mut Rng, name: &str, namespace: &str) -> String {
    if rng.u8(..6) == 0 {
        return format!(
            "{{kind: Service, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{type: ExternalName, externalName: out.example, ports: [{{port: 80}}]}}}}"
        );
    }
    let protocol = one(
        rng,
        &[
            "",
            "",
            "appProtocol: kubernetes.io/h2c, ",
            "appProtocol: https, ",
            "appProtocol: wrong, ",
        ],
    );
    let annotations = one(
        rng,
        &[
            "",
            "annotations: {tidegate.dev/load-balancing: RoundRobin}",
            "annotations: {tidegate.dev/load-balancing: Wrong}",
            "annotations: {tidegate.dev/backend-tls-secret: cert}",
        ],
    );
    format!(
        "{{kind: Service, metadata: {{name: {name}, namespace: {namespace}, {annotations}}}, spec: {{ports: [{{{protocol}port: 80, targetPort: 3000}}]}}}}"
    )
}

fn some_middleware(rng: &mut Rng, namespace: &str) -> String {
    let target = one(
        rng,
        &[
            "",
            "{group: gateway.networking.k8s.io, kind: Gateway, name: gw}",
            "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r1}",
            "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r2, sectionName: one}",
        ],
    );
    let spec = one(
        rng,
        &[
            "requestHeaders: {set: [{name: x, value: '1'}]}",
            "ipAccess: {allow: [10.0.0.0/8]}",
            "ipAccess: {allow: [wrong]}",
            "externalAuth: {protocol: HTTP, backendRef: {name: app, port: 80}}",
        ],
    );
    let (name, second) = (one(rng, &["m", "m2"]), rng.u8(..3));
    format!(
        "{{kind: Middleware, metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '2026-01-01T00:00:0{second}Z'}}, spec: {{targetRefs: [{target}], {spec}}}}}"
    )
}

fn some_gateway(rng: &mut Rng) -> String {
    let more = one(
        rng,
        &[
            "",
            ", {name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}}, {name: tcp, port: 9000, protocol: TCP}, {name: udp, port: 53, protocol: UDP}",
            ", {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}",
            ", {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: a}]}}",
        ],
    );
    let from = "{from: Selector, selector: {matchLabels: {let: in}}}";
    let [routes, sets] = [(); 2].map(|()| one(rng, &["{from: All}", "{from: Same}", from]));
    let addresses = one(rng, &["", "", "infrastructure: {labels: {a: b}},"]);
    format!(
        "{{kind: Gateway, metadata: {{name: gw, namespace: infra, creationTimestamp: '2026-01-01T00:00:00Z'}}, spec: {{gatewayClassName: tidegate, {addresses} allowedListeners: {{namespaces: {sets}}}, listeners: [{{name: http, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {routes}}}}}{more}]}}}}"
    )
}

/// What is no route of requests.
fn some_stream(rng: &mut Rng, service: &str) -> String {
    let to = format!("rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]");
    match rng.u8(..4) {
        0 => format!(
            "{{kind: TCPRoute, metadata: {{name: t, namespace: infra}}, spec: {{parentRefs: [{{name: gw, sectionName: tcp}}], {to}}}}}"
        ),
        1 => format!(
            "{{kind: UDPRoute, metadata: {{name: t, namespace: infra}}, spec: {{parentRefs: [{{name: gw, sectionName: udp}}], {to}}}}}"
        ),
        2 => format!(
            "{{kind: TLSRoute, metadata: {{name: t, namespace: infra}}, spec: {{parentRefs: [{{name: gw, sectionName: tls}}], hostnames: [{}.example], {to}}}}}",
            one(rng, &["a", "b"])
        ),
        _ => {
            let class = one(
                rng,
                &[
                    "annotations: {kubernetes.io/ingress.class: tidegate}}, spec: {",
                    "}, spec: {ingressClassName: other, ",
                ],
            );
            let class = class
                .strip_prefix('}')
                .map_or_else(|| class.to_owned(), |rest| format!("annotations: {{}}}}{rest}"));
            format!(
                "{{kind: Ingress, metadata: {{name: i, namespace: {}, {class}rules: [{{host: i.example, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}}}]}}}}",
                one(rng, &NAMESPACES)
            )
        }
    }
}

/// Certificates and keys, the last one broken.
static CERTIFICATES: LazyLock<[(String, String); 3]> = LazyLock::new(|| {
    let [a, b] = ["a.example", "b.example"].map(crate::graph::testing::pem);
    [a, b, ("broken".to_owned(), "broken".to_owned())]
});

fn one_of<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.usize(..of.len())]
}

fn some_removal(rng: &mut Rng, cluster: &mut Cluster) -> String {
    let namespace = one(rng, &NAMESPACES);
    let (kind, names): (&str, &[&str]) = match rng.u8(..21) {
        0..5 => ("HTTPRoute", &["r1", "r2", "r3", "r4"]),
        5 => ("GRPCRoute", &["r1", "r2", "r3", "r4"]),
        6 => ("Service", &["app", "other", "third"]),
        7 => ("EndpointSlice", &["app-1", "other-1", "third-1"]),
        8 => ("Middleware", &["m", "m2"]),
        9 => ("ReferenceGrant", &["g"]),
        10 => ("Namespace", &["a", "b"]),
        11 => (one(rng, &["TCPRoute", "UDPRoute", "TLSRoute"]), &["t"]),
        12 => ("Ingress", &["i"]),
        13 => ("ListenerSet", &["set"]),
        14 => ("BackendTLSPolicy", &["p"]),
        15 => ("XBackendTrafficPolicy", &["q"]),
        16 => ("RateLimit", &["l"]),
        17 => ("Secret", &["cert"]),
        18 => ("ConfigMap", &["ca"]),
        19 => ("Consumer", &["c", "d"]),
        _ => ("XBackend", &["x"]),
    };
    let name = one(rng, names);
    cluster.remove(kind, namespace, name);
    format!("without {kind} {namespace}/{name}")
}

/// What the objects of a sort depend on, so that they meet.
fn companion(sort: u8) -> u8 {
    match sort {
        // Grants, namespaces, streams, certificates, sets and ports: the Gateway.
        9 | 10 | 13 | 16 | 20 | 23 => 12,
        // What policies trust: BackendTLSPolicy.
        17 | 18 => 21,
        // Classes: Ingresses.
        19 => 13,
        // Those who ask for Consumers.
        22 => 11,
        other => other,
    }
}

/// What changes are made to: a few routes and Services.
pub(super) fn populate(rng: &mut Rng, cluster: &mut Cluster) -> String {
    let mut told = String::new();
    for sort in [0, 0, 0, 0, 5, 5, 5, 7, 7, 12] {
        let object = some_object(rng, sort);
        cluster.add(&object);
        told = format!("{told}\n{object}");
    }
    told
}

/// One change, told in words; a third of them are of the sort `focus` and what goes with it, a
/// third are routes.
pub(super) fn some_change(rng: &mut Rng, focus: u8, cluster: &mut Cluster) -> String {
    let sort = match rng.u8(..12) {
        0 | 1 => return some_removal(rng, cluster),
        2 => return cluster.change_state(rng),
        3..6 => 0,
        6 | 7 => focus,
        8 | 9 => companion(focus),
        _ => rng.u8(..SORTS),
    };
    let object = some_object(rng, sort);
    cluster.add(&object);
    object
}
