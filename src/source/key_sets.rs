//! The keys that issuers publish, fetched again and again. Never on the request path.
//!
//! Each source has a task of its own. It fetches when the time has come, and before that when a
//! policy has met a token with a key that it does not know, but no more than every 30 seconds,
//! whatever tokens come. Keys that cannot be fetched again stay as they are for 24 hours. What is
//! fetched is not trusted: see [`fetch`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hickory_resolver::TokioResolver;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::dns;
use super::state::Awaited;
use super::stats::count;
use super::world::Handle;
use crate::graph::{Alpn, BackendTls, Roots, TlsSpec};
use crate::policy::jwt::{KeySet, LONGEST_KEY_SET, Publicity, Refetch, read_key_set};
use crate::services::fetch::{self, Document, is_never_meant, is_public};
use crate::translate::{KeyPlace, KeyServer, KeySetState, KeySource, KeyTls, key_place};

/// Fetches at the same time.
const AT_ONCE: usize = 32;
/// Refreshes are sooner by up to this part of their time, so that pods do not come all at once.
const JITTER: f64 = 0.1;

/// How long things take; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct KeyTimes {
    /// Between two fetches of a source, where tokens name keys that are not known; also the
    /// longest pause after failures.
    pub refetch: Duration,
    /// The pause after the first failure; it doubles.
    pub retry: Duration,
    /// One fetch, from the host's name to the last byte.
    pub patience: Duration,
    /// Since the last good fetch, until its keys are used no more.
    pub stale: Duration,
}

impl Default for KeyTimes {
    fn default() -> Self {
        KeyTimes {
            refetch: Duration::from_secs(30),
            retry: Duration::from_secs(1),
            patience: Duration::from_secs(5),
            stale: Duration::from_hours(24),
        }
    }
}

/// Keeps the key sets that are wanted, until it is dropped.
pub(super) async fn run(world: Handle, times: KeyTimes) {
    let shared = Arc::new(Common {
        resolver: dns::resolver(),
        permits: Semaphore::new(AT_ONCE),
        world: world.clone(),
        times,
    });
    let mut running: BTreeMap<KeySource, AbortOnDropHandle<()>> = BTreeMap::new();
    let mut wanted = world.subscribe_wanted();
    let mut before = 0;
    loop {
        wanted.mark_unchanged();
        let (sources, left_out) = world.wanted_keys();
        if left_out > before {
            warn!(left_out, "a namespace refers to more key sets than are fetched");
        }
        before = left_out;
        running.retain(|source, _| sources.contains(source));
        world.edit(|snapshot| {
            let kept = snapshot.key_sets.len();
            if snapshot.key_sets.keys().any(|source| !sources.contains(source)) {
                Arc::make_mut(&mut snapshot.key_sets).retain(|source, _| sources.contains(source));
            }
            kept != snapshot.key_sets.len()
        });
        for source in sources {
            running.entry(source).or_insert_with_key(|source| {
                let one = One::new(source.clone(), Arc::clone(&shared));
                AbortOnDropHandle::new(tokio::spawn(one.follow()))
            });
        }
        // The sender lives as long as the world that we hold.
        let _ = wanted.changed().await;
    }
}

/// What all sources share.
struct Common {
    resolver: Option<TokioResolver>,
    permits: Semaphore,
    world: Handle,
    times: KeyTimes,
}

/// One source.
struct One {
    source: KeySource,
    common: Arc<Common>,
    refetch: Refetch,
    good: Option<(Arc<KeySet>, Instant)>,
    failures: u32,
}

impl One {
    fn new(source: KeySource, common: Arc<Common>) -> Self {
        let refetch = Refetch::default();
        let state = KeySetState { refetch: refetch.clone(), ..KeySetState::default() };
        // No pass for that: there is nothing yet that a policy could use.
        common.world.edit(|snapshot| {
            Arc::make_mut(&mut snapshot.key_sets).insert(source.clone(), state);
            false
        });
        One { source, common, refetch, good: None, failures: 0 }
    }

    async fn follow(mut self) {
        loop {
            let began = Instant::now();
            let stats = self.common.world.stats();
            count(&stats.key_fetches);
            let fetched = AssertUnwindSafe(self.fetch()).catch_unwind().await;
            let fetched = fetched.unwrap_or_else(|_| {
                count(&stats.panics);
                Err("there was a mistake of Tidegate's".into())
            });
            let pause = match fetched {
                Ok((keys, refresh)) => self.succeeded(keys, refresh),
                Err(error) => self.failed(error),
            };
            self.common.world.has_come(&Awaited::Keys(self.source.clone()));
            let refetch = async {
                self.refetch.asked().await;
                sleep_until(began + self.common.times.refetch).await;
            };
            tokio::select! {
                () = sleep_until(began + pause) => {}
                () = refetch => debug!(source = %self.source, "a token names an unknown key"),
            }
        }
    }

    /// The keys, and for how long they need not be fetched again.
    async fn fetch(&self) -> Result<(KeySet, Duration), String> {
        // It is never closed.
        let _permit = self.common.permits.acquire().await;
        let place = key_place(&self.common.world.view(), &self.source);
        let place = place.map_err(|invalid| invalid.to_string())?;
        let patience = self.common.times.patience;
        let document = timeout(patience, self.get(&place)).await;
        let document = document.map_err(|_| format!("there was no answer in {patience:?}"))??;
        let keys = read_key_set(&document, Publicity::Public);
        Ok((keys.map_err(|error| format!("the answer {error}"))?, place.refresh))
    }

    async fn get(&self, place: &KeyPlace) -> Result<bytes::Bytes, String> {
        let addresses = match &place.to {
            KeyServer::Endpoints(endpoints) if endpoints.is_empty() => {
                return Err("the Service has no ready endpoint".into());
            }
            KeyServer::Endpoints(endpoints) => endpoints.clone(),
            KeyServer::Named(host, port) => self.addresses(host, *port).await?,
        };
        let document = Document {
            addresses: &addresses,
            tls: place.tls.as_ref().map(tls).transpose()?.map(|tls| (tls.config, tls.server_name)),
            authority: &place.authority,
            path: &place.path,
            most: LONGEST_KEY_SET,
        };
        fetch::get(&document).await.map_err(|error| error.to_string())
    }

    /// Those of a host that a tenant may let us ask. What is connected to are these addresses:
    /// a name that leads elsewhere the next time leads nowhere.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let found = dns::lookup(self.common.resolver.as_ref(), host).await;
        let found = found.ok_or_else(|| format!("the name {host} cannot be resolved"))?;
        let private = self.common.world.settings().private_issuers;
        let allowed = |ip: &IpAddr| match private {
            true => !is_never_meant(*ip),
            false => is_public(*ip),
        };
        let allowed: Vec<SocketAddr> =
            found.into_iter().filter(allowed).map(|ip| SocketAddr::new(ip, port)).collect();
        match (allowed.is_empty(), private) {
            (false, _) => Ok(allowed),
            (true, true) => Err(format!("{host} has no address that may be asked")),
            (true, false) => Err(format!(
                "{host} has no public address; refer to a Service by backendRef, or let Tidegate \
                 run with --private-issuers"
            )),
        }
    }

    fn succeeded(&mut self, keys: KeySet, refresh: Duration) -> Duration {
        // The same keys are the same value: nothing changes for policies.
        let keys = match self.good.take() {
            Some((known, _)) if *known == keys => known,
            _ => {
                info!(source = %self.source, keys = keys.len(), "keys fetched");
                Arc::new(keys)
            }
        };
        self.good = Some((Arc::clone(&keys), Instant::now()));
        self.failures = 0;
        self.publish(Some(keys), None);
        refresh.mul_f64(1.0 - JITTER * fastrand::f64())
    }

    fn failed(&mut self, error: String) -> Duration {
        count(&self.common.world.stats().key_errors);
        let KeyTimes { refetch, retry, stale, .. } = self.common.times;
        if self.failures == 0 {
            warn!(source = %self.source, "keys cannot be fetched: {error}");
        }
        self.failures = self.failures.saturating_add(1);
        let keys = self.good.as_ref().filter(|(_, since)| since.elapsed() < stale);
        self.publish(keys.map(|(keys, _)| Arc::clone(keys)), Some(error));
        let doubled = retry.saturating_mul(1 << (self.failures - 1).min(16));
        doubled.min(refetch)
    }

    fn publish(&self, keys: Option<Arc<KeySet>>, error: Option<String>) {
        let state = KeySetState { keys, error, refetch: self.refetch.clone() };
        self.common.world.edit(|snapshot| {
            // It may not be wanted any more.
            let known = snapshot.key_sets.get(&self.source);
            if known.is_none_or(|known| *known == state || known.refetch != state.refetch) {
                return false;
            }
            Arc::make_mut(&mut snapshot.key_sets).insert(self.source.clone(), state);
            true
        });
    }
}

fn tls(tls: &KeyTls) -> Result<BackendTls, String> {
    let roots = match &tls.authorities {
        Some(pem) => Roots::pem(pem).map_err(|error| format!("caCertificateRef: {error}"))?,
        None => Roots::System,
    };
    BackendTls::of(&TlsSpec { alpn: Alpn::Http1, ..TlsSpec::new(tls.name.as_str(), roots) })
}
