//! Parts of a request that several policies look for by name: cookies and parameters of the query.
//!
//! Whatever a backend would take for the same is the same here: names and values are decoded, and
//! all of them are given where a name stands more than once.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::COOKIE;
use percent_encoding::percent_decode;

/// The values of all cookies of this name (RFC 6265, 5.4), without quotes around them.
pub fn cookies<'r>(headers: &'r HeaderMap, name: &'r str) -> impl Iterator<Item = &'r [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let (key, value) = split(pair.trim_ascii(), b'=')?;
        (key.trim_ascii_end() == name.as_bytes()).then(|| unquoted(value.trim_ascii_start()))
    })
}

/// The values of all parameters of this name in a query, as forms write them: `+` is a space.
pub fn query_values<'r>(
    query: Option<&'r str>,
    name: &'r str,
) -> impl Iterator<Item = Cow<'r, [u8]>> {
    let pairs = query.unwrap_or_default().as_bytes().split(|byte| *byte == b'&');
    pairs.filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (key, value) = split(pair, b'=').unwrap_or((pair, b""));
        (*decoded(key) == *name.as_bytes()).then(|| decoded(value))
    })
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = memchr::memchr(at, bytes)?;
    Some((&bytes[..place], &bytes[place + 1..]))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

fn decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'+', bytes).is_none() {
        return percent_decode(bytes).into();
    }
    let spaced: Vec<u8> =
        bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(Cow::from(percent_decode(&spaced)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::head;

    #[test]
    fn cookies_are_found_in_all_fields_and_without_quotes() {
        let fields = [("cookie", "a=1; key = \"x=y\";b=2"), ("cookie", "key=z; keys=no; key")];
        let head = head("GET", "http://a.example/", &fields);
        let found: Vec<&[u8]> = cookies(&head.headers, "key").collect();
        assert_eq!(found, [&b"x=y"[..], b"z"]);
        assert_eq!(cookies(&head.headers, "none").count(), 0);
    }

    #[test]
    fn parameters_are_found_however_they_are_written() {
        let all = |query| -> Vec<Vec<u8>> {
            query_values(Some(query), "a key").map(Cow::into_owned).collect()
        };
        assert_eq!(all("x=1&a+key=one&%61%20key=t%77o+2&a%20key"), [&b"one"[..], b"two 2", b""]);
        assert!(all("a=1&&key=2&=3").is_empty());
        assert_eq!(query_values(None, "a").count(), 0);
    }
}
