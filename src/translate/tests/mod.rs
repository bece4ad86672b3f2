//! Objects in, graph, statuses and infrastructure out: one fact a test.

mod addresses;
mod backend_tls;
mod carry;
mod consumers;
mod dump;
mod gateways;
mod grpc_routes;
mod infrastructure;
mod ingresses;
mod key_sets;
mod listener_filters;
mod listener_sets;
mod listeners;
mod measure;
mod parents;
mod policies;
mod routes;
mod statuses;
mod stream_routes;
mod x_backends;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    InfrastructureWrite, Key, Note, ObjectKind, Objects, Peer, PeerState, Ports, Settings,
    Snapshot, Translation, translate,
};
use crate::graph::{Action, RouteGraph, Rule, Transport};
use crate::policy::{RequestHead, Scheme};
use crate::reason::Reason;

/// A GatewayClass of ours, and a Gateway `gw` in `infra` that takes routes of all namespaces.
const GATEWAY: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: tidegate, generation: 1}
spec: {controllerName: tidegate.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra, generation: 3, uid: u-gw, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  gatewayClassName: tidegate
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
"#;

/// A Service `app` in `infra` with one endpoint.
const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: app, namespace: infra}
spec: {ports: [{name: http, port: 8080, targetPort: 3000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: app-1, namespace: infra, labels: {kubernetes.io/service-name: app}}
addressType: IPv4
ports: [{name: http, port: 3000, protocol: TCP}]
endpoints: [{addresses: [10.0.0.1]}]
"#;

/// A world of objects, as files give it.
fn world(parts: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot {
        taken: "2026-11-21T12:00:00Z".parse().unwrap(),
        listening: Arc::new([80, 443].map(|port| ((Transport::Tcp, port), Ok(()))).into()),
        ..Snapshot::default()
    };
    parts.iter().for_each(|part| add(&mut snapshot, part));
    snapshot
}

/// The same in a cluster, where this pod listens on all container ports.
fn cluster(parts: &[&str]) -> Snapshot {
    let mut snapshot = world(parts);
    let ports: BTreeSet<_> = (20000..=20010).map(|port| (Transport::Tcp, port)).collect();
    snapshot.listening = Arc::new(ports.iter().map(|port| (*port, Ok(()))).collect());
    snapshot.settings = Arc::new(Settings {
        cluster: true,
        ports: Ports::Container { first: 20000, last: 20010 },
        ingress_http_port: 8080,
        ingress_https_port: 8443,
        own_service: Some(Key::new("tidegate", "tidegate")),
        ..Settings::default()
    });
    snapshot.peers = Arc::new(vec![Peer {
        ip: IpAddr::from([10, 1, 0, 1]),
        pod_name: Some("tidegate-0".into()),
        node_name: Some("node-1".into()),
        state: PeerState::Ready,
        ports,
    }]);
    snapshot
}

fn add(snapshot: &mut Snapshot, yaml: &str) {
    for document in yaml.split("\n---") {
        let value: Value = serde_saphyr::from_str(document.trim_start_matches('-')).unwrap();
        if !value.is_null() {
            put(snapshot, value);
        }
    }
}

fn put(snapshot: &mut Snapshot, value: Value) {
    let name = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    let key = Key::new(name("namespace"), name("name"));
    let kind = value["kind"].as_str().unwrap().to_owned();
    match kind.as_str() {
        "GatewayClass" => insert(&mut snapshot.gateway_classes, key, value),
        "Gateway" => insert(&mut snapshot.gateways, key, value),
        "HTTPRoute" => insert(&mut snapshot.http_routes, key, value),
        "GRPCRoute" => insert(&mut snapshot.grpc_routes, key, value),
        "TLSRoute" => insert(&mut snapshot.tls_routes, key, value),
        "TCPRoute" => insert(&mut snapshot.tcp_routes, key, value),
        "UDPRoute" => insert(&mut snapshot.udp_routes, key, value),
        "ReferenceGrant" => insert(&mut snapshot.reference_grants, key, value),
        "IngressClass" => insert(&mut snapshot.ingress_classes, key, value),
        "Ingress" => insert(&mut snapshot.ingresses, key, value),
        "Service" => insert(&mut snapshot.services, key, value),
        "EndpointSlice" => insert(&mut snapshot.endpoint_slices, key, value),
        "Secret" => insert(&mut snapshot.secrets, key, value),
        "Namespace" => insert(&mut snapshot.namespaces, key, value),
        "Middleware" => insert(&mut snapshot.middlewares, key, value),
        "RateLimit" => insert(&mut snapshot.rate_limits, key, value),
        "Consumer" => insert(&mut snapshot.consumers, key, value),
        "ConfigMap" => insert(&mut snapshot.config_maps, key, value),
        "ClusterTrustBundle" => insert(&mut snapshot.cluster_trust_bundles, key, value),
        "BackendTLSPolicy" => insert(&mut snapshot.backend_tls_policies, key, value),
        "XBackend" => insert(&mut snapshot.x_backends, key, value),
        "XBackendTrafficPolicy" => insert(&mut snapshot.x_backend_traffic_policies, key, value),
        "ListenerSet" => insert(&mut snapshot.listener_sets, key, value),
        other => panic!("{other}"),
    }
}

fn insert<T: DeserializeOwned + Clone>(objects: &mut Objects<T>, key: Key, value: Value) {
    Arc::make_mut(objects).insert(key, Arc::new(serde_json::from_value(value).unwrap()));
}

/// A route in `infra` to the Gateway `gw`, with this in its spec.
fn route(name: &str, spec: &str) -> String {
    route_of("HTTPRoute", name, spec)
}

/// The same of another kind.
fn route_of(kind: &str, name: &str, spec: &str) -> String {
    format!(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: infra, generation: 7}}
spec:
  parentRefs: [{{name: gw}}]
{spec}"#
    )
}

/// A rule that forwards everything to the Service `app`.
const TO_APP: &str = "  rules: [{backendRefs: [{name: app, port: 8080}]}]";

fn secret(name: &str, namespace: &str, hosts: &[&str]) -> Value {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(hosts).unwrap();
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()},
    })
}

fn head(host: &str, path: &str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        host: host.into(),
        port: None,
        path: path.into(),
        query: None,
        headers: HeaderMap::new(),
        told: None,
        upstream_host: None,
    }
}

/// The rule that a request meets on a port.
fn find<'g>(graph: &'g RouteGraph, port: u16, host: &str, path: &str) -> Result<&'g Rule, Reason> {
    let listener = graph.listeners.get(&port).expect("the port is bound");
    graph.find(listener, None, &head(host, path)).map(|found| found.rule)
}

/// Where a request goes: the names of its backends with their weights, or what is answered.
fn outcome(graph: &RouteGraph, port: u16, host: &str, path: &str) -> String {
    match find(graph, port, host, path) {
        Ok(rule) => action_of(graph, rule),
        Err(reason) => reason.to_string(),
    }
}

/// The same of a rule.
fn action_of(graph: &RouteGraph, rule: &Rule) -> String {
    match &rule.action {
        Action::Refuse(reason) => reason.to_string(),
        Action::Forward(split) => {
            let target = |target: &crate::graph::Target| match target.to {
                Ok(id) => format!("{}*{}", graph[id].key.service, target.weight),
                Err(reason) => format!("{reason}*{}", target.weight),
            };
            split.targets.iter().map(target).collect::<Vec<_>>().join(" ")
        }
    }
}

/// The kinds of a rule's policies: gates, then transforms.
fn policies(graph: &RouteGraph, rule: &Rule) -> Vec<&'static str> {
    let all = rule.gates.iter().chain(&rule.transforms);
    all.map(|id| graph[*id].policy.kind().as_str()).collect()
}

/// The status that stands after the translation: what it writes.
fn written<'t>(translation: &'t Translation, kind: ObjectKind, name: &str) -> Option<&'t Value> {
    let of =
        |write: &&super::StatusWrite| write.object.kind == kind && write.object.key.name == name;
    translation.statuses.iter().find(of).map(|write| &write.status)
}

/// `Status/Reason` of a condition in a list.
fn condition(conditions: &Value, r#type: &str) -> String {
    let list = conditions.as_array().expect("a list of conditions");
    match list.iter().find(|c| c["type"] == r#type) {
        None => "-".into(),
        Some(c) => format!("{}/{}", c["status"].as_str().unwrap(), c["reason"].as_str().unwrap()),
    }
}

/// A condition of an HTTPRoute's only parent.
fn of_route(translation: &Translation, name: &str, r#type: &str) -> String {
    of_kind(translation, ObjectKind::HttpRoute, name, r#type)
}

/// A condition of a route's only parent.
fn of_kind(translation: &Translation, kind: ObjectKind, name: &str, r#type: &str) -> String {
    let status = written(translation, kind, name).expect("a status is written");
    assert_eq!(status["parents"].as_array().unwrap().len(), 1);
    condition(&status["parents"][0]["conditions"], r#type)
}

/// A condition of a Gateway.
fn of_gateway(translation: &Translation, name: &str, r#type: &str) -> String {
    let status = written(translation, ObjectKind::Gateway, name).expect("a status is written");
    condition(&status["conditions"], r#type)
}

/// A condition of a listener of the Gateway `gw`.
fn of_listener(translation: &Translation, listener: &str, r#type: &str) -> String {
    condition(&listener_status(translation, listener)["conditions"], r#type)
}

fn listener_status<'t>(translation: &'t Translation, listener: &str) -> &'t Value {
    let status = written(translation, ObjectKind::Gateway, "gw").expect("a status is written");
    let list = status["listeners"].as_array().unwrap();
    list.iter().find(|l| l["name"] == listener).expect("the listener is in the status")
}

/// Does what the controller does: statuses and infrastructure into the world.
fn apply(snapshot: &mut Snapshot, translation: &Translation) {
    for write in &translation.statuses {
        let (kind, key) = (write.object.kind, &write.object.key);
        let mut object = match kind {
            ObjectKind::GatewayClass => serde_json::to_value(&snapshot.gateway_classes[key]),
            ObjectKind::Gateway => serde_json::to_value(&snapshot.gateways[key]),
            ObjectKind::HttpRoute => serde_json::to_value(&snapshot.http_routes[key]),
            ObjectKind::GrpcRoute => serde_json::to_value(&snapshot.grpc_routes[key]),
            ObjectKind::TlsRoute => serde_json::to_value(&snapshot.tls_routes[key]),
            ObjectKind::TcpRoute => serde_json::to_value(&snapshot.tcp_routes[key]),
            ObjectKind::UdpRoute => serde_json::to_value(&snapshot.udp_routes[key]),
            ObjectKind::ListenerSet => serde_json::to_value(&snapshot.listener_sets[key]),
            ObjectKind::Ingress => serde_json::to_value(&snapshot.ingresses[key]),
            ObjectKind::Middleware => serde_json::to_value(&snapshot.middlewares[key]),
            ObjectKind::RateLimit => serde_json::to_value(&snapshot.rate_limits[key]),
            ObjectKind::Consumer => serde_json::to_value(&snapshot.consumers[key]),
            ObjectKind::BackendTlsPolicy => {
                serde_json::to_value(&snapshot.backend_tls_policies[key])
            }
            ObjectKind::XBackend => serde_json::to_value(&snapshot.x_backends[key]),
            ObjectKind::XBackendTrafficPolicy => {
                serde_json::to_value(&snapshot.x_backend_traffic_policies[key])
            }
            other => panic!("{other:?} has no status of ours"),
        }
        .unwrap();
        object["status"] = write.status.clone();
        put(snapshot, object);
    }
    for write in &translation.infrastructure {
        match write {
            InfrastructureWrite::Service(service) => {
                put(snapshot, serde_json::to_value(service).unwrap());
            }
            InfrastructureWrite::EndpointSlice(slice) => {
                put(snapshot, serde_json::to_value(slice).unwrap());
            }
            InfrastructureWrite::DeleteService(key) => {
                Arc::make_mut(&mut snapshot.services).remove(key);
            }
            InfrastructureWrite::DeleteEndpointSlice(key) => {
                Arc::make_mut(&mut snapshot.endpoint_slices).remove(key);
            }
        }
    }
}

/// The notes about an object, each as `Reason field`.
fn notes(translation: &Translation, name: &str) -> Vec<String> {
    let of = translation.notes.iter().filter(|note: &&Note| note.key.name == name);
    of.map(|note| format!("{} {}", note.reason, note.field)).collect()
}

/// The Gateway `gw` with these listeners.
fn gateway(listeners: &str) -> String {
    let class = GATEWAY.split("\n---").next().unwrap();
    format!(
        "{class}
---
kind: Gateway
metadata: {{name: gw, namespace: infra, generation: 3, uid: u-gw, creationTimestamp: '2026-01-01T00:00:00Z'}}
spec:
  gatewayClassName: tidegate
  listeners:
{listeners}"
    )
}
