//! The script that decides, as a command, and its answer.

use std::fmt::Write as _;
use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::Cmd;

use super::super::counting::{self, MAX_DEBT_MS, State};
use super::super::{Algorithm, Check, Verdict};
use super::slots::tag_of;

/// Bytes of a key's digest that are kept: equal by chance once in 2^64 keys.
const DIGEST: usize = 16;

/// The script and its name on the server.
fn script() -> &'static (String, redis::Script) {
    static SCRIPT: OnceLock<(String, redis::Script)> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        let text = include_str!("limit.lua").to_owned();
        let script = redis::Script::new(&text);
        (text, script)
    })
}

/// A question that a server answers only if it can decide: it charges a bucket that nobody else
/// uses and that is full again a moment later.
pub fn probe(prefix: &str, tag: &str) -> Question {
    let check = Check {
        key: b"probe"[..].into(),
        tag: tag.into(),
        algorithm: Algorithm::TokenBucket,
        limit: 1_000_000_000,
        burst: 1_000_000_000,
        window_ms: 1000,
        cost: 1,
    };
    Question::new(prefix, std::iter::once(&check))
}

/// A question: the checks whose keys lie in one slot, or all where there are no slots.
#[derive(Debug)]
pub struct Question {
    keys: Vec<String>,
    args: Vec<String>,
}

impl Question {
    pub fn new<'a>(prefix: &str, checks: impl Iterator<Item = &'a Check>) -> Self {
        let (keys, args) = checks.map(|check| (key(prefix, check), arguments(check))).unzip();
        Question { keys, args }
    }

    /// By the script's name, which the server knows if anybody ever sent the script.
    pub fn by_name(&self) -> Cmd {
        self.command("EVALSHA", script().1.get_hash())
    }

    /// With the script itself.
    pub fn in_full(&self) -> Cmd {
        self.command("EVAL", &script().0)
    }

    pub(super) fn command(&self, name: &str, script: &str) -> Cmd {
        let mut cmd = redis::cmd(name);
        cmd.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.args);
        cmd
    }
}

/// The script's answer for `checks`, and how many keys it had to delete because they were of
/// another kind. Nothing if it is not the script's answer.
pub fn verdicts<'a>(
    answer: &[i64],
    checks: impl ExactSizeIterator<Item = &'a Check>,
) -> Option<(Vec<Verdict>, u64)> {
    let [charged, healed, states @ ..] = answer else { return None };
    if states.len() != 3 * checks.len() {
        return None;
    }
    let all = checks.zip(states.chunks_exact(3)).map(|(check, numbers)| {
        let [a, b, c] = numbers else { return None };
        let number = |n: &i64| u64::try_from(*n).ok();
        let state = state(check, [number(a)?, number(b)?, number(c)?])?;
        Some(state.verdict(check, *charged == 1))
    });
    Some((all.collect::<Option<_>>()?, u64::try_from(*healed).ok()?))
}

fn state(check: &Check, [a, b, c]: [u64; 3]) -> Option<State> {
    let is_inside = |elapsed: u64| elapsed < check.window_ms;
    Some(match check.algorithm {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => {
            let debt = u128::from(a) * u128::from(check.limit) + u128::from(b);
            State::Bucket { debt }
        }
        Algorithm::FixedWindow if is_inside(b) => State::Fixed { count: a, elapsed_ms: b },
        Algorithm::SlidingWindow if is_inside(c) => {
            State::Sliding { current: a, previous: b, elapsed_ms: c }
        }
        Algorithm::FixedWindow | Algorithm::SlidingWindow => return None,
        Algorithm::SlidingLog => State::Log { count: a, reset_ms: b, retry_ms: c },
    })
}

/// `prefix{tag}:digest:kind and window`: what is counted differently is another key.
fn key(prefix: &str, check: &Check) -> String {
    let tag = tag_of(check);
    let mut key = String::with_capacity(prefix.len() + tag.len() + 40);
    key.push_str(prefix);
    key.push('{');
    key.push_str(tag);
    key.push_str("}:");
    URL_SAFE_NO_PAD.encode_string(&digest(&SHA256, &check.key).as_ref()[..DIGEST], &mut key);
    let kind = match check.algorithm {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => 'b',
        Algorithm::FixedWindow => 'f',
        Algorithm::SlidingWindow => 's',
        Algorithm::SlidingLog => 'l',
    };
    let _ = write!(key, ":{kind}{}", check.window_ms);
    key
}

/// What the script has to know of a check: see limit.lua.
fn arguments(check: &Check) -> String {
    let algorithm = match check.algorithm {
        Algorithm::TokenBucket | Algorithm::LeakyBucket => 1,
        Algorithm::FixedWindow => 2,
        Algorithm::SlidingWindow => 3,
        Algorithm::SlidingLog => 4,
    };
    let Check { window_ms, limit, cost, .. } = check;
    let (most, most_parts) = milliseconds(check, counting::capacity(check));
    let (takes, takes_parts) = if check.cost > check.burst {
        (2 * MAX_DEBT_MS, 0)
    } else {
        milliseconds(check, counting::charge(check))
    };
    format!("{algorithm} {window_ms} {limit} {cost} {takes} {takes_parts} {most} {most_parts}")
}

/// Ticks as milliseconds and the parts of one that are left over.
fn milliseconds(check: &Check, ticks: u128) -> (u64, u64) {
    let limit = u128::from(check.limit.max(1));
    let whole = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
    (whole(ticks / limit), whole(ticks % limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> Check {
        Check {
            key: b"a"[..].into(),
            tag: "shop".into(),
            algorithm: Algorithm::TokenBucket,
            limit: 7,
            burst: 10,
            window_ms: 1000,
            cost: 2,
        }
    }

    #[test]
    fn a_key_shows_its_tag_and_window_and_hides_what_it_counts() {
        let key = key("tidegate:", &check());
        assert_eq!(key, "tidegate:{shop}:ypeBEsobvcr6wjGzmiPcTQ:b1000");
    }

    #[test]
    fn times_go_to_the_script_as_whole_milliseconds_and_parts() {
        assert_eq!(arguments(&check()), "1 1000 7 2 285 5 1428 4");
        let never = Check { cost: 11, ..check() };
        assert_eq!(arguments(&never), format!("1 1000 7 11 {} 0 1428 4", 1_u64 << 52));
    }

    #[test]
    fn only_the_scripts_own_answer_is_understood() {
        let checks = [check(), Check { algorithm: Algorithm::FixedWindow, ..check() }];
        let read = |answer: &[i64]| verdicts(answer, checks.iter());
        let (all, healed) = read(&[1, 2, 0, 0, 0, 3, 999, 0]).unwrap();
        assert_eq!((all.len(), healed), (2, 2));
        assert_eq!((all[0].remaining, all[1].remaining), (8, 2));
        for wrong in [&[][..], &[1, 0], &[1, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 3, 1000, 0]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(read(&[1, 0, -1, 0, 0, 3, 1, 0]), None);
    }
}
