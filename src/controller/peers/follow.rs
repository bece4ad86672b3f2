//! One peer's `/peer` stream, read and reconnected for ever.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{BEAT, PeerReport};

/// A peer that says nothing for this long does not answer: four beats.
const SILENCE: Duration = BEAT.saturating_mul(4);
const CONNECT: Duration = Duration::from_millis(300);
const RECONNECT: Duration = Duration::from_millis(100);
/// Attempts after a stream was closed that must fail before its process counts as gone.
const ATTEMPTS: u32 = 2;
/// Longest line: some ten thousand ports.
const LONGEST_LINE: usize = 128 * 1024;

/// News of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Says(PeerReport),
    /// It cannot be reached, or says nothing.
    Silent,
    /// The process of this identity closed its stream, and does not listen any more or has been
    /// followed by another in the same place.
    Gone(String),
}

/// How a stream ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the other side closed it")]
    Closed,
    /// The other side may be alive.
    #[error(transparent)]
    Unclear(io::Error),
}

/// Reports about the peer at `ip` until nobody listens to `news` any more.
pub(super) async fn follow(ip: IpAddr, port: u16, news: mpsc::Sender<(IpAddr, Heard)>) {
    let mut last = Last { ip, identity: None, closed: false, failed: 0 };
    while !news.is_closed() {
        match open(SocketAddr::new(ip, port)).await {
            Ok(mut lines) => {
                last.failed = 0;
                let end = loop {
                    match lines.next().await {
                        Ok(report) => last.says(report, &news).await,
                        Err(end) => break end,
                    }
                };
                last.closed = matches!(end, End::Closed);
                tracing::debug!(peer = %ip, %end, "the peer's stream ended");
                let _ = news.send((ip, Heard::Silent)).await;
            }
            Err(error) => {
                tracing::debug!(peer = %ip, %error, "the peer cannot be reached");
                last.unreachable(&news).await;
            }
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// What is known of the process that was heard last.
struct Last {
    ip: IpAddr,
    identity: Option<String>,
    /// Its stream was closed by the other side.
    closed: bool,
    /// Attempts that have failed since.
    failed: u32,
}

impl Last {
    async fn says(&mut self, report: PeerReport, news: &mpsc::Sender<(IpAddr, Heard)>) {
        let before = self.identity.replace(report.identity.clone());
        self.closed = false;
        if let Some(before) = before.filter(|before| *before != report.identity) {
            let _ = news.send((self.ip, Heard::Gone(before))).await;
        }
        let _ = news.send((self.ip, Heard::Says(report))).await;
    }

    async fn unreachable(&mut self, news: &mpsc::Sender<(IpAddr, Heard)>) {
        self.failed = self.failed.saturating_add(1);
        if self.closed
            && self.failed >= ATTEMPTS
            && let Some(identity) = self.identity.take()
        {
            let _ = news.send((self.ip, Heard::Gone(identity))).await;
        }
    }
}

/// The lines of one stream. Ends its connection when dropped.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    _connection: tokio_util::task::AbortOnDropHandle<()>,
}

async fn open(addr: SocketAddr) -> io::Result<Lines> {
    let stream = timeout(CONNECT, TcpStream::connect(addr)).await??;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
    let connection = tokio::spawn(async move {
        // How it ended is seen by whoever reads the body.
        let _ = connection.await;
    });
    let connection = tokio_util::task::AbortOnDropHandle::new(connection);
    let request = Request::get("/peer")
        .header(http::header::HOST, addr.to_string())
        .body(Empty::new())
        .map_err(io::Error::other)?;
    let response =
        timeout(SILENCE, sender.send_request(request)).await?.map_err(io::Error::other)?;
    if response.status() != StatusCode::OK {
        return Err(io::Error::other(format!("/peer answers {}", response.status())));
    }
    Ok(Lines { body: response.into_body(), buffer: BytesMut::new(), _connection: connection })
}

impl Lines {
    async fn next(&mut self) -> Result<PeerReport, End> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return serde_json::from_slice(&line)
                    .map_err(|error| End::Unclear(io::Error::other(error)));
            }
            if self.buffer.len() > LONGEST_LINE {
                return Err(End::Unclear(io::Error::other("an endless line")));
            }
            match timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Ok(Some(Err(_)) | None) => return Err(End::Closed),
                Err(silence) => return Err(End::Unclear(silence.into())),
            }
        }
    }
}
