//! The one normal form of a path: for matching, for policies and for the backend.
//!
//! Slashes are merged, `.` and `..` are resolved, percent-encoded unreserved characters are
//! decoded and the digits of what stays encoded are upper case (RFC 3986, 6.2.2). `%2F` stays
//! encoded and never separates. What backends read in different ways has no normal form:
//! `%00`, `%5C`, a backslash, and a dot segment that is percent-encoded.

use std::borrow::Cow;

use crate::reason::Reason;

/// The normal form of `path`, borrowed where it is one already.
///
/// # Errors
/// [`Reason::InvalidPath`] for a path that has none, or that does not begin with a slash.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, Reason> {
    if !path.starts_with('/') {
        return Err(Reason::InvalidPath);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    rewrite(path).map(Cow::Owned)
}

/// Whether nothing in `path` needs a second look. Most paths.
fn is_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match byte {
            b'%' | b'\\' | 0 => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = *byte == b'/',
        }
    }
    true
}

fn rewrite(path: &str) -> Result<String, Reason> {
    let mut normal = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" | "." => {}
            ".." => {
                let parent = normal.rfind('/').unwrap_or(0);
                normal.truncate(parent);
            }
            _ => {
                normal.push('/');
                push_segment(&mut normal, segment)?;
                continue;
            }
        }
        if is_last {
            normal.push('/');
        }
    }
    Ok(normal)
}

/// Appends `segment` with its percent-encoding in normal form.
fn push_segment(normal: &mut String, segment: &str) -> Result<(), Reason> {
    let start = normal.len();
    let mut rest = segment;
    while let Some(at) = rest.find(['%', '\\', '\0']) {
        normal.push_str(&rest[..at]);
        let byte = escaped(&rest.as_bytes()[at..]).ok_or(Reason::InvalidPath)?;
        match byte {
            0 | b'\\' => return Err(Reason::InvalidPath),
            b'-' | b'.' | b'_' | b'~' => normal.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => normal.push(char::from(byte)),
            _ => {
                normal.push('%');
                normal.push_str(&rest[at + 1..at + 3].to_ascii_uppercase());
            }
        }
        rest = &rest[at + 3..];
    }
    normal.push_str(rest);
    match &normal[start..] {
        "." | ".." => Err(Reason::InvalidPath),
        _ => Ok(()),
    }
}

/// The byte that `%XX` stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_normal_form() {
        for (path, normal) in [
            ("/", "/"),
            ("//", "/"),
            ("/a/b", "/a/b"),
            ("/a//b///c", "/a/b/c"),
            ("/a/", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c", "/a/c"),
            ("/../../etc", "/etc"),
            ("/a/..", "/"),
            ("/..", "/"),
            ("/.", "/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/%41%7e%2D", "/A~-"),
            ("/%c3%a4", "/%C3%A4"),
            ("/a%2fb/../c", "/c"),
            ("/@scope%2fname", "/@scope%2Fname"),
            ("/a%2F..%2Fb", "/a%2F..%2Fb"),
            ("/a%25%32%65", "/a%252e"),
            ("/a;b=c/d", "/a;b=c/d"),
            ("/a..b/c.", "/a..b/c."),
            ("/x.%2e", "/x.."),
        ] {
            assert_eq!(normalise(path).unwrap(), normal, "{path}");
            assert_eq!(normalise(normal).unwrap(), normal, "twice: {path}");
        }
    }

    #[test]
    fn a_path_that_backends_read_in_different_ways_is_refused() {
        for path in [
            "",
            "*",
            "a",
            "/%00",
            "/a%5c..%5Cb",
            "/a\\b",
            "/%2e",
            "/%2e%2E/x",
            "/a/.%2e/b",
            "/%",
            "/%4",
            "/%zz",
            "/a%+1",
        ] {
            assert_eq!(normalise(path), Err(Reason::InvalidPath), "{path:?}");
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        assert!(matches!(normalise("/api/v1/users").unwrap(), Cow::Borrowed(_)));
    }
}
