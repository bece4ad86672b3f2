//! The head of the request that a backend gets.

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HOST, SEC_WEBSOCKET_KEY, TE, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use hyper::ext::Protocol;

use super::request_body::RequestBody;
use crate::policy::RequestHead;
use crate::reason::Reason;

/// What one attempt sends, but for its body.
#[derive(Debug)]
pub struct Outgoing {
    method: Method,
    target: PathAndQuery,
    authority: HeaderValue,
    headers: HeaderMap,
    is_https: bool,
    /// The protocol to change to: by Upgrade, or over HTTP/2 by extended CONNECT.
    pub upgrade: Option<HeaderValue>,
    pub expects_continue: bool,
    /// The client takes trailers.
    pub trailers: bool,
}

impl Outgoing {
    /// # Errors
    /// [`Reason::Internal`] if a policy left a path or host that cannot be written.
    pub fn new(head: &RequestHead, is_https: bool) -> Result<Self, Reason> {
        let target = match &head.query {
            None => head.path.to_string(),
            Some(query) => format!("{}?{query}", head.path),
        };
        Ok(Outgoing {
            method: head.method.clone(),
            target: PathAndQuery::from_maybe_shared(Bytes::from(target))
                .map_err(|_| Reason::Internal)?,
            authority: HeaderValue::from_maybe_shared(Bytes::from(authority(head)))
                .map_err(|_| Reason::Internal)?,
            headers: head.headers.clone(),
            is_https,
            upgrade: None,
            expects_continue: false,
            trailers: false,
        })
    }

    /// The request for a connection that speaks HTTP/2 or HTTP/1.1.
    ///
    /// # Errors
    /// See [`Outgoing::new`].
    pub fn request(
        &self,
        is_http2: bool,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Reason> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        let headers = request.headers_mut();
        if self.trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if is_http2 {
            if self.upgrade.is_some() {
                // The only protocol that there is a way for (RFC 8441); `is_web_socket` told.
                headers.remove(SEC_WEBSOCKET_KEY);
                *request.method_mut() = Method::CONNECT;
                request.extensions_mut().insert(Protocol::from_static("websocket"));
            }
            *request.uri_mut() = self.absolute()?;
            return Ok(request);
        }
        headers.insert(HOST, self.authority.clone());
        match &self.upgrade {
            Some(protocol) => {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, protocol.clone());
            }
            None if self.trailers => {
                headers.insert(CONNECTION, HeaderValue::from_static("te"));
            }
            None => {}
        }
        if self.expects_continue {
            headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        *request.uri_mut() = Uri::from(self.target.clone());
        Ok(request)
    }

    /// Whether the connection is to become one of a WebSocket.
    pub fn is_web_socket(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
    }

    fn absolute(&self) -> Result<Uri, Reason> {
        let mut parts = http::uri::Parts::default();
        let authority =
            Authority::from_maybe_shared(Bytes::copy_from_slice(self.authority.as_bytes()));
        parts.authority = Some(authority.map_err(|_| Reason::Internal)?);
        parts.scheme =
            Some(if self.is_https { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP });
        parts.path_and_query = Some(self.target.clone());
        Uri::from_parts(parts).map_err(|_| Reason::Internal)
    }
}

/// The authority that goes upstream: a rewrite's, or else the client's own.
fn authority(head: &RequestHead) -> String {
    match &head.upstream_host {
        Some(host) => host.to_string(),
        None => client_authority(head),
    }
}

/// Host as the client wrote it, in normal form.
fn client_authority(head: &RequestHead) -> String {
    match head.port {
        None => head.host.to_string(),
        Some(port) => format!("{}:{port}", head.host),
    }
}
