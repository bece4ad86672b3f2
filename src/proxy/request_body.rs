//! The body of a request on its way to a backend.
//!
//! It is read from the client only as fast as the backend takes it, and only once forwarding
//! has begun; that is also what makes the engine answer `Expect: 100-continue`. What is kept of
//! it for another attempt is in [`super::replay`].

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};

use super::clock;
use super::hop_by_hop;
use super::incoming::BodyError;
use super::mirror::Copy;
use super::paced::Paced;
use super::replay::Replay;
use super::timer::poll_until;
use crate::reason::Reason;

/// What the exchange knows of its request's body while the backend's connection has it.
#[derive(Debug)]
pub struct Upload {
    received: Cell<u64>,
    ended: Cell<Option<u64>>,
    last: Cell<u64>,
    idle: Cell<Duration>,
    failed: Cell<Option<Reason>>,
}

impl Upload {
    /// `idle` is the longest silence of the client while the backend waits; zero: any.
    pub fn new(idle: Duration) -> Rc<Self> {
        Rc::new(Upload {
            received: Cell::new(0),
            ended: Cell::new(None),
            last: Cell::new(clock::known_ms()),
            idle: Cell::new(idle),
            failed: Cell::new(None),
        })
    }

    /// Bytes that the client sent, without framing.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// When the last byte went to the backend, in [`clock::ms`].
    pub fn ended(&self) -> Option<u64> {
        self.ended.get()
    }

    /// When the client last sent something, in [`clock::ms`].
    pub fn last(&self) -> u64 {
        self.last.get()
    }

    /// Why the client's part of the exchange failed.
    pub fn failed(&self) -> Option<Reason> {
        self.failed.get()
    }

    /// The answer has begun: from now on the client may be silent as long as the backend may.
    pub fn relax(&self, idle: Duration) {
        self.idle.set(idle);
    }

    /// All of the body is there.
    pub fn set_whole(&self, bytes: usize) {
        self.received.set(bytes as u64);
        self.end();
    }

    fn end(&self) {
        if self.ended.get().is_none() {
            self.ended.set(Some(clock::known_ms()));
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    /// What was read already: a mirror's copy, or what a policy looked at.
    Full(Bytes),
    Client(Replay),
}

/// What the client's connection gives.
#[derive(Debug)]
pub struct FromClient {
    inner: Paced,
    upload: Rc<Upload>,
    hold: Option<Hold>,
    copy: Option<Copy>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFailed;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        let this = self.get_mut();
        match this {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Full(_) => {
                let RequestBody::Full(bytes) = std::mem::replace(this, RequestBody::Empty) else {
                    return Poll::Ready(None);
                };
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            RequestBody::Client(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Full(bytes) => bytes.is_empty(),
            RequestBody::Client(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            RequestBody::Client(body) => body.size_hint(),
        }
    }
}

impl FromClient {
    /// The body that a client sends, unless it sends none; `hold` when it waits for
    /// 100 (Continue).
    pub fn new(
        inner: Paced,
        upload: &Rc<Upload>,
        copy: Option<Copy>,
        hold: Option<Hold>,
    ) -> Option<Self> {
        if inner.is_end_stream() {
            upload.end();
            if let Some(copy) = copy {
                copy.send();
            }
            return None;
        }
        let upload = Rc::clone(upload);
        Some(FromClient { inner, upload, hold, copy })
    }

    pub fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        if let Some(hold) = &mut self.hold {
            if hold.poll_open(cx).is_pending() {
                return Poll::Pending;
            }
            self.hold = None;
            self.upload.last.set(clock::ms());
        }
        match self.inner.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(self.took(frame)))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.fail(match error {
                BodyError::Gone => Reason::ClientGone,
                BodyError::Malformed(_) => Reason::BadRequest,
            })))),
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending if self.inner.is_waiting() => Poll::Pending,
            Poll::Pending => self.poll_idle(),
        }
    }

    fn took(&mut self, mut frame: Frame<Bytes>) -> Frame<Bytes> {
        self.upload.last.set(clock::ms());
        if let Some(data) = frame.data_ref() {
            self.upload.received.set(self.upload.received.get() + data.len() as u64);
            if self.copy.as_mut().is_some_and(|copy| !copy.push(data)) {
                self.copy = None;
            }
        }
        if let Some(trailers) = frame.trailers_mut() {
            hop_by_hop::strip_trailers(trailers);
        }
        // A body of known length is not polled again after its last byte.
        if self.inner.is_end_stream() {
            self.finish();
        }
        frame
    }

    fn finish(&mut self) {
        self.upload.end();
        if let Some(copy) = self.copy.take() {
            copy.send();
        }
    }

    fn poll_idle(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        let idle = self.upload.idle.get();
        if idle.is_zero() {
            return Poll::Pending;
        }
        ready!(poll_until(self.upload.last.get().saturating_add(clock::millis(idle))));
        Poll::Ready(Some(Err(self.fail(Reason::ClientTimeout))))
    }

    fn fail(&self, reason: Reason) -> BodyFailed {
        self.upload.failed.set(Some(reason));
        BodyFailed(reason)
    }
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body failed: {0}")]
pub struct BodyFailed(pub Reason);

/// Holds a body back until the backend says 100 (Continue), or for one second: backends that
/// ignore `Expect` would wait for the body (RFC 9110, 10.1.1).
#[derive(Debug)]
pub struct Hold {
    gate: Arc<Gate>,
    /// Until when, in [`clock::ms`].
    patience: u64,
}

/// The side of a [`Hold`] that the backend's connection opens.
#[derive(Debug, Default)]
pub struct Gate {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Hold {
    pub fn new() -> (Self, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let patience = clock::ms_after(Duration::from_secs(1));
        (Hold { gate: Arc::clone(&gate), patience }, gate)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.gate.waker.register(cx.waker());
        if self.gate.open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        poll_until(self.patience)
    }
}
