//! Heads: from the bytes of a connection to the parts of a request or a response.
//!
//! The syntax is httparse's. What it lets pass and two recipients could read in different ways
//! is refused here: line ends without CR, more than one length, codings other than one
//! `chunked` (RFC 9112, 2.2, 6.1 and 6.3). Whether Host is right is `proxy::head`'s, for all
//! versions of HTTP. Values and target are slices of the buffer that was read into.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use httparse::{Header, Status};

use super::framing::Framing;
use super::names;
use crate::reason::Reason;

/// The most fields that a head can have, whatever the limits say.
pub const MAX_FIELDS: usize = 100;
/// The most bytes that a head can have, whatever the limits say.
pub const MAX_HEAD: usize = u16::MAX as usize;
/// Fields that are usually added on the way: room for them saves growing the map.
const ROOM: usize = 6;
/// Empty lines that a client may send before a request (RFC 9112, 2.2).
const MAX_EMPTY_LINES: usize = 2;
/// Longer methods are nobody's.
const MAX_METHOD: usize = 32;
/// A request's line without method and target: two spaces, the version, CR LF.
const LINE_REST: usize = 12;
/// A head that has grown to this is parsed again only once its end is there, so that one that
/// comes byte by byte costs little.
const LONG: usize = 4 * 1024;

/// The most bytes that are kept for a part of them: a head is copied out of a larger buffer.
pub const LITTLE: usize = 4 * 1024;

/// The bounds of a head.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes from the first line to the empty line, both included; at most [`MAX_HEAD`].
    pub head_bytes: usize,
    /// Fields; at most [`MAX_FIELDS`].
    pub fields: usize,
    /// Bytes of a request's target.
    pub target_bytes: usize,
}

/// Why a head was refused. The connection has to be closed: where the next message begins is
/// not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    #[error("the head breaks the grammar of HTTP/1.1")]
    Syntax,
    #[error("a line of the head does not end with CR LF")]
    LineEnd,
    #[error("the target is invalid, or of a form that its method does not have")]
    Target,
    #[error("the length of the body is told twice, wrongly, or by an unknown coding")]
    Framing,
    #[error("the target is too long")]
    TargetTooLong,
    #[error("the head has too many fields or bytes")]
    TooLarge,
    #[error("the version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
}

impl BadHead {
    /// The cause that a client is told.
    pub fn reason(self) -> Reason {
        match self {
            BadHead::Syntax | BadHead::LineEnd | BadHead::Target => Reason::BadRequest,
            BadHead::Framing => Reason::InvalidFraming,
            BadHead::TargetTooLong => Reason::UriTooLong,
            BadHead::TooLarge => Reason::HeadTooLarge,
            BadHead::Version => Reason::VersionNotSupported,
        }
    }
}

impl From<httparse::Error> for BadHead {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => BadHead::TooLarge,
            _ => BadHead::Syntax,
        }
    }
}

/// A request, but for its body.
#[derive(Debug)]
pub struct RequestHead {
    pub parts: http::request::Parts,
    pub framing: Framing,
    /// The client's connection may serve another request: HTTP/1.1 without `close`.
    pub keep_alive: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    pub expects_continue: bool,
}

/// A response, but for its body. Also an interim one (1xx).
#[derive(Debug)]
pub struct ResponseHead {
    pub parts: http::response::Parts,
    /// As the request's method and the status make it.
    pub framing: Framing,
    /// The backend's connection may serve another request after the body.
    pub keep_alive: bool,
}

/// Takes the head of a request off `buf`; `None` if it is not all there, then nothing is taken.
///
/// # Errors
/// [`BadHead`], also for a head that is not complete but can no longer be a good one.
pub fn request(buf: &mut BytesMut, limits: &Limits) -> Result<Option<RequestHead>, BadHead> {
    let Some(start) = empty_lines(buf)? else { return Ok(None) };
    let line = &buf[start..];
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let room = &mut room[..limits.fields.min(MAX_FIELDS)];
    let mut head = httparse::Request::new(&mut []);
    let parsed = match is_far_from_complete(line) {
        true => Status::Partial,
        false => match head.parse_with_uninit_headers(line, room) {
            Ok(parsed) => parsed,
            Err(error) => return Err(request_error(line, head.path, error)),
        },
    };
    let Status::Complete(length) = parsed else {
        let line_limit = limits.target_bytes.saturating_add(MAX_METHOD + LINE_REST);
        if line.len() > line_limit && memchr::memchr(b'\n', &line[..line_limit]).is_none() {
            return Err(BadHead::TargetTooLong);
        }
        return wait(line, limits);
    };
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Err(BadHead::Syntax);
    };
    if target.len() > limits.target_bytes {
        return Err(BadHead::TargetTooLong);
    }
    check_length(length, limits)?;
    if method.len() > MAX_METHOD {
        return Err(BadHead::Syntax);
    }
    let mut spans = Spans::none();
    spans.note(&line[..length], head.headers)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| BadHead::Syntax)?;
    let target = offset(line, target.as_bytes())..offset(line, target.as_bytes()) + target.len();
    buf.advance(start);
    let bytes = take(buf, length);
    let (headers, told) = spans.fields(&bytes)?;
    let uri = uri(&method, bytes.slice(target))?;
    let is_11 = minor == 1;
    let framing = told.request(is_11)?;
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = method;
    parts.uri = uri;
    parts.version = version(minor);
    parts.headers = headers;
    Ok(Some(RequestHead {
        parts,
        framing,
        keep_alive: is_11 && !told.close,
        expects_continue: is_11 && told.expects_continue,
    }))
}

/// Takes the head of a response to a request with `method` off `buf`; `None` if it is not all
/// there, then nothing is taken.
///
/// # Errors
/// [`BadHead`], also for a head that is not complete but can no longer be a good one.
pub fn response(
    buf: &mut BytesMut,
    method: &Method,
    limits: &Limits,
) -> Result<Option<ResponseHead>, BadHead> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let room = &mut room[..limits.fields.min(MAX_FIELDS)];
    let mut head = httparse::Response::new(&mut []);
    // The parser would pass over empty lines; only clients may send them.
    if let Some(b'\r' | b'\n') = buf.first() {
        return Err(BadHead::Syntax);
    }
    if is_far_from_complete(buf) {
        return wait(buf, limits);
    }
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut head, buf, room)?;
    let Status::Complete(length) = parsed else { return wait(buf, limits) };
    let (Some(code), Some(minor)) = (head.code, head.version) else { return Err(BadHead::Syntax) };
    check_length(length, limits)?;
    let status = StatusCode::from_u16(code).map_err(|_| BadHead::Syntax)?;
    let mut spans = Spans::none();
    spans.note(&buf[..length], head.headers)?;
    let bytes = take(buf, length);
    let (headers, told) = spans.fields(&bytes)?;
    let (framing, is_clear) = told.response(method, status, minor == 1)?;
    let is_kept = if minor == 1 { !told.close } else { told.keep_alive && !told.close };
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = status;
    parts.version = version(minor);
    parts.headers = headers;
    Ok(Some(ResponseHead { parts, framing, keep_alive: is_kept && is_clear }))
}

/// Whether a long head or trailer section has no end yet, by a look that is cheaper than
/// parsing. What would be found to be wrong with it is found later.
pub fn is_far_from_complete(head: &[u8]) -> bool {
    head.len() > LONG && memchr::memmem::find(head, b"\n\r\n").is_none()
}

/// Takes a head off `buf`. It may be kept for as long as its exchange lasts, so it is copied out of
/// a buffer that has much more.
fn take(buf: &mut BytesMut, length: usize) -> Bytes {
    if buf.len() <= LITTLE {
        return buf.split_to(length).freeze();
    }
    let head = Bytes::copy_from_slice(&buf[..length]);
    buf.advance(length);
    if buf.is_empty() {
        *buf = BytesMut::new();
    }
    head
}

/// A head that is not complete: it may become so, unless it is too long already.
fn wait<T>(head: &[u8], limits: &Limits) -> Result<Option<T>, BadHead> {
    check_length(head.len(), limits).map(|()| None)
}

fn check_length(length: usize, limits: &Limits) -> Result<(), BadHead> {
    if length > limits.head_bytes.min(MAX_HEAD) { Err(BadHead::TooLarge) } else { Ok(()) }
}

/// The length of the empty lines before a request; `None` if there is nothing else yet.
fn empty_lines(buf: &[u8]) -> Result<Option<usize>, BadHead> {
    let mut at = 0;
    loop {
        match (buf.get(at), buf.get(at + 1)) {
            (None, _) | (Some(b'\r'), None) => return Ok(None),
            (Some(b'\r'), Some(b'\n')) if at < 2 * MAX_EMPTY_LINES => at += 2,
            (Some(b'\r' | b'\n'), _) => return Err(BadHead::LineEnd),
            _ => return Ok(Some(at)),
        }
    }
}

/// Tells a version that we do not have from one that is none.
fn request_error(line: &[u8], target: Option<&str>, error: httparse::Error) -> BadHead {
    let (httparse::Error::Version, Some(target)) = (error, target) else { return error.into() };
    let version = &line[offset(line, target.as_bytes()) + target.len() + 1..];
    match version.strip_prefix(b"HTTP/").and_then(|number| number.first()) {
        Some(b'0'..=b'9') => BadHead::Version,
        _ => BadHead::Syntax,
    }
}

fn version(minor: u8) -> Version {
    if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 }
}

/// The target, in the one form that its method and its first byte allow (RFC 9112, 3.2).
fn uri(method: &Method, target: Bytes) -> Result<Uri, BadHead> {
    let length = target.len();
    let bad = |_| BadHead::Target;
    if target.first() == Some(&b'/') && *method != Method::CONNECT {
        let target = PathAndQuery::from_maybe_shared(target).map_err(bad)?;
        // A fragment is cut off without a word; a target has none.
        let is_whole = target.as_str().len() == length;
        return if is_whole { Ok(Uri::from(target)) } else { Err(BadHead::Target) };
    }
    let is_asterisk = &target[..] == b"*";
    if target.contains(&b'#') {
        return Err(BadHead::Target);
    }
    let uri = Uri::from_maybe_shared(target).map_err(|_| BadHead::Target)?;
    let is_web = uri.scheme().is_some_and(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS);
    let good = match *method {
        Method::CONNECT => uri.authority().is_some() && uri.scheme().is_none(),
        Method::OPTIONS if is_asterisk => true,
        _ => is_web && uri.authority().is_some(),
    };
    if good { Ok(uri) } else { Err(BadHead::Target) }
}

fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

/// Where the fields of a head stand: begin and end of name and value. Too large to be moved.
pub struct Spans {
    spans: [[u16; 4]; MAX_FIELDS],
    count: usize,
}

impl Spans {
    pub fn none() -> Self {
        Spans { spans: [[0; 4]; MAX_FIELDS], count: 0 }
    }

    /// Notes the places of `fields` in `head`, which has to be all of a head.
    ///
    /// # Errors
    /// [`BadHead::LineEnd`] for a line that ends without CR. A line feed can only be the end of
    /// a line here, so it is enough to look before each name and at the end.
    pub fn note(&mut self, head: &[u8], fields: &[Header<'_>]) -> Result<(), BadHead> {
        for (field, span) in fields.iter().zip(&mut self.spans) {
            let (name, value) = (offset(head, field.name.as_bytes()), offset(head, field.value));
            if name != 0 && !head[..name].ends_with(b"\r\n") {
                return Err(BadHead::LineEnd);
            }
            // What is longer than the most that a head can have does not get here.
            let ends = [name, name + field.name.len(), value, value + field.value.len()];
            *span = ends.map(|end| end as u16);
        }
        if !head.ends_with(b"\r\n\r\n") {
            return Err(BadHead::LineEnd);
        }
        self.count = fields.len();
        Ok(())
    }

    /// The fields, as slices of `head`, and what they say about the message.
    ///
    /// # Errors
    /// See [`Told::note`].
    pub fn fields(&self, head: &Bytes) -> Result<(HeaderMap, Told), BadHead> {
        let mut headers = HeaderMap::with_capacity(self.count + ROOM);
        let mut told = Told::default();
        for span in &self.spans[..self.count] {
            let [name, name_end, value, value_end] = span.map(usize::from);
            let name = names::name(&head[name..name_end])?;
            told.note(name.as_str(), &head[value..value_end])?;
            let value = HeaderValue::from_maybe_shared(head.slice(value..value_end));
            headers.append(name, value.map_err(|_| BadHead::Syntax)?);
        }
        Ok((headers, told))
    }
}

/// What the fields of a head say about framing and the connection.
#[derive(Debug, Default)]
pub struct Told {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Told {
    /// Reads one field, by its lower-case name.
    ///
    /// # Errors
    /// [`BadHead::Framing`] for a second length, one that is not a number, or a coding that is
    /// not exactly one `chunked`.
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), BadHead> {
        match name {
            "content-length" => {
                let length = length(value).filter(|_| self.length.is_none());
                self.length = Some(length.ok_or(BadHead::Framing)?);
            }
            "transfer-encoding" => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadHead::Framing);
                }
                self.chunked = true;
            }
            "connection" => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            "expect" => self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        Ok(())
    }

    /// The length that was told, whichever way; never two (RFC 9112, 6.3).
    fn framing(&self, is_11: bool) -> Result<Option<Framing>, BadHead> {
        match (self.chunked, self.length) {
            (true, None) if is_11 => Ok(Some(Framing::Chunked)),
            (true, _) => Err(BadHead::Framing),
            (false, length) => Ok(length.map(Framing::Length)),
        }
    }

    fn request(&self, is_11: bool) -> Result<Framing, BadHead> {
        Ok(self.framing(is_11)?.unwrap_or(Framing::Empty))
    }

    /// What follows a response, and whether what comes after that can be told from it: not if
    /// only the backend's closing ends the body, or if a body was announced where none can be.
    fn response(
        &self,
        method: &Method,
        status: StatusCode,
        is_11: bool,
    ) -> Result<(Framing, bool), BadHead> {
        let framing = self.framing(is_11)?;
        let announces = !matches!(framing, None | Some(Framing::Length(0)));
        if status.is_informational() {
            // RFC 9110, 8.6 and RFC 9112, 6.1: a server must not. The final head is next.
            return if announces { Err(BadHead::Framing) } else { Ok((Framing::Empty, true)) };
        }
        if status == StatusCode::NO_CONTENT {
            return Ok((Framing::Empty, !announces));
        }
        if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return Ok((Framing::Empty, true));
        }
        Ok(framing.map_or((Framing::UntilClose, false), |framing| (framing, true)))
    }
}

/// Decimal digits and nothing else (RFC 9110, 8.6).
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests;
