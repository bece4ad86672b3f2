//! Objects from a cluster: one list and watch for each kind, in each watched namespace.
//!
//! What one watch survives is told in `watch`; Secrets beyond those of type TLS, and ConfigMaps,
//! are brought by `named`, addresses of external names by `dns`, keys of issuers by `key_sets`,
//! and endpoints go on to the live graph by `endpoints`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::endpoints::Feed;
use super::state::Awaited;
use super::watch::Watch;
use super::world::Handle;
use super::{KeyTimes, Pace, dns, key_sets, named};
use crate::graph::Shared;
use crate::translate::{ObjectKind, Settings};

/// Longest silence of a connection to the API server; more than a quiet watch may take.
const READ_TIMEOUT: Duration = Duration::from_secs(110);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long things take; the defaults are for clusters, tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Pause after the first error of a watch; it doubles up to `backoff_max`, with jitter.
    pub backoff: Duration,
    pub backoff_max: Duration,
    /// How often a kind that is not there is looked for.
    pub missing: Duration,
    /// How often a Secret that cannot be watched is fetched.
    pub poll: Duration,
    /// How long one watch request runs, in seconds: a dead connection is seen 5 s later.
    pub watch_seconds: u32,
    pub keys: KeyTimes,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            backoff: Duration::from_millis(250),
            backoff_max: Duration::from_secs(10),
            missing: Duration::from_secs(10),
            poll: Duration::from_secs(30),
            watch_seconds: 90,
            keys: KeyTimes::default(),
        }
    }
}

/// A client that cannot hang for ever on a dead connection, from the kubeconfig or the pod's
/// service account.
pub async fn connect() -> Result<kube::Client, kube::Error> {
    let mut config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    kube::Client::try_from(config)
}

/// See the module's documentation. Dropping it ends its watches.
pub struct ClusterSource {
    pub(super) world: Handle,
    pub(super) pace: Pace,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl ClusterSource {
    /// Begins to list and watch, on the current tokio runtime.
    pub fn start(client: kube::Client, settings: Arc<Settings>, shared: Arc<Shared>) -> Self {
        Self::start_with(client, settings, shared, Timing::default())
    }

    /// [`ClusterSource::start`] with other times.
    pub fn start_with(
        client: kube::Client,
        settings: Arc<Settings>,
        shared: Arc<Shared>,
        timing: Timing,
    ) -> Self {
        let feed = Feed::new(Arc::clone(&shared), settings.own_service.clone());
        let world = Handle::new(Arc::clone(&settings), Some(feed));
        world.brings(true, true);
        world.brings_keys();
        let mut tasks = Vec::new();
        let mut spawn = |task| tasks.push(AbortOnDropHandle::new(task));
        for watch in watches(&settings, &world) {
            spawn(tokio::spawn(watch.run(client.clone(), world.clone(), timing)));
        }
        let namespaces: BTreeSet<String> = settings.watch_namespaces.iter().cloned().collect();
        spawn(tokio::spawn(named::run(client, world.clone(), timing, namespaces)));
        spawn(tokio::spawn(dns::run(world.clone())));
        spawn(tokio::spawn(key_sets::run(world.clone(), timing.keys)));
        spawn(tokio::spawn(follow_publishes(shared, world.clone())));
        ClusterSource { world, pace: Pace::default(), _tasks: tasks }
    }
}

/// A graph that is published was made from endpoints that may be older than the newest.
async fn follow_publishes(shared: Arc<Shared>, world: Handle) {
    let mut published = shared.subscribe();
    // It ends with the process: `shared` holds the sender.
    while published.changed().await.is_ok() {
        world.refresh_endpoints();
    }
}

/// Every kind once; a kind that has namespaces once in each that is named, if any is.
fn watches(settings: &Settings, world: &Handle) -> Vec<Watch> {
    let mut watches = Vec::new();
    // ConfigMaps only by name: see `named`.
    for &kind in ObjectKind::ALL.iter().filter(|kind| **kind != ObjectKind::ConfigMap) {
        for namespace in scopes(kind, settings) {
            let id = world.new_list();
            // All other Secrets only by name.
            let fields = (kind == ObjectKind::Secret).then(|| "type=kubernetes.io/tls".to_owned());
            watches.push(Watch { id, kind, namespace, fields, awaited: Awaited::Watch(id) });
        }
    }
    watches
}

fn scopes(kind: ObjectKind, settings: &Settings) -> Vec<Option<String>> {
    if settings.watch_namespaces.is_empty() || !is_namespaced(kind) {
        return vec![None];
    }
    let mut namespaces: BTreeSet<&str> =
        settings.watch_namespaces.iter().map(String::as_str).collect();
    // Where the addresses of Ingress and the peers are found.
    if matches!(kind, ObjectKind::Service | ObjectKind::EndpointSlice) {
        namespaces.extend(settings.own_service.as_ref().map(|key| key.namespace.as_str()));
    }
    namespaces.into_iter().map(|namespace| Some(namespace.to_owned())).collect()
}

pub(super) fn is_namespaced(kind: ObjectKind) -> bool {
    !matches!(
        kind,
        ObjectKind::GatewayClass
            | ObjectKind::IngressClass
            | ObjectKind::ClusterTrustBundle
            | ObjectKind::Namespace
    )
}

/// A client's error without the parts that are for programs.
pub(super) fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        kube::Error::Service(cause) => {
            let mut text = cause.to_string();
            let mut source = cause.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
        other => other.to_string(),
    }
}
