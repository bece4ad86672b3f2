//! One list and watch that never ends: it outlives errors, expired versions, missing kinds and
//! its own panics, and never makes the config smaller because of an error.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use kube::api::{Api, ApiResource};
use kube::runtime::watcher::{self, Event, watcher};
use tracing::{debug, error, info, warn};

use super::cluster::{Timing, describe};
use super::object::Raw;
use super::state::{Arrival, Awaited, WatchId};
use super::stats::count;
use super::world::Handle;
use crate::translate::ObjectKind;

/// Objects in one page of a list.
const PAGE: u32 = 500;
/// After so many errors in a row the watch is built anew, with a new list.
const TRIES: u32 = 5;

/// What is watched: a kind, perhaps in one namespace, perhaps only what a selector names.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub id: WatchId,
    pub kind: ObjectKind,
    pub namespace: Option<String>,
    pub fields: Option<String>,
    /// Told when the first list is complete.
    pub awaited: Awaited,
}

/// Why one watcher came to its end.
enum End {
    /// Trying on will not help: list again.
    Rebuild,
    /// The API server does not know the kind.
    Missing,
}

impl Watch {
    /// Runs until it is dropped.
    pub async fn run(self, client: kube::Client, world: Handle, timing: Timing) {
        loop {
            let work = self.follow(&client, &world, &timing);
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                count(&world.stats().panics);
                error!(kind = self.kind.kind(), "the watch panicked and is started again");
                tokio::time::sleep(timing.backoff_max.min(Duration::from_secs(1))).await;
            }
        }
    }

    async fn follow(&self, client: &kube::Client, world: &Handle, timing: &Timing) {
        let mut missing = 0_u32;
        let mut version = 0;
        loop {
            let resource = resource(self.kind, version);
            match self.watch(client, &resource, world, timing, &mut missing).await {
                End::Rebuild => count(&world.stats().watch_restarts),
                End::Missing => {
                    missing += 1;
                    version += 1;
                    // Older Gateway API knows the kind in an older version: try that at once.
                    if version < self.kind.versions().len() {
                        continue;
                    }
                    version = 0;
                    self.note_missing(world, missing);
                    tokio::time::sleep(timing.missing).await;
                }
            }
        }
    }

    /// A kind that is not there counts as listed and empty. A kind that had objects is emptied
    /// only when it is missing for the second time in a row: an API server that starts can be
    /// wrong about it.
    fn note_missing(&self, world: &Handle, missing: u32) {
        let (api, kind, plural) = self.kind.names();
        let held = world.holds_any(self.id);
        if !held || missing as usize > self.kind.versions().len() {
            if held {
                warn!(kind, "the API server has no {plural} of {api} any more: they are dropped");
                world.replace(self.id, Vec::new(), &BTreeSet::new());
            } else if missing as usize <= self.kind.versions().len() {
                let message = "the API server does not have it: not used until it does";
                match is_optional(self.kind) {
                    true => info!(kind, api, "{message}"),
                    false => warn!(kind, api, "{message}; install its CRD"),
                }
            }
            world.has_come(&self.awaited);
        }
    }

    async fn watch(
        &self,
        client: &kube::Client,
        resource: &ApiResource,
        world: &Handle,
        timing: &Timing,
        missing: &mut u32,
    ) -> End {
        let api: Api<Raw> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        };
        let config = watcher::Config {
            field_selector: self.fields.clone(),
            timeout: Some(timing.watch_seconds),
            page_size: Some(PAGE),
            ..watcher::Config::default()
        };
        let mut events = pin!(watcher(api, config));
        let mut list = Vec::new();
        let mut failures = 0;
        while let Some(event) = events.next().await {
            let error = match event {
                Ok(event) => {
                    // `Init` only says that a list is about to begin: that is no success yet.
                    if !matches!(event, Event::Init | Event::InitApply(_)) {
                        failures = 0;
                    }
                    self.deliver(event, world, &mut list, missing);
                    continue;
                }
                Err(error) => error,
            };
            let code = status_code(&error);
            let listing = matches!(error, watcher::Error::InitialListFailed(_));
            if listing && code == Some(404) {
                return End::Missing;
            }
            count(&world.stats().watch_errors);
            failures += 1;
            self.report(&error, failures);
            tokio::time::sleep(pause(timing, failures)).await;
            // Gone as a whole answer: the watcher itself would try the same version for ever.
            let stuck = !listing && matches!(code, Some(404 | 410));
            if stuck || failures >= TRIES {
                return End::Rebuild;
            }
        }
        End::Rebuild
    }

    /// What was there before goes only when the whole list has come.
    fn deliver(
        &self,
        event: Event<Raw>,
        world: &Handle,
        list: &mut Vec<Arrival>,
        missing: &mut u32,
    ) {
        match event {
            Event::Init => list.clear(),
            Event::InitApply(raw) => list.push(Arrival::new(self.kind, raw, None)),
            Event::InitDone => {
                if std::mem::take(missing) > 0 {
                    info!(kind = self.kind.kind(), "the kind is there now");
                }
                debug!(kind = self.kind.kind(), objects = list.len(), "listed");
                world.replace(self.id, std::mem::take(list), &BTreeSet::new());
                world.has_come(&self.awaited);
            }
            Event::Apply(raw) => world.apply(self.id, Arrival::new(self.kind, raw, None)),
            Event::Delete(raw) => world.delete(self.id, self.kind, &raw.key()),
        }
    }

    /// The first error of a row is a warning; what was listed before keeps serving.
    fn report(&self, error: &watcher::Error, failures: u32) {
        let kind = self.kind.kind();
        let namespace = self.namespace.as_deref().unwrap_or("*");
        let cause = match error {
            watcher::Error::InitialListFailed(e)
            | watcher::Error::WatchStartFailed(e)
            | watcher::Error::WatchFailed(e) => describe(e),
            other => other.to_string(),
        };
        if failures == 1 {
            warn!(kind, namespace, "list or watch failed, trying again: {cause}");
        } else {
            debug!(kind, namespace, failures, "list or watch failed again: {cause}");
        }
    }
}

fn status_code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
        // The watcher lists again after a 410 by itself.
        _ => None,
    }
}

/// Doubles with each failure up to the longest pause, half of it by chance, so that replicas
/// do not come back all at once.
fn pause(timing: &Timing, failures: u32) -> Duration {
    let full = timing
        .backoff
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(timing.backoff_max);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Many clusters do without: the experimental channel, and an API that is off by default.
fn is_optional(kind: ObjectKind) -> bool {
    matches!(
        kind,
        ObjectKind::XBackend | ObjectKind::XBackendTrafficPolicy | ObjectKind::ClusterTrustBundle
    )
}

/// How the API server names the kind, in the nth of its versions.
pub(super) fn resource(kind: ObjectKind, nth: usize) -> ApiResource {
    let (api, name, plural) = kind.names();
    let group = api.split_once('/').map_or("", |(group, _)| group);
    let version = kind.versions()[nth];
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.into() } else { format!("{group}/{version}") },
        kind: name.to_owned(),
        plural: plural.to_owned(),
    }
}
