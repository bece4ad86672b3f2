//! The limits of [`super::concurrency`] whose key needs to know who asks: they come after
//! authentication.

use std::ops::ControlFlow;

use super::concurrency::{Concurrency, Phase, Spec};
use super::{Exchange, Invalid, Policy, Refs, Reply};

/// See the module's documentation.
#[derive(Debug)]
pub struct IdentityConcurrency(Concurrency);

impl Policy for IdentityConcurrency {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        Concurrency::of(spec, Phase::Identified).map(IdentityConcurrency)
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        self.0.enter(ex)
    }

    fn adopt(&mut self, old: &Self) {
        self.0.adopt(&old.0);
    }
}
