//! A body that passes no faster than a bandwidth policy says.
//!
//! What was read waits here, at most one part as the engine reads them, and nothing more is read
//! meanwhile: that is the back-pressure. It passes in pieces, each when its turn has come in the
//! lines of [`Lane`], which is a moment that the body's task is woken at.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::clock;
use super::incoming::{BodyError, Incoming};
use super::timer::poll_until;
use crate::policy::bandwidth::{Lane, Pace};

/// See the module's documentation.
#[derive(Debug)]
pub struct Paced {
    inner: Incoming,
    /// None: as fast as it can.
    waiting: Option<Box<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    lanes: Lanes,
    /// What was read and has not passed.
    held: Bytes,
    /// How much of that passes next, and when, in [`clock::ms`].
    next: usize,
    due: u64,
}

/// The lines that bytes of one way stand in; none for most exchanges.
#[derive(Clone, Debug, Default)]
pub struct Lanes(Vec<Lane>);

impl Lanes {
    /// Those that bytes to the client stand in.
    pub fn download(paces: &[Pace]) -> Self {
        Lanes(paces.iter().filter_map(|pace| pace.download.clone()).collect())
    }

    /// Those that bytes from the client stand in.
    pub fn upload(paces: &[Pace]) -> Self {
        Lanes(paces.iter().filter_map(|pace| pace.upload.clone()).collect())
    }

    /// Bytes pass as they come.
    pub fn is_free(&self) -> bool {
        self.0.is_empty()
    }

    /// Most bytes to pass at once.
    pub fn most_at_once(&self) -> usize {
        self.0.iter().map(Lane::most_at_once).min().unwrap_or(usize::MAX)
    }

    /// Takes a place for so many bytes in every line. Returns when they may pass, in
    /// [`clock::ms`]; 0 stands for now.
    pub fn reserve(&self, bytes: usize) -> u64 {
        let now = clock::nanos();
        let due = self.0.iter().map(|lane| lane.reserve(bytes, now)).max();
        due.filter(|due| *due > now).map_or(0, clock::ms_of_nanos)
    }
}

impl Paced {
    pub fn new(inner: Incoming, lanes: Lanes) -> Self {
        let waiting = (!lanes.is_free())
            .then(|| Box::new(Waiting { lanes, held: Bytes::new(), next: 0, due: 0 }));
        Paced { inner, waiting }
    }

    /// Whether bytes are here that only wait for their turn: nobody is silent then.
    pub fn is_waiting(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.held.is_empty())
    }

    /// The next part.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let inner = std::pin::Pin::new(&mut self.inner);
        let Some(waiting) = &mut self.waiting else { return inner.poll_frame(cx) };
        if waiting.held.is_empty() {
            let frame = match ready!(inner.poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) if !data.is_empty() => waiting.hold(data),
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        ready!(poll_until(waiting.due));
        Poll::Ready(Some(Ok(Frame::data(waiting.pass()))))
    }

    pub fn is_end_stream(&self) -> bool {
        !self.is_waiting() && self.inner.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint();
        let held = self.waiting.as_ref().map_or(0, |waiting| waiting.held.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(held));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

impl Waiting {
    fn hold(&mut self, data: Bytes) {
        self.held = data;
        self.stand();
    }

    /// Takes a place in the lines for the next piece.
    fn stand(&mut self) {
        self.next = self.held.len().min(self.lanes.most_at_once());
        self.due = self.lanes.reserve(self.next);
    }

    fn pass(&mut self) -> Bytes {
        let piece = self.held.split_to(self.next);
        if !self.held.is_empty() {
            self.stand();
        }
        piece
    }
}
