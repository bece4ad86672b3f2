//! Lets only so many requests through: a token bucket in each Tidegate pod.
//!
//! The bucket is kept as the time at which it will be full again (GCRA), one atomic word and
//! one compare-and-swap for a request: see [`bucket`]. Limits by client keep their words in a
//! table of fixed size: see [`table`]. State outlives graphs as long as the Spec is the same.

mod bucket;
mod table;

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::bucket::{Bucket, Verdict};
use self::table::Table;
use super::header_edits::header_name;
use super::{Exchange, Invalid, Policy, Quota, Refs, Reply, ResponseHead, duration};
use crate::reason::Reason;

const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Most requests of `average` and `burst`.
const MAX_REQUESTS: i32 = 1_000_000;
/// Longest period.
const MAX_PERIOD: Duration = Duration::from_hours(24);
/// Longest time for an empty bucket to fill: keeps the arithmetic far from overflow.
const MAX_FILL: Duration = Duration::from_hours(10 * 365 * 24);

/// How many requests are let through, and by what they are counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitPolicy")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The limit, counted by each Tidegate pod for itself.
    pub local: Local,
    /// What is counted as one client; its address by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
}

/// A token bucket: `average` requests in each `period`, and `burst` at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Local {
    /// Requests in each period.
    #[schemars(range(min = 1, max = 1000000))]
    pub average: i32,
    /// Requests that may come at once; `average` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub burst: Option<i32>,
    /// The period, such as `1s` (the default), `1m` or `1h`; at most 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub period: Option<String>,
}

/// What is counted as one client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// `ClientIP` (IPv6 by /64), `Header`, or `All` for one limit that all share.
    pub r#type: KeyType,
    /// The name of the header field, for `Header`. Requests without it are counted by address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyType {
    #[default]
    ClientIP,
    Header,
    All,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct RateLimit {
    bucket: Bucket,
    counts: Counts,
}

#[derive(Debug)]
enum Counts {
    All(Arc<AtomicU64>),
    ByClient {
        /// None: by address only.
        header: Option<HeaderName>,
        clients: Arc<Clients>,
    },
}

/// The random seed keeps an attacker from choosing keys that share a place.
#[derive(Debug, Default)]
struct Clients {
    seed: RandomState,
    table: Table,
}

impl Policy for RateLimit {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        let key = spec.key.clone().unwrap_or_default();
        let header = match (key.r#type, &key.header) {
            (KeyType::Header, Some(name)) => Some(header_name("key.header", name)?),
            (KeyType::Header, None) => {
                let message = "missing, but `type` is Header; name the header field";
                return Err(Invalid::new("key.header", message));
            }
            (_, Some(_)) => {
                let message = "only for `type: Header`; set that type or remove the name";
                return Err(Invalid::new("key.header", message));
            }
            (_, None) => None,
        };
        let counts = match key.r#type {
            KeyType::All => Counts::All(Arc::default()),
            _ => Counts::ByClient { header, clients: Arc::default() },
        };
        Ok(RateLimit { bucket: compile_bucket(&spec.local)?, counts })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        let (quota, retry_after) = match self.take(ex) {
            Verdict::Admitted(quota) => (quota, None),
            Verdict::Refused { quota, retry_after_s } => (quota, Some(retry_after_s)),
        };
        if ex.quota.is_none_or(|before| quota.remaining <= before.remaining) {
            ex.quota = Some(quota);
        }
        let Some(retry_after) = retry_after else { return ControlFlow::Continue(()) };
        let mut reply = Reply::of(Reason::RateLimited);
        reply.headers.insert(RETRY_AFTER, retry_after.into());
        describe(quota, &mut reply.headers);
        ControlFlow::Break(reply)
    }

    fn on_response(&self, ex: &Exchange<'_>, res: &mut ResponseHead) {
        if let Some(quota) = ex.quota {
            describe(quota, &mut res.headers);
        }
    }

    fn adopt(&mut self, old: &Self) {
        match (&mut self.counts, &old.counts) {
            (Counts::All(new), Counts::All(old)) => *new = Arc::clone(old),
            (Counts::ByClient { clients: new, .. }, Counts::ByClient { clients: old, .. }) => {
                *new = Arc::clone(old);
            }
            _ => {}
        }
    }
}

impl RateLimit {
    fn take(&self, ex: &Exchange<'_>) -> Verdict {
        match &self.counts {
            Counts::All(full_at) => self.bucket.take(full_at, ex.now_ms),
            Counts::ByClient { header, clients } => {
                let key = clients.key(header.as_ref(), ex);
                let full_at = clients.table.place(key, bucket::nanos(ex.now_ms));
                self.bucket.take(full_at, ex.now_ms)
            }
        }
    }
}

impl Clients {
    /// What stands for the client: a hash of all values of the header field, or of the address.
    fn key(&self, header: Option<&HeaderName>, ex: &Exchange<'_>) -> u64 {
        let mut hasher = self.seed.build_hasher();
        let mut found = false;
        for value in header.into_iter().flat_map(|name| ex.request.headers.get_all(name)) {
            found = true;
            value.as_bytes().hash(&mut hasher);
        }
        if !found {
            network(ex.client.ip).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// An IPv4 address, or the /64 of an IPv6 address: what one customer usually has.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

fn compile_bucket(spec: &Local) -> Result<Bucket, Invalid> {
    let requests = |field: &str, n: i32| match u32::try_from(n) {
        Ok(count) if (1..=MAX_REQUESTS).contains(&n) => Ok(count),
        _ => {
            let message = format!("{n} is out of range; use 1 to {MAX_REQUESTS}");
            Err(Invalid::new(format!("local.{field}"), message))
        }
    };
    let average = requests("average", spec.average)?;
    let burst = requests("burst", spec.burst.unwrap_or(spec.average))?;
    let wrong = |message: String| Invalid::new("local.period", message);
    let period = duration::parse(spec.period.as_deref().unwrap_or("1s")).map_err(wrong)?;
    if period.is_zero() || period > MAX_PERIOD {
        return Err(wrong("out of range; use more than 0s and at most 24h".into()));
    }
    if period * burst / average > MAX_FILL {
        let message = "an empty bucket would take over ten years to fill; lower the burst";
        return Err(Invalid::new("local.burst", message));
    }
    Ok(Bucket::new(average, burst, period))
}

fn describe(quota: Quota, headers: &mut HeaderMap) {
    headers.insert(X_LIMIT, HeaderValue::from(quota.limit));
    headers.insert(X_REMAINING, HeaderValue::from(quota.remaining));
    headers.insert(X_RESET, HeaderValue::from(quota.reset_s));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{answer, exchange};

    fn spec(average: i32, burst: Option<i32>, period: Option<&str>, key: Key) -> Spec {
        let local = Local { average, burst, period: period.map(Into::into) };
        Spec { local, key: Some(key) }
    }

    fn limit(spec: &Spec) -> RateLimit {
        RateLimit::compile(spec, &Refs::default()).unwrap()
    }

    fn all() -> Key {
        Key { r#type: KeyType::All, header: None }
    }

    fn from(ip: &str, headers: &[(&str, &str)]) -> Exchange<'static> {
        let mut ex = exchange("GET", "http://a.example/", headers);
        ex.client.ip = ip.parse().unwrap();
        ex
    }

    /// How many of `tries` requests of each client are let through.
    fn admitted(limit: &RateLimit, ip: &str, headers: &[(&str, &str)], tries: usize) -> usize {
        (0..tries).filter(|_| answer(limit, &mut from(ip, headers)).is_none()).count()
    }

    #[test]
    fn a_refusal_says_when_to_come_again() {
        let limit = limit(&spec(1, None, Some("1m"), all()));
        assert!(answer(&limit, &mut from("192.0.2.1", &[])).is_none());
        let reply = answer(&limit, &mut from("192.0.2.1", &[])).unwrap();
        assert_eq!(reply.status, 429);
        for (name, value) in [
            ("retry-after", "60"),
            ("x-ratelimit-limit", "1"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "60"),
        ] {
            assert_eq!(reply.headers[name], value, "{name}");
        }
    }

    #[test]
    fn admitted_responses_say_what_is_left_of_the_tightest_limit() {
        for tight_first in [true, false] {
            let wide = limit(&spec(100, None, None, all()));
            let tight = limit(&spec(3, None, None, all()));
            let order = if tight_first { [&tight, &wide] } else { [&wide, &tight] };
            let mut ex = from("192.0.2.1", &[]);
            for limit in order {
                assert!(answer(limit, &mut ex).is_none());
            }
            let mut res = ResponseHead { status: http::StatusCode::OK, headers: HeaderMap::new() };
            wide.on_response(&ex, &mut res);
            assert_eq!(res.headers["x-ratelimit-limit"], "3");
            assert_eq!(res.headers["x-ratelimit-remaining"], "2");
        }
    }

    #[test]
    fn clients_are_told_apart_by_address_and_ipv6_by_its_64() {
        let limit = limit(&spec(2, None, Some("1h"), Key::default()));
        assert_eq!(admitted(&limit, "192.0.2.1", &[], 5), 2);
        assert_eq!(admitted(&limit, "192.0.2.2", &[], 5), 2);
        assert_eq!(admitted(&limit, "::ffff:192.0.2.2", &[], 5), 0);
        assert_eq!(admitted(&limit, "2001:db8::1", &[], 5), 2);
        assert_eq!(admitted(&limit, "2001:db8::ffff:2", &[], 5), 0);
        assert_eq!(admitted(&limit, "2001:db8:0:1::1", &[], 5), 2);
    }

    #[test]
    fn a_missing_header_falls_back_to_the_address() {
        let key = Key { r#type: KeyType::Header, header: Some("X-Key".into()) };
        let limit = limit(&spec(1, None, Some("1h"), key));
        assert_eq!(admitted(&limit, "192.0.2.1", &[("x-key", "a")], 3), 1);
        assert_eq!(admitted(&limit, "192.0.2.2", &[("x-key", "a")], 3), 0);
        assert_eq!(admitted(&limit, "192.0.2.1", &[("x-key", "b")], 3), 1);
        assert_eq!(admitted(&limit, "192.0.2.1", &[], 3), 1);
        assert_eq!(admitted(&limit, "192.0.2.2", &[], 3), 1);
    }

    #[test]
    fn an_adopted_limit_stays_spent() {
        for key in [all(), Key::default()] {
            let spec = spec(1, None, Some("1h"), key);
            let old = limit(&spec);
            assert_eq!(admitted(&old, "192.0.2.1", &[], 2), 1);
            let mut new = limit(&spec);
            new.adopt(&old);
            assert_eq!(admitted(&new, "192.0.2.1", &[], 2), 0);
        }
    }

    #[test]
    fn specs_out_of_range_are_refused_by_field() {
        let header = |t, name: Option<&str>| Key { r#type: t, header: name.map(Into::into) };
        for (spec, field) in [
            (spec(0, None, None, all()), "local.average"),
            (spec(1, Some(0), None, all()), "local.burst"),
            (spec(1, None, Some("0s"), all()), "local.period"),
            (spec(1, None, Some("25h"), all()), "local.period"),
            (spec(1, None, Some("fast"), all()), "local.period"),
            (spec(1, Some(1_000_000), Some("24h"), all()), "local.burst"),
            (spec(1, None, None, header(KeyType::Header, None)), "key.header"),
            (spec(1, None, None, header(KeyType::Header, Some("a b"))), "key.header"),
            (spec(1, None, None, header(KeyType::All, Some("a"))), "key.header"),
        ] {
            let error = RateLimit::compile(&spec, &Refs::default()).unwrap_err();
            assert_eq!(error.field, field);
        }
    }
}
