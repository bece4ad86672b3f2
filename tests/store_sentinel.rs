//! Counting in the Redis server that Sentinels name, before and after a failover.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod ports;
mod redis_server;

use std::time::{Duration, Instant};

use redis_server::{
    SOON, Server, answers, ask, check, command, fails, on_worker, sentinel, store, until,
};
use tidegate::services::store::redis::{RedisConfig, Topology};
use tidegate::services::store::{Algorithm, StoreError};

const NAME: &str = "limits";

/// A master with a replica that is in step with it, and three Sentinels that know both.
struct Group {
    master: Server,
    replica: Server,
    sentinels: Vec<Server>,
}

impl Group {
    fn start() -> Self {
        let master = Server::start(&[]);
        let replica = Server::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
        until("the replica is never in step", || {
            let told: String = replica.command("INFO replication");
            told.contains("master_link_status:up").then_some(())
        });
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(NAME, &master, 2)).collect();
        for sentinel in &sentinels {
            until("the sentinels do not find each other and the replica", || {
                let told: String = sentinel.command("INFO sentinel");
                told.contains("slaves=1,sentinels=3").then_some(())
            });
        }
        Group { master, replica, sentinels }
    }

    fn config(&self) -> RedisConfig {
        let sentinels = self.sentinels.iter().map(Server::address).collect();
        RedisConfig {
            timeout: Duration::from_millis(500),
            ..RedisConfig::new(Topology::Sentinel { master: NAME.into(), sentinels })
        }
    }

    /// The port that the first Sentinel names.
    fn named(&self) -> u16 {
        let words = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}");
        self.sentinels[0].command::<(String, u16)>(&words).1
    }
}

/// How long it takes to count again once the Sentinels name a new master that takes writes.
async fn moves(group: &Group, config: &RedisConfig) -> Duration {
    let store = store(config);
    let check = check("k", Algorithm::FixedWindow, 1000);
    let begun = Instant::now();
    let mut named = None;
    loop {
        if named.is_none() && group.named() == group.replica.port {
            let role: redis::Value = group.replica.command("ROLE");
            named = format!("{role:?}").contains("master").then(Instant::now);
        }
        let answer = ask(&store, &check).await;
        if let (Ok(_), Some(named)) = (answer, named) {
            return named.elapsed();
        }
        assert!(begun.elapsed() < 2 * SOON, "no failover: {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn the_replica_that_is_promoted_counts_within_a_second() {
    let mut group = Group::start();
    let config = group.config();
    on_worker(async {
        let store = store(&config);
        let check = check("k", Algorithm::FixedWindow, 1000);
        answers(&store, &check).await;
        group.master.kill();
        assert_eq!(fails(&store, &check).await, StoreError::Down);
        let took = moves(&group, &config).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
    let written: Vec<String> = group.replica.command("KEYS *");
    assert!(written.len() >= 2, "{written:?}");
}

#[test]
fn a_master_that_hands_over_is_left_at_once() {
    let group = Group::start();
    let config = group.config();
    on_worker(async {
        let store = store(&config);
        answers(&store, &check("k", Algorithm::FixedWindow, 1000)).await;
        let () = command(&mut group.sentinels[0].client(), &format!("SENTINEL FAILOVER {NAME}"));
        let took = moves(&group, &config).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn a_sentinel_that_is_away_does_not_matter_and_a_name_that_nobody_knows_does() {
    let mut group = Group::start();
    group.sentinels[0].kill();
    group.sentinels[1].signal("STOP");
    let config = group.config();
    on_worker(async {
        let known = store(&config);
        answers(&known, &check("k", Algorithm::FixedWindow, 1000)).await;
        let Topology::Sentinel { sentinels, .. } = config.topology.clone() else { unreachable!() };
        let sentinels = sentinels[2..].to_vec();
        let topology = Topology::Sentinel { master: "other".into(), sentinels };
        let unknown = store(&RedisConfig { topology, ..config.clone() });
        let failed = ask(&unknown, &check("k", Algorithm::FixedWindow, 1000)).await;
        assert_eq!(failed, Err(StoreError::Down));
    });
}
