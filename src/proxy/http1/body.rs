//! The body of a client's request over HTTP/1.1.
//!
//! It reads from the connection itself, and only when it is asked for more: that is the
//! back-pressure, and what makes the connection say 100 (Continue).

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::framing::Decoded;
use super::shared::{Inner, Shared};
use crate::proxy::incoming::BodyError;

/// See the module's documentation.
#[derive(Debug)]
pub struct Body {
    shared: Rc<Shared>,
    /// It has ended, or failed: what is read next is not its own.
    is_over: bool,
}

impl Body {
    /// The body that `shared` has begun with.
    pub fn new(shared: &Rc<Shared>) -> Self {
        Body { shared: Rc::clone(shared), is_over: false }
    }

    pub fn is_end_stream(&self) -> bool {
        self.is_over
    }

    pub fn size_hint(&self) -> SizeHint {
        if self.is_over {
            return SizeHint::with_exact(0);
        }
        let remaining = self.shared.inner().decoder.remaining();
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The next part.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let inner = &mut *self.shared.inner();
        if inner.awaits_continue {
            inner.say_continue(cx);
        }
        let next = ready!(poll_next(inner, cx));
        self.is_over = !matches!(next, Ok(Some(_))) || inner.decoder.is_done();
        inner.is_broken |= next.is_err();
        if self.is_over {
            inner.is_held = false;
            inner.wake_connection(Some(cx.waker()));
        }
        Poll::Ready(next.transpose())
    }
}

fn poll_next(
    inner: &mut Inner,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
    let gone = || Poll::Ready(Err(BodyError::Gone));
    if inner.is_broken {
        return gone();
    }
    let Some(wire) = &mut inner.wire else { return gone() };
    loop {
        match inner.decoder.decode(&mut wire.read) {
            Ok(Decoded::Data(data)) => return Poll::Ready(Ok(Some(Frame::data(data)))),
            Ok(Decoded::Trailers(fields)) => {
                return Poll::Ready(Ok(Some(Frame::trailers(fields))));
            }
            Ok(Decoded::Done) => return Poll::Ready(Ok(None)),
            Ok(Decoded::NeedMore) => {}
            Err(error) => return Poll::Ready(Err(BodyError::Malformed(error.to_string()))),
        }
        match ready!(wire.poll_fill(cx)) {
            Ok(0) | Err(_) => return gone(),
            Ok(_) => {}
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if !self.is_over {
            let mut inner = self.shared.inner();
            inner.is_held = false;
            // The task that dropped it is not known: being polled once too often does no harm.
            inner.wake_connection(None);
        }
    }
}
