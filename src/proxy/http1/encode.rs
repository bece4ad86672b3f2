//! Heads and the lines of the chunked coding, as bytes behind what a buffer already holds.
//!
//! A message's length is told by its [`Framing`] alone: Content-Length and Transfer-Encoding
//! among the fields are passed over. Fields of the connection are the caller's matter.

use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::framing::Framing;
use crate::proxy::clock;

/// Ends the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// A request's head. `target` is in origin form or `*`.
pub fn request_head(
    out: &mut BytesMut,
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    body: Framing,
) {
    request_line(out, method, target, None);
    fields(out, headers);
    framing(out, body);
}

/// The first line of a request; `target` is all of its target, or what comes before `?`.
pub fn request_line(out: &mut BytesMut, method: &Method, target: &str, query: Option<&str>) {
    let is_visible = |part: &str| part.bytes().all(|b| b > b' ' && b != 0x7f);
    debug_assert!(is_visible(target) && query.is_none_or(is_visible), "a target has no spaces");
    let method = method.as_str();
    out.reserve(method.len() + target.len() + query.map_or(0, str::len) + 13);
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(target.as_bytes());
    if let Some(query) = query {
        out.extend_from_slice(b"?");
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// One field, whatever its name.
pub fn field(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// All fields but those that tell the length of the body.
pub fn fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        if !is_framing(name) {
            field(out, name, value);
        }
    }
}

/// The field that tells the length of the body, if there is one, and the end of the head.
/// [`Framing::Empty`] and [`Framing::UntilClose`] have no field: a request without a body
/// whose method could have one is [`Framing::Length`] of 0.
pub fn framing(out: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::Empty | Framing::UntilClose => out.extend_from_slice(b"\r\n"),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            decimal(out, length);
            out.extend_from_slice(b"\r\n\r\n");
        }
    }
}

/// A response's head, with a Date if there is none; the connection ends after one that `is_last`.
/// After [`Framing::Empty`] a Content-Length among the fields stays: it says what a GET would have
/// had (RFC 9110, 8.6). A response that could have a body and has none is [`Framing::Length`] of 0.
pub fn response_head(
    out: &mut BytesMut,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    body: Framing,
    is_last: bool,
) {
    status_line(out, version, status);
    let keeps_length = body == Framing::Empty && status != StatusCode::NO_CONTENT;
    let mut has_date = false;
    for (name, value) in headers {
        if is_framing(name) && !(keeps_length && *name == CONTENT_LENGTH) {
            continue;
        }
        has_date |= *name == DATE;
        field(out, name, value);
    }
    if !has_date {
        date(out);
    }
    if is_last {
        out.extend_from_slice(b"connection: close\r\n");
    }
    framing(out, body);
}

/// The head of an interim response (1xx), which is all of it.
pub fn interim_head(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    debug_assert!(status.is_informational(), "{status} is final");
    status_line(out, Version::HTTP_11, status);
    fields(out, headers);
    framing(out, Framing::Empty);
}

/// The line before the data of a chunk. `length` is not 0: that would end the body.
pub fn chunk_head(out: &mut BytesMut, length: usize) {
    debug_assert!(length > 0, "an empty chunk is the last");
    let mut digits = [0; usize::BITS as usize / 4];
    let mut rest = length;
    let mut at = digits.len();
    while rest > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body.
pub fn last_chunk(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        fields(out, trailers);
    }
    out.extend_from_slice(b"\r\n");
}

fn is_framing(name: &HeaderName) -> bool {
    *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING
}

fn status_line(out: &mut BytesMut, version: Version, status: StatusCode) {
    let phrase = status.canonical_reason().unwrap_or_default();
    out.reserve(phrase.len() + 256);
    let is_10 = version == Version::HTTP_10;
    out.extend_from_slice(if is_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(phrase.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn decimal(out: &mut BytesMut, number: u64) {
    let mut digits = [0; 20];
    let mut rest = number;
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

const DATE_LENGTH: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();

thread_local! {
    /// The second that was written last, and how.
    static NOW: Cell<(u64, [u8; DATE_LENGTH])> = const { Cell::new((0, [0; DATE_LENGTH])) };
}

/// Writes Date (RFC 9110, 6.6.1), made once a second.
fn date(out: &mut BytesMut) {
    let second = clock::unix_ms_at(clock::known()) / 1000;
    let (mut made, mut text) = NOW.get();
    if made != second {
        let now = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        if let Ok(now) = now.as_bytes().try_into() {
            (made, text) = (second, now);
            NOW.set((made, text));
        }
    }
    out.extend_from_slice(b"date: ");
    out.extend_from_slice(&text);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
