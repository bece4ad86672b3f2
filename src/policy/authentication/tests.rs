//! Methods together: which of them decides, what goes on to the backend, what is asked for.

mod service;

use std::collections::BTreeMap;

use http::header::WWW_AUTHENTICATE;

use super::*;
use crate::policy::authentication::basic::htpasswd::Users;
use crate::policy::consumer::KeyDigest;
use crate::policy::jwt;
use crate::policy::testing::exchange;

const ISSUER: &str = "https://issuer.test";
const SECRET: &[u8] = b"a-secret-of-thirty-two-characters";
/// alice:wonderland, and a password that is wrong.
const ALICE: &str = "Basic YWxpY2U6d29uZGVybGFuZA==";
const WRONG: &str = "Basic YWxpY2U6d3Jvbmc=";

fn consumers() -> Arc<Consumers> {
    let mut all = Consumers::default();
    let mut add = |name: &str| {
        all.add(Consumer {
            namespace: "ns".into(),
            name: name.into(),
            groups: ["apps".into()].into(),
            plan: Some("gold".into()),
        })
    };
    let (mobile, partner) = (add("mobile"), add("partner"));
    add("guest");
    all.add_key(&mobile, KeyDigest::of(b"mobile-key"), None).unwrap();
    all.add_key(&mobile, KeyDigest::of(b"mobile-old-key"), Some(1_600_000_000_000)).unwrap();
    all.add_key(&partner, KeyDigest::of(b"partner-key"), None).unwrap();
    all.add_token(&mobile, ISSUER, "mobile-app").unwrap();
    let users = Users::parse(b"alice:{SHA}tiY7sUhYKUwI5L3866kDY+ENcrQ=").unwrap();
    all.add_users(&partner, &users).unwrap();
    Arc::new(all)
}

fn refs() -> Refs {
    let issuer = BTreeMap::from([("secret".to_owned(), SECRET.to_vec())]);
    let secrets = BTreeMap::from([("issuer".to_owned(), issuer)]);
    Refs { consumers: Some(consumers()), secrets, ..Refs::default() }
}

/// A token for this subject that ends `minutes` from the time of the exchange.
fn token(subject: &str, minutes: i64) -> String {
    let exp = 1_700_000_000 + minutes * 60;
    let claims = serde_json::json!({
        "iss": ISSUER, "sub": subject, "exp": exp, "tenant": "t1", "groups": ["readers"],
    });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    format!("Bearer {token}")
}

const JWT: &str = "{jwt: {issuer: 'https://issuer.test', keys: {secretRef: {name: issuer, \
                   key: secret}, hmac: HS256}, claimsToHeaders: [{claim: tenant, header: X-Tenant}]}}";

fn try_policy(spec: &str) -> Result<Authentication, Invalid> {
    let spec: Spec = serde_saphyr::from_str(&spec.replace("JWT", JWT)).unwrap();
    Authentication::compile(&spec, &refs())
}

fn policy(spec: &str) -> Authentication {
    try_policy(spec).unwrap()
}

/// What became of a request: the name of who it is, or the status of the answer.
async fn ask(
    policy: &Authentication,
    fields: &[(&str, &str)],
) -> (String, Option<Reply>, Exchange<'static>) {
    let mut ex = exchange("GET", "http://a.example/", fields);
    match policy.on_request(&mut ex).await {
        ControlFlow::Continue(()) => {
            let name = ex.identity.as_ref().map_or("nobody", |identity| identity.name());
            (name.to_owned(), None, ex)
        }
        ControlFlow::Break(reply) => (reply.status.as_str().to_owned(), Some(reply), ex),
    }
}

fn challenges(reply: &Reply) -> Vec<&str> {
    reply.headers.get_all(WWW_AUTHENTICATE).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn any_method_is_enough_whatever_the_others_say() {
    let policy = policy("{methods: [JWT, {apiKey: {}}, {basic: {}}]}");
    let (good, other, old) =
        (token("mobile-app", 5), token("stranger", 5), token("mobile-app", -5));
    for (authorization, key, expected) in [
        (None, None, "401"),
        (Some(&*good), None, "mobile"),
        (Some(&*other), None, "stranger"),
        (Some(&*old), None, "401"),
        (Some("Bearer rubbish"), Some("mobile-key"), "mobile"),
        (Some(&*old), Some("partner-key"), "partner"),
        (Some(&*good), Some("wrong-key"), "mobile"),
        (Some(ALICE), None, "partner"),
        (Some(WRONG), None, "401"),
        (Some(WRONG), Some("mobile-key"), "mobile"),
        (Some("Negotiate abc"), None, "401"),
        (None, Some("mobile-old-key"), "401"),
        (None, Some("wrong-key"), "401"),
        (None, Some(""), "401"),
    ] {
        let authorization = authorization.map(|value| ("authorization", value));
        let fields: Vec<_> =
            authorization.into_iter().chain(key.map(|key| ("x-api-key", key))).collect();
        assert_eq!(ask(&policy, &fields).await.0, expected, "{fields:?}");
    }
}

#[tokio::test]
async fn all_methods_must_mean_the_same_consumer() {
    let policy = policy("{require: AllOf, methods: [JWT, {apiKey: {}}]}");
    let (mobile, stranger) = (token("mobile-app", 5), token("stranger", 5));
    for (authorization, key, expected) in [
        (Some(&*mobile), Some("mobile-key"), "mobile"),
        (Some(&*stranger), Some("mobile-key"), "mobile"),
        (Some(&*mobile), Some("partner-key"), "401"),
        (Some(&*mobile), None, "401"),
        (None, Some("mobile-key"), "401"),
        (Some(&*mobile), Some("wrong-key"), "401"),
        (None, None, "401"),
    ] {
        let authorization = authorization.map(|value| ("authorization", value));
        let fields: Vec<_> =
            authorization.into_iter().chain(key.map(|key| ("x-api-key", key))).collect();
        let (who, _, ex) = ask(&policy, &fields).await;
        assert_eq!(who, expected, "{fields:?}");
        if expected == "mobile" {
            let identity = ex.identity.unwrap();
            assert_eq!(identity.groups().collect::<Vec<_>>(), ["apps", "readers"]);
            assert_eq!(identity.claim("tenant").unwrap(), "t1");
        }
    }
}

#[tokio::test]
async fn without_credentials_an_optional_request_goes_on_and_with_wrong_ones_it_does_not() {
    let old = token("mobile-app", -5);
    let wrong: [&[(&str, &str)]; 4] = [
        &[("x-api-key", "wrong-key")],
        &[("authorization", "Bearer rubbish")],
        &[("authorization", &old)],
        &[("authorization", "Bearer rubbish"), ("x-api-key", "wrong-key")],
    ];
    for (more, nobody) in [("", "nobody"), (", anonymousConsumer: guest", "guest")] {
        for require in ["AnyOf", "AllOf"] {
            let policy = policy(&format!(
                "{{require: {require}, presence: Optional{more}, methods: [JWT, {{apiKey: {{}}}}]}}"
            ));
            assert_eq!(ask(&policy, &[]).await.0, nobody);
            assert_eq!(ask(&policy, &[("authorization", "Negotiate x")]).await.0, nobody);
            for fields in wrong {
                assert_eq!(ask(&policy, fields).await.0, "401", "{require} {fields:?}");
            }
            let one = ask(&policy, &[("x-api-key", "mobile-key")]).await.0;
            assert_eq!(one, if require == "AnyOf" { "mobile" } else { "401" });
        }
    }
}

#[tokio::test]
async fn a_refusal_has_every_challenge_and_says_what_is_wrong_with_a_token() {
    let policy =
        policy("{realm: api, methods: [JWT, {apiKey: {}}, {basic: {}}, {clientCertificate: {}}]}");
    let others = [
        r#"ApiKey realm="api""#,
        r#"Basic realm="api", charset="UTF-8""#,
        r#"ClientCertificate realm="api""#,
    ];
    let (_, missing, _) = ask(&policy, &[]).await;
    let missing = missing.unwrap();
    assert_eq!(missing.reason, Reason::Unauthenticated);
    assert_eq!(challenges(&missing)[0], r#"Bearer realm="api""#, "no error without a token");
    assert_eq!(challenges(&missing)[1..], others);
    let (_, expired, _) = ask(&policy, &[("authorization", &token("a", -5))]).await;
    let expired = expired.unwrap();
    assert_eq!(
        challenges(&expired)[0],
        r#"Bearer realm="api", error="invalid_token", error_description="The token has expired""#
    );
    assert_eq!(challenges(&expired)[1..], others);
}

#[tokio::test]
async fn credentials_of_all_methods_go_no_further_and_identity_fields_are_ours() {
    let headers = "headers: {consumer: X-Consumer-Name, subject: X-Subject, plan: X-Plan}";
    let spec = format!("{{{headers}, methods: [JWT, {{apiKey: {{}}}}, {{basic: {{}}}}]}}");
    let token = token("mobile-app", 5);
    let fields = [
        ("authorization", &*token),
        ("authorization", ALICE),
        ("authorization", "Negotiate abc"),
        ("x-api-key", "never looked at"),
        ("x-consumer-name", "admin"),
        ("x_consumer_name", "admin"),
        ("x-tenant", "admin"),
        ("x_plan", "admin"),
        ("x-other", "kept"),
    ];
    let (who, _, mut ex) = ask(&policy(&spec), &fields).await;
    assert_eq!(who, "mobile");
    assert_eq!(ex.request.headers["x-api-key"], "never looked at", "other gates may see it");
    ex.hide_credentials();
    let mut left: Vec<_> = ex
        .request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    left.sort();
    assert_eq!(
        left,
        [
            "authorization: Negotiate abc",
            "x-consumer-name: mobile",
            "x-other: kept",
            "x-plan: gold",
            "x-subject: mobile-app",
            "x-tenant: t1",
        ]
    );
    let kept = policy("{keepCredentials: true, methods: [{apiKey: {}}]}");
    let (_, _, mut ex) = ask(&kept, &[("x-api-key", "mobile-key")]).await;
    ex.hide_credentials();
    assert_eq!(ex.request.headers["x-api-key"], "mobile-key");
}

#[tokio::test]
async fn identity_fields_of_a_client_are_gone_also_where_nobody_is_recognised() {
    let headers = "headers: {consumer: X-Consumer-Name}";
    let policy =
        policy(&format!("{{presence: Optional, {headers}, methods: [JWT, {{apiKey: {{}}}}]}}"));
    let fields = [("x-consumer-name", "admin"), ("x_consumer_name", "admin"), ("x-tenant", "a")];
    let (who, _, ex) = ask(&policy, &fields).await;
    assert_eq!((who.as_str(), ex.request.headers.len()), ("nobody", 0));
}

#[tokio::test]
async fn policies_of_several_levels_see_the_same_credentials() {
    let (outer, inner) =
        (policy("{methods: [{apiKey: {}}]}"), policy("{methods: [JWT, {apiKey: {}}]}"));
    let guests = policy("{presence: Optional, anonymousConsumer: guest, methods: [JWT]}");
    let mut ex = exchange("GET", "http://a.example/", &[("x-api-key", "mobile-key")]);
    for policy in [&outer, &inner, &guests] {
        assert!(policy.on_request(&mut ex).await.is_continue());
        assert_eq!(ex.identity.as_ref().unwrap().name(), "mobile");
    }
    ex.hide_credentials();
    assert!(ex.request.headers.is_empty());
}

#[tokio::test]
async fn a_key_gives_the_same_identity_each_time() {
    let policy = policy("{methods: [{apiKey: {}}]}");
    let one = ask(&policy, &[("x-api-key", "mobile-key")]).await.2.identity.unwrap();
    let two = ask(&policy, &[("x-api-key", "mobile-key")]).await.2.identity.unwrap();
    assert!(Arc::ptr_eq(&one, &two));
}

#[tokio::test]
async fn a_token_without_keys_to_verify_it_is_no_fault_of_the_client() {
    let remote = jwt::Remote { uri: Some("https://issuer.test/jwks".into()), ..Default::default() };
    let spec = "{methods: [{jwt: {issuer: 'https://issuer.test', keys: {remote: {uri: \
                'https://issuer.test/jwks'}}}}, {apiKey: {}}]}";
    let spec: Spec = serde_saphyr::from_str(spec).unwrap();
    let keys = BTreeMap::from([(remote, jwt::RemoteKeys::default())]);
    let policy = Authentication::compile(&spec, &Refs { keys, ..refs() }).unwrap();
    let token = token("mobile-app", 5);
    let (status, reply, _) = ask(&policy, &[("authorization", &token)]).await;
    assert_eq!((status.as_str(), reply.unwrap().reason), ("503", Reason::AuthUnavailable));
    let with_key = [("authorization", &*token), ("x-api-key", "mobile-key")];
    assert_eq!(ask(&policy, &with_key).await.0, "mobile");
    assert_eq!(ask(&policy, &[]).await.0, "401");
}

#[test]
fn what_cannot_be_compiled_names_its_field() {
    for (spec, field) in [
        ("{methods: []}", "methods"),
        ("{methods: [{}]}", "methods[0]"),
        ("{methods: [{apiKey: {}}, {apiKey: {}, basic: {}}]}", "methods[1]"),
        (
            "{methods: [{apiKey: {}, external: {backendRef: {name: a}, protocol: HTTP}}]}",
            "methods[0]",
        ),
        ("{methods: [{basic: {secretRef: {name: gone}}}]}", "methods[0].basic.secretRef"),
        ("{methods: [{apiKey: {from: [{}]}}]}", "methods[0].apiKey.from[0]"),
        ("{methods: [{apiKey: {}}], anonymousConsumer: guest}", "anonymousConsumer"),
        (
            "{methods: [{apiKey: {}}], presence: Optional, anonymousConsumer: gone}",
            "anonymousConsumer",
        ),
        ("{methods: [{apiKey: {}}], headers: {plan: Host}}", "headers.plan"),
        ("{methods: [{apiKey: {}}], realm: \"a\\nb\"}", "realm"),
    ] {
        assert_eq!(try_policy(spec).unwrap_err().field, field, "{spec}");
    }
}

#[test]
fn the_future_of_a_policy_is_small() {
    let policy = policy("{methods: [{apiKey: {}}, {basic: {}}]}");
    let mut ex = exchange("GET", "http://a.example/", &[]);
    let size = size_of_val(&policy.on_request(&mut ex));
    assert!(size <= 512, "{size} bytes");
}
