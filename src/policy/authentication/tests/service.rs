//! A service among the methods.

use super::*;
use crate::policy::external_auth::testing::{Fake, refs as service, set};
use crate::policy::testing::exchange_with;
use crate::services::ext_authz::{Allowed, CheckResponse, HttpResponse, Status};

const SERVICE: &str = "{external: {backendRef: {name: auth, port: 80}, protocol: HTTP, http: {\
     allowedResponseHeaders: [X-Team], responseCookies: [s]}, \
     identity: {header: X-User, groupsHeader: X-Groups}}}";
const GRPC: &str = "{external: {backendRef: {name: auth, port: 80}, protocol: GRPC, grpc: {\
     allowedResponseHeaders: [X-Team]}, identity: {header: X-User, groupsHeader: X-Groups}}}";
/// What the service says of ann.
const ANN: &[(&str, &str)] = &[
    ("x-user", "ann"),
    ("x-groups", "staff, readers"),
    ("x-team", "blue"),
    ("x-other", "1"),
    ("set-cookie", "s=1"),
];
/// What clients would like to be.
const EVIL: &[(&str, &str)] = &[
    ("x-user", "root"),
    ("x_user", "root"),
    ("x-groups", "root"),
    ("x_groups", "root"),
    ("x-team", "root"),
    ("x_team", "root"),
    ("x-mine", "1"),
];
const KEY: (&str, &str) = ("x-api-key", "mobile-key");
const WRONG_KEY: (&str, &str) = ("x-api-key", "wrong-key");

fn try_policy(spec: &str) -> Result<Authentication, Invalid> {
    let text = spec.replace("JWT", JWT).replace("SERVICE", SERVICE).replace("BY_GRPC", GRPC);
    let refs = Refs { services: service().services, ..refs() };
    Authentication::compile(&serde_saphyr::from_str::<Spec>(&text).unwrap(), &refs)
}

fn policy(spec: &str) -> Authentication {
    try_policy(spec).unwrap()
}

/// Who it is or the status, the answer, and the request afterwards.
async fn ask<'f>(
    policy: &Authentication,
    fake: &'f Fake,
    fields: &[&[(&str, &str)]],
) -> (String, Option<Reply>, Exchange<'f>) {
    let mut ex = exchange_with(fake, "GET", "http://a.example/p?q=1", &fields.concat());
    match policy.on_request(&mut ex).await {
        ControlFlow::Continue(()) => {
            let name = ex.identity.as_ref().map_or("nobody", |identity| identity.name());
            (name.to_owned(), None, ex)
        }
        ControlFlow::Break(reply) => (reply.status.as_str().to_owned(), Some(reply), ex),
    }
}

async fn told(policy: &Authentication, fake: &Fake, fields: &[(&str, &str)]) -> String {
    ask(policy, fake, &[fields]).await.0
}

/// How often it was asked since the last time.
fn asked(fake: &Fake) -> usize {
    fake.asked.take().len()
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

fn down() -> Fake {
    Fake::new(Err(Reason::ConnectFailed))
}

fn grpc_yes() -> Fake {
    let fields = ANN.iter().map(|(name, value)| set(name, value)).collect();
    Fake::checks(&CheckResponse {
        status: Some(Status { code: 0 }),
        http_response: Some(HttpResponse::Allowed(Allowed {
            headers: fields,
            ..Allowed::default()
        })),
    })
}

#[tokio::test]
async fn a_yes_that_says_who_it_is_accepts_and_changes_the_request() {
    for (method, fake) in [("SERVICE", Fake::answers(200, ANN, "")), ("BY_GRPC", grpc_yes())] {
        let policy = policy(&format!("{{headers: {{subject: X-Subject}}, methods: [{method}]}}"));
        let (who, _, ex) = ask(&policy, &fake, &[EVIL]).await;
        let identity = ex.identity.as_ref().unwrap();
        assert_eq!((&*who, identity.method), ("ann", identity::Method::External), "{method}");
        assert_eq!(identity.groups().collect::<Vec<_>>(), ["staff", "readers"]);
        let expected = ["x-mine: 1", "x-subject: ann", "x-team: blue"];
        assert_eq!(lines(&ex.request.headers), expected, "only what is listed, and no claim");
        let asked = fake.asked.take().pop().unwrap();
        let sent = format!("{:?} {:?}", asked.headers(), asked.body());
        assert!(!sent.contains("x-user") && !sent.contains("x_groups"), "{method}: {sent}");
    }
}

#[tokio::test]
async fn where_no_field_is_listed_the_backend_gets_none() {
    for (method, fake) in [(SERVICE, Fake::answers(200, ANN, "")), (GRPC, grpc_yes())] {
        let unlisted = method.replace("allowedResponseHeaders: [X-Team]", "allowedHeaders: [X-A]");
        let policy = policy(&format!("{{methods: [{unlisted}]}}"));
        let (who, _, ex) = ask(&policy, &fake, &[&[("x-mine", "1")]]).await;
        assert_eq!((&*who, lines(&ex.request.headers)), ("ann", vec!["x-mine: 1".to_owned()]));
    }
}

#[tokio::test]
async fn what_the_service_sets_for_the_client_stands_in_its_answer() {
    let fake = Fake::answers(200, ANN, "");
    let policy = policy("{methods: [SERVICE]}");
    let (_, _, ex) = ask(&policy, &fake, &[]).await;
    let mut res = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
    policy.on_response(&ex, &mut res);
    assert_eq!(lines(&res.headers), ["set-cookie: s=1"]);
}

#[tokio::test]
async fn a_yes_that_says_nobody_is_refused() {
    for said in [&[][..], &[("x-user", "")], &[("x-team", "blue"), ("x-groups", "staff")]] {
        let fake = Fake::answers(200, said, "");
        let policy = policy("{methods: [{apiKey: {}}, SERVICE]}");
        let (who, reply, ex) = ask(&policy, &fake, &[EVIL]).await;
        let reply = reply.unwrap();
        assert_eq!((&*who, reply.reason), ("401", Reason::Unauthenticated), "{said:?}");
        let all = [r#"ApiKey realm="Restricted""#, r#"External realm="Restricted""#];
        assert_eq!(challenges(&reply), all);
        assert!(ex.identity.is_none());
    }
}

#[tokio::test]
async fn a_no_is_answered_as_the_service_says_it_if_nobody_is_recognised() {
    let policy = policy("{methods: [JWT, {apiKey: {}}, SERVICE]}");
    let login = [("location", "https://login.example/"), ("set-cookie", "csrf=1")];
    let fake = Fake::answers(302, &login, "go");
    for fields in [&[][..], &[WRONG_KEY]] {
        let (who, reply, _) = ask(&policy, &fake, &[fields]).await;
        let reply = reply.unwrap();
        assert_eq!((&*who, reply.reason, &reply.body[..]), ("302", Reason::AuthDenied, &b"go"[..]));
        let expected = ["location: https://login.example/", "set-cookie: csrf=1"];
        assert_eq!(lines(&reply.headers), expected, "nothing is asked for besides");
    }
    let forbidden = Fake::answers(403, &[("x-why", "banned")], "");
    let (who, reply, _) = ask(&policy, &forbidden, &[]).await;
    assert_eq!((&*who, lines(&reply.unwrap().headers)), ("403", vec!["x-why: banned".to_owned()]));
    let unknown = Fake::answers(401, &[("www-authenticate", "Negotiate")], "who?");
    let old = token("mobile-app", -5);
    let (_, reply, _) = ask(&policy, &unknown, &[&[("authorization", &old)]]).await;
    let reply = reply.unwrap();
    assert_eq!(&reply.body[..], b"who?");
    let found = challenges(&reply);
    assert_eq!((found.len(), found[0], found[2]), (3, "Negotiate", r#"ApiKey realm="Restricted""#));
    assert!(found[1].contains("The token has expired"), "{found:?}");
}

#[tokio::test]
async fn it_is_asked_only_if_no_method_before_it_accepts_and_what_it_alone_says_is_gone_anyway() {
    let fake = Fake::answers(200, ANN, "");
    let first = policy("{methods: [{apiKey: {}}, SERVICE]}");
    let (who, _, ex) = ask(&first, &fake, &[EVIL, &[KEY]]).await;
    assert_eq!((&*who, asked(&fake)), ("mobile", 0));
    assert_eq!(lines(&ex.request.headers), ["x-api-key: mobile-key", "x-mine: 1"]);
    assert_eq!(told(&first, &fake, &[WRONG_KEY]).await, "ann");
    assert_eq!(asked(&fake), 1);
    let last = policy("{methods: [SERVICE, {apiKey: {}}]}");
    assert_eq!(told(&last, &fake, &[KEY]).await, "ann");
    let no = Fake::answers(401, &[], "");
    let (who, _, ex) = ask(&last, &no, &[EVIL, &[KEY]]).await;
    assert_eq!((&*who, asked(&no)), ("mobile", 1));
    assert_eq!(lines(&ex.request.headers), ["x-api-key: mobile-key", "x-mine: 1"]);
    let by_grpc = policy("{methods: [{apiKey: {}}, BY_GRPC]}");
    let (_, _, ex) = ask(&by_grpc, &fake, &[EVIL, &[KEY]]).await;
    assert_eq!(lines(&ex.request.headers), ["x-api-key: mobile-key", "x-mine: 1"]);
}

#[tokio::test]
async fn without_an_answer_nobody_is_recognised_but_by_another_method() {
    for methods in ["{apiKey: {}}, SERVICE", "SERVICE, {apiKey: {}}"] {
        for presence in ["Required", "Optional"] {
            let policy = policy(&format!("{{presence: {presence}, methods: [{methods}]}}"));
            for fake in [down(), Fake::answers(500, &[("x-user", "ann")], "")] {
                assert_eq!(told(&policy, &fake, &[KEY]).await, "mobile", "{methods}");
                for fields in [&[][..], &[WRONG_KEY]] {
                    let (who, reply, _) = ask(&policy, &fake, &[fields]).await;
                    let reason = reply.unwrap().reason;
                    assert_eq!((&*who, reason), ("503", Reason::AuthUnavailable), "{methods}");
                }
            }
        }
    }
    let spec = SERVICE.replace("http: {", "forwardBody: {maxSize: 4}, http: {");
    let mut fake = Fake::answers(200, ANN, "");
    fake.body = b"12345";
    assert_eq!(told(&policy(&format!("{{methods: [{spec}]}}")), &fake, &[]).await, "413");
}

#[tokio::test]
async fn together_with_a_key_it_adds_what_it_knows_and_both_must_accept() {
    let policy = policy("{require: AllOf, methods: [{apiKey: {}}, SERVICE]}");
    let yes = Fake::answers(200, ANN, "");
    let (who, _, ex) = ask(&policy, &yes, &[EVIL, &[KEY]]).await;
    assert_eq!(who, "mobile");
    let groups: Vec<_> = ex.identity.as_ref().unwrap().groups().collect();
    assert_eq!(groups, ["apps", "staff", "readers"]);
    assert_eq!(ex.request.headers["x-team"], "blue");
    asked(&yes);
    assert_eq!(told(&policy, &yes, &[WRONG_KEY]).await, "401");
    assert_eq!(asked(&yes), 0, "it could not change anything");
    assert_eq!(told(&policy, &yes, &[]).await, "401");
    assert_eq!(told(&policy, &Fake::answers(403, &[], ""), &[KEY]).await, "403");
    assert_eq!(told(&policy, &down(), &[KEY]).await, "503");
}

#[tokio::test]
async fn where_nobody_need_be_known_its_401_alone_lets_them_on() {
    let sign_in = SERVICE.replace("http: {", "http: {signIn: {url: /login}, ");
    let optional =
        policy(&format!("{{presence: Optional, methods: [{{apiKey: {{}}}}, {sign_in}]}}"));
    let unknown = Fake::answers(401, &[], "");
    let (who, _, ex) = ask(&optional, &unknown, &[EVIL, &[("cookie", "s=old")]]).await;
    assert_eq!(who, "nobody");
    assert_eq!(lines(&ex.request.headers), ["cookie: s=old", "x-mine: 1"]);
    assert_eq!(ex.challenges.unwrap().len(), 2, "authorization says what could be shown");
    assert_eq!(told(&optional, &unknown, &[WRONG_KEY]).await, "401");
    assert_eq!(told(&optional, &Fake::answers(403, &[], ""), &[]).await, "403");
    assert_eq!(told(&optional, &Fake::answers(302, &[], ""), &[]).await, "302");
    assert_eq!(told(&optional, &Fake::answers(200, ANN, ""), &[]).await, "ann");
    let required = policy(&format!("{{methods: [{sign_in}]}}"));
    let (who, reply, _) = ask(&required, &unknown, &[]).await;
    let location = reply.unwrap().headers["location"].clone();
    let back = "/login?rd=http%3A%2F%2Fa.example%2Fp%3Fq%3D1";
    assert_eq!((&*who, location.to_str().unwrap()), ("302", back));
}

#[tokio::test]
async fn what_it_said_is_kept_and_handed_over() {
    let cache = "cache: {duration: 1h, key: [{type: Cookie, name: s}]}, http: {";
    let spec = format!("{{methods: [{}]}}", SERVICE.replace("http: {", cache));
    let fake = Fake::answers(200, &[("x-user", "ann"), ("x-team", "blue")], "");
    let old = policy(&spec);
    let mut new = policy(&spec);
    assert_eq!(told(&old, &fake, &[("cookie", "s=1")]).await, "ann");
    new.adopt(&old);
    let (who, _, ex) = ask(&new, &fake, &[&[("cookie", "s=1")], EVIL]).await;
    assert_eq!((&*who, asked(&fake)), ("ann", 1));
    assert_eq!(ex.request.headers["x-team"], "blue");
    assert_eq!(told(&new, &fake, &[("cookie", "s=2")]).await, "ann");
    assert_eq!(asked(&fake), 1);
}

#[test]
fn what_cannot_be_a_method_is_refused_by_field() {
    let with = |more: &str| SERVICE.replace("http: {", &format!("{more}, http: {{"));
    for (methods, field) in [
        (SERVICE.replace(", identity: {header: X-User, groupsHeader: X-Groups}", ""), "identity"),
        (SERVICE.replace("X-User", "Host"), "identity.header"),
        (with("failOpen: true"), "failOpen"),
        (with("timeout: 0s"), "timeout"),
        (with("cache: {duration: 1m, key: [{type: Subject}]}"), "cache.key"),
    ] {
        let error = try_policy(&format!("{{methods: [{methods}]}}")).unwrap_err();
        assert_eq!(error.field, format!("methods[0].external.{field}"));
    }
    let error = try_policy("{methods: [SERVICE, {apiKey: {}}, BY_GRPC]}").unwrap_err();
    assert_eq!(error.field, "methods[2].external");
    let spec: Spec = serde_saphyr::from_str(&format!("{{methods: [{SERVICE}]}}")).unwrap();
    let error = Authentication::compile(&spec, &refs()).unwrap_err();
    assert_eq!(error.field, "methods[0].external.backendRef");
}

#[test]
fn a_service_costs_the_future_of_a_policy_no_more() {
    let policy = policy("{methods: [{apiKey: {}}, SERVICE]}");
    let mut ex = exchange("GET", "http://a.example/", &[]);
    let size = size_of_val(&policy.on_request(&mut ex));
    assert!(size <= 512, "{size} bytes");
}
