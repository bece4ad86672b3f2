//! What Tidegate pods tell each other: the lines of `/peer`, written by `admin`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::lifecycle::{Lifecycle, Phase};

/// Between two lines when nothing changes.
pub const BEAT: Duration = Duration::from_millis(500);

/// The ports that the data plane listens on, or why it cannot.
pub type Listening = watch::Receiver<Arc<BTreeMap<u16, Result<(), String>>>>;

/// One line of `/peer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// The pod's name and a random part: another process in the same pod is another identity.
    pub identity: String,
    /// Everything was listed and published, and the process is not leaving.
    pub ready: bool,
    /// Not ready any more, but serving as before.
    #[serde(default)]
    pub leaving: bool,
    /// The ports that are bound.
    pub ports: BTreeSet<u16>,
}

impl PeerReport {
    /// What is true now.
    pub fn now(identity: &str, lifecycle: &Lifecycle, listening: &Listening) -> Self {
        let bound = listening.borrow();
        PeerReport {
            identity: identity.to_owned(),
            ready: lifecycle.phase() == Phase::Ready,
            leaving: lifecycle.phase() == Phase::Leaving,
            ports: bound.iter().filter(|(_, b)| b.is_ok()).map(|(port, _)| *port).collect(),
        }
    }
}
