//! Lets only so many requests be under way at the same time.
//!
//! A request takes a place for each limit and keeps it until its answer's last byte has been
//! given out or its client is gone; an upgraded connection keeps it until that ends. The places
//! travel with the exchange. Each Tidegate pod counts for itself, all of its workers together,
//! in a table of bounded size: see [`slots`]. Counts outlive graphs as long as the Spec is the
//! same. Limits whose key needs to know who asks come after authentication, as
//! [`super::identity_concurrency`].

mod slots;

use std::hash::RandomState;
use std::ops::ControlFlow;
use std::sync::Arc;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::slots::Slot;
use self::slots::{Slots, Taken};
use super::limit_key::{LimitKey, Part};
use super::{Exchange, Invalid, Policy, Refs, Reply};
use crate::reason::Reason;

/// Most requests under way that a limit can allow.
const MAX_REQUESTS: i32 = 1_000_000;
/// Most limits of one object.
const MAX_LIMITS: usize = 16;

/// So many requests may be under way at the same time, in each Tidegate pod. One more is
/// answered 429.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ConcurrencyLimit")]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Unique in the object.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Requests, upgraded connections among them.
    #[schemars(range(min = 1, max = 1000000))]
    pub requests: i32,
    /// What is counted together; the client's address by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub key: Vec<Part>,
}

/// The limits of one object, those that need to know who asks among them.
pub type Spec = Vec<Limit>;

/// See the module's documentation.
#[derive(Debug)]
pub struct Concurrency {
    limits: Vec<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    most: u64,
    key: LimitKey,
    counts: Arc<Counts>,
}

/// What outlives a graph. The random seed keeps an attacker from choosing keys that share a
/// place.
#[derive(Debug, Default)]
struct Counts {
    seed: RandomState,
    slots: Arc<Slots>,
}

/// Whether a policy has the limits that need to know who asks, or the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Early,
    Identified,
}

/// Whether there are limits that need to know who asks, and whether there are others. A key that
/// cannot be compiled counts as one that does not.
pub fn phases(limits: &[Limit]) -> (bool, bool) {
    let needs =
        |limit: &&Limit| LimitKey::compile("key", &limit.key).is_ok_and(|key| key.needs_identity());
    let identified = limits.iter().filter(needs).count();
    (identified > 0, identified < limits.len())
}

impl Policy for Concurrency {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        Concurrency::of(spec, Phase::Early)
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        self.enter(ex)
    }

    fn adopt(&mut self, old: &Self) {
        for (new, old) in self.limits.iter_mut().zip(&old.limits) {
            new.counts = Arc::clone(&old.counts);
        }
    }
}

impl Concurrency {
    /// The limits of `phase`.
    pub(super) fn of(spec: &Spec, phase: Phase) -> Result<Self, Invalid> {
        if spec.len() > MAX_LIMITS {
            let message = format!("{} limits, at most {MAX_LIMITS}; remove some", spec.len());
            return Err(Invalid::new("concurrency", message));
        }
        let mut limits = Vec::new();
        for (i, limit) in spec.iter().enumerate() {
            let field = |name: &str| format!("concurrency[{i}].{name}");
            if spec[..i].iter().any(|other| other.name == limit.name) {
                let message = format!("{:?} is there twice; use another name", limit.name);
                return Err(Invalid::new(field("name"), message));
            }
            let most = u64::try_from(limit.requests).unwrap_or_default();
            if !(1..=MAX_REQUESTS).contains(&limit.requests) || most > slots::MOST {
                let message = format!("out of range; use 1 to {MAX_REQUESTS}");
                return Err(Invalid::new(field("requests"), message));
            }
            let key = LimitKey::compile(&field("key"), &limit.key)?;
            if key.needs_identity() == (phase == Phase::Identified) {
                limits.push(Compiled { most, key, counts: Arc::default() });
            }
        }
        Ok(Concurrency { limits })
    }

    /// Takes a place for each limit, or none.
    pub(super) fn enter(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        let before = ex.slots.len();
        for Compiled { most, key, counts } in &self.limits {
            match counts.slots.take(key.local(ex, &counts.seed), *most) {
                Taken::Slot(slot) => ex.slots.push(Arc::new(slot)),
                Taken::Uncounted => {}
                Taken::Full => {
                    ex.slots.truncate(before);
                    let mut reply = Reply::of(Reason::TooManyConcurrent);
                    reply.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                    return ControlFlow::Break(reply);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit_key::PartType;
    use crate::policy::testing::{answer, exchange};

    fn limit(name: &str, requests: i32, kind: PartType, part: Option<&str>) -> Limit {
        let key = vec![Part { r#type: kind, name: part.map(Into::into) }];
        Limit { name: name.into(), requests, key }
    }

    fn policy(spec: &Spec) -> Concurrency {
        Concurrency::compile(spec, &Refs::default()).unwrap()
    }

    fn from(ip: &str) -> Exchange<'static> {
        let mut ex = exchange("GET", "http://a.example/", &[]);
        ex.client.ip = ip.parse().unwrap();
        ex
    }

    #[test]
    fn one_more_than_allowed_is_refused_until_one_has_ended() {
        let policy = policy(&vec![limit("a", 2, PartType::ClientIP, None)]);
        let (mut a, mut b) = (from("192.0.2.1"), from("192.0.2.1"));
        assert!(answer(&policy, &mut a).is_none() && answer(&policy, &mut b).is_none());
        let reply = answer(&policy, &mut from("192.0.2.1")).unwrap();
        assert_eq!((reply.status.as_u16(), reply.reason), (429, Reason::TooManyConcurrent));
        assert_eq!(reply.headers["retry-after"], "1");
        assert!(answer(&policy, &mut from("192.0.2.2")).is_none());
        drop(a);
        assert!(answer(&policy, &mut from("192.0.2.1")).is_none());
    }

    #[test]
    fn a_request_takes_all_of_its_places_or_none() {
        let spec =
            vec![limit("all", 10, PartType::All, None), limit("one", 1, PartType::ClientIP, None)];
        let policy = policy(&spec);
        let mut first = from("192.0.2.1");
        assert!(answer(&policy, &mut first).is_none());
        let mut second = from("192.0.2.1");
        assert!(answer(&policy, &mut second).is_some());
        assert!(second.slots.is_empty());
        assert_eq!(policy.limits[0].counts.slots.under_way(), 1);
    }

    #[test]
    fn limits_by_who_asks_are_left_to_the_later_policy() {
        let spec = vec![
            limit("ip", 1, PartType::ClientIP, None),
            limit("who", 1, PartType::Consumer, None),
        ];
        assert_eq!(policy(&spec).limits.len(), 1);
        assert_eq!(Concurrency::of(&spec, Phase::Identified).unwrap().limits.len(), 1);
        assert_eq!(phases(&spec), (true, true));
        assert_eq!(phases(&spec[..1]), (false, true));
        assert_eq!(phases(&spec[1..]), (true, false));
        assert_eq!(phases(&[]), (false, false));
    }

    #[test]
    fn an_adopted_limit_still_counts_those_that_are_under_way() {
        let spec = vec![limit("a", 1, PartType::All, None)];
        let old = policy(&spec);
        let mut held = from("192.0.2.1");
        assert!(answer(&old, &mut held).is_none());
        let mut new = policy(&spec);
        new.adopt(&old);
        drop(old);
        assert!(answer(&new, &mut from("192.0.2.1")).is_some());
        drop(held);
        assert!(answer(&new, &mut from("192.0.2.1")).is_none());
    }

    #[test]
    fn specs_out_of_range_are_refused_by_field() {
        let ip = |name: &str, requests| limit(name, requests, PartType::ClientIP, None);
        for (spec, field) in [
            (vec![ip("a", 0)], "concurrency[0].requests"),
            (vec![ip("a", 1), ip("b", 1_000_001)], "concurrency[1].requests"),
            (vec![ip("a", 1), ip("a", 2)], "concurrency[1].name"),
            (vec![limit("a", 1, PartType::Header, None)], "concurrency[0].key[0].name"),
            ((0..17).map(|n| ip(&n.to_string(), 1)).collect(), "concurrency"),
        ] {
            let error = Concurrency::compile(&spec, &Refs::default()).unwrap_err();
            assert_eq!(error.field, field);
        }
    }
}
