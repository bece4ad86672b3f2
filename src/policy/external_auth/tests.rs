#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod forward_auth;
mod kept;

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use futures_util::FutureExt;

use super::judge::{MAX_ASKING, MAX_BODY};
use super::testing::{Fake, refs, set};
use super::*;
use crate::policy::testing::exchange_with;
use crate::services::ext_authz::{
    Allowed, CheckResponse, Denied, HeaderOption, HttpResponse, HttpStatus, Status,
};

fn policy(spec: &Spec) -> ExternalAuth {
    ExternalAuth::compile(spec, &refs()).unwrap()
}

fn http(spec: HttpSpec) -> ExternalAuth {
    policy(&Spec { http: Some(Box::new(spec)), ..Spec::default() })
}

fn grpc(allowed: &[&str]) -> ExternalAuth {
    let allowed_headers = strings(allowed);
    let grpc = Some(GrpcSpec { allowed_headers, ..GrpcSpec::default() });
    policy(&Spec { protocol: Protocol::Grpc, grpc, ..Spec::default() })
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn answer(policy: &ExternalAuth, ex: &mut Exchange<'_>) -> Option<Reply> {
    policy.on_request(ex).now_or_never().unwrap().break_value()
}

const ASK: &[(&str, &str)] =
    &[("authorization", "Bearer x"), ("cookie", "a=b"), ("x-one", "1"), ("x-one", "2")];

fn get<'a>(fake: &'a Fake, headers: &[(&str, &str)]) -> Exchange<'a> {
    exchange_with(fake, "GET", "https://a.example:8443/path/x?q=1", headers)
}

fn fields(headers: &HeaderMap) -> Vec<String> {
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<String> = headers.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn the_service_gets_the_head_under_its_own_path_and_only_what_it_may() {
    let fake = Fake::answers(200, &[], "");
    let spec = HttpSpec { path: Some("verify/".into()), ..HttpSpec::default() };
    assert!(answer(&http(spec), &mut get(&fake, ASK)).is_none());
    let asked = fake.asked();
    assert_eq!(
        (asked.method().as_str(), asked.uri().to_string()),
        ("GET", "/verify/path/x?q=1".into())
    );
    let always = ["authorization: Bearer x", "content-length: 0", "host: a.example:8443"];
    assert_eq!(fields(asked.headers()), always);

    let allowed_headers = strings(&["X-One", "Authorization", "Host", "Content-Length", "x-none"]);
    let spec = HttpSpec { allowed_headers, ..HttpSpec::default() };
    assert!(answer(&http(spec), &mut get(&fake, ASK)).is_none());
    let asked = fake.asked();
    assert_eq!(asked.uri(), "/path/x?q=1");
    let more = [&always[..], &["x-one: 1", "x-one: 2"]].concat();
    assert_eq!(fields(asked.headers()), more);
}

#[test]
fn of_a_yes_all_goes_on_that_does_not_belong_to_the_proxy_or_to_the_answer() {
    let fake = Fake::answers(
        200,
        &[
            ("x-user", "ann"),
            ("x-group", "a"),
            ("x-group", "b"),
            ("authorization", "Internal y"),
            ("host", "evil"),
            ("content-length", "3"),
            ("content-type", "text/html"),
            ("transfer-encoding", "chunked"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("date", "now"),
        ],
        "yes",
    );
    let mut ex = get(&fake, &[("authorization", "Bearer x"), ("x-user", "evil"), ("x-mine", "1")]);
    assert!(answer(&http(HttpSpec::default()), &mut ex).is_none());
    let expected =
        ["authorization: Internal y", "x-group: a", "x-group: b", "x-mine: 1", "x-user: ann"];
    assert_eq!(fields(&ex.request.headers), expected);
    assert_eq!(&*ex.request.host, "a.example");
}

#[test]
fn what_is_listed_comes_from_the_service_alone() {
    let fake = Fake::answers(200, &[("x-user", "ann"), ("x-other", "1")], "");
    let allowed_response_headers = strings(&["X-User", "x-group"]);
    let policy = http(HttpSpec { allowed_response_headers, ..HttpSpec::default() });
    let mut ex = get(
        &fake,
        &[("x-user", "evil"), ("x-group", "admin"), ("x-mine", "1"), ("x_user", "evil")],
    );
    assert!(answer(&policy, &mut ex).is_none());
    assert_eq!(fields(&ex.request.headers), ["x-mine: 1", "x-user: ann"]);
}

#[test]
fn a_refusal_is_the_services_own_answer() {
    let fake = Fake::answers(
        401,
        &[
            ("www-authenticate", "Basic"),
            ("content-type", "text/html"),
            ("content-length", "2"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
        ],
        "no",
    );
    let reply = answer(&http(HttpSpec::default()), &mut get(&fake, ASK)).unwrap();
    assert_eq!((reply.status.as_u16(), reply.reason), (401, Reason::AuthDenied));
    assert_eq!(&reply.body[..], b"no");
    let expected =
        ["content-type: text/html", "set-cookie: a", "set-cookie: b", "www-authenticate: Basic"];
    assert_eq!(fields(&reply.headers), expected);
    let login = Fake::answers(302, &[("location", "https://login.example/")], "");
    let reply = answer(&http(HttpSpec::default()), &mut get(&login, ASK)).unwrap();
    assert_eq!((reply.status.as_u16(), reply.headers.len()), (302, 1));
}

#[test]
fn a_refusal_that_is_too_long_goes_without_its_body() {
    let mut fake =
        Fake::answers(403, &[("content-encoding", "gzip"), ("x-why", "a")], "part of it");
    fake.answer.as_mut().unwrap().is_whole = false;
    let reply = answer(&http(HttpSpec::default()), &mut get(&fake, ASK)).unwrap();
    assert_eq!((reply.status.as_u16(), reply.body.len()), (403, 0));
    assert_eq!(fields(&reply.headers), ["x-why: a"]);
}

#[test]
fn no_other_success_is_a_yes_and_no_failure_is_passed_on() {
    for (status, expected, reason) in [
        (204, 403, Reason::AuthDenied),
        (206, 403, Reason::AuthDenied),
        (500, 503, Reason::AuthUnavailable),
        (503, 503, Reason::AuthUnavailable),
    ] {
        let fake = Fake::answers(status, &[("x-internal", "1")], "trace");
        let reply = answer(&http(HttpSpec::default()), &mut get(&fake, ASK)).unwrap();
        assert_eq!((reply.status.as_u16(), reply.reason), (expected, reason), "{status}");
        assert!(reply.headers.is_empty() && reply.body.is_empty(), "{status}");
    }
}

#[test]
fn without_an_answer_nobody_passes() {
    for reason in [Reason::NoEndpoints, Reason::ConnectFailed, Reason::BackendTimeout] {
        for policy in [http(HttpSpec::default()), grpc(&[])] {
            let fake = Fake::new(Err(reason));
            let reply = answer(&policy, &mut get(&fake, ASK)).unwrap();
            assert_eq!((reply.status.as_u16(), reply.reason), (503, Reason::AuthUnavailable));
        }
    }
}

#[test]
fn a_body_is_sent_only_if_it_is_asked_for_and_fits() {
    let with = |max_size| {
        policy(&Spec { forward_body: Some(ForwardBody { max_size }), ..Spec::default() })
    };
    let mut fake = Fake::answers(200, &[], "");
    fake.body = b"12345";
    for (max_size, sent) in [(0, ""), (5, "12345")] {
        assert!(answer(&with(max_size), &mut get(&fake, ASK)).is_none());
        let asked = fake.asked();
        assert_eq!(asked.body(), sent);
        assert_eq!(asked.headers()["content-length"], sent.len().to_string().as_str());
    }
    let reply = answer(&with(4), &mut get(&fake, ASK)).unwrap();
    assert_eq!((reply.status.as_u16(), reply.reason), (413, Reason::BodyTooLarge));
    assert!(fake.asked.take().is_empty());
}

#[test]
fn grpc_is_asked_with_all_fields_or_with_those_that_are_listed() {
    let fake = Fake::checks(&CheckResponse {
        status: Some(Status { code: 0 }),
        ..CheckResponse::default()
    });
    assert!(answer(&grpc(&[]), &mut get(&fake, ASK)).is_none());
    let http = fake.checked();
    assert_eq!((&*http.method, &*http.path), ("GET", "/path/x?q=1"));
    assert_eq!((&*http.host, &*http.scheme, http.size), ("a.example:8443", "https", -1));
    let headers: Vec<_> = http.headers.iter().map(|(n, v)| format!("{n}: {v}")).collect();
    assert_eq!(headers, ["authorization: Bearer x", "cookie: a=b", "x-one: 1,2"]);
    assert!(answer(&grpc(&["X-One"]), &mut get(&fake, ASK)).is_none());
    assert_eq!(fake.checked().headers.keys().collect::<Vec<_>>(), ["x-one"]);
}

#[test]
fn grpc_gets_a_body_as_text_or_else_as_bytes() {
    let spec = Spec {
        protocol: Protocol::Grpc,
        forward_body: Some(ForwardBody { max_size: 10 }),
        ..Spec::default()
    };
    let allowed = CheckResponse { status: Some(Status { code: 0 }), ..Default::default() };
    let mut fake = Fake::checks(&allowed);
    for (body, text, raw) in [(&b"abc"[..], "abc", &b""[..]), (b"\xff\x00", "", b"\xff\x00")] {
        fake.body = body;
        assert!(answer(&policy(&spec), &mut get(&fake, ASK)).is_none());
        let http = fake.checked();
        assert_eq!((&*http.body, &http.raw_body[..]), (text, raw));
        assert_eq!(http.size, i64::try_from(body.len()).unwrap());
    }
}

#[test]
fn a_yes_by_grpc_changes_request_and_answer() {
    let append = |key, value| HeaderOption { append: Some(true), ..set(key, value) };
    let action = |key, append_action| HeaderOption { append_action, ..set(key, "new") };
    let fake = Fake::checks(&CheckResponse {
        status: Some(Status { code: 0 }),
        http_response: Some(HttpResponse::Allowed(Allowed {
            headers: vec![
                set("X-User", "ann"),
                append("x-one", "3"),
                action("cookie", 1),
                action("x-absent", 3),
                set(":path", "/evil"),
                set("host", "evil"),
                set("content-length", "9"),
            ],
            headers_to_remove: strings(&["Authorization", "Host", ":method"]),
            response_headers_to_add: vec![append("set-cookie", "s"), set("content-length", "1")],
            ..Allowed::default()
        })),
    });
    let policy = grpc(&[]);
    let mut ex = get(&fake, &[&[("x-user", "evil"), ("x_user", "evil")], ASK].concat());
    assert!(answer(&policy, &mut ex).is_none());
    let expected = ["cookie: a=b", "x-one: 1", "x-one: 2", "x-one: 3", "x-user: ann"];
    assert_eq!(fields(&ex.request.headers), expected);
    assert_eq!((&*ex.request.host, &*ex.request.path), ("a.example", "/path/x"));
    let headers = [("set-cookie", "own"), ("content-length", "5")];
    let headers = headers.map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v)));
    let mut res = ResponseHead { status: StatusCode::OK, headers: headers.into_iter().collect() };
    policy.on_response(&ex, &mut res);
    policy.on_response(&ex, &mut res);
    assert_eq!(fields(&res.headers), ["content-length: 5", "set-cookie: own", "set-cookie: s"]);
}

#[test]
fn what_is_listed_comes_from_the_grpc_service_alone() {
    let fake = Fake::checks(&CheckResponse {
        status: Some(Status { code: 0 }),
        http_response: Some(HttpResponse::Allowed(Allowed {
            headers: vec![set("X-User", "ann"), set("x-other", "1")],
            ..Allowed::default()
        })),
    });
    let with = |names: &[&str]| {
        let allowed_response_headers = strings(names);
        let grpc = Some(GrpcSpec { allowed_response_headers, ..GrpcSpec::default() });
        Spec { protocol: Protocol::Grpc, grpc, ..Spec::default() }
    };
    let evil = [("x-user", "evil"), ("x_group", "admin"), ("x-group", "admin"), ("x-mine", "1")];
    let mut ex = get(&fake, &evil);
    assert!(answer(&policy(&with(&["X-User", "x-group"])), &mut ex).is_none());
    assert_eq!(fields(&ex.request.headers), ["x-mine: 1", "x-user: ann"]);
    let error = ExternalAuth::compile(&with(&["x-user", "Host"]), &refs()).unwrap_err();
    assert_eq!(error.field, "grpc.allowedResponseHeaders[1]");
}

#[test]
fn a_no_by_grpc_is_what_the_service_says() {
    let denied = |status: Option<i32>| CheckResponse {
        status: Some(Status { code: 16 }),
        http_response: Some(HttpResponse::Denied(Denied {
            status: status.map(|code| HttpStatus { code }),
            headers: vec![set("www-authenticate", "Bearer"), set("content-length", "7")],
            body: "no".into(),
        })),
    };
    for (status, expected) in [(Some(401), 401), (Some(302), 302), (Some(503), 503), (None, 403)] {
        let fake = Fake::checks(&denied(status));
        let reply = answer(&grpc(&[]), &mut get(&fake, ASK)).unwrap();
        assert_eq!((reply.status.as_u16(), reply.reason), (expected, Reason::AuthDenied));
        assert_eq!(fields(&reply.headers), ["www-authenticate: Bearer"]);
        assert_eq!(&reply.body[..], b"no");
    }
    for status in [0, 200, 204, 1000, -1] {
        let fake = Fake::checks(&denied(Some(status)));
        let reply = answer(&grpc(&[]), &mut get(&fake, ASK)).unwrap();
        assert_eq!(reply.status, 403, "{status}");
    }
}

#[test]
fn a_check_that_contradicts_itself_is_a_no() {
    let allowed = || Some(HttpResponse::Allowed(Allowed::default()));
    for response in [
        CheckResponse::default(),
        CheckResponse { status: Some(Status { code: 7 }), http_response: allowed() },
        CheckResponse { status: None, http_response: allowed() },
        CheckResponse {
            status: Some(Status { code: 0 }),
            http_response: Some(HttpResponse::Denied(Denied::default())),
        },
    ] {
        let fake = Fake::checks(&response);
        let reply = answer(&grpc(&[]), &mut get(&fake, ASK)).unwrap();
        assert_eq!((reply.status.as_u16(), reply.reason), (403, Reason::AuthDenied));
    }
    let broken = Fake::checks(&CheckResponse {
        status: Some(Status { code: 0 }),
        http_response: Some(HttpResponse::Allowed(Allowed {
            headers: vec![set("x-user", "a\r\nb: c")],
            ..Allowed::default()
        })),
    });
    let reply = answer(&grpc(&[]), &mut get(&broken, ASK)).unwrap();
    assert_eq!(reply.reason, Reason::AuthUnavailable, "half a decision is none");
}

#[test]
fn more_than_a_bound_do_not_wait_for_the_service_at_once() {
    let (fake, policy) = (Fake::answers(200, &[], ""), http(HttpSpec::default()));
    policy.judge.asking.store(MAX_ASKING, Relaxed);
    let reply = answer(&policy, &mut get(&fake, ASK)).unwrap();
    assert_eq!((reply.status.as_u16(), reply.reason), (503, Reason::Overloaded));
    policy.judge.asking.store(MAX_ASKING - 1, Relaxed);
    assert!(answer(&policy, &mut get(&fake, ASK)).is_none());
    assert_eq!(policy.judge.asking.load(Relaxed), MAX_ASKING - 1);
    let mut next = http(HttpSpec::default());
    next.adopt(&policy);
    assert_eq!(next.judge.asking.load(Relaxed), MAX_ASKING - 1);
}

#[test]
fn what_cannot_be_done_is_refused_by_field() {
    let http = |spec| Spec { http: Some(Box::new(spec)), ..Spec::default() };
    let path = |path: &str| http(HttpSpec { path: Some(path.into()), ..HttpSpec::default() });
    let body = |max_size| Spec { forward_body: Some(ForwardBody { max_size }), ..Spec::default() };
    let allowed_response_headers = strings(&["x-user", "Host"]);
    let grpc = Some(GrpcSpec::default());
    for (spec, field) in [
        (path("/a/../b"), "http.path"),
        (path("/a?b"), "http.path"),
        (path("/%2e%2e"), "http.path"),
        (
            http(HttpSpec { allowed_headers: strings(&["a b"]), ..HttpSpec::default() }),
            "http.allowedHeaders[0]",
        ),
        (
            http(HttpSpec { allowed_headers: vec!["a".into(); 65], ..HttpSpec::default() }),
            "http.allowedHeaders",
        ),
        (
            http(HttpSpec { allowed_response_headers, ..HttpSpec::default() }),
            "http.allowedResponseHeaders[1]",
        ),
        (body(-1), "forwardBody.maxSize"),
        (body(MAX_BODY + 1), "forwardBody.maxSize"),
        (Spec { grpc, ..Spec::default() }, "grpc"),
        (Spec { protocol: Protocol::Grpc, ..http(HttpSpec::default()) }, "http"),
    ] {
        assert_eq!(ExternalAuth::compile(&spec, &refs()).unwrap_err().field, field);
    }
    let gone = ExternalAuth::compile(&Spec::default(), &Refs::default()).unwrap_err();
    assert_eq!(gone.field, BACKEND_REF);
}
