//! The `mode` that stands beside every policy of a Middleware.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::Mode;

/// A policy's Spec and whether it is enforced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Moded<S> {
    /// `Enforce`; `Shadow`: what it would have answered is counted and logged, nothing is denied
    /// and nothing changed; or `Off`.
    #[serde(default, skip_serializing_if = "Mode::is_enforce")]
    pub mode: Mode,
    #[serde(flatten)]
    pub spec: S,
}
