//! Which port is bound for a listener.
//!
//! In a cluster every (Gateway, listener port) has a container port of its own, for TCP and for
//! UDP another. It is recorded on the Gateway's Service, so that all replicas agree; one that is
//! not recorded yet is asked for there and bound only once it stands there. In host and in file
//! mode a listener binds its own port, and the oldest Gateway has it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::gateway::{GatewayState, Port};
use super::status::Problem;
use super::{Ports, Snapshot};
use crate::graph::Transport;

/// A container port of a Gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub number: u16,
    /// It stands on the Gateway's Service.
    pub recorded: bool,
}

/// Gives every listener its port; the Gateways come in the order of their age.
pub(super) fn assign(snapshot: &Snapshot, gateways: &mut [GatewayState<'_>]) {
    match snapshot.settings.ports {
        Ports::Container { first, last } => containers(first, last, gateways),
        Ports::Own { offset } => own(offset, gateways),
    }
    for gateway in gateways {
        let recorded = gateway.containers.iter().filter(|(_, container)| container.recorded);
        let recorded: BTreeMap<Port, u16> = recorded.map(|(p, c)| (*p, c.number)).collect();
        for listener in gateway.listeners.iter_mut().filter(|l| l.bound.is_none()) {
            listener.bound = recorded.get(&listener.service_port()).copied();
        }
        for listener in &mut gateway.listeners {
            // A Service or a hostPort leads to what is bound in a pod; nothing does to files'.
            let public =
                if snapshot.settings.cluster { Some(listener.port) } else { listener.bound };
            listener.public = listener.bound.and(public);
        }
    }
}

fn containers(first: u16, last: u16, gateways: &mut [GatewayState<'_>]) {
    let mut taken = BTreeSet::new();
    for gateway in gateways.iter_mut() {
        let recorded = gateway.service.map(recorded).unwrap_or_default();
        for port in gateway.ports() {
            let number = recorded.get(&port).copied().filter(|n| (first..=last).contains(n));
            if let Some(number) = number.filter(|number| taken.insert(*number)) {
                gateway.containers.insert(port, Container { number, recorded: true });
            }
        }
    }
    let mut free = (first..=last).filter(|number| !taken.contains(number));
    for gateway in gateways {
        for port in gateway.ports() {
            if gateway.containers.contains_key(&port) {
                continue;
            }
            if let Some(number) = free.next() {
                gateway.containers.insert(port, Container { number, recorded: false });
                continue;
            }
            for listener in gateway.listeners.iter_mut().filter(|l| l.service_port() == port) {
                let message = format!(
                    "all container ports from {first} to {last} are taken; remove listeners or \
                     install with a wider range"
                );
                let field = format!("{}.port", listener.field);
                listener.refused = Some(Problem::new("PortUnavailable", field, message));
            }
        }
    }
}

/// The container ports that a Service records, by its own.
fn recorded(service: &Service) -> BTreeMap<Port, u16> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let number = |number: i32| u16::try_from(number).ok();
    ports
        .filter_map(|port| {
            let transport = match port.protocol.as_deref() {
                None | Some("TCP") => Transport::Tcp,
                Some("UDP") => Transport::Udp,
                Some(_) => return None,
            };
            match &port.target_port {
                Some(IntOrString::Int(target)) => {
                    Some(((transport, number(port.port)?), number(*target)?))
                }
                _ => None,
            }
        })
        .collect()
}

fn own(offset: u16, gateways: &mut [GatewayState<'_>]) {
    // By the port that is bound: the Gateway that has it, and its port before the offset.
    let mut owners: BTreeMap<Port, (usize, u16)> = BTreeMap::new();
    let mut names: Vec<String> = Vec::new();
    for (place, gateway) in gateways.iter_mut().enumerate() {
        names.push(gateway.key.to_string());
        let serves = gateway.problem.is_none();
        for listener in gateway.listeners.iter_mut() {
            if !listener.claims() || !serves {
                continue;
            }
            let port = Ports::Own { offset }.own(listener.port);
            let transport = listener.intake.transport();
            let owner = owners.entry((transport, port)).or_insert((place, listener.port));
            let (owner, unshifted) = *owner;
            if (owner, unshifted) == (place, listener.port) {
                listener.bound = Some(port);
                continue;
            }
            let message = if owner == place {
                format!(
                    "with --port-offset {offset}, port {port} of this host is port {unshifted} of \
                     the same Gateway; use another port or another offset"
                )
            } else {
                format!(
                    "port {port} of this host belongs to the older Gateway {}; use another port",
                    names[owner]
                )
            };
            let field = format!("{}.port", listener.field);
            listener.refused = Some(Problem::new("PortUnavailable", field, message));
        }
    }
}
