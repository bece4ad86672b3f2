//! How far a worker's connections are asked to leave, and how they hear of it.
//!
//! Reading the stage is reading a cell. Whoever waits for another one leaves a waker once, not
//! at each poll: connections are polled several times a request, and stages change at the end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Serving,
    /// Clients are asked to come back by another connection; all requests are served.
    Moving,
    /// The same, and no connection is accepted any more.
    Draining,
    /// Idle connections are closed.
    Closing,
}

/// The stage of one worker; stays on its thread.
#[derive(Debug)]
pub struct Stages {
    now: Cell<Stage>,
    seats: RefCell<Seats>,
}

/// Who waits. A place that is left is given to the next.
#[derive(Debug, Default)]
struct Seats {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Default for Stages {
    fn default() -> Self {
        Stages { now: Cell::new(Stage::Serving), seats: RefCell::default() }
    }
}

impl Stages {
    pub fn now(&self) -> Stage {
        self.now.get()
    }

    /// Tells everybody who watches.
    pub fn set(&self, stage: Stage) {
        self.now.set(stage);
        let wakers: Vec<_> = self.seats.borrow().wakers.iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// For a task that looks at the stage whenever it is polled.
    pub fn watch(&self) -> Watch<'_> {
        Watch { stages: self, seat: None }
    }

    /// Returns once `stage` has been reached or passed.
    pub async fn reached(&self, stage: Stage) {
        let mut watch = self.watch();
        let reached = |stage_now| if stage_now >= stage { Poll::Ready(()) } else { Poll::Pending };
        poll_fn(|cx| reached(watch.poll(cx))).await;
    }
}

/// See [`Stages::watch`].
#[derive(Debug)]
pub struct Watch<'a> {
    stages: &'a Stages,
    seat: Option<usize>,
}

impl Watch<'_> {
    /// The stage now; the task is woken when there is another one.
    pub fn poll(&mut self, cx: &Context<'_>) -> Stage {
        let mut seats = self.stages.seats.borrow_mut();
        let seat = *self.seat.get_or_insert_with(|| seats.take());
        match &mut seats.wakers[seat] {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        self.stages.now()
    }
}

impl Seats {
    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        })
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            let mut seats = self.stages.seats.borrow_mut();
            seats.wakers[seat] = None;
            seats.free.push(seat);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn who_watches_is_woken_at_each_change_however_often_it_was_polled() {
        let (stages, count) = (Stages::default(), Arc::<Count>::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut watch = stages.watch();
        for _ in 0..3 {
            assert_eq!(watch.poll(&Context::from_waker(&waker)), Stage::Serving);
        }
        stages.set(Stage::Moving);
        assert_eq!(count.0.load(Relaxed), 1);
        assert_eq!(watch.poll(&Context::from_waker(&waker)), Stage::Moving);
        stages.set(Stage::Closing);
        assert_eq!(count.0.load(Relaxed), 2);
        drop(watch);
        stages.set(Stage::Serving);
        assert_eq!(count.0.load(Relaxed), 2, "it has left");
    }

    #[test]
    fn a_place_that_was_left_is_taken_again() {
        let stages = Stages::default();
        let cx = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (stages.watch(), stages.watch());
        first.poll(&cx);
        second.poll(&cx);
        drop(first);
        stages.watch().poll(&cx);
        assert_eq!(stages.seats.borrow().wakers.len(), 2);
    }

    #[tokio::test]
    async fn a_stage_that_was_passed_has_been_reached() {
        let stages = Stages::default();
        let leave = async { stages.set(Stage::Closing) };
        tokio::join!(stages.reached(Stage::Draining), leave);
        assert_eq!(stages.now(), Stage::Closing);
    }
}
