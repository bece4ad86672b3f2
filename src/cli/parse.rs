//! The values of flags, parsed once at the edge.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;

/// `10s`, `500ms`, `1m30s`; not negative.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration =
        text.parse().map_err(|_| "not a duration such as 10s, 500ms or 1m30s".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "a duration cannot be negative here".to_owned())
}

/// `127.0.0.1:9901`, `[::1]:9901`. A name would have to be resolved first, and may change.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an IP address and a port such as 127.0.0.1:9901".to_owned())
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// `20000-29999`.
pub(super) fn port_range(text: &str) -> Result<PortRange, String> {
    let (first, last) = text.split_once('-').ok_or("not a range such as 20000-29999")?;
    let port = |text: &str| text.trim().parse().map_err(|_| format!("{text:?} is not a port"));
    let range = PortRange { first: port(first)?, last: port(last)? };
    if range.first < 1024 {
        return Err("the range must not hold privileged ports (below 1024)".into());
    }
    if range.first > range.last {
        return Err("the first port is behind the last".into());
    }
    Ok(range)
}

/// `10.0.0.0/8`, or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let single = text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or(single).map_err(|_| "not a CIDR such as 10.0.0.0/8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_no_sign() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(duration("10").is_err());
        assert!(duration("-1s").is_err());
    }

    #[test]
    fn a_range_of_ports_runs_forward_and_is_unprivileged() {
        assert_eq!(port_range("20000-29999"), Ok(PortRange { first: 20000, last: 29999 }));
        for wrong in ["20000", "3-2", "0-100", "30000-20000", "20000-99999", "a-b"] {
            assert!(port_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_has_a_port_and_no_name() {
        assert_eq!(address("[::1]:9901").unwrap().port(), 9901);
        for wrong in ["9901", ":9901", "localhost:9901", "127.0.0.1"] {
            assert!(address(wrong).unwrap_err().contains("such as 127.0.0.1:9901"), "{wrong}");
        }
    }

    #[test]
    fn a_single_address_is_a_network() {
        assert_eq!(network("10.0.0.0/8").unwrap().prefix_len(), 8);
        assert_eq!(network("10.0.0.1").unwrap().prefix_len(), 32);
        assert!(network("ten").is_err());
    }
}
