//! A Redis Cluster: which node has which slot, and questions that go to several nodes.
//!
//! The keys of one tag lie in one slot. Checks of one slot are decided at once, by one script on
//! one node; checks of several slots are asked at the same time, and each slot decides for itself:
//! if one refuses, the others may have been charged.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::{join_all, select_ok};
use redis::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, sleep, timeout};

use super::Shared;
use super::config::{Address, Topology};
use super::connect::{connect, login};
use super::failure::Failure;
use super::link::Target;
use super::pool::Pool;
use super::script::Question;
use super::slots::{Range, SLOTS, ranges, slot_of, tag_of};
use crate::services::store::{Check, Verdict};

/// Between two looks at the map: while something is wrong with it, and while nothing is.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(30);
/// For the answer of a node that is connected already.
const LOOK: Duration = Duration::from_millis(200);

pub struct Cluster {
    shared: Arc<Shared>,
    map: ArcSwap<Map>,
    /// The map seems to be wrong.
    look: Notify,
    has_looked: watch::Sender<bool>,
}

/// Who has which slot.
#[derive(Default)]
struct Map {
    ranges: Vec<Range>,
    nodes: Vec<(Address, Arc<Pool>)>,
}

impl Map {
    fn owner(&self, slot: u16) -> Option<&Pool> {
        let at = self.ranges.partition_point(|range| range.last < slot);
        let range = self.ranges.get(at).filter(|range| range.first <= slot)?;
        self.node(&range.master)
    }

    fn node(&self, address: &Address) -> Option<&Pool> {
        self.nodes.iter().find(|(own, _)| own == address).map(|(_, pool)| &**pool)
    }

    fn is_whole(&self) -> bool {
        let covered = self.ranges.iter().map(|r| usize::from(r.last - r.first) + 1).sum::<usize>();
        covered == usize::from(SLOTS)
    }
}

impl Cluster {
    /// Looks for the nodes from now on, on the current runtime.
    pub fn start(shared: &Arc<Shared>) -> Arc<Self> {
        let cluster = Arc::new(Cluster {
            shared: Arc::clone(shared),
            map: ArcSwap::default(),
            look: Notify::new(),
            has_looked: watch::Sender::new(false),
        });
        let keeper = Arc::clone(&cluster);
        tokio::spawn(async move {
            keeper.shared.closed.run_until_cancelled(keeper.keep()).await;
            keeper.map.store(Arc::default());
        });
        cluster
    }

    /// Returns once it was tried to find the nodes and to connect to them.
    pub async fn started(&self) {
        // The sender lives as long as this.
        let _ = self.has_looked.subscribe().wait_for(|looked| *looked).await;
        let map = self.map.load_full();
        join_all(map.nodes.iter().map(|(_, pool)| pool.started())).await;
    }

    /// Asks each slot's node, all at the same time.
    pub async fn ask(&self, checks: &[Check]) -> Result<Vec<Verdict>, Failure> {
        let map = &*self.map.load_full();
        let prefix = &self.shared.config.key_prefix;
        let mut slots: Vec<(u16, usize)> =
            checks.iter().enumerate().map(|(n, check)| (slot_of(tag_of(check)), n)).collect();
        slots.sort_unstable();
        let groups = slots.chunk_by(|a, b| a.0 == b.0).map(|group| async move {
            let part = || group.iter().map(|(_, n)| &checks[*n]);
            let answer = self.ask_slot(map, group[0].0, &Question::new(prefix, part())).await?;
            Ok((group, self.shared.read(&answer, part())?))
        });
        let mut verdicts = vec![None; checks.len()];
        for answer in join_all(groups).await {
            let (group, part) = answer?;
            for ((_, n), verdict) in group.iter().zip(part) {
                verdicts[*n] = Some(verdict);
            }
        }
        verdicts.into_iter().collect::<Option<_>>().ok_or(Failure::Protocol)
    }

    async fn ask_slot(
        &self,
        map: &Map,
        slot: u16,
        question: &Question,
    ) -> Result<Vec<i64>, Failure> {
        let answer = match map.owner(slot) {
            Some(pool) => pool.ask(question).await,
            None => Err(Failure::ClusterDown),
        };
        let Err(failure) = answer else { return answer };
        if !matches!(failure, Failure::Ask(_)) {
            self.look.notify_one();
        }
        let other = failure.redirect().and_then(|address| map.node(address));
        match (other, &failure) {
            (Some(node), Failure::Moved(_)) => node.link().ask(question).await,
            (Some(node), Failure::Ask(_)) => node.link().ask_ahead(question).await,
            _ => Err(failure),
        }
    }

    async fn keep(&self) {
        let mut told = false;
        loop {
            match self.find().await {
                Ok(ranges) => {
                    self.adopt(ranges);
                    told = false;
                }
                Err(failure) if !told => {
                    tracing::warn!(cause = failure.as_str(), "no node of the cluster answers");
                    told = true;
                }
                Err(_) => {}
            }
            self.has_looked.send_replace(true);
            let pause = if self.map.load().is_whole() { LATER } else { SOON };
            tokio::select! {
                () = self.look.notified() => sleep(SOON).await,
                () = sleep(pause) => {}
            }
        }
    }

    /// Asks for the map: a node that is connected, or else everyone that was ever named.
    async fn find(&self) -> Result<Vec<Range>, Failure> {
        let map = self.map.load_full();
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("SLOTS");
        for (address, pool) in &map.nodes {
            let asked = timeout(LOOK, pool.link().command::<Value>(&cmd)).await;
            if let Ok(Ok(slots)) = asked
                && let Some(ranges) = ranges(slots, address)
            {
                return Ok(ranges);
            }
        }
        let Topology::Cluster(seeds) = &self.shared.config.topology else {
            return Err(Failure::Down);
        };
        let known = map.nodes.iter().map(|(address, _)| address);
        let asked = seeds.iter().chain(known).map(|address| Box::pin(self.ask_node(address, &cmd)));
        let most = self.shared.config.connect_timeout;
        let answer = timeout(most, select_ok(asked)).await.map_err(|_| Failure::Timeout)?;
        answer.map(|(ranges, _)| ranges)
    }

    async fn ask_node(&self, address: &Address, cmd: &redis::Cmd) -> Result<Vec<Range>, Failure> {
        let login = login(&self.shared.config.credentials, 0);
        let (mut connection, driver) = connect(address, self.shared.tls.as_ref(), &login).await?;
        let slots: Value = tokio::select! {
            () = driver => return Err(Failure::Broken),
            slots = cmd.query_async(&mut connection) => slots.map_err(|e| Failure::of(&e))?,
        };
        ranges(slots, address).filter(|ranges| !ranges.is_empty()).ok_or(Failure::ClusterDown)
    }

    /// Takes the new map over; connections to nodes that stay are kept.
    fn adopt(&self, ranges: Vec<Range>) {
        let old = self.map.load_full();
        if old.ranges == ranges {
            return;
        }
        let mut nodes: Vec<(Address, Arc<Pool>)> = Vec::new();
        for range in &ranges {
            if nodes.iter().any(|(address, _)| *address == range.master) {
                continue;
            }
            let kept = old.nodes.iter().find(|(address, _)| *address == range.master);
            let pool = kept.map(|(_, pool)| Arc::clone(pool)).unwrap_or_else(|| {
                let target = Target::Address(range.master.clone());
                Arc::new(Pool::start(&self.shared, &target, &range.tag()))
            });
            nodes.push((range.master.clone(), pool));
        }
        tracing::info!(masters = nodes.len(), "the cluster's slots are known");
        self.map.store(Arc::new(Map { ranges, nodes }));
    }
}
