//! Keys that an issuer publishes, as a policy has them: somebody else fetches them, and a
//! policy can only say that they seem to be old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::keys::KeySet;

/// The keys of one source as they are now.
#[derive(Clone, Debug, Default)]
pub struct RemoteKeys {
    /// None: they could never be fetched, or only too long ago.
    pub keys: Option<Arc<KeySet>>,
    pub refetch: Refetch,
}

/// Says that keys should be fetched before their time. Copies are one.
#[derive(Clone, Debug, Default)]
pub struct Refetch(Arc<Wish>);

#[derive(Debug, Default)]
struct Wish {
    wanted: AtomicBool,
    told: Notify,
}

impl Refetch {
    /// Costs next to nothing where it was said already.
    pub fn ask(&self) {
        if !self.0.wanted.load(Ordering::Relaxed) && !self.0.wanted.swap(true, Ordering::AcqRel) {
            self.0.told.notify_one();
        }
    }

    /// Returns when somebody asked since this was called last.
    pub async fn asked(&self) {
        while !self.0.wanted.swap(false, Ordering::AcqRel) {
            self.0.told.notified().await;
        }
    }
}

/// Those that say the same: it is no part of what a policy is.
impl PartialEq for Refetch {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
