//! The HTTP/1.1 codec of Tidegate and its parser of tokens, compiled alone: what is fuzzed has to be compiled anew with
//! instruments, and of the whole crate that would take many minutes.

#[path = "../../src/proxy/clock.rs"]
pub mod clock;
#[path = "../../src/proxy/http1/encode.rs"]
pub mod encode;
#[path = "../../src/proxy/http1/framing.rs"]
pub mod framing;
#[path = "../../src/proxy/http1/head.rs"]
pub mod head;
#[path = "../../src/proxy/http1/names.rs"]
pub mod names;
#[path = "../../src/reason.rs"]
pub mod reason;

/// What the codec names by its path in the crate.
pub mod proxy {
    pub use crate::clock;
}

pub mod http1 {
    pub use crate::{encode, framing, head};
}

pub mod checks;

/// What is read before a signature is verified.
pub mod jwt {
    #[path = "../../../src/policy/jwt/algorithm.rs"]
    pub mod algorithm;
    pub mod check;
    #[path = "../../../src/policy/jwt/json.rs"]
    pub mod json;
    #[path = "../../../src/policy/jwt/refusal.rs"]
    pub mod refusal;
    #[path = "../../../src/policy/jwt/token.rs"]
    pub mod token;

    use token::Token;
}

/// What the parser names by its path in the crate.
pub mod policy {
    pub mod identity {
        pub type Claims = serde_json::Map<String, serde_json::Value>;
    }
}
