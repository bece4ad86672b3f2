//! A connection to an endpoint as an exchange has it: for itself (HTTP/1.1), or as a place on one
//! that others use too (HTTP/2). Where it comes from is not known here; it is given back to its
//! pool.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use http::{Request, Response};
use hyper::client::conn::{TrySendError, http2};

use super::{Pool, Shared};
use crate::proxy::connect::{SETTINGS_AFTER_MS, Settings};
use crate::proxy::http1::client::{self, Conn, OnInterim, SendError, WriteHead};
use crate::proxy::incoming::Incoming;
use crate::proxy::peeked::Peeked;
use crate::proxy::request_body::RequestBody;
use crate::proxy::timer::after;
use crate::proxy::upgrade::Upgraded;
use crate::reason::Reason;

/// A connection to an endpoint, for one exchange.
#[derive(Debug)]
pub struct Link {
    pub(super) sender: Sender,
    pub(super) pool: Rc<Pool>,
    /// It has served before: that it fails says nothing about the endpoint.
    pub is_kept: bool,
}

#[derive(Debug)]
pub(super) enum Sender {
    Http1(Conn),
    Http2 { sender: http2::SendRequest<RequestBody>, stream: Stream },
}

/// A request until the head of its answer is there.
pub enum Sending<'a> {
    Http1(client::Sending<'a>),
    Http2(LocalBoxFuture<'a, Result<Response<Incoming>, SendError>>),
}

/// A place on a shared connection.
#[derive(Debug)]
pub(super) struct Stream {
    streams: Rc<Cell<usize>>,
    settings: Rc<Settings>,
    used: Rc<Cell<Instant>>,
}

impl Stream {
    pub(super) fn take(shared: &Shared) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Stream {
            streams: Rc::clone(&shared.streams),
            settings: Rc::clone(&shared.settings),
            used: Rc::clone(&shared.used),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.set(self.streams.get() - 1);
        self.used.set(Instant::now());
    }
}

/// The head of a request, for a connection of either version.
pub trait Head: WriteHead {
    /// The request for a connection that speaks HTTP/2.
    ///
    /// # Errors
    /// Some part of the head cannot be written.
    fn http2(&self, body: RequestBody) -> Result<Request<RequestBody>, Reason>;
}

impl Link {
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2 { .. })
    }

    /// Whether the endpoint takes a CONNECT with a protocol over HTTP/2 (RFC 8441). A new
    /// connection may have to wait a moment for its settings.
    pub async fn takes_connect(&self) -> bool {
        let Sender::Http2 { stream, .. } = &self.sender else { return false };
        for ms in SETTINGS_AFTER_MS {
            if stream.settings.extended_connect.get() {
                return true;
            }
            after(Duration::from_millis(ms)).await;
        }
        stream.settings.extended_connect.get()
    }

    /// Begins to send a request. Interim answers are told of by HTTP/1.1 alone.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send<'a>(
        &'a mut self,
        head: &'a impl Head,
        body: RequestBody,
        interim: OnInterim<'a>,
    ) -> Result<Sending<'a>, SendError> {
        match &mut self.sender {
            Sender::Http1(conn) => Ok(Sending::Http1(conn.send(head, body, interim)?)),
            Sender::Http2 { sender, .. } => {
                let request = head.http2(body).map_err(SendError::Request)?;
                let answer = sender.try_send_request(request);
                // Boxed: the engine's future is several times as large as ours.
                Ok(Sending::Http2(Box::pin(async {
                    answer.await.map(|response| response.map(Incoming::from)).map_err(broken)
                })))
            }
        }
    }

    /// The exchange is over: keeps the connection if it is good for another. The bodies of the
    /// exchange must not be read any more.
    pub fn release(self) {
        if let Sender::Http1(conn) = self.sender
            && conn.rest()
        {
            self.pool.keep(conn);
        }
    }

    /// The connection after a 101, and what was read of it after the head; `None` for HTTP/2.
    pub fn into_upgraded(self) -> Option<Upgraded> {
        match self.sender {
            Sender::Http1(conn) => {
                conn.into_upgraded().map(|(wire, read)| Upgraded::Left(Peeked::new(read, wire)))
            }
            Sender::Http2 { .. } => None,
        }
    }
}

impl Future for Sending<'_> {
    type Output = Result<Response<Incoming>, SendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Sending::Http1(sending) => Pin::new(sending).poll(cx),
            Sending::Http2(sending) => sending.as_mut().poll(cx),
        }
    }
}

impl std::fmt::Debug for Sending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Sending::Http1(_) => "Http1",
            Sending::Http2(_) => "Http2",
        })
    }
}

fn broken(mut error: TrySendError<Request<RequestBody>>) -> SendError {
    let is_unsent = error.take_message().is_some();
    let error = error.into_error();
    match () {
        () if is_unsent => SendError::Unsent,
        () if is_unprocessed(&error) => SendError::Unprocessed,
        () if error.is_parse() || error.is_user() => SendError::Protocol(error.to_string()),
        () => SendError::Broken(error.to_string()),
    }
}

/// Whether the backend says that it did not begin with the request: its stream was refused, or
/// is beyond the last one of a GOAWAY (RFC 9113, 6.8 and 8.7).
fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (error.is_go_away() || (error.is_reset() && refused));
        }
        source = error.source();
    }
    false
}
