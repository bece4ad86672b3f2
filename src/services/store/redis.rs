//! A store on Redis, or on what speaks its protocol (Valkey): one server, one that Sentinels know,
//! or a Cluster.
//!
//! ```text
//! Redis (one for each configuration, shared by all workers: config, circuit, TLS)
//!     -> Local (one for each worker: its own connections, on its own runtime)
//!         -> Pool -> Link      one server: connects, proves, reconnects in the background
//!         -> Cluster -> Pool   one for each master
//! script, limit.lua            what is asked; all of a request in one trip
//! ```
//!
//! A request waits for the answer to its question and for nothing else, at most for the
//! configured time. What limits do without an answer is theirs to say.

mod circuit;
mod cluster;
mod config;
mod connect;
mod failure;
mod link;
mod pool;
mod script;
mod sentinel;
mod slots;
mod stats;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::LocalBoxFuture;
use rustc_hash::FxHashMap;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::config::{
    Address, CONNECT_TIMEOUT_MS, ConfigError, Credentials, MAX_CONNECTIONS, RedisConfig,
    TIMEOUT_MS, Tls, Topology,
};
pub use self::stats::{STORE_BOUNDS, StoreTotals, totals};

use self::circuit::Circuit;
use self::cluster::Cluster;
use self::connect::TlsClient;
use self::failure::Failure;
use self::link::Target;
use self::pool::Pool;
use self::script::Question;
use self::stats::STATS;
use super::{Check, Store, StoreError, Verdict};

/// See the module's documentation.
pub struct Redis {
    id: u64,
    shared: Arc<Shared>,
    /// Ends the connections of all workers with the store.
    _closed: DropGuard,
}

/// What the workers' connections have in common.
struct Shared {
    config: RedisConfig,
    tls: Option<TlsClient>,
    circuit: Circuit,
    closed: CancellationToken,
}

/// The connections of one worker.
enum Local {
    One(Pool),
    Cluster(Arc<Cluster>),
}

thread_local! {
    /// This worker's connections, by store. What belongs to stores that are gone leaves when the
    /// next one comes.
    static LOCALS: RefCell<FxHashMap<u64, (CancellationToken, Rc<Local>)>> = RefCell::default();
}

impl Redis {
    /// The store of this configuration: the one that is there, if anybody still has it. Nothing
    /// is connected to before the first question.
    ///
    /// # Errors
    /// The configuration cannot work: which field, why, and what would.
    pub fn shared(config: &RedisConfig) -> Result<Arc<Self>, ConfigError> {
        static STORES: Mutex<Vec<Weak<Redis>>> = Mutex::new(Vec::new());
        let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|store| store.strong_count() > 0);
        let mut there = stores.iter().filter_map(Weak::upgrade);
        if let Some(store) = there.find(|store| store.shared.config == *config) {
            return Ok(store);
        }
        drop(there);
        let store = Arc::new(Redis::new(config.clone())?);
        stores.push(Arc::downgrade(&store));
        Ok(store)
    }

    fn new(config: RedisConfig) -> Result<Self, ConfigError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        config.check()?;
        let tls = config.tls.as_ref().map(TlsClient::new).transpose()?;
        let closed = CancellationToken::new();
        let circuit = Circuit::new();
        Ok(Redis {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            shared: Arc::new(Shared { config, tls, circuit, closed: closed.clone() }),
            _closed: closed.drop_guard(),
        })
    }

    /// This worker's connections, made at its first question.
    fn local(&self) -> Rc<Local> {
        LOCALS.with_borrow_mut(|locals| {
            if let Some((_, local)) = locals.get(&self.id) {
                return Rc::clone(local);
            }
            locals.retain(|_, (closed, _)| !closed.is_cancelled());
            let local = Rc::new(Local::start(&self.shared));
            locals.insert(self.id, (self.shared.closed.clone(), Rc::clone(&local)));
            local
        })
    }

    async fn ask(&self, checks: &[Check]) -> Result<Vec<Verdict>, Failure> {
        let shared = &self.shared;
        let begun = Instant::now();
        let local = self.local();
        let asked = async {
            local.started().await;
            local.ask(shared, checks).await
        };
        let answer = timeout(shared.config.timeout, asked).await.unwrap_or(Err(Failure::Timeout));
        match &answer {
            Ok(_) => shared.circuit.answered(),
            Err(Failure::Timeout) if shared.circuit.missed() => {
                tracing::warn!("the store does not answer in time: it is not asked until it does");
            }
            Err(_) => {}
        }
        match &answer {
            Err(failure @ (Failure::Down | Failure::Open)) => STATS.failed(failure),
            Err(failure) => {
                STATS.failed(failure);
                STATS.took(begun.elapsed());
            }
            Ok(_) => STATS.took(begun.elapsed()),
        }
        answer
    }
}

impl Store for Redis {
    fn decide<'a>(
        &'a self,
        checks: &'a [Check],
    ) -> LocalBoxFuture<'a, Result<Vec<Verdict>, StoreError>> {
        Box::pin(async move {
            if checks.is_empty() {
                return Ok(Vec::new());
            }
            self.ask(checks).await.map_err(|failure| StoreError::from(&failure))
        })
    }
}

impl Local {
    fn start(shared: &Arc<Shared>) -> Self {
        let one = |target| Local::One(Pool::start(shared, &target, "probe"));
        match &shared.config.topology {
            Topology::Single(address) => one(Target::Address(address.clone())),
            Topology::Sentinel { .. } => one(Target::Master),
            Topology::Cluster(_) => Local::Cluster(Cluster::start(shared)),
        }
    }

    async fn started(&self) {
        match self {
            Local::One(pool) => pool.started().await,
            Local::Cluster(cluster) => cluster.started().await,
        }
    }

    async fn ask(&self, shared: &Shared, checks: &[Check]) -> Result<Vec<Verdict>, Failure> {
        match self {
            Local::One(pool) => {
                let question = Question::new(&shared.config.key_prefix, checks.iter());
                shared.read(&pool.ask(&question).await?, checks.iter())
            }
            Local::Cluster(cluster) => cluster.ask(checks).await,
        }
    }
}

impl Shared {
    /// Reads the script's answer.
    fn read<'a>(
        &self,
        answer: &[i64],
        checks: impl ExactSizeIterator<Item = &'a Check>,
    ) -> Result<Vec<Verdict>, Failure> {
        let (verdicts, healed) = script::verdicts(answer, checks).ok_or(Failure::Protocol)?;
        STATS.healed(healed);
        Ok(verdicts)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
