//! The two clocks of the data plane: one that only moves forward, one that people read.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    /// The last moment that was read, and its [`ms`].
    static KNOWN: Cell<(Option<Instant>, u64)> = const { Cell::new((None, 0)) };
    /// A moment, and what the other clock said then.
    static UNIX: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

/// The present. What is read here is remembered for [`known`]: an exchange reads the clock when
/// it begins, when it is sent, when it is answered and when it ends, and takes these moments for
/// all that happens at them.
pub fn now() -> Instant {
    let now = Instant::now();
    KNOWN.set((Some(now), ms_of(now)));
    now
}

/// What this thread last learned from [`now`] or [`ms`]: the present, or some time before it.
pub fn known() -> Instant {
    KNOWN.get().0.unwrap_or_else(now)
}

/// The same in [`ms`]; 0 if it was never read.
pub fn known_ms() -> u64 {
    KNOWN.get().1
}

/// Milliseconds since the first call in this process, plus one: never 0, so that 0 can mean
/// "not yet" in an atomic.
pub fn ms() -> u64 {
    now();
    known_ms()
}

/// The same of a moment that was read already. One before the first call counts as that.
pub fn ms_of(moment: Instant) -> u64 {
    millis(moment.saturating_duration_since(*START)).saturating_add(1)
}

/// Nanoseconds since the first call in this process.
pub fn nanos() -> u64 {
    let past = now().saturating_duration_since(*START);
    past.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(past.subsec_nanos()))
}

/// The first moment of [`ms`] that is not before one of [`nanos`].
pub fn ms_of_nanos(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000).saturating_add(1)
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
        assert_eq!(ms_of(known()), now);
        assert!(ms_of(early) <= now);
        assert_eq!(known_ms(), now, "only reading the clock tells something new");
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
    fn a_moment_in_nanoseconds_is_never_before_its_time_in_milliseconds() {
        let before = nanos();
        assert!(ms_of_nanos(before) >= known_ms());
        assert!(ms_of_nanos(before) <= known_ms() + 1);
        assert_eq!([0, 1, 1_000_000, 1_000_001].map(ms_of_nanos), [1, 2, 2, 3]);
        assert_eq!(ms_of_nanos(u64::MAX), u64::MAX.div_ceil(1_000_000) + 1);
        assert!(nanos() >= before);
    }

    #[test]
    fn milliseconds_are_whole_and_never_overflow() {
        assert_eq!(millis(Duration::from_micros(2_999_999)), 2_999);
        assert_eq!(millis(Duration::MAX), u64::MAX);
        assert_eq!(ms_after(Duration::MAX), u64::MAX);
    }
}
