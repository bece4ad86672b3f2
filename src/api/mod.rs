//! The kinds that users write: Gateway API's and our own; core kinds come from `k8s-openapi`.

pub mod crd;
pub mod gateway;
pub mod middleware;
pub mod rate_limit;
pub mod target;
