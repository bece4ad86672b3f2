//! Answers of our own: from a [`Reason`], or from a policy.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::policy::{Reply, ResponseHead};
use crate::reason::Reason;

/// A reply without a body gets one if it tells of an error: the reason's word, as plain text.
pub fn with_body(reply: Reply, method: &Method) -> (ResponseHead, Bytes) {
    let Reply { status, mut headers, mut body, reason } = reply;
    let tells_error = status.is_client_error() || status.is_server_error();
    if tells_error && body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        body = Bytes::from(format!("{reason}\n"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    let has_length = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
    if has_length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    if *method == Method::HEAD || !has_length {
        body = Bytes::new();
    }
    (ResponseHead { status, headers }, body)
}

/// The answer for a reason alone.
pub fn of(reason: Reason) -> Reply {
    Reply { status: reason.status(), headers: HeaderMap::new(), body: Bytes::new(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_its_reason_and_head_gets_the_same_length_without_the_body() {
        let (head, body) = with_body(of(Reason::NoRoute), &Method::GET);
        assert_eq!((head.status.as_u16(), &body[..]), (404, &b"NoRoute\n"[..]));
        let (head, body) = with_body(of(Reason::NoRoute), &Method::HEAD);
        assert_eq!((&head.headers[CONTENT_LENGTH], body.len()), (&HeaderValue::from(8), 0));
    }

    #[test]
    fn no_content_has_no_length() {
        let (head, _) = with_body(of(Reason::CorsPreflight), &Method::OPTIONS);
        assert!(!head.headers.contains_key(CONTENT_LENGTH));
    }
}
