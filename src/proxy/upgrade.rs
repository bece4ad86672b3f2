//! WebSocket and other protocols that take over a connection.
//!
//! What a client sends after its head is kept until the backend has answered 101 and we have
//! said so: bytes are never passed on before (CVE-2026-2833). A WebSocket of an HTTP/2 client
//! (RFC 8441) becomes one of HTTP/1.1 here, and the other way for an HTTP/2 backend.

use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio_util::either::Either;

use super::balance::InFlight;
use super::carry::{Progress, carry_paced};
use super::journey::Journey;
use super::paced::Lanes;
use super::peeked::Peeked;
use super::pool::Link;
use super::server::ConnectionGuard;
use super::timer::timed;
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

/// A connection that will be free for another protocol once its engine has written or read 101.
#[derive(Debug)]
pub enum OnUpgrade {
    Http1(oneshot::Receiver<Upgraded>),
    Http2(hyper::upgrade::OnUpgrade),
    /// It has another protocol already.
    Done(Option<Upgraded>),
}

impl OnUpgrade {
    /// `None` if the connection ended before.
    pub async fn upgraded(self) -> Option<Upgraded> {
        match self {
            OnUpgrade::Done(upgraded) => upgraded,
            OnUpgrade::Http1(upgraded) => upgraded.await.ok(),
            OnUpgrade::Http2(upgraded) => {
                upgraded.await.ok().map(|stream| Either::Right(TokioIo::new(stream)))
            }
        }
    }
}

/// A connection that has another protocol now, with what was read behind its head, or a stream
/// of an HTTP/2 connection.
pub type Upgraded = Either<Peeked<Wire>, TokioIo<hyper::upgrade::Upgraded>>;

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
    pub on_backend: OnUpgrade,
    /// Longest silence of both sides; zero: any.
    pub idle: Duration,
    /// How fast bytes pass from the client and to it.
    pub lanes: [Lanes; 2],
    pub journey: Box<Journey>,
    /// The stream's place on its connection.
    pub _link: Option<Link>,
    pub _in_flight: InFlight,
    pub _guard: Rc<ConnectionGuard>,
}

impl Tunnel {
    /// Carries bytes both ways until one side ends, both are silent, or the process stops.
    pub fn spawn(self) {
        spawn_local(timed(self.run()));
    }

    async fn run(mut self) {
        let (client, backend) =
            futures_util::join!(self.on_client.upgraded(), self.on_backend.upgraded());
        let (Some(mut client), Some(mut backend)) = (client, backend) else {
            self.journey.reason = Some(Reason::UpstreamReset);
            return;
        };
        let progress = Progress::default();
        let ended = carry_paced(&mut client, &mut backend, &progress, self.idle, self.lanes).await;
        // That a side goes without a word is how many tunnels end.
        if ended == Err(Reason::IdleTimeout) {
            self.journey.reason = Some(Reason::BackendTimeout);
        }
        self.journey.received = progress.received.get();
        self.journey.sent = progress.sent.get();
    }
}
