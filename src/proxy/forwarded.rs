//! Who the client is, and what the backend is told of it.
//!
//! X-Forwarded-* and the like are written by us and believed only from trusted proxies: what
//! any other peer sends under these names is removed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::outline::{Outline, is_forwarded};
use crate::policy::told::{Common, FOR, REAL_IP, REQUEST_ID, Told};
use crate::policy::{RequestHead, Scheme};
use crate::telemetry::Page;

/// What a connection tells of every request that comes by it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The other end, in the form that people read.
    peer: IpAddr,
    is_trusted: bool,
    /// The same as text with the rest, made once.
    common: Arc<Common>,
}

impl Origin {
    pub fn new(peer: IpAddr, scheme: Scheme, port: u16, trusted: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        let is_trusted = is_in(trusted, peer);
        let scheme = HeaderValue::from_static(scheme.as_str());
        let common = Common::new(text(peer), scheme, self::port(port));
        Origin { peer, is_trusted, common }
    }

    /// Tells the backend of the client and returns the client's address: the peer's, or, behind
    /// trusted proxies, the last address in X-Forwarded-For that is not one of them. `authority`
    /// is Host, with the port if the client wrote one.
    pub fn tell(
        &self,
        head: &mut RequestHead,
        outline: &Outline,
        authority: HeaderValue,
        trusted: &[IpNet],
    ) -> IpAddr {
        let headers = &mut head.headers;
        if outline.has_request_id {
            request_id(headers);
        }
        let id = (!outline.has_request_id).then(|| uuid(fastrand::u128(..)));
        let told = Told { common: Arc::clone(&self.common), authority, id };
        if !self.is_trusted {
            if outline.has_forwarded {
                remove_all(headers);
            }
            head.told = Some(told);
            return self.peer;
        }
        let address = &self.common.address;
        let client = client_behind(headers, self.peer, |ip| is_in(trusted, ip));
        append_for(headers, address);
        let is_peer = client == self.peer;
        let real = if is_peer { address.clone() } else { text(client) };
        headers.insert(REAL_IP, real);
        told.put_missing(headers);
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

/// The address as people write it.
fn text(ip: IpAddr) -> HeaderValue {
    // The formatter of the standard library takes ten times as long.
    let mut text = Page::new("255.255.255.255".len() + 1);
    text.ip(ip);
    HeaderValue::from_bytes(text.filled()).expect("an address is visible")
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

/// Puts a new identifier in the place of the client's, unless that is 1 to 128 visible ASCII
/// characters.
fn request_id(headers: &mut HeaderMap) {
    let is_sane = |id: &HeaderValue| {
        (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    if let Entry::Occupied(mut ids) = headers.entry(REQUEST_ID)
        && !is_sane(ids.get())
    {
        let id = HeaderValue::from_bytes(&uuid(fastrand::u128(..)));
        ids.insert(id.expect("hexadecimal digits are visible"));
    }
}

/// A random UUID (version 4): RFC 9562, 5.4, as text.
fn uuid(random: u128) -> [u8; 36] {
    let bits = random & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let [a, b, c, d] = [96, 64, 32, 0].map(|shift| hexadecimal((bits >> shift) as u32));
    let mut text = [b'-'; 36];
    text[..8].copy_from_slice(&a);
    text[9..13].copy_from_slice(&b[..4]);
    text[14..18].copy_from_slice(&b[4..]);
    text[19..23].copy_from_slice(&c[..4]);
    text[24..28].copy_from_slice(&c[4..]);
    text[28..].copy_from_slice(&d);
    text
}

/// Eight digits at once, a byte for each.
fn hexadecimal(number: u32) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & (0xf * EACH);
    // 1 for each that is a letter.
    let letters = (digits + 6 * EACH) >> 4 & EACH;
    let from_zero = u64::from(b'0') * EACH;
    let to_letters = u64::from(b'a' - b'0' - 10);
    (digits + from_zero + letters * to_letters).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::head;
    use crate::policy::told::{HOST, PORT, PROTO};

    fn client(peer: &str, trusted: &[&str], forwarded_for: &[&'static str]) -> (String, String) {
        let mut headers = HeaderMap::new();
        for line in forwarded_for {
            headers.append(FOR, HeaderValue::from_static(line));
        }
        let nets: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let origin = Origin::new(peer.parse().unwrap(), Scheme::Https, 443, &nets);
        let outline = Outline::of(&headers);
        let authority = HeaderValue::from_static("a:8443");
        let mut head = RequestHead { headers, ..head("GET", "http://a/", &[]) };
        let ip = origin.tell(&mut head, &outline, authority, &nets);
        head.tell();
        assert_eq!(head.headers[REAL_IP], ip.to_string());
        (ip.to_string(), head.headers[FOR].to_str().unwrap().to_owned())
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
    fn addresses_are_written_as_the_standard_library_does() {
        for ip in ["0.0.0.0", "9.10.99.100", "255.255.255.255", "2001:db8::1", "::"] {
            assert_eq!(text(ip.parse().unwrap()), ip);
        }
    }

    #[test]
    fn fields_of_the_family_are_removed_and_set_anew() {
        let mut headers = HeaderMap::new();
        for name in ["x-forwarded-prefix", "x-forwarded-host", "forwarded", "x-forwarded-user"] {
            headers.insert(name, HeaderValue::from_static("evil"));
        }
        let origin = Origin::new([192, 0, 2, 1].into(), Scheme::Http, 8080, &[]);
        let outline = Outline::of(&headers);
        let mut head = RequestHead { headers, ..head("GET", "http://a/", &[]) };
        origin.tell(&mut head, &outline, HeaderValue::from_static("a.b"), &[]);
        assert!(head.headers.is_empty(), "they are kept aside");
        head.tell();
        assert_eq!(head.headers[HOST], "a.b");
        assert_eq!(head.headers[PROTO], "http");
        assert_eq!(head.headers[PORT], "8080");
        assert_eq!(head.headers[REQUEST_ID].len(), 36);
        assert_eq!(head.headers.len(), 6);
    }

    #[test]
    fn a_request_id_is_kept_if_it_is_sane() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(text).unwrap());
            request_id(&mut headers);
            headers.remove(REQUEST_ID).unwrap()
        };
        assert_eq!(id("abc-1"), "abc-1");
        assert_ne!(id("a b"), "a b");
        assert_ne!(id(""), "");
        assert_ne!(id(&"x".repeat(129)), "x".repeat(129));
        assert_eq!(&uuid(u128::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(&uuid(0), b"00000000-0000-4000-8000-000000000000");
        let digits = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
        assert_eq!(&uuid(digits), b"01234567-89ab-4def-8123-456789abcdef");
    }

    #[test]
    fn of_several_request_ids_one_is_left() {
        let mut headers = HeaderMap::new();
        headers.append(REQUEST_ID, HeaderValue::from_static("a b"));
        headers.append(REQUEST_ID, HeaderValue::from_static("c"));
        request_id(&mut headers);
        assert_eq!(headers.get_all(REQUEST_ID).iter().count(), 1);
    }
}
