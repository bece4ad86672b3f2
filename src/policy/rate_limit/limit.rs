//! One limit, compiled: what it counts by, with which numbers, and what a request costs.

use std::sync::Arc;

use super::bucket;
use super::counts::Counts;
use super::exhausted::Exhausted;
use super::log::MOST_REQUESTS;
use super::numbers::Numbers;
use super::spec::{self, AlgorithmName, Replicas, StoreType};
use super::stats::Stats;
use crate::policy::expression::{Expression, Gives, Input};
use crate::policy::identity::Identity;
use crate::policy::limit_key::LimitKey;
use crate::policy::{Exchange, Invalid, duration};
use crate::services::store::Algorithm;

/// Most requests, burst and cost in a window.
const MOST: i64 = 1_000_000_000;
/// Most that one request costs.
const MOST_COST: i32 = 1_000_000;
/// Shortest and longest window, in milliseconds.
const WINDOWS: std::ops::RangeInclusive<u64> = 1_000..=31 * 24 * 3_600_000;

/// See the module's documentation.
#[derive(Debug)]
pub struct Limit {
    pub name: Box<str>,
    pub key: LimitKey,
    pub algorithm: Algorithm,
    pub window_ms: u64,
    /// The limit's own numbers come first, then those of its overrides.
    pub numbers: Box<[Alternative]>,
    /// Whom the numbers from the second one on are for, the most specific first.
    overrides: Box<[Who]>,
    pub cost: Cost,
    pub counts: Counts,
    /// What a store said to be spent.
    pub exhausted: Arc<Exhausted>,
    pub stats: Arc<Stats>,
}

/// One set of numbers.
#[derive(Debug)]
pub struct Alternative {
    /// For a store that all pods share.
    pub whole: Numbers,
    /// For counting in this pod.
    pub here: Numbers,
    /// A member of RateLimit-Policy.
    pub policy: Box<str>,
}

/// Whom an override is for; sorted by which counts first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Consumer(Box<str>),
    Group(Box<str>),
    Plan(Box<str>),
}

/// What a request costs.
#[derive(Debug)]
pub enum Cost {
    Number(u64),
    Expression(Box<Expression>),
}

/// What a limit is compiled with, besides its Spec.
#[derive(Clone, Copy, Debug)]
pub struct Around<'s> {
    pub store: &'s spec::Store,
    /// Tidegate pods that are ready, at least 1.
    pub replicas: u32,
}

impl Limit {
    pub fn compile(spec: &spec::Limit, around: Around<'_>) -> Result<Self, Invalid> {
        let at = |field: &str| format!("limits[{}].{field}", spec.name);
        check_name(&spec.name)?;
        let window = duration::parse_with_days(&spec.window);
        let window = window.map_err(|message| Invalid::new(at("window"), message))?;
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        if !WINDOWS.contains(&window_ms) {
            return Err(Invalid::new(at("window"), "out of range; use 1s to 31d"));
        }
        let mut pairs = vec![pair(spec, &at(""), spec.requests, spec.burst, window_ms)?];
        let mut overrides = Vec::with_capacity(spec.overrides.len());
        for (n, other) in spec.overrides.iter().enumerate() {
            let field = at(&format!("overrides[{n}]"));
            overrides.push((Who::of(&field, other)?, pairs.len()));
            pairs.push(pair(spec, &format!("{field}."), other.requests, other.burst, window_ms)?);
        }
        overrides.sort();
        let ticks = bucket::ticks(window_ms, pairs.iter().map(|(limit, _)| *limit));
        let order = std::iter::once(0).chain(overrides.iter().map(|(_, place)| *place));
        let numbers = order.map(|place| {
            let (limit, burst) = pairs[place];
            Alternative::new(&spec.name, Numbers::new(limit, burst, window_ms, ticks), around)
        });
        let (key, algorithm) = (LimitKey::compile(&at("key"), &spec.key)?, spec.algorithm.into());
        Ok(Limit {
            name: spec.name.as_str().into(),
            counts: Counts::new(algorithm, &key),
            key,
            algorithm,
            window_ms,
            numbers: numbers.collect(),
            overrides: overrides.into_iter().map(|(who, _)| who).collect(),
            cost: Cost::compile(&at("cost"), spec.cost.as_ref())?,
            exhausted: Arc::default(),
            stats: Arc::default(),
        })
    }

    /// The place of the numbers that hold for a request.
    pub fn numbers_of(&self, ex: &Exchange<'_>) -> usize {
        let Some(identity) = ex.identity.as_deref() else { return 0 };
        let place = self.overrides.iter().position(|who| who.is(identity));
        place.map_or(0, |place| place + 1)
    }

    /// Goes on with what the same limit of the graph before has counted.
    pub fn adopt(&mut self, old: &Self) {
        self.counts.adopt(&old.counts);
        self.exhausted = Arc::clone(&old.exhausted);
        self.stats = Arc::clone(&old.stats);
    }
}

/// Whether it takes somebody who was recognised to decide it.
pub fn needs_identity(spec: &spec::Limit) -> bool {
    let key = LimitKey::compile("", &spec.key);
    key.is_ok_and(|key| key.needs_identity())
        || !spec.overrides.is_empty()
        || Cost::compile("", spec.cost.as_ref()).is_ok_and(|cost| cost.needs_identity())
}

impl Alternative {
    fn new(name: &str, whole: Numbers, around: Around<'_>) -> Self {
        let replicas = around.store.local.as_ref().map(|local| local.replicas).unwrap_or_default();
        let here = match (around.store.r#type, replicas) {
            (StoreType::Local, Replicas::Each) => whole,
            _ => whole.share(around.replicas),
        };
        let Numbers { limit, window_ms, .. } = whole;
        let policy = format!("\"{name}\";q={limit};w={}", window_ms.div_ceil(1000)).into();
        Alternative { whole, here, policy }
    }
}

impl Who {
    fn of(field: &str, spec: &spec::Override) -> Result<Self, Invalid> {
        match (&spec.consumer, &spec.group, &spec.plan) {
            (Some(name), None, None) => Ok(Who::Consumer(name.as_str().into())),
            (None, Some(name), None) => Ok(Who::Group(name.as_str().into())),
            (None, None, Some(name)) => Ok(Who::Plan(name.as_str().into())),
            _ => Err(Invalid::new(field, "set exactly one of consumer, group and plan")),
        }
    }

    fn is(&self, identity: &Identity) -> bool {
        match self {
            Who::Consumer(name) => identity.consumer.as_ref().is_some_and(|c| c.name == *name),
            Who::Group(name) => identity.groups().any(|group| *group == **name),
            Who::Plan(name) => identity.plan() == Some(&**name),
        }
    }
}

impl Cost {
    fn compile(field: &str, spec: Option<&spec::Cost>) -> Result<Self, Invalid> {
        let Some(spec) = spec else { return Ok(Cost::Number(1)) };
        match (spec.number, &spec.expression) {
            (Some(number), None) => {
                let cost = u64::try_from(number).ok().filter(|_| (1..=MOST_COST).contains(&number));
                let message = || format!("{number} is out of range; use 1 to {MOST_COST}");
                let cost =
                    cost.ok_or_else(|| Invalid::new(format!("{field}.number"), message()))?;
                Ok(Cost::Number(cost))
            }
            (None, Some(text)) => {
                let field = format!("{field}.expression");
                let expression = Expression::compile(&field, text, Gives::Integer)?;
                Ok(Cost::Expression(Box::new(expression)))
            }
            _ => Err(Invalid::new(field, "set exactly one of number and expression")),
        }
    }

    fn needs_identity(&self) -> bool {
        match self {
            Cost::Number(_) => false,
            Cost::Expression(expression) => expression.needs_identity(),
        }
    }

    /// What a request costs. An expression that fails costs what a request does without one.
    pub fn of(&self, ex: &Exchange<'_>) -> u64 {
        match self {
            Cost::Number(cost) => *cost,
            Cost::Expression(expression) => {
                let cost = expression.integer(&Input::of(ex)).unwrap_or(1);
                u64::from(cost).min(u64::from(MOST_COST.unsigned_abs()))
            }
        }
    }

    /// Whether all requests cost the same.
    pub fn is_constant(&self) -> bool {
        matches!(self, Cost::Number(_))
    }
}

impl From<AlgorithmName> for Algorithm {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::TokenBucket => Algorithm::TokenBucket,
            AlgorithmName::LeakyBucket => Algorithm::LeakyBucket,
            AlgorithmName::FixedWindow => Algorithm::FixedWindow,
            AlgorithmName::SlidingWindow => Algorithm::SlidingWindow,
            AlgorithmName::SlidingLog => Algorithm::SlidingLog,
        }
    }
}

/// The name goes into header fields and keys of stores.
fn check_name(name: &str) -> Result<(), Invalid> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let at_ends = name.starts_with('-') || name.ends_with('-');
    if name.is_empty() || name.len() > 63 || !name.bytes().all(inner) || at_ends {
        let message = format!(
            "{name:?} is no name; use at most 63 lower-case letters, digits and `-` between them"
        );
        return Err(Invalid::new("limits.name", message));
    }
    Ok(())
}

/// The limit and the burst of one set of numbers, whose fields are below `at`.
fn pair(
    spec: &spec::Limit,
    at: &str,
    requests: i64,
    burst: Option<i64>,
    window_ms: u64,
) -> Result<(u64, u64), Invalid> {
    let invalid = |field: &str, message: String| Invalid::new(format!("{at}{field}"), message);
    let number = |field: &str, n: i64| match u64::try_from(n) {
        Ok(count) if (1..=MOST).contains(&n) => Ok(count),
        _ => Err(invalid(field, format!("{n} is out of range; use 1 to {MOST}"))),
    };
    let limit = number("requests", requests)?;
    let burst = burst.map(|burst| number("burst", burst)).transpose()?;
    let burst = match (spec.algorithm, burst) {
        (AlgorithmName::TokenBucket, burst) => burst.unwrap_or(limit),
        (AlgorithmName::LeakyBucket, burst) => burst.unwrap_or(1),
        (_, None) => limit,
        (_, Some(_)) => {
            let message = "only for TokenBucket and LeakyBucket; remove it or use one of these";
            return Err(invalid("burst", message.to_owned()));
        }
    };
    if spec.algorithm == AlgorithmName::SlidingLog && limit > MOST_REQUESTS {
        let message = format!(
            "{limit} are too many for SlidingLog, which remembers each; use at most \
             {MOST_REQUESTS}, or SlidingWindow"
        );
        return Err(invalid("requests", message));
    }
    if !Numbers::fills_in_time(limit, burst, window_ms) {
        let message = "an empty bucket would take over ten years to fill; lower the burst";
        return Err(invalid("burst", message.to_owned()));
    }
    Ok((limit, burst))
}
