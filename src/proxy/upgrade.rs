//! WebSocket and other protocols that take over a connection.
//!
//! The engine keeps what a client sends after its head until the backend has answered 101 and
//! we have said so: bytes are never passed on before (CVE-2026-2833). A WebSocket of an HTTP/2
//! client (RFC 8441) becomes one of HTTP/1.1 here, and the other way for an HTTP/2 backend.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::task::spawn_local;

use super::balance::InFlight;
use super::journey::Journey;
use super::pool::Link;
use super::server::ConnectionGuard;
use crate::policy::{RequestHead, ResponseHead};
use crate::reason::Reason;

/// Bytes that are held in each direction.
const BUFFER: usize = 16 * 1024;

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
    pub on_backend: OnUpgrade,
    /// Longest silence of both sides; zero: any.
    pub idle: Duration,
    pub journey: Box<Journey>,
    pub _link: Link,
    pub _in_flight: InFlight,
    pub _guard: Rc<ConnectionGuard>,
}

impl Tunnel {
    /// Carries bytes both ways until one side ends, both are silent, or the process stops.
    pub fn spawn(self) {
        spawn_local(self.run());
    }

    async fn run(mut self) {
        let Ok((client, backend)) =
            futures_util::try_join!(&mut self.on_client, &mut self.on_backend)
        else {
            self.journey.reason = Some(Reason::UpstreamReset);
            return;
        };
        let progress = Rc::new(Progress::default());
        let mut client = Side::new(client, &progress, Way::Received);
        let mut backend = Side::new(backend, &progress, Way::Sent);
        let copying = copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER);
        tokio::select! {
            _ = copying => {}
            () = progress.silent(self.idle) => self.journey.reason = Some(Reason::BackendTimeout),
        }
        self.journey.received = progress.received.get();
        self.journey.sent = progress.sent.get();
    }
}

/// What has passed through a tunnel.
#[derive(Debug)]
struct Progress {
    last: Cell<Instant>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { last: Cell::new(Instant::now()), received: Cell::new(0), sent: Cell::new(0) }
    }
}

impl Progress {
    /// Returns once nothing has passed for `idle`.
    async fn silent(&self, idle: Duration) {
        if idle.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let until = self.last.get() + idle;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    /// What is read comes from the client.
    Received,
    Sent,
}

/// One side of a tunnel, with its bytes counted as they are read.
#[derive(Debug)]
struct Side {
    io: TokioIo<Upgraded>,
    progress: Rc<Progress>,
    way: Way,
}

impl Side {
    fn new(upgraded: Upgraded, progress: &Rc<Progress>, way: Way) -> Self {
        Side { io: TokioIo::new(upgraded), progress: Rc::clone(progress), way }
    }
}

impl AsyncRead for Side {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let bytes = (buf.filled().len() - before) as u64;
        let count = match self.way {
            Way::Received => &self.progress.received,
            Way::Sent => &self.progress.sent,
        };
        count.set(count.get() + bytes);
        self.progress.last.set(Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Side {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
