//! One file per sub-command; wiring only.

pub mod crds;
pub mod validate;
