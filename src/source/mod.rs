//! Where objects come from: a cluster's watches or files; both give the same Snapshot.
//!
//! Either source keeps its objects behind one [`Handle`] that many tasks share,
//! marks it dirty when something changed that `translate` could see, and paces the passes.
//! Nothing in here interprets objects beyond decoding them: that is `translate`'s work. Writing
//! to the cluster is `controller`'s.

mod cluster;
mod dns;
mod echo;
mod endpoints;
mod files;
mod key_sets;
mod manifest;
mod named;
mod object;
mod reload;
mod state;
mod stats;
mod wants;
mod watch;
mod world;
mod yaml;

use std::time::Duration;

use tokio::time::Instant;

pub use cluster::{ClusterSource, Timing, connect};
pub use echo::Echoes;
pub use files::{Embedded, FileProblem, FileSource, Origin, line_of, read_once};
pub use key_sets::KeyTimes;
pub use stats::{SourceCounts, SourceStats};
pub use world::Handle;

use crate::graph::Bound;
use crate::translate::{Key, Peer, Snapshot};

/// Under churn a pass begins after so many times what the last one took, from its begin: passes
/// have a third of one CPU at most, and a change waits no longer than it must.
const SHARE: u32 = 3;
/// It begins after this long at least and after that long at most.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(50);

/// Either source, with one way to use it.
pub enum Source {
    Cluster(ClusterSource),
    Files(FileSource),
}

impl Source {
    /// The part that other tasks may hold, too.
    pub fn handle(&self) -> &Handle {
        match self {
            Source::Cluster(source) => &source.world,
            Source::Files(source) => &source.world,
        }
    }

    /// Returns when a pass is due: everything has been listed once and something changed. The
    /// first change after quiet is taken at once; under churn passes begin 5 to 50 ms apart,
    /// as they are quick or slow. Called again when the pass is over.
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        let (world, pace) = match self {
            Source::Cluster(source) => (&source.world, &mut source.pace),
            Source::Files(source) => (&source.world, &mut source.pace),
        };
        pace.wait(world).await;
    }

    /// See [`Handle::snapshot`].
    pub fn snapshot(&self) -> Snapshot {
        self.handle().snapshot()
    }

    /// See [`Handle::remember_good`].
    pub fn remember_good(&self, secrets: &[Key]) {
        self.handle().remember_good(secrets);
    }

    /// See [`Handle::echoes`].
    pub fn echoes(&self) -> Echoes {
        self.handle().echoes()
    }

    /// See [`Handle::set_listening`].
    pub fn set_listening(&self, listening: Bound) {
        self.handle().set_listening(listening);
    }

    /// See [`Handle::set_peers`].
    pub fn set_peers(&self, peers: Vec<Peer>) {
        self.handle().set_peers(peers);
    }
}

/// When the next pass may begin.
#[derive(Debug, Default)]
struct Pace {
    /// When the pass at work began.
    began: Option<Instant>,
    next: Option<Instant>,
}

impl Pace {
    async fn wait(&mut self, world: &Handle) {
        if let Some(began) = self.began.take() {
            self.next = Some(began + pause(began.elapsed()));
        }
        world.due().await;
        if let Some(next) = self.next {
            tokio::time::sleep_until(next).await;
        }
        self.began = Some(Instant::now());
        world.begin_pass();
    }
}

/// How long after its begin a pass that took so long may be followed by another.
fn pause(took: Duration) -> Duration {
    took.saturating_mul(SHARE).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_passes_are_further_apart_than_quick_ones_within_bounds() {
        let ms = Duration::from_millis;
        for (took, expected) in [(0, 5), (1, 5), (4, 12), (20, 50), (400, 50)] {
            assert_eq!(pause(ms(took)), ms(expected), "{took}");
        }
    }
}
