//! The body of an endpoint's answer, as the exchange reads it.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use super::client::Conn;
use super::framing::Decoded;
use crate::proxy::incoming::BodyError;

/// See the module's documentation. Not to be polled once the connection serves another exchange.
#[derive(Debug)]
pub struct Body {
    conn: Conn,
    /// The rest of the request, if the answer began before all of it was written.
    upload: Option<AbortOnDropHandle<()>>,
}

impl Body {
    pub(super) fn new(conn: Conn, upload: Option<AbortOnDropHandle<()>>) -> Self {
        Body { conn, upload }
    }

    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let inner = &mut *self.conn.inner();
        loop {
            match inner.decoder.decode(&mut inner.io.read) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(trailers)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::Done) => return Poll::Ready(None),
                Ok(Decoded::NeedMore) if inner.is_cut => {
                    return Poll::Ready(Some(Err(BodyError::Gone)));
                }
                Ok(Decoded::NeedMore) => {}
                Err(bad) => {
                    inner.is_good = false;
                    return Poll::Ready(Some(Err(BodyError::Malformed(bad.to_string()))));
                }
            }
            if self.upload.is_some() {
                inner.reader = Some(cx.waker().clone());
            }
            match ready!(inner.io.poll_fill(cx)) {
                Ok(0) => {
                    inner.is_good = false;
                    let is_end = inner.decoder.at_eof().is_ok();
                    return Poll::Ready((!is_end).then_some(Err(BodyError::Gone)));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "reading an answer failed");
                    inner.is_good = false;
                    return Poll::Ready(Some(Err(BodyError::Gone)));
                }
            }
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.conn.inner().decoder.is_done()
    }

    pub fn size_hint(&self) -> SizeHint {
        let remaining = self.conn.inner().decoder.remaining();
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
