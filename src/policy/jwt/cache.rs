//! Tokens that were verified, until they expire: one table for the whole process, so that what
//! all policies of all tenants can make us hold has one bound. Who fills it with tokens takes
//! speed from others, and nothing else.
//!
//! A token is found by the SHA-256 of all of it and the number of the policy that verified it:
//! a policy never takes the word of another, and with other keys it has another number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Verified;

/// Memory of all entries together, in bytes, as [`weight`] estimates it: about 10,000 tokens
/// of usual size.
const MEMORY: u64 = 24 * 1024 * 1024;
const ENTRIES: usize = 10_000;
/// A token that would take so much is verified each time instead.
const HEAVIEST: u64 = 64 * 1024;

static VERIFIED: LazyLock<Cache<Key, Entry, ByWeight>> =
    LazyLock::new(|| Cache::with_weighter(ENTRIES, MEMORY, ByWeight));
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Whose tokens these are: one policy with one set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    owner: Owner,
    digest: [u8; 32],
}

#[derive(Clone, Debug)]
struct Entry {
    verified: Arc<Verified>,
    weight: u64,
}

#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<Key, Entry> for ByWeight {
    fn weight(&self, _: &Key, entry: &Entry) -> u64 {
        entry.weight
    }
}

impl Owner {
    /// Somebody new.
    pub fn new() -> Self {
        Owner(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub fn key(self, token: &[u8]) -> Key {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token).as_ref());
        Key { owner: self, digest: bytes }
    }
}

pub(super) fn find(key: &Key) -> Option<Arc<Verified>> {
    VERIFIED.get(key).map(|entry| entry.verified)
}

pub(super) fn forget(key: &Key) {
    VERIFIED.remove(key);
}

/// `length` of the token and number of `values` in its claims.
pub(super) fn keep(key: Key, verified: &Arc<Verified>, length: usize, values: usize) {
    let weight = weight(length, values);
    if weight <= HEAVIEST {
        VERIFIED.insert(key, Entry { verified: Arc::clone(verified), weight });
    }
}

/// Bytes that an entry takes: the text of claims, parsed and copied for the backend's fields,
/// and what a value takes besides (its place in a map, its allocation).
fn weight(length: usize, values: usize) -> u64 {
    (512 + 2 * length + 96 * values) as u64
}
