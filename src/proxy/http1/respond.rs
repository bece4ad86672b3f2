//! An answer on its way to a client: how its length is told, and its body as bytes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::{Body, Frame};

use super::buffered::Buffered;
use super::encode;
use super::framing::Framing;
use crate::proxy::conn::Io;

/// What an answer has to know of its request.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub is_head: bool,
    /// The client speaks HTTP/1.0.
    pub is_old: bool,
    /// The client takes trailers.
    pub trailers: bool,
    /// The client wants to use the connection again.
    pub keep_alive: bool,
}

impl Asked {
    pub fn of(method: &Method, version: Version, headers: &HeaderMap, keep_alive: bool) -> Self {
        let is_old = version == Version::HTTP_10;
        let trailers = !is_old && takes_trailers(headers);
        Asked { is_head: *method == Method::HEAD, is_old, trailers, keep_alive }
    }

    /// Of a head that could not be read: after its answer nothing is.
    pub fn unread() -> Self {
        Asked { is_head: false, is_old: false, trailers: false, keep_alive: false }
    }

    pub fn version(&self) -> Version {
        if self.is_old { Version::HTTP_10 } else { Version::HTTP_11 }
    }
}

/// `TE: trailers` (RFC 9110, 10.1.4).
fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(http::header::TE).iter().any(|te| {
        let mut codings = te.as_bytes().split(|byte| *byte == b',');
        codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// The body of an answer that is being written.
#[derive(Debug)]
pub struct Answer<B> {
    /// `None` once nothing more is expected of it.
    body: Option<B>,
    /// All of it was written, as far as we are concerned.
    is_over: bool,
    /// With what is left of the length.
    framing: Framing,
    trailers: bool,
}

/// The answer ended otherwise than its head had said: the client must see that it did.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    #[error("{0}")]
    Body(String),
    #[error("the body is not as long as its head says")]
    Length,
}

impl<B> Answer<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// The answer's body, and the framing that its head tells.
    pub fn new(asked: Asked, status: StatusCode, body: B) -> (Self, Framing) {
        let trailers = asked.trailers;
        let framing = match body.size_hint().exact() {
            Some(length) => Framing::Length(length),
            None if body.is_end_stream() => Framing::Length(0),
            None if asked.is_old => Framing::UntilClose,
            None => Framing::Chunked,
        };
        let has_none = asked.is_head
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || status.is_informational();
        let told = if has_none { Framing::Empty } else { framing };
        let is_over = has_none || framing == Framing::Length(0);
        (Answer { body: Some(body), is_over, framing, trailers }, told)
    }

    /// The whole answer is written, or will be by a flush.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Drops the body, which ends the exchange. Nobody may hold the connection meanwhile: a part
    /// of the exchange may be the request's body.
    pub fn let_go(&mut self) {
        self.body = None;
    }

    /// Whether only the end of the connection ends the body.
    pub fn is_until_close(&self) -> bool {
        !self.is_over && self.framing == Framing::UntilClose
    }

    /// The next part of the body; `None` at its end. Only while it is not over.
    pub fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, BrokenOff>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(None)) };
        let part = ready!(Pin::new(body).poll_frame(cx)).transpose();
        Poll::Ready(part.map_err(|error| BrokenOff::Body(error.to_string())))
    }

    /// Writes a part, and the end when that is known by now. Only while `to` has room.
    ///
    /// # Errors
    /// The body is longer or shorter than it had said.
    pub fn write(
        &mut self,
        to: &mut Buffered<Io>,
        part: Option<Frame<Bytes>>,
    ) -> Result<(), BrokenOff> {
        let Some(part) = part else { return self.end(to, None) };
        let data = match part.into_data() {
            Ok(data) => data,
            Err(part) => {
                let trailers = part.into_trailers().ok().filter(|_| self.trailers);
                return self.end(to, trailers);
            }
        };
        match &mut self.framing {
            // An empty chunk would be the last.
            _ if data.is_empty() => {}
            Framing::Empty => {}
            Framing::Chunked => {
                encode::chunk_head(&mut to.write, data.len());
                to.push(data, encode::CHUNK_END);
            }
            Framing::UntilClose => to.push(data, b""),
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(BrokenOff::Length)?;
                to.push(data, b"");
            }
        }
        let is_last =
            self.framing == Framing::Length(0) || self.body.as_ref().is_some_and(B::is_end_stream);
        // The last chunk would overtake a large one that waits.
        if is_last && (self.framing != Framing::Chunked || to.has_room()) {
            return self.end(to, None);
        }
        Ok(())
    }

    fn end(&mut self, to: &mut Buffered<Io>, trailers: Option<HeaderMap>) -> Result<(), BrokenOff> {
        match self.framing {
            Framing::Length(left) if left > 0 => return Err(BrokenOff::Length),
            Framing::Chunked => encode::last_chunk(&mut to.write, trailers.as_ref()),
            _ => {}
        }
        self.is_over = true;
        Ok(())
    }
}
