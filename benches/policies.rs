//! What policies add to a request: `cargo bench --bench policies`.

#[path = "../tests/nothing/mod.rs"]
mod nothing;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use nothing::Nothing;
use tidegate::policy::authentication::{self, method};
use tidegate::policy::consumer::{Consumer, Consumers, KeyDigest};
use tidegate::policy::header_edits::Header;
use tidegate::policy::{
    AnyPolicy, AnySpec, Client, Exchange, Refs, RequestHead, ResponseHead, Scheme, cors,
    header_edits, jwt, rate_limit,
};

fn exchange() -> Exchange<'static> {
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert("user-agent", HeaderValue::from_static("bench"));
    headers.insert("origin", HeaderValue::from_static("https://app.example.com"));
    let request = RequestHead {
        method: Method::GET,
        scheme: Scheme::Http,
        host: "shop.example.com".into(),
        port: None,
        path: "/items/1".into(),
        query: None,
        headers,
        told: None,
        upstream_host: None,
    };
    let peer = ([192, 0, 2, 1], 50_000).into();
    let client = Client { peer, ip: peer.ip(), listener_port: 80 };
    Exchange::new(request, client, &Nothing, 1_700_000_000_000)
}

/// A limit by client, CORS, and changed headers both ways.
fn three() -> Vec<AnyPolicy> {
    let header = |name: &str| Header { name: name.into(), value: "1".into() };
    let edits = header_edits::Spec { set: vec![header("x-bench")], ..Default::default() };
    let origins = vec!["https://*.example.com".into()];
    let limit = rate_limit::spec::Limit {
        name: "clients".into(),
        requests: 1_000_000,
        window: "1s".into(),
        ..Default::default()
    };
    let limits = rate_limit::Spec { limits: vec![limit], ..Default::default() };
    let specs = [
        AnySpec::Cors(cors::Spec { allow_origins: origins, ..Default::default() }),
        AnySpec::RateLimit(limits),
        AnySpec::RequestHeaders(edits),
    ];
    let refs = Refs::default();
    specs.iter().map(|spec| spec.compile(&refs).expect("a good Spec")).collect()
}

/// Asks each policy, as the proxy does: the request in order, the response in reverse.
fn pass(policies: &[AnyPolicy], ex: &mut Exchange<'_>) {
    // As if each came a millisecond later: none is limited.
    ex.now_ms += 1;
    ex.quotas.clear();
    for policy in policies {
        let asked = policy.on_request(ex).now_or_never();
        assert!(matches!(asked, Some(ControlFlow::Continue(()))), "nobody answers or waits");
    }
    let mut head = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() };
    for policy in policies.iter().rev() {
        policy.on_response(ex, &mut head);
    }
}

fn policies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policies");
    for (count, policies) in [(0, Vec::new()), (3, three())] {
        let mut ex = exchange();
        group.bench_function(format!("pass {count} policies"), |bencher| {
            bencher.iter(|| pass(&policies, &mut ex));
        });
    }
    group.finish();
}

/// The method, and the field that its credentials stand in.
fn authenticated(
    method: method::Spec,
    refs: &Refs,
    name: &'static str,
    value: &str,
) -> (AnyPolicy, Exchange<'static>) {
    let spec = authentication::Spec { methods: vec![method], ..Default::default() };
    let policy = AnySpec::Authentication(spec).compile(refs).expect("a good Spec");
    let mut ex = exchange();
    ex.request.headers.insert(name, HeaderValue::from_str(value).expect("a good value"));
    (policy, ex)
}

fn by_key() -> (AnyPolicy, Exchange<'static>) {
    let mut consumers = Consumers::default();
    let app = consumers.add(Consumer {
        namespace: "ns".into(),
        name: "app".into(),
        groups: Box::default(),
        plan: None,
    });
    consumers.add_key(&app, KeyDigest::of(b"the-key-of-the-app"), None).expect("the only one");
    let refs = Refs { consumers: Some(Arc::new(consumers)), ..Refs::default() };
    let method = method::Spec { api_key: Some(Default::default()), ..Default::default() };
    authenticated(method, &refs, "x-api-key", "the-key-of-the-app")
}

fn by_token() -> (AnyPolicy, Exchange<'static>) {
    const SECRET: &[u8] = b"a-secret-of-thirty-two-characters";
    let secret_ref = jwt::SecretKeyRef { name: "keys".into(), key: "hmac".into() };
    let keys = jwt::Keys {
        secret_ref: Some(secret_ref),
        hmac: Some(jwt::Hmac::HS256),
        ..Default::default()
    };
    let spec = jwt::Spec { issuer: "https://issuer.test".into(), keys, ..Default::default() };
    let secret = BTreeMap::from([("hmac".to_owned(), SECRET.to_vec())]);
    let refs = Refs { secrets: BTreeMap::from([("keys".to_owned(), secret)]), ..Refs::default() };
    let claims = serde_json::json!({"iss": spec.issuer, "sub": "app", "exp": 1_800_000_000});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key);
    let value = format!("Bearer {}", token.expect("a good key"));
    let method = method::Spec { jwt: Some(spec), ..Default::default() };
    authenticated(method, &refs, "authorization", &value)
}

/// Who asks: a key, and a token that was verified before.
fn identity(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("authentication");
    for (name, (policy, mut ex)) in [("an API key", by_key()), ("a token again", by_token())] {
        let policy = [policy];
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                ex.credentials.clear();
                pass(&policy, &mut ex);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, policies, identity);
criterion_main!(benches);
