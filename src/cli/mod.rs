//! One file per sub-command; wiring only.
