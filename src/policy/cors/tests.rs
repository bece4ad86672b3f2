use http::StatusCode;

use super::*;
use crate::policy::testing::{answer, exchange};

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

fn cors(spec: &Spec) -> Cors {
    Cors::compile(spec, &Refs::default()).unwrap()
}

fn listed(credentials: bool) -> Spec {
    Spec {
        allow_origins: strings(&["https://www.foo.com", "https://*.bar.com"]),
        allow_credentials: Some(credentials),
        allow_methods: strings(&["GET", "OPTIONS"]),
        allow_headers: strings(&["x-header-1", "x-header-2"]),
        expose_headers: strings(&["x-header-3", "x-header-4"]),
        max_age: Some(3600),
    }
}

fn wildcards(credentials: bool) -> Spec {
    Spec {
        allow_origins: strings(&["*"]),
        allow_credentials: Some(credentials),
        allow_methods: strings(&["*"]),
        allow_headers: strings(&["*"]),
        expose_headers: strings(&["*"]),
        max_age: None,
    }
}

fn preflight(spec: &Spec, origin: &str) -> HeaderMap {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-header-1, x-header-2"),
    ];
    let mut ex = exchange("OPTIONS", "http://a.example/", &headers);
    let reply = answer(&cors(spec), &mut ex).unwrap();
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    reply.headers
}

fn response(spec: &Spec, origin: &[(&str, &str)], upstream: &[(&'static str, &str)]) -> HeaderMap {
    let policy = cors(spec);
    let mut ex = exchange("GET", "http://a.example/", origin);
    assert!(answer(&policy, &mut ex).is_none());
    let mut headers = HeaderMap::new();
    for (name, value) in upstream {
        headers.append(*name, value.parse().unwrap());
    }
    let mut res = ResponseHead { status: StatusCode::OK, headers };
    policy.on_response(&ex, &mut res);
    res.headers
}

fn values(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let mut all: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    all.sort_unstable();
    all
}

#[test]
fn a_preflight_of_a_listed_origin_is_told_the_lists() {
    for origin in ["https://www.foo.com", "https://www.bar.com", "https://xpto.www.bar.com"] {
        assert_eq!(
            values(&preflight(&listed(true), origin)),
            [
                ("access-control-allow-credentials", "true"),
                ("access-control-allow-headers", "x-header-1, x-header-2"),
                ("access-control-allow-methods", "GET, OPTIONS"),
                ("access-control-allow-origin", origin),
                ("access-control-expose-headers", "x-header-3, x-header-4"),
                ("access-control-max-age", "3600"),
                ("vary", "origin"),
            ]
        );
    }
}

#[test]
fn a_preflight_of_another_origin_is_answered_without_permissions() {
    for origin in [
        "https://foobar.com",
        "http://www.foo.com",
        "https://www.foo.com:8443",
        "https://bar.com",
        "https://evilbar.com",
        "https://www.foo.com.evil.example",
        "https://*.bar.com",
        "null",
    ] {
        assert_eq!(values(&preflight(&listed(true), origin)), [("vary", "origin")], "{origin}");
    }
}

#[test]
fn without_credentials_wildcards_are_wildcards() {
    assert_eq!(
        values(&preflight(&wildcards(false), "https://foobar.com:12345")),
        [
            ("access-control-allow-headers", "*"),
            ("access-control-allow-methods", "*"),
            ("access-control-allow-origin", "*"),
            ("access-control-expose-headers", "*"),
            ("access-control-max-age", "5"),
        ]
    );
}

#[test]
fn with_credentials_wildcards_echo_what_was_asked() {
    assert_eq!(
        values(&preflight(&wildcards(true), "https://other.foo.com")),
        [
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-headers", "x-header-1, x-header-2"),
            ("access-control-allow-methods", "PUT"),
            ("access-control-allow-origin", "https://other.foo.com"),
            ("access-control-max-age", "5"),
            ("vary", "access-control-request-headers"),
            ("vary", "access-control-request-method"),
            ("vary", "origin"),
        ]
    );
}

#[test]
fn a_response_says_that_its_origin_is_allowed() {
    let origin = [("origin", "https://www.foo.com")];
    let upstream = [("access-control-allow-origin", "*"), ("vary", "Accept")];
    assert_eq!(
        values(&response(&listed(false), &origin, &upstream)),
        [
            ("access-control-allow-origin", "https://www.foo.com"),
            ("access-control-expose-headers", "x-header-3, x-header-4"),
            ("vary", "Accept"),
            ("vary", "origin"),
        ]
    );
}

#[test]
fn a_backend_cannot_allow_what_the_policy_does_not() {
    let upstream = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("vary", "accept, Origin"),
    ];
    for origin in [&[("origin", "https://foobar.com")][..], &[]] {
        let headers = response(&listed(true), origin, &upstream);
        assert_eq!(values(&headers), [("vary", "accept, Origin")]);
    }
}

#[test]
fn options_that_is_no_preflight_goes_on() {
    for headers in [&[("origin", "https://www.foo.com")][..], &[]] {
        let mut ex = exchange("OPTIONS", "http://a.example/", headers);
        assert!(answer(&cors(&listed(true)), &mut ex).is_none());
    }
}

#[test]
fn the_default_port_is_the_scheme_s_own() {
    let spec = Spec { allow_origins: strings(&["https://*:443"]), ..Spec::default() };
    let policy = cors(&spec);
    for (origin, allowed) in [
        ("https://a.example", true),
        ("https://a.example:443", true),
        ("https://[2001:db8::1]", true),
        ("https://a.example:444", false),
        ("http://a.example", false),
    ] {
        assert_eq!(policy.origins.allow(&origin.parse().unwrap()), allowed, "{origin}");
    }
}

#[test]
fn what_is_not_an_origin_method_or_header_is_refused_by_place() {
    let origin =
        |o: &str| Spec { allow_origins: strings(&["https://a.example", o]), ..Spec::default() };
    for bad in
        ["*", "a.example", "ftp://a.example", "https://a*.example", "https://", "https://a:0"]
    {
        let error = Cors::compile(&origin(bad), &Refs::default()).unwrap_err();
        assert_eq!(error.field, "allowOrigins[1]", "{bad}");
    }
    let spec = Spec { allow_methods: strings(&["GET", "*"]), ..Spec::default() };
    assert_eq!(Cors::compile(&spec, &Refs::default()).unwrap_err().field, "allowMethods[1]");
    let spec = Spec { expose_headers: strings(&["a b"]), ..Spec::default() };
    assert_eq!(Cors::compile(&spec, &Refs::default()).unwrap_err().field, "exposeHeaders[0]");
}
