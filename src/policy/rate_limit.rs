//! Lets only so many requests through: counted in this pod or in a store that pods share, by what
//! a key says, with five algorithms.
//!
//! A RateLimit becomes up to two policies of the same code: this one, with the limits that can be
//! decided before anybody is recognised, and [`IdentityLimit`](super::identity_limit) after that.
//! All limits of a request are decided together: see [`decide`]. In this pod a limit is one
//! compare-and-swap: see [`bucket`] and [`window`]; logs have short locks: see [`log`]. State
//! outlives graphs as long as the Spec is the same.

mod answer;
mod bucket;
mod counts;
mod decide;
mod exhausted;
mod limit;
mod log;
mod numbers;
pub mod spec;
mod stats;
pub(super) mod table;
mod unsettled;
mod window;

use std::ops::ControlFlow;
use std::sync::Arc;

use http::StatusCode;

pub use self::decide::Ledger;
pub use self::limit::needs_identity;
use self::limit::{Around, Limit};
pub use self::spec::Spec;
use self::spec::{FailureMode, Headers, StoreType};
pub use self::stats::Outcome;
pub use self::unsettled::Unsettled;
use super::limit_key::DIGEST;
use super::{AnyPolicy, Exchange, Invalid, Policy, Refs, Reply, ResponseHead};
use crate::services::store::{Algorithm, Store};

/// The limits that need to know nothing of who asks. See the module's documentation.
#[derive(Debug)]
pub struct RateLimit(pub(super) Limits);

/// The limits of one policy, compiled.
#[derive(Debug)]
pub struct Limits {
    /// `NAMESPACE/NAME` of the RateLimit.
    object: Box<str>,
    namespace: Arc<str>,
    store: Option<Arc<dyn Store>>,
    failure_mode: FailureMode,
    status: StatusCode,
    headers: Headers,
    limits: Box<[Limit]>,
}

impl Policy for RateLimit {
    type Spec = Spec;

    fn compile(spec: &Spec, refs: &Refs) -> Result<Self, Invalid> {
        Limits::compile(spec, refs).map(RateLimit)
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        self.0.decide_alone(ex).await
    }

    fn on_response(&self, ex: &Exchange<'_>, res: &mut ResponseHead) {
        self.0.describe(ex, res);
    }

    fn adopt(&mut self, old: &Self) {
        self.0.adopt(&old.0);
    }
}

impl AnyPolicy {
    /// The limits of a policy that has some: they are decided with those of its neighbours.
    pub fn limits(&self) -> Option<&Limits> {
        match self {
            AnyPolicy::RateLimit(policy) => Some(&policy.0),
            AnyPolicy::IdentityLimit(policy) => Some(&policy.0),
            _ => None,
        }
    }
}

impl Limits {
    /// Compiles the limits of a Spec.
    pub(super) fn compile(spec: &Spec, refs: &Refs) -> Result<Self, Invalid> {
        check_store(&spec.store)?;
        let store = match (spec.store.r#type, &refs.store) {
            (StoreType::Local, _) => None,
            (StoreType::Redis, Some(store)) => Some(Arc::clone(store)),
            (StoreType::Redis, None) => {
                return Err(Invalid::new("store.redis", "there is no such store; describe it"));
            }
        };
        let status = spec.response.status.unwrap_or(429);
        let status = u16::try_from(status).ok().filter(|code| (400..600).contains(code));
        let status = status
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or_else(|| Invalid::new("response.status", "out of range; use 400 to 599"))?;
        let around = Around { store: &spec.store, replicas: refs.replicas.max(1) };
        let limits = spec.limits.iter().map(|limit| Limit::compile(limit, around));
        let limits: Box<[Limit]> = limits.collect::<Result<_, _>>()?;
        if limits.len() > spec::MOST_LIMITS {
            let message =
                format!("{} are too many; use at most {}", limits.len(), spec::MOST_LIMITS);
            return Err(Invalid::new("limits", message));
        }
        for (n, limit) in limits.iter().enumerate() {
            if limits[..n].iter().any(|other| other.name == limit.name) {
                let message = format!("{} is there twice; names are unique", limit.name);
                return Err(Invalid::new("limits.name", message));
            }
        }
        let (namespace, _) = spec.object.split_once('/').unwrap_or_default();
        Ok(Limits {
            object: spec.object.as_str().into(),
            namespace: namespace.into(),
            store,
            failure_mode: spec.failure_mode,
            status,
            headers: spec.response.headers,
            limits,
        })
    }

    /// Decides these limits and no others.
    pub(super) async fn decide_alone(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        Ledger::default().decide([self], ex, |_| false).await
    }

    pub(super) fn adopt(&mut self, old: &Self) {
        self.limits.iter_mut().zip(&old.limits).for_each(|(new, old)| new.adopt(old));
    }

    /// Whether these are counted in that store.
    pub fn count_in(&self, store: &Arc<dyn Store>) -> bool {
        self.store.as_ref().is_some_and(|own| Arc::ptr_eq(own, store))
    }

    /// How often each limit let requests through or not, in the order of [`Outcome::ALL`], by
    /// `NAMESPACE/NAME/LIMIT`.
    pub fn totals(&self) -> impl Iterator<Item = (String, [u64; Outcome::ALL.len()])> {
        let name = |limit: &Limit| format!("{}/{}", self.object, limit.name);
        self.limits.iter().map(move |limit| (name(limit), limit.stats.totals()))
    }

    /// What a store counts a request's key under. Counts of another algorithm or window are others.
    fn store_key(&self, limit: &Limit, digest: &[u8; DIGEST]) -> Box<[u8]> {
        let algorithm = match limit.algorithm {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => 'b',
            Algorithm::FixedWindow => 'f',
            Algorithm::SlidingWindow => 's',
            Algorithm::SlidingLog => 'l',
        };
        let (object, name, window) = (&self.object, &limit.name, limit.window_ms);
        let digest = u128::from_be_bytes(*digest);
        format!("{object}/{name}/{algorithm}{window}/{digest:032x}").into_bytes().into()
    }
}

fn check_store(store: &spec::Store) -> Result<(), Invalid> {
    let message = match (store.r#type, &store.redis) {
        (StoreType::Redis, None) => "missing, but `type` is Redis; describe it",
        (StoreType::Local, Some(_)) => "only for `type: Redis`; set that type or remove it",
        _ => return Ok(()),
    };
    Err(Invalid::new("store.redis", message))
}

#[cfg(test)]
mod tests;
