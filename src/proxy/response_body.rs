//! The body of a response on its way to the client, and the end of an exchange.
//!
//! Whoever drops the body ends the exchange: the connection to the backend goes back to its
//! pool if the body was complete, and the exchange is logged.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};

use super::balance::InFlight;
use super::clock;
use super::grpc;
use super::hop_by_hop;
use super::incoming::BodyError;
use super::journey::Journey;
use super::paced::Paced;
use super::pool::Link;
use super::request_body::{BodyFailed, Upload};
use super::timer::poll_until;
use crate::reason::Reason;

/// Since when an HTTP/2 client's window leaves no room for data that is ready.
#[derive(Debug, Default)]
pub struct Stall(Cell<Option<u64>>);

impl Stall {
    /// In [`clock::ms`].
    pub fn since(&self) -> Option<u64> {
        self.0.get()
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    journey: Option<Box<Journey>>,
    stall: Option<Rc<Stall>>,
}

#[derive(Debug)]
enum Source {
    Full(Bytes),
    Backend(Box<FromBackend>),
}

/// A response that a backend is still giving.
#[derive(Debug)]
pub struct FromBackend {
    pub inner: Paced,
    pub link: Option<Link>,
    pub _in_flight: InFlight,
    pub upload: Rc<Upload>,
    /// Longest silence; zero: any.
    pub idle: Duration,
    /// When the whole exchange has to be over, in [`clock::ms`].
    pub deadline: Option<u64>,
    /// Until when the backend may be silent; `None` while it is not.
    pub silent_until: Option<u64>,
    /// What comes after all that came before has been given out.
    pub failed: Option<Reason>,
}

impl ResponseBody {
    /// An answer of our own.
    pub fn full(bytes: Bytes, journey: Box<Journey>) -> Self {
        ResponseBody { source: Source::Full(bytes), journey: Some(journey), stall: None }
    }

    /// Nothing, and nothing to log: the head of an upgraded connection.
    pub fn empty() -> Self {
        ResponseBody { source: Source::Full(Bytes::new()), journey: None, stall: None }
    }

    pub fn backend(body: FromBackend, journey: Box<Journey>, stall: Option<Rc<Stall>>) -> Self {
        ResponseBody { source: Source::Backend(Box::new(body)), journey: Some(journey), stall }
    }

    fn waits_for_client(&self, waits: bool) {
        if let Some(stall) = &self.stall {
            stall.0.set(waits.then(clock::ms));
        }
    }

    /// The answer does not come at once: it may take long.
    fn wait_for_backend(&mut self) {
        self.waits_for_client(false);
        if let Some(journey) = &mut self.journey {
            journey.route.detach();
        }
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(journey) = &mut self.journey else { return };
        journey.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
        if let Some(trailers) = frame.trailers_ref() {
            journey.grpc_status = grpc::status(trailers);
        }
    }

    /// The backend's answer breaks off. A gRPC client is told why by trailers; others see that
    /// their stream or connection is cut.
    fn fail(&mut self, reason: Reason) -> Option<HeaderMap> {
        let journey = self.journey.as_mut();
        let calling = journey.filter(|j| j.is_grpc && j.protocol == Version::HTTP_2);
        let trailers = calling.map(|journey| {
            let trailers = grpc::trailers(reason, reason.status());
            journey.grpc_status = grpc::status(&trailers);
            trailers
        });
        self.finish(Some(reason));
        if trailers.is_some() {
            self.source = Source::Full(Bytes::new());
        }
        trailers
    }

    /// The end, if it was not reached before.
    fn finish(&mut self, failed: Option<Reason>) {
        self.waits_for_client(false);
        let mut journey = self.journey.take();
        if let Source::Backend(body) = &mut self.source {
            if let Some(journey) = &mut journey {
                journey.received = body.upload.received();
            }
            let link = body.link.take();
            if failed.is_none() {
                let is_sent = body.upload.ended().is_some();
                // The body must not be read any more once its connection serves another exchange.
                self.source = Source::Full(Bytes::new());
                link.filter(|_| is_sent).into_iter().for_each(Link::release);
            }
        }
        if let Some(mut journey) = journey {
            journey.reason = journey.reason.or(failed);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyFailed;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        let this = self.get_mut();
        let polled = match &mut this.source {
            Source::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Backend(body) => body.poll(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.note(frame);
                this.waits_for_client(true);
            }
            Poll::Ready(Some(Err(error))) => {
                let trailers = this.fail(error.0);
                return Poll::Ready(Some(trailers.map(Frame::trailers).ok_or(*error)));
            }
            Poll::Ready(None) => this.finish(None),
            Poll::Pending => this.wait_for_backend(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_empty(),
            Source::Backend(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Backend(body) => body.inner.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let complete = self.is_end_stream();
        self.finish((!complete).then_some(Reason::ClientGone));
    }
}

impl FromBackend {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        if let Some(reason) = self.failed {
            return Poll::Ready(Some(Err(BodyFailed(reason))));
        }
        match self.inner.poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.silent_until = None;
                if let Some(trailers) = frame.trailers_mut() {
                    hop_by_hop::strip_trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "the backend broke off its answer");
                let reason = self.upload.failed().unwrap_or(match error {
                    BodyError::Gone => Reason::UpstreamReset,
                    BodyError::Malformed(_) => Reason::UpstreamProtocol,
                });
                // An engine throws away what it has not written yet when a body fails, but
                // writes it when a body pauses.
                self.failed = Some(reason);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_timeouts(),
        }
    }

    fn poll_timeouts(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        if let Some(deadline) = self.deadline
            && poll_until(deadline).is_ready()
        {
            return Poll::Ready(Some(Err(BodyFailed(Reason::RequestTimeout))));
        }
        if self.idle.is_zero() || self.inner.is_waiting() {
            return Poll::Pending;
        }
        let idle = clock::millis(self.idle);
        let until = *self.silent_until.get_or_insert_with(|| clock::ms().saturating_add(idle));
        ready!(poll_until(until));
        // A backend may be silent while it takes in what the client sends.
        let until = self.upload.last().saturating_add(idle);
        self.silent_until = Some(until);
        poll_until(until).map(|()| Some(Err(BodyFailed(Reason::BackendTimeout))))
    }
}
