//! Edits the header fields of the response before it goes to the client (HTTPRoute
//! `responseHeaderModifier`).

use super::header_edits::HeaderEdits;
pub use super::header_edits::Spec;
use super::{Exchange, Invalid, Policy, Refs, ResponseHead};

/// See the module's documentation.
#[derive(Debug)]
pub struct ResponseHeaders(HeaderEdits);

impl Policy for ResponseHeaders {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        HeaderEdits::compile(spec).map(ResponseHeaders)
    }

    fn on_response(&self, _ex: &Exchange<'_>, res: &mut ResponseHead) {
        self.0.apply(&mut res.headers);
    }
}
