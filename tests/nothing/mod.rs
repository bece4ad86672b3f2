//! What a policy may borrow where it needs nothing: no services, and a body of no bytes.

use std::future::ready;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::Request;
use tidegate::policy::Lent;
use tidegate::reason::Reason;
use tidegate::services::{Answer, Limits, ServiceId, Services};

/// See the module's documentation.
pub struct Nothing;

impl Services for Nothing {
    fn call(
        &self,
        _: ServiceId,
        _: Request<Bytes>,
        _: Limits,
    ) -> LocalBoxFuture<'_, Result<Answer, Reason>> {
        Box::pin(ready(Err(Reason::NoEndpoints)))
    }
}

impl Lent for Nothing {
    fn body(&self, _: usize) -> LocalBoxFuture<'_, Result<Bytes, Reason>> {
        Box::pin(ready(Ok(Bytes::new())))
    }
}
