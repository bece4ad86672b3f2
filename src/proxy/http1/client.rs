//! An HTTP/1.1 connection to an endpoint.
//!
//! There is no task behind it: the exchange that has the connection writes the request and reads
//! the answer in its own future, both at once, so that neither side can stop the other. Between
//! two exchanges the connection is a socket and nothing else. The request's body is written by
//! [`Upload`], the answer's is read by [`Body`]; which requests are made again is not known here.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response, StatusCode};
use socket2::SockRef;

use super::buffered::Buffered;
use super::download::Body;
use super::framing::{Decoder, Framing};
use super::head::{self, BadHead, ResponseHead};
use super::upload::{self, Upload};
use crate::proxy::incoming::Incoming;
use crate::proxy::request_body::RequestBody;
use crate::proxy::wire::Wire;
use crate::reason::Reason;

/// What an endpoint's head may have.
const LIMITS: head::Limits = head::Limits { head_bytes: 64 * 1024, fields: 100, target_bytes: 0 };
/// Interim answers (1xx) of one exchange: how many, and how many bytes of heads.
const MOST_INTERIM: u32 = 100;
const MOST_INTERIM_BYTES: usize = 32 * 1024;

/// See the module's documentation. Clones are the same connection.
#[derive(Clone, Debug)]
pub struct Conn(Rc<RefCell<Inner>>);

#[derive(Debug)]
pub(super) struct Inner {
    pub io: Buffered<Wire>,
    /// What is still to be read of the answer's body.
    pub decoder: Decoder,
    /// All of the request is written.
    pub is_sent: bool,
    /// Both sides want to keep the connection, and nothing went wrong on it.
    pub is_good: bool,
    /// The request's body failed after the answer had begun.
    pub is_cut: bool,
    /// Who reads the answer's body while the request's is written elsewhere.
    pub reader: Option<Waker>,
}

/// Writes a request's head: all of it, with the field for its framing and the empty line.
pub trait WriteHead {
    fn method(&self) -> &Method;
    /// # Errors
    /// Some part of the head cannot be written.
    fn write(&self, out: &mut BytesMut, framing: Framing) -> Result<(), Reason>;
}

/// Whom interim answers (1xx, but for 101) are told.
pub type OnInterim<'a> = &'a mut dyn FnMut(StatusCode, &HeaderMap);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing of the request was sent.
    #[error("the connection was dead")]
    Unsent,
    /// The endpoint says that it did not begin with it.
    #[error("the endpoint did not process the request")]
    Unprocessed,
    #[error("the connection broke: {0}")]
    Broken(String),
    /// What came is no answer.
    #[error("the endpoint breaks the protocol: {0}")]
    Protocol(String),
    /// The request could not be written, or its body failed.
    #[error("the request failed: {0}")]
    Request(Reason),
}

impl From<BadHead> for SendError {
    fn from(bad: BadHead) -> Self {
        SendError::Protocol(bad.to_string())
    }
}

impl From<upload::Failed> for SendError {
    fn from(failed: upload::Failed) -> Self {
        match failed {
            upload::Failed::Body(reason) => SendError::Request(reason),
            upload::Failed::Write { wrote: false, .. } => SendError::Unsent,
            upload::Failed::Write { error, .. } => SendError::Broken(error.to_string()),
        }
    }
}

impl Conn {
    pub fn new(wire: Wire) -> Self {
        Conn(Rc::new(RefCell::new(Inner {
            io: Buffered::new(wire, BytesMut::new()),
            decoder: Decoder::new(Framing::Empty),
            is_sent: true,
            is_good: true,
            is_cut: false,
            reader: None,
        })))
    }

    pub(super) fn inner(&self) -> std::cell::RefMut<'_, Inner> {
        self.0.borrow_mut()
    }

    /// Whether an idle connection can still be used: the endpoint has neither closed it nor sent
    /// anything. Costs no system call unless something has happened.
    pub fn is_alive(&self) -> bool {
        let io = &mut self.inner().io;
        // TLS may have read of its end together with the last answer.
        if !io.io.is_tls() && io.io.is_quiet() {
            return true;
        }
        let mut nobody = Context::from_waker(Waker::noop());
        io.poll_fill(&mut nobody).is_pending()
    }

    /// The same by the kernel's word, where the runtime may not have noticed yet. Bytes of TLS
    /// that are no data count as data.
    pub fn is_alive_now(&self) -> bool {
        let inner = self.inner();
        let peeked = SockRef::from(inner.io.io.tcp()).peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Takes in a request. The future writes it and reads the head of its answer. If the answer
    /// begins before all of the request was written, the rest goes on beside it, as long as the
    /// answer's body lives.
    ///
    /// The connection is of no use after an error, or if the future is dropped.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send<'a>(
        &'a self,
        head: &'a impl WriteHead,
        body: RequestBody,
        interim: OnInterim<'a>,
    ) -> Result<Sending<'a>, SendError> {
        let upload = self.inner().begin(head, body).map_err(SendError::Request)?;
        Ok(Sending { conn: self, method: head.method(), upload, interim, seen: 0, bytes: 0 })
    }

    fn answer(&self, head: ResponseHead, upload: Upload) -> Result<Response<Incoming>, SendError> {
        let mut inner = self.inner();
        if head.parts.status == StatusCode::SWITCHING_PROTOCOLS && !inner.is_sent {
            return Err(SendError::Protocol("101 before the request has ended".into()));
        }
        inner.is_good = head.keep_alive;
        inner.decoder = Decoder::new(head.framing);
        let is_over = inner.is_sent && inner.decoder.is_done();
        let is_sent = inner.is_sent;
        drop(inner);
        let body = if is_over {
            Incoming::Empty
        } else {
            let upload = (!is_sent).then(|| upload.go_on(self.clone()));
            Incoming::Http1Answer(Body::new(self.clone(), upload))
        };
        Ok(Response::from_parts(head.parts, body))
    }

    /// Whether the last exchange is over and the connection is good for another. Then its memory
    /// is let go of.
    pub fn rest(&self) -> bool {
        let inner = &mut *self.inner();
        let is_over = inner.is_sent && inner.decoder.is_done();
        // What came after the answer belongs to no request: whoever sent it is not to be trusted.
        let is_good = is_over && inner.is_good && inner.io.read.is_empty();
        if is_good {
            inner.io.rest();
        }
        is_good
    }

    /// The connection after a 101, and what was read of it after the head. `None` while a body
    /// is still being read or written.
    pub fn into_upgraded(self) -> Option<(Wire, Bytes)> {
        let inner = Rc::into_inner(self.0)?.into_inner();
        Some((inner.io.io, inner.io.read.freeze()))
    }
}

impl Inner {
    fn begin(&mut self, head: &impl WriteHead, body: RequestBody) -> Result<Upload, Reason> {
        let framing = upload::framing(head.method(), &body);
        head.write(&mut self.io.write, framing)?;
        self.is_sent = false;
        self.is_good = false;
        Ok(Upload::new(body, framing))
    }
}

/// A request that waits for the head of its answer. Small, and no `async fn`: what awaits it is
/// moved with all that it holds.
pub struct Sending<'a> {
    conn: &'a Conn,
    method: &'a Method,
    upload: Upload,
    interim: OnInterim<'a>,
    seen: u32,
    bytes: usize,
}

impl std::fmt::Debug for Sending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending").field("upload", &self.upload).finish_non_exhaustive()
    }
}

impl Future for Sending<'_> {
    type Output = Result<Response<Incoming>, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let conn = self.conn;
        let head = ready!(self.poll_head(&mut conn.inner(), cx))?;
        Poll::Ready(conn.answer(head, std::mem::take(&mut self.upload)))
    }
}

impl Sending<'_> {
    fn poll_head(
        &mut self,
        conn: &mut Inner,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, SendError>> {
        self.write(conn, cx)?;
        loop {
            while let Some(head) = self.parse(conn)? {
                let status = head.parts.status;
                if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(head));
                }
                (self.interim)(status, &head.parts.headers);
                // It may have been the 100 that the body waits for.
                self.write(conn, cx)?;
            }
            match ready!(conn.io.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Err(self.broken("it was closed"))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.broken(&error.to_string()))),
            }
        }
    }

    /// Writes what can be written. An endpoint that takes no more may have answered already, so
    /// that is an error only if it took nothing at all.
    fn write(&mut self, conn: &mut Inner, cx: &mut Context<'_>) -> Result<(), SendError> {
        if conn.is_sent {
            return Ok(());
        }
        match self.upload.poll(conn, cx) {
            Poll::Ready(Err(upload::Failed::Write { wrote: true, error })) => {
                tracing::debug!(%error, "an endpoint does not take all of a request");
                Ok(())
            }
            Poll::Ready(Err(failed)) => Err(failed.into()),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn parse(&mut self, conn: &mut Inner) -> Result<Option<ResponseHead>, SendError> {
        let before = conn.io.read.len();
        if before == 0 {
            return Ok(None);
        }
        let head = head::response(&mut conn.io.read, self.method, &LIMITS)?;
        if head.as_ref().is_some_and(|head| head.parts.status.is_informational()) {
            self.seen += 1;
            self.bytes += before - conn.io.read.len();
            if self.seen > MOST_INTERIM || self.bytes > MOST_INTERIM_BYTES {
                return Err(SendError::Protocol("too many interim answers".into()));
            }
        }
        Ok(head)
    }

    /// There will be no answer.
    fn broken(&self, why: &str) -> SendError {
        SendError::Broken(self.upload.failed().map_or_else(|| why.to_owned(), io::Error::to_string))
    }
}

#[cfg(test)]
mod tests;
