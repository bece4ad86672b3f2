//! When the requests of a fixed rate are due: in small groups, every 100 µs.
//!
//! A timer of the kernel wakes the poll, because mio's own timeout knows milliseconds only; a
//! wake-up for every single request would keep the load's core as busy as the proxy's.
//! Whatever is late stays due: latency counts from the moment at which a request should have
//! been sent, so that a stall of the proxy shows in all requests that it kept waiting.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

const TICK: Duration = Duration::from_micros(100);

pub struct Ticker {
    timer: TimerFd,
    start: Instant,
    schedule: Schedule,
}

impl Ticker {
    /// `rate`: requests a second.
    pub fn new(registry: &Registry, token: Token, rate: u32) -> Result<Self> {
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        let fd = timer.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        timer
            .set(Expiration::Interval(TimeSpec::from_duration(TICK)), TimerSetTimeFlags::empty())?;
        Ok(Ticker { timer, start: Instant::now(), schedule: Schedule { rate, sent: 0 } })
    }

    /// After its event, or it would be the last.
    pub fn clear(&self) -> Result<()> {
        Ok(self.timer.wait()?)
    }

    /// The moment of the next request if it has come; it counts as sent.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        let at = self.start + self.schedule.next();
        (at <= now).then(|| {
            self.schedule.sent += 1;
            at
        })
    }
}

struct Schedule {
    rate: u32,
    sent: u64,
}

impl Schedule {
    /// The tick at or after the moment that the rate says.
    fn next(&self) -> Duration {
        let tick = TICK.as_nanos() as u64;
        let nanos = self.sent * 1_000_000_000 / u64::from(self.rate);
        Duration::from_nanos(nanos.div_ceil(tick) * tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_at_ticks_and_in_all_at_the_rate() {
        let at = |sent| Schedule { rate: 25_000, sent }.next();
        assert_eq!(at(0), Duration::ZERO);
        assert_eq!([at(1), at(2), at(3)], [TICK, TICK, TICK * 2]);
        assert_eq!(at(25_000), Duration::from_secs(1));
    }
}
