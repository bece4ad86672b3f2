//! Edits the header fields of the request before it goes upstream (HTTPRoute
//! `requestHeaderModifier`).

use std::ops::ControlFlow;

use super::header_edits::HeaderEdits;
pub use super::header_edits::Spec;
use super::{Exchange, Invalid, Policy, Refs, Reply};

/// See the module's documentation.
#[derive(Debug)]
pub struct RequestHeaders(HeaderEdits);

impl Policy for RequestHeaders {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        HeaderEdits::compile(spec).map(RequestHeaders)
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        self.0.apply(&mut ex.request.headers);
        ControlFlow::Continue(())
    }
}
