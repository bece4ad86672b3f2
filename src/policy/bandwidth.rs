//! How many bytes of bodies pass in a second, each way.
//!
//! The policy only says by which [`Pace`] the exchange goes; the proxy keeps to it, by holding
//! back parts of bodies and the bytes of upgraded connections. A pace is a line that all
//! exchanges of one key stand in, over all workers of a pod: one word with the moment until
//! which the line is taken. Who has bytes to pass takes the next part of the line and passes
//! them when it begins: a compare-and-swap for at most 16 KiB, nobody waits for anybody's lock,
//! and a slow client holds up nobody.
//!
//! What is not used is gone, but for 50 ms: so in any time `t` at most `rate × (t + 50 ms)` and
//! one part pass. Lines are kept in a table of bounded size, where a line that nobody stands in gives
//! way to another; see [`super::rate_limit::table`] for what that may cost. They outlive graphs as
//! long as the Spec is the same.

use std::hash::RandomState;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limit_key::{LimitKey, Part};
use super::rate_limit::table::Table;
use super::{Exchange, Invalid, Policy, Refs, Reply};

/// Bytes a second: between 1Ki and 100Gi.
const RATES: std::ops::RangeInclusive<u64> = (1 << 10)..=(100 << 30);
/// Most bytes that pass at once; less where that would take longer than [`PARTS`] of a second.
const MOST_AT_ONCE: u64 = 16 * 1024;
const LEAST_AT_ONCE: u64 = 512;
const PARTS: u64 = 20;
/// What may be made up for, of time in which nobody passed anything, in nanoseconds.
const CREDIT: u64 = 50_000_000;
const SECOND: u64 = 1_000_000_000;

/// How many bytes of bodies pass in a second, in each Tidegate pod; requests wait, none is
/// refused. Upgraded connections count too. Answers that Tidegate gives itself are not delayed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Bandwidth")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Bytes a second to clients, such as `500k`, `1Mi` or `65536`: 1Ki to 100Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^[0-9]{1,12}(k|M|G|Ki|Mi|Gi)?$"))]
    pub download: Option<String>,
    /// The same from clients. A body that another policy has read whole counts, but is not
    /// delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^[0-9]{1,12}(k|M|G|Ki|Mi|Gi)?$"))]
    pub upload: Option<String>,
    /// What is counted together; the client's address by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub key: Vec<Part>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Bandwidth {
    download: Option<Rate>,
    upload: Option<Rate>,
    key: LimitKey,
    lines: Arc<Lines>,
}

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate(u64);

/// What outlives a graph. The random seed keeps an attacker from choosing keys that share a
/// place.
#[derive(Debug, Default)]
struct Lines {
    seed: RandomState,
    download: Arc<Table<1>>,
    upload: Arc<Table<1>>,
}

/// What one exchange goes by; several where several policies say so.
#[derive(Clone, Debug)]
pub struct Pace {
    pub download: Option<Lane>,
    pub upload: Option<Lane>,
}

/// One way of a pace.
#[derive(Clone, Debug)]
pub struct Lane {
    lines: Arc<Table<1>>,
    key: u64,
    rate: Rate,
}

impl Lane {
    /// Most bytes to pass at once.
    pub fn most_at_once(&self) -> usize {
        let part = (self.rate.0 / PARTS).clamp(LEAST_AT_ONCE, MOST_AT_ONCE);
        usize::try_from(part).unwrap_or(usize::MAX)
    }

    /// Takes the next part of the line, for `bytes`, at `now` in nanoseconds since any moment
    /// that is the same for the process. Returns when they may pass.
    pub fn reserve(&self, bytes: usize, now: u64) -> u64 {
        let time = bytes as u64 * SECOND / self.rate.0;
        let waiting = |line: &[AtomicU64; 1]| line[0].load(Relaxed).saturating_sub(now);
        let [until] = self.lines.place(self.key, waiting);
        let mut taken = until.load(Relaxed);
        loop {
            let from = taken.max(now.saturating_sub(CREDIT));
            match until.compare_exchange_weak(taken, from.saturating_add(time), Relaxed, Relaxed) {
                Ok(_) => return from,
                Err(changed) => taken = changed,
            }
        }
    }
}

impl Policy for Bandwidth {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        let rate = |field: &str, text: &Option<String>| {
            let text = text.as_deref();
            let rate = text.map(|text| rate(text).ok_or_else(|| wrong(field, text)));
            rate.transpose()
        };
        let download = rate("download", &spec.download)?;
        let upload = rate("upload", &spec.upload)?;
        if download.is_none() && upload.is_none() {
            let message = "neither `download` nor `upload` is set; set one of them";
            return Err(Invalid::new("bandwidth", message));
        }
        let key = LimitKey::compile("bandwidth.key", &spec.key)?;
        Ok(Bandwidth { download, upload, key, lines: Arc::default() })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        let key = self.key.local(ex, &self.lines.seed);
        let lane = |rate: Option<Rate>, lines: &Arc<Table<1>>| {
            rate.map(|rate| Lane { lines: Arc::clone(lines), key, rate })
        };
        ex.paces.push(Pace {
            download: lane(self.download, &self.lines.download),
            upload: lane(self.upload, &self.lines.upload),
        });
        ControlFlow::Continue(())
    }

    fn adopt(&mut self, old: &Self) {
        self.lines = Arc::clone(&old.lines);
    }
}

fn wrong(field: &str, text: &str) -> Invalid {
    let message = format!("{text:?} is no rate; use 1Ki to 100Gi, such as 500k or 1Mi");
    Invalid::new(format!("bandwidth.{field}"), message)
}

/// Reads a number with a unit of Kubernetes quantities.
fn rate(text: &str) -> Option<Rate> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    let rate = number.parse::<u64>().ok()?.checked_mul(unit)?;
    RATES.contains(&rate).then_some(Rate(rate))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::policy::testing::{answer, exchange};

    /// Well after the clock's beginning, so that all credit is there.
    const NOW: u64 = 10 * SECOND;

    fn spec(download: Option<&str>, upload: Option<&str>) -> Spec {
        Spec { download: download.map(Into::into), upload: upload.map(Into::into), key: vec![] }
    }

    fn policy(spec: &Spec) -> Bandwidth {
        Bandwidth::compile(spec, &Refs::default()).unwrap()
    }

    fn lane(policy: &Bandwidth, ip: &str) -> Lane {
        let mut ex = exchange("GET", "http://a.example/", &[]);
        ex.client.ip = ip.parse().unwrap();
        assert!(answer(policy, &mut ex).is_none());
        ex.paces.pop().unwrap().download.unwrap()
    }

    #[test]
    fn rates_are_read_with_their_units() {
        for (text, bytes) in [
            ("1024", 1024),
            ("500k", 500_000),
            ("1Ki", 1024),
            ("3M", 3_000_000),
            ("1Mi", 1 << 20),
            ("2G", 2_000_000_000),
            ("100Gi", 100 << 30),
        ] {
            assert_eq!(rate(text), Some(Rate(bytes)), "{text}");
        }
        for text in ["", "1", "1023", "101Gi", "1m", "1.5Mi", "-1", "1 Mi", "99999999999999999999"]
        {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn exchanges_of_one_key_stand_in_one_line_each_way() {
        let policy = policy(&spec(Some("16Ki"), Some("16Ki")));
        let (a, b) = (lane(&policy, "192.0.2.1"), lane(&policy, "192.0.2.1"));
        assert_eq!(a.reserve(16 * 1024, NOW), NOW - CREDIT);
        assert_eq!(b.reserve(16 * 1024, NOW), NOW - CREDIT + SECOND);
        assert_eq!(a.reserve(16 * 1024, NOW), NOW - CREDIT + 2 * SECOND);
        let other = lane(&policy, "192.0.2.2");
        assert_eq!(other.reserve(1, NOW), NOW - CREDIT);
        assert_eq!(a.reserve(1, NOW + 10 * SECOND), NOW + 10 * SECOND - CREDIT, "it was idle");
        let up = Lane { lines: Arc::clone(&policy.lines.upload), ..a };
        assert_eq!(up.reserve(1, NOW), NOW - CREDIT, "the other way has a line of its own");
    }

    #[test]
    fn parts_are_small_where_the_rate_is() {
        for (rate, most) in [(1 << 10, 512), (100_000, 5000), (1 << 30, 16 * 1024)] {
            let lane = Lane { lines: Arc::default(), key: 1, rate: Rate(rate) };
            assert_eq!(lane.most_at_once(), most, "{rate}");
        }
    }

    #[test]
    fn many_threads_pass_no_more_than_the_rate_and_its_credit() {
        let policy = policy(&spec(Some("1Mi"), None));
        let end = NOW + SECOND;
        let passed: u64 = thread::scope(|scope| {
            let policy = &policy;
            let one = move || {
                let lane = lane(policy, "192.0.2.1");
                let (mut now, mut passed) = (NOW, 0);
                loop {
                    // Who waits passes at its moment and asks again then.
                    now = now.max(lane.reserve(16 * 1024, now));
                    if now >= end {
                        return passed;
                    }
                    passed += 16 * 1024;
                }
            };
            let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let most = (1 << 20) + (1 << 20) / PARTS + MOST_AT_ONCE;
        assert!(((1 << 20)..=most).contains(&passed), "{passed}");
    }

    #[test]
    fn an_adopted_line_is_as_long_as_it_was() {
        let spec = spec(Some("1Ki"), None);
        let old = policy(&spec);
        lane(&old, "192.0.2.1").reserve(1024, NOW);
        let mut new = policy(&spec);
        new.adopt(&old);
        assert_eq!(lane(&new, "192.0.2.1").reserve(1, NOW), NOW - CREDIT + SECOND);
    }

    #[test]
    fn specs_out_of_range_are_refused_by_field() {
        for (spec, field) in [
            (spec(None, None), "bandwidth"),
            (spec(Some("fast"), None), "bandwidth.download"),
            (spec(Some("1Mi"), Some("1")), "bandwidth.upload"),
        ] {
            let error = Bandwidth::compile(&spec, &Refs::default()).unwrap_err();
            assert_eq!(error.field, field);
        }
    }
}
