//! What policies add to a request: `cargo bench --bench policies`.

use std::future::ready;
use std::ops::ControlFlow;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use tidegate::policy::header_edits::Header;
use tidegate::policy::{
    AnyPolicy, AnySpec, Client, Exchange, Lent, Refs, RequestHead, ResponseHead, Scheme, cors,
    header_edits, rate_limit,
};
use tidegate::reason::Reason;
use tidegate::services::{Answer, Limits, ServiceId, Services};

/// Lends nothing.
struct Nothing;

impl Services for Nothing {
    fn call(
        &self,
        _: ServiceId,
        _: Request<Bytes>,
        _: Limits,
    ) -> LocalBoxFuture<'_, Result<Answer, Reason>> {
        Box::pin(ready(Err(Reason::NoEndpoints)))
    }
}

impl Lent for Nothing {
    fn body(&self, _: usize) -> LocalBoxFuture<'_, Result<Bytes, Reason>> {
        Box::pin(ready(Ok(Bytes::new())))
    }
}

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

criterion_group!(benches, policies);
criterion_main!(benches);
