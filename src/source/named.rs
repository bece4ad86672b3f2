//! Secrets that objects refer to by name, whatever their type: each is watched alone, so that
//! no right and no memory is spent on all the other Secrets of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::cluster::{Timing, describe};
use super::object::Raw;
use super::state::{Arrival, Awaited, WatchId};
use super::watch::Watch;
use super::world::Handle;
use crate::translate::{Key, ObjectKind};

/// Watches that run at once, each a connection; Secrets beyond are fetched now and then.
const WATCHES: usize = 64;

/// Follows what objects refer to, until it is dropped.
pub(super) async fn run(
    client: kube::Client,
    world: Handle,
    timing: Timing,
    namespaces: BTreeSet<String>,
) {
    let permits = Arc::new(Semaphore::new(WATCHES));
    let mut running: BTreeMap<Key, (WatchId, AbortOnDropHandle<()>)> = BTreeMap::new();
    let mut wanted = world.subscribe_wanted();
    loop {
        wanted.mark_unchanged();
        let mut names = world.wanted_secrets();
        names.retain(|key| namespaces.is_empty() || namespaces.contains(&key.namespace));
        running.retain(|key, (id, _)| {
            let keep = names.contains(key);
            if !keep {
                world.replace(*id, Vec::new(), &BTreeSet::new());
            }
            keep
        });
        for key in names {
            if running.contains_key(&key) {
                continue;
            }
            let id = world.new_watch();
            let one = One { id, key: key.clone(), client: client.clone(), world: world.clone() };
            let work = one.follow(Arc::clone(&permits), timing);
            running.insert(key, (id, AbortOnDropHandle::new(tokio::spawn(work))));
        }
        // The sender lives as long as the world that we hold.
        let _ = wanted.changed().await;
    }
}

/// One Secret.
struct One {
    id: WatchId,
    key: Key,
    client: kube::Client,
    world: Handle,
}

impl One {
    async fn follow(self, permits: Arc<Semaphore>, timing: Timing) {
        let Ok(_permit) = permits.try_acquire() else {
            return self.poll(timing).await;
        };
        let watch = Watch {
            id: self.id,
            kind: ObjectKind::Secret,
            namespace: Some(self.key.namespace.clone()),
            fields: Some(format!("metadata.name={}", self.key.name)),
            awaited: Awaited::Secret(self.key),
        };
        watch.run(self.client, self.world, timing).await;
    }

    async fn poll(self, timing: Timing) {
        let secrets: Api<Raw> = Api::namespaced_with(
            self.client,
            &self.key.namespace,
            &ApiResource::erase::<Secret>(&()),
        );
        loop {
            match secrets.get_opt(&self.key.name).await {
                Ok(found) => {
                    let list = found.map(|raw| Arrival::new(ObjectKind::Secret, raw, None));
                    self.world.replace(self.id, list.into_iter().collect(), &BTreeSet::new());
                    self.world.has_come(&Awaited::Secret(self.key.clone()));
                }
                // It is kept as it was.
                Err(error) => debug!(secret = %self.key, "cannot be fetched: {}", describe(&error)),
            }
            tokio::time::sleep(timing.poll).await;
        }
    }
}
