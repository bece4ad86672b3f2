//! Whether a policy acts, only watches, or is left out. It is no part of a policy's Spec: a
//! policy does the same in every mode, and `proxy::permit` decides what becomes of it.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::concurrency::Slot;
use super::identity::Identity;
use crate::reason::Reason;

/// What becomes of a policy's decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// It applies.
    #[default]
    Enforce,
    /// It sees each request, and what it would have answered is counted and logged. Nothing is
    /// denied and nothing changed.
    Shadow,
    /// It is left out, as if it were not written.
    Off,
}

impl Mode {
    pub fn is_enforce(&self) -> bool {
        *self == Mode::Enforce
    }
}

/// What the policies in Shadow mode made of one request.
#[derive(Clone, Debug, Default)]
pub struct Shadowed {
    /// Who would have answered, and why; in the order of the policies.
    pub answers: Vec<(Kind, Reason)>,
    /// Who asks, as far as an authentication policy in Shadow mode found out. Only policies in
    /// that mode go by it.
    pub identity: Option<Arc<Identity>>,
    /// The places that the request has in limits of concurrency in that mode.
    pub slots: Vec<Arc<Slot>>,
}
