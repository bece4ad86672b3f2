//! Fields that belong to one connection and go no further (RFC 9110, 7.6.1).

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::outline::{Outline, is_forwarded, is_hop_by_hop};

/// What a request asks of its connection, read before [`strip`] takes it away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The protocol that the client wants to change to.
    pub upgrade: Option<HeaderValue>,
    /// The client takes trailers (`TE: trailers`).
    pub trailers: bool,
}

/// Removes what belongs to the connection, and what its Connection fields name.
///
/// Connection must not name what carries identity, routing or framing: a client could hide
/// from the backend what we have put there (CVE-2024-45410). Such names are passed over.
pub fn strip(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| is_hop_by_hop(name.as_str())) {
        return;
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = options(headers)
            .filter_map(|option| HeaderName::from_bytes(option.as_bytes()).ok())
            .filter(|name| !is_protected(name.as_str()))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    let rest: Vec<HeaderName> =
        headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned().collect();
    for name in rest {
        headers.remove(name);
    }
}

/// Reads what a request asks of its connection.
pub fn asked(headers: &HeaderMap, outline: &Outline) -> Asked {
    if !outline.has_te && !outline.has_upgrade {
        return Asked::default();
    }
    let trailers = headers.get_all(TE).iter().any(|te| {
        let tokens = te.to_str().unwrap_or_default().split(',');
        tokens.map(str::trim).any(|token| token.eq_ignore_ascii_case("trailers"))
    });
    let upgrade = headers.get(UPGRADE).filter(|_| {
        let mut options = options(headers);
        options.any(|option| option.eq_ignore_ascii_case("upgrade"))
    });
    // A change to HTTP/2 or TLS would be between the client and us, and we offer neither.
    let passed_on = |protocol: &&HeaderValue| {
        let name = protocol.to_str().unwrap_or_default();
        !name.is_empty()
            && !name.split(',').map(str::trim).any(|p| {
                p.eq_ignore_ascii_case("h2c") || p.to_ascii_lowercase().starts_with("tls/")
            })
    };
    Asked { upgrade: upgrade.filter(passed_on).cloned(), trailers }
}

fn options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(str::trim)
        .filter(|option| !option.is_empty())
}

/// Removes trailers that could be taken for framing, routing or identity (RFC 9110, 6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap) {
    let bad: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            is_protected(name.as_str())
                || **name == TRAILER
                || **name == SET_COOKIE
                || **name == CONTENT_TYPE
                || **name == CONNECTION
                || **name == UPGRADE
                || **name == TE
        })
        .cloned()
        .collect();
    for name in bad {
        trailers.remove(name);
    }
}

/// Whether a field carries framing, routing or identity, by its lower-case name.
pub fn is_protected(name: &str) -> bool {
    let by_name = [HOST, AUTHORIZATION, COOKIE, CONTENT_LENGTH, TRANSFER_ENCODING];
    by_name.iter().any(|protected| protected == name)
        || is_forwarded(name)
        || matches!(name, "x-request-id" | "proxy-authorization")
}

/// Removes every field that would be a protected one if `_` were read as `-`, as CGI-like
/// backends do. Other names with `_` are legal and pass (gRPC metadata uses them).
pub fn strip_look_alikes(headers: &mut HeaderMap) {
    let mut found: Vec<HeaderName> = Vec::new();
    for name in headers.keys().filter(|name| name.as_str().contains('_')) {
        if is_protected(&name.as_str().replace('_', "-")) {
            found.push(name.clone());
        }
    }
    for name in found {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_connection_names_is_removed_unless_it_is_protected() {
        let mut map = headers(&[
            ("connection", "close, x-mine"),
            ("connection", "Host, X-Forwarded-For,authorization"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("x-forwarded-for", "1"),
            ("authorization", "1"),
            ("host", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "1"),
            ("proxy-connection", "1"),
            ("upgrade", "x"),
        ]);
        strip(&mut map);
        assert_eq!(names(&map), ["authorization", "host", "x-forwarded-for", "x-other"]);
    }

    #[test]
    fn an_upgrade_counts_only_when_connection_names_it() {
        let upgrade = |fields| {
            let headers = headers(fields);
            asked(&headers, &Outline::of(&headers)).upgrade
        };
        assert!(
            upgrade(&[("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")]).is_some()
        );
        assert_eq!(upgrade(&[("upgrade", "websocket")]), None);
        assert_eq!(upgrade(&[("upgrade", "h2c"), ("connection", "upgrade")]), None);
        assert_eq!(upgrade(&[("upgrade", "TLS/1.2"), ("connection", "upgrade")]), None);
    }

    #[test]
    fn look_alikes_of_protected_fields_are_removed_and_others_with_underscores_stay() {
        let mut map = headers(&[
            ("x_forwarded_for", "1"),
            ("x-forwarded_proto", "1"),
            ("x_real_ip", "1"),
            ("content_length", "1"),
            ("grpc_meta", "1"),
        ]);
        strip_look_alikes(&mut map);
        assert_eq!(names(&map), ["grpc_meta"]);
    }

    #[test]
    fn trailers_carry_no_framing_routing_or_identity() {
        let mut map = headers(&[
            ("content-length", "1"),
            ("host", "a"),
            ("authorization", "a"),
            ("set-cookie", "a"),
            ("grpc-status", "0"),
        ]);
        strip_trailers(&mut map);
        assert_eq!(names(&map), ["grpc-status"]);
    }
}
