//! What the world is made of: the objects, what is known of each besides its content, and what
//! an arrival or a removal changes. No locks, no tasks, no clock: that is `world`'s part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use tokio::time::Instant;

use super::echo::Pending;
use super::endpoints::{Slice, View};
use super::files::{FileProblem, Origin};
use super::object::{Content, Object, Raw, Undecoded};
use super::wants::{Named, Wants};
use crate::translate::{Key, KeySource, ObjectKind, Objects, Settings, Snapshot, Undecodable};

/// Names that the objects of one namespace may ask for together: so many are fetched at most.
const MOST_OF_NAMESPACE: usize = 256;
/// Host names that are resolved for the objects of one namespace.
const MOST_HOSTS: usize = 64;
/// Key sets that are fetched for the objects of one namespace.
const MOST_KEY_SETS: usize = 32;

/// Who brings objects: one list and watch, or one way of reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WatchId(pub u32);

/// What a pass waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Awaited {
    /// The first complete list of a watch.
    Watch(WatchId),
    /// A Secret or a ConfigMap that an object refers to by name.
    Named(Named),
    /// The addresses of a host name.
    Host(String),
    /// The keys of an issuer.
    Keys(KeySource),
}

pub(super) struct State {
    pub snapshot: Snapshot,
    pub rows: HashMap<(ObjectKind, Key), Row>,
    /// The watches that may bring objects, and whether each is that of a whole kind.
    pub watches: BTreeMap<WatchId, bool>,
    pub undecodable: BTreeMap<(ObjectKind, Key), Undecodable>,
    /// The snapshot does not say so yet.
    undecodable_changed: bool,
    pub pending: Pending,
    /// What has not come yet, and until when it is waited for (None: for ever).
    pub awaited: BTreeMap<Awaited, Option<Instant>>,
    /// What each object asks for that no kind's list brings.
    pub wants: BTreeMap<(ObjectKind, Key), Wants>,
    /// Somebody fetches what is wanted by name, somebody resolves host names: worth waiting for.
    pub fetching: bool,
    pub resolving: bool,
    /// Somebody fetches key sets: worth waiting for.
    pub fetching_keys: bool,
    /// EndpointSlices by the Service they belong to.
    pub slices: HashMap<Key, BTreeSet<Key>>,
    /// Services whose endpoints changed since the last pass began.
    pub touched: BTreeSet<Key>,
    pub dirty: bool,
    /// A pass has begun and not taken its snapshot yet.
    pub passing: bool,
    /// The Secrets that the pass at work sees.
    pub pass_secrets: Option<Objects<Secret>>,
    pub problems: Arc<Vec<FileProblem>>,
}

/// What is known of an object besides its content. There is one for each: what few have is boxed.
pub(super) struct Row {
    pub version: Box<str>,
    content: Content,
    /// The watches that have it; it goes when none has.
    pub holders: Vec<WatchId>,
    /// Of an EndpointSlice: whose it is.
    pub slice: Option<Box<Slice>>,
    /// Of an object in a file: where.
    pub origin: Option<Origin>,
}

/// An object on its way into the world, decoded outside of the lock.
pub(super) struct Arrival {
    pub kind: ObjectKind,
    pub key: Key,
    pub uid: Option<String>,
    pub version: String,
    pub content: Content,
    pub object: Result<Object, Undecoded>,
    origin: Option<Origin>,
    pub wants: Wants,
    pub slice: Option<Box<Slice>>,
}

impl Arrival {
    pub fn new(kind: ObjectKind, raw: Raw, origin: Option<Origin>) -> Self {
        let key = raw.key();
        Arrival {
            kind,
            wants: Wants::of(kind, &key, raw.value()),
            slice: (kind == ObjectKind::EndpointSlice).then(|| Box::new(Slice::of(&raw.meta))),
            key,
            uid: raw.meta.uid.clone(),
            version: raw.meta.resource_version.clone().unwrap_or_default(),
            content: raw.content(),
            object: Object::decode(kind, raw),
            origin,
        }
    }

    /// Why it could not be decoded.
    pub fn error(&self) -> Option<&Undecoded> {
        self.object.as_ref().err()
    }

    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }
}

/// What an arrival or a removal meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// Nothing that anyone looks at.
    None,
    /// Endpoints of a Service, which need no pass.
    Endpoints,
    /// Somebody wrote the status; perhaps we did.
    Status,
    /// The object itself, or it is new, or gone.
    Content,
}

impl State {
    pub fn new(settings: Arc<Settings>) -> Self {
        State {
            snapshot: Snapshot { settings, ..Snapshot::default() },
            rows: HashMap::new(),
            watches: BTreeMap::new(),
            undecodable: BTreeMap::new(),
            undecodable_changed: false,
            pending: Pending::default(),
            awaited: BTreeMap::new(),
            wants: BTreeMap::new(),
            fetching: false,
            resolving: false,
            fetching_keys: false,
            slices: HashMap::new(),
            touched: BTreeSet::new(),
            // The first pass is due as soon as everything was listed, even if that is nothing.
            dirty: true,
            passing: false,
            pass_secrets: None,
            problems: Arc::default(),
        }
    }

    /// The Services, and just the slices of this one.
    pub fn endpoints_of(&self, service: &Key) -> View {
        let slices = self.slices.get(service).into_iter().flatten();
        let slices = slices
            .filter_map(|key| Some((key.clone(), self.snapshot.endpoint_slices.get(key)?.clone())))
            .collect();
        View {
            services: Arc::clone(&self.snapshot.services),
            slices: Arc::new(slices),
            resolved: Arc::clone(&self.snapshot.resolved),
            settings: Arc::clone(&self.snapshot.settings),
        }
    }

    pub fn file_slice(&mut self, slice: &Key, before: Option<&Slice>, after: Option<&Slice>) {
        if let Some(service) = before.and_then(|slice| slice.service.as_ref())
            && let Some(slices) = self.slices.get_mut(service)
        {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices.remove(service);
            }
        }
        if let Some(service) = after.and_then(|slice| slice.service.clone()) {
            self.slices.entry(service).or_default().insert(slice.clone());
        }
    }

    pub fn take(&mut self, watch: WatchId, arrival: Arrival) -> Change {
        let Arrival { kind, key, uid, version, content, object, origin, wants: _, slice: _ } =
            arrival;
        let id = (kind, key.clone());
        let at = origin.as_ref().map(Origin::to_string);
        let mut same = false;
        let change = match self.rows.get_mut(&id) {
            Some(row) => {
                let change = match (row.content, content) {
                    (old, new) if old.spec != new.spec => Change::Content,
                    (old, new) if old.status != new.status => Change::Status,
                    _ => Change::None,
                };
                same = change == Change::None && *row.version == *version;
                row.version = version.into();
                row.content = content;
                row.origin = origin;
                if !row.holders.contains(&watch) {
                    row.holders.push(watch);
                }
                change
            }
            None => {
                let (version, holders) = (version.into(), vec![watch]);
                let row = Row { version, content, holders, slice: None, origin };
                self.rows.insert(id.clone(), row);
                Change::Content
            }
        };
        match object {
            // Listed again: the object that others may hold stays the one.
            Ok(_) if same => {}
            Ok(object) => {
                object.insert(key, &mut self.snapshot);
                self.undecodable_changed |= self.undecodable.remove(&id).is_some();
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
                self.undecodable_changed = true;
            }
        }
        change
    }

    pub fn let_go(
        &mut self,
        watch: WatchId,
        kind: ObjectKind,
        key: &Key,
    ) -> (Change, Option<Box<Slice>>) {
        let id = (kind, key.clone());
        let Some(row) = self.rows.get_mut(&id) else { return (Change::None, None) };
        row.holders.retain(|holder| *holder != watch);
        if !row.holders.is_empty() {
            return (Change::None, None);
        }
        let row = self.rows.remove(&id);
        self.pending.forget(kind, key);
        Object::remove(kind, key, &mut self.snapshot);
        self.undecodable_changed |= self.undecodable.remove(&id).is_some();
        if kind == ObjectKind::Secret && self.snapshot.good_certificates.contains_key(key) {
            Arc::make_mut(&mut self.snapshot.good_certificates).remove(key);
        }
        (Change::Content, row.and_then(|row| row.slice))
    }

    /// Every kind has been listed once, or is known to be missing.
    pub fn all_listed(&self) -> bool {
        self.awaited.values().all(Option::is_some)
    }

    /// What objects refer to by name and the watch of a whole kind does not bring, and how much
    /// is left out. Nothing before the lists have come: what is in them needs no more.
    pub fn wanted_names(&self) -> (BTreeSet<Named>, usize) {
        let (mut names, mut left_out) = (BTreeSet::new(), 0);
        if !self.all_listed() {
            return (names, left_out);
        }
        let mut namespaces: HashMap<&str, BTreeSet<&Named>> = HashMap::new();
        for ((_, referrer), wants) in &self.wants {
            let taken = namespaces.entry(referrer.namespace.as_str()).or_default();
            for name in &wants.named {
                let mut holders = self.rows.get(name).into_iter().flat_map(|row| &row.holders);
                if holders.any(|holder| self.watches.get(holder) == Some(&true)) {
                    continue;
                }
                if taken.len() >= MOST_OF_NAMESPACE && !taken.contains(name) {
                    left_out += 1;
                    continue;
                }
                taken.insert(name);
                names.insert(name.clone());
            }
        }
        (names, left_out)
    }

    /// The host names that Services and XBackends point to, and how many are left out: nobody can
    /// take the turns of other namespaces.
    pub fn wanted_hosts(&self) -> (BTreeSet<String>, usize) {
        let (mut hosts, mut left_out) = (BTreeSet::new(), 0);
        let mut namespaces: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        for ((kind, referrer), wants) in &self.wants {
            let Some(host) = wants.host.as_deref().filter(|_| self.resolves(*kind)) else {
                continue;
            };
            let taken = namespaces.entry(referrer.namespace.as_str()).or_default();
            if taken.len() >= MOST_HOSTS && !taken.contains(host) {
                left_out += 1;
                continue;
            }
            taken.insert(host);
            hosts.insert(host.to_owned());
        }
        (hosts, left_out)
    }

    /// Where Middlewares have their keys from, and how many are left out: nobody can take the
    /// turns of other namespaces. None before the lists have come: issuers may be Services.
    pub fn wanted_keys(&self) -> (BTreeSet<KeySource>, usize) {
        let (mut sources, mut left_out) = (BTreeSet::new(), 0);
        if !self.all_listed() {
            return (sources, left_out);
        }
        let mut taken: HashMap<&str, usize> = HashMap::new();
        for ((_, referrer), wants) in &self.wants {
            for remote in &wants.keys {
                let namespace = referrer.namespace.clone();
                let source = KeySource { namespace, remote: remote.clone() };
                if sources.contains(&source) {
                    continue;
                }
                let taken = taken.entry(&referrer.namespace).or_default();
                if *taken >= MOST_KEY_SETS {
                    left_out += 1;
                    continue;
                }
                *taken += 1;
                sources.insert(source);
            }
        }
        (sources, left_out)
    }

    /// The host name that an object of this kind wants is resolved: that of a Service only where
    /// ExternalName Services may be backends at all.
    pub fn resolves(&self, kind: ObjectKind) -> bool {
        self.resolving && (kind != ObjectKind::Service || self.snapshot.settings.external_names)
    }

    /// How many watches have the object.
    pub fn holders(&self, id: &(ObjectKind, Key)) -> usize {
        self.rows.get(id).map_or(0, |row| row.holders.len())
    }

    /// The objects of this moment; the time is not set.
    pub fn snapshot(&mut self) -> Snapshot {
        if std::mem::take(&mut self.undecodable_changed) {
            self.snapshot.undecodable = Arc::new(self.undecodable.values().cloned().collect());
        }
        self.snapshot.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_one_namespace_leave_room_for_those_of_others() {
        let mut state = State::new(Arc::default());
        state.resolving = true;
        let mut want = |namespace: &str, name: String| {
            let wants = Wants { host: Some(format!("{name}.example")), ..Wants::default() };
            state.wants.insert((ObjectKind::XBackend, Key::new(namespace, name)), wants);
        };
        (0..1000).for_each(|n| want("a", format!("a{n:04}")));
        want("b", "z".to_owned());
        let (hosts, left_out) = state.wanted_hosts();
        assert_eq!((hosts.len(), left_out), (MOST_HOSTS + 1, 1000 - MOST_HOSTS));
        assert!(hosts.contains("z.example"));
    }
}
