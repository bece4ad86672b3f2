//! Who the client is, and what the backend is told of it.
//!
//! X-Forwarded-* and the like are written by us and believed only from trusted proxies: what
//! any other peer sends under these names is removed.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::policy::Scheme;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the connection and the head say.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub peer: SocketAddr,
    pub scheme: Scheme,
    /// Host, with the port if the client wrote one.
    pub authority: &'a str,
    /// The port that users connect to.
    pub port: u16,
}

/// Writes the fields and returns the client's address: the peer's, or, behind trusted proxies,
/// the last address in X-Forwarded-For that is not one of them.
pub fn apply(headers: &mut HeaderMap, facts: Facts<'_>, trusted: &[IpNet]) -> IpAddr {
    let peer = facts.peer.ip().to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    let client = if is_trusted(peer) {
        let client = client_behind(headers, peer, is_trusted);
        append_for(headers, peer);
        client
    } else {
        remove_all(headers);
        headers.insert(FOR, value(&peer.to_string()));
        peer
    };
    headers.insert(REAL_IP, value(&client.to_string()));
    set_if_missing(headers, PROTO, || HeaderValue::from_static(facts.scheme.as_str()));
    set_if_missing(headers, HOST, || value(facts.authority));
    set_if_missing(headers, PORT, || HeaderValue::from(facts.port));
    client
}

fn set_if_missing(headers: &mut HeaderMap, name: HeaderName, make: impl FnOnce() -> HeaderValue) {
    headers.entry(name).or_insert_with(make);
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Walks X-Forwarded-For from the right, as far as the hops are trusted.
fn client_behind(headers: &HeaderMap, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    for line in headers.get_all(FOR).iter().rev() {
        for hop in line.to_str().unwrap_or_default().rsplit(',') {
            // What cannot be read was written beyond the trusted proxies.
            let Some(ip) = address(hop.trim()) else { return client };
            client = ip;
            if !trusted(ip) {
                return client;
            }
        }
    }
    client
}

/// An address as proxies write it: plain, in brackets, or with a port.
fn address(hop: &str) -> Option<IpAddr> {
    let plain = hop.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(hop);
    let ip = plain.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|a| a.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

/// Several lines become one, with `peer` at its end.
fn append_for(headers: &mut HeaderMap, peer: IpAddr) {
    let mut line = String::new();
    for before in headers.get_all(FOR) {
        line.push_str(before.to_str().unwrap_or_default());
        line.push_str(", ");
    }
    line.push_str(&peer.to_string());
    headers.insert(FOR, value(&line));
}

fn remove_all(headers: &mut HeaderMap) {
    let ours =
        |name: &str| name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip");
    let found: Vec<HeaderName> = headers.keys().filter(|n| ours(n.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// The request's identifier: the client's, if it is 1 to 128 visible ASCII characters, or a new
/// random UUID (version 4).
pub fn request_id(headers: &mut HeaderMap) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    if let Some(id) = headers.get(REQUEST_ID).filter(sane) {
        return id.clone();
    }
    let id = value(&uuid(fastrand::u128(..)));
    headers.insert(REQUEST_ID, id.clone());
    id
}

fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, trusted: &[&str], forwarded_for: &[&'static str]) -> (String, String) {
        let mut headers = HeaderMap::new();
        for line in forwarded_for {
            headers.append(FOR, HeaderValue::from_static(line));
        }
        let nets: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        let facts = Facts { peer, scheme: Scheme::Https, authority: "a:8443", port: 443 };
        let ip = apply(&mut headers, facts, &nets);
        assert_eq!(headers[REAL_IP], ip.to_string());
        (ip.to_string(), headers[FOR].to_str().unwrap().to_owned())
    }

    fn pair(a: &str, b: &str) -> (String, String) {
        (a.into(), b.into())
    }

    #[test]
    fn what_an_untrusted_peer_says_is_overwritten() {
        assert_eq!(client("192.0.2.9", &[], &["10.0.0.1"]), pair("192.0.2.9", "192.0.2.9"));
        assert_eq!(client("::ffff:192.0.2.9", &[], &[]), pair("192.0.2.9", "192.0.2.9"));
    }

    #[test]
    fn behind_trusted_proxies_the_last_untrusted_hop_is_the_client() {
        let nets = ["10.0.0.0/8"];
        for (lines, expected) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            (&["6.6.6.6, 198.51.100.7, 10.0.0.3"], "198.51.100.7"),
            (&["6.6.6.6", "198.51.100.7:4711"], "198.51.100.7"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["6.6.6.6, nonsense"], "10.0.0.2"),
            (&["10.0.0.9"], "10.0.0.9"),
            (&[], "10.0.0.2"),
        ] {
            assert_eq!(client("10.0.0.2", &nets, lines).0, expected, "{lines:?}");
        }
        assert_eq!(client("10.0.0.2", &nets, &["1.1.1.1"]).1, "1.1.1.1, 10.0.0.2");
    }

    #[test]
    fn fields_of_the_family_are_removed_and_set_anew() {
        let mut headers = HeaderMap::new();
        for name in ["x-forwarded-prefix", "x-forwarded-host", "forwarded", "x-forwarded-user"] {
            headers.insert(name, HeaderValue::from_static("evil"));
        }
        let peer = "192.0.2.1:5".parse().unwrap();
        let facts = Facts { peer, scheme: Scheme::Http, authority: "a.b", port: 80 };
        apply(&mut headers, facts, &[]);
        assert_eq!(headers[HOST], "a.b");
        assert_eq!(headers[PROTO], "http");
        assert_eq!(headers[PORT], "80");
        assert_eq!(headers.len(), 5);
    }

    #[test]
    fn a_request_id_is_kept_if_it_is_sane() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(text).unwrap());
            request_id(&mut headers)
        };
        assert_eq!(id("abc-1"), "abc-1");
        assert_ne!(id("a b"), "a b");
        assert_ne!(id(""), "");
        assert_ne!(id(&"x".repeat(129)), "x".repeat(129));
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
    }
}
