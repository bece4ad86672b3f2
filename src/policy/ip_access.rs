//! Lets requests in by the client's address. What the client's address is, the proxy has
//! decided: see [`super::Client::ip`].

use std::net::{IpAddr, Ipv6Addr};
use std::ops::ControlFlow;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Exchange, Invalid, Policy, Refs, Reply};
use crate::reason::Reason;

/// Most entries of one list.
const MAX_ENTRIES: usize = 1024;

/// Which client addresses may come in: `deny` wins, and where `allow` has entries, only these.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "IpAccess")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Addresses and networks (`10.0.0.0/8`, `2001:db8::/32`) that may come in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(min = 2, max = 49)))]
    pub allow: Vec<String>,
    /// Addresses and networks that are answered with 403.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(min = 2, max = 49)))]
    pub deny: Vec<String>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct IpAccess {
    /// None: everyone who is not denied.
    allow: Option<Ranges>,
    deny: Ranges,
}

impl Policy for IpAccess {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        let allow = match spec.allow.as_slice() {
            [] => None,
            list => Some(Ranges::parse("allow", list)?),
        };
        Ok(IpAccess { allow, deny: Ranges::parse("deny", &spec.deny)? })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        if self.permits(ex.client.ip) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(Reply::of(Reason::IpDenied))
        }
    }
}

impl IpAccess {
    fn permits(&self, ip: IpAddr) -> bool {
        !self.deny.contains(ip) && self.allow.as_ref().is_none_or(|allow| allow.contains(ip))
    }
}

/// Sorted ranges that do not overlap, first and last address included. IPv4 and IPv6 are kept
/// apart, so that `::/0` does not mean IPv4.
#[derive(Debug, Default)]
pub struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    /// # Errors
    /// An entry of the list in `field` is no address and no network, or there are too many.
    pub fn parse(field: &str, list: &[String]) -> Result<Self, Invalid> {
        if list.len() > MAX_ENTRIES {
            let message = format!("{} entries, at most {MAX_ENTRIES}; merge networks", list.len());
            return Err(Invalid::new(field, message));
        }
        let mut ranges = Ranges::default();
        for (i, text) in list.iter().enumerate() {
            match parse(text) {
                Some(IpNet::V4(net)) => {
                    ranges.v4.push((net.network().to_bits(), net.broadcast().to_bits()));
                }
                Some(IpNet::V6(net)) => {
                    ranges.v6.push((net.network().to_bits(), net.broadcast().to_bits()));
                }
                None => {
                    let message =
                        format!("{text:?} is not an address; write 192.0.2.1 or 2001:db8::/32");
                    return Err(Invalid::new(format!("{field}[{i}]"), message));
                }
            }
        }
        ranges.v4 = merged(ranges.v4);
        ranges.v6 = merged(ranges.v6);
        Ok(ranges)
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => contains(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => contains(&self.v6, ip.to_bits()),
        }
    }
}

/// A network, or an address as the network of itself; IPv4-mapped IPv6 becomes IPv4.
fn parse(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let mapped = |ip: Ipv6Addr| ip.to_ipv4_mapped().map(IpAddr::V4);
    match net {
        IpNet::V6(net) if net.prefix_len() >= 96 => match mapped(net.addr()) {
            Some(ip) => IpNet::new(ip, net.prefix_len() - 96).ok(),
            None => Some(IpNet::V6(net)),
        },
        net => Some(net),
    }
}

fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn contains<T: Copy + Ord>(ranges: &[(T, T)], ip: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= ip);
    after > 0 && ip <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(allow: &[&str], deny: &[&str]) -> IpAccess {
        let list = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        let spec = Spec { allow: list(allow), deny: list(deny) };
        IpAccess::compile(&spec, &Refs::default()).unwrap()
    }

    #[test]
    fn deny_wins_and_allow_excludes_everyone_else() {
        for (allow, deny, ip, permitted) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&["10.0.0.0/8"], &[], "10.255.255.255", true),
            (&["10.0.0.0/8"], &[], "11.0.0.0", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.0.0", true),
            (&[], &["192.0.2.7"], "192.0.2.7", false),
            (&[], &["192.0.2.7"], "192.0.2.8", true),
            (&["2001:db8::/32"], &[], "2001:db8:ffff::1", true),
            (&["2001:db8::/32"], &[], "2001:db9::", false),
        ] {
            let access = access(allow, deny);
            assert_eq!(access.permits(ip.parse().unwrap()), permitted, "{allow:?} {deny:?} {ip}");
        }
    }

    #[test]
    fn ipv4_mapped_addresses_and_networks_are_ipv4() {
        assert!(!access(&[], &["192.0.2.0/24"]).permits("::ffff:192.0.2.9".parse().unwrap()));
        assert!(!access(&[], &["::ffff:192.0.2.0/120"]).permits("192.0.2.9".parse().unwrap()));
    }

    #[test]
    fn all_of_ipv6_is_not_ipv4() {
        let access = access(&["::/0"], &[]);
        assert!(access.permits("2001:db8::1".parse().unwrap()));
        assert!(!access.permits("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn overlapping_networks_in_any_order_are_one_range() {
        let access = access(&["10.0.1.0/24", "10.0.0.0/8", "10.0.2.1", "192.0.2.0/24"], &[]);
        for ip in ["10.0.0.1", "10.0.1.1", "10.0.2.2", "10.200.0.0", "192.0.2.255"] {
            assert!(access.permits(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_named_by_its_place() {
        let spec = Spec { deny: vec!["10.0.0.1".into(), "10.0.0/8".into()], ..Spec::default() };
        let error = IpAccess::compile(&spec, &Refs::default()).unwrap_err();
        assert_eq!(error.field, "deny[1]");
    }
}
