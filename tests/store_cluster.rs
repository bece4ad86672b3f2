//! Counting in a Redis Cluster of real nodes.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod ports;
mod redis_server;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis_server::{SOON, Server, answers, ask, check, fails, free_port, on_worker, store, until};
use tidegate::services::store::redis::{RedisConfig, Topology};
use tidegate::services::store::{Algorithm, Check, Store as _, StoreError};

const SLOTS: usize = 16_384;

/// Masters that share the slots evenly; any server after them is a replica of the first.
struct Cluster {
    nodes: Vec<Server>,
    masters: usize,
}

impl Cluster {
    fn start(masters: usize, replicas: usize) -> Self {
        let start = |_| {
            let bus = free_port().to_string();
            let args = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            let more = ["--cluster-node-timeout", "1000"];
            let rest = ["--cluster-require-full-coverage", "no"];
            (Server::start(&[&args[..], &more, &rest].concat()), bus)
        };
        let (nodes, buses): (Vec<_>, Vec<_>) = (0..masters + replicas).map(start).unzip();
        for (n, node) in nodes.iter().take(masters).enumerate() {
            let (first, last) = (n * SLOTS / masters, (n + 1) * SLOTS / masters - 1);
            let () = node.command(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            let meet = format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port);
            let () = nodes[0].command(&meet);
        }
        let cluster = Cluster { nodes, masters };
        cluster.settle();
        cluster
    }

    /// Waits until every node knows all others, and replicas follow the first master.
    fn settle(&self) {
        for node in &self.nodes {
            until("the nodes do not find each other", || {
                let told: String = node.command("CLUSTER INFO");
                let all = format!("cluster_known_nodes:{}\r", self.nodes.len());
                (told.contains("cluster_state:ok") && told.contains(&all)).then_some(())
            });
        }
        let first = self.id(0);
        for node in &self.nodes[self.masters..] {
            let () = node.command(&format!("CLUSTER REPLICATE {first}"));
            until("the replica is never in step", || {
                let told: String = node.command("INFO replication");
                told.contains("master_link_status:up").then_some(())
            });
        }
    }

    fn id(&self, n: usize) -> String {
        self.nodes[n].command("CLUSTER MYID")
    }

    /// Only the last seed is a node.
    fn config(&self) -> RedisConfig {
        let nobody = format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let seeds = vec![nobody, self.nodes[self.masters - 1].address()];
        RedisConfig {
            timeout: Duration::from_millis(500),
            ..RedisConfig::new(Topology::Cluster(seeds))
        }
    }

    /// A tag whose slot each master has.
    fn tags(&self) -> Vec<String> {
        let mut tags = BTreeMap::new();
        for n in 0.. {
            let tag = format!("tenant-{n}");
            let slot: usize = self.nodes[0].command(&format!("CLUSTER KEYSLOT {{{tag}}}"));
            tags.entry(slot * self.masters / SLOTS).or_insert(tag);
            if tags.len() == self.masters {
                break;
            }
        }
        tags.into_values().collect()
    }
}

fn tagged(tag: &str, key: &str, limit: u64) -> Check {
    let check = check(key, Algorithm::FixedWindow, limit);
    Check { tag: tag.into(), window_ms: 3_600_000, ..check }
}

#[test]
fn every_master_counts_and_a_request_may_ask_several() {
    let cluster = Cluster::start(3, 0);
    let tags = cluster.tags();
    on_worker(async {
        let store = store(&cluster.config());
        let all: Vec<_> = tags.iter().map(|tag| tagged(tag, "k", 10)).collect();
        for check in &all {
            answers(&store, check).await;
        }
        for n in 2..=4 {
            let verdicts = store.decide(&all).await.unwrap();
            assert!(verdicts.iter().all(|v| v.admitted && v.remaining == 10 - n), "{verdicts:?}");
        }
    });
    for node in &cluster.nodes {
        let keys: Vec<String> = node.command("KEYS *");
        assert!(keys.iter().any(|key| key.contains("{tenant-")), "{keys:?}");
    }
}

#[test]
fn checks_of_one_tag_are_all_charged_or_none_is() {
    let cluster = Cluster::start(3, 0);
    on_worker(async {
        let store = store(&cluster.config());
        for tag in cluster.tags() {
            let both = [tagged(&tag, "wide", 10), tagged(&tag, "tight", 1)];
            answers(&store, &tagged(&tag, "first", 1)).await;
            for n in 0..3 {
                let verdicts = store.decide(&both).await.unwrap();
                assert_eq!(verdicts[1].admitted, n == 0);
                assert_eq!(verdicts[0].remaining, 9);
            }
        }
    });
}

#[test]
fn a_slot_that_moves_is_found_again_and_loses_no_request() {
    let cluster = Cluster::start(3, 0);
    let tag = cluster.tags().remove(0);
    let slot: usize = cluster.nodes[0].command(&format!("CLUSTER KEYSLOT {{{tag}}}"));
    on_worker(async {
        let store = store(&cluster.config());
        answers(&store, &tagged(&tag, "k", 1000)).await;
        // Under way: keys that are not there yet are asked for at the new node.
        let (from, to) = (cluster.id(0), cluster.id(1));
        let () = cluster.nodes[1].command(&format!("CLUSTER SETSLOT {slot} IMPORTING {from}"));
        let () = cluster.nodes[0].command(&format!("CLUSTER SETSLOT {slot} MIGRATING {to}"));
        let verdict = ask(&store, &tagged(&tag, "new", 5)).await.unwrap();
        assert_eq!(verdict.remaining, 4);
        assert!(ask(&store, &tagged(&tag, "k", 1000)).await.is_ok());
        // Moved: the old node says where to.
        let keys: Vec<String> =
            cluster.nodes[0].command(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
        for key in keys {
            let port = cluster.nodes[1].port;
            let _: redis::Value =
                cluster.nodes[0].command(&format!("MIGRATE 127.0.0.1 {port} {key} 0 1000"));
        }
        for node in [&cluster.nodes[1], &cluster.nodes[0], &cluster.nodes[2]] {
            let () = node.command(&format!("CLUSTER SETSLOT {slot} NODE {to}"));
        }
        for _ in 0..50 {
            assert!(ask(&store, &tagged(&tag, "k", 1000)).await.unwrap().admitted);
        }
        let verdict = ask(&store, &tagged(&tag, "new", 5)).await.unwrap();
        assert_eq!(verdict.remaining, 3, "the count moved along");
    });
}

#[test]
fn a_node_that_hangs_takes_only_its_own_slots_away() {
    let cluster = Cluster::start(3, 0);
    let tags = cluster.tags();
    on_worker(async {
        let config = RedisConfig { timeout: Duration::from_millis(100), ..cluster.config() };
        let store = store(&config);
        let checks: Vec<_> = tags.iter().map(|tag| tagged(tag, "k", 1_000_000)).collect();
        for check in &checks {
            answers(&store, check).await;
        }
        cluster.nodes[0].signal("STOP");
        while fails(&store, &checks[0]).await == StoreError::Timeout {}
        for check in &checks[1..] {
            answers(&store, check).await;
        }
        for _ in 0..100 {
            let begun = Instant::now();
            assert!(ask(&store, &checks[0]).await.is_err());
            assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
            assert!(ask(&store, &checks[1]).await.is_ok());
        }
        cluster.nodes[0].signal("CONT");
        let back = answers(&store, &checks[0]).await;
        // A node that was away lets a while pass itself before it takes writes again.
        assert!(back < Duration::from_secs(5), "{back:?}");
    });
}

#[test]
fn a_replica_takes_over_from_a_master_that_is_gone() {
    let mut cluster = Cluster::start(3, 1);
    let tags = cluster.tags();
    on_worker(async {
        let store = store(&cluster.config());
        let check = tagged(&tags[0], "k", 1000);
        answers(&store, &check).await;
        cluster.nodes[0].kill();
        assert_eq!(fails(&store, &check).await, StoreError::Down);
        let begun = Instant::now();
        let mut promoted = None;
        while ask(&store, &check).await.is_err() {
            let info: String = cluster.nodes[3].command("INFO replication");
            if promoted.is_none() && info.contains("role:master") {
                promoted = Some(Instant::now());
            }
            assert!(begun.elapsed() < 2 * SOON, "no failover");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = promoted.map_or(Duration::ZERO, |at| at.elapsed());
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}
