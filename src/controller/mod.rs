//! Writes to the cluster: statuses, events, infrastructure, the Lease.
//!
//! Every replica computes what should be written; only the holder of the Lease writes it. All
//! decisions are `translate`'s: here is only how a write is made, bounded, repeated and not
//! repeated. Reading objects is `source`'s; the one thing that is read here is which other
//! Tidegate pods are alive (`peers`), because that must be known faster than watches tell.

mod api;
mod events;
mod infrastructure;
pub mod leader;
pub mod peers;
mod status;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::health::Health;
use crate::lifecycle::Lifecycle;
use crate::source::Handle;
use crate::translate::{InfrastructureWrite, Note, StatusWrite};
use leader::{Candidate, Leadership};
use peers::{Member, Peers};

/// First and longest pause before what could not be written is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What one pass wants written, and who stands in our own Service.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    pub statuses: Vec<StatusWrite>,
    pub infrastructure: Vec<InfrastructureWrite>,
    pub notes: Vec<Note>,
    pub members: Vec<Member>,
}

/// The newest pass; older ones need no writing any more.
pub type Passes = watch::Receiver<Arc<Pass>>;

/// Everything that writes, and who may.
pub struct Controller {
    pub client: kube::Client,
    /// Of this pod: where the Lease is.
    pub namespace: String,
    pub lease_name: String,
    /// New for each process: the pod's name and a random part.
    pub identity: String,
    pub peers: Peers,
    pub source: Handle,
    pub lifecycle: Lifecycle,
    pub health: Arc<Health>,
    pub passes: Passes,
}

impl Controller {
    /// Runs until the process leaves and the Lease is given back; then nobody writes any more.
    pub async fn run(self) {
        let Controller {
            client,
            namespace,
            lease_name,
            identity,
            peers,
            source,
            lifecycle,
            health,
            passes,
        } = self;
        let candidate = Candidate::new(
            client.clone(),
            &namespace,
            &lease_name,
            &identity,
            lifecycle,
            Arc::clone(&health),
            peers.gone(),
        );
        let leadership = candidate.leadership();
        let api = api::Api::new(client, leadership.clone());
        let statuses = || {
            let work =
                status::Statuses::new(api.clone(), source.echoes(), passes.clone(), health.clone());
            write_on(passes.clone(), leadership.clone(), work)
        };
        let infrastructure = || {
            let work =
                infrastructure::Infrastructure::new(api.clone(), health.clone(), source.clone());
            write_on(passes.clone(), leadership.clone(), work)
        };
        let events = || {
            let work = events::Events::new(api.clone(), identity.clone(), health.clone());
            write_on(passes.clone(), leadership.clone(), work)
        };
        let watch_peers = || peers.clone().run(passes.clone());
        tokio::select! {
            () = candidate.run() => {}
            () = health.keep_running("status", statuses) => {}
            () = health.keep_running("infrastructure", infrastructure) => {}
            () = health.keep_running("events", events) => {}
            () = health.keep_running("peers", watch_peers) => {}
        }
    }
}

/// One kind of writing.
trait Work {
    /// Writes what `pass` wants; returns whether nothing is left to be tried again.
    fn perform(&mut self, pass: &Pass) -> impl Future<Output = bool> + Send;
}

/// Performs every newest pass while the Lease is held, and again what failed.
async fn write_on(mut passes: Passes, mut leadership: Leadership, mut work: impl Work) {
    let mut pause = FIRST_PAUSE;
    loop {
        leadership.held().await;
        let pass = Arc::clone(&passes.borrow_and_update());
        let changed = if work.perform(&pass).await {
            pause = FIRST_PAUSE;
            passes.changed().await
        } else {
            let again = tokio::time::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            tokio::select! {
                changed = passes.changed() => changed,
                () = again => Ok(()),
            }
        };
        if changed.is_err() {
            return;
        }
    }
}
