//! The kinds that users write: Gateway API's and our own; most core kinds come from `k8s-openapi`.

pub mod cluster_trust_bundle;
pub mod consumer;
pub mod crd;
pub mod gateway;
pub mod middleware;
pub mod mode;
pub mod rate_limit;
pub mod schema;
pub mod target;
