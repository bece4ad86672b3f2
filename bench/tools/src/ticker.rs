//! When the requests of a fixed rate are due.
//!
//! A timer of the kernel wakes the poll, because mio's own timeout knows milliseconds only.
//! Whatever is late stays due: latency counts from the moment at which a request should have
//! been sent, so that a stall of the proxy shows in all requests that it kept waiting.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

pub struct Ticker {
    timer: TimerFd,
    start: Instant,
    interval: Duration,
    sent: u32,
}

impl Ticker {
    /// `rate`: requests a second.
    pub fn new(registry: &Registry, token: Token, rate: u32) -> Result<Self> {
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        registry.register(&mut SourceFd(&timer.as_fd().as_raw_fd()), token, Interest::READABLE)?;
        let interval = Duration::from_secs(1) / rate;
        Ok(Ticker { timer, start: Instant::now(), interval, sent: 0 })
    }

    /// The moment of the next request if it has come; it counts as sent.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        let at = self.start + self.interval * self.sent;
        (at <= now).then(|| {
            self.sent += 1;
            at
        })
    }

    /// Makes the poll return at the moment of the next request.
    pub fn arm(&self, now: Instant) -> Result<()> {
        let next = self.start + self.interval * self.sent;
        let wait = next.saturating_duration_since(now).max(Duration::from_nanos(1));
        self.timer.set(Expiration::OneShot(wait.into()), TimerSetTimeFlags::empty())?;
        Ok(())
    }
}
