//! The limits of a RateLimit that go by who asks: by their keys, their overrides or what a request
//! costs. They come after authentication; all else is as in [`rate_limit`](super::rate_limit).

use std::ops::ControlFlow;

use super::rate_limit::{Limits, Spec};
use super::{Exchange, Invalid, Policy, Refs, Reply, ResponseHead};

/// See the module's documentation.
#[derive(Debug)]
pub struct IdentityLimit(pub(super) Limits);

impl Policy for IdentityLimit {
    type Spec = Spec;

    fn compile(spec: &Spec, refs: &Refs) -> Result<Self, Invalid> {
        Limits::compile(spec, refs).map(IdentityLimit)
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
