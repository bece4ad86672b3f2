//! WebSocket and other protocols that take over a connection.
//!
//! The engine keeps what a client sends after its head until the backend has answered 101 and
//! we have said so: bytes are never passed on before (CVE-2026-2833). A WebSocket of an HTTP/2
//! client (RFC 8441) becomes one of HTTP/1.1 here, and the other way for an HTTP/2 backend.

use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::task::spawn_local;

use super::balance::InFlight;
use super::carry::{Progress, carry};
use super::journey::Journey;
use super::pool::Link;
use super::server::ConnectionGuard;
use super::wire::Wire;
use crate::policy::{RequestHead, ResponseHead};
use crate::reason::Reason;

/// A client that wants its connection for another protocol.
#[derive(Debug)]
pub struct Asking {
    pub protocol: HeaderValue,
    pub on_client: OnUpgrade,
    /// The client speaks HTTP/2: the head of the answer is 200, not 101.
    pub is_http2: bool,
    /// Sec-WebSocket-Key of an HTTP/1.1 client: an HTTP/2 backend does not answer it.
    pub key: Option<HeaderValue>,
}

/// Makes an extended CONNECT the GET that opens a WebSocket over HTTP/1.1.
pub fn to_http1(head: &mut RequestHead) {
    head.method = Method::GET;
    let key = STANDARD.encode(fastrand::u128(..).to_be_bytes());
    if let Ok(key) = HeaderValue::try_from(key) {
        head.headers.insert(SEC_WEBSOCKET_KEY, key);
    }
}

/// The head that tells the client of the backend's 101; `agreed` is its Upgrade field.
pub fn accepted(
    asking: &Asking,
    mut headers: HeaderMap,
    agreed: Option<HeaderValue>,
) -> ResponseHead {
    if asking.is_http2 {
        headers.remove(SEC_WEBSOCKET_ACCEPT);
        return ResponseHead { status: StatusCode::OK, headers };
    }
    if let Some(accept) = asking.key.as_ref().map(accept)
        && !headers.contains_key(SEC_WEBSOCKET_ACCEPT)
    {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, agreed.unwrap_or(asking.protocol.clone()));
    ResponseHead { status: StatusCode::SWITCHING_PROTOCOLS, headers }
}

/// What a server answers to a Sec-WebSocket-Key (RFC 6455, 4.2.2).
fn accept(key: &HeaderValue) -> HeaderValue {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let text = STANDARD.encode(context.finish());
    HeaderValue::try_from(text).expect("base64 is text")
}

/// Both sides of a tunnel that is about to open, and what lives as long as it does.
#[derive(Debug)]
pub struct Tunnel {
    pub on_client: OnUpgrade,
    pub on_backend: Backend,
    /// Longest silence of both sides; zero: any.
    pub idle: Duration,
    pub journey: Box<Journey>,
    pub _in_flight: InFlight,
    pub _guard: Rc<ConnectionGuard>,
}

/// The backend's end of a tunnel.
#[derive(Debug)]
pub enum Backend {
    /// The connection, and what was read of it after the head.
    Http1(Wire, Bytes),
    /// The stream, and its place on the connection.
    Http2(OnUpgrade, Link),
    Gone,
}

impl Backend {
    /// `stream` is there if the connection speaks HTTP/2.
    pub fn new(link: Link, stream: Option<OnUpgrade>) -> Self {
        match stream {
            Some(stream) => Backend::Http2(stream, link),
            None => {
                link.into_upgraded().map_or(Backend::Gone, |(io, read)| Backend::Http1(io, read))
            }
        }
    }
}

impl Tunnel {
    /// Carries bytes both ways until one side ends, both are silent, or the process stops.
    pub fn spawn(self) {
        spawn_local(self.run());
    }

    async fn run(mut self) {
        let progress = Progress::default();
        let Ok(client) = (&mut self.on_client).await else {
            self.journey.reason = Some(Reason::ClientGone);
            return;
        };
        let mut client = TokioIo::new(client);
        let ended = match self.on_backend {
            Backend::Http1(wire, read) => {
                let (from, to) = tokio::io::split(wire);
                let mut backend = tokio::io::join(std::io::Cursor::new(read).chain(from), to);
                carry(&mut client, &mut backend, &progress, self.idle).await
            }
            Backend::Http2(stream, _link) => match stream.await {
                Ok(stream) => {
                    carry(&mut client, &mut TokioIo::new(stream), &progress, self.idle).await
                }
                Err(_) => Err(Reason::UpstreamReset),
            },
            Backend::Gone => Err(Reason::UpstreamReset),
        };
        // That a side goes without a word is how many tunnels end.
        if ended == Err(Reason::IdleTimeout) {
            self.journey.reason = Some(Reason::BackendTimeout);
        }
        self.journey.received = progress.received.get();
        self.journey.sent = progress.sent.get();
    }
}
