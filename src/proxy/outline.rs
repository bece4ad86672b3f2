//! What one pass over the fields of a request's head tells.
//!
//! Looking a name up in a head costs its hash. A plain request has hardly any of the fields that
//! need care, and comparing the few names that it has is cheaper than asking for each that it has
//! not. Whoever takes care of a field asks here first.

use http::HeaderMap;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Of all names and values.
    pub bytes: usize,
    /// Cookie, as often as it is there.
    pub cookies: usize,
    pub has_expect: bool,
    pub has_te: bool,
    pub has_upgrade: bool,
    pub has_transfer_encoding: bool,
    pub has_content_type: bool,
    pub has_request_id: bool,
    /// Fields that [`super::hop_by_hop::strip`] removes, or that say so.
    pub has_hop_by_hop: bool,
    /// Fields that only trusted proxies may send.
    pub has_forwarded: bool,
    /// Names with `_`.
    pub has_underscore: bool,
}

impl Outline {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut outline = Outline::default();
        for (name, value) in headers {
            outline.bytes += name.as_str().len() + value.len();
            outline.note(name.as_str());
        }
        outline
    }

    fn note(&mut self, name: &str) {
        match name {
            "te" => self.has_te = true,
            "cookie" => self.cookies += 1,
            "expect" => self.has_expect = true,
            "upgrade" => self.has_upgrade = true,
            "content-type" => self.has_content_type = true,
            "x-request-id" => self.has_request_id = true,
            "transfer-encoding" => self.has_transfer_encoding = true,
            _ => {}
        }
        self.has_hop_by_hop |= is_hop_by_hop(name);
        self.has_forwarded |= is_forwarded(name);
        self.has_underscore |= name.bytes().any(|byte| byte == b'_');
    }
}

/// Whether a field belongs to one connection (RFC 9110, 7.6.1), by its lower-case name.
pub fn is_hop_by_hop(name: &str) -> bool {
    match name.len() {
        2 => name == "te",
        7 => name == "upgrade",
        10 => name == "connection" || name == "keep-alive",
        14 => name == "http2-settings",
        16 => name == "proxy-connection",
        17 => name == "transfer-encoding",
        18 => name == "proxy-authenticate",
        19 => name == "proxy-authorization",
        _ => false,
    }
}

/// Whether a field tells of the client behind a proxy, or of what it asked for before a proxy
/// changed that, by its lower-case name. Some backends go by the latter instead of the target.
pub fn is_forwarded(name: &str) -> bool {
    match name.len() {
        9 => name == "forwarded" || name == "x-real-ip",
        13 if name == "x-rewrite-url" => true,
        14 if name == "x-original-url" || name == "x-original-uri" => true,
        12.. => name.starts_with("x-forwarded-"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::COOKIE;

    use super::*;

    fn outline(names: &[&'static str]) -> Outline {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(*name, HeaderValue::from_static("12"));
        }
        Outline::of(&headers)
    }

    #[test]
    fn a_plain_head_needs_no_care() {
        let plain = outline(&["accept", "user-agent", "x-request-ib", "origin"]);
        let bytes = "acceptuser-agentx-request-iborigin".len() + 4 * 2;
        assert_eq!(plain, Outline { bytes, ..Outline::default() });
    }

    #[test]
    fn every_field_that_needs_care_is_seen() {
        let seen = |name, of: fn(&Outline) -> bool| {
            assert!(of(&outline(&["accept", name, "x-other"])), "{name}");
        };
        for name in [
            "te",
            "upgrade",
            "connection",
            "keep-alive",
            "http2-settings",
            "proxy-connection",
            "transfer-encoding",
            "proxy-authenticate",
            "proxy-authorization",
        ] {
            seen(name, |outline| outline.has_hop_by_hop);
        }
        for name in [
            "forwarded",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-",
            "x-rewrite-url",
            "x-original-url",
            "x-original-uri",
        ] {
            seen(name, |outline| outline.has_forwarded);
        }
        seen("te", |outline| outline.has_te);
        seen("expect", |outline| outline.has_expect);
        seen("upgrade", |outline| outline.has_upgrade);
        seen("x-request-id", |outline| outline.has_request_id);
        seen("content-type", |outline| outline.has_content_type);
        seen("transfer-encoding", |outline| outline.has_transfer_encoding);
        seen("x_forwarded_for", |outline| outline.has_underscore);
    }

    #[test]
    fn crumbs_are_counted_one_by_one() {
        assert_eq!(outline(&["cookie", "accept", COOKIE.as_str()]).cookies, 2);
    }
}
