//! The objects of this moment, shared by every task that brings or takes them.
//!
//! One mutex around maps of `Arc`s: what is done under it is short, and a snapshot is a few
//! pointer copies. A map is copied on write only while a snapshot of it is held elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::echo::{CLAIM, Echoes};
use super::endpoints::{Feed, Slice};
use super::files::{FileProblem, Origin};
use super::state::{Arrival, Awaited, Change, State, WatchId};
use super::stats::{SourceStats, count};
use super::wants::{Named, Wants};
use crate::graph::Bound;
use crate::translate::{Key, KeySource, ObjectKind, Peer, Settings, Snapshot};

/// How long a pass waits for what an object newly refers to by name.
const FETCH: Duration = Duration::from_secs(2);

/// What a source holds: cheap to clone, all clones are one.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<World>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

struct World {
    state: Mutex<State>,
    /// Wakes the one who waits in [`Handle::due`].
    due: Notify,
    /// Tells those who fetch what objects want; the value is of no meaning.
    wanted: watch::Sender<()>,
    /// Takes endpoints to the live graph; None where every change is a pass anyway.
    feed: Option<Feed>,
    next_watch: AtomicU32,
    stats: SourceStats,
}

impl Handle {
    pub(super) fn new(settings: Arc<Settings>, feed: Option<Feed>) -> Self {
        let state = State::new(settings);
        let world = World {
            state: Mutex::new(state),
            due: Notify::new(),
            wanted: watch::Sender::new(()),
            feed,
            next_watch: AtomicU32::new(0),
            stats: SourceStats::default(),
        };
        Handle { shared: Arc::new(world) }
    }

    /// What the command line decided.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.lock().snapshot.settings)
    }

    /// The objects of this moment.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.lock();
        if std::mem::take(&mut state.passing) {
            state.pass_secrets = Some(Arc::clone(&state.snapshot.secrets));
        }
        Snapshot { taken: Timestamp::now(), ..state.snapshot() }
    }

    /// Keeps the certificates of these Secrets, as the pass at work saw them, to be handed out
    /// as [`Snapshot::good_certificates`] while newer versions are broken.
    pub fn remember_good(&self, secrets: &[Key]) {
        let mut state = self.lock();
        let seen = state.pass_secrets.take().unwrap_or_else(|| Arc::clone(&state.snapshot.secrets));
        let State { snapshot, .. } = &mut *state;
        for key in secrets {
            // A Secret that was deleted since must not come back.
            let Some(secret) = seen.get(key).filter(|_| snapshot.secrets.contains_key(key)) else {
                continue;
            };
            let known = snapshot.good_certificates.get(key);
            if known.is_none_or(|known| !Arc::ptr_eq(known, secret)) {
                Arc::make_mut(&mut snapshot.good_certificates)
                    .insert(key.clone(), Arc::clone(secret));
            }
        }
    }

    /// Where the controller reports its own status writes.
    pub fn echoes(&self) -> Echoes {
        Echoes { world: self.clone() }
    }

    /// What this pod's data plane listens on. A pass is due if that changed.
    pub fn set_listening(&self, listening: Bound) {
        let mut state = self.lock();
        if *state.snapshot.listening != listening {
            state.snapshot.listening = Arc::new(listening);
            self.mark(&mut state);
        }
    }

    /// The Tidegate pods that answer. A pass is due if they changed.
    pub fn set_peers(&self, peers: Vec<Peer>) {
        let mut state = self.lock();
        if *state.snapshot.peers != peers {
            state.snapshot.peers = Arc::new(peers);
            self.mark(&mut state);
        }
    }

    /// The Services that the API server does not make. A pass is due if they changed.
    pub fn set_invalid_services(&self, services: BTreeMap<Key, String>) {
        let mut state = self.lock();
        if *state.snapshot.invalid_services != services {
            state.snapshot.invalid_services = Arc::new(services);
            self.mark(&mut state);
        }
    }

    /// What is wrong with the files as they are now; empty in a cluster.
    pub fn problems(&self) -> Arc<Vec<FileProblem>> {
        Arc::clone(&self.lock().problems)
    }

    /// Where the object was read from; None in a cluster.
    pub fn origin(&self, kind: ObjectKind, key: &Key) -> Option<Origin> {
        self.lock().rows.get(&(kind, key.clone()))?.origin.clone()
    }

    pub fn stats(&self) -> &SourceStats {
        &self.shared.stats
    }

    /// Whether everything that is waited for has come.
    pub fn listed(&self) -> bool {
        self.lock().awaited.is_empty()
    }

    /// Returns when a pass is due. Only one task may wait.
    pub(super) async fn due(&self) {
        loop {
            let woken = self.shared.due.notified();
            let until = {
                let mut state = self.lock();
                let now = Instant::now();
                state.awaited.retain(|_, until| until.is_none_or(|until| until > now));
                if state.dirty && state.awaited.is_empty() {
                    return;
                }
                state.awaited.values().flatten().min().copied()
            };
            match until {
                None => woken.await,
                Some(until) => {
                    // Either way the loop looks again.
                    let _ = tokio::time::timeout_at(until, woken).await;
                }
            }
        }
    }

    /// A pass begins: what changes from here on calls for the next.
    pub(super) fn begin_pass(&self) {
        self.refresh_endpoints();
        let mut state = self.lock();
        state.dirty = false;
        state.passing = true;
        state.touched.clear();
    }

    /// A number for one more watch.
    pub(super) fn new_watch(&self) -> WatchId {
        let mut state = self.lock();
        self.number(&mut state, false)
    }

    /// A number for the watch of a whole kind: no pass begins before its first list has come.
    pub(super) fn new_list(&self) -> WatchId {
        let mut state = self.lock();
        let id = self.number(&mut state, true);
        state.awaited.insert(Awaited::Watch(id), None);
        id
    }

    fn number(&self, state: &mut State, whole: bool) -> WatchId {
        let id = WatchId(self.shared.next_watch.fetch_add(1, Ordering::Relaxed));
        state.watches.insert(id, whole);
        id
    }

    /// The watch brings nothing any more, even if its task has not noticed yet, and what only it
    /// had is gone.
    pub(super) fn retire(&self, watch: WatchId) {
        self.lock().watches.remove(&watch);
        self.replace(watch, Vec::new(), &BTreeSet::new());
    }

    /// It came, or there is nothing to come.
    pub(super) fn has_come(&self, what: &Awaited) {
        let mut state = self.lock();
        let removed = state.awaited.remove(what);
        if matches!(what, Awaited::Watch(_)) && removed.is_some() && state.all_listed() {
            // Only now what is wanted by name is fetched.
            let until = Some(Instant::now() + FETCH);
            state.awaited.values_mut().for_each(|time| *time = until);
            self.shared.wanted.send_replace(());
        }
        self.shared.due.notify_one();
    }

    /// One object is new or changed.
    pub(super) fn apply(&self, watch: WatchId, arrival: Arrival) {
        let (kind, key, version) = (arrival.kind, arrival.key.clone(), arrival.version.clone());
        let mut state = self.lock();
        let mut change = self.take(&mut state, watch, arrival);
        if state.pending.arrived(kind, &key, &version) {
            count(&self.shared.stats.echoes);
            change = change.min(Change::Endpoints);
        }
        if change == Change::Status {
            state.pending.wait(kind, &key, &version);
            drop(state);
            self.mark_unless_claimed(kind, key, version);
        } else {
            self.act_on(change, state);
        }
    }

    /// One object is gone for this watch.
    pub(super) fn delete(&self, watch: WatchId, kind: ObjectKind, key: &Key) {
        let mut state = self.lock();
        let change = self.let_go(&mut state, watch, kind, key);
        self.act_on(change, state);
    }

    /// The complete list of this watch: what it had and has no more is gone, except `kept`.
    pub(super) fn replace(
        &self,
        watch: WatchId,
        arrivals: Vec<Arrival>,
        kept: &BTreeSet<(ObjectKind, Key)>,
    ) {
        let mut state = self.lock();
        let present: BTreeSet<(ObjectKind, &Key)> =
            arrivals.iter().map(|a| (a.kind, &a.key)).collect();
        let gone: Vec<(ObjectKind, Key)> = state
            .rows
            .iter()
            .filter(|(_, row)| row.holders.contains(&watch))
            .filter(|((kind, key), _)| !present.contains(&(*kind, key)))
            .filter(|(id, _)| !kept.contains(id))
            .map(|(id, _)| id.clone())
            .collect();
        let mut change = Change::None;
        for arrival in arrivals {
            change = change.max(self.take(&mut state, watch, arrival));
        }
        for (kind, key) in gone {
            change = change.max(self.let_go(&mut state, watch, kind, &key));
        }
        self.act_on(change, state);
    }

    /// Whether this watch has brought any object.
    pub(super) fn holds_any(&self, watch: WatchId) -> bool {
        self.lock().rows.values().any(|row| row.holders.contains(&watch))
    }

    /// From here on passes wait a little for names and hosts that are newly wanted, where
    /// somebody brings them.
    pub(super) fn brings(&self, names: bool, hosts: bool) {
        let mut state = self.lock();
        (state.fetching, state.resolving) = (names, hosts);
    }

    /// See [`State::wanted_names`].
    pub(super) fn wanted_names(&self) -> (BTreeSet<Named>, usize) {
        self.lock().wanted_names()
    }

    /// See [`State::wanted_hosts`].
    pub(super) fn wanted_hosts(&self) -> (BTreeSet<String>, usize) {
        self.lock().wanted_hosts()
    }

    /// From here on passes wait a little for keys that are newly wanted, and for those that are
    /// wanted already.
    pub(super) fn brings_keys(&self) {
        let mut state = self.lock();
        state.fetching_keys = true;
        let until = Some(Instant::now() + FETCH);
        for source in state.wanted_keys().0 {
            state.awaited.entry(Awaited::Keys(source)).or_insert(until);
        }
    }

    /// See [`State::wanted_keys`].
    pub(super) fn wanted_keys(&self) -> (BTreeSet<KeySource>, usize) {
        self.lock().wanted_keys()
    }

    /// The objects of this moment, for somebody who makes no pass.
    pub(super) fn view(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    pub(super) fn subscribe_wanted(&self) -> watch::Receiver<()> {
        self.shared.wanted.subscribe()
    }

    /// Brings the endpoints that changed since the last pass began to the live graph: a graph
    /// that was published since was made from older ones.
    pub(super) fn refresh_endpoints(&self) {
        let touched = self.lock().touched.clone();
        self.feed_endpoints(&touched);
    }

    /// See [`Handle::problems`].
    pub(super) fn set_problems(&self, problems: Vec<FileProblem>) {
        self.lock().problems = Arc::new(problems);
    }

    /// Changes a part of the snapshot that is no object.
    pub(super) fn edit(&self, edit: impl FnOnce(&mut Snapshot) -> bool) {
        let mut state = self.lock();
        if edit(&mut state.snapshot) {
            self.mark(&mut state);
        }
    }

    pub(super) fn expect_echo(&self, kind: ObjectKind, key: &Key, version: &str) {
        let mut state = self.lock();
        let seen = state.rows.get(&(kind, key.clone())).is_some_and(|row| *row.version == *version);
        if state.pending.expect(kind, key, version) {
            count(&self.shared.stats.echoes);
        } else if seen {
            // Its event came and was acted upon already: there is nothing left to wait for.
            state.pending.forget(kind, key);
        }
    }

    fn act_on(&self, change: Change, mut state: MutexGuard<'_, State>) {
        match change {
            Change::None => {}
            Change::Endpoints => {
                let touched = state.touched.clone();
                drop(state);
                self.feed_endpoints(&touched);
            }
            Change::Status | Change::Content => self.mark(&mut state),
        }
    }

    fn feed_endpoints(&self, services: &BTreeSet<Key>) {
        let Some(feed) = self.shared.feed.as_ref().filter(|_| !services.is_empty()) else { return };
        let updates = feed.update(|key| self.lock().endpoints_of(key), services);
        self.shared.stats.endpoint_updates.fetch_add(updates, Ordering::Relaxed);
    }

    fn take(&self, state: &mut State, watch: WatchId, arrival: Arrival) -> Change {
        if !state.watches.contains_key(&watch) {
            return Change::None;
        }
        count(&self.shared.stats.events);
        if arrival.object.is_err() {
            count(&self.shared.stats.undecodable);
        }
        let id = (arrival.kind, arrival.key.clone());
        let (wants, slice) = (arrival.wants.clone(), arrival.slice.clone());
        let held = state.holders(&id);
        let change = state.take(watch, arrival);
        self.holders_changed(state, &id, held);
        if change == Change::Content {
            self.want(state, id.clone(), wants);
        }
        let before = state.rows.get_mut(&id).and_then(|row| row.slice.replace(slice.clone()?));
        state.file_slice(&id.1, before.as_deref(), slice.as_deref());
        self.with_slices(state, change, [before, slice])
    }

    fn let_go(&self, state: &mut State, watch: WatchId, kind: ObjectKind, key: &Key) -> Change {
        let id = (kind, key.clone());
        let held = state.holders(&id);
        let (change, slice) = state.let_go(watch, kind, key);
        self.holders_changed(state, &id, held);
        if change == Change::Content {
            self.want(state, id, Wants::default());
        }
        state.file_slice(key, slice.as_deref(), None);
        self.with_slices(state, change, [slice, None])
    }

    /// A change of an EndpointSlice that nobody but the data plane looks at needs no pass.
    fn with_slices(
        &self,
        state: &mut State,
        change: Change,
        slices: [Option<Box<Slice>>; 2],
    ) -> Change {
        let Some(feed) = self.shared.feed.as_ref().filter(|_| change != Change::None) else {
            return change;
        };
        let slices: Vec<Box<Slice>> = slices.into_iter().flatten().collect();
        if slices.is_empty() {
            return change;
        }
        state.touched.extend(slices.iter().filter_map(|slice| slice.service.clone()));
        let plain = slices.iter().all(|slice| feed.is_plain(slice));
        if plain { Change::Endpoints } else { Change::Content }
    }

    /// Whether a Secret must be watched by its name depends on who brings it besides.
    fn holders_changed(&self, state: &mut State, id: &Named, before: usize) {
        let now = state.holders(id);
        if id.0 == ObjectKind::Secret && now != before {
            if before == 0 {
                state.awaited.remove(&Awaited::Named(id.clone()));
            }
            self.shared.wanted.send_replace(());
        }
    }

    fn want(&self, state: &mut State, id: (ObjectKind, Key), wants: Wants) {
        let (kind, namespace) = (id.0, id.1.namespace.clone());
        let before = match wants.is_empty() {
            true => state.wants.remove(&id),
            false => state.wants.insert(id, wants.clone()),
        };
        if before.as_ref() == Some(&wants) || (before.is_none() && wants.is_empty()) {
            return;
        }
        let before = before.unwrap_or_default();
        // Who wants something new all the time must not hold up passes for ever: what is wanted
        // while passes are held already gets no time of its own.
        let held = state.awaited.values().flatten().min().copied();
        let until = Some(held.unwrap_or_else(|| Instant::now() + FETCH));
        if state.fetching {
            for name in &wants.named {
                if !before.named.contains(name) && !state.rows.contains_key(name) {
                    state.awaited.entry(Awaited::Named(name.clone())).or_insert(until);
                }
            }
        }
        if let Some(host) = wants.host.filter(|_| state.resolves(kind))
            && !state.snapshot.resolved.contains_key(&host)
        {
            state.awaited.entry(Awaited::Host(host)).or_insert(until);
        }
        for remote in wants.keys.into_iter().filter(|_| state.fetching_keys) {
            let source = KeySource { namespace: namespace.clone(), remote };
            if !before.keys.contains(&source.remote)
                && !state.snapshot.key_sets.contains_key(&source)
            {
                state.awaited.entry(Awaited::Keys(source)).or_insert(until);
            }
        }
        self.shared.wanted.send_replace(());
    }

    fn mark(&self, state: &mut State) {
        state.dirty = true;
        self.shared.due.notify_one();
    }

    fn mark_unless_claimed(&self, kind: ObjectKind, key: Key, version: String) {
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(CLAIM).await;
            let mut state = world.lock();
            if state.pending.expire(kind, &key, &version) {
                world.mark(&mut state);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves at worst one object old: better than no config at all.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
