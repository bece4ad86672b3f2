//! The same limits, counted in this pod and in a real Redis server: over random requests both say
//! the same to every one of them.
//!
//! Nothing is rounded differently on the two sides, so no difference is allowed: a request is let
//! through by both or by neither, to the millisecond, and what a client is told (what is left,
//! Retry-After, the reset) is equal. Three bounds lie outside of what is played here: a bucket in
//! this pod whose limit is over two million a second and no round number, logs of which there are
//! too many for memory, and clocks that go back. Each is held by a test beside its code.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod nothing;
mod ports;
mod redis_server;

use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use http::{HeaderMap, HeaderValue, Method};
use nothing::Nothing;
use redis_server::{Server, answers, check, on_worker, patient, store};
use tidegate::policy::rate_limit::spec::{
    AlgorithmName, Cost, FailureMode, Limit, RedisStore, Spec, Store, StoreType,
};
use tidegate::policy::{AnyPolicy, AnySpec, Client, Exchange, Refs, RequestHead, Scheme, duration};
use tidegate::reason::Reason;
use tidegate::services::store::redis::{Redis, RedisConfig};
use tidegate::services::store::{Algorithm, Store as Shared};

const ALL: [AlgorithmName; 5] = [
    AlgorithmName::TokenBucket,
    AlgorithmName::LeakyBucket,
    AlgorithmName::FixedWindow,
    AlgorithmName::SlidingWindow,
    AlgorithmName::SlidingLog,
];
/// Requests of one sequence.
const REQUESTS: usize = 300;
/// How often a sequence begins again because the server did not answer in time.
const ATTEMPTS: usize = 20;

/// A way to a server on which the script is told the time by the test. The store asks as it
/// always does; what it sends for the script arrives as the same script with another clock.
struct Clocked {
    config: RedisConfig,
    /// Milliseconds since the epoch.
    now: Arc<AtomicU64>,
}

impl Clocked {
    fn start(server: &Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let now = Arc::new(AtomicU64::new(0));
        let (port, clock) = (server.port, Arc::clone(&now));
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut to));
                let clock = Arc::clone(&clock);
                thread::spawn(move || pass(client, server, &clock));
            }
        });
        Clocked { config: patient(RedisConfig::single(address)), now }
    }
}

/// The script, with the time in two more arguments, and with keys that live an hour longer: the
/// server drops them by its own clock, which the test's may lag behind.
fn script() -> String {
    let mut text = include_str!("../src/services/store/redis/limit.lua").to_owned();
    for (own, other) in [
        ("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}"),
        ("'PX', string.format('%.0f', ttl)", "'PX', string.format('%.0f', ttl + 3600000)"),
        ("'%.0f', c.window + 1000)", "'%.0f', c.window + 3600000)"),
    ] {
        assert_eq!(text.matches(own).count(), 1, "{own}");
        text = text.replace(own, other);
    }
    text
}

/// Hands on commands until the client leaves.
fn pass(client: TcpStream, mut server: TcpStream, clock: &AtomicU64) {
    let (script, mut client) = (script().into_bytes(), BufReader::new(client));
    while let Some(mut words) = command(&mut client) {
        if matches!(&*words[0], b"EVALSHA" | b"EVAL") {
            let now = clock.load(SeqCst);
            let micros = now % 1000 * 1000 + 999;
            words[0] = b"EVAL".to_vec();
            words[1].clone_from(&script);
            words.extend([now / 1000, micros].map(|n| n.to_string().into_bytes()));
        }
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            write!(bytes, "${}\r\n", word.len()).unwrap();
            bytes.extend([&word[..], b"\r\n"].concat());
        }
        if server.write_all(&bytes).is_err() {
            return;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

/// An array of bulk strings (RESP); None at the end of the connection.
fn command(from: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let count = number(from, '*')?;
    (0..count)
        .map(|_| {
            let mut word = vec![0; number(from, '$')? + 2];
            from.read_exact(&mut word).ok()?;
            word.truncate(word.len() - 2);
            Some(word)
        })
        .collect()
}

fn number(from: &mut impl BufRead, mark: char) -> Option<usize> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|n| *n > 0)?;
    line.strip_prefix(mark)?.trim_end().parse().ok()
}

/// A limit of everybody whose requests say what they cost. Because they may differ, the pod does
/// not repeat what the store refused: it asks each time.
fn limit(
    name: &str,
    algorithm: AlgorithmName,
    (requests, burst, window): (i64, i64, &str),
) -> Limit {
    let is_bucket = matches!(algorithm, AlgorithmName::TokenBucket | AlgorithmName::LeakyBucket);
    let most = if algorithm == AlgorithmName::SlidingLog { 10_000 } else { i64::MAX };
    let expression = Some("int(request.headers['x-cost'])".to_owned());
    Limit {
        name: name.into(),
        algorithm,
        requests: requests.min(most),
        burst: is_bucket.then_some(burst),
        window: window.into(),
        cost: Some(Cost { number: None, expression }),
        ..Default::default()
    }
}

/// The same limits twice: counted here, and in the store.
fn both(object: String, limits: &[Limit], store: &Arc<Redis>) -> [AnyPolicy; 2] {
    let store = Some(Arc::clone(store) as Arc<dyn Shared>);
    let refs = Refs { store, ..Refs::default() };
    let redis = Some(RedisStore::default());
    let there = Store { r#type: StoreType::Redis, redis, ..Default::default() };
    [Store::default(), there].map(|store| {
        let (object, limits, failure_mode) = (object.clone(), limits.into(), FailureMode::Closed);
        let spec = Spec { object, limits, store, failure_mode, ..Default::default() };
        AnySpec::RateLimit(spec).compile(&refs).unwrap()
    })
}

/// What a request is told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// Seconds; None: it is let through.
    retry_after: Option<u64>,
    /// Of each limit: its place, whether it has room, what may come at once, what is left, and
    /// the seconds until all is there again.
    left: Vec<(usize, bool, u64, u64, u64)>,
}

/// None: the store did not answer.
async fn told(policy: &AnyPolicy, cost: u64, now_ms: u64) -> Option<Told> {
    let mut headers = HeaderMap::new();
    headers.insert("x-cost", HeaderValue::from(cost));
    let request = RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        host: "a.example".into(),
        port: None,
        path: "/".into(),
        query: None,
        headers,
        told: None,
        upstream_host: None,
    };
    let peer = ([192, 0, 2, 1], 50_000).into();
    let client = Client { peer, ip: peer.ip(), listener_port: 80 };
    let mut ex = Exchange::new(request, client, &Nothing, now_ms);
    let retry_after = match policy.on_request(&mut ex).await {
        ControlFlow::Continue(()) => None,
        ControlFlow::Break(reply) if reply.reason == Reason::LimitUnavailable => return None,
        ControlFlow::Break(reply) => {
            Some(reply.headers["retry-after"].to_str().unwrap().parse().unwrap())
        }
    };
    let quotas = ex.quotas.iter();
    let left = quotas.map(|q| (q.limit, q.admitted, q.most, q.remaining, q.reset_s)).collect();
    Some(Told { retry_after, left })
}

/// What a sequence may do at a time.
struct Pace {
    /// Of each limit: its window, and in how long one request's room comes back. Milliseconds.
    limits: Vec<(u64, u64)>,
    /// What may come at once of all limits.
    most: u64,
}

impl Pace {
    fn of(limits: &[Limit]) -> Self {
        let number = |n: i64| u64::try_from(n).unwrap();
        let times = |limit: &Limit| {
            let window = duration::parse_with_days(&limit.window).unwrap().as_millis();
            let window = u64::try_from(window).unwrap();
            (window, window / number(limit.requests))
        };
        let most = limits.iter().map(|limit| number(limit.burst.unwrap_or(limit.requests))).min();
        Pace { limits: limits.iter().map(times).collect(), most: most.unwrap() }
    }

    /// How long after the one before a request comes: often at once, and often just before, at
    /// and after the moment when something changes.
    fn step(&self, random: &mut fastrand::Rng, now: u64) -> u64 {
        let (window, token) = self.limits[random.usize(0..self.limits.len())];
        let edge = window - now % window;
        match random.u8(0..10) {
            0..=2 => 0,
            3 => 1,
            4 => token.max(1),
            5 => token + 1,
            6 => edge - 1 + random.u64(0..=2),
            7 => window - 1 + random.u64(0..=2),
            8 => random.u64(0..=2 * window),
            _ => random.u64(0..=window / 10),
        }
    }

    fn cost(&self, random: &mut fastrand::Rng) -> u64 {
        match random.u8(0..12) {
            0 => 0,
            1 => self.most + 1,
            2 => self.most,
            _ => random.u64(1..=self.most.div_ceil(4)),
        }
    }
}

/// Plays one sequence on both sides. How many requests were refused; None: the store did not
/// answer, so that nothing is known of what it counted.
async fn played(
    [here, there]: &[AnyPolicy; 2],
    limits: &[Limit],
    seed: u64,
    clock: &AtomicU64,
) -> Option<usize> {
    let (pace, mut random) = (Pace::of(limits), fastrand::Rng::with_seed(seed));
    let mut now = 1_795_000_000_000 + random.u64(0..86_400_000);
    // A refused request that comes again when it was told to: how long it waits, and its cost.
    let (mut again, mut refused) = (None, 0);
    for n in 0..REQUESTS {
        let waited = again.take();
        let (wait, cost) =
            waited.unwrap_or_else(|| (pace.step(&mut random, now), pace.cost(&mut random)));
        now += wait;
        clock.store(now, SeqCst);
        let expected = told(there, cost, now).await?;
        let got = told(here, cost, now).await.expect("this pod answers");
        assert_eq!(got, expected, "seed {seed}, {n}th at {now}, costs {cost}: {limits:?}");
        let Some(seconds) = got.retry_after else { continue };
        refused += 1;
        if cost <= pace.most {
            assert!(waited.is_none(), "seed {seed}, {n}th at {now}: it waited {wait} ms as told");
            again = random.bool().then_some((seconds * 1000, cost));
        }
    }
    Some(refused)
}

/// Plays sequences until the server answered in time all through one.
async fn agree(store: &Arc<Redis>, name: &str, limits: &[Limit], seed: u64, clock: &AtomicU64) {
    for attempt in 0..ATTEMPTS {
        answers(store, &check("ready", Algorithm::FixedWindow, 1_000_000)).await;
        let policies = both(format!("ns/{name}-{attempt}"), limits, store);
        if let Some(refused) = played(&policies, limits, seed, clock).await {
            assert!((1..REQUESTS).contains(&refused), "{name}: {refused} refused");
            return;
        }
    }
    panic!("{name}: the server did not answer in time");
}

#[test]
fn each_algorithm_decides_the_same_here_and_in_redis() {
    const SHAPES: [(i64, i64, &str); 6] = [
        (3, 3, "1s"),
        (7, 20, "7001ms"),
        (100, 50, "1m"),
        (60, 1, "1m"),
        (999_983, 999_983, "1s"),
        (10_000, 12_345, "31d"),
    ];
    let server = Server::start(&[]);
    let clocked = Clocked::start(&server);
    on_worker(async {
        let store = store(&clocked.config);
        for (seed, shape) in (0..).zip(SHAPES) {
            for algorithm in ALL {
                let limits = [limit("one", algorithm, shape)];
                agree(&store, &format!("{algorithm:?}-{seed}"), &limits, seed, &clocked.now).await;
            }
        }
    });
}

/// Also what is left of limits that had room, where another one refuses, and which wait is told.
#[test]
fn limits_of_one_request_are_decided_the_same_here_and_in_redis() {
    use AlgorithmName::*;
    let families = [
        vec![
            limit("short", TokenBucket, (5, 10, "1s")),
            limit("long", SlidingLog, (20, 20, "10s")),
            limit("hour", FixedWindow, (300, 300, "1h")),
        ],
        vec![
            limit("minute", SlidingWindow, (30, 30, "1m")),
            limit("even", LeakyBucket, (60, 9, "1m")),
        ],
        vec![
            limit("day", FixedWindow, (9, 9, "1d")),
            limit("second", SlidingWindow, (4, 4, "1s")),
            limit("bucket", TokenBucket, (7, 7, "7001ms")),
            limit("log", SlidingLog, (6, 6, "2s")),
        ],
    ];
    let server = Server::start(&[]);
    let clocked = Clocked::start(&server);
    on_worker(async {
        let store = store(&clocked.config);
        for seed in 0..12 {
            let limits = &families[seed % families.len()];
            let name = format!("family-{seed}");
            agree(&store, &name, limits, 100 + seed as u64, &clocked.now).await;
        }
    });
}
