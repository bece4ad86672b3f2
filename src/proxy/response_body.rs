//! The body of a response on its way to the client, and the end of an exchange.
//!
//! Whoever drops the body ends the exchange: the connection to the backend goes back to its
//! pool if the body was complete, and the exchange is logged.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::balance::InFlight;
use super::grpc;
use super::hop_by_hop;
use super::incoming::Incoming;
use super::journey::Journey;
use super::pool::Link;
use super::request_body::{BodyFailed, Upload};
use crate::reason::Reason;

/// Since when an HTTP/2 client's window leaves no room for data that is ready.
#[derive(Debug, Default)]
pub struct Stall(Cell<Option<Instant>>);

impl Stall {
    pub fn since(&self) -> Option<Instant> {
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
    pub inner: Incoming,
    pub link: Option<Link>,
    pub _in_flight: InFlight,
    pub upload: Rc<Upload>,
    /// Longest silence; zero: any.
    pub idle: Duration,
    /// When the whole exchange has to be over.
    pub deadline: Option<Instant>,
    pub last: Instant,
    pub sleep: Option<Pin<Box<Sleep>>>,
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
            stall.0.set(waits.then(Instant::now));
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
        if let Source::Backend(body) = &mut self.source {
            let link = body.link.take();
            if failed.is_none() && body.upload.ended().is_some() {
                link.into_iter().for_each(Link::release);
            }
        }
        if let Some(mut journey) = self.journey.take() {
            journey.reason = journey.reason.or(failed);
            if let Source::Backend(body) = &self.source {
                journey.received = body.upload.received();
            }
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
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.last = Instant::now();
                if let Some(trailers) = frame.trailers_mut() {
                    hop_by_hop::strip_trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "the backend broke off its answer");
                let reason = self.upload.failed().unwrap_or(Reason::UpstreamReset);
                Poll::Ready(Some(Err(BodyFailed(reason))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_timeouts(cx),
        }
    }

    fn poll_timeouts(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        loop {
            let silent =
                (!self.idle.is_zero()).then(|| self.last.max(self.upload_last()) + self.idle);
            let Some(until) = silent.into_iter().chain(self.deadline).min() else {
                return Poll::Pending;
            };
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(Some(Err(BodyFailed(Reason::RequestTimeout))));
            }
            if until <= now {
                return Poll::Ready(Some(Err(BodyFailed(Reason::BackendTimeout))));
            }
            // The timer is moved only when it fires: progress costs nothing.
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(until - now)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            sleep.as_mut().reset(until.into());
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// A backend may be silent while it takes in what the client sends.
    fn upload_last(&self) -> Instant {
        self.upload.last()
    }
}
