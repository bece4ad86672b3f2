//! Starting, then ready, then draining: the one value that all parts of a process follow, and
//! the timetable by which a process leaves.
//!
//! What each part does in a phase is its own matter (`admin` answers `/readyz`, `controller`
//! releases the Lease, `proxy` closes listeners); here is only when.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Between the last request's end and the exit: the answer to `tidegate drain` goes out first.
const LINGER: Duration = Duration::from_millis(500);

/// Where the process stands. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not everything has been listed and published yet.
    Starting,
    /// Serving, and ready by `/readyz`.
    Ready,
    /// Not ready, but still accepting connections and requests as before: endpoints are being
    /// withdrawn. The Lease has been released.
    Leaving,
    /// No new connections; held ones are finished with `Connection: close` and GOAWAY.
    Draining,
    /// What is still held is cut.
    Stopped,
}

/// The process's phase, shared by all of its parts.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle { phase: watch::Sender::new(Phase::Starting) }
    }
}

impl Lifecycle {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to `phase`; a phase that is behind is ignored.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
    }

    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Returns once `phase` has been reached or passed.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = receiver.wait_for(|now| *now >= phase).await;
    }
}

/// How long leaving may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timetable {
    /// Accepting as before while load balancers withdraw this process; 10 s by default.
    pub delay: Duration,
    /// Finishing what is held, at most; 60 s by default.
    pub timeout: Duration,
}

/// Leads the process from serving to [`Phase::Stopped`].
///
/// Leaving begins with the first of `signals` or with somebody else (`POST /drain`) advancing
/// to [`Phase::Leaving`]; a first signal that comes after that changes nothing, because
/// Kubernetes always sends SIGTERM once preStop is over. Every further signal ends the present
/// phase at once. `drained` completes when nothing is held any more.
pub async fn depart(
    lifecycle: &Lifecycle,
    timetable: Timetable,
    mut signals: mpsc::Receiver<()>,
    drained: impl Future<Output = ()>,
) {
    let asked = tokio::select! {
        () = next(&mut signals) => true,
        () = lifecycle.reached(Phase::Leaving) => false,
    };
    lifecycle.advance(Phase::Leaving);
    tracing::info!(
        delay = ?timetable.delay,
        "leaving: not ready any more, still accepting until load balancers have noticed"
    );
    let mut impatience = Impatience { signals, absorb_one: !asked };
    tokio::select! {
        () = tokio::time::sleep(timetable.delay) => {}
        () = impatience.rises() => tracing::warn!("asked again: draining now"),
    }

    lifecycle.advance(Phase::Draining);
    let draining = Instant::now();
    tracing::info!(timeout = ?timetable.timeout, "draining: finishing what is held");
    tokio::select! {
        () = drained => {
            tracing::info!(took = ?draining.elapsed(), "nothing is held any more");
            tokio::time::sleep_until(draining + LINGER.min(timetable.timeout)).await;
        }
        () = tokio::time::sleep(timetable.timeout) => {
            tracing::warn!("the drain timeout is over: cutting what is still held");
        }
        () = impatience.rises() => tracing::warn!("asked again: cutting what is still held"),
    }
    lifecycle.advance(Phase::Stopped);
}

/// Signals beyond the one that starts leaving.
struct Impatience {
    signals: mpsc::Receiver<()>,
    absorb_one: bool,
}

impl Impatience {
    async fn rises(&mut self) {
        if std::mem::take(&mut self.absorb_one) {
            next(&mut self.signals).await;
        }
        next(&mut self.signals).await;
    }
}

/// The next signal; never returns once their sender is gone.
async fn next(signals: &mut mpsc::Receiver<()>) {
    if signals.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// SIGTERM and SIGINT, one message each. Fails where handlers cannot be installed.
pub fn signals() -> std::io::Result<mpsc::Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!("{name} received");
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const NOW: Timetable = Timetable { delay: Duration::ZERO, timeout: Duration::ZERO };

    #[test]
    fn a_phase_never_moves_back() {
        let lifecycle = Lifecycle::default();
        lifecycle.advance(Phase::Draining);
        lifecycle.advance(Phase::Ready);
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }

    #[tokio::test]
    async fn phases_come_in_order() {
        let lifecycle = Lifecycle::default();
        let mut phases = lifecycle.subscribe();
        let (sender, signals) = mpsc::channel(4);
        let timetable = Timetable { delay: Duration::from_millis(5), timeout: LONG };
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move {
                depart(&lifecycle, timetable, signals, async { drop(finished.await) }).await;
            }
        });
        sender.send(()).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..2 {
            phases.changed().await.unwrap();
            seen.push(*phases.borrow_and_update());
        }
        assert_eq!(seen, [Phase::Leaving, Phase::Draining]);
        assert!(!task.is_finished(), "stopped while a request was held");
        finish.send(()).unwrap();
        task.await.unwrap();
        assert_eq!(lifecycle.phase(), Phase::Stopped);
    }

    #[tokio::test]
    async fn a_drain_by_command_needs_no_signal() {
        let lifecycle = Lifecycle::default();
        let (_sender, signals) = mpsc::channel(4);
        lifecycle.advance(Phase::Leaving);
        depart(&lifecycle, NOW, signals, ready(())).await;
        assert_eq!(lifecycle.phase(), Phase::Stopped);
    }

    #[tokio::test]
    async fn the_signal_after_a_drain_by_command_does_not_cut_the_delay() {
        let lifecycle = Lifecycle::default();
        let (sender, signals) = mpsc::channel(4);
        lifecycle.advance(Phase::Leaving);
        let timetable = Timetable { delay: LONG, timeout: LONG };
        let leaving = depart(&lifecycle, timetable, signals, pending());
        tokio::pin!(leaving);
        assert!(futures_util::poll!(leaving.as_mut()).is_pending());
        sender.send(()).await.unwrap();
        for _ in 0..3 {
            assert!(futures_util::poll!(leaving.as_mut()).is_pending());
        }
        assert_eq!(lifecycle.phase(), Phase::Leaving);
        sender.send(()).await.unwrap();
        assert!(futures_util::poll!(leaving.as_mut()).is_pending());
        assert_eq!(lifecycle.phase(), Phase::Draining, "the second signal ends the delay");
    }

    #[tokio::test]
    async fn each_further_signal_ends_a_phase() {
        let lifecycle = Lifecycle::default();
        let (sender, signals) = mpsc::channel(4);
        for _ in 0..3 {
            sender.send(()).await.unwrap();
        }
        let timetable = Timetable { delay: LONG, timeout: LONG };
        depart(&lifecycle, timetable, signals, pending()).await;
        assert_eq!(lifecycle.phase(), Phase::Stopped);
    }

    #[tokio::test]
    async fn what_is_held_is_cut_at_the_timeout() {
        let lifecycle = Lifecycle::default();
        let (sender, signals) = mpsc::channel(4);
        sender.send(()).await.unwrap();
        depart(&lifecycle, NOW, signals, pending()).await;
        assert_eq!(lifecycle.phase(), Phase::Stopped);
    }
}
