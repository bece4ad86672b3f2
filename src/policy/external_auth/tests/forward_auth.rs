//! Forward auth as Traefik and ingress-nginx have it, and what else beyond GEP-1494 is asked and
//! taken over.

use super::*;
use crate::policy::identity::Method;
use crate::services::ext_authz::QueryParameter;

fn forward(change: impl FnOnce(&mut HttpSpec)) -> ExternalAuth {
    let path = Some("/verify".into());
    let mut spec = HttpSpec { forward_original: true, path, ..HttpSpec::default() };
    change(&mut spec);
    http(spec)
}

/// A request as the proxy hands it to policies.
const TOLD: &[(&str, &str)] = &[
    ("authorization", "Bearer x"),
    ("cookie", "a=b"),
    ("if-none-match", "\"1\""),
    ("range", "bytes=0-1"),
    ("te", "trailers"),
    ("content-length", "5"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "a.example:8443"),
    ("x-real-ip", "192.0.2.1"),
    ("x-original-url", "https://a.example/public"),
    ("x_forwarded_uri", "/public"),
    ("x_original_method", "OPTIONS"),
    ("x-auth-request-redirect", "https://evil.example/"),
];

fn post<'a>(fake: &'a Fake) -> Exchange<'a> {
    exchange_with(fake, "POST", "https://a.example:8443/path/x?q=1", TOLD)
}

#[test]
fn forward_auth_is_asked_at_its_own_address_and_told_of_the_request_in_fields() {
    let fake = Fake::answers(200, &[], "");
    assert!(answer(&forward(|_| {}), &mut post(&fake)).is_none());
    let asked = fake.asked();
    assert_eq!((asked.method().as_str(), asked.uri().to_string()), ("GET", "/verify".into()));
    let always = [
        "x-forwarded-for: 192.0.2.1",
        "x-forwarded-host: a.example:8443",
        "x-forwarded-method: POST",
        "x-forwarded-proto: https",
        "x-forwarded-uri: /path/x?q=1",
        "x-original-method: POST",
        "x-original-url: https://a.example:8443/path/x?q=1",
        "x-real-ip: 192.0.2.1",
    ];
    let own = ["authorization: Bearer x", "cookie: a=b"];
    assert_eq!(fields(asked.headers()), [&own[..], &always[..]].concat());

    let policy = forward(|spec| {
        spec.allowed_headers = strings(&["Cookie", "X-Original-URL", "Host", "x_forwarded_uri"]);
        spec.method = Some(AskMethod::Post);
    });
    assert!(answer(&policy, &mut post(&fake)).is_none());
    let asked = fake.asked();
    assert_eq!(asked.method(), "POST");
    assert_eq!(fields(asked.headers()), [&own[1..], &always[..]].concat());
}

#[test]
fn forward_auth_takes_any_success_and_only_the_fields_that_are_listed() {
    let said: &[(&str, &str)] =
        &[("x-user", "ann"), ("x-auth-role", "a"), ("x-auth_team", "b"), ("x-other", "1")];
    for status in [200, 202, 204, 299] {
        let fake = Fake::answers(status, said, "");
        let mut ex = get(&fake, &[("x-user", "evil"), ("x-auth-admin", "1"), ("x_auth_role", "r")]);
        let policy = forward(|spec| {
            spec.allowed_response_headers = strings(&["X-User"]);
            spec.allowed_response_headers_regex = Some("^x-auth[-_]".into());
        });
        assert!(answer(&policy, &mut ex).is_none(), "{status}");
        let expected = ["x-auth-role: a", "x-auth_team: b", "x-user: ann"];
        assert_eq!(fields(&ex.request.headers), expected);
        let mut ex = get(&fake, &[("x-mine", "1")]);
        assert!(answer(&forward(|_| {}), &mut ex).is_none());
        assert_eq!(fields(&ex.request.headers), ["x-mine: 1"]);
    }
    for status in [100, 304] {
        let fake = Fake::answers(status, &[("location", "/")], "");
        let reply = answer(&forward(|_| {}), &mut get(&fake, ASK)).unwrap();
        assert_eq!((reply.status.as_u16(), reply.headers.len()), (403, 0), "{status}");
    }
}

#[test]
fn no_expression_takes_what_the_proxy_says_alone() {
    let fake = Fake::answers(200, &[("x-forwarded-for", "6.6.6.6"), ("x_real_ip", "6.6.6.6")], "");
    let mut ex = get(&fake, &[("x-forwarded-for", "192.0.2.1")]);
    let policy = forward(|spec| spec.allowed_response_headers_regex = Some(".*".into()));
    assert!(answer(&policy, &mut ex).is_none());
    assert_eq!(fields(&ex.request.headers), ["x-forwarded-for: 192.0.2.1"]);
}

#[test]
fn who_is_not_signed_in_is_sent_to_sign_in_and_back() {
    let sign_in = |url: &str, parameter: Option<&str>| {
        let parameter = parameter.map(Into::into);
        forward(|spec| spec.sign_in = Some(SignIn { url: url.into(), parameter }))
    };
    let back = "https%3A%2F%2Fa.example%3A8443%2Fpath%2Fx%3Fq%3D1";
    let cookies = [("set-cookie", "csrf=1"), ("set-cookie", "b=2"), ("www-authenticate", "x")];
    for (url, parameter, expected) in [
        ("https://login.example/start", None, format!("https://login.example/start?rd={back}")),
        ("/oauth2/start?a=b", Some("to"), format!("/oauth2/start?a=b&to={back}")),
        ("https://login.example?", None, format!("https://login.example?rd={back}")),
        ("https://login.example/?rd=/home", None, "https://login.example/?rd=/home".into()),
    ] {
        let fake = Fake::answers(401, &cookies, "no");
        let reply = answer(&sign_in(url, parameter), &mut post(&fake)).unwrap();
        assert_eq!((reply.status.as_u16(), reply.reason), (302, Reason::AuthDenied));
        let set = ["set-cookie: b=2".to_owned(), "set-cookie: csrf=1".to_owned()];
        let location = format!("location: {expected}");
        let expected = [&["cache-control: no-store".to_owned(), location][..], &set[..]].concat();
        assert_eq!(fields(&reply.headers), expected);
    }
    let fake = Fake::answers(403, &[], "no");
    let reply = answer(&sign_in("/start", None), &mut post(&fake)).unwrap();
    assert_eq!(reply.status, 403, "signing in again would change nothing");
}

#[test]
fn cookies_that_are_named_reach_the_client_with_the_backends_answer() {
    let fake = Fake::answers(
        200,
        &[("set-cookie", "session=1; Path=/"), ("set-cookie", "session2=x"), ("set-cookie", "o")],
        "",
    );
    let policy = forward(|spec| spec.response_cookies = strings(&["session"]));
    let mut ex = get(&fake, ASK);
    assert!(answer(&policy, &mut ex).is_none());
    let mut res = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
    policy.on_response(&ex, &mut res);
    assert_eq!(fields(&res.headers), ["set-cookie: session=1; Path=/"]);
}

#[test]
fn who_the_client_is_comes_from_the_service_alone() {
    let identity =
        Some(IdentitySpec { header: "X-User-Id".into(), groups_header: Some("X-Groups".into()) });
    let spec = Spec { identity: identity.clone(), ..Spec::default() };
    let evil: &[(&str, &str)] = &[("x-user-id", "root"), ("x_user_id", "root"), ("x-groups", "g")];
    let said = [("x-user-id", " ann "), ("x-groups", "a, b"), ("x-groups", ",c")];
    let fake = Fake::answers(200, &said, "");
    let mut ex = get(&fake, evil);
    assert!(answer(&policy(&spec), &mut ex).is_none());
    let who = ex.identity.clone().unwrap();
    assert_eq!((who.method, &*who.subject), (Method::External, "ann"));
    assert_eq!(who.groups().collect::<Vec<_>>(), ["a", "b", "c"]);
    let asked = fake.asked();
    assert!(!asked.headers().keys().any(|name| name.as_str().contains("user")));

    let long = "x".repeat(257).leak();
    for said in [&[][..], &[("x-user-id", "")], &[("x-user-id", long)]] {
        let fake = Fake::answers(200, said, "");
        let mut ex = get(&fake, evil);
        assert!(answer(&policy(&spec), &mut ex).is_none());
        assert!(ex.identity.is_none(), "{said:?}");
        assert!(!ex.request.headers.contains_key("x_user_id"));
    }

    let by_grpc = Spec { identity, protocol: Protocol::Grpc, ..Spec::default() };
    let fake = Fake::checks(&CheckResponse {
        status: Some(Status { code: 0 }),
        http_response: Some(HttpResponse::Allowed(Allowed {
            headers: vec![set("X-User-Id", "bob")],
            ..Allowed::default()
        })),
    });
    let mut ex = get(&fake, evil);
    assert!(answer(&policy(&by_grpc), &mut ex).is_none());
    assert_eq!(&*ex.identity.unwrap().subject, "bob");
}

#[test]
fn grpc_changes_parameters_of_the_query() {
    let parameter =
        |key: &str, value: &str| QueryParameter { key: key.into(), value: value.into() };
    let ask = |query: &str, set: Vec<QueryParameter>, removed: &[&str]| {
        let fake = Fake::checks(&CheckResponse {
            status: Some(Status { code: 0 }),
            http_response: Some(HttpResponse::Allowed(Allowed {
                query_parameters_to_set: set,
                query_parameters_to_remove: strings(removed),
                ..Allowed::default()
            })),
        });
        let mut ex = exchange_with(&fake, "GET", &format!("http://a.example/{query}"), &[]);
        assert!(answer(&grpc(&[]), &mut ex).is_none());
        ex.request.query.map(String::from)
    };
    let set = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| parameter(k, v)).collect();
    assert_eq!(
        ask("?a=1&b=2&a=3", set(&[("a", "x y&z=#")]), &[]),
        Some("b=2&a=x%20y%26z%3D%23".into())
    );
    assert_eq!(ask("?%61=1&a+b=2&c", set(&[]), &["a", "a b"]), Some("c".into()));
    assert_eq!(ask("?a=1", set(&[]), &["a"]), None);
    assert_eq!(ask("", set(&[("n", "")]), &[]), Some("n=".into()));
    assert_eq!(ask("?A=1&a=1", set(&[]), &["a"]), Some("A=1".into()));
}

#[test]
fn a_service_may_take_as_long_as_the_user_says() {
    let with = |text: &str| Spec { timeout: Some(text.into()), ..Spec::default() };
    assert_eq!(policy(&with("2s")).judge.limits.timeout, Duration::from_secs(2));
    for text in ["0s", "61s", "soon"] {
        let error = ExternalAuth::compile(&with(text), &refs()).unwrap_err();
        assert_eq!(error.field, "timeout", "{text}");
    }
}

#[test]
fn a_policy_that_fails_open_lets_on_what_nobody_decided_and_nothing_else() {
    let spec = |http| Spec { http: Some(Box::new(http)), fail_open: true, ..Spec::default() };
    let allowed_response_headers = strings(&["X-User"]);
    let policy = policy(&spec(HttpSpec { allowed_response_headers, ..HttpSpec::default() }));
    let before = Outcome::FailedOpen.total();
    for fake in [Fake::new(Err(Reason::BackendTimeout)), Fake::answers(500, &[], "")] {
        let mut ex = get(&fake, &[("x-user", "root"), ("x_user", "root"), ("x-mine", "1")]);
        assert!(answer(&policy, &mut ex).is_none());
        assert_eq!(fields(&ex.request.headers), ["x-mine: 1"]);
    }
    assert!(Outcome::FailedOpen.total() >= before + 2);
    for status in [401, 403, 404, 206] {
        let fake = Fake::answers(status, &[], "");
        assert!(answer(&policy, &mut get(&fake, ASK)).is_some(), "{status} is a refusal");
    }
}

#[test]
fn what_forward_auth_cannot_do_is_refused_by_field() {
    let refused = |change: &dyn Fn(&mut HttpSpec)| {
        let mut spec = HttpSpec::default();
        change(&mut spec);
        let spec = Spec { http: Some(Box::new(spec)), ..Spec::default() };
        ExternalAuth::compile(&spec, &refs()).unwrap_err().field
    };
    let regex = |text: &'static str| {
        refused(&|spec| spec.allowed_response_headers_regex = Some(text.into()))
    };
    assert_eq!(regex("("), "http.allowedResponseHeadersRegex");
    for url in ["login", "//evil.example/", "ftp://a/", "https://", "/a#b", "/\\evil", "java:x"] {
        let sign_in = SignIn { url: url.into(), parameter: None };
        let field = refused(&|spec| spec.sign_in = Some(sign_in.clone()));
        assert_eq!(field, "http.signIn.url", "{url}");
    }
    let sign_in = SignIn { url: "/".into(), parameter: Some("a&b".into()) };
    let field = refused(&|spec| spec.sign_in = Some(sign_in.clone()));
    assert_eq!(field, "http.signIn.parameter");
    for (header, groups, field) in [
        ("Host", None, "identity.header"),
        ("X-Forwarded-User", None, "identity.header"),
        ("X-User", Some("a b"), "identity.groupsHeader"),
    ] {
        let groups_header = groups.map(Into::into);
        let identity = Some(IdentitySpec { header: header.into(), groups_header });
        let spec = Spec { identity, ..Spec::default() };
        assert_eq!(ExternalAuth::compile(&spec, &refs()).unwrap_err().field, field);
    }
}
