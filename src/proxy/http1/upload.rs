//! The body of a request on its way into an endpoint's connection.
//!
//! It is read as fast as the endpoint takes it: by the future that waits for the answer, or, once
//! an answer has begun before the end of its request, by a task of its own.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Method;
use http_body::{Body as _, Frame};
use tokio::task::spawn_local;
use tokio_util::task::AbortOnDropHandle;

use super::client::{Conn, Inner};
use super::encode;
use super::framing::Framing;
use crate::proxy::request_body::RequestBody;
use crate::proxy::timer::timed;
use crate::reason::Reason;

/// What is still to be written of a request, after what the connection's output has already.
#[derive(Debug, Default)]
pub struct Upload {
    /// `None` once all of it was taken in, or nothing more can be written.
    body: Option<RequestBody>,
    /// What Content-Length promised and is not there yet; `None`: chunked.
    left: Option<u64>,
    wrote: bool,
    failed: Option<io::Error>,
}

/// Why a request was not written to its end.
#[derive(Debug)]
pub enum Failed {
    /// Its body broke off.
    Body(Reason),
    /// The endpoint takes no more; whether it took anything.
    Write { wrote: bool, error: io::Error },
}

/// How the end of a request's body is told.
pub fn framing(method: &Method, body: &RequestBody) -> Framing {
    if !body.is_end_stream() {
        return body.size_hint().exact().map_or(Framing::Chunked, Framing::Length);
    }
    // Where a body is usual, its absence is told (RFC 9110, 8.6).
    let is_usual = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    if is_usual { Framing::Length(0) } else { Framing::Empty }
}

impl Upload {
    pub fn new(body: RequestBody, framing: Framing) -> Self {
        let left = match framing {
            Framing::Length(length) => Some(length),
            Framing::Empty => Some(0),
            Framing::Chunked | Framing::UntilClose => None,
        };
        let body = (!body.is_end_stream()).then_some(body);
        Upload { body, left, wrote: false, failed: None }
    }

    /// Why the endpoint takes no more.
    pub fn failed(&self) -> Option<&io::Error> {
        self.failed.as_ref()
    }

    /// Writes until all is written; then the connection knows. As much as there is of the body
    /// goes out together with the head.
    pub(super) fn poll(
        &mut self,
        conn: &mut Inner,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failed>> {
        if self.failed.is_some() {
            return Poll::Pending;
        }
        loop {
            let waits = self.take_in(conn, cx)?;
            if let Err(error) = ready!(self.flush(conn, cx)) {
                self.body = None;
                self.failed = Some(error.kind().into());
                return Poll::Ready(Err(Failed::Write { wrote: self.wrote, error }));
            }
            if self.body.is_none() {
                conn.is_sent = true;
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    fn flush(&mut self, conn: &mut Inner, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waiting = conn.io.write.len();
        let polled = conn.io.poll_flush(cx);
        // The head is the first of what is written.
        self.wrote |= conn.io.write.len() < waiting;
        polled
    }

    /// Takes in what there is room for; true if there is no more at the moment.
    fn take_in(&mut self, conn: &mut Inner, cx: &mut Context<'_>) -> Result<bool, Failed> {
        while conn.io.has_room() {
            let Some(body) = &mut self.body else { break };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Ok(frame))) => self.take(conn, frame)?,
                Poll::Ready(Some(Err(failed))) => return Err(Failed::Body(failed.0)),
                Poll::Ready(None) => self.end(conn)?,
            }
        }
        Ok(false)
    }

    fn take(&mut self, conn: &mut Inner, frame: Frame<Bytes>) -> Result<(), Failed> {
        match frame.into_data() {
            Ok(data) => {
                match &mut self.left {
                    None if data.is_empty() => {}
                    None => {
                        encode::chunk_head(&mut conn.io.write, data.len());
                        conn.io.push(data, encode::CHUNK_END);
                    }
                    Some(left) => {
                        // More than was promised would be read as another request.
                        let rest = left.checked_sub(data.len() as u64);
                        *left = rest.ok_or(Failed::Body(Reason::BadRequest))?;
                        conn.io.push(data, b"");
                    }
                }
                // The end goes out with the last part, if it is known already.
                let is_end = self.body.as_ref().is_some_and(RequestBody::is_end_stream);
                if is_end && conn.io.has_room() { self.end(conn) } else { Ok(()) }
            }
            Err(frame) => {
                if let (Ok(trailers), None) = (frame.into_trailers(), self.left) {
                    encode::last_chunk(&mut conn.io.write, Some(&trailers));
                    self.body = None;
                }
                Ok(())
            }
        }
    }

    fn end(&mut self, conn: &mut Inner) -> Result<(), Failed> {
        self.body = None;
        match self.left {
            None => encode::last_chunk(&mut conn.io.write, None),
            Some(0) => {}
            Some(_) => return Err(Failed::Body(Reason::BadRequest)),
        }
        Ok(())
    }

    /// Writes the rest while the answer is read. A body that fails cuts the answer; an endpoint
    /// that takes no more may still answer.
    pub(super) fn go_on(mut self, conn: Conn) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(spawn_local(timed(async move {
            let written = poll_fn(|cx| self.poll(&mut conn.inner(), cx)).await;
            if let Err(Failed::Body(_)) = written {
                let mut inner = conn.inner();
                inner.is_cut = true;
                if let Some(reader) = inner.reader.take() {
                    reader.wake();
                }
            }
        })))
    }
}
