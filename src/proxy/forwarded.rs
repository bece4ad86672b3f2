//! Who the client is, and what the backend is told of it.
//!
//! X-Forwarded-* and the like are written by us and believed only from trusted proxies: what
//! any other peer sends under these names is removed.

use std::net::{IpAddr, SocketAddr};

use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::outline::{Outline, is_forwarded};
use crate::policy::Scheme;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a connection tells of every request that comes by it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The other end, in the form that people read.
    peer: IpAddr,
    /// The same as text, made once.
    address: HeaderValue,
    is_trusted: bool,
    scheme: Scheme,
    /// The port that users connect to.
    port: u16,
}

impl Origin {
    pub fn new(peer: IpAddr, scheme: Scheme, port: u16, trusted: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let is_trusted = is_in(trusted, peer);
        Origin { peer, address: value(&peer.to_string()), is_trusted, scheme, port }
    }

    /// Writes the fields and returns the client's address: the peer's, or, behind trusted proxies,
    /// the last address in X-Forwarded-For that is not one of them. `authority` is Host, with the
    /// port if the client wrote one.
    pub fn apply(
        &self,
        headers: &mut HeaderMap,
        outline: &Outline,
        authority: HeaderValue,
        trusted: &[IpNet],
    ) -> IpAddr {
        if !self.is_trusted {
            if outline.has_forwarded {
                remove_all(headers);
            }
            headers.insert(FOR, self.address.clone());
            headers.insert(REAL_IP, self.address.clone());
            headers.insert(PROTO, HeaderValue::from_static(self.scheme.as_str()));
            headers.insert(HOST, authority);
            headers.insert(PORT, port(self.port));
            return self.peer;
        }
        let client = client_behind(headers, self.peer, |ip| is_in(trusted, ip));
        append_for(headers, &self.address);
        let is_peer = client == self.peer;
        let real = if is_peer { self.address.clone() } else { value(&client.to_string()) };
        headers.insert(REAL_IP, real);
        let proto = || HeaderValue::from_static(self.scheme.as_str());
        headers.entry(PROTO).or_insert_with(proto);
        headers.entry(HOST).or_insert(authority);
        headers.entry(PORT).or_insert_with(|| port(self.port));
        client
    }
}

fn is_in(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

fn port(port: u16) -> HeaderValue {
    match port {
        80 => HeaderValue::from_static("80"),
        443 => HeaderValue::from_static("443"),
        other => HeaderValue::from(other),
    }
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
fn append_for(headers: &mut HeaderMap, peer: &HeaderValue) {
    let mut line = Vec::new();
    for before in headers.get_all(FOR) {
        line.extend_from_slice(before.to_str().unwrap_or_default().as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(peer.as_bytes());
    headers.insert(FOR, HeaderValue::try_from(line).unwrap_or(peer.clone()));
}

fn remove_all(headers: &mut HeaderMap) {
    let found: Vec<HeaderName> =
        headers.keys().filter(|name| is_forwarded(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// The request's identifier: the client's, if it is 1 to 128 visible ASCII characters, or a new
/// random UUID (version 4).
pub fn request_id(headers: &mut HeaderMap) -> &HeaderValue {
    let is_sane = |id: &HeaderValue| {
        (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    let new = || {
        let id = HeaderValue::from_bytes(&uuid(fastrand::u128(..)));
        id.expect("hexadecimal digits are visible")
    };
    match headers.entry(REQUEST_ID) {
        Entry::Vacant(none) => none.insert(new()),
        Entry::Occupied(mut ids) => {
            if !is_sane(ids.get()) {
                ids.insert(new());
            }
            ids.into_mut()
        }
    }
}

/// RFC 9562, 5.4, as text.
fn uuid(random: u128) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bits = random & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (n, byte) in bits.to_be_bytes().into_iter().enumerate() {
        // After 4, 6, 8 and 10 bytes stands a dash.
        at += usize::from(matches!(n, 4 | 6 | 8 | 10));
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 0xf)];
        at += 2;
    }
    text
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
        let origin = Origin::new(peer.parse().unwrap(), Scheme::Https, 443, &nets);
        let outline = Outline::of(&headers);
        let authority = HeaderValue::from_static("a:8443");
        let ip = origin.apply(&mut headers, &outline, authority, &nets);
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
        let origin = Origin::new([192, 0, 2, 1].into(), Scheme::Http, 8080, &[]);
        let outline = Outline::of(&headers);
        origin.apply(&mut headers, &outline, HeaderValue::from_static("a.b"), &[]);
        assert_eq!(headers[HOST], "a.b");
        assert_eq!(headers[PROTO], "http");
        assert_eq!(headers[PORT], "8080");
        assert_eq!(headers.len(), 5);
    }

    #[test]
    fn a_request_id_is_kept_if_it_is_sane() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(text).unwrap());
            request_id(&mut headers).clone()
        };
        assert_eq!(id("abc-1"), "abc-1");
        assert_ne!(id("a b"), "a b");
        assert_ne!(id(""), "");
        assert_ne!(id(&"x".repeat(129)), "x".repeat(129));
        assert_eq!(&uuid(u128::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(&uuid(0), b"00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn of_several_request_ids_one_is_left() {
        let mut headers = HeaderMap::new();
        headers.append(REQUEST_ID, HeaderValue::from_static("a b"));
        headers.append(REQUEST_ID, HeaderValue::from_static("c"));
        let id = request_id(&mut headers).clone();
        assert_eq!(headers.get_all(REQUEST_ID).iter().collect::<Vec<_>>(), [&id]);
    }
}
