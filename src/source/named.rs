//! Secrets and ConfigMaps that objects refer to by name: each is watched alone, so that no right
//! and no memory is spent on all the others of the cluster. A Secret that the list of its kind
//! brings anyway (type TLS) needs no watch of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::api::Api;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::cluster::{Timing, describe};
use super::object::Raw;
use super::state::{Arrival, Awaited, WatchId};
use super::wants::Named;
use super::watch::{Watch, resource};
use super::world::Handle;

/// Watches that run at once, each a connection; objects beyond are fetched now and then.
const WATCHES: usize = 64;

/// Follows what objects refer to, until it is dropped.
pub(super) async fn run(
    client: kube::Client,
    world: Handle,
    timing: Timing,
    namespaces: BTreeSet<String>,
) {
    let permits = Arc::new(Semaphore::new(WATCHES));
    let mut running: BTreeMap<Named, (WatchId, AbortOnDropHandle<()>)> = BTreeMap::new();
    let mut wanted = world.subscribe_wanted();
    let mut before = 0;
    loop {
        wanted.mark_unchanged();
        let (mut names, left_out) = world.wanted_names();
        if left_out > before {
            warn!(left_out, "a namespace refers to more Secrets and ConfigMaps than are watched");
        }
        before = left_out;
        names.retain(|name| {
            let looked_at = namespaces.is_empty() || namespaces.contains(&name.1.namespace);
            if !looked_at {
                world.has_come(&Awaited::Named(name.clone()));
            }
            looked_at
        });
        running.retain(|name, (id, _)| {
            let keep = names.contains(name);
            if !keep {
                world.retire(*id);
            }
            keep
        });
        for name in names {
            if running.contains_key(&name) {
                continue;
            }
            let id = world.new_watch();
            let one = One { id, name: name.clone(), client: client.clone(), world: world.clone() };
            let work = one.follow(Arc::clone(&permits), timing);
            running.insert(name, (id, AbortOnDropHandle::new(tokio::spawn(work))));
        }
        // The sender lives as long as the world that we hold.
        let _ = wanted.changed().await;
    }
}

/// One object.
struct One {
    id: WatchId,
    name: Named,
    client: kube::Client,
    world: Handle,
}

impl One {
    async fn follow(self, permits: Arc<Semaphore>, timing: Timing) {
        let Ok(_permit) = permits.try_acquire() else {
            return self.poll(timing).await;
        };
        let (kind, key) = self.name.clone();
        let watch = Watch {
            id: self.id,
            kind,
            namespace: Some(key.namespace),
            fields: Some(format!("metadata.name={}", key.name)),
            awaited: Awaited::Named(self.name),
        };
        watch.run(self.client, self.world, timing).await;
    }

    async fn poll(self, timing: Timing) {
        let (kind, key) = &self.name;
        let api: Api<Raw> = Api::namespaced_with(self.client, &key.namespace, &resource(*kind, 0));
        loop {
            match api.get_opt(&key.name).await {
                Ok(found) => {
                    let list = found.map(|raw| Arrival::new(*kind, raw, None));
                    self.world.replace(self.id, list.into_iter().collect(), &BTreeSet::new());
                    self.world.has_come(&Awaited::Named(self.name.clone()));
                }
                // It is kept as it was.
                Err(error) => {
                    let kind = kind.kind();
                    debug!(kind, object = %key, "cannot be fetched: {}", describe(&error));
                }
            }
            tokio::time::sleep(timing.poll).await;
        }
    }
}
