//! Host names as objects write them: exact, `*.suffix`, or empty for every host.

/// The name in lower case, if it is one that requests can be matched by: no address, no port,
/// and a `*` only as the whole first label.
///
/// # Errors
/// A message for the user.
pub(super) fn parse(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("{text:?} {why}; use a name such as app.example.com"));
    let name = text.to_ascii_lowercase();
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    if labels.len() > 253 || labels.is_empty() {
        return wrong("is not a host name");
    }
    if labels.parse::<std::net::IpAddr>().is_ok() {
        return wrong("is an address");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if labels.split('.').all(label) { Ok(name) } else { wrong("is not a host name") }
}

/// Whether there is a host that both patterns match. A wildcard stands for one label or more.
pub(super) fn intersect(a: &str, b: &str) -> bool {
    match (a, b) {
        ("", _) | (_, "") => true,
        _ => a == b || covers(a, b) || covers(b, a),
    }
}

/// Whether the wildcard pattern `wide` matches every host that `narrow` matches, and more.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    if wide.is_empty() {
        return !narrow.is_empty();
    }
    let Some(suffix) = wide.strip_prefix('*') else { return false };
    let narrow = narrow.strip_prefix('*').unwrap_or(narrow);
    narrow.len() > suffix.len() && narrow.ends_with(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_intersect_as_gateway_api_says() {
        for (a, b, expected) in [
            ("", "a.com", true),
            ("a.com", "a.com", true),
            ("*.a.com", "b.a.com", true),
            ("*.a.com", "c.b.a.com", true),
            ("*.a.com", "a.com", false),
            ("*.a.com", "*.b.a.com", true),
            ("*.a.com", "*.a.com", true),
            ("*.com", "*.a.com", true),
            ("a.com", "b.com", false),
            ("*.a.com", "*.b.com", false),
            ("*.a.com", "xa.com", false),
        ] {
            assert_eq!(intersect(a, b), expected, "{a} {b}");
            assert_eq!(intersect(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn only_names_are_names() {
        assert_eq!(parse("App.Example.COM").as_deref(), Ok("app.example.com"));
        assert_eq!(parse("*.example.com").as_deref(), Ok("*.example.com"));
        for wrong in ["", "*", "*.", "a*.com", "*.*.com", "1.2.3.4", "a.com:80", "a..com", "-a.b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
