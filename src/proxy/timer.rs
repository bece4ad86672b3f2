//! Deadlines of tasks, for the many that are set and the few that are ever reached.
//!
//! A timer of the runtime costs an entry in its wheel, made and taken away again for each
//! request. Here a future that waits for a moment only notes it while it is polled, in a cell of
//! the thread, and the [`timed`] around the task sleeps until the nearest one. Its timer is moved
//! nearer at once, but later only when it fires, so that deadlines which follow one another cost
//! nothing. Whatever waits must be polled whenever its task is, as `select!` and `join!` do;
//! executors inside of a task (`FuturesUnordered`) do not.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::clock;

/// No task is being polled.
const OUTSIDE: u64 = 0;
/// The task waits for nothing.
const NEVER: u64 = u64::MAX;
/// The longest sleep; what is later is looked at again then.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

thread_local! {
    /// The nearest moment that futures of the task being polled wait for.
    static NEAREST: Cell<u64> = const { Cell::new(OUTSIDE) };
}

/// Ready from `at_ms` of [`clock::ms`] on; before that it is noted that the task has to be polled
/// then. Costs two reads of the thread's own cells.
pub fn poll_until(at_ms: u64) -> Poll<()> {
    if at_ms <= clock::known_ms() {
        return Poll::Ready(());
    }
    let nearest = NEAREST.get();
    debug_assert!(nearest != OUTSIDE, "a deadline outside of `timed` would never be reached");
    if at_ms < nearest {
        NEAREST.set(at_ms);
    }
    Poll::Pending
}

/// Ready at `at_ms` of [`clock::ms`].
pub async fn until(at_ms: u64) {
    poll_fn(|_| poll_until(at_ms)).await;
}

/// Ready after `time`.
pub async fn after(time: Duration) {
    until(clock::ms_after(time)).await;
}

/// A future was not ready in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;

/// `future`, unless it takes longer than `limit`. The time counts from its first poll, and no
/// clock is read if it is ready then.
pub fn timeout<F: Future>(limit: Duration, future: F) -> Timeout<F> {
    Timeout { future, limit, at: OUTSIDE }
}

/// `future`, unless it is not ready at `at_ms` of [`clock::ms`].
pub fn timeout_at<F: Future>(at_ms: u64, future: F) -> Timeout<F> {
    Timeout { future, limit: Duration::ZERO, at: at_ms.max(1) }
}

pin_project! {
    /// See [`timeout`].
    #[derive(Debug)]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        limit: Duration,
        // 0 before the first poll.
        at: u64,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if *this.at == OUTSIDE {
            *this.at = clock::ms_after(*this.limit);
        }
        poll_until(*this.at).map(|()| Err(Elapsed))
    }
}

/// Wakes the task of `future` at the nearest moment that its parts wait for. Every task whose
/// futures use this module has to be wrapped.
pub fn timed<F: Future>(future: F) -> Timed<F> {
    Timed { future, alarm: Alarm::default() }
}

pin_project! {
    /// See [`timed`].
    #[derive(Debug)]
    pub struct Timed<F> {
        #[pin]
        future: F,
        alarm: Alarm,
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        loop {
            let scope = Scope::enter();
            if let Poll::Ready(output) = this.future.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            let nearest = NEAREST.get();
            drop(scope);
            if !this.alarm.rings(nearest, cx) {
                return Poll::Pending;
            }
        }
    }
}

/// While a task is polled. What was noted for the task around it comes back in the end, also
/// when a panic ends this one.
struct Scope {
    around: u64,
}

impl Scope {
    fn enter() -> Self {
        Scope { around: NEAREST.replace(NEVER) }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        NEAREST.set(self.around);
    }
}

/// The one timer of a task.
#[derive(Debug)]
struct Alarm {
    /// Made when something is waited for the first time.
    sleep: Option<Pin<Box<Sleep>>>,
    /// When it fires.
    at: u64,
    /// Whom it wakes.
    waker: Waker,
}

impl Default for Alarm {
    fn default() -> Self {
        Alarm { sleep: None, at: NEVER, waker: Waker::noop().clone() }
    }
}

impl Alarm {
    /// Whether the task has to be polled again at once; if not, it is woken at `nearest` or
    /// before.
    fn rings(&mut self, nearest: u64, cx: &mut Context<'_>) -> bool {
        if nearest < self.at {
            self.set(nearest);
        } else if self.at == NEVER {
            return false;
        }
        let Some(sleep) = &mut self.sleep else { return false };
        // Polling a timer takes longer than asking whether it has fired.
        if !sleep.is_elapsed() && self.waker.will_wake(cx.waker()) {
            return false;
        }
        if sleep.as_mut().poll(cx).is_pending() {
            self.waker.clone_from(cx.waker());
            return false;
        }
        // What comes next has to be noted anew; so that it sees what is due, the time is read.
        self.at = NEVER;
        clock::ms();
        true
    }

    fn set(&mut self, at: u64) {
        self.at = at;
        let time = Duration::from_millis(at.saturating_sub(clock::ms())).min(LONGEST);
        let deadline = Instant::now() + time;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(deadline),
            None => self.sleep = Some(Box::pin(sleep_until(deadline))),
        }
        // A timer that was moved has to be polled to be in the wheel.
        self.waker.clone_from(Waker::noop());
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::pin;

    use super::*;

    /// Further away than any test takes.
    const FAR: u64 = 3_600_000;

    fn far() -> u64 {
        clock::ms() + FAR
    }

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_task_is_woken_at_the_nearest_of_its_moments() {
        let near = clock::ms() + 2;
        timed(async {
            tokio::select! {
                () = until(far()) => panic!("the other one is nearer"),
                () = until(near) => {}
            }
        })
        .await;
        assert!(clock::ms() >= near);
    }

    #[tokio::test]
    async fn the_alarm_moves_nearer_at_once_and_later_only_when_it_has_fired() {
        let wanted = Cell::new(far());
        let mut task = pin!(timed(poll_fn(|_| poll_until(wanted.get()))));
        assert!(poll(task.as_mut()).is_pending());
        assert_eq!(task.alarm.at, wanted.get());
        let first = wanted.get();
        wanted.set(first + 1);
        assert!(poll(task.as_mut()).is_pending());
        assert_eq!(task.alarm.at, first);
        wanted.set(first - 1);
        assert!(poll(task.as_mut()).is_pending());
        assert_eq!(task.alarm.at, first - 1);
        wanted.set(clock::ms() + 1);
        task.await;
    }

    #[tokio::test]
    async fn after_a_moment_the_task_waits_for_the_next_one() {
        let mut task = pin!(timed(async {
            until(clock::ms() + 1).await;
            until(clock::ms() + 1).await;
            until(far()).await;
        }));
        poll_fn(|cx| {
            assert!(task.as_mut().poll(cx).is_pending());
            let is_last = task.alarm.at != NEVER && task.alarm.at > clock::ms() + FAR / 2;
            if is_last { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[tokio::test]
    async fn a_task_that_waits_for_nothing_or_for_the_past_has_no_timer() {
        let mut idle = pin!(timed(pending::<()>()));
        assert!(poll(idle.as_mut()).is_pending());
        assert!(idle.alarm.sleep.is_none());
        let mut done = pin!(timed(until(clock::ms())));
        assert!(poll(done.as_mut()).is_ready());
        assert!(done.alarm.sleep.is_none());
    }

    #[tokio::test]
    async fn the_task_of_another_poll_is_the_one_that_is_woken() {
        let at = clock::ms() + 5;
        let mut task = Box::pin(timed(until(at)));
        assert!(poll(task.as_mut()).is_pending());
        // Nobody has heard the first waker: the test would not end.
        task.await;
    }

    #[tokio::test]
    async fn a_timeout_ends_what_takes_too_long_and_nothing_else() {
        let limit = Duration::from_millis(1);
        assert_eq!(timed(timeout(limit, pending::<()>())).await, Err(Elapsed));
        assert_eq!(timeout(limit, async { 1 }).await, Ok(1), "no moment is waited for");
        assert_eq!(timed(timeout_at(clock::ms(), pending::<()>())).await, Err(Elapsed));
        let mut slow = pin!(timed(timeout(Duration::MAX, pending::<()>())));
        assert!(poll(slow.as_mut()).is_pending());
    }

    #[tokio::test]
    async fn a_task_inside_of_another_one_keeps_its_moments_for_itself() {
        let (inner, outer) = (far(), far() + 1);
        let mut both = pin!(timed(async {
            let mut nested = pin!(timed(until(inner)));
            tokio::join!(nested.as_mut(), until(outer));
        }));
        assert!(poll(both.as_mut()).is_pending());
        assert_eq!(both.alarm.at, outer);
    }

    #[tokio::test]
    async fn a_panic_in_a_task_leaves_nothing_behind() {
        let mut task = pin!(timed(poll_fn(|_| -> Poll<()> {
            assert!(poll_until(far()).is_pending());
            panic!("as a bug would")
        })));
        assert!(catch_unwind(AssertUnwindSafe(|| poll(task.as_mut()))).is_err());
        assert_eq!(NEAREST.get(), OUTSIDE);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "outside of `timed`")]
    fn a_moment_that_nobody_would_wait_for_is_a_bug() {
        let _ = poll_until(far());
    }
}
