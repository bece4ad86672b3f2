//! The two clocks of the data plane: one that only moves forward, one that people read.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static KNOWN: Cell<u64> = const { Cell::new(0) };
    /// A moment, and what the other clock said then.
    static UNIX: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

/// Milliseconds since the first call in this process, plus one: never 0, so that 0 can mean
/// "not yet" in an atomic.
pub fn ms() -> u64 {
    ms_of(Instant::now())
}

/// The same of a moment that was read already, never one to come. One before the first call counts as that.
pub fn ms_of(moment: Instant) -> u64 {
    let ms = millis(moment.saturating_duration_since(*START)).saturating_add(1);
    KNOWN.set(KNOWN.get().max(ms));
    ms
}

/// What this thread last learned from [`ms`]: the present, or some time before it.
pub fn known_ms() -> u64 {
    KNOWN.get()
}

/// The moment of [`ms`] that comes after `time`.
pub fn ms_after(time: Duration) -> u64 {
    ms().saturating_add(millis(time))
}

/// Whole milliseconds, without the division of 128 bits that the standard library needs.
pub fn millis(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1000).saturating_add(u64::from(time.subsec_millis()))
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The same at a moment that has just been read. The system's clock is asked again after a
/// second, so that it may be set.
pub fn unix_ms_at(moment: Instant) -> u64 {
    if let Some((at, ms)) = UNIX.get() {
        let past = moment.saturating_duration_since(at);
        if past < Duration::from_secs(1) {
            return ms + millis(past);
        }
    }
    let ms = unix_ms();
    UNIX.set(Some((moment, ms)));
    ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_follows_what_was_read_and_never_goes_back() {
        let early = Instant::now();
        let now = ms();
        assert!(now >= 1);
        assert_eq!(known_ms(), now);
        assert!(ms_of(early) <= now);
        assert_eq!(known_ms(), now);
    }

    #[test]
    fn the_time_of_day_is_that_of_the_system() {
        UNIX.set(None);
        let before = unix_ms();
        let start = Instant::now();
        let told = [0, 1].map(|seconds| unix_ms_at(start + Duration::from_secs(seconds)));
        assert!((before..=unix_ms()).contains(&told[0]));
        assert!(told[1] <= unix_ms(), "asked again after a second");
        assert_eq!(unix_ms_at(start + Duration::from_millis(1500)), told[1] + 500);
    }

    #[test]
    fn milliseconds_are_whole_and_never_overflow() {
        assert_eq!(millis(Duration::from_micros(2_999_999)), 2_999);
        assert_eq!(millis(Duration::MAX), u64::MAX);
        assert_eq!(ms_after(Duration::MAX), u64::MAX);
    }
}
