//! The body of a message as one of the engines reads it: hyper over HTTP/2, ours over HTTP/1.1.
//!
//! Everything behind the engines knows bodies by this type alone.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::http1::{self, download};

/// See the module's documentation.
#[derive(Debug)]
pub enum Incoming {
    /// There is none.
    Empty,
    /// Of a client's request.
    Http1(http1::Body),
    /// Of an endpoint's answer.
    Http1Answer(download::Body),
    Http2(hyper::body::Incoming),
    /// Some of it was read, and put back.
    Begun(Box<Begun>),
}

/// What was read of a body already, and the rest.
#[derive(Debug)]
pub struct Begun {
    first: Option<Bytes>,
    rest: Incoming,
}

impl Incoming {
    /// Puts back what was read of a body.
    pub fn begun(first: Bytes, rest: Incoming) -> Self {
        Incoming::Begun(Box::new(Begun { first: Some(first), rest }))
    }
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection or the stream ended.
    #[error("the peer is gone")]
    Gone,
    /// What came is no body (RFC 9112, 7.1; RFC 9113, 8.1.1).
    #[error("the body cannot be read: {0}")]
    Malformed(String),
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        let is_gone = error.is_incomplete_message() || error.is_canceled();
        if is_gone { BodyError::Gone } else { BodyError::Malformed(error.to_string()) }
    }
}

impl From<hyper::body::Incoming> for Incoming {
    fn from(body: hyper::body::Incoming) -> Self {
        Incoming::Http2(body)
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Incoming::Empty => Poll::Ready(None),
            Incoming::Begun(begun) => match begun.first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => Pin::new(&mut begun.rest).poll_frame(cx),
            },
            Incoming::Http1(body) => body.poll_frame(cx),
            Incoming::Http1Answer(body) => body.poll_frame(cx),
            Incoming::Http2(body) => {
                Pin::new(body).poll_frame(cx).map(|next| next.map(|frame| Ok(frame?)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Incoming::Empty => true,
            Incoming::Begun(begun) => begun.first.is_none() && begun.rest.is_end_stream(),
            Incoming::Http1(body) => body.is_end_stream(),
            Incoming::Http1Answer(body) => body.is_end_stream(),
            Incoming::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Incoming::Empty => SizeHint::with_exact(0),
            Incoming::Begun(begun) => {
                let first = begun.first.as_ref().map_or(0, |first| first.len() as u64);
                let rest = begun.rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower() + first);
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper + first);
                }
                hint
            }
            Incoming::Http1(body) => body.size_hint(),
            Incoming::Http1Answer(body) => body.size_hint(),
            Incoming::Http2(body) => body.size_hint(),
        }
    }
}
