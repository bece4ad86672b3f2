//! What backends are told of a client, beside the fields that the client sent.
//!
//! For most requests nobody but the backend wants to see these fields, and six of them in a map cost
//! more than all that the client sends. So they are kept aside, most of them as the very bytes
//! that are written, until somebody may look at all fields: see [`RequestHead::tell`].
//!
//! [`RequestHead::tell`]: super::RequestHead::tell

use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

pub const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The fields that are the same for all requests of a connection.
#[derive(Debug)]
pub struct Common {
    /// The other end.
    pub address: HeaderValue,
    pub scheme: HeaderValue,
    /// The port that users connect to.
    pub port: HeaderValue,
    /// All four fields, as HTTP/1.1 has them.
    lines: Box<[u8]>,
}

impl Common {
    pub fn new(address: HeaderValue, scheme: HeaderValue, port: HeaderValue) -> Arc<Self> {
        let mut lines = Vec::with_capacity(128);
        for (name, value) in [(FOR, &address), (REAL_IP, &address), (PROTO, &scheme), (PORT, &port)]
        {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
        Arc::new(Common { address, scheme, port, lines: lines.into() })
    }
}

/// See the module's documentation. None of these fields is in the head's map meanwhile.
#[derive(Clone, Debug)]
pub struct Told {
    pub common: Arc<Common>,
    /// X-Forwarded-Host: Host, with the port if the client wrote one.
    pub authority: HeaderValue,
    /// X-Request-Id, unless the client's own is kept.
    pub id: Option<[u8; 36]>,
}

impl Told {
    /// The value of a field, if it is one of these.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        let Told { common, authority, id } = self;
        match name.as_str() {
            "x-forwarded-for" | "x-real-ip" => Some(common.address.as_bytes()),
            "x-forwarded-proto" => Some(common.scheme.as_bytes()),
            "x-forwarded-host" => Some(authority.as_bytes()),
            "x-forwarded-port" => Some(common.port.as_bytes()),
            "x-request-id" => id.as_ref().map(<[u8; 36]>::as_slice),
            _ => None,
        }
    }

    /// Puts all of them among the others.
    pub fn put(self, headers: &mut HeaderMap) {
        let Told { common, authority, id } = self;
        headers.insert(FOR, common.address.clone());
        headers.insert(REAL_IP, common.address.clone());
        headers.insert(PROTO, common.scheme.clone());
        headers.insert(PORT, common.port.clone());
        headers.insert(HOST, authority);
        if let Some(id) = id {
            headers.insert(REQUEST_ID, text(&id));
        }
    }

    /// Puts those that a trusted proxy has not told, but for the addresses.
    pub fn put_missing(self, headers: &mut HeaderMap) {
        let Told { common, authority, id } = self;
        headers.entry(PROTO).or_insert_with(|| common.scheme.clone());
        headers.entry(PORT).or_insert_with(|| common.port.clone());
        headers.entry(HOST).or_insert(authority);
        if let Some(id) = id {
            headers.insert(REQUEST_ID, text(&id));
        }
    }

    /// Writes them as HTTP/1.1 has them.
    pub fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.common.lines);
        out.extend_from_slice(b"x-forwarded-host: ");
        out.extend_from_slice(self.authority.as_bytes());
        if let Some(id) = &self.id {
            out.extend_from_slice(b"\r\nx-request-id: ");
            out.extend_from_slice(id);
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn text(id: &[u8; 36]) -> HeaderValue {
    HeaderValue::from_bytes(id).expect("hexadecimal digits are visible")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(id: Option<[u8; 36]>) -> Told {
        let value = HeaderValue::from_static;
        let common = Common::new(value("192.0.2.1"), value("http"), value("8080"));
        Told { common, authority: value("a.example"), id }
    }

    #[test]
    fn what_is_written_is_found_and_put_into_a_map_is_the_same() {
        for (id, count) in [(None, 5), (Some([b'7'; 36]), 6)] {
            let told = told(id);
            let mut out = BytesMut::new();
            told.write(&mut out);
            let mut headers = HeaderMap::new();
            told.clone().put(&mut headers);
            assert_eq!(headers.len(), count);
            let text = String::from_utf8(out.to_vec()).unwrap();
            assert_eq!(text.matches("\r\n").count(), count);
            for (name, value) in &headers {
                assert_eq!(told.get(name), Some(value.as_bytes()));
                assert!(text.contains(&format!("{name}: {}\r\n", value.to_str().unwrap())));
            }
            assert_eq!(told.get(&HeaderName::from_static("x-forwarded-user")), None);
        }
    }
}
