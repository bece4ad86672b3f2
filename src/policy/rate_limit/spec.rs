//! What users write of a RateLimit: limits, where they are counted, and what refusals look like.
//!
//! Only the form is here. What the numbers must be to make sense together is checked where they
//! are compiled, and by the rules of the CRD.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::limit_key::Part;

/// Most limits of one object.
pub const MOST_LIMITS: usize = 16;

/// A RateLimit without where it is attached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// The object, as `NAMESPACE/NAME`: what is counted is counted under its name.
    pub object: String,
    pub store: Store,
    pub failure_mode: FailureMode,
    pub limits: Vec<Limit>,
    pub response: Response,
}

impl Spec {
    /// Whether it matters how many Tidegate pods there are.
    pub fn counts_by_replicas(&self) -> bool {
        let local = self.store.local.as_ref();
        self.store.r#type == StoreType::Redis
            || local.is_some_and(|local| local.replicas == Replicas::Shared)
    }
}

/// Where requests are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitStore")]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// `Local` (the default): in each Tidegate pod, in memory. `Redis`: in a Redis or Valkey that
    /// all pods share.
    #[serde(default)]
    pub r#type: StoreType,
    /// How pods count that do not share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalStore>,
    /// The Redis, for that type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisStore>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitStoreType")]
pub enum StoreType {
    #[default]
    Local,
    Redis,
}

/// How pods count that do not share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitLocalStore")]
#[serde(rename_all = "camelCase")]
pub struct LocalStore {
    /// `Each` (the default): every pod lets all of a limit through. `Shared`: every pod lets its
    /// part through, which is the limit divided by the number of pods that are ready, and at
    /// least one request. Where a store does not answer, it is always `Shared`.
    #[serde(default)]
    pub replicas: Replicas,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitReplicas")]
pub enum Replicas {
    #[default]
    Each,
    Shared,
}

/// A Redis or Valkey, version 6 or later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitRedis")]
#[serde(rename_all = "camelCase")]
pub struct RedisStore {
    /// `Single` (the default), `Sentinel` or `Cluster`.
    #[serde(default)]
    pub topology: Topology,
    /// `HOST:PORT` of the server, of the Sentinels, or of some nodes of the Cluster.
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(min = 3, max = 261),
            regex(pattern = r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$")
        )
    )]
    pub addresses: Vec<String>,
    /// What the Sentinels call the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub sentinel_master: Option<String>,
    /// Connects with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// A Secret of this namespace with `username` and `password`, and for Sentinels that ask for
    /// them `sentinelUsername` and `sentinelPassword`; each may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectName>,
    /// The number of the database, 0 by default; always 0 in a Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1023))]
    pub database: Option<i32>,
    /// What all keys begin with, `tidegate:` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9:._/-]*$"))]
    pub key_prefix: Option<String>,
    /// How long a request waits for all its limits at most, `10ms` by default; at most 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub timeout: Option<String>,
    /// How long connecting may take, `1s` by default; no request waits for it. At most 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub connect_timeout: Option<String>,
    /// Connections that each worker keeps to each server, 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8))]
    pub connections: Option<i32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitRedisTopology")]
pub enum Topology {
    #[default]
    Single,
    Sentinel,
    Cluster,
}

/// TLS to a Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitRedisTls")]
#[serde(rename_all = "camelCase")]
pub struct RedisTls {
    /// A Secret of this namespace with the certificates of the CA in `ca.crt`; by default those
    /// of the system are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificate_ref: Option<ObjectName>,
    /// The name that the servers' certificates must have; by default the host that is connected
    /// to, which Sentinels and Clusters often tell as an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

/// An object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitObjectName")]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What happens while the store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitFailureMode")]
pub enum FailureMode {
    #[default]
    Local,
    Open,
    Closed,
}

/// How many requests are let through, and by what they are counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitLimit")]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Its name in header fields and metrics, unique in the object.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Requests, or whatever they cost, in each window.
    #[schemars(range(min = 1, max = 1000000000))]
    pub requests: i64,
    /// The window, such as `1s`, `1m`, `1h` or `31d`: from 1s to 31d.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,2}d|([0-9]{1,5}(h|m|s|ms)){1,4})$"))]
    pub window: String,
    /// `TokenBucket` (the default): `burst` at once, and what was taken comes back evenly over
    /// the window. `LeakyBucket`: the same with a `burst` of 1, so requests are evenly spaced.
    /// `FixedWindow`: all of it in each window, which begin at multiples of their length since
    /// 1970; up to twice as much around the end of one. `SlidingWindow`: the same with the share
    /// of the window before that is not over yet. `SlidingLog`: never more in any span of the
    /// window's length, of at most 10000 requests, because each is remembered.
    #[serde(default)]
    pub algorithm: AlgorithmName,
    /// What may come at once, for the buckets; `requests` by default, for the leaky one 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000000))]
    pub burst: Option<i64>,
    /// What requests are counted by, all parts together; `ClientIP` by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub key: Vec<Part>,
    /// Other numbers for some of those who ask: of several that fit one for a consumer counts
    /// before one for a group, and that before one for a plan; of the same sort the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub overrides: Vec<Override>,
    /// What a request counts for, 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitAlgorithm")]
pub enum AlgorithmName {
    #[default]
    TokenBucket,
    LeakyBucket,
    FixedWindow,
    SlidingWindow,
    SlidingLog,
}

/// Other numbers for a consumer, a group or a plan: exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitOverride")]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// The name of a Consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub consumer: Option<String>,
    /// A group of the Consumer or of the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub group: Option<String>,
    /// The plan of the Consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub plan: Option<String>,
    /// Requests, or whatever they cost, in each window.
    #[schemars(range(min = 1, max = 1000000000))]
    pub requests: i64,
    /// What may come at once, for the buckets; `requests` by default, for the leaky one 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000000))]
    pub burst: Option<i64>,
}

/// What a request counts for: a number or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitCost")]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// The same for all requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub number: Option<i32>,
    /// CEL over the request and who asks, giving a whole number: more than 1000000 counts as that.
    /// Where it fails, or is less than 0, the request counts for 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expression: Option<String>,
}

/// What answers say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitResponse")]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// The status of a refusal, 429 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<i32>,
    /// Header fields of all answers: `Standard` for RateLimit and RateLimit-Policy, `Legacy` for
    /// X-RateLimit-Limit, -Remaining and -Reset, `All` (the default) or `None`. A refusal always
    /// has Retry-After.
    #[serde(default)]
    pub headers: Headers,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RateLimitHeaders")]
pub enum Headers {
    #[default]
    All,
    Standard,
    Legacy,
    None,
}
