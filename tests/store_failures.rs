//! What clients see while the store of a rate limit fails: a real proxy, a real Redis.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]
#![allow(clippy::print_stdout, reason = "the measurement tells its numbers")]

mod fixtures;
mod redis_server;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fixtures::Site;
use redis_server::Server;
use support::{Raw, eventually, field, ports, status};

/// A route for each failure mode, and one without a limit. A limit is far more than a test sends,
/// except for `tight`.
fn site(store: u16, timeout: &str) -> Site {
    let mut more = String::new();
    let limits = [
        ("local", "Local", 1_000_000),
        ("open", "Open", 1_000_000),
        ("closed", "Closed", 1_000_000),
        ("tight", "Local", 20),
    ];
    let mut rules = String::from(
        "    - matches: [{path: {value: /plain}}]\n      backendRefs: [{name: one, port: 80}]\n",
    );
    for (name, mode, requests) in limits {
        rules += &format!(
            "    - matches: [{{path: {{value: /{name}}}}}]\n      \
             filters: [{{type: ExtensionRef, extensionRef: \
             {{group: tidegate.dev, kind: RateLimit, name: {name}}}}}]\n      \
             backendRefs: [{{name: one, port: 80}}]\n"
        );
        more += &format!(
            "---\napiVersion: tidegate.dev/v1alpha1\nkind: RateLimit\n\
             metadata: {{name: {name}, namespace: web}}\nspec:\n  failureMode: {mode}\n  \
             store: {{type: Redis, redis: {{addresses: ['127.0.0.1:{store}'], timeout: {timeout}}}}}\n  \
             limits: [{{name: all, requests: {requests}, window: 1h, \
             algorithm: FixedWindow, key: [{{type: All}}]}}]\n"
        );
    }
    let route = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: limits, namespace: web}}\nspec:\n  \
         parentRefs: [{{name: gw}}]\n  rules:\n{rules}"
    );
    Site::with(&[], &format!("{route}{more}"), |_| {})
}

/// Sends requests for a path on one connection, one after the other.
struct Client {
    raw: Raw,
    port: u16,
}

impl Client {
    fn of(site: &Site) -> Self {
        let port = site.proxy.port;
        Client { raw: Raw::connect(([127, 0, 0, 1], port).into()), port }
    }

    fn get(&mut self, path: &str) -> (u16, Duration) {
        let begun = Instant::now();
        self.raw.send(&format!("GET {path} HTTP/1.1\r\nhost: site.test\r\n\r\n"));
        let answer = self.raw.message();
        let took = begun.elapsed();
        if field(&answer, "connection") == Some("close") {
            // It has carried as many requests as a connection may.
            self.raw = Raw::connect(([127, 0, 0, 1], self.port).into());
        }
        (status(&answer), took)
    }
}

/// What several clients of a path get for a while.
#[derive(Debug, Default)]
struct Seen {
    statuses: Vec<u16>,
    slowest: Duration,
}

fn traffic(site: &Site, path: &str, time: Duration) -> Seen {
    let mut seen = Seen::default();
    let one = || {
        let mut client = Client::of(site);
        let begun = Instant::now();
        let mut answers = Vec::new();
        while begun.elapsed() < time {
            answers.push(client.get(path));
        }
        answers
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(one)).collect();
        for client in clients {
            for (status, took) in client.join().unwrap() {
                seen.statuses.push(status);
                seen.slowest = seen.slowest.max(took);
            }
        }
    });
    seen
}

/// Whether limits are counted in the store: its own count grows.
fn counts(site: &Site, server: &Server) -> bool {
    let calls = || -> u64 {
        let told: String = server.command("INFO commandstats");
        let call = told.lines().find(|line| line.starts_with("cmdstat_set:calls="));
        let count = call.and_then(|line| line.split(['=', ',']).nth(1));
        count.map_or(0, |count| count.parse().unwrap())
    };
    let before = calls();
    let mut client = Client::of(site);
    (0..3).for_each(|_| assert_eq!(client.get("/local").0, 200));
    calls() >= before + 3
}

/// Bytes through, later by what is set, in both directions together.
fn slow_way(to: u16) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (port, delay) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
    let slow = Arc::clone(&delay);
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
            let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            for (mut from, mut to) in [(client, server), (back, forth)] {
                let slow = Arc::clone(&slow);
                thread::spawn(move || {
                    to.set_nodelay(true).unwrap();
                    let mut bytes = [0; 4096];
                    while let Ok(n @ 1..) = from.read(&mut bytes) {
                        thread::sleep(Duration::from_millis(slow.load(Ordering::Relaxed) / 2));
                        if to.write_all(&bytes[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (port, delay)
}

fn spoil(server: &Server) {
    for key in server.command::<Vec<String>>("KEYS *") {
        // At once: somebody counts there all the time.
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("DEL").arg(&key).ignore();
        pipe.cmd("HSET").arg(&key).arg("a").arg("b").ignore();
        let () = pipe.query(&mut server.client()).unwrap();
    }
}

/// Is set when this is dropped.
struct SetLate<'a>(&'a AtomicBool);

impl Drop for SetLate<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Breaks the store, looks at every failure mode, and mends it. Where it goes on answering, it
/// has the `timeout` that a busy machine keeps too, and `Closed` sees nothing of it.
fn survives(
    what: &str,
    break_it: impl FnOnce(&mut Server, &AtomicU64),
    mend_it: impl FnOnce(&mut Server, &AtomicU64),
    timeout: Option<&str>,
) {
    let fails = timeout.is_none();
    let mut server = Server::start(&[]);
    let (port, delay) = slow_way(server.port);
    let site = site(port, timeout.unwrap_or("10ms"));
    eventually("limits are counted in the store", || counts(&site, &server));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Whatever fails here ends the clients too.
        let _over = SetLate(&is_over);
        // Somebody asks all the time, also in the moment when it breaks and when it is mended.
        let through = ["/local", "/open"].map(|path| {
            let (site, is_over) = (&site, &is_over);
            scope.spawn(move || {
                let mut client = Client::of(site);
                let mut statuses = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    statuses.push(client.get(path).0);
                }
                statuses
            })
        });
        thread::sleep(Duration::from_millis(50));
        break_it(&mut server, &delay);
        for path in ["/local", "/open"] {
            let seen = traffic(&site, path, Duration::from_millis(400));
            assert!(seen.statuses.iter().all(|s| *s == 200), "{what} {path}: {seen:?}");
        }
        let closed = traffic(&site, "/closed", Duration::from_millis(200));
        let refused = closed.statuses.iter().filter(|status| **status == 503).count();
        assert_eq!(refused > 0, fails, "{what}: {closed:?}");
        mend_it(&mut server, &delay);
        let mended = Instant::now();
        eventually("limits are counted in the store again", || counts(&site, &server));
        let back = mended.elapsed();
        assert!(back < Duration::from_millis(1500), "{what}: back after {back:?}");
        is_over.store(true, Ordering::Relaxed);
        for client in through {
            let statuses = client.join().unwrap();
            assert!(statuses.len() > 10 && statuses.iter().all(|s| *s == 200), "{what}");
        }
    });
}

#[test]
fn a_store_that_is_killed_costs_nobody_an_answer() {
    survives("killed", |server, _| server.kill(), |server, _| server.restart(), None);
}

#[test]
fn a_store_that_hangs_costs_nobody_an_answer() {
    let (stop, go) = (
        |s: &mut Server, _: &AtomicU64| s.signal("STOP"),
        |s: &mut Server, _: &AtomicU64| s.signal("CONT"),
    );
    survives("paused", stop, go, None);
}

#[test]
fn a_store_that_is_slow_costs_nobody_an_answer() {
    let slower = |_: &mut Server, delay: &AtomicU64| delay.store(100, Ordering::Relaxed);
    let faster = |_: &mut Server, delay: &AtomicU64| delay.store(0, Ordering::Relaxed);
    survives("slow", slower, faster, None);
}

#[test]
fn a_store_that_is_full_costs_nobody_an_answer() {
    let set =
        |server: &mut Server, most: &str| server.command(&format!("CONFIG SET maxmemory {most}"));
    survives("full", |server, _| set(server, "1"), |server, _| set(server, "0"), None);
}

#[test]
fn a_store_that_becomes_a_replica_costs_nobody_an_answer() {
    let other = Server::start(&[]);
    let of = format!("REPLICAOF 127.0.0.1 {}", other.port);
    let back = |server: &mut Server, _: &AtomicU64| server.command("REPLICAOF NO ONE");
    survives("replica", |server, _| server.command(&of), back, None);
}

#[test]
fn keys_of_a_wrong_kind_and_flushed_scripts_and_keys_cost_nobody_an_answer() {
    let flush = |server: &mut Server, _: &AtomicU64| {
        spoil(server);
        let () = server.command("SCRIPT FLUSH");
    };
    survives("flushed", flush, |server, _| server.command("FLUSHALL"), Some("500ms"));
}

#[test]
fn without_the_store_a_pod_lets_its_own_share_through_and_no_more() {
    let mut server = Server::start(&[]);
    let site = site(server.port, "10ms");
    eventually("limits are counted in the store", || counts(&site, &server));
    server.kill();
    let mut client = Client::of(&site);
    let statuses: Vec<u16> = (0..60).map(|_| client.get("/tight").0).collect();
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(admitted, 20, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
}

/// The time that `share` of the sorted times are within.
fn share(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}

fn measured(site: &Site, path: &str, requests: usize) -> Vec<Duration> {
    let mut client = Client::of(site);
    (0..requests).map(|_| client.get(path).1).collect()
}

/// What a shared limit adds to a request: run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "it measures times, and takes a machine that does nothing else"]
fn added_time() {
    let server = Server::start(&[]);
    let site = site(server.port, "10ms");
    eventually("limits are counted in the store", || counts(&site, &server));
    let tell = |what: &str, mut times: Vec<Duration>| {
        let [p50, p99, all] = [0.5, 0.99, 1.0].map(|part| share(&mut times, part));
        println!("{what:24} p50 {p50:>9.1?}  p99 {p99:>9.1?}  most {all:>9.1?}");
        p99
    };
    for _ in 0..3 {
        let plain = tell("no limit", measured(&site, "/plain", 5000));
        let limited = tell("limit in Redis", measured(&site, "/local", 5000));
        let added = limited.saturating_sub(plain);
        println!("added p99 {added:?}");
        assert!(added < Duration::from_millis(1), "{added:?}");
    }
    server.signal("STOP");
    let plain = tell("no limit", measured(&site, "/plain", 5000));
    let first = tell("hanging, the first 100", measured(&site, "/local", 100));
    let later = tell("hanging, 5000 more", measured(&site, "/local", 5000));
    server.signal("CONT");
    for added in [first.saturating_sub(plain), later.saturating_sub(plain)] {
        assert!(added < Duration::from_millis(12), "{added:?}");
    }
}
