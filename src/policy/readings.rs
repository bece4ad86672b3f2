//! What backends may read in a path besides what it says.
//!
//! A path in normal form may still hold `%2F`, which some backends decode before they look at
//! it, and `;` with parameters of a segment (RFC 3986, 3.3), which some leave out: for them
//! `/public/..;/admin` and `/admin%2Fusers` are below `/admin`. Who decides by a path has to
//! hold its decision against these readings too: what allows must allow all of them, what denies
//! has to deny if it denies one.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// How often a path is decoded: once by a backend, and once more by what stands behind it.
const ROUNDS: usize = 2;

/// Every other path that a backend may take `path`, which is in normal form, for. Most have
/// none, and cost one look at each byte.
pub fn readings(path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !path.bytes().any(|byte| matches!(byte, b'%' | b';')) {
        return found;
    }
    let mut text = Cow::Borrowed(path);
    for round in 0..=ROUNDS {
        if round > 0 {
            // What has become of an escaped end of the path is not known.
            let decoded = percent_decode_str(&text).decode_utf8_lossy().replace('\\', "/");
            if decoded == text {
                break;
            }
            text = Cow::Owned(decoded);
            let end = text.find(['?', '#', '\0']).unwrap_or(text.len());
            note(&mut found, path, resolved(&text[..end]));
        }
        note(&mut found, path, resolved(&text));
        note(&mut found, path, resolved(&without_parameters(&text)));
    }
    found
}

fn note(found: &mut Vec<String>, path: &str, reading: String) {
    if reading != path && !found.contains(&reading) {
        found.push(reading);
    }
}

/// The path without what stands behind `;` in each segment.
fn without_parameters(path: &str) -> String {
    let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    segments.collect::<Vec<_>>().join("/")
}

/// The path with its dot segments resolved (RFC 3986, 5.2.4) and its slashes merged.
fn resolved(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut is_open = false;
    for segment in path.split('/') {
        is_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let mut resolved = String::with_capacity(path.len() + 1);
    for segment in &segments {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if is_open || segments.is_empty() {
        resolved.push('/');
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_is_read_in_one_way() {
        for path in ["/", "/a/b", "/a..b/", "/a-b_c~d/...", "/ä"] {
            assert!(readings(path).is_empty(), "{path}");
        }
    }

    #[test]
    fn what_backends_may_read_is_among_the_readings() {
        for (path, reading) in [
            ("/admin%2Fusers", "/admin/users"),
            ("/%2Fadmin", "/admin"),
            ("/x%2F..%2Fadmin", "/admin"),
            ("/admin;a=b/users", "/admin/users"),
            ("/admin;/", "/admin/"),
            ("/;a/admin", "/admin"),
            ("/public/..;/admin", "/admin"),
            ("/public/..;a=b/admin", "/admin"),
            ("/public/.;/../admin", "/admin"),
            ("/admin%3Ba=b/users", "/admin/users"),
            ("/public/..%3B/admin", "/admin"),
            ("/public%2F..;/admin", "/admin"),
            ("/x%252F..%252Fadmin", "/admin"),
            ("/%2561dmin", "/admin"),
            ("/x%255C..%255Cadmin", "/admin"),
            ("/admin%3Fx", "/admin"),
            ("/admin%23", "/admin"),
            ("/admin%2500.png", "/admin"),
        ] {
            assert!(readings(path).iter().any(|r| r == reading), "{path}: {:?}", readings(path));
        }
    }

    #[test]
    fn there_are_few_readings_of_any_path() {
        let path = "/a%252F..%253B;x%2500/%25252e".repeat(20);
        assert!(readings(&path).len() <= 8);
        assert_eq!(readings("/@scope%2Fname"), ["/@scope/name"]);
    }
}
