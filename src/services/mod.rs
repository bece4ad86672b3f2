//! What a policy may call while a request waits for it: other services, bounded in time and
//! memory.
//!
//! A policy knows a service by a [`ServiceId`] and asks it through [`Services`]; how the service
//! is reached (endpoints, connections, TLS) is the proxy's work. Protocols that are spoken to
//! such services are here too: one gRPC call ([`grpc`]) and the messages of Envoy's external
//! authorization ([`ext_authz`]). What an answer means is the policy's to say.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, Request, StatusCode};

use crate::reason::Reason;

pub mod ext_authz;
pub mod fetch;
pub mod grpc;
pub mod store;

/// A service that a Spec refers to, resolved and permitted by `translate`: the number of a
/// backend in the graph that the policy is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// The bounds of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the call to the last byte of the answer: connecting and trying again included.
    pub timeout: Duration,
    /// Most bytes of the answer's body that are kept.
    pub max_body: usize,
}

/// What a service answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: StatusCode,
    /// End-to-end fields: none that belongs to the connection.
    pub headers: HeaderMap,
    /// The body, or its beginning if it is longer than [`Limits::max_body`].
    pub body: Bytes,
    /// Whether `body` is all of it.
    pub is_whole: bool,
    pub trailers: HeaderMap,
}

/// Asks services.
pub trait Services {
    /// Sends `request` to one endpoint of `to` and reads the answer. The URI is the target's
    /// path and query; the field Host, if there is one, goes as Host or `:authority`.
    ///
    /// # Errors
    /// Why there is no answer: no endpoint, none that could be connected to, a connection that
    /// broke, or the time was over ([`Reason::BackendTimeout`]).
    fn call(
        &self,
        to: ServiceId,
        request: Request<Bytes>,
        limits: Limits,
    ) -> LocalBoxFuture<'_, Result<Answer, Reason>>;
}
