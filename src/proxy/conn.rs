//! One client connection as time sees it: its deadlines, and the wrapper of its bytes that
//! notices when they must hold.
//!
//! The engine's own head timeout cannot tell silence between requests from a slow head, so
//! the deadlines are kept here and the engine's stay out of the way. Everything happens on one
//! thread; the atomics are there only because an upgraded connection must be `Send`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::{self, millis};
use super::config::Limits;
use super::wire::Wire;

/// Times are of [`clock::ms`]; 0 stands for "not now".
#[derive(Debug)]
pub struct Timeline {
    opened: u64,
    is_http2: AtomicBool,
    /// The first byte of a head arrived, but not its end.
    head_since: AtomicU64,
    idle_since: AtomicU64,
    /// The client takes no bytes.
    stalled_since: AtomicU64,
    in_flight: AtomicU64,
    served: AtomicU64,
    /// Requests that the client gave up before they had an answer.
    given_up: AtomicU64,
}

/// What a connection's timer has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again after this time.
    Wait(Duration),
    /// Ask the client to move: GOAWAY.
    Move,
    /// Cut.
    Cut,
}

impl Timeline {
    pub fn new() -> Arc<Self> {
        let now = clock::ms();
        Arc::new(Timeline {
            opened: now,
            is_http2: AtomicBool::new(false),
            head_since: AtomicU64::new(now),
            idle_since: AtomicU64::new(now),
            stalled_since: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            served: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
        })
    }

    /// The client chose HTTP/2: heads are frames there, and only silence counts.
    pub fn set_http2(&self) {
        self.is_http2.store(true, Relaxed);
        self.head_since.store(0, Relaxed);
    }

    /// A head is complete.
    pub fn begin_request(&self) {
        self.head_since.store(0, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        self.served.fetch_add(1, Relaxed);
    }

    /// An exchange is over.
    pub fn end_request(&self) {
        if self.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.idle_since.store(clock::ms(), Relaxed);
        }
    }

    /// The client did not wait for the answer.
    pub fn give_up_request(&self) {
        self.given_up.fetch_add(1, Relaxed);
    }

    /// Whether the client makes work only to give it up (CVE-2023-44487).
    fn is_abusive(&self, limits: &Limits) -> bool {
        let given_up = self.given_up.load(Relaxed);
        given_up >= limits.http2.rapid_resets && given_up > self.served.load(Relaxed) / 2
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.load(Relaxed) == 0
    }

    /// Whether the connection has served long or often enough.
    pub fn is_worn(&self, limits: &Limits) -> bool {
        self.served.load(Relaxed) >= limits.keep_alive_requests
            || clock::ms() >= self.opened + millis(limits.keep_alive_age)
    }

    /// The moment of the next deadline, if one is known already.
    pub fn deadline(&self, limits: &Limits) -> Option<u64> {
        if self.is_abusive(limits) {
            return Some(0);
        }
        let stalled = match self.stalled_since.load(Relaxed) {
            0 => None,
            since => Some(since + millis(limits.write_stall)),
        };
        let waiting = self.is_idle().then(|| match self.head_since.load(Relaxed) {
            0 => self.idle_since.load(Relaxed) + millis(limits.keep_alive_idle),
            since => since + millis(limits.header_timeout),
        });
        stalled.into_iter().chain(waiting).min()
    }

    /// Decides at the time `now`.
    pub fn verdict(&self, now: u64, limits: &Limits, asked_to_move: bool) -> Verdict {
        /// How often a busy connection is looked at.
        const BUSY_MS: u64 = 5000;
        let is_http2 = self.is_http2.load(Relaxed);
        let deadline = self.deadline(limits);
        if deadline.is_some_and(|deadline| deadline <= now) {
            let stalled = self.stalled_since.load(Relaxed) != 0;
            let polite = is_http2 && !stalled && !asked_to_move && deadline != Some(0);
            return if polite { Verdict::Move } else { Verdict::Cut };
        }
        if is_http2 && !asked_to_move && self.is_worn(limits) {
            return Verdict::Move;
        }
        let next = deadline.unwrap_or(u64::MAX).min(now + BUSY_MS);
        Verdict::Wait(Duration::from_millis(next - now))
    }

    fn read(&self, bytes: usize) {
        let first = bytes > 0 && self.is_idle() && !self.is_http2.load(Relaxed);
        if first && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(clock::ms(), Relaxed);
        }
    }

    fn wrote(&self, done: bool) {
        match (done, self.stalled_since.load(Relaxed)) {
            (true, 0) => {}
            (true, _) => self.stalled_since.store(0, Relaxed),
            (false, 0) => self.stalled_since.store(clock::ms(), Relaxed),
            (false, _) => {}
        }
    }
}

/// Counts an exchange of a connection until it is dropped.
#[derive(Debug)]
pub struct Held(Arc<Timeline>);

impl Held {
    pub fn new(timeline: &Arc<Timeline>) -> Self {
        timeline.begin_request();
        Held(Arc::clone(timeline))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

/// A client connection whose reads and writes keep its [`Timeline`].
#[derive(Debug)]
pub struct Io {
    pub wire: Wire,
    pub timeline: Arc<Timeline>,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(cx, buf))?;
        self.timeline.read(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.wire).poll_write(cx, buf);
        self.timeline.wrote(result.is_ready());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.wire).poll_write_vectored(cx, bufs);
        self.timeline.wrote(result.is_ready());
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.wire).poll_flush(cx);
        // TLS takes bytes before the socket does: only a flush tells that they went.
        self.timeline.wrote(result.is_ready());
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(ms: u64) -> Verdict {
        Verdict::Wait(Duration::from_millis(ms))
    }

    #[test]
    fn a_connection_without_a_head_is_cut_after_the_header_timeout() {
        let line = Timeline::new();
        let limits = Limits::default();
        assert_eq!(line.verdict(line.opened + 9_999, &limits, false), wait(1));
        assert_eq!(line.verdict(line.opened + 10_000, &limits, false), Verdict::Cut);
    }

    #[test]
    fn between_requests_the_idle_time_counts_until_the_next_head_begins() {
        let line = Timeline::new();
        let limits = Limits::default();
        drop(Held::new(&line));
        let idle = line.idle_since.load(Relaxed);
        assert_eq!(line.deadline(&limits), Some(idle + 60_000));
        line.read(1);
        let head = line.head_since.load(Relaxed);
        assert_eq!(line.deadline(&limits), Some(head + 10_000));
    }

    #[test]
    fn while_a_request_is_held_only_a_stalled_write_has_a_deadline() {
        let line = Timeline::new();
        let limits = Limits::default();
        let _held = Held::new(&line);
        line.read(100);
        assert_eq!(line.deadline(&limits), None);
        line.wrote(false);
        let since = line.stalled_since.load(Relaxed);
        assert_eq!(line.verdict(since + 30_000, &limits, false), Verdict::Cut);
        line.wrote(true);
        assert_eq!(line.deadline(&limits), None);
    }

    #[test]
    fn a_client_that_gives_up_most_of_its_requests_is_cut() {
        let line = Timeline::new();
        let limits = Limits::default();
        line.set_http2();
        for given_up in 0..200 {
            assert!(!line.is_abusive(&limits), "{given_up}");
            drop(Held::new(&line));
            line.give_up_request();
        }
        assert_eq!(line.verdict(clock::ms(), &limits, false), Verdict::Cut);
        (0..200).for_each(|_| drop(Held::new(&line)));
        assert!(!line.is_abusive(&limits), "half of the requests were waited for");
    }

    #[test]
    fn an_idle_http_2_connection_is_asked_to_move_before_it_is_cut() {
        let line = Timeline::new();
        let limits = Limits::default();
        line.set_http2();
        assert_eq!(line.verdict(line.opened + 60_000, &limits, false), Verdict::Move);
        assert_eq!(line.verdict(line.opened + 60_000, &limits, true), Verdict::Cut);
    }
}
