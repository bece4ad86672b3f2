//! Which header fields may cross between a request, an authorization service and an answer.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

use crate::policy::Invalid;
use crate::policy::exchange::HeaderEdit;
use crate::policy::header_edits::{header_name, remove_look_alikes, remove_with_look_alikes};

/// Most names of one list, as HTTPRoute has it.
const MAX_NAMES: usize = 64;

/// Reads a list of names; `field` is where the user wrote it.
pub(super) fn names(field: &str, list: &[String]) -> Result<Vec<HeaderName>, Invalid> {
    if list.len() > MAX_NAMES {
        let message = format!("{} names, at most {MAX_NAMES}; remove some", list.len());
        return Err(Invalid::new(field, message));
    }
    let mut names = Vec::with_capacity(list.len());
    for (i, name) in list.iter().enumerate() {
        let name = header_name(&format!("{field}[{i}]"), name)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The same for fields of a yes that the backend gets.
pub(super) fn taken(field: &str, list: &[String]) -> Result<Vec<HeaderName>, Invalid> {
    let names = names(field, list)?;
    if let Some(i) = names.iter().position(is_of_proxy) {
        let message = format!("{} is set by the proxy alone; leave it out", names[i]);
        return Err(Invalid::new(format!("{field}[{i}]"), message));
    }
    Ok(names)
}

/// Whether a field frames a message or belongs to one connection: it never crosses.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    let framing = [
        CONNECTION,
        CONTENT_LENGTH,
        EXPECT,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    framing.contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// Whether the proxy alone says what stands in this field of a request: who asks, for what host,
/// and how the message is framed. A service that is asked cannot change it, also not under a
/// name that CGI-like backends take for it (`x_forwarded_for`).
pub(super) fn is_of_proxy(name: &HeaderName) -> bool {
    let text = name.as_str().replace('_', "-");
    is_framing(name)
        || *name == HOST
        || text.starts_with("x-forwarded-")
        || matches!(
            &*text,
            "authority"
                | "content-length"
                | "forwarded"
                | "host"
                | "transfer-encoding"
                | "x-real-ip"
                | "x-request-id"
        )
}

/// Whether a field tells of the message that it stands in: of an answer it would be a lie in a
/// request.
pub(super) fn is_of_message(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("content-")
        || matches!(text, "accept-ranges" | "age" | "date" | "etag" | "last-modified" | "server")
}

/// Removes fields that only a service may write.
pub(super) fn strip(names: &[HeaderName], headers: &mut HeaderMap) {
    names.iter().for_each(|name| remove_with_look_alikes(headers, name));
}

/// Changes the fields of a request that a service may change.
pub(super) fn edit_request(headers: &mut HeaderMap, edit: HeaderEdit) {
    if !is_of_proxy(&edit.name) {
        remove_look_alikes(headers, &edit.name);
        edit.apply(headers);
    }
}
