//! What Tidegate pods tell each other: the lines of `/peer`, written by `admin`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::graph::{Bound, Transport};
use crate::lifecycle::{Lifecycle, Phase};

/// Between two lines when nothing changes.
pub const BEAT: Duration = Duration::from_millis(500);

/// The ports that the data plane listens on, or why it cannot.
pub type Listening = watch::Receiver<Arc<Bound>>;

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
    /// The TCP ports that are bound.
    pub ports: BTreeSet<u16>,
    /// The UDP ports that are bound; pods of an older version say none.
    #[serde(default)]
    pub udp_ports: BTreeSet<u16>,
}

impl PeerReport {
    /// What is true now.
    pub fn now(identity: &str, lifecycle: &Lifecycle, listening: &Listening) -> Self {
        let listening = listening.borrow();
        let bound = |over: Transport| {
            let bound = listening.iter().filter(|(_, bound)| bound.is_ok());
            bound.filter(|((t, _), _)| *t == over).map(|((_, port), _)| *port).collect()
        };
        PeerReport {
            identity: identity.to_owned(),
            ready: lifecycle.phase() == Phase::Ready,
            leaving: lifecycle.phase() == Phase::Leaving,
            ports: bound(Transport::Tcp),
            udp_ports: bound(Transport::Udp),
        }
    }

    /// Every port that is bound.
    pub fn bound(&self) -> BTreeSet<(Transport, u16)> {
        let tcp = self.ports.iter().map(|port| (Transport::Tcp, *port));
        tcp.chain(self.udp_ports.iter().map(|port| (Transport::Udp, *port))).collect()
    }
}
