//! The objects of this moment, shared by every task that brings or takes them.
//!
//! One mutex around maps of `Arc`s: what is done under it is short, and a snapshot is a few
//! pointer copies. A map is copied on write only while a snapshot of it is held elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::echo::{CLAIM, Echoes, Pending};
use super::files::{FileProblem, Origin};
use super::object::{Content, Object, Raw, Undecoded};
use super::stats::{SourceStats, count};
use crate::translate::{Key, ObjectKind, Objects, Peer, Settings, Snapshot, Undecodable};

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
    stats: SourceStats,
}

/// Who brings objects: one list and watch, or one way of reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WatchId(pub u32);

pub(super) struct State {
    pub snapshot: Snapshot,
    rows: HashMap<(ObjectKind, Key), Row>,
    undecodable: BTreeMap<(ObjectKind, Key), Undecodable>,
    pending: Pending,
    /// Watches that have not listed yet, and until when they are waited for (None: for ever).
    unlisted: BTreeMap<WatchId, Option<Instant>>,
    dirty: bool,
    /// A pass has begun and not taken its snapshot yet.
    passing: bool,
    /// The Secrets that the pass at work sees.
    pass_secrets: Option<Objects<Secret>>,
    problems: Arc<Vec<FileProblem>>,
    origins: HashMap<(ObjectKind, Key), Origin>,
}

/// What is known of an object besides its content.
struct Row {
    version: String,
    content: Content,
    /// The watches that have it; it goes when none has.
    holders: Vec<WatchId>,
}

/// An object on its way into the world, decoded outside of the lock.
pub(super) struct Arrival {
    pub kind: ObjectKind,
    pub key: Key,
    pub uid: Option<String>,
    pub version: String,
    pub content: Content,
    pub object: Result<Object, Undecoded>,
    pub origin: Option<Origin>,
}

impl Arrival {
    pub fn new(kind: ObjectKind, raw: Raw, origin: Option<Origin>) -> Self {
        Arrival {
            kind,
            key: raw.key(),
            uid: raw.meta.uid.clone(),
            version: raw.meta.resource_version.clone().unwrap_or_default(),
            content: raw.content(),
            object: Object::decode(kind, raw),
            origin,
        }
    }
}

/// What an arrival or a removal meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that anyone looks at.
    None,
    /// Somebody wrote the status; perhaps we did.
    Status,
    /// The object itself, or it is new, or gone.
    Content,
}

impl Handle {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        let state = State {
            snapshot: Snapshot { settings, ..Snapshot::default() },
            rows: HashMap::new(),
            undecodable: BTreeMap::new(),
            pending: Pending::default(),
            unlisted: BTreeMap::new(),
            // The first pass is due as soon as everything was listed, even if that is nothing.
            dirty: true,
            passing: false,
            pass_secrets: None,
            problems: Arc::default(),
            origins: HashMap::new(),
        };
        let world =
            World { state: Mutex::new(state), due: Notify::new(), stats: SourceStats::default() };
        Handle { shared: Arc::new(world) }
    }

    /// The objects of this moment.
    pub fn snapshot(&self) -> Snapshot {
        let mut state = self.lock();
        if std::mem::take(&mut state.passing) {
            state.pass_secrets = Some(Arc::clone(&state.snapshot.secrets));
        }
        Snapshot { taken: Timestamp::now(), ..state.snapshot.clone() }
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
    pub fn set_listening(&self, listening: BTreeMap<u16, Result<(), String>>) {
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

    /// What is wrong with the files as they are now; empty in a cluster.
    pub fn problems(&self) -> Arc<Vec<FileProblem>> {
        Arc::clone(&self.lock().problems)
    }

    /// Where the object was read from; None in a cluster.
    pub fn origin(&self, kind: ObjectKind, key: &Key) -> Option<Origin> {
        self.lock().origins.get(&(kind, key.clone())).cloned()
    }

    pub fn stats(&self) -> &SourceStats {
        &self.shared.stats
    }

    /// Whether everything has been listed once.
    pub fn listed(&self) -> bool {
        self.lock().unlisted.is_empty()
    }

    /// Returns when a pass is due. Only one task may wait.
    pub(super) async fn due(&self) {
        loop {
            let woken = self.shared.due.notified();
            let until = {
                let mut state = self.lock();
                let now = Instant::now();
                state.unlisted.retain(|_, until| until.is_none_or(|until| until > now));
                if state.dirty && state.unlisted.is_empty() {
                    return;
                }
                state.unlisted.values().flatten().min().copied()
            };
            match until {
                None => woken.await,
                Some(until) => {
                    let _ = tokio::time::timeout_at(until, woken).await;
                }
            }
        }
    }

    /// A pass begins: what changes from here on calls for the next.
    pub(super) fn begin_pass(&self) {
        let mut state = self.lock();
        state.dirty = false;
        state.passing = true;
    }

    /// The world is not complete before this watch has listed, or until the time is over.
    pub(super) fn await_list(&self, watch: WatchId, until: Option<Instant>) {
        self.lock().unlisted.insert(watch, until);
    }

    /// This watch has listed, or there is nothing to list.
    pub(super) fn has_listed(&self, watch: WatchId) {
        self.lock().unlisted.remove(&watch);
        self.shared.due.notify_one();
    }

    /// One object is new or changed.
    pub(super) fn apply(&self, watch: WatchId, arrival: Arrival) {
        let mut state = self.lock();
        let (kind, key, version) = (arrival.kind, arrival.key.clone(), arrival.version.clone());
        let change = self.take(&mut state, watch, arrival);
        let echo = state.pending.arrived(kind, &key, &version);
        if echo {
            count(&self.shared.stats.echoes);
        }
        match change {
            Change::None => {}
            Change::Status | Change::Content if echo => {}
            Change::Content => self.mark(&mut state),
            Change::Status => {
                state.pending.wait(kind, &key, &version);
                drop(state);
                self.mark_unless_claimed(kind, key, version);
            }
        }
    }

    /// One object is gone for this watch.
    pub(super) fn delete(&self, watch: WatchId, kind: ObjectKind, key: &Key) {
        let mut state = self.lock();
        if state.let_go(watch, kind, key) == Change::Content {
            self.mark(&mut state);
        }
    }

    /// The complete list of this watch: what it had and has no more is gone.
    pub(super) fn replace(&self, watch: WatchId, arrivals: Vec<Arrival>) {
        let mut state = self.lock();
        let present: BTreeSet<(ObjectKind, Key)> =
            arrivals.iter().map(|a| (a.kind, a.key.clone())).collect();
        let gone: Vec<(ObjectKind, Key)> = state
            .rows
            .iter()
            .filter(|(id, row)| row.holders.contains(&watch) && !present.contains(id))
            .map(|(id, _)| id.clone())
            .collect();
        let mut changed = false;
        for arrival in arrivals {
            changed |= self.take(&mut state, watch, arrival) != Change::None;
        }
        for (kind, key) in gone {
            changed |= state.let_go(watch, kind, &key) != Change::None;
        }
        if changed {
            self.mark(&mut state);
        }
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
        let seen = state.rows.get(&(kind, key.clone())).is_some_and(|row| row.version == version);
        if state.pending.expect(kind, key, version) {
            count(&self.shared.stats.echoes);
        } else if seen {
            // Its event came and was acted upon already: there is nothing left to wait for.
            state.pending.forget(kind, key);
        }
    }

    fn take(&self, state: &mut State, watch: WatchId, arrival: Arrival) -> Change {
        count(&self.shared.stats.events);
        if arrival.object.is_err() {
            count(&self.shared.stats.undecodable);
        }
        state.take(watch, arrival)
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

impl State {
    fn take(&mut self, watch: WatchId, arrival: Arrival) -> Change {
        let Arrival { kind, key, uid, version, content, object, origin } = arrival;
        let id = (kind, key.clone());
        let change = match self.rows.get_mut(&id) {
            Some(row) => {
                let change = match (row.content, content) {
                    (old, new) if old.spec != new.spec => Change::Content,
                    (old, new) if old.status != new.status => Change::Status,
                    _ => Change::None,
                };
                row.version = version;
                row.content = content;
                if !row.holders.contains(&watch) {
                    row.holders.push(watch);
                }
                change
            }
            None => {
                self.rows.insert(id.clone(), Row { version, content, holders: vec![watch] });
                Change::Content
            }
        };
        let at = origin.as_ref().map(Origin::to_string);
        if let Some(origin) = origin {
            self.origins.insert(id.clone(), origin);
        }
        match object {
            Ok(object) => {
                object.insert(key, &mut self.snapshot);
                if self.undecodable.remove(&id).is_some() {
                    self.list_undecodable();
                }
            }
            Err(error) => {
                let undecodable = Undecodable {
                    kind: kind.kind().to_owned(),
                    key,
                    uid,
                    origin: at,
                    message: error.to_string(),
                };
                self.undecodable.insert(id, undecodable);
                self.list_undecodable();
            }
        }
        change
    }

    fn let_go(&mut self, watch: WatchId, kind: ObjectKind, key: &Key) -> Change {
        let id = (kind, key.clone());
        let Some(row) = self.rows.get_mut(&id) else { return Change::None };
        row.holders.retain(|holder| *holder != watch);
        if !row.holders.is_empty() {
            return Change::None;
        }
        self.rows.remove(&id);
        self.origins.remove(&id);
        self.pending.forget(kind, key);
        Object::remove(kind, key, &mut self.snapshot);
        if self.undecodable.remove(&id).is_some() {
            self.list_undecodable();
        }
        if kind == ObjectKind::Secret && self.snapshot.good_certificates.contains_key(key) {
            Arc::make_mut(&mut self.snapshot.good_certificates).remove(key);
        }
        Change::Content
    }

    fn list_undecodable(&mut self) {
        self.snapshot.undecodable = Arc::new(self.undecodable.values().cloned().collect());
    }
}
