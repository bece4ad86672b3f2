//! The script against a model of it that is written down plainly, over random checks and a clock
//! of the test's own.

#[path = "../../../../tests/ports/mod.rs"]
mod ports;

use std::collections::{HashMap, VecDeque};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::script::{Question, verdicts};
use crate::services::store::counting::{State, capacity, charge};
use crate::services::store::{Algorithm, Check, Verdict};

/// What is remembered of one key.
#[derive(Clone, Debug)]
enum Counter {
    /// When the bucket is full, in ticks of 1/limit ms.
    Bucket(u128),
    Fixed(u64, u64),
    Sliding(u64, u64, u64),
    Log(VecDeque<(u64, u64)>),
}

type Key = (Box<[u8]>, u64, char);

#[derive(Default)]
struct Model(HashMap<Key, Counter>);

fn key_of(check: &Check) -> Key {
    let kind = match check.algorithm {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => 'b',
        Algorithm::FixedWindow => 'f',
        Algorithm::SlidingWindow => 's',
        Algorithm::SlidingLog => 'l',
    };
    (check.key.clone(), check.window_ms, kind)
}

impl Model {
    fn decide(&mut self, checks: &[Check], now: u64) -> Vec<Verdict> {
        let states: Vec<State> = checks.iter().map(|check| self.look(check, now)).collect();
        let pairs = || checks.iter().zip(&states);
        let goes_on = pairs().all(|(check, state)| state.admits(check));
        let mut verdicts = Vec::new();
        for (check, state) in pairs() {
            verdicts.push(state.verdict(check, goes_on));
            if goes_on && check.cost > 0 {
                self.charge(check, state, now);
            }
        }
        verdicts
    }

    fn look(&self, check: &Check, now: u64) -> State {
        let start = now - now % check.window_ms;
        let elapsed_ms = now - start;
        match self.0.get(&key_of(check)) {
            None => match check.algorithm {
                Algorithm::TokenBucket | Algorithm::LeakyBucket => State::Bucket { debt: 0 },
                Algorithm::FixedWindow => State::Fixed { count: 0, elapsed_ms },
                Algorithm::SlidingWindow => State::Sliding { current: 0, previous: 0, elapsed_ms },
                Algorithm::SlidingLog => State::Log { count: 0, reset_ms: 0, retry_ms: 0 },
            },
            Some(Counter::Bucket(full)) => {
                let debt = full.saturating_sub(u128::from(now) * u128::from(check.limit));
                State::Bucket { debt: debt.min(capacity(check)) }
            }
            Some(Counter::Fixed(at, count)) => {
                State::Fixed { count: if *at == start { *count } else { 0 }, elapsed_ms }
            }
            Some(Counter::Sliding(at, current, previous)) => {
                let (current, previous) = match start - at {
                    0 => (*current, *previous),
                    gone if gone == check.window_ms => (0, *current),
                    _ => (0, 0),
                };
                State::Sliding { current, previous, elapsed_ms }
            }
            Some(Counter::Log(entries)) => log(check, entries, now),
        }
    }

    fn charge(&mut self, check: &Check, state: &State, now: u64) {
        let start = now - now % check.window_ms;
        let cost = check.cost;
        let counter = match *state {
            State::Bucket { debt } => {
                let limit = u128::from(check.limit);
                Counter::Bucket(u128::from(now) * limit + debt + charge(check))
            }
            State::Fixed { count, .. } => Counter::Fixed(start, count + cost),
            State::Sliding { current, previous, .. } => {
                Counter::Sliding(start, current + cost, previous)
            }
            State::Log { .. } => {
                let empty = || Counter::Log(VecDeque::new());
                let counter = self.0.entry(key_of(check)).or_insert_with(empty);
                let Counter::Log(entries) = counter else { unreachable!("the key says the kind") };
                entries.retain(|(at, _)| at + check.window_ms > now);
                entries.push_back((now, cost));
                return;
            }
        };
        self.0.insert(key_of(check), counter);
    }
}

fn log(check: &Check, entries: &VecDeque<(u64, u64)>, now: u64) -> State {
    let valid: Vec<_> = entries.iter().filter(|(at, _)| at + check.window_ms > now).collect();
    let count: u64 = valid.iter().map(|(_, cost)| cost).sum();
    let reset_ms = valid.last().map_or(0, |(at, _)| at + check.window_ms - now);
    let mut needed = (count + check.cost).saturating_sub(check.limit);
    let mut retry_ms = 0;
    if check.cost <= check.limit {
        for (at, cost) in valid {
            if needed == 0 {
                break;
            }
            needed = needed.saturating_sub(*cost);
            retry_ms = at + check.window_ms - now;
        }
    }
    State::Log { count, reset_ms, retry_ms }
}

struct Server {
    child: Child,
    connection: redis::Connection,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server() -> Server {
    let port = ports::free_port(ports::OF_SERVERS);
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server has to be installed (Debian: redis-server)");
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let begun = Instant::now();
    let connection = loop {
        match client.get_connection() {
            Ok(connection) => break connection,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Server { child, connection, _dir: dir }
}

/// The script with a clock that the test sets.
fn script() -> String {
    let own = include_str!("limit.lua");
    let clock = "{redis.call('GET', 'seconds'), redis.call('GET', 'micros')}";
    assert_eq!(own.matches("redis.call('TIME')").count(), 1);
    own.replace("redis.call('TIME')", clock)
}

fn decide(server: &mut Server, script: &str, checks: &[Check], now: u64) -> Vec<Verdict> {
    let connection = &mut server.connection;
    let (seconds, micros) = (now / 1000, now % 1000 * 1000 + 999);
    let mut pipe = redis::pipe();
    pipe.cmd("MSET").arg("seconds").arg(seconds).arg("micros").arg(micros).ignore();
    pipe.add_command(Question::new("t:", checks.iter()).command("EVAL", script));
    let (answer,): (Vec<i64>,) = pipe.query(connection).unwrap();
    verdicts(&answer, checks.iter()).unwrap().0
}

const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket,
    Algorithm::FixedWindow,
    Algorithm::SlidingWindow,
    Algorithm::SlidingLog,
];

/// Up to four checks with keys that differ, of one family of limits.
fn checks(random: &mut fastrand::Rng, limits: &[(u64, u64, u64)]) -> Vec<Check> {
    let mut keys: Vec<usize> = (0..limits.len() * ALGORITHMS.len()).collect();
    random.shuffle(&mut keys);
    let mut check = |n: usize| {
        let (limit, burst, window_ms) = limits[n / ALGORITHMS.len()];
        Check {
            key: n.to_string().into_bytes().into(),
            tag: "t".into(),
            algorithm: ALGORITHMS[n % ALGORITHMS.len()],
            limit,
            burst,
            window_ms,
            cost: match random.u8(0..10) {
                0 => 0,
                1 => random.u64(0..=limit + 2),
                _ => random.u64(1..=limit.div_ceil(4)),
            },
        }
    };
    let count = 1 + keys[0] % 4;
    keys.into_iter().take(count).map(&mut check).collect()
}

#[test]
fn the_script_and_the_model_agree_on_every_verdict() {
    const MONTH: u64 = 31 * 24 * 3_600_000;
    const MOST: u64 = 1_000_000_000;
    let (mut server, script) = (server(), script());
    let families: [&[(u64, u64, u64)]; 4] = [
        &[(3, 3, 1000), (10, 1, 1000), (7, 20, 60_000)],
        &[(100, 50, 1000), (999, 1234, 7001)],
        &[(MOST, MOST, MONTH), (MOST - 1, MOST, 1000), (999_999_937, 5, MONTH - 1)],
        &[(1, 1, MONTH), (1, 1000, 1000), (2, MOST, MONTH)],
    ];
    for (seed, limits) in families.iter().cycle().take(12).enumerate() {
        let mut random = fastrand::Rng::with_seed(seed as u64);
        let mut model = Model::default();
        let mut now = 1_795_000_000_000 + random.u64(0..MONTH);
        let () = redis::cmd("FLUSHALL").query(&mut server.connection).unwrap();
        for step in 0..400 {
            now += match random.u8(0..8) {
                0 => 0,
                1 => limits[0].2 / random.u64(1..=4),
                2 => random.u64(0..=2 * limits[0].2),
                _ => random.u64(0..=limits[0].2 / 20),
            };
            let checks = checks(&mut random, limits);
            let expected = model.decide(&checks, now);
            let got = decide(&mut server, &script, &checks, now);
            assert_eq!(got, expected, "seed {seed}, step {step}, at {now}: {checks:?}");
        }
    }
}

#[test]
fn a_clock_that_goes_back_lets_nobody_in_twice_and_keeps_nobody_out_for_longer() {
    let (mut server, script) = (server(), script());
    let now = 1_795_000_000_000;
    for algorithm in ALGORITHMS {
        let check = Check {
            key: format!("{algorithm:?}").into_bytes().into(),
            tag: "t".into(),
            algorithm,
            limit: 2,
            burst: 2,
            window_ms: 10_000,
            cost: 2,
        };
        let mut at = |now| decide(&mut server, &script, std::slice::from_ref(&check), now)[0];
        assert!(at(now).admitted);
        let back = at(now - 3_600_000);
        assert!(!back.admitted, "{algorithm:?}");
        assert!(back.retry_after_ms <= 20_000, "{algorithm:?}: {back:?}");
        assert!(at(now + 20_000).admitted, "{algorithm:?}");
    }
}
