//! The head of the request that a backend gets.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, EXPECT, SEC_WEBSOCKET_KEY, TE, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri};
use hyper::ext::Protocol;

use super::http1::client::WriteHead;
use super::http1::encode;
use super::http1::framing::Framing;
use super::pool::Head;
use super::request_body::RequestBody;
use crate::policy::RequestHead;
use crate::reason::Reason;

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const CONTINUE: HeaderValue = HeaderValue::from_static("100-continue");

/// What one attempt sends, but for its body: the request as the policies left it, and what
/// belongs to the connection. HTTP/1.1 is written straight from it, HTTP/2 gets a copy.
#[derive(Debug)]
pub struct Outgoing<'a> {
    head: &'a RequestHead,
    is_https: bool,
    /// The protocol to change to: by Upgrade, or over HTTP/2 by extended CONNECT.
    pub upgrade: Option<HeaderValue>,
    pub expects_continue: bool,
    /// The client takes trailers.
    pub trailers: bool,
}

impl<'a> Outgoing<'a> {
    /// # Errors
    /// [`Reason::Internal`] if a policy left a path or host that cannot be written.
    pub fn new(head: &'a RequestHead, is_https: bool) -> Result<Self, Reason> {
        let query = head.query.as_deref().unwrap_or_default();
        let is_path = head.path.starts_with('/') && !head.path.bytes().any(|byte| byte == b'?');
        let can_stand = is_path && [&head.path, query, host(head)].into_iter().all(is_visible);
        if !can_stand {
            return Err(Reason::Internal);
        }
        Ok(Outgoing { head, is_https, upgrade: None, expects_continue: false, trailers: false })
    }

    /// Whether the connection is to become one of a WebSocket.
    pub fn is_web_socket(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
    }

    fn absolute(&self) -> Result<Uri, Reason> {
        let target = match &self.head.query {
            None => self.head.path.to_string(),
            Some(query) => format!("{}?{query}", self.head.path),
        };
        let mut authority = host(self.head).to_owned();
        if let Some(port) = port(self.head) {
            // Writing to a string does not fail.
            let _ = write!(authority, ":{port}");
        }
        let mut parts = http::uri::Parts::default();
        parts.authority = Authority::from_maybe_shared(Bytes::from(authority)).ok();
        parts.scheme = Some(if self.is_https { Scheme::HTTPS } else { Scheme::HTTP });
        parts.path_and_query = PathAndQuery::from_maybe_shared(Bytes::from(target)).ok();
        Uri::from_parts(parts).map_err(|_| Reason::Internal)
    }
}

impl WriteHead for Outgoing<'_> {
    fn method(&self) -> &Method {
        &self.head.method
    }

    fn write(&self, out: &mut BytesMut, framing: Framing) -> Result<(), Reason> {
        let head = self.head;
        out.reserve(HEAD_BYTES);
        encode::request_line(out, &head.method, &head.path, head.query.as_deref());
        out.extend_from_slice(b"host: ");
        out.extend_from_slice(host(head).as_bytes());
        if let Some(port) = port(head) {
            write!(out, ":{port}").map_err(|_| Reason::Internal)?;
        }
        out.extend_from_slice(b"\r\n");
        encode::fields(out, &head.headers);
        if let Some(told) = &head.told {
            told.write(out);
        }
        if self.trailers {
            encode::field(out, &TE, &TRAILERS);
        }
        match &self.upgrade {
            Some(protocol) => {
                encode::field(out, &CONNECTION, &HeaderValue::from_static("upgrade"));
                encode::field(out, &UPGRADE, protocol);
            }
            None if self.trailers => {
                encode::field(out, &CONNECTION, &HeaderValue::from_static("te"));
            }
            None => {}
        }
        if self.expects_continue {
            encode::field(out, &EXPECT, &CONTINUE);
        }
        encode::framing(out, framing);
        Ok(())
    }
}

impl Head for Outgoing<'_> {
    fn http2(&self, body: RequestBody) -> Result<Request<RequestBody>, Reason> {
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.absolute()?;
        *request.headers_mut() = self.head.headers.clone();
        let headers = request.headers_mut();
        if let Some(told) = self.head.told.clone() {
            told.put(headers);
        }
        if self.trailers {
            headers.insert(TE, TRAILERS);
        }
        if self.upgrade.is_some() {
            // The only protocol that there is a way for (RFC 8441); `is_web_socket` told.
            headers.remove(SEC_WEBSOCKET_KEY);
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(Protocol::from_static("websocket"));
        }
        Ok(request)
    }
}

/// Room for nearly every head, and for a small body behind it.
const HEAD_BYTES: usize = 1024;

/// Whether a part of a target or authority has only bytes that can stand there: no white space,
/// no control characters, and nothing that would end it.
fn is_visible(part: &str) -> bool {
    part.bytes().all(|byte| byte > b' ' && byte != 0x7f && byte != b'#')
}

/// The host that goes upstream: a rewrite's, or else the client's own.
fn host(head: &RequestHead) -> &str {
    head.upstream_host.as_deref().unwrap_or(&head.host)
}

/// A rewrite's host has no port of its own.
fn port(head: &RequestHead) -> Option<u16> {
    head.port.filter(|_| head.upstream_host.is_none())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::policy::Scheme;

    fn head() -> RequestHead {
        RequestHead {
            method: Method::GET,
            scheme: Scheme::Http,
            host: "a.example".into(),
            port: Some(8080),
            path: "/p".into(),
            query: Some("q=1".into()),
            headers: HeaderMap::new(),
            told: None,
            upstream_host: None,
        }
    }

    fn written(outgoing: &Outgoing<'_>, framing: Framing) -> String {
        let mut out = BytesMut::new();
        outgoing.write(&mut out, framing).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_head_is_written_with_what_belongs_to_the_connection_and_its_own_framing() {
        let mut head = head();
        head.headers.insert("x-a", HeaderValue::from_static("1"));
        head.headers.insert("content-length", HeaderValue::from_static("7"));
        let mut outgoing = Outgoing::new(&head, false).unwrap();
        let text = "GET /p?q=1 HTTP/1.1\r\nhost: a.example:8080\r\nx-a: 1\r\n";
        assert_eq!(written(&outgoing, Framing::Empty), format!("{text}\r\n"));
        outgoing.trailers = true;
        outgoing.expects_continue = true;
        assert_eq!(
            written(&outgoing, Framing::Chunked),
            format!(
                "{text}te: trailers\r\nconnection: te\r\nexpect: 100-continue\r\n\
                 transfer-encoding: chunked\r\n\r\n"
            )
        );
    }

    #[test]
    fn a_rewritten_host_goes_out_without_the_clients_port() {
        let head = RequestHead { upstream_host: Some("b".into()), query: None, ..head() };
        let outgoing = Outgoing::new(&head, true).unwrap();
        assert!(written(&outgoing, Framing::Empty).starts_with("GET /p HTTP/1.1\r\nhost: b\r\n"));
        let request = outgoing.http2(RequestBody::Empty).unwrap();
        assert_eq!(request.uri(), "https://b/p");
    }

    #[test]
    fn what_could_end_a_line_or_a_target_is_never_written() {
        for path in ["", "x", "/a b", "/a\r\nx: y", "/a?b", "/a#b", "/a\x7f", "/a\0"] {
            let head = RequestHead { path: path.into(), ..head() };
            assert_eq!(Outgoing::new(&head, false).err(), Some(Reason::Internal), "{path:?}");
        }
        for host in ["a b", "a\r\nx: y", "a\n"] {
            let head = RequestHead { upstream_host: Some(host.into()), ..head() };
            assert_eq!(Outgoing::new(&head, false).err(), Some(Reason::Internal), "{host:?}");
        }
        let head = RequestHead { query: Some("a b".into()), ..head() };
        assert!(Outgoing::new(&head, false).is_err());
    }
}
