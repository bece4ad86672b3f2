//! Why a token is refused.

/// A cause, as metrics and `WWW-Authenticate` tell it (RFC 6750, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// It is not the compact form of a signed JWT whose parts are well-formed.
    Malformed,
    /// It is longer than tokens may be.
    TooLong,
    /// There is more than one.
    Several,
    /// Its header asks for something that is not supported (`crit`, `b64`, encryption).
    Unsupported,
    /// It was not signed by the issuer.
    WrongIssuer,
    /// Its `alg` is not one that the key allows.
    WrongAlgorithm,
    /// There is no key like the one that its header names.
    UnknownKey,
    WrongSignature,
    Expired,
    /// `nbf` or `iat` lies in the future.
    NotYetValid,
    /// It lives longer than `maxLifetime`.
    LivesTooLong,
    WrongAudience,
    /// A required claim is missing or has another value.
    WrongClaim,
}

impl Refusal {
    pub const ALL: &[Refusal] = &[
        Refusal::Malformed,
        Refusal::TooLong,
        Refusal::Several,
        Refusal::Unsupported,
        Refusal::WrongIssuer,
        Refusal::WrongAlgorithm,
        Refusal::UnknownKey,
        Refusal::WrongSignature,
        Refusal::Expired,
        Refusal::NotYetValid,
        Refusal::LivesTooLong,
        Refusal::WrongAudience,
        Refusal::WrongClaim,
    ];

    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::TooLong => "too_long",
            Refusal::Several => "several",
            Refusal::Unsupported => "unsupported",
            Refusal::WrongIssuer => "wrong_issuer",
            Refusal::WrongAlgorithm => "wrong_algorithm",
            Refusal::UnknownKey => "unknown_key",
            Refusal::WrongSignature => "wrong_signature",
            Refusal::Expired => "expired",
            Refusal::NotYetValid => "not_yet_valid",
            Refusal::LivesTooLong => "lives_too_long",
            Refusal::WrongAudience => "wrong_audience",
            Refusal::WrongClaim => "wrong_claim",
        }
    }

    /// The value of `error` (RFC 6750, 3.1).
    pub const fn error(self) -> &'static str {
        match self {
            Refusal::Several => "invalid_request",
            _ => "invalid_token",
        }
    }

    /// The value of `error_description`: no quotes, no backslashes. What would help somebody
    /// who makes up tokens is not told apart.
    pub const fn description(self) -> &'static str {
        match self {
            Refusal::Expired => "The token has expired",
            Refusal::NotYetValid => "The token is not valid yet",
            Refusal::WrongAudience => "The token is for another audience",
            Refusal::TooLong => "The token is too long",
            Refusal::Several => "There is more than one token",
            _ => "The token is not valid",
        }
    }
}
