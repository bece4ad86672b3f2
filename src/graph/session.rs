//! Clients that stay with the endpoint that they were given first (GEP-1619).
//!
//! What the user says about it, and the token that the client carries: everything that is known
//! of a session is in there, sealed, so that every replica and every later graph can read it and
//! nobody else can. Finding tokens in requests and putting them into responses is the proxy's
//! work.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;

use super::BackendKey;

/// Seconds since the epoch, IPv6 address (IPv4 mapped), port.
const PLAIN: usize = 4 + 16 + 2;
const SEALED: usize = NONCE_LEN + PLAIN + 16;
/// Characters of a token.
pub const TOKEN_LENGTH: usize = (SEALED * 8).div_ceil(6);

/// Session persistence of a rule or of a backend.
#[derive(Debug)]
pub struct Session {
    pub kind: SessionKind,
    /// A session ends so long after it began; `None`: never.
    pub absolute: Option<Duration>,
    key: LessSafeKey,
}

/// What carries the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKind {
    Cookie(Cookie),
    /// A field of the response, which the client has to repeat.
    Header(HeaderName),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    name: Box<str>,
    path: Box<str>,
    pub lifetime: CookieLifetime,
}

/// How long a browser keeps the cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CookieLifetime {
    /// Until it is closed.
    #[default]
    Session,
    /// As long as the session may last: [`Session::absolute`] is set.
    Permanent,
}

impl Cookie {
    /// # Errors
    /// A message for the user: `name` is no token (RFC 6265, 4.1.1), or `path` is none.
    pub fn new(name: &str, path: &str, lifetime: CookieLifetime) -> Result<Self, String> {
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("{name:?} is not the name of a cookie; use letters, digits, `_`"));
        }
        let is_path = |b: u8| (0x21..0x7f).contains(&b) && b != b';';
        if !path.starts_with('/') || !path.bytes().all(is_path) {
            return Err(format!("{path:?} is not the path of a cookie; begin it with `/`"));
        }
        Ok(Cookie { name: name.into(), path: path.into(), lifetime })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> &str {
        &self.path
    }
}

/// A byte of an RFC 9110 token (5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

impl Session {
    /// `uid` is that of the object that asks for the session: all replicas know it and clients
    /// do not, so the key of the tokens is made of it.
    pub fn new(kind: SessionKind, absolute: Option<Duration>, uid: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"tidegate session\n");
        context.update(uid.as_bytes());
        let key = UnboundKey::new(&AES_256_GCM_SIV, context.finish().as_ref())
            .expect("SHA-256 has the length of the key");
        Session { kind, absolute, key: LessSafeKey::new(key) }
    }

    /// The token of a session with an endpoint of `backend` that begins at `now` (seconds since
    /// the epoch). `nonce` need not be secret.
    pub fn seal(&self, backend: &BackendKey, to: SocketAddr, now: u64, nonce: [u8; 12]) -> String {
        let mut text = Vec::with_capacity(SEALED);
        text.extend(u32::try_from(now).unwrap_or(u32::MAX).to_be_bytes());
        text.extend(mapped(to.ip()).octets());
        text.extend(to.port().to_be_bytes());
        let sealed_with = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(sealed_with, Aad::from(aad(backend)), &mut text)
            .expect("a text of a few bytes can be sealed");
        text.splice(..0, nonce);
        URL_SAFE_NO_PAD.encode(text)
    }

    /// The endpoint of `backend` that a token names, unless it is none of ours or has expired.
    pub fn open(&self, backend: &BackendKey, token: &str, now: u64) -> Option<SocketAddr> {
        let mut sealed = [0; SEALED];
        let length = URL_SAFE_NO_PAD.decode_slice(token, &mut sealed).ok()?;
        if length != SEALED {
            return None;
        }
        let (nonce, text) = sealed.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self.key.open_in_place(nonce, Aad::from(aad(backend)), text).ok()?;
        let (began, rest) = text.split_first_chunk::<4>()?;
        let (ip, port) = rest.split_first_chunk::<16>()?;
        let port = u16::from_be_bytes(*port.first_chunk()?);
        let age = now.saturating_sub(u64::from(u32::from_be_bytes(*began)));
        if self.absolute.is_some_and(|absolute| age >= absolute.as_secs()) {
            return None;
        }
        Some(SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), port))
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// What a token belongs to: it cannot be used for another backend.
fn aad(backend: &BackendKey) -> Vec<u8> {
    let BackendKey { kind, namespace, service, port, .. } = backend;
    format!("{kind}/{namespace}/{service}/{port}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::key;

    const NOW: u64 = 1_700_000_000;

    fn session(absolute: Option<Duration>, uid: &str) -> Session {
        let cookie = Cookie::new("stay", "/", CookieLifetime::Session).unwrap();
        Session::new(SessionKind::Cookie(cookie), absolute, uid)
    }

    #[test]
    fn a_token_names_its_endpoint_to_every_replica() {
        for addr in ["192.0.2.7:8080", "[2001:db8::7]:443"] {
            let addr: SocketAddr = addr.parse().unwrap();
            let token = session(None, "uid").seal(&key("web", 80), addr, NOW, [7; 12]);
            let open = |uid, backend| session(None, uid).open(&backend, &token, NOW + 1_000_000);
            assert_eq!(open("uid", key("web", 80)), Some(addr));
            assert_eq!(open("other", key("web", 80)), None);
            assert_eq!(open("uid", key("web", 81)), None);
            assert_eq!(token.len(), TOKEN_LENGTH);
        }
    }

    #[test]
    fn a_token_that_was_changed_or_has_expired_names_nothing() {
        let session = session(Some(Duration::from_secs(60)), "uid");
        let addr = "192.0.2.7:80".parse().unwrap();
        let token = session.seal(&key("web", 80), addr, NOW, [7; 12]);
        assert_eq!(session.open(&key("web", 80), &token, NOW + 59), Some(addr));
        assert_eq!(session.open(&key("web", 80), &token, NOW + 60), None);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(session.open(&key("web", 80), &changed, NOW), None, "{at}");
        }
        for token in ["", "AAAA", &token.repeat(2), "not base64!"] {
            assert_eq!(session.open(&key("web", 80), token, NOW), None);
        }
    }

    #[test]
    fn names_and_paths_cannot_add_attributes() {
        let new = |name, path| Cookie::new(name, path, CookieLifetime::Session);
        assert!(new("stay", "/shop").is_ok());
        assert!(new("a=b", "/").is_err() && new("", "/").is_err());
        assert!(new("stay", "/; Domain=example.com").is_err() && new("stay", "shop").is_err());
    }
}
