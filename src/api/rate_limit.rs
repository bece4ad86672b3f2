//! `RateLimit`: how many requests are let through, attached to routes as `Middleware` is.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::gateway::PolicyStatus;
use super::target::TargetRef;
use crate::policy::rate_limit::needs_identity;
use crate::policy::rate_limit::spec::{FailureMode, Limit, Response, Spec, Store};
use crate::policy::{AnySpec, Mode, bandwidth, concurrency};

/// Limits and where they are counted.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tidegate.dev",
    version = "v1alpha1",
    kind = "RateLimit",
    plural = "ratelimits",
    shortname = "rl",
    category = "tidegate",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "Limits of requests, attached to routes by an ExtensionRef filter, by targetRefs or by an Ingress annotation.",
    printcolumn(name = "Requests", type_ = "integer", json_path = ".spec.limits[0].requests"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.limits) && self.limits.size() > 0) || (has(self.concurrency) && self.concurrency.size() > 0) || has(self.bandwidth)")
        .message("set at least one of limits, concurrency and bandwidth"),
    validation = Rule::new("!has(self.store) || (has(self.store.type) && self.store.type == 'Redis') == has(self.store.redis)")
        .message("store: set redis with type Redis, and only then"),
    validation = Rule::new("!has(self.store) || !has(self.store.redis) || (has(self.store.redis.topology) && self.store.redis.topology == 'Sentinel') == has(self.store.redis.sentinelMaster)")
        .message("store.redis: set sentinelMaster with topology Sentinel, and only then"),
    validation = Rule::new("!has(self.limits) || self.limits.all(l, !has(l.key) || l.key.all(k, (k.type in ['Header', 'Cookie', 'Query', 'Claim']) == has(k.name)))")
        .message("limits.key: set name with type Header, Cookie, Query or Claim, and only then"),
    validation = Rule::new("!has(self.limits) || self.limits.all(l, !has(l.key) || l.key.size() < 2 || l.key.all(k, k.type != 'All'))")
        .message("limits.key: All stands alone"),
    validation = Rule::new("!has(self.limits) || self.limits.all(l, !has(l.overrides) || l.overrides.all(o, [has(o.consumer), has(o.group), has(o.plan)].filter(set, set).size() == 1))")
        .message("limits.overrides: set exactly one of consumer, group and plan"),
    validation = Rule::new("!has(self.limits) || self.limits.all(l, !has(l.cost) || has(l.cost.number) != has(l.cost.expression))")
        .message("limits.cost: set exactly one of number and expression"),
    validation = Rule::new("!has(self.limits) || self.limits.all(l, !has(l.burst) || !has(l.algorithm) || l.algorithm in ['TokenBucket', 'LeakyBucket'])")
        .message("limits.burst: only for TokenBucket and LeakyBucket"),
    validation = Rule::new("!has(self.limits) || self.limits.all(l, !has(l.algorithm) || l.algorithm != 'SlidingLog' || l.requests <= 10000)")
        .message("limits.requests: at most 10000 for SlidingLog")
)]
pub struct RateLimitSpec {
    /// What it applies to besides the routes that name it; in its own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// `Enforce`; `Shadow`: what it would have refused is counted and logged, nothing is denied;
    /// or `Off`.
    #[serde(default, skip_serializing_if = "Mode::is_enforce")]
    pub mode: Mode,
    /// Where requests are counted; by default in each Tidegate pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
    /// What happens while the store does not answer. `Local` (the default): each pod counts for
    /// itself and lets its share through, the limit divided by the pods that are ready. `Open`:
    /// all is let through. `Closed`: nothing is, and the answer is 503.
    #[serde(default)]
    pub failure_mode: FailureMode,
    /// Limits that a request must have room in, all of them: it is charged to each or to none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub limits: Vec<Limit>,
    /// What answers say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
    /// How many requests may be under way at the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub concurrency: Vec<concurrency::Limit>,
    /// How fast bodies pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<bandwidth::Spec>,
}

impl RateLimitSpec {
    /// The policies of the object `NAMESPACE/NAME`, each with its field: limits that need nobody
    /// to be recognised, those that do, and what is beside them.
    pub fn policies(&self, object: &str) -> Vec<(&'static str, Mode, AnySpec)> {
        let spec = |limits: Vec<Limit>| {
            let of = |limits| Spec {
                object: object.to_owned(),
                store: self.store.clone().unwrap_or_default(),
                failure_mode: self.failure_mode,
                limits,
                response: self.response.clone().unwrap_or_default(),
            };
            (!limits.is_empty()).then(|| of(limits))
        };
        let (late, early) = self.limits.iter().cloned().partition(needs_identity);
        let early = spec(early).map(|spec| ("limits", self.mode, AnySpec::RateLimit(spec)));
        let late =
            spec(late).map(|spec| ("identityLimits", self.mode, AnySpec::IdentityLimit(spec)));
        early.into_iter().chain(late).chain(self.beside_limits()).collect()
    }

    /// The policies besides the limits of requests. Limits of concurrency are two, if some of them
    /// need to know who asks.
    fn beside_limits(&self) -> impl Iterator<Item = (&'static str, Mode, AnySpec)> {
        let limits = || self.concurrency.clone();
        let (identified, others) = concurrency::phases(&self.concurrency);
        let bandwidth = self.bandwidth.clone();
        let policies = [
            others.then(|| ("concurrency", AnySpec::Concurrency(limits()))),
            identified.then(|| ("identityConcurrency", AnySpec::IdentityConcurrency(limits()))),
            bandwidth.map(|spec| ("bandwidth", AnySpec::Bandwidth(spec))),
        ];
        policies.into_iter().flatten().map(|(field, policy)| (field, self.mode, policy))
    }
}
