//! The addresses behind a Service port: pure, so that the source can ask again whenever an
//! EndpointSlice changes, without a pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Key, Objects, Settings};
use crate::graph::{Backend, BackendProtocol};

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The addresses of a backend's port at the Service whose slices feed it: of all ready
/// endpoints, or, if none is ready, of those that still serve while they terminate. Sorted,
/// each once. `slices` may hold those of other Services too. An ExternalName Service's
/// addresses are those in `resolved` of its name.
pub fn endpoints_of(
    backend: &Backend,
    services: &Objects<Service>,
    slices: &Objects<EndpointSlice>,
    resolved: &BTreeMap<String, Vec<IpAddr>>,
    settings: &Settings,
) -> Vec<SocketAddr> {
    let namespace = &*backend.key.namespace;
    let Some(name) = backend.slices.as_deref() else { return Vec::new() };
    let Some(service) = services.get(&Key::new(namespace, name)) else { return Vec::new() };
    let in_namespace = slices
        .range(Key::new(namespace, "")..)
        .take_while(|(slice, _)| slice.namespace == namespace)
        .filter(|(_, slice)| service_of(slice) == Some(name))
        .map(|(_, slice)| &**slice);
    let over = Transport::of(&backend.protocol);
    addresses(service, (backend.key.port, over), in_namespace, resolved, settings).0
}

/// What runs over IP: a Service may have one number for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub fn of(protocol: &BackendProtocol) -> Self {
        match protocol {
            BackendProtocol::Udp => Transport::Udp,
            _ => Transport::Tcp,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        }
    }

    /// As `protocol` of a port says it; TCP if it says nothing.
    fn is(self, protocol: Option<&str>) -> bool {
        match protocol {
            None | Some("TCP") => self == Transport::Tcp,
            Some("UDP") => self == Transport::Udp,
            Some(_) => false,
        }
    }
}

/// The Service that a slice belongs to.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

/// Slices by namespace and name of their Service.
pub(super) type SliceIndex<'s> = HashMap<(&'s str, &'s str), Vec<&'s EndpointSlice>>;

pub(super) fn index(slices: &Objects<EndpointSlice>) -> SliceIndex<'_> {
    let mut index = SliceIndex::new();
    for (key, slice) in slices.iter() {
        if let Some(service) = service_of(slice) {
            index.entry((&key.namespace, service)).or_default().push(slice);
        }
    }
    index
}

/// See [`endpoints_of`]; `slices` are those of `service`. With an address that was left out
/// because nothing may be sent there.
pub(super) fn addresses<'s>(
    service: &Service,
    (port, over): (u16, Transport),
    slices: impl Iterator<Item = &'s EndpointSlice>,
    resolved: &BTreeMap<String, Vec<IpAddr>>,
    settings: &Settings,
) -> (Vec<SocketAddr>, Option<IpAddr>) {
    let mut refused = None;
    let mut allowed = |ip: &IpAddr| {
        let allowed = !settings.cluster || !is_special(*ip);
        if !allowed {
            refused = Some(*ip);
        }
        allowed
    };
    let declared = port_of(service, port, over);
    if let Some(name) = external_name(service) {
        let target = declared.map_or(port, |declared| target_number(declared).unwrap_or(port));
        let addresses = resolved.get(name).into_iter().flatten().filter(|ip| allowed(ip));
        let sorted: BTreeSet<_> = addresses.map(|ip| SocketAddr::new(*ip, target)).collect();
        return (sorted.into_iter().collect(), refused);
    }
    let Some(declared) = declared else { return (Vec::new(), None) };
    let name = declared.name.as_deref().unwrap_or_default();
    let (mut ready, mut last_resort) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let numbers = slice
            .ports
            .iter()
            .flatten()
            .filter(|p| p.name.as_deref().unwrap_or_default() == name)
            .filter(|p| over.is(p.protocol.as_deref()))
            .filter_map(|p| u16::try_from(p.port?).ok());
        for number in numbers {
            for endpoint in slice.endpoints.iter().flatten() {
                let into = match readiness(endpoint) {
                    Readiness::Ready => &mut ready,
                    Readiness::Leaving => &mut last_resort,
                    Readiness::No => continue,
                };
                let ips = endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
                let ips = ips.filter(|ip| allowed(ip));
                into.extend(ips.map(|ip| SocketAddr::new(ip, number)));
            }
        }
    }
    let chosen = if ready.is_empty() { last_resort } else { ready };
    (chosen.into_iter().collect(), refused)
}

/// The endpoints of a host outside, but for addresses that are special or `inside` of the
/// cluster: who owns a zone must not reach by it what only this pod can.
pub(super) fn external(
    ips: &[IpAddr],
    port: u16,
    inside: &BTreeSet<IpAddr>,
    settings: &Settings,
) -> (Vec<SocketAddr>, Option<IpAddr>) {
    let refused = |ip: &&IpAddr| {
        settings.cluster && (is_special(**ip) || inside.contains(&ip.to_canonical()))
    };
    let (no, yes): (Vec<&IpAddr>, Vec<&IpAddr>) = ips.iter().partition(refused);
    let sorted: BTreeSet<_> = yes.into_iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    (sorted.into_iter().collect(), no.first().map(|ip| **ip))
}

/// Where machines in clouds are told their secrets, besides the link-local addresses: Azure,
/// Alibaba Cloud, AWS and Google Cloud.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Addresses that are no pod's. In a cluster whoever may write EndpointSlices or owns the zone
/// of an external name would reach by them what only this pod can: its own loopback, and with
/// it `/drain`, or the metadata service of its node. Who writes files owns the machine.
fn is_special(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    match ip {
        _ if METADATA.contains(&ip) => true,
        IpAddr::V4(ip) => {
            let this_network = ip.octets()[0] == 0;
            this_network
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
        }
    }
}

enum Readiness {
    Ready,
    /// Terminating, and still serving.
    Leaving,
    No,
}

/// What is not said counts as good news (`EndpointConditions`).
fn readiness(endpoint: &Endpoint) -> Readiness {
    let conditions = endpoint.conditions.as_ref();
    let said = |value: Option<Option<bool>>| value.flatten();
    let ready = said(conditions.map(|c| c.ready)) != Some(false);
    let serving = said(conditions.map(|c| c.serving)).unwrap_or(ready);
    let terminating = said(conditions.map(|c| c.terminating)) == Some(true);
    match (ready, serving && terminating) {
        (true, _) => Readiness::Ready,
        (false, true) => Readiness::Leaving,
        (false, false) => Readiness::No,
    }
}

/// The Service's port of that number.
pub(super) fn port_of(service: &Service, port: u16, over: Transport) -> Option<&ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let number = i32::from(port);
    ports.iter().find(|declared| declared.port == number && over.is(declared.protocol.as_deref()))
}

/// The host name behind a Service of type ExternalName.
pub(super) fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() != Some("ExternalName") {
        return None;
    }
    Some(spec.external_name.as_deref().unwrap_or_default())
}

fn target_number(port: &ServicePort) -> Option<u16> {
    match port.target_port.as_ref()? {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(_) => None,
    }
}
