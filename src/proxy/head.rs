//! The head checks: from what the HTTP engine parsed to a [`RequestHead`] that policies trust.
//!
//! The engine that read it has dealt with syntax and framing already (names, values, line ends,
//! lengths); what is looked at here is what both versions of HTTP have in common.

use http::header::{COOKIE, Entry, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::config::Limits;
use super::hop_by_hop;
use super::outline::Outline;
use crate::graph::normal::normalise;
use crate::policy::{RequestHead, Scheme};
use crate::reason::Reason;

/// Why a head was refused.
#[derive(Debug)]
pub struct Refused {
    pub reason: Reason,
    /// Nothing more may be read from the connection: what follows may be another's request.
    pub close: bool,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        let close = matches!(
            reason,
            Reason::BadRequest | Reason::InvalidHost | Reason::InvalidFraming | Reason::UriTooLong
        );
        Refused { reason, close }
    }
}

/// A head that was checked.
#[derive(Debug)]
pub struct Checked {
    pub head: RequestHead,
    /// Host and port as the client wrote them, in normal form.
    pub authority: HeaderValue,
}

/// Checks a head and takes it over, but for the target. The fields lose what belongs to the
/// connection, and Host.
pub fn check(
    parts: &mut Parts,
    outline: &Outline,
    scheme: Scheme,
    limits: &Limits,
) -> Result<Checked, Refused> {
    let Parts { method, uri, version, headers, extensions, .. } = parts;
    let version = *version;
    let is_tunnel = extensions.get::<hyper::ext::Protocol>().is_some();
    if *method == Method::CONNECT && !is_tunnel {
        return Err(Refused { reason: Reason::MethodNotImplemented, close: true });
    }
    if uri.path_and_query().is_some_and(|target| target.as_str().len() > limits.uri_bytes) {
        return Err(Reason::UriTooLong.into());
    }
    if headers.len() > limits.header_fields || outline.bytes > limits.header_bytes {
        return Err(Reason::HeadTooLarge.into());
    }
    if outline.has_transfer_encoding {
        check_framing(headers, version)?;
    }
    let field = take_host(headers)?;
    let (host, port) = authority(uri.authority(), field.as_ref(), version)?;
    let authority = in_normal_form(field, &host, port);
    let path = normalise(uri.path())?.into();
    let query = uri.query().map(Into::into);
    if outline.has_hop_by_hop {
        hop_by_hop::strip(headers);
    }
    if outline.has_underscore {
        hop_by_hop::strip_look_alikes(headers);
    }
    if outline.cookies > 1 {
        join_cookies(headers);
    }
    let (method, headers) = (std::mem::take(method), std::mem::take(headers));
    let head = RequestHead {
        method,
        scheme,
        host,
        port,
        path,
        query,
        headers,
        told: None,
        upstream_host: None,
    };
    Ok(Checked { head, authority })
}

/// Exactly one `chunked`, and only in HTTP/1.1: anything else is read in different ways.
fn check_framing(headers: &HeaderMap, version: Version) -> Result<(), Reason> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(one), None)
            if version == Version::HTTP_11 && one.as_bytes().eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(())
        }
        _ => Err(Reason::InvalidFraming),
    }
}

/// The one host of a request: Host, and the target's authority if it has one, which must agree
/// (RFC 9112, 3.2; RFC 9113, 8.3.1). HTTP/1.0 may have none: it is empty then.
fn authority(
    target: Option<&Authority>,
    field: Option<&HeaderValue>,
    version: Version,
) -> Result<(Box<str>, Option<u16>), Reason> {
    let field = match field {
        None => None,
        Some(host) => Some(parse_authority(host.to_str().map_err(|_| Reason::InvalidHost)?)?),
    };
    let target = target.map(|a| parse_authority(a.as_str())).transpose()?;
    match (target, field) {
        (Some(target), Some(field)) if target == field => Ok(target),
        (Some(_), Some(_)) => Err(Reason::InvalidHost),
        // An absolute target does not make up for a missing Host in HTTP/1.1.
        (Some(target), None) if version != Version::HTTP_11 => Ok(target),
        (None, Some(field)) => Ok(field),
        (None, None) if version == Version::HTTP_10 => Ok(("".into(), None)),
        _ => Err(Reason::InvalidHost),
    }
}

/// Takes the one Host field out.
fn take_host(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Reason> {
    match headers.entry(HOST) {
        Entry::Vacant(_) => Ok(None),
        Entry::Occupied(hosts) if hosts.iter().nth(1).is_some() => Err(Reason::InvalidHost),
        Entry::Occupied(host) => Ok(Some(host.remove())),
    }
}

/// The text of an authority: nearly always that of the client's own field.
fn in_normal_form(field: Option<HeaderValue>, host: &str, port: Option<u16>) -> HeaderValue {
    let is_normal = |field: &HeaderValue| {
        let rest = field.as_bytes().strip_prefix(host.as_bytes());
        matches!(rest, Some([] | [b':', b'1'..=b'9', ..]))
    };
    if let Some(field) = field.filter(is_normal) {
        return field;
    }
    let text = match port {
        None => HeaderValue::from_str(host),
        Some(port) => HeaderValue::try_from(format!("{host}:{port}")),
    };
    text.expect("a host has only visible characters")
}

/// Host and port as they are written in Host: `name`, `name:port`, `[address]:port`.
fn parse_authority(text: &str) -> Result<(Box<str>, Option<u16>), Reason> {
    let end = match text.strip_prefix('[') {
        Some(rest) => rest.find(']').ok_or(Reason::InvalidHost)? + 2,
        // Byte by byte: hosts are short.
        None => text.bytes().position(|byte| byte == b':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end);
    let port = match rest.strip_prefix(':') {
        Some(digits) => Some(parse_port(digits)?),
        None if rest.is_empty() => None,
        None => return Err(Reason::InvalidHost),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if !is_host(host) {
        return Err(Reason::InvalidHost);
    }
    let mut host: Box<str> = host.into();
    host.make_ascii_lowercase();
    Ok((host, port))
}

fn parse_port(digits: &str) -> Result<u16, Reason> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| all_digits && *port != 0);
    port.ok_or(Reason::InvalidHost)
}

/// A host name of at most 253 bytes with letters, digits, `-` and `_`, or an address.
fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let mut label = 0;
    for byte in host.bytes() {
        match byte {
            b'.' if label == 0 => return false,
            b'.' => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' if label < 63 => label += 1,
            _ => return false,
        }
    }
    label > 0 && host.len() <= 253
}

/// HTTP/2 may cut Cookie into crumbs; everyone else expects one field (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(version: Version, target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn checked(
        version: Version,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Result<RequestHead, Reason> {
        let mut parts = parts(version, target, fields);
        let outline = Outline::of(&parts.headers);
        let checked = check(&mut parts, &outline, Scheme::Http, &Limits::default());
        checked.map(|checked| checked.head).map_err(|refused| refused.reason)
    }

    #[test]
    fn the_authority_is_the_clients_in_normal_form() {
        for (field, authority) in [
            ("a.example", "a.example"),
            ("A.example.", "a.example"),
            ("a.example.", "a.example"),
            ("a.example:8080", "a.example:8080"),
            ("a.example.:8080", "a.example:8080"),
            ("a.example:0080", "a.example:80"),
            ("[::1]:443", "[::1]:443"),
        ] {
            let mut parts = parts(Version::HTTP_11, "/", &[("host", field)]);
            let outline = Outline::of(&parts.headers);
            let checked = check(&mut parts, &outline, Scheme::Http, &Limits::default()).unwrap();
            assert_eq!(checked.authority, authority, "{field}");
        }
    }

    #[test]
    fn there_is_exactly_one_valid_host() {
        let http11 = |target, fields| checked(Version::HTTP_11, target, fields);
        for fields in [
            &[][..],
            &[("host", "")],
            &[("host", "a"), ("host", "a")],
            &[("host", "a b")],
            &[("host", "user@a")],
            &[("host", "a:b")],
            &[("host", "a:")],
            &[("host", "a:0")],
            &[("host", "a:65536")],
            &[("host", "a:+1")],
            &[("host", "a..b")],
            &[("host", ".a")],
            &[("host", "a..")],
            &[("host", &"x".repeat(64))],
            &[("host", &"x.".repeat(128))],
            &[("host", "[::1")],
            &[("host", "[zz]")],
            &[("host", "a,b")],
            &[("host", "a/b")],
        ] {
            assert_eq!(http11("/", fields).err(), Some(Reason::InvalidHost), "{fields:?}");
        }
        for (field, host, port) in [
            ("Example.COM.", "example.com", None),
            ("a_b.example:8080", "a_b.example", Some(8080)),
            ("[::1]:443", "[::1]", Some(443)),
            ("192.0.2.1", "192.0.2.1", None),
        ] {
            let head = checked(Version::HTTP_11, "/", &[("host", field)]).unwrap();
            assert_eq!((&*head.host, head.port), (host, port));
            assert!(!head.headers.contains_key(HOST));
        }
    }

    #[test]
    fn an_absolute_target_must_agree_with_host() {
        let check = |version, fields| checked(version, "http://a.example/x", fields);
        let host = |head: RequestHead| head.host.into_string();
        assert_eq!(
            check(Version::HTTP_11, &[("host", "A.example")]).map(host).unwrap(),
            "a.example"
        );
        assert_eq!(
            check(Version::HTTP_11, &[("host", "b.example")]).err(),
            Some(Reason::InvalidHost)
        );
        assert_eq!(check(Version::HTTP_11, &[]).err(), Some(Reason::InvalidHost));
        assert_eq!(check(Version::HTTP_2, &[]).map(host).unwrap(), "a.example");
        assert_eq!(check(Version::HTTP_2, &[("host", "b")]).err(), Some(Reason::InvalidHost));
    }

    #[test]
    fn only_http_1_0_may_come_without_host() {
        assert_eq!(&*checked(Version::HTTP_10, "/", &[]).unwrap().host, "");
        assert_eq!(checked(Version::HTTP_2, "/", &[]).err(), Some(Reason::InvalidHost));
    }

    #[test]
    fn only_one_chunked_is_a_transfer_encoding() {
        for (values, good) in [
            (&["chunked"][..], true),
            (&["Chunked"], true),
            (&["gzip, chunked"], false),
            (&["chunked", "chunked"], false),
            (&[",chunked"], false),
            (&["identity"], false),
        ] {
            let mut fields = vec![("host", "a")];
            fields.extend(values.iter().map(|v| ("transfer-encoding", *v)));
            let result = checked(Version::HTTP_11, "/", &fields).err();
            assert_eq!(result, (!good).then_some(Reason::InvalidFraming), "{values:?}");
        }
    }

    #[test]
    fn too_many_fields_bytes_or_a_too_long_target_are_refused() {
        let many: Vec<_> = (0..100).map(|_| ("cookie", "a=b")).chain([("host", "a")]).collect();
        assert_eq!(checked(Version::HTTP_2, "/", &many).err(), Some(Reason::HeadTooLarge));
        let long = "x".repeat(32 * 1024);
        let fields = [("host", "a"), ("x-long", &*long)];
        assert_eq!(checked(Version::HTTP_11, "/", &fields).err(), Some(Reason::HeadTooLarge));
        let target = format!("/{}", "x".repeat(16 * 1024));
        let result = checked(Version::HTTP_11, &target, &[("host", "a")]);
        assert_eq!(result.err(), Some(Reason::UriTooLong));
    }

    #[test]
    fn cookie_crumbs_become_one_field() {
        let fields = [("host", "a"), ("cookie", "a=1"), ("cookie", "b=2")];
        let head = checked(Version::HTTP_2, "/", &fields).unwrap();
        assert_eq!(head.headers[COOKIE], "a=1; b=2");
    }
}
