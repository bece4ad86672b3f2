//! gRPC as a proxy has to know it: which requests speak it, their deadlines, and how our own
//! errors look to them. Everything else of gRPC is HTTP/2 and passes as it is.
//!
//! A gRPC client reads the status of a call from `grpc-status`, not from HTTP, so errors are a
//! 200 whose head is also its trailers (gRPC over HTTP/2, "Trailers-Only").

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::policy::{Reply, ResponseHead};
use crate::reason::Reason;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const APPLICATION_GRPC: &str = "application/grpc";

/// The status codes of gRPC that we give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Whether a message is gRPC: `application/grpc`, with a suffix or parameters, but not gRPC-Web.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return false };
    let rest = kind.as_bytes().strip_prefix(APPLICATION_GRPC.as_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The time that the client gives the call; `None` if it names none that can be read.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let amount: u64 = digits.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// The status of a call, from the head or the trailers that tell it.
pub fn status(fields: &HeaderMap) -> Option<u8> {
    fields.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Whether the backend refused the call before it looked at it.
pub fn is_unavailable(head: &HeaderMap) -> bool {
    status(head) == Some(Code::Unavailable as u8)
}

/// The code for a reason: what it means to a client that may try again, or else what the gRPC
/// project's table says for its HTTP status (`http-grpc-status-mapping.md`).
pub fn code(reason: Reason, status: StatusCode) -> Code {
    match reason {
        Reason::BackendTimeout | Reason::RequestTimeout | Reason::ClientTimeout => {
            Code::DeadlineExceeded
        }
        Reason::RateLimited | Reason::TooManyConcurrent | Reason::HeadTooLarge => {
            Code::ResourceExhausted
        }
        Reason::Internal => Code::Internal,
        Reason::MethodNotImplemented => Code::Unimplemented,
        // Gateway API, GRPCRoute `backendRefs`: UNAVAILABLE for references that do not resolve.
        Reason::NoBackend
        | Reason::BackendNotFound
        | Reason::RefNotPermitted
        | Reason::InvalidKind
        | Reason::UnsupportedProtocol => Code::Unavailable,
        _ => match status.as_u16() {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        },
    }
}

/// Whether a reply of ours is an error that has to be told in gRPC's way. What the user wrote
/// as an answer stays as it was written.
pub fn is_error(reply: &Reply) -> bool {
    let is_error = reply.status.is_client_error() || reply.status.is_server_error();
    is_error && !matches!(reply.reason, Reason::DirectResponse | Reason::Redirected)
}

/// The head that tells a gRPC client of an error.
pub fn head(reply: Reply) -> (ResponseHead, Bytes) {
    let Reply { status, mut headers, reason, .. } = reply;
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(APPLICATION_GRPC));
    headers.extend(trailers(reason, status));
    (ResponseHead { status: StatusCode::OK, headers }, Bytes::new())
}

/// The trailers that end a call for this reason.
pub fn trailers(reason: Reason, status: StatusCode) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(GRPC_STATUS, HeaderValue::from(code(reason, status) as u16));
    // The words are ASCII letters: nothing needs to be percent-encoded.
    trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(reason.as_str()));
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let is = |kind| is_grpc(&headers(CONTENT_TYPE, kind));
        assert!(is("application/grpc") && is("application/grpc+proto"));
        assert!(is("application/grpc;charset=utf-8"));
        assert!(!is("application/grpc-web") && !is("application/json"));
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_timeout_has_a_unit_and_at_most_eight_digits() {
        let of = |text| timeout(&headers(GRPC_TIMEOUT, text));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(of("0S"), Some(Duration::ZERO));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        for wrong in ["", "S", "10", "-1S", "+1S", "123456789S", "1s", "1.5S", "1é"] {
            assert_eq!(
                HeaderValue::from_str(wrong)
                    .ok()
                    .and_then(|value| { timeout(&HeaderMap::from_iter([(GRPC_TIMEOUT, value)])) }),
                None,
                "{wrong}"
            );
        }
    }

    #[test]
    fn each_reason_has_the_code_that_clients_act_on() {
        let of = |reason: Reason| code(reason, reason.status()) as u8;
        for (reason, code) in [
            (Reason::NoRoute, 12),
            (Reason::NoEndpoints, 14),
            (Reason::ConnectFailed, 14),
            (Reason::ConnectTimeout, 14),
            (Reason::UpstreamReset, 14),
            (Reason::Overloaded, 14),
            (Reason::RequestTimeout, 4),
            (Reason::BackendTimeout, 4),
            (Reason::RateLimited, 8),
            (Reason::Unauthenticated, 16),
            (Reason::IpDenied, 7),
            (Reason::BadRequest, 13),
            (Reason::BackendNotFound, 14),
            (Reason::InvalidPolicy, 2),
        ] {
            assert_eq!(of(reason), code, "{reason}");
        }
    }

    #[test]
    fn an_error_is_a_head_that_is_its_own_trailers() {
        let reason = Reason::NoRoute;
        let mut headers = headers(CONTENT_LENGTH, "3");
        headers.insert("retry-after", HeaderValue::from_static("1"));
        let (status, body) = (reason.status(), Bytes::from_static(b"no\n"));
        let reply = Reply { status, headers, body, reason };
        assert!(is_error(&reply));
        let (head, body) = head(reply);
        assert_eq!((head.status.as_u16(), body.len()), (200, 0));
        assert_eq!(head.headers["grpc-status"], "12");
        assert_eq!(head.headers["grpc-message"], "NoRoute");
        assert_eq!(head.headers["content-type"], "application/grpc");
        assert_eq!(head.headers["retry-after"], "1");
        assert!(!head.headers.contains_key(CONTENT_LENGTH));
    }
}
