//! Tidegate's own HTTP/1.1 (RFC 9112), towards clients and towards backends.
//!
//! ```text
//! bytes -> head (a request or a response) -> framing (its body) -> encode -> bytes
//! ```
//!
//! `head`, `framing` and `encode` are the codec: pure functions over buffers, without sockets,
//! tasks or deadlines. What the specification leaves to a recipient's taste is refused here,
//! because a proxy that reads a message otherwise than the next recipient lets requests be
//! smuggled. HTTP/2 is hyper's. What a field means to a proxy is decided elsewhere
//! (`super::head`, `super::hop_by_hop`).

mod body;
pub mod buffered;
pub mod client;
pub mod download;
pub mod encode;
pub mod framing;
pub mod head;
mod names;
mod respond;
pub mod server;
mod shared;
pub mod spare;
mod upload;

pub use body::Body;
pub use shared::{Interim, Lane};
