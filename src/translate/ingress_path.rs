//! Paths of Ingresses: how they are written, and what they match.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::matches::absolute;
use crate::graph::PathMatch;

/// What must be percent-encoded in a path (RFC 3986, 3.3), but for `%` itself: who writes that
/// has encoded already.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// `path` as clients may send it: an Ingress may name characters that do not belong into a URL,
/// some clients encode them and others do not.
pub(super) fn spellings(path: &str) -> Vec<Cow<'_, str>> {
    let encoded: Cow<'_, str> = utf8_percent_encode(path, ENCODED).into();
    if *encoded == *path { vec![encoded] } else { vec![path.into(), encoded] }
}

/// The match of `path`, by its `pathType`.
///
/// # Errors
/// A message for the user.
pub(super) fn path_match(r#type: &str, path: &str) -> Result<PathMatch, String> {
    let path = absolute(path)?;
    match r#type {
        "Exact" => Ok(PathMatch::Exact(path.into())),
        "Prefix" | "ImplementationSpecific" if *path == *"/" => Ok(PathMatch::Prefix("".into())),
        "Prefix" | "ImplementationSpecific" => Ok(PathMatch::Prefix(path.into())),
        other => Err(format!("pathType {other:?} is not supported; use Prefix")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_part_of_a_url_is_matched_encoded_and_as_it_is() {
        assert_eq!(spellings("/a b/ü"), ["/a b/ü", "/a%20b/%C3%BC"]);
        assert_eq!(spellings("/a%20b/(1)"), ["/a%20b/(1)"]);
    }

    #[test]
    fn a_prefix_keeps_the_slash_at_its_end_but_for_the_root() {
        let of = |path| match path_match("Prefix", path) {
            Ok(PathMatch::Prefix(prefix)) => prefix,
            other => panic!("{other:?}"),
        };
        assert_eq!((&*of("/a/"), &*of("/a"), &*of("/")), ("/a/", "/a", ""));
    }
}
