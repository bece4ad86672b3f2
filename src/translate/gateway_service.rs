//! The Service of a Gateway: its ports, and what kind of addresses it asks for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::addresses;
use super::gateway::Port;
use super::infrastructure::{Base, port_name};
use super::ports::Container;

/// The Service, over what stands there: everything that is not ours to say stays.
pub(super) fn wanted(base: Base<'_>, there: Option<&Service>) -> Service {
    let Base { gateway, service: key, .. } = base;
    let mut service = there.cloned().unwrap_or_default();
    service.metadata = base.meta(key, there.map(|service| &service.metadata), &[]);
    let spec = service.spec.get_or_insert_with(ServiceSpec::default);
    spec.selector = spec.selector.take().filter(BTreeMap::is_empty);
    let balancer = addresses::wants_balancer(gateway.object);
    let old = spec.ports.take().unwrap_or_default();
    let port = |(port, container): (&Port, &Container)| {
        let (protocol, number) = (port.0.as_str(), i32::from(port.1));
        let same = |old: &&ServicePort| {
            old.port == number && old.protocol.as_deref().unwrap_or("TCP") == protocol
        };
        let mut before = old.iter().find(same).cloned().unwrap_or_default();
        before.node_port = before.node_port.filter(|_| balancer);
        ServicePort {
            name: Some(port_name(*port)),
            port: number,
            protocol: Some(protocol.to_owned()),
            target_port: Some(IntOrString::Int(i32::from(container.number))),
            ..before
        }
    };
    spec.ports = Some(gateway.containers.iter().map(port).collect());
    // Later it cannot be changed. One that cannot be had must not keep the Gateway from what else
    // it asks for.
    if there.is_none() && gateway.invalid_service.is_none() {
        spec.cluster_ip = addresses::asked(gateway.object, true).map(str::to_owned);
    }
    if balancer {
        with_balancer(spec, addresses::asked(gateway.object, false));
    } else {
        without_balancer(spec);
    }
    service
}

fn with_balancer(spec: &mut ServiceSpec, address: Option<&str>) {
    // A user may have chosen NodePort; ClusterIP was ours.
    if spec.type_.as_deref().is_none_or(|old| old == "ClusterIP") {
        spec.type_ = Some("LoadBalancer".to_owned());
    }
    spec.external_traffic_policy.get_or_insert_with(|| "Local".to_owned());
    spec.load_balancer_ip = address.map(str::to_owned);
}

/// What belongs to a load balancer must go with it, or the API server refuses the Service.
fn without_balancer(spec: &mut ServiceSpec) {
    spec.type_ = Some("ClusterIP".to_owned());
    spec.external_traffic_policy = None;
    spec.load_balancer_ip = None;
    spec.load_balancer_class = None;
    spec.load_balancer_source_ranges = None;
    spec.allocate_load_balancer_node_ports = None;
    spec.health_check_node_port = None;
}
