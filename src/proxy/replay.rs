//! The body of a request that may have to be sent again.
//!
//! What has passed to a backend is kept, up to a bound, until the answer begins: each attempt
//! then reads it from the start and goes on with what the client still sends. A longer body is
//! let go of while it passes, and its request cannot be sent again. Large parts share memory with
//! what the engine read; small ones are copied, because they would keep all of a read buffer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::request_body::{BodyFailed, FromClient, RequestBody};
use crate::reason::Reason;

/// Parts that are copied, in bytes.
const SMALL: usize = 4096;
/// What a part costs besides its bytes: a client may send many that have hardly any.
const OVERHEAD: usize = 64;

/// The body of one request, over all attempts.
#[derive(Debug)]
pub enum Source {
    /// All of it is there; it may be empty.
    Whole(Bytes),
    Client(Rc<RefCell<Kept>>),
}

impl Source {
    /// Keeps up to `most` bytes of `from`; `None` stands for a request without a body.
    pub fn new(from: Option<FromClient>, most: usize) -> Self {
        match from {
            None => Source::Whole(Bytes::new()),
            Some(from) => Source::Client(Rc::new(RefCell::new(Kept::new(from, most)))),
        }
    }

    /// Whether an attempt can still have the whole body.
    pub fn is_whole(&self) -> bool {
        match self {
            Source::Whole(_) => true,
            Source::Client(kept) => kept.borrow().keeping,
        }
    }

    /// The body for the next attempt; the last one's fails if it is still read.
    pub fn body(&self) -> RequestBody {
        let kept = match self {
            Source::Whole(bytes) if bytes.is_empty() => return RequestBody::Empty,
            Source::Whole(bytes) => return RequestBody::Full(bytes.clone()),
            Source::Client(kept) => kept,
        };
        let turn = kept.borrow_mut().rewind();
        RequestBody::Client(Replay { kept: Rc::clone(kept), turn })
    }

    /// There will be no other attempt.
    pub fn let_go(&self) {
        if let Source::Client(kept) = self {
            kept.borrow_mut().let_go();
        }
    }
}

/// The body as one attempt reads it.
#[derive(Debug)]
pub struct Replay {
    kept: Rc<RefCell<Kept>>,
    turn: u32,
}

impl Replay {
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        let mut kept = self.kept.borrow_mut();
        if kept.turn != self.turn {
            return Poll::Ready(Some(Err(BodyFailed(Reason::UpstreamReset))));
        }
        kept.poll(cx)
    }

    pub fn is_end_stream(&self) -> bool {
        let kept = self.kept.borrow();
        kept.at == kept.data.len() && (kept.ended || kept.from.is_end_stream())
    }

    pub fn size_hint(&self) -> SizeHint {
        let kept = self.kept.borrow();
        kept.exact.map_or_else(SizeHint::default, |exact| {
            SizeHint::with_exact(exact.saturating_sub(kept.given))
        })
    }
}

/// What has passed of a client's body, and where it comes from.
#[derive(Debug)]
pub struct Kept {
    from: FromClient,
    data: VecDeque<Bytes>,
    /// Everything that was read of the client is in `data`.
    keeping: bool,
    most: usize,
    bytes: usize,
    /// The client has sent everything.
    ended: bool,
    /// The length that the client promised, and how much of it this attempt has read.
    exact: Option<u64>,
    given: u64,
    /// The next of `data` that this attempt reads.
    at: usize,
    turn: u32,
    /// Who reads.
    reader: Option<Waker>,
}

impl Kept {
    fn new(from: FromClient, most: usize) -> Self {
        Kept {
            exact: from.size_hint().exact(),
            from,
            data: VecDeque::new(),
            keeping: true,
            most,
            bytes: 0,
            ended: false,
            given: 0,
            at: 0,
            turn: 0,
            reader: None,
        }
    }

    fn rewind(&mut self) -> u32 {
        self.turn += 1;
        (self.at, self.given) = (0, 0);
        // Whoever still reads for the last attempt has to stop.
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.turn
    }

    fn let_go(&mut self) {
        if self.keeping {
            self.keeping = false;
            self.data.drain(..self.at);
            self.at = 0;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        if let Some(data) = self.again() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = self.from.poll(cx);
        if polled.is_pending() {
            self.reader = Some(cx.waker().clone());
        }
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.keeping = false;
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
        };
        if let Some(data) = frame.data_ref() {
            self.keep(data);
        } else {
            // Trailers could be kept as well, but hardly any request has them.
            self.let_go();
        }
        self.ended = self.from.is_end_stream();
        Poll::Ready(Some(Ok(frame)))
    }

    /// What the attempt before this one has read.
    fn again(&mut self) -> Option<Bytes> {
        let data = if self.keeping {
            let data = self.data.get(self.at)?.clone();
            self.at += 1;
            data
        } else {
            self.data.pop_front()?
        };
        self.given += data.len() as u64;
        Some(data)
    }

    fn keep(&mut self, data: &Bytes) {
        self.given += data.len() as u64;
        self.bytes += data.len() + OVERHEAD;
        if self.bytes > self.most + OVERHEAD {
            self.let_go();
        }
        if self.keeping {
            let is_small = data.len() < SMALL;
            self.data.push_back(if is_small { Bytes::copy_from_slice(data) } else { data.clone() });
            self.at += 1;
        }
    }
}
