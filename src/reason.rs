//! The typed causes of everything Tidegate refuses, answers itself or cannot resolve.
//!
//! One word for one cause: the same `Reason` stands in status conditions, access-log lines,
//! metric labels and `explain`. Nothing else lives here; messages for people are made where
//! the cause is found, because only that place knows the object and the field.

use http::StatusCode;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $status:expr;)*) => {
        /// Why a request was answered by Tidegate and not by its backend, or why a part of an
        /// object could not be compiled.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of declaration: the bounded label set of the metrics.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The word that users meet, CamelCase as Kubernetes condition reasons are.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)* }
            }

            /// The status code of an answer that Tidegate gives for this reason.
            pub const fn status(self) -> StatusCode {
                match self { $(Reason::$name => $status,)* }
            }
        }
    };
}

reasons! {
    /// The head breaks RFC 9112 or RFC 9113, or a rule of ours that is stricter.
    BadRequest = StatusCode::BAD_REQUEST;
    /// Host is missing, repeated, invalid or differs from the target's authority (RFC 9112, 3.2).
    InvalidHost = StatusCode::BAD_REQUEST;
    /// The path has no normal form: `%00`, `%5C`, or an encoded dot segment.
    InvalidPath = StatusCode::BAD_REQUEST;
    /// Transfer-Encoding and Content-Length together, or a coding that is not one `chunked`.
    InvalidFraming = StatusCode::BAD_REQUEST;
    /// More header fields or more bytes of them than the limit (RFC 6585, 5).
    HeadTooLarge = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The target is longer than the limit (RFC 9110, 15.5.15).
    UriTooLong = StatusCode::URI_TOO_LONG;
    /// The version of HTTP is one that we do not speak (RFC 9110, 15.6.6).
    VersionNotSupported = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
    /// A method that no rule can serve: CONNECT without a protocol.
    MethodNotImplemented = StatusCode::NOT_IMPLEMENTED;
    /// The head or the body did not arrive in time (RFC 9110, 15.5.9).
    ClientTimeout = StatusCode::REQUEST_TIMEOUT;
    /// The client went away before the answer was complete. Never sent: for the log only.
    ClientGone = StatusCode::BAD_REQUEST;
    /// The connection's TLS server name belongs to another listener (RFC 9110, 15.5.20).
    Misdirected = StatusCode::MISDIRECTED_REQUEST;
    /// No rule of this listener matches.
    NoRoute = StatusCode::NOT_FOUND;
    /// The matched rule names no backend, or only backends of weight 0.
    NoBackend = StatusCode::INTERNAL_SERVER_ERROR;
    /// A backend that the rule names does not exist.
    BackendNotFound = StatusCode::INTERNAL_SERVER_ERROR;
    /// A reference into another namespace that no ReferenceGrant allows.
    RefNotPermitted = StatusCode::INTERNAL_SERVER_ERROR;
    /// A reference to a kind that cannot stand there.
    InvalidKind = StatusCode::INTERNAL_SERVER_ERROR;
    /// The Service port's appProtocol is one that we do not speak.
    UnsupportedProtocol = StatusCode::INTERNAL_SERVER_ERROR;
    /// A filter or policy of the rule is missing or cannot be compiled.
    InvalidPolicy = StatusCode::INTERNAL_SERVER_ERROR;
    /// A value of the rule is not supported: a filter or field that we do not know.
    UnsupportedValue = StatusCode::INTERNAL_SERVER_ERROR;
    /// The Service has no ready endpoint.
    NoEndpoints = StatusCode::SERVICE_UNAVAILABLE;
    /// No endpoint could be connected to.
    ConnectFailed = StatusCode::BAD_GATEWAY;
    /// Connecting took longer than the connect timeout.
    ConnectTimeout = StatusCode::GATEWAY_TIMEOUT;
    /// The backend closed or reset before its answer was complete.
    UpstreamReset = StatusCode::BAD_GATEWAY;
    /// The backend's answer breaks the protocol.
    UpstreamProtocol = StatusCode::BAD_GATEWAY;
    /// The backend did not begin its answer within the backend request timeout.
    BackendTimeout = StatusCode::GATEWAY_TIMEOUT;
    /// The whole exchange took longer than the rule's request timeout.
    RequestTimeout = StatusCode::GATEWAY_TIMEOUT;
    /// A request would have been sent again, but too much of the backend's load is retries.
    RetryBudgetSpent = StatusCode::SERVICE_UNAVAILABLE;
    /// The address is in a deny list, or not in the allow list.
    IpDenied = StatusCode::FORBIDDEN;
    /// A CORS preflight that the rule's policy answered.
    CorsPreflight = StatusCode::NO_CONTENT;
    /// The rate limit is spent (RFC 6585, 4).
    RateLimited = StatusCode::TOO_MANY_REQUESTS;
    /// Credentials are missing or wrong (RFC 9110, 15.5.2).
    Unauthenticated = StatusCode::UNAUTHORIZED;
    /// Known who it is, but an authorization policy does not let them (RFC 9110, 15.5.4).
    AccessDenied = StatusCode::FORBIDDEN;
    /// As many requests as a concurrency limit allows are under way (RFC 6585, 4).
    TooManyConcurrent = StatusCode::TOO_MANY_REQUESTS;
    /// The store of a rate limit gives no answer, and the limit's `failureMode` is Closed.
    LimitUnavailable = StatusCode::SERVICE_UNAVAILABLE;
    /// An external authorization service refused the request. It says the status itself.
    AuthDenied = StatusCode::FORBIDDEN;
    /// An external authorization service could not be asked or gave no usable answer, or the
    /// keys of a token's issuer were never to be had.
    AuthUnavailable = StatusCode::SERVICE_UNAVAILABLE;
    /// The body is longer than a policy that has to look at it may keep (RFC 9110, 15.5.14).
    BodyTooLarge = StatusCode::PAYLOAD_TOO_LARGE;
    /// A redirect policy answered.
    Redirected = StatusCode::FOUND;
    /// A direct-response policy answered.
    DirectResponse = StatusCode::OK;
    /// Nothing passed on a stream for as long as the limit allows. Never sent: for the log only.
    IdleTimeout = StatusCode::REQUEST_TIMEOUT;
    /// The process stopped before the stream had ended. Never sent: for the log only.
    Stopped = StatusCode::SERVICE_UNAVAILABLE;
    /// Memory or connections are short, and this stream was refused.
    Overloaded = StatusCode::SERVICE_UNAVAILABLE;
    /// A defect of Tidegate's own.
    Internal = StatusCode::INTERNAL_SERVER_ERROR;
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
