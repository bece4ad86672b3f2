//! One client connection as time sees it: its deadlines, and the wrapper of its bytes that
//! notices when they must hold.
//!
//! The engines keep no time: the deadlines of heads, of silence and of writes are kept here.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::{self, millis};
use super::config::Limits;
use super::wire::Wire;

/// How long a client may still send after its last answer.
const LINGER: Duration = Duration::from_secs(1);

/// Times are of [`clock::ms`]; 0 stands for "not now".
#[derive(Debug)]
pub struct Timeline {
    opened: u64,
    is_http2: Cell<bool>,
    /// The first byte of a head arrived, but not its end.
    head_since: Cell<u64>,
    idle_since: Cell<u64>,
    /// The client takes no bytes.
    stalled_since: Cell<u64>,
    /// Nothing is answered any more, but the client may still be sending.
    lingers_since: Cell<u64>,
    in_flight: Cell<u64>,
    served: Cell<u64>,
    /// Requests that the client gave up before they had an answer.
    given_up: Cell<u64>,
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
    pub fn new() -> Rc<Self> {
        let now = clock::ms();
        Rc::new(Timeline {
            opened: now,
            is_http2: Cell::new(false),
            head_since: Cell::new(now),
            idle_since: Cell::new(now),
            stalled_since: Cell::new(0),
            lingers_since: Cell::new(0),
            in_flight: Cell::new(0),
            served: Cell::new(0),
            given_up: Cell::new(0),
        })
    }

    /// The client chose HTTP/2: heads are frames there, and only silence counts.
    pub fn set_http2(&self) {
        self.is_http2.set(true);
        self.head_since.set(0);
    }

    /// A part of a head is there: from now on it is waited for.
    pub fn await_head(&self) {
        if self.head_since.get() == 0 {
            self.head_since.set(clock::ms());
        }
    }

    /// The last answer was given.
    pub fn linger(&self) {
        if self.lingers_since.get() == 0 {
            self.lingers_since.set(clock::ms());
        }
    }

    /// A head is complete.
    pub fn begin_request(&self) {
        self.head_since.set(0);
        self.in_flight.set(self.in_flight.get() + 1);
        self.served.set(self.served.get() + 1);
    }

    /// An exchange is over.
    pub fn end_request(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
        if self.is_idle() {
            // The exchange has just read the clock.
            self.idle_since.set(clock::known_ms());
        }
    }

    /// The client did not wait for the answer.
    pub fn give_up_request(&self) {
        self.given_up.set(self.given_up.get() + 1);
    }

    /// Whether the client makes work only to give it up (CVE-2023-44487).
    fn is_abusive(&self, limits: &Limits) -> bool {
        let given_up = self.given_up.get();
        given_up >= limits.http2.rapid_resets && given_up > self.served.get() / 2
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    /// Whether the connection has served long or often enough.
    pub fn is_worn(&self, limits: &Limits) -> bool {
        self.served.get() >= limits.keep_alive_requests
            || clock::known_ms() >= self.opened + millis(limits.keep_alive_age)
    }

    /// The moment of the next deadline, if one is known already.
    pub fn deadline(&self, limits: &Limits) -> Option<u64> {
        if self.is_abusive(limits) {
            return Some(0);
        }
        let after = |since: u64, limit: Duration| (since != 0).then(|| since + millis(limit));
        let stalled = after(self.stalled_since.get(), limits.write_stall);
        let lingering = after(self.lingers_since.get(), LINGER);
        let waiting = self.is_idle().then(|| match self.head_since.get() {
            0 => self.idle_since.get() + millis(limits.keep_alive_idle),
            since => since + millis(limits.header_timeout),
        });
        stalled.into_iter().chain(lingering).chain(waiting).min()
    }

    /// Decides at the time `now`.
    pub fn verdict(&self, now: u64, limits: &Limits, asked_to_move: bool) -> Verdict {
        /// How often a busy connection of HTTP/2 is looked at: it may have served enough.
        const BUSY_MS: u64 = 5000;
        let is_http2 = self.is_http2.get();
        let deadline = self.deadline(limits);
        if deadline.is_some_and(|deadline| deadline <= now) {
            let stalled = self.stalled_since.get() != 0;
            let polite = is_http2 && !stalled && !asked_to_move && deadline != Some(0);
            return if polite { Verdict::Move } else { Verdict::Cut };
        }
        if is_http2 && !asked_to_move && self.is_worn(limits) {
            return Verdict::Move;
        }
        let look_at = if is_http2 { now + BUSY_MS } else { u64::MAX };
        let next = deadline.unwrap_or(u64::MAX).min(look_at);
        Verdict::Wait(Duration::from_millis(next - now))
    }

    fn wrote(&self, done: bool) {
        match (done, self.stalled_since.get()) {
            (true, 0) => {}
            (true, _) => self.stalled_since.set(0),
            (false, 0) => self.stalled_since.set(clock::ms()),
            (false, _) => {}
        }
    }
}

/// Counts an exchange of a connection until it is dropped.
#[derive(Debug)]
pub struct Held(Rc<Timeline>);

impl Held {
    pub fn new(timeline: &Rc<Timeline>) -> Self {
        timeline.begin_request();
        Held(Rc::clone(timeline))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

/// A client connection whose writes keep its [`Timeline`].
#[derive(Debug)]
pub struct Io {
    pub wire: Wire,
    pub timeline: Rc<Timeline>,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buf)
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
        let idle = line.idle_since.get();
        assert_eq!(line.deadline(&limits), Some(idle + 60_000));
        line.await_head();
        let head = line.head_since.get();
        assert_eq!(line.deadline(&limits), Some(head + 10_000));
    }

    #[test]
    fn while_a_request_is_held_only_a_stalled_write_has_a_deadline() {
        let line = Timeline::new();
        let limits = Limits::default();
        let _held = Held::new(&line);
        assert_eq!(line.deadline(&limits), None);
        line.wrote(false);
        let since = line.stalled_since.get();
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
