#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]
