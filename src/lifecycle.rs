//! Starting, then ready, then draining: the one value that all parts of a process follow.

use tokio::sync::watch;

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
