//! Requests for the tests of policies and of the graph.

use std::future::ready;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::consumer::Consumer;
use super::identity::{self, Identity};
use super::{Client, Exchange, Lent, Policy, Reply, RequestHead, Scheme, limit_key, rate_limit};
use crate::reason::Reason;
use crate::services::{Answer, Limits, ServiceId, Services};

/// The head of a request for an absolute URL.
pub fn head(method: &str, url: &str, headers: &[(&str, &str)]) -> RequestHead {
    let uri: Uri = url.parse().unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    RequestHead {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        scheme: if uri.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http },
        host: uri.host().unwrap().into(),
        port: uri.port_u16(),
        path: uri.path().into(),
        query: uri.query().map(Into::into),
        headers: map,
        told: None,
        upstream_host: None,
    }
}

/// A request from 192.0.2.1 to a listener on the scheme's own port.
pub fn exchange(method: &str, url: &str, headers: &[(&str, &str)]) -> Exchange<'static> {
    exchange_with(&Nothing, method, url, headers)
}

/// The same, with what the proxy lends.
pub fn exchange_with<'a>(
    lent: &'a dyn Lent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
) -> Exchange<'a> {
    let request = head(method, url, headers);
    let peer = "192.0.2.1:50000".parse().unwrap();
    let listener_port = request.scheme.default_port();
    let client = Client { peer, ip: std::net::SocketAddr::ip(&peer), listener_port };
    Exchange::new(request, client, lent, 1_700_000_000_000)
}

/// Somebody with a token, whom the namespace knows as the Consumer alice.
pub fn alice() -> Identity {
    let consumer = Consumer {
        namespace: "ns".into(),
        name: "alice".into(),
        groups: ["staff".into()].into(),
        plan: Some("gold".into()),
    };
    let claims = serde_json::json!({
        "tenant": "acme", "age": 30, "vip": true, "score": 1.5, "none": null,
        "roles": ["reader", "writer", 7, ["nested"]], "realm": {"roles": ["deep"]},
    });
    let serde_json::Value::Object(claims) = claims else { unreachable!("an object") };
    Identity {
        method: identity::Method::Jwt,
        subject: "sub-1".into(),
        consumer: Some(Arc::new(consumer)),
        groups: ["apps".into()].into(),
        scopes: ["read".into(), "write".into()].into(),
        claims,
    }
}

/// Lends no services, and a body of no bytes.
#[derive(Debug)]
pub struct Nothing;

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

/// One limit that all requests share, counted here.
pub fn rate_limit(requests: i64, window: &str) -> rate_limit::Spec {
    let all = limit_key::Part { r#type: limit_key::PartType::All, name: None };
    let limit = rate_limit::spec::Limit {
        name: "all".into(),
        requests,
        window: window.into(),
        key: vec![all],
        ..Default::default()
    };
    rate_limit::Spec { object: "ns/limit".into(), limits: vec![limit], ..Default::default() }
}

/// What a policy that never waits does to a request.
pub fn run<P: Policy>(policy: &P, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
    policy.on_request(ex).now_or_never().expect("a policy that does not wait")
}

/// The answer of a policy that never waits, if it gives one.
pub fn answer<P: Policy>(policy: &P, ex: &mut Exchange<'_>) -> Option<Reply> {
    run(policy, ex).break_value()
}
