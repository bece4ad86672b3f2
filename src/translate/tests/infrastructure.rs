//! Services and EndpointSlices of Gateways in a cluster.

use super::*;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

pub(super) fn service(translation: &Translation) -> Option<&Service> {
    translation.infrastructure.iter().find_map(|write| match write {
        InfrastructureWrite::Service(service) => Some(&**service),
        _ => None,
    })
}

fn slices(translation: &Translation) -> Vec<&EndpointSlice> {
    fn slice(write: &InfrastructureWrite) -> Option<&EndpointSlice> {
        match write {
            InfrastructureWrite::EndpointSlice(slice) => Some(slice),
            _ => None,
        }
    }
    translation.infrastructure.iter().filter_map(slice).collect()
}

/// The address of each entry with its routability, and the condition `AddressesAssigned`.
pub(super) fn addresses(snapshot: &Snapshot) -> (Vec<String>, String, String) {
    let status = &snapshot.gateways[&Key::new("infra", "gw")].status;
    let status = serde_json::to_value(status).unwrap();
    let address = |a: &Value| format!("{} {}", a["value"].as_str().unwrap(), a["routability"]);
    let all = status["addresses"].as_array().unwrap().iter().map(address).collect();
    let conditions = &status["conditions"];
    (all, condition(conditions, "AddressesAssigned"), condition(conditions, "Programmed"))
}

/// Passes until nothing is written, with a load balancer that gives an address.
pub(super) fn settle(snapshot: &mut Snapshot) -> Translation {
    for _ in 0..6 {
        let translation = translate(snapshot);
        apply(snapshot, &translation);
        if translation.infrastructure.is_empty() && translation.statuses.is_empty() {
            return translation;
        }
        let key = Key::new("infra", "gw-tidegate");
        if let Some(service) = snapshot.services.get(&key) {
            let mut value = serde_json::to_value(service).unwrap();
            value["status"] =
                serde_json::json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
            put(snapshot, value);
        }
    }
    panic!("does not settle");
}

#[test]
fn a_gateway_asks_for_its_service_first_and_serves_once_it_is_recorded() {
    let mut snapshot = cluster(&[GATEWAY, SERVICE, &route("r", TO_APP)]);
    let translation = translate(&snapshot);
    let asked = service(&translation).unwrap();
    assert_eq!(asked.metadata.name.as_deref(), Some("gw-tidegate"));
    let spec = asked.spec.as_ref().unwrap();
    assert_eq!(spec.type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"));
    assert_eq!(spec.selector, None);
    let owner = &asked.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&*owner.kind, &*owner.name, &*owner.uid), ("Gateway", "gw", "u-gw"));
    assert!(!translation.graph.listeners.contains_key(&20000), "not recorded, not bound");
    assert_eq!(of_gateway(&translation, "gw", "Programmed"), "False/Pending");
    apply(&mut snapshot, &translation);
    let translation = translate(&snapshot);
    assert_eq!(outcome(&translation.graph, 20000, "h", "/"), "app*1");
    assert_eq!(translation.graph.listeners[&20000].public_port, 80);
    assert_eq!(of_gateway(&translation, "gw", "Programmed"), "False/AddressNotAssigned");
}

#[test]
fn it_settles_and_the_address_comes_back() {
    let mut snapshot = cluster(&[GATEWAY, SERVICE, &route("r", TO_APP)]);
    settle(&mut snapshot);
    let status = snapshot.gateways[&Key::new("infra", "gw")].status.clone().unwrap();
    assert_eq!(status.addresses[0].value, "192.0.2.1");
    let status = serde_json::to_value(status).unwrap();
    assert_eq!(condition(&status["conditions"], "Programmed"), "True/Programmed");
}

#[test]
fn a_pod_is_an_endpoint_only_once_it_listens() {
    let mut snapshot = cluster(&[GATEWAY]);
    settle(&mut snapshot);
    let key = Key::new("infra", "gw-tidegate-80-ipv4");
    let slice = snapshot.endpoint_slices[&key].clone();
    let endpoints = slice.endpoints.clone().unwrap();
    assert_eq!(endpoints[0].addresses, ["10.1.0.1"]);
    assert_eq!(endpoints[0].node_name.as_deref(), Some("node-1"), "Local traffic needs it");
    let port = &slice.ports.as_ref().unwrap()[0];
    let of_service = &snapshot.services[&Key::new("infra", "gw-tidegate")];
    let of_service = &of_service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0];
    assert_eq!(port.name, of_service.name, "kube-proxy joins them by name");
    assert_eq!(port.port, Some(20000));
    let mut peers = (*snapshot.peers).clone();
    peers[0].ports.clear();
    snapshot.peers = Arc::new(peers);
    let translation = translate(&snapshot);
    assert_eq!(slices(&translation)[0].endpoints.as_ref().unwrap().len(), 0);
    assert_eq!(of_gateway(&translation, "gw", "Programmed"), "False/Pending");
}

/// Between the end of the last old pod and the news of the new one, a rollout left the slices
/// empty: kube-proxy dropped connections, which came back a second later.
#[test]
fn a_pod_that_is_leaving_stays_an_endpoint_for_want_of_a_better_one() {
    let mut snapshot = cluster(&[GATEWAY]);
    settle(&mut snapshot);
    let mut peers = (*snapshot.peers).clone();
    for (state, expected) in
        [(PeerState::Leaving, Some((Some(false), Some(true), Some(true)))), (PeerState::Away, None)]
    {
        peers[0].state = state;
        snapshot.peers = Arc::new(peers.clone());
        let translation = translate(&snapshot);
        let endpoints = slices(&translation)[0].endpoints.clone().unwrap();
        let conditions = endpoints.first().and_then(|endpoint| endpoint.conditions.clone());
        let said = conditions.map(|c| (c.ready, c.serving, c.terminating));
        assert_eq!(said, expected, "{state:?}");
    }
}

#[test]
fn before_anyone_looked_for_peers_no_endpoint_is_withdrawn() {
    let mut snapshot = cluster(&[GATEWAY]);
    settle(&mut snapshot);
    snapshot.peers = Arc::default();
    let translation = translate(&snapshot);
    assert_eq!(translation.infrastructure, []);
    assert_eq!(translation.statuses, [], "and no Gateway is said to be down");
}

#[test]
fn every_gateway_has_container_ports_of_its_own_that_stay() {
    let second = GATEWAY
        .split("\n---")
        .nth(1)
        .unwrap()
        .replace("name: gw", "name: aa")
        .replace("2026-01-01", "2025-01-01");
    let mut snapshot = cluster(&[GATEWAY]);
    settle(&mut snapshot);
    add(&mut snapshot, &second);
    let translation = translate(&snapshot);
    let port = service(&translation).unwrap().spec.as_ref().unwrap().ports.as_ref().unwrap()[0]
        .target_port
        .clone();
    let expected = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(20001);
    assert_eq!(port, Some(expected), "the older one came later and takes no recorded port");
    assert!(translation.graph.listeners.contains_key(&20000));
}

#[test]
fn when_the_range_is_used_up_listeners_are_refused() {
    let mut snapshot = cluster(&[GATEWAY]);
    let mut settings = (*snapshot.settings).clone();
    settings.ports = Ports::Container { first: 20000, last: 20000 };
    snapshot.settings = Arc::new(settings);
    add(
        &mut snapshot,
        "
kind: Gateway
metadata: {name: zz, namespace: infra, creationTimestamp: '2026-02-01T00:00:00Z'}
spec: {gatewayClassName: tidegate, listeners: [{name: http, port: 80, protocol: HTTP}]}",
    );
    let translation = translate(&snapshot);
    let status = written(&translation, ObjectKind::Gateway, "zz").unwrap();
    let reason = condition(&status["listeners"][0]["conditions"], "Accepted");
    assert_eq!(reason, "False/PortUnavailable");
    assert_eq!(of_gateway(&translation, "gw", "Accepted"), "True/Accepted");
}

#[test]
fn infrastructure_labels_come_and_go_and_never_win_over_ours() {
    let labelled = format!(
        "{GATEWAY}  infrastructure: {{labels: {{team: blue, app.kubernetes.io/managed-by: me}}, annotations: {{a: b}}}}\n"
    );
    let mut snapshot = cluster(&[&labelled]);
    settle(&mut snapshot);
    let meta =
        |snapshot: &Snapshot| snapshot.services[&Key::new("infra", "gw-tidegate")].metadata.clone();
    let labels = meta(&snapshot).labels.unwrap();
    assert_eq!(labels["team"], "blue");
    assert_eq!(labels["app.kubernetes.io/managed-by"], "tidegate");
    assert_eq!(labels["gateway.networking.k8s.io/gateway-name"], "gw");
    assert_eq!(meta(&snapshot).annotations.unwrap()["a"], "b");
    add(&mut snapshot, GATEWAY);
    settle(&mut snapshot);
    assert!(!meta(&snapshot).labels.unwrap().contains_key("team"));
    assert!(!meta(&snapshot).annotations.unwrap().contains_key("a"));
}

#[test]
fn infrastructure_annotations_cannot_speak_for_us() {
    let labelled = format!(
        "{GATEWAY}  infrastructure: {{labels: {{kubernetes.io/service-name: victim, \
         gateway.networking.k8s.io/gateway-name: victim}}, annotations: {{tidegate.dev/controller: \
         me, tidegate.dev/infrastructure: label=app.kubernetes.io/managed-by}}}}\n"
    );
    let mut snapshot = cluster(&[&labelled]);
    settle(&mut snapshot);
    let service = snapshot.services[&Key::new("infra", "gw-tidegate")].metadata.clone();
    assert_eq!(service.labels.as_ref().unwrap()["gateway.networking.k8s.io/gateway-name"], "gw");
    let annotations = service.annotations.unwrap();
    assert_eq!(annotations["tidegate.dev/controller"], "tidegate.dev/gateway-controller");
    assert_ne!(annotations["tidegate.dev/infrastructure"], "label=app.kubernetes.io/managed-by");
    for slice in snapshot.endpoint_slices.values() {
        let labels = slice.metadata.labels.as_ref().unwrap();
        assert_eq!(labels["kubernetes.io/service-name"], "gw-tidegate");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "tidegate");
    }
    assert_eq!(snapshot.endpoint_slices.len(), 1);
    assert_eq!(translate(&snapshot).infrastructure, []);
}

#[test]
fn what_the_cluster_says_of_our_service_stays() {
    let mut snapshot = cluster(&[GATEWAY]);
    settle(&mut snapshot);
    let key = Key::new("infra", "gw-tidegate");
    let mut value = serde_json::to_value(&snapshot.services[&key]).unwrap();
    value["spec"]["clusterIP"] = "10.96.0.9".into();
    value["spec"]["ports"][0]["nodePort"] = 31000.into();
    value["metadata"]["resourceVersion"] = "77".into();
    value["metadata"]["annotations"]["cloud.example/id"] = "lb-1".into();
    put(&mut snapshot, value);
    assert_eq!(translate(&snapshot).infrastructure, []);
}

#[test]
fn a_service_that_is_not_ours_is_never_taken() {
    for labels in ["", ", labels: {app.kubernetes.io/managed-by: tidegate}"] {
        let foreign = format!(
            "
kind: Service
metadata: {{name: gw-tidegate, namespace: infra{labels}}}
spec: {{ports: [{{port: 80, targetPort: 20000}}]}}"
        );
        let translation = translate(&cluster(&[GATEWAY, &foreign]));
        assert!(service(&translation).is_none(), "{labels}");
        assert!(!translation.graph.listeners.contains_key(&20000), "{labels}");
        let notes = notes(&translation, "gw");
        assert!(notes.iter().any(|note| note.starts_with("AddressNotAssigned")), "{labels}");
    }
}

#[test]
fn what_no_gateway_needs_any_more_is_deleted_and_nothing_else() {
    let mut snapshot = cluster(&[GATEWAY]);
    settle(&mut snapshot);
    add(&mut snapshot, "
kind: Service
metadata: {name: else-tidegate, namespace: infra, labels: {app.kubernetes.io/managed-by: tidegate, gateway.networking.k8s.io/gateway-name: else}, annotations: {tidegate.dev/controller: example.com/another-tidegate}}");
    Arc::make_mut(&mut snapshot.gateways).clear();
    let translation = translate(&snapshot);
    assert_eq!(
        translation.infrastructure,
        [
            InfrastructureWrite::DeleteService(Key::new("infra", "gw-tidegate")),
            InfrastructureWrite::DeleteEndpointSlice(Key::new("infra", "gw-tidegate-80-ipv4")),
        ]
    );
}

#[test]
fn a_gateway_that_cannot_be_read_or_whose_class_is_missing_keeps_its_service() {
    let mut snapshot = cluster(&[GATEWAY]);
    settle(&mut snapshot);
    let mut classless = snapshot.clone();
    Arc::make_mut(&mut classless.gateway_classes).clear();
    assert_eq!(translate(&classless).infrastructure, []);
    Arc::make_mut(&mut snapshot.gateways).clear();
    snapshot.undecodable = Arc::new(vec![crate::translate::Undecodable {
        kind: "Gateway".into(),
        key: Key::new("infra", "gw"),
        uid: None,
        origin: None,
        message: "broken".into(),
    }]);
    assert_eq!(translate(&snapshot).infrastructure, []);
}

#[test]
fn names_of_services_are_names_for_services() {
    use crate::translate::infrastructure::service_name;
    assert_eq!(service_name("gw"), "gw-tidegate");
    let long = "a".repeat(253);
    for odd in ["a.b", "1a", &long, "a-b.c.d-e"] {
        let name = service_name(odd);
        assert!(name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
    }
    assert_ne!(service_name("a.b"), service_name("a-b"));
}

#[test]
fn udp_has_ports_and_slices_of_its_own() {
    let dns =
        "  - {name: tcp, port: 53, protocol: TCP}\n  - {name: udp, port: 53, protocol: UDP}\n";
    let mut snapshot = cluster(&[&format!("{GATEWAY}{dns}")]);
    settle(&mut snapshot);
    let service = &snapshot.services[&Key::new("infra", "gw-tidegate")];
    let ports = service.spec.as_ref().unwrap().ports.as_ref().unwrap();
    let of = |name: &str| ports.iter().find(|port| port.name.as_deref() == Some(name)).unwrap();
    let (tcp, udp) = (of("port-53"), of("port-53-udp"));
    assert_eq!((tcp.protocol.as_deref(), udp.protocol.as_deref()), (Some("TCP"), Some("UDP")));
    assert_ne!(tcp.target_port, udp.target_port, "each its own number");
    let slice = &snapshot.endpoint_slices.get(&Key::new("infra", "gw-tidegate-53-udp-ipv4"));
    assert!(slice.is_none(), "no pod listens there");
    let (_, _, programmed) = addresses(&snapshot);
    assert_eq!(programmed, "False/Pending");
    let numbers = (20000..=20010).map(|port| (Transport::Udp, port));
    Arc::make_mut(&mut snapshot.listening).extend(numbers.clone().map(|port| (port, Ok(()))));
    Arc::make_mut(&mut snapshot.peers)[0].ports.extend(numbers);
    settle(&mut snapshot);
    let slice = &snapshot.endpoint_slices[&Key::new("infra", "gw-tidegate-53-udp-ipv4")];
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!(port.name.as_deref(), Some("port-53-udp"));
    assert_eq!(port.protocol.as_deref(), Some("UDP"));
    assert_eq!(addresses(&snapshot).2, "True/Programmed");
}

#[test]
fn an_address_that_was_asked_for_is_asked_for_and_checked() {
    let gateway = format!("{GATEWAY}  addresses: [{{value: 192.0.2.9}}]\n");
    let mut snapshot = cluster(&[&gateway]);
    let translation = translate(&snapshot);
    let spec = service(&translation).unwrap().spec.clone().unwrap();
    assert_eq!(spec.load_balancer_ip.as_deref(), Some("192.0.2.9"));
    settle(&mut snapshot);
    let status = serde_json::to_value(&snapshot.gateways[&Key::new("infra", "gw")].status).unwrap();
    assert_eq!(condition(&status["conditions"], "Programmed"), "False/AddressNotUsable");
}
