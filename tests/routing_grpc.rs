//! GRPCRoutes from YAML to frames on a socket: which backend is called, and what a call hears
//! that finds none.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use std::net::SocketAddr;

use bytes::Bytes;
use fixtures::*;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use support::http2::*;

/// An HTTP/2 backend in clear that ends every call well and says who it is.
fn calls(name: &'static str) -> SocketAddr {
    let (addr, _) = backend(move |request, mut respond| async move {
        let mut head = Response::builder().header("x-backend", name);
        if let Some(seen) = request.headers().get("x-seen") {
            head = head.header("x-seen", seen);
        }
        let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
        let status = HeaderValue::from_static("0");
        let trailers = [(HeaderName::from_static("grpc-status"), status)];
        body.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
    });
    addr
}

/// A Service of one endpoint.
fn service(name: &str, to: SocketAddr) -> String {
    let port = to.port();
    format!(
        "
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: web}}
spec: {{ports: [{{name: grpc, port: 9000}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-a, namespace: web, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: grpc, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]"
    )
}

const ROUTES: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: web}
spec:
  parentRefs: [{name: gw}]
  hostnames: [calls.test]
  rules:
    - matches: [{method: {service: a.Echo, method: Get}}]
      backendRefs: [{name: calls-one, port: 9000}]
    - matches: [{method: {service: a.Echo}, headers: [{name: version, value: two}]}]
      filters:
        - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-seen, value: two}]}}
      backendRefs: [{name: calls-two, port: 9000}]
    - matches: [{method: {service: a.Gone}}]
      backendRefs: [{name: gone, port: 9000}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: calls, namespace: web}
spec:
  parentRefs: [{name: gw}]
  hostnames: [calls.test]
  rules: [{matches: [{path: {value: /a.Echo/Put}}], backendRefs: [{name: one, port: 80}]}]
";

fn site() -> Site {
    let backends = [service("calls-one", calls("one")), service("calls-two", calls("two"))];
    Site::with(&[], &format!("{}{ROUTES}", backends.concat()), |_| {})
}

/// The head of the answer to a call, and its trailers.
fn call(site: &Site, path: &str, fields: &[(&'static str, &str)]) -> (HeaderMap, HeaderMap) {
    let addr = site.proxy.addr();
    let mut request = Request::post(format!("http://calls.test{path}"));
    request = request.header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    run(async {
        let (mut client, _) = connect(addr).await;
        let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        let (head, body) = answer.await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        (head.headers, collect(body).await.1.unwrap_or_default())
    })
}

/// The backend that answers a call, or the status that Tidegate answers itself.
fn answers(site: &Site, path: &str, fields: &[(&'static str, &str)]) -> String {
    let (head, trailers) = call(site, path, fields);
    let text = |map: &HeaderMap, name| map.get(name).map(|v| v.to_str().unwrap().to_owned());
    match text(&head, "x-backend") {
        Some(backend) => {
            assert_eq!(text(&trailers, "grpc-status").as_deref(), Some("0"));
            backend
        }
        None => format!("grpc-status {}", text(&head, "grpc-status").unwrap()),
    }
}

#[test]
fn a_call_goes_to_the_backend_of_its_method() {
    let site = site();
    assert_eq!(answers(&site, "/a.Echo/Get", &[]), "one");
    assert_eq!(answers(&site, "/a.Echo/Put", &[("version", "two")]), "two");
    assert_eq!(answers(&site, "/a.Echo/Get", &[("version", "two")]), "one", "the longer match");
}

#[test]
fn filters_change_what_the_backend_sees() {
    let (head, _) = call(&site(), "/a.Echo/Put", &[("version", "two")]);
    assert_eq!(head["x-seen"], "two");
}

#[test]
fn a_call_that_no_rule_takes_is_unimplemented() {
    let site = site();
    assert_eq!(answers(&site, "/a.Echo/Other", &[]), "grpc-status 12");
    assert_eq!(answers(&site, "/b.Echo/Get", &[]), "grpc-status 12");
}

#[test]
fn a_call_whose_backend_is_missing_is_unavailable() {
    assert_eq!(answers(&site(), "/a.Gone/Get", &[]), "grpc-status 14");
}

#[test]
fn other_requests_of_the_host_are_for_http_routes() {
    let site = site();
    assert_eq!(site.answers("calls.test", "/a.Echo/Put"), "one");
    assert_eq!(site.answers("calls.test", "/a.Echo/Get"), "404");
}
