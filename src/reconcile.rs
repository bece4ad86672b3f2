//! The loop: a change -> a Snapshot -> a Translation -> the live graph, and work for the
//! controller.
//!
//! Its states are `source.changed` (nothing to do), a pass (off the async threads, because a
//! large world takes a while), and the publish. A pass that dies by a defect is logged and
//! counted, and the last graph goes on serving. What is decided is `translate`'s, what is
//! written is `controller`'s.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::controller::peers::{self, Listening};
use crate::controller::{Pass, Passes};
use crate::graph::{Bound, RouteGraph, Shared};
use crate::health::Health;
use crate::lifecycle::{Lifecycle, Phase};
use crate::source::Source;
use crate::translate::{Note, Peer, Snapshot, Translation, translate};

/// How often graphs that were live are looked after, while requests hold them.
const CLEAN_UP: Duration = Duration::from_secs(1);

/// What the loop connects.
pub struct Reconciler {
    source: Source,
    shared: Arc<Shared>,
    lifecycle: Lifecycle,
    listening: Listening,
    health: Arc<Health>,
    passes: watch::Sender<Arc<Pass>>,
    /// What was logged, as long as it stands.
    told: BTreeSet<Note>,
    /// What `listening` was when it was looked at last.
    bound: Arc<Bound>,
    /// Once [`settled`], always settled.
    settled: bool,
}

impl Reconciler {
    pub fn new(
        source: Source,
        shared: Arc<Shared>,
        lifecycle: Lifecycle,
        listening: Listening,
        health: Arc<Health>,
    ) -> Self {
        let passes = watch::Sender::default();
        let (told, bound) = (BTreeSet::new(), Arc::default());
        let settled = false;
        Reconciler { source, shared, lifecycle, listening, health, passes, told, bound, settled }
    }

    /// Where the controller takes its work from.
    pub fn passes(&self) -> Passes {
        self.passes.subscribe()
    }

    /// Runs for ever. A defect outside of `translate` starts it again.
    pub async fn run(self) {
        let health = Arc::clone(&self.health);
        let shared = Arc::new(tokio::sync::Mutex::new(self));
        let again = || {
            let shared = Arc::clone(&shared);
            async move { shared.lock().await.follow().await }
        };
        health.keep_running("reconcile", again).await;
    }

    async fn follow(&mut self) {
        self.follow_listeners();
        loop {
            let old_graphs = async {
                match self.shared.clean_up() {
                    true => tokio::time::sleep(CLEAN_UP).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.source.changed() => self.pass().await,
                Ok(()) = self.listening.changed() => self.follow_listeners(),
                () = old_graphs => {}
            }
        }
    }

    async fn pass(&mut self) {
        let began = Instant::now();
        if self.listening.has_changed().unwrap_or(false) {
            self.follow_listeners();
        }
        let snapshot = Arc::new(self.source.snapshot());
        self.health.reconcile_passes.add(1);
        self.health.undecodable_objects.set(snapshot.undecodable.len() as u64);
        // A thread of its own also turns a panic into a value.
        let seen = Arc::clone(&snapshot);
        let Ok(translation) = tokio::task::spawn_blocking(move || translate(&seen)).await else {
            self.health.reconcile_failures.add(1);
            tracing::error!("a defect ended a pass; the last good config goes on serving");
            return;
        };
        self.publish(&snapshot, translation);
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.health.reconcile_last_duration_microseconds.set(micros);
        tracing::debug!(generation = self.shared.generation(), micros, "published");
    }

    fn publish(&mut self, snapshot: &Snapshot, translation: Translation) {
        let Translation { graph, statuses, infrastructure, notes, good_certificates, .. } =
            translation;
        if translation.graph_is_new {
            self.shared.publish(graph);
            snapshot.memo.published(self.shared.load());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.health.config_last_success_timestamp_seconds.set(now);
        self.source.remember_good(&good_certificates);
        self.tell(&notes);
        let members = peers::members(snapshot);
        self.settled = self.settled || settled(self.lifecycle.phase(), snapshot);
        let pass = match self.settled {
            true => Pass { statuses, infrastructure, notes, members },
            false => Pass { members, ..Pass::default() },
        };
        self.passes.send_replace(Arc::new(pass));
        self.become_ready();
    }

    /// Logs what is new among the notes.
    fn tell(&mut self, notes: &[Note]) {
        for note in notes.iter().filter(|note| !self.told.contains(*note)) {
            let kind = note.kind.kind();
            let (object, reason, field) = (&note.key, &note.reason, &note.field);
            // Only files are places.
            let at = self.source.handle().origin(note.kind, &note.key).map(tracing::field::display);
            if note.warning {
                tracing::warn!(kind, %object, %reason, field, at, "{}", note.message);
            } else {
                tracing::info!(kind, %object, %reason, field, at, "{}", note.message);
            }
        }
        self.told = notes.iter().cloned().collect();
    }

    /// The data plane has bound or released ports.
    fn follow_listeners(&mut self) {
        let listening = Arc::clone(&self.listening.borrow_and_update());
        for (place @ (transport, port), bound) in listening.iter() {
            if let Err(why) = bound
                && self.bound.get(place) != Some(bound)
            {
                tracing::warn!(%transport, port, why, "a port cannot be listened on");
            }
        }
        let failed = listening.values().filter(|bound| bound.is_err()).count();
        self.health.listeners_failed.set(failed as u64);
        self.source.set_listening(Bound::clone(&listening));
        self.bound = listening;
        self.become_ready();
    }

    fn become_ready(&self) {
        if self.lifecycle.phase() == Phase::Starting
            && self.shared.generation() > 0
            && served(&self.shared.load(), &self.listening.borrow())
        {
            tracing::info!(generation = self.shared.generation(), "ready");
            self.lifecycle.advance(Phase::Ready);
        }
    }
}

/// Whether the data plane has taken up every listener of `graph`, and can serve at least one of
/// them: a port that cannot be bound must not keep the others from being ready.
fn served(graph: &RouteGraph, listening: &Bound) -> bool {
    let ports = graph.ports();
    let mut bound = ports.iter().map(|port| listening.get(port));
    let taken_up = bound.clone().all(|bound| bound.is_some());
    let any = ports.is_empty() || bound.any(|bound| matches!(bound, Some(Ok(()))));
    taken_up && any
}

/// Whether this process knows enough of itself to write. Before it listens and has heard of a
/// ready pod (itself, at least), every Gateway looks as if nobody served it: a restart would
/// take back `Programmed` and all endpoints for a moment, and say so to everybody.
fn settled(phase: Phase, snapshot: &Snapshot) -> bool {
    // Without peers this process is no pod, and says nothing of pods.
    let heard = snapshot.peers.is_empty() || snapshot.peers.iter().any(Peer::is_ready);
    phase != Phase::Starting && heard
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::graph::{HostMap, Listener, Protocol, Transport};
    use crate::translate::PeerState;

    fn graph(ports: &[u16]) -> RouteGraph {
        let listener = |port| Listener {
            port,
            public_port: port,
            protocol: Protocol::Http,
            sections: HostMap::default(),
            streams: HostMap::default(),
        };
        RouteGraph {
            listeners: ports.iter().map(|port| (*port, Arc::new(listener(*port)))).collect(),
            ..RouteGraph::default()
        }
    }

    #[test]
    fn nothing_is_written_before_this_pod_listens_and_is_heard() {
        let peer = |ready| Peer {
            ip: IpAddr::from([10, 0, 0, 1]),
            pod_name: None,
            node_name: None,
            state: if ready { PeerState::Ready } else { PeerState::Away },
            ports: BTreeSet::new(),
        };
        let with =
            |peers: &[Peer]| Snapshot { peers: Arc::new(peers.to_vec()), ..Snapshot::default() };
        assert!(!settled(Phase::Starting, &with(&[])));
        assert!(!settled(Phase::Starting, &with(&[peer(true)])), "another pod is ready");
        assert!(!settled(Phase::Ready, &with(&[peer(false)])), "its own word has not come round");
        assert!(settled(Phase::Ready, &with(&[peer(false), peer(true)])));
        assert!(settled(Phase::Ready, &with(&[])), "no pod at all");
    }

    #[test]
    fn ready_means_every_listener_was_taken_up_and_one_serves() {
        let bound = |port| ((Transport::Tcp, port), Ok(()));
        let failed = |port| ((Transport::Tcp, port), Err("in use".to_owned()));
        let cases =
            [(vec![], true, "nothing to serve"), (vec![80, 443], false, "nothing bound yet")];
        for (ports, ready, why) in cases {
            assert_eq!(served(&graph(&ports), &Bound::new()), ready, "{why}");
        }
        let both = graph(&[80, 443]);
        assert!(!served(&both, &Bound::from([bound(80)])), "one is missing");
        assert!(served(&both, &Bound::from([bound(80), bound(443)])));
        assert!(served(&both, &Bound::from([bound(80), failed(443)])), "one serves");
        assert!(!served(&both, &Bound::from([failed(80), failed(443)])), "none serves");
    }
}
