//! What a service said, kept for a while.
//!
//! A question is known by 128 bits of two hashes with random seeds, over everything that is sent
//! or over what the user says it is decided by: nobody can make two that are taken for the same.
//! Memory is bounded by weight; what is asked most stays.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Request};
use prost::Message;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Kept;

use super::judge::Question;
use super::original;
use super::spec::CacheSpec;
use super::verdict::Verdict;
use crate::policy::limit_key::LimitKey;
use crate::policy::{Exchange, Invalid, duration};
use crate::services::ext_authz::CheckRequest;

/// How many entries are made room for at first, and most bytes of all of them.
const ENTRIES: usize = 1024;
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Most bytes of one entry.
const MAX_WEIGHT: u64 = OVERHEAD + 8 * 1024;
/// What an entry takes besides its fields, generously: at most 16,384 fit.
const OVERHEAD: u64 = 1024;
const MAX_DURATION: Duration = Duration::from_hours(1);
const REFUSAL: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Cache {
    yes_ms: u64,
    no_ms: u64,
    /// None: everything that is sent.
    key: Option<LimitKey>,
    store: Arc<Store>,
}

/// What outlives a graph.
struct Store {
    seeds: [RandomState; 2],
    kept: Kept<u128, Entry, Weight>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("entries", &self.kept.len()).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Entry {
    verdict: Verdict,
    /// In milliseconds since the Unix epoch.
    until_ms: u64,
    weight: u64,
}

#[derive(Clone)]
struct Weight;

impl Weighter<u128, Entry> for Weight {
    fn weight(&self, _: &u128, entry: &Entry) -> u64 {
        entry.weight
    }
}

impl Cache {
    /// `with_body`: the service gets the body too.
    pub fn compile(spec: &CacheSpec, with_body: bool) -> Result<Self, Invalid> {
        let time = |field: &str, text: &str| {
            duration::parse(text).map_err(|m| Invalid::new(format!("cache.{field}"), m))
        };
        let yes = time("duration", &spec.duration)?;
        if !(Duration::from_secs(1)..=MAX_DURATION).contains(&yes) {
            return Err(Invalid::new("cache.duration", "out of range; use 1s to 1h"));
        }
        let no = match spec.refusal_duration.as_deref() {
            None => REFUSAL.min(yes),
            Some(text) => time("refusalDuration", text)?,
        };
        if no > yes {
            let message = "longer than `duration`; use the same or less";
            return Err(Invalid::new("cache.refusalDuration", message));
        }
        if with_body && !spec.key.is_empty() {
            let message = "the service decides by the body too; remove the key or `forwardBody`";
            return Err(Invalid::new("cache.key", message));
        }
        let key = match &spec.key[..] {
            [] => None,
            parts => Some(LimitKey::compile("cache.key", parts)?),
        };
        if key.as_ref().is_some_and(LimitKey::is_all) {
            let message = "`All` would be one verdict for everybody; name what is decided by";
            return Err(Invalid::new("cache.key", message));
        }
        Ok(Cache {
            yes_ms: millis(yes),
            no_ms: millis(no),
            key,
            store: Arc::new(Store {
                seeds: [RandomState::new(), RandomState::new()],
                kept: Kept::with_weighter(ENTRIES, MAX_BYTES, Weight),
            }),
        })
    }

    pub fn adopt(&mut self, old: &Self) {
        self.store = Arc::clone(&old.store);
    }

    /// Whether it takes somebody who was recognised to tell requests apart.
    pub fn needs_identity(&self) -> bool {
        self.key.as_ref().is_some_and(LimitKey::needs_identity)
    }

    /// What `question`, which is made of `ex`, is known by.
    pub fn key(&self, ex: &Exchange<'_>, question: &Question) -> u128 {
        let [high, low] = self.store.seeds.each_ref().map(|seed| {
            if let Some(key) = &self.key {
                return u128::from(key.local(ex, seed));
            }
            let mut hasher = seed.build_hasher();
            match question {
                Question::Http(request) => hash_request(request, &mut hasher),
                Question::Grpc(check) => hash_check(check, &mut hasher),
            }
            u128::from(hasher.finish())
        });
        high << 64 | low
    }

    /// What was said, if it still holds at `now_ms` of the Unix epoch.
    pub fn get(&self, key: u128, now_ms: u64) -> Option<Verdict> {
        let entry = self.store.kept.get(&key)?;
        (now_ms < entry.until_ms).then_some(entry.verdict)
    }

    /// Keeps a verdict, for `keep_ms` at most.
    pub fn put(&self, key: u128, verdict: &Verdict, keep_ms: u64, now_ms: u64) {
        let (most, weight) = match verdict {
            Verdict::Allowed(changes) => {
                let edits = changes.request.iter().chain(&changes.answer);
                let fields = edits.map(|edit| size(&edit.name, edit.value.len()));
                let removed = changes.removed.iter().map(|name| size(name, 0));
                let set = changes.query_set.iter().map(|(name, value)| name.len() + value.len());
                let gone = changes.query_removed.iter().map(String::len);
                (self.yes_ms, fields.chain(removed).chain(set).chain(gone).sum::<usize>())
            }
            Verdict::Denied(refusal) => {
                let fields = refusal.headers.iter().map(|(name, value)| size(name, value.len()));
                (self.no_ms, fields.sum::<usize>() + refusal.body.len())
            }
        };
        let weight = weight as u64 + OVERHEAD;
        let keep_ms = keep_ms.min(most);
        if keep_ms == 0 || weight > MAX_WEIGHT {
            return;
        }
        let until_ms = now_ms.saturating_add(keep_ms);
        self.store.kept.insert(key, Entry { verdict: verdict.clone(), until_ms, weight });
    }
}

fn size(name: &HeaderName, value: usize) -> usize {
    name.as_str().len() + value + size_of::<crate::policy::exchange::HeaderEdit>()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn hash_request(request: &Request<bytes::Bytes>, hasher: &mut impl Hasher) {
    request.method().as_str().hash(hasher);
    request.uri().path().hash(hasher);
    request.uri().query().hash(hasher);
    let fields = request.headers().iter().filter(|(name, _)| !original::is_trace(name.as_str()));
    for (name, value) in fields {
        name.as_str().hash(hasher);
        value.as_bytes().hash(hasher);
    }
    // No name of a field is empty.
    "".hash(hasher);
    request.body().hash(hasher);
}

/// The same without what differs from one request to the next.
fn hash_check(check: &CheckRequest, hasher: &mut impl Hasher) {
    let mut check = check.clone();
    if let Some(attributes) = &mut check.attributes {
        let source = attributes.source.as_mut().and_then(|peer| peer.address.as_mut());
        if let Some(address) = source.and_then(|address| address.socket_address.as_mut()) {
            address.port_value = 0;
        }
        if let Some(request) = &mut attributes.request {
            request.time = None;
            if let Some(http) = &mut request.http {
                http.id.clear();
                http.headers.retain(|name, _| !original::is_trace(name));
            }
        }
    }
    check.encode_to_vec().hash(hasher);
}
