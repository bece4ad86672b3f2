//! What must hold for any bytes. The fuzz targets search for bytes that break it; the test
//! `http1_corpus` holds it for the committed corpus.
//!
//! Beside "no panic" each check compares with a second, naive reading of the same bytes: what
//! the codec accepts has to mean the same to a parser that knows nothing but the grammar, and
//! wherever the input is cut.

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, TRANSFER_ENCODING};
use http::{Method, Version};

use super::http1::encode;
use super::http1::framing::{BadFraming, Decoded, Decoder, Framing};
use super::http1::head::{self, BadHead, Limits, RequestHead, ResponseHead};

const LIMITS: Limits = Limits { head_bytes: 16 * 1024, fields: 100, target_bytes: 4 * 1024 };
/// For what was written anew: it may be a little longer.
const WIDE: Limits = Limits { head_bytes: 64 * 1024 - 1, fields: 100, target_bytes: 4 * 1024 };

/// A request's head, and the body behind it.
pub fn request(data: &[u8]) {
    let read = |buf: &mut BytesMut| head::request(buf, &LIMITS);
    let whole = in_parts(&[data], read);
    for (first, second) in cuts(data) {
        let cut = in_parts(&[first, second], read);
        assert_eq!(told(&cut), told(&whole), "cut at {}", first.len());
    }
    let Ok(Some((head, length))) = whole else { return };
    let (lines, fields) = naive(&data[..length], 2);
    let target = lines.get(1).copied().unwrap_or_default();
    assert_eq!(lines.len(), 3, "a request's line has three words");
    assert_eq!(lines[0], head.parts.method.as_str().as_bytes());
    let origin = head.parts.uri.path_and_query().map(|path| path.as_str().as_bytes());
    assert!(!target.starts_with(b"/") || origin == Some(target), "another target");
    same_fields(&fields, &head.parts.headers);
    same_framing(&fields, head.framing, Framing::Empty);
    body(head.framing, &data[length..]);
}

/// A response's head to each kind of request, and the body behind it.
pub fn response(data: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        let read = |buf: &mut BytesMut| head::response(buf, &method, &LIMITS);
        let whole = in_parts(&[data], read);
        for (first, second) in cuts(data) {
            let cut = in_parts(&[first, second], read);
            assert_eq!(told(&cut), told(&whole), "cut at {}", first.len());
        }
        let Ok(Some((head, length))) = whole else { continue };
        let (_, fields) = naive(&data[..length], 0);
        same_fields(&fields, &head.parts.headers);
        if head.framing != Framing::Empty {
            same_framing(&fields, head.framing, Framing::UntilClose);
        }
        body(head.framing, &data[length..]);
    }
}

/// A chunked body, against a naive decoder, and written anew.
pub fn chunked(data: &[u8]) {
    let whole = decode(&[data]);
    for (first, second) in cuts(data) {
        assert_eq!(decode(&[first, second]), whole, "cut at {}", first.len());
    }
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(decode(&bytes), whole, "byte by byte");
    let Ok(Some(found)) = whole else { return };
    let (naive, rest) = naive_chunks(data).expect("a naive decoder takes it, too");
    assert_eq!(found.data, naive, "other data");
    assert!(data.ends_with(&found.rest) && rest.ends_with(&found.rest), "another end");

    let mut again = BytesMut::new();
    for piece in found.data.chunks(7) {
        encode::chunk_head(&mut again, piece.len());
        again.extend_from_slice(piece);
        again.extend_from_slice(encode::CHUNK_END);
    }
    encode::last_chunk(&mut again, found.trailers.as_ref());
    again.extend_from_slice(&found.rest);
    let again = decode(&[&again]).expect("what we write is good").expect("and whole");
    assert_eq!((again.data, again.rest), (found.data, found.rest), "written anew");
    let trailers = found.trailers.map(without_framing).filter(|trailers| !trailers.is_empty());
    assert_eq!(again.trailers, trailers, "written anew");
}

/// A message that is read, written and read again means the same.
pub fn round_trip(data: &[u8]) {
    if let Ok(Some(first)) = head::request(&mut BytesMut::from(data), &LIMITS) {
        request_again(first);
    }
    for method in [Method::GET, Method::HEAD] {
        if let Ok(Some(first)) = head::response(&mut BytesMut::from(data), &method, &LIMITS) {
            response_again(&method, first);
        }
    }
}

fn request_again(first: RequestHead) {
    // Other targets never go to a backend as they came.
    let target = first.parts.uri.path_and_query().map(|target| target.as_str());
    let Some(target) = target.filter(|_| first.parts.uri.authority().is_none()) else { return };
    let mut buf = BytesMut::new();
    let parts = &first.parts;
    encode::request_head(&mut buf, &parts.method, target, &parts.headers, first.framing);
    let again = head::request(&mut buf, &WIDE).expect("what we write is good").expect("and whole");
    assert!(buf.is_empty(), "something is left");
    assert_eq!(again.parts.method, first.parts.method);
    assert_eq!(again.parts.uri, first.parts.uri);
    assert_eq!(again.framing, first.framing);
    assert_eq!(again.parts.version, Version::HTTP_11);
    assert_eq!(without_framing(again.parts.headers), without_framing(first.parts.headers));
}

fn response_again(method: &Method, mut first: ResponseHead) {
    // The Date that is added would be one field more than can be read.
    let headers = &first.parts.headers;
    if headers.len() >= head::MAX_FIELDS && !headers.contains_key(DATE) {
        return;
    }
    let mut buf = BytesMut::new();
    let parts = &first.parts;
    if parts.status.is_informational() {
        encode::interim_head(&mut buf, parts.status, &parts.headers);
    } else {
        let (version, status) = (parts.version, parts.status);
        encode::response_head(&mut buf, version, status, &parts.headers, first.framing, false);
    }
    let again = head::response(&mut buf, method, &WIDE);
    let mut again = again.expect("what we write is good").expect("and whole");
    assert!(buf.is_empty(), "something is left");
    assert_eq!(again.parts.status, first.parts.status);
    assert_eq!(again.framing, first.framing);
    if !first.parts.headers.contains_key(DATE) {
        again.parts.headers.remove(DATE);
    }
    let headers = std::mem::take(&mut first.parts.headers);
    assert_eq!(without_framing(again.parts.headers), without_framing(headers));
}

fn without_framing(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    headers
}

/// Ways to cut `data` in two: all for short data, some for long.
fn cuts(data: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    (0..data.len()).step_by(data.len() / 64 + 1).map(|at| data.split_at(at))
}

/// Reads a head that comes in parts; with the bytes that it took.
fn in_parts<T>(
    parts: &[&[u8]],
    read: impl Fn(&mut BytesMut) -> Result<Option<T>, BadHead>,
) -> Result<Option<(T, usize)>, BadHead> {
    let mut buf = BytesMut::new();
    for part in parts {
        buf.extend_from_slice(part);
        let before = buf.len();
        if let Some(head) = read(&mut buf)? {
            return Ok(Some((head, before - buf.len())));
        }
        assert_eq!(buf.len(), before, "a part of a head was taken");
    }
    Ok(None)
}

/// What must not depend on where the input is cut: which of several faults is found first may.
fn told<T: std::fmt::Debug>(result: &Result<Option<(T, usize)>, BadHead>) -> String {
    match result {
        Ok(found) => format!("{found:?}"),
        Err(_) => "refused".into(),
    }
}

type Field<'a> = (&'a [u8], &'a [u8]);

/// The words of the first line and the fields, by nothing but the grammar.
fn naive(head: &[u8], empty_lines: usize) -> (Vec<&[u8]>, Vec<Field<'_>>) {
    let text = head.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
    let skipped = text.windows(2).step_by(2).take_while(|pair| pair == b"\r\n").count();
    assert!(skipped <= empty_lines, "too many empty lines");
    let mut lines = Vec::new();
    let mut rest = &text[2 * skipped..];
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    for line in &lines {
        let is_text = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
        assert!(!line.is_empty() && line.iter().all(is_text), "a control character");
    }
    let words = lines[0].split(|b| *b == b' ').collect();
    let fields = lines[1..].iter().map(|line| {
        let colon = line.iter().position(|b| *b == b':').expect("a field has a colon");
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        assert!(!name.is_empty() && name.iter().all(is_token), "no token");
        (name, trim(value))
    });
    (words, fields.collect())
}

fn is_token(b: &u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b)
}

fn trim(value: &[u8]) -> &[u8] {
    let is_space = |b: &u8| *b == b' ' || *b == b'\t';
    let start = value.iter().position(|b| !is_space(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !is_space(b)).map_or(start, |last| last + 1);
    &value[start..end]
}

fn same_fields(naive: &[Field<'_>], headers: &HeaderMap) {
    assert_eq!(naive.len(), headers.len(), "another number of fields");
    for name in headers.keys() {
        let ours = headers.get_all(name).iter().map(|value| value.as_bytes());
        let named = |field: &&Field<'_>| field.0.eq_ignore_ascii_case(name.as_str().as_bytes());
        let theirs = naive.iter().filter(named).map(|field| field.1);
        assert!(ours.eq(theirs), "other values of {name}");
    }
}

/// At most one field tells the length, and it is the one that was followed.
fn same_framing(fields: &[Field<'_>], framing: Framing, without: Framing) {
    let told: Vec<&Field<'_>> = fields
        .iter()
        .filter(|(name, _)| {
            name.eq_ignore_ascii_case(b"content-length")
                || name.eq_ignore_ascii_case(b"transfer-encoding")
        })
        .collect();
    match told[..] {
        [] => assert_eq!(framing, without),
        [(name, value)] if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            assert!(value.eq_ignore_ascii_case(b"chunked"), "an unknown coding");
            assert_eq!(framing, Framing::Chunked);
        }
        [(_, value)] => {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            assert!(value.iter().all(u8::is_ascii_digit), "not only digits");
            assert_eq!(length.map(Framing::Length), Some(framing));
        }
        _ => panic!("the length is told twice"),
    }
}

/// Decodes a body as far as it is there; it never takes more than there is.
fn body(framing: Framing, data: &[u8]) {
    let mut buf = BytesMut::from(data);
    let mut decoder = Decoder::new(framing);
    let mut taken = 0;
    while let Ok(Decoded::Data(piece)) = decoder.decode(&mut buf) {
        assert!(!piece.is_empty());
        taken += piece.len();
    }
    assert!(taken + buf.len() <= data.len());
    match framing {
        Framing::Empty => assert_eq!(taken, 0),
        Framing::Length(length) => assert!(taken as u64 <= length),
        Framing::UntilClose => assert_eq!(taken, data.len()),
        Framing::Chunked => {}
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Body {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    rest: Vec<u8>,
}

/// Decodes a chunked body that comes in parts; `None` if its end is not there.
fn decode(parts: &[&[u8]]) -> Result<Option<Body>, BadFraming> {
    let mut decoder = Decoder::new(Framing::Chunked);
    let (mut data, mut trailers) = (Vec::new(), None);
    let mut buf = BytesMut::new();
    let mut parts = parts.iter();
    loop {
        match decoder.decode(&mut buf)? {
            Decoded::Data(piece) => data.extend_from_slice(&piece),
            Decoded::Trailers(found) => trailers = Some(found),
            Decoded::NeedMore => match parts.next() {
                Some(part) => buf.extend_from_slice(part),
                None => return Ok(None),
            },
            Decoded::Done => {
                parts.for_each(|part| buf.extend_from_slice(part));
                return Ok(Some(Body { data, trailers, rest: buf.to_vec() }));
            }
        }
    }
}

/// The data of a chunked body and what follows the last chunk's line.
fn naive_chunks(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut data = Vec::new();
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(rest[..end].split(|b| *b == b';').next()?).ok()?;
        let size = usize::try_from(u64::from_str_radix(line, 16).ok()?).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some((data, rest));
        }
        data.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}
