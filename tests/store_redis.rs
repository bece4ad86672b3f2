//! Counting in a real Redis server: what it counts, how it is reached, and what happens while it
//! cannot be.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod ports;
mod redis_server;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis_server::{Server, answers, ask, check, command, fails, file, on_worker, store};
use tidegate::services::store::redis::{Credentials, RedisConfig, Tls, totals};
use tidegate::services::store::{Algorithm, Check, Store as _, StoreError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ALL: [Algorithm; 5] = [
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket,
    Algorithm::FixedWindow,
    Algorithm::SlidingWindow,
    Algorithm::SlidingLog,
];

/// What a request may take at most when the store hangs, on a machine that does other things too.
const HANGING: Duration = Duration::from_millis(60);

fn bucket(key: &str) -> Check {
    check(key, Algorithm::TokenBucket, 1_000_000)
}

/// An hour is long enough that no test runs over the end of a window, almost ever.
fn hourly(key: &str, algorithm: Algorithm, limit: u64) -> Check {
    Check { window_ms: 3_600_000, ..check(key, algorithm, limit) }
}

#[test]
fn every_algorithm_lets_its_limit_through_and_no_more() {
    let server = Server::start(&[]);
    on_worker(async {
        let store = store(&server.config());
        for algorithm in ALL {
            let check = hourly(&format!("{algorithm:?}"), algorithm, 3);
            let mut left = Vec::new();
            for _ in 0..5 {
                let verdict = ask(&store, &check).await.unwrap();
                assert_eq!(verdict.admitted, verdict.retry_after_ms == 0);
                assert!(verdict.reset_ms <= 2 * 3_600_000, "{verdict:?}");
                left.push((verdict.admitted, verdict.remaining));
            }
            let told = [(true, 2), (true, 1), (true, 0), (false, 0), (false, 0)];
            assert_eq!(left, told, "{algorithm:?}");
        }
    });
}

#[test]
fn every_key_has_the_prefix_and_goes_away_by_itself() {
    let server = Server::start(&[]);
    let config = RedisConfig { key_prefix: "mine:".into(), ..server.config() };
    on_worker(async {
        let store = store(&config);
        for algorithm in ALL {
            ask(&store, &check("secret", algorithm, 5)).await.unwrap();
        }
    });
    let keys: Vec<String> = server.command("KEYS *");
    // Both buckets count in one, and one more key proves that the server can count.
    assert_eq!(keys.len(), 5, "{keys:?}");
    for key in keys {
        assert!(key.starts_with("mine:{") && !key.contains("secret"), "{key}");
        let ttl: i64 = server.command(&format!("PTTL {key}"));
        assert!((1..=121_000).contains(&ttl), "{key}: {ttl}");
    }
}

#[test]
fn a_request_is_charged_for_all_its_checks_or_for_none() {
    let server = Server::start(&[]);
    on_worker(async {
        let store = store(&server.config());
        for algorithm in ALL {
            let tight = hourly(&format!("tight {algorithm:?}"), algorithm, 1);
            let wide = hourly(&format!("wide {algorithm:?}"), algorithm, 10);
            let both = [wide.clone(), tight];
            let first = store.decide(&both).await.unwrap();
            assert!(first[0].admitted && first[1].admitted);
            let second = store.decide(&both).await.unwrap();
            assert!(second[0].admitted && !second[1].admitted);
            let looks = ask(&store, &Check { cost: 0, ..wide }).await.unwrap();
            assert_eq!(looks.remaining, 9, "{algorithm:?}: only the first was charged");
        }
    });
}

#[test]
fn the_same_configuration_is_the_same_store() {
    let config = RedisConfig::single("127.0.0.1:1".parse().unwrap());
    let one = store(&config);
    assert!(Arc::ptr_eq(&one, &store(&config)));
    let other = RedisConfig { database: 1, ..config };
    assert!(!Arc::ptr_eq(&one, &store(&other)));
}

#[test]
fn a_password_or_a_user_opens_the_server_and_a_wrong_one_does_not() {
    let server = Server::start(&["--requirepass", "right"]);
    let mut admin = server.client_of(":right@");
    let () = command(&mut admin, "ACL SETUSER app on >mine ~tidegate:* +@all");
    let with = |username: Option<&str>, password: Option<&str>| {
        let credentials = Credentials {
            username: username.map(str::to_owned),
            password: password.map(str::to_owned),
        };
        RedisConfig { credentials, ..server.config() }
    };
    on_worker(async {
        for (user, password) in [(None, "right"), (Some("app"), "mine"), (Some("default"), "right")]
        {
            let store = store(&with(user, Some(password)));
            assert!(ask(&store, &bucket("k")).await.is_ok(), "{user:?}");
        }
        for (user, password) in [(None, None), (None, Some("wrong")), (Some("app"), Some("right"))]
        {
            let store = store(&with(user, password));
            assert_eq!(ask(&store, &bucket("k")).await, Err(StoreError::Down), "{user:?}");
        }
    });
}

#[test]
fn each_database_counts_for_itself() {
    let server = Server::start(&[]);
    on_worker(async {
        for database in [0, 3] {
            let store = store(&RedisConfig { database, ..server.config() });
            let verdict = ask(&store, &hourly("k", Algorithm::FixedWindow, 1)).await.unwrap();
            assert!(verdict.admitted);
        }
    });
    assert!(server.command::<String>("INFO keyspace").contains("db3:"));
}

#[test]
fn tls_is_spoken_to_a_server_whose_authority_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let signed = |name: &str| {
        rcgen::generate_simple_self_signed(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap()
    };
    let (own, other) = (signed("redis.example"), signed("redis.example"));
    let certificate = file(&dir, "cert.pem", &own.cert.pem());
    let key = file(&dir, "key.pem", &own.signing_key.serialize_pem());
    let server = Server::start_tls(&certificate, &key);
    let with = |ca: &str, name: Option<&str>| {
        let tls = Tls { ca: Some(ca.into()), server_name: name.map(str::to_owned) };
        RedisConfig { tls: Some(tls), ..server.config() }
    };
    on_worker(async {
        for name in [None, Some("redis.example")] {
            let store = store(&with(&own.cert.pem(), name));
            assert!(ask(&store, &bucket("k")).await.is_ok(), "{name:?}");
        }
        for config in [
            with(&other.cert.pem(), None),
            with(&own.cert.pem(), Some("other.example")),
            server.config(),
        ] {
            let config = RedisConfig { connect_timeout: Duration::from_millis(300), ..config };
            let failed = ask(&store(&config), &bucket("k")).await;
            assert_eq!(failed, Err(StoreError::Down), "{config:?}");
        }
    });
}

#[test]
fn a_script_that_was_flushed_is_sent_again_with_the_question() {
    let server = Server::start(&[]);
    on_worker(async {
        let store = store(&server.config());
        for n in 1..=3 {
            let verdict = ask(&store, &hourly("k", Algorithm::FixedWindow, 9)).await.unwrap();
            assert_eq!(verdict.remaining, 9 - n);
            let () = server.command("SCRIPT FLUSH");
        }
    });
}

#[test]
fn counters_that_were_flushed_begin_again() {
    let server = Server::start(&[]);
    on_worker(async {
        let store = store(&server.config());
        for algorithm in ALL {
            let check = hourly("k", algorithm, 1);
            assert!(ask(&store, &check).await.unwrap().admitted);
            assert!(!ask(&store, &check).await.unwrap().admitted);
            let () = server.command("FLUSHALL");
            assert!(ask(&store, &check).await.unwrap().admitted);
            let () = server.command("FLUSHALL");
        }
    });
}

#[test]
fn a_key_of_another_kind_is_deleted_and_counted_from_the_start() {
    let server = Server::start(&[]);
    let before = totals().healed;
    on_worker(async {
        let store = store(&server.config());
        for algorithm in ALL {
            let check = hourly("k", algorithm, 2);
            let () = server.command("FLUSHALL");
            ask(&store, &check).await.unwrap();
            let keys: Vec<String> = server.command("KEYS *");
            for key in keys {
                let () = server.command(&format!("DEL {key}"));
                let () = server.command(&format!("HSET {key} a b"));
            }
            let verdict = ask(&store, &check).await.unwrap();
            assert_eq!((verdict.admitted, verdict.remaining), (true, 1), "{algorithm:?}");
            // What is text, but not ours, counts nothing.
            let () = server.command("FLUSHALL");
            ask(&store, &check).await.unwrap();
            if algorithm != Algorithm::SlidingLog {
                for key in server.command::<Vec<String>>("KEYS *") {
                    let () = server.command(&format!("SET {key} nonsense"));
                }
                assert!(ask(&store, &check).await.unwrap().admitted);
            }
        }
    });
    assert!(totals().healed >= before + 5);
}

#[test]
fn a_full_server_is_down_until_there_is_room() {
    let server = Server::start(&[]);
    on_worker(async {
        let store = store(&server.config());
        ask(&store, &bucket("k")).await.unwrap();
        let () = server.command("CONFIG SET maxmemory 1");
        assert_eq!(fails(&store, &bucket("k")).await, StoreError::Down);
        assert_eq!(ask(&store, &bucket("k")).await, Err(StoreError::Open));
        let () = server.command("CONFIG SET maxmemory 0");
        let back = answers(&store, &bucket("k")).await;
        assert!(back < Duration::from_secs(1), "{back:?}");
    });
}

#[test]
fn a_replica_is_down_until_it_is_promoted() {
    let (master, server) = (Server::start(&[]), Server::start(&[]));
    on_worker(async {
        let store = store(&server.config());
        ask(&store, &bucket("k")).await.unwrap();
        let () = server.command(&format!("REPLICAOF 127.0.0.1 {}", master.port));
        assert_eq!(fails(&store, &bucket("k")).await, StoreError::Down);
        let () = server.command("REPLICAOF NO ONE");
        let back = answers(&store, &bucket("k")).await;
        assert!(back < Duration::from_secs(1), "{back:?}");
    });
}

#[test]
fn a_server_that_is_killed_is_down_at_once_and_back_within_a_second() {
    let mut server = Server::start(&[]);
    on_worker(async {
        let store = store(&server.config());
        ask(&store, &bucket("k")).await.unwrap();
        server.kill();
        assert_eq!(fails(&store, &bucket("k")).await, StoreError::Down);
        for _ in 0..100 {
            let begun = Instant::now();
            assert_eq!(ask(&store, &bucket("k")).await, Err(StoreError::Down));
            assert!(begun.elapsed() < HANGING, "{:?}", begun.elapsed());
        }
        server.restart();
        let back = answers(&store, &bucket("k")).await;
        assert!(back < Duration::from_secs(1), "{back:?}");
    });
}

/// The 10 ms of the default, five times; then nobody waits any more.
async fn costs_five_timeouts(store: &tidegate::services::store::redis::Redis) {
    let (mut timeouts, mut slowest) = (0, Duration::ZERO);
    for _ in 0..200 {
        let begun = Instant::now();
        let answer = ask(store, &bucket("k")).await;
        slowest = slowest.max(begun.elapsed());
        match answer {
            Ok(verdict) => panic!("it hangs, and answers {verdict:?}"),
            Err(StoreError::Timeout) => timeouts += 1,
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!((1..=5).contains(&timeouts), "{timeouts}");
    assert!(slowest < HANGING, "{slowest:?}");
}

#[test]
fn a_server_that_hangs_costs_five_timeouts_and_is_back_within_a_second() {
    let server = Server::start(&[]);
    on_worker(async {
        let config = RedisConfig { timeout: Duration::from_millis(10), ..server.config() };
        let store = store(&config);
        answers(&store, &bucket("k")).await;
        server.signal("STOP");
        costs_five_timeouts(&store).await;
        server.signal("CONT");
        let back = answers(&store, &bucket("k")).await;
        assert!(back < Duration::from_secs(1), "{back:?}");
    });
}

/// Lets bytes through in both directions, after a time that can be changed.
async fn slow_way(to: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, delay) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let slow = Arc::clone(&delay);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(to).await.unwrap();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            for (mut from, mut to) in [(from_client, to_server), (from_server, to_client)] {
                let slow = Arc::clone(&slow);
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(n @ 1..) = from.read(&mut bytes).await {
                        let pause = Duration::from_millis(slow.load(Ordering::Relaxed) / 2);
                        tokio::time::sleep(pause).await;
                        if to.write_all(&bytes[..n]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    (address, delay)
}

#[test]
fn a_server_that_is_slow_is_not_asked_until_it_is_fast_again() {
    let server = Server::start(&[]);
    on_worker(async {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port));
        let (address, delay) = slow_way(to).await;
        let config = RedisConfig::single(address.to_string().parse().unwrap());
        let store = store(&config);
        answers(&store, &bucket("k")).await;
        delay.store(100, Ordering::Relaxed);
        costs_five_timeouts(&store).await;
        delay.store(0, Ordering::Relaxed);
        let back = answers(&store, &bucket("k")).await;
        assert!(back < Duration::from_secs(1), "{back:?}");
    });
}

#[test]
fn a_server_that_is_not_there_keeps_nobody_waiting() {
    on_worker(async {
        let port = redis_server::free_port();
        let config = RedisConfig::single(format!("127.0.0.1:{port}").parse().unwrap());
        let store = store(&config);
        for _ in 0..50 {
            let begun = Instant::now();
            let failed = ask(&store, &bucket("k")).await.unwrap_err();
            assert!(matches!(failed, StoreError::Down | StoreError::Timeout), "{failed}");
            assert!(begun.elapsed() < HANGING, "{:?}", begun.elapsed());
        }
    });
}

#[test]
fn several_connections_and_workers_count_together() {
    let server = Server::start(&[]);
    let config = RedisConfig { connections: 3, ..server.config() };
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                on_worker(async {
                    let store = store(&config);
                    let check = hourly("k", Algorithm::SlidingLog, 100);
                    for _ in 0..50 {
                        let verdict = ask(&store, &check).await.unwrap();
                        admitted.fetch_add(u64::from(verdict.admitted), Ordering::Relaxed);
                    }
                });
            });
        }
    });
    assert_eq!(admitted.into_inner(), 100);
}
