//! Where Gateways can be reached: what they ask for, what there is, and what of it fits
//! (`spec.addresses`, GEP-5093).
//!
//! A Gateway's Service has the addresses of its load balancer, which say nothing of where they
//! can be reached from, and its ClusterIPs, which are routable in the cluster. The Service itself
//! is made in `infrastructure`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use super::gateway::GatewayState;
use super::infrastructure::service_name;
use super::status::{Problem, Said};
use super::{Ports, Snapshot};
use crate::api::gateway::{AddressType, Gateway, GatewayAddress, Routability};

/// Most entries of `GatewayStatus.addresses`.
const MAX: usize = 16;

/// The routability that promises nothing and that every implementation must be able to report.
const SENTINEL: &str = "testing.x-k8s.io/sentinel";

/// What became of the addresses that a Gateway asks for.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// As its status lists them.
    pub assigned: Vec<GatewayAddress>,
    /// The entries of its spec that cannot be satisfied.
    missing: Vec<Problem>,
    /// The reason of `Programmed` if the Gateway must not be called so, and of which entry.
    unusable: Option<Problem>,
}

impl Addresses {
    pub fn of(snapshot: &Snapshot, gateway: &GatewayState<'_>) -> Self {
        if gateway.problem.is_some() {
            return Addresses::default();
        }
        let mut there = available(snapshot, gateway);
        let wanted = &gateway.object.spec.addresses;
        if wanted.is_empty() {
            there.retain(|address| address.routability == Some(Routability::Default));
            there.truncate(MAX);
            return Addresses { assigned: there, ..Addresses::default() };
        }
        let mut addresses = Addresses::default();
        let mut found: Vec<Option<GatewayAddress>> = vec![None; wanted.len()];
        // Those that ask for an address by its value must not find that others have it.
        for by_value in [true, false] {
            for (i, wanted) in wanted.iter().enumerate() {
                if wanted.value.is_empty() == by_value {
                    continue;
                }
                if let Some(at) = there.iter().position(|address| fits(wanted, address)) {
                    let mut address = there.remove(at);
                    if matches!(&wanted.routability, Some(Routability::Other(_))) {
                        address.routability.clone_from(&wanted.routability);
                    }
                    found[i] = Some(address);
                }
            }
        }
        for (i, (wanted, found)) in wanted.iter().zip(found).enumerate() {
            match found {
                Some(address) => addresses.assigned.push(address),
                None => addresses.miss(i, wanted, gateway),
            }
        }
        addresses
    }

    fn miss(&mut self, index: usize, wanted: &GatewayAddress, gateway: &GatewayState<'_>) {
        let problem = missing(index, wanted, gateway);
        if problem.reason == "AddressNotUsable" {
            self.unusable.get_or_insert_with(|| problem.clone());
        }
        self.missing.push(problem);
    }

    /// Why the Gateway cannot be reached as it was asked for (`Programmed`).
    pub fn problem(&self, gateway: &GatewayState<'_>) -> Option<Problem> {
        if let Some(problem) = &self.unusable {
            return Some(problem.clone());
        }
        if !self.assigned.is_empty() {
            return None;
        }
        let message = match self.missing.first() {
            Some(problem) => problem.to_string(),
            None => {
                let name = service_name(&gateway.key.name);
                format!("Service {name} has no load balancer address yet")
            }
        };
        Some(Problem::new("AddressNotAssigned", "", message))
    }

    /// The condition `AddressesAssigned`.
    pub fn said(&self, gateway: &GatewayState<'_>) -> Said {
        const TYPE: &str = "AddressesAssigned";
        let missing: Vec<String> = self.missing.iter().map(Problem::to_string).collect();
        if self.assigned.is_empty() {
            let message = self.problem(gateway).map(|problem| problem.to_string());
            let all =
                if missing.is_empty() { message.unwrap_or_default() } else { missing.join("; ") };
            return Said::no(TYPE, "NotAssigned", all);
        }
        if missing.is_empty() {
            return Said::yes(TYPE, "AddressesAssigned", "");
        }
        Said::no(TYPE, "PartiallyAssigned", missing.join("; "))
    }
}

/// Why no address fits an entry.
fn missing(index: usize, wanted: &GatewayAddress, gateway: &GatewayState<'_>) -> Problem {
    let name = service_name(&gateway.key.name);
    let value = &wanted.value;
    let (reason, message) = match (&wanted.routability, value.is_empty()) {
        (Some(Routability::Other(other)), _) if other != SENTINEL => (
            "AddressNotAssigned",
            format!("routability {other:?} is not supported; use Cluster or leave it out"),
        ),
        (Some(Routability::Cluster), true) => (
            "AddressNotAssigned",
            format!("Service {name} has no (further) ClusterIP that could be assigned"),
        ),
        (Some(Routability::Cluster), false) => (
            "AddressNotAssigned",
            format!(
                "Service {name} does not have the ClusterIP {value}: ask for a free one of the \
                 cluster's range; one that a Service has cannot be changed, delete the Service \
                 to have it made again"
            ),
        ),
        (_, true) => (
            "AddressNotAssigned",
            format!("the load balancer of Service {name} has given no (further) address for it"),
        ),
        (_, false) => (
            "AddressNotUsable",
            format!("the load balancer did not take address {value}; ask for one that it has"),
        ),
    };
    Problem::new(reason, format!("spec.addresses[{index}]"), message)
}

/// Whether an address is one that an entry of a spec asks for.
fn fits(wanted: &GatewayAddress, address: &GatewayAddress) -> bool {
    let r#type = wanted.r#type.as_ref().unwrap_or(&AddressType::IpAddress);
    let by_value = !wanted.value.is_empty();
    let cluster = address.routability == Some(Routability::Cluster);
    let routable = match &wanted.routability {
        Some(Routability::Cluster) => cluster,
        // A request without routability may be met by a ClusterIP, but only if it names it.
        None | Some(Routability::Default) => !cluster || by_value,
        Some(Routability::Other(other)) => other == SENTINEL && !cluster,
    };
    address.r#type.as_ref() == Some(r#type)
        && routable
        && (!by_value || same(&wanted.value, &address.value))
}

/// Whether two values are one address, in whatever way it is written.
fn same(a: &str, b: &str) -> bool {
    match (a.parse::<IpAddr>(), b.parse::<IpAddr>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a.eq_ignore_ascii_case(b),
    }
}

/// Every address that the Gateway could have.
fn available(snapshot: &Snapshot, gateway: &GatewayState<'_>) -> Vec<GatewayAddress> {
    let address = |r#type, value: &str, routability| GatewayAddress {
        r#type: Some(r#type),
        value: value.to_owned(),
        routability: Some(routability),
    };
    if snapshot.settings.cluster && matches!(snapshot.settings.ports, Ports::Own { .. }) {
        // Host mode: pods have the addresses of their nodes.
        let ready = snapshot.peers.iter().filter(|peer| peer.is_ready());
        let mut ips: Vec<String> = ready.map(|peer| peer.ip.to_string()).collect();
        ips.sort();
        ips.dedup();
        let ip = |ip: &String| address(AddressType::IpAddress, ip, Routability::Default);
        return ips.iter().map(ip).collect();
    }
    let Some(service) = gateway.service else { return Vec::new() };
    let status = service.status.as_ref().filter(|_| has_balancer(service));
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    let mut addresses: Vec<GatewayAddress> = ingress
        .filter_map(|ingress| match (ingress.ip.as_deref(), ingress.hostname.as_deref()) {
            (Some(ip), _) if !ip.is_empty() => {
                Some(address(AddressType::IpAddress, ip, Routability::Default))
            }
            (_, Some(name)) if !name.is_empty() => {
                Some(address(AddressType::Hostname, name, Routability::Default))
            }
            _ => None,
        })
        .collect();
    let ips = cluster_ips(service);
    addresses.extend(ips.map(|ip| address(AddressType::IpAddress, ip, Routability::Cluster)));
    addresses
}

fn has_balancer(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

/// A Service's own addresses; a headless one has none.
fn cluster_ips(service: &Service) -> impl Iterator<Item = &str> {
    let spec = service.spec.as_ref();
    let all = spec.and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
    let first = spec.and_then(|spec| spec.cluster_ip.as_ref()).filter(|_| all.is_empty());
    all.iter().chain(first).map(String::as_str).filter(|ip| ip.parse::<IpAddr>().is_ok())
}

/// Whether the Gateway's Service needs a load balancer: nobody asks only for what is routable
/// in the cluster.
pub(super) fn wants_balancer(gateway: &Gateway) -> bool {
    let addresses = &gateway.spec.addresses;
    addresses.is_empty()
        || addresses.iter().any(|address| match &address.routability {
            None | Some(Routability::Default) => true,
            Some(Routability::Cluster) => false,
            Some(Routability::Other(other)) => other == SENTINEL,
        })
}

/// The first address that is asked for by its value, of a load balancer or of the cluster.
pub(super) fn asked(gateway: &Gateway, cluster: bool) -> Option<&str> {
    let all = gateway.spec.addresses.iter().filter(|address| !address.value.is_empty());
    let mut fit = all.filter(|address| match &address.routability {
        None | Some(Routability::Default) => !cluster,
        Some(Routability::Cluster) => cluster,
        Some(Routability::Other(other)) => other == SENTINEL && !cluster,
    });
    fit.next().map(|address| address.value.as_str())
}
