//! Where Gateways can be reached.

use super::infrastructure::{addresses, service, settle};
use super::*;

/// A Gateway with these addresses in its spec, settled, where its Service got this ClusterIP.
fn addressed(addresses: &str, cluster_ip: &str) -> Snapshot {
    let mut snapshot = cluster(&[&format!("{GATEWAY}  addresses: [{addresses}]\n")]);
    let translation = translate(&snapshot);
    apply(&mut snapshot, &translation);
    let key = Key::new("infra", "gw-tidegate");
    let mut value = serde_json::to_value(&snapshot.services[&key]).unwrap();
    let given = value["spec"]["clusterIP"].as_str().unwrap_or(cluster_ip).to_owned();
    value["spec"]["clusterIP"] = given.as_str().into();
    value["spec"]["clusterIPs"] = serde_json::json!([given]);
    put(&mut snapshot, value);
    settle(&mut snapshot);
    snapshot
}

const EMPTY: &str = "\"\"";

#[test]
fn an_address_in_the_cluster_is_the_services_own() {
    let snapshot = addressed("{routability: Cluster}", "10.96.0.7");
    let spec = snapshot.services[&Key::new("infra", "gw-tidegate")].spec.clone().unwrap();
    assert_eq!(spec.type_.as_deref(), Some("ClusterIP"), "no load balancer is asked for");
    assert_eq!(spec.external_traffic_policy, None, "the API server refuses it there");
    let (all, assigned, programmed) = addresses(&snapshot);
    assert_eq!(all, ["10.96.0.7 \"Cluster\""]);
    assert_eq!(assigned, "True/AddressesAssigned");
    assert_eq!(programmed, "True/Programmed");
}

#[test]
fn each_request_gets_its_own_address() {
    let snapshot = addressed("{routability: Cluster}, {type: IPAddress}", "10.96.0.7");
    let (all, assigned, programmed) = addresses(&snapshot);
    assert_eq!(all, ["10.96.0.7 \"Cluster\"".to_owned(), format!("192.0.2.1 {EMPTY}")]);
    assert_eq!(assigned, "True/AddressesAssigned");
    assert_eq!(programmed, "True/Programmed");
    let snapshot = addressed("{type: IPAddress}, {type: IPAddress}", "10.96.0.7");
    let (all, assigned, programmed) = addresses(&snapshot);
    assert_eq!(all, [format!("192.0.2.1 {EMPTY}")]);
    assert_eq!(assigned, "False/PartiallyAssigned");
    assert_eq!(programmed, "True/Programmed");
}

#[test]
fn without_requests_all_addresses_of_the_load_balancer_are_told() {
    let snapshot = addressed("", "10.96.0.7");
    let (all, assigned, _) = addresses(&snapshot);
    assert_eq!(all, [format!("192.0.2.1 {EMPTY}")]);
    assert_eq!(assigned, "True/AddressesAssigned");
}

#[test]
fn a_routability_that_is_not_known_is_never_met_by_another() {
    let snapshot = addressed("{routability: example.com/vpc}", "10.96.0.7");
    let (all, assigned, programmed) = addresses(&snapshot);
    assert_eq!(all, [""; 0]);
    assert_eq!(assigned, "False/NotAssigned");
    assert_eq!(programmed, "False/AddressNotAssigned");
    let snapshot = addressed("{routability: testing.x-k8s.io/sentinel}", "10.96.0.7");
    let (all, assigned, _) = addresses(&snapshot);
    assert_eq!(all, ["192.0.2.1 \"testing.x-k8s.io/sentinel\""]);
    assert_eq!(assigned, "True/AddressesAssigned");
}

#[test]
fn a_cluster_ip_is_asked_for_when_the_service_is_made() {
    let snapshot = addressed("{routability: Cluster, value: 10.96.0.9}", "10.96.0.7");
    let (all, assigned, _) = addresses(&snapshot);
    assert_eq!(all, ["10.96.0.9 \"Cluster\""]);
    assert_eq!(assigned, "True/AddressesAssigned");
}

#[test]
fn a_cluster_ip_that_cannot_be_had_does_not_keep_the_gateway_from_the_rest() {
    let both = "{routability: Cluster, value: 198.51.100.9}, {type: IPAddress}";
    let mut snapshot = cluster(&[&format!("{GATEWAY}  addresses: [{both}]\n")]);
    let asked = |snapshot: &Snapshot| {
        service(&translate(snapshot)).unwrap().spec.as_ref().unwrap().cluster_ip.clone()
    };
    assert_eq!(asked(&snapshot).as_deref(), Some("198.51.100.9"));
    let why = BTreeMap::from([(Key::new("infra", "gw-tidegate"), "not in the range".to_owned())]);
    snapshot.invalid_services = Arc::new(why);
    assert_eq!(asked(&snapshot), None);
    let status = written(&translate(&snapshot), ObjectKind::Gateway, "gw").unwrap().to_string();
    assert!(status.contains("not in the range"), "{status}");
    settle(&mut snapshot);
    let (all, assigned, programmed) = addresses(&snapshot);
    assert_eq!(all, [format!("192.0.2.1 {EMPTY}")]);
    assert_eq!(assigned, "False/PartiallyAssigned");
    assert_eq!(programmed, "True/Programmed");
}

#[test]
fn an_address_that_the_load_balancer_does_not_take_is_called_unusable() {
    let snapshot = addressed("{value: 192.0.2.9}, {value: 192.0.2.1}", "10.96.0.7");
    let (all, assigned, programmed) = addresses(&snapshot);
    assert_eq!(all, [format!("192.0.2.1 {EMPTY}")]);
    assert_eq!(assigned, "False/PartiallyAssigned");
    assert_eq!(programmed, "False/AddressNotUsable");
    let mut snapshot = cluster(&[&format!("{GATEWAY}  addresses: [{{value: 192.0.2.9}}]\n")]);
    let translation = translate(&snapshot);
    apply(&mut snapshot, &translation);
    let translation = translate(&snapshot);
    apply(&mut snapshot, &translation);
    let (_, _, programmed) = addresses(&snapshot);
    assert_eq!(programmed, "False/AddressNotUsable", "also while it has none at all");
}

#[test]
fn a_load_balancer_comes_and_goes_with_what_is_asked_for() {
    let mut snapshot = addressed("{routability: Cluster}", "10.96.0.7");
    add(&mut snapshot, GATEWAY);
    settle(&mut snapshot);
    let spec = |s: &Snapshot| s.services[&Key::new("infra", "gw-tidegate")].spec.clone().unwrap();
    assert_eq!(spec(&snapshot).type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(spec(&snapshot).external_traffic_policy.as_deref(), Some("Local"));
    add(&mut snapshot, &format!("{GATEWAY}  addresses: [{{routability: Cluster}}]\n"));
    settle(&mut snapshot);
    assert_eq!(spec(&snapshot).type_.as_deref(), Some("ClusterIP"));
    assert_eq!(addresses(&snapshot).0, ["10.96.0.7 \"Cluster\""]);
}
