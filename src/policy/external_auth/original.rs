//! A request as it is told in fields to a service that is asked at an address of its own: the
//! names of Traefik's `forwardAuth` and those of ingress-nginx.
//!
//! Where the client is and how it came stands in the request already, as the proxy found out or
//! a trusted proxy before it said; a client's own word for any of these fields is removed.

use http::header::{
    HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields::is_of_proxy;
use crate::policy::RequestHead;
use crate::policy::told;

const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// The fields of the question; `allowed` are those that it has of the request's own, empty: all
/// but those that ask for a part of an answer or for none. Host is left to the service.
pub(super) fn fields(head: &RequestHead, allowed: &[HeaderName]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(head.headers.len() + 4);
    let is_told = |name: &HeaderName| match allowed.is_empty() {
        true => !is_conditional(name),
        false => allowed.contains(name),
    };
    for (name, value) in &head.headers {
        if is_told(name) && !is_of_proxy(name) && !is_original(name) {
            headers.append(name, value.clone());
        }
    }
    let addresses = [told::FOR, told::REAL_IP, told::PORT, told::REQUEST_ID];
    for name in addresses {
        if let Some(value) = head.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(told::PROTO, proto(head));
    if let Some(host) = host(head) {
        headers.insert(told::HOST, host);
    }
    if let Ok(method) = HeaderValue::from_str(head.method.as_str()) {
        headers.insert(METHOD, method.clone());
        headers.insert(ORIGINAL_METHOD, method);
    }
    // A target is visible characters alone.
    for (name, text) in [(URI, uri(head)), (ORIGINAL_URL, url(head))] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
    headers
}

/// The URL that the client asked for.
pub(super) fn url(head: &RequestHead) -> String {
    let (proto, host) = (proto(head), host(head));
    let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or(&head.host);
    format!("{}://{host}{}", proto.to_str().unwrap_or("http"), uri(head))
}

fn uri(head: &RequestHead) -> String {
    match &head.query {
        None => head.path.to_string(),
        Some(query) => format!("{}?{query}", head.path),
    }
}

fn proto(head: &RequestHead) -> HeaderValue {
    let said = head.headers.get(told::PROTO);
    let known = said.filter(|proto| matches!(proto.as_bytes(), b"http" | b"https"));
    known.cloned().unwrap_or(HeaderValue::from_static(head.scheme.as_str()))
}

/// As a trusted proxy said it, else as the client did.
fn host(head: &RequestHead) -> Option<HeaderValue> {
    let own = || match head.port {
        None => HeaderValue::from_str(&head.host),
        Some(port) => HeaderValue::try_from(format!("{}:{port}", head.host)),
    };
    head.headers.get(told::HOST).cloned().or_else(|| own().ok())
}

/// Whether a field would change what the answer is, but not what it means.
fn is_conditional(name: &HeaderName) -> bool {
    [IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE]
        .contains(name)
}

/// Whether services take a field for the request that they are asked about.
fn is_original(name: &HeaderName) -> bool {
    let text = name.as_str().replace('_', "-");
    text.starts_with("x-original-") || text == "x-auth-request-redirect" || text == HOST.as_str()
}

/// Whether a field is of one request alone, so that no answer can depend on it.
pub(super) fn is_trace(name: &str) -> bool {
    matches!(name, "x-request-id" | "traceparent" | "tracestate" | "baggage")
}
