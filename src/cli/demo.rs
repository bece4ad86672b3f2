//! `run --demo`: the quickstart's manifests, compiled in, and an echo backend for them.
//!
//! The manifests are the files of `manifests/quickstart`, word for word; what a cluster would
//! add (the endpoints of Service `default/echo`) is made here.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// Name and text of each manifest.
pub const MANIFESTS: &[(&str, &str)] = &[
    ("00-gateway.yaml", include_str!("../../manifests/quickstart/00-gateway.yaml")),
    ("10-echo.yaml", include_str!("../../manifests/quickstart/10-echo.yaml")),
    ("20-routes.yaml", include_str!("../../manifests/quickstart/20-routes.yaml")),
    ("30-policies.yaml", include_str!("../../manifests/quickstart/30-policies.yaml")),
];

/// What to try, once it is ready.
pub fn hints(gateway: u16, ingress: u16, admin: u16) -> String {
    HINTS
        .replace("GATEWAY", &gateway.to_string())
        .replace("INGRESS", &ingress.to_string())
        .replace("ADMIN", &admin.to_string())
}

const HINTS: &str = "\
The demo serves the manifests of manifests/quickstart. Try:
  curl -i localhost:GATEWAY/                   the echo backend, by an HTTPRoute
  curl -i localhost:GATEWAY/old/page           a redirect
  curl -i localhost:GATEWAY/headers            headers changed both ways
  curl -i localhost:GATEWAY/limited/users/42   a Middleware's rewrite
  for i in $(seq 20); do curl -s -o /dev/null -w '%{http_code}\\n' localhost:GATEWAY/limited/; done
                                            a RateLimit: 200, then 429
  curl -i -H 'Host: ingress.localhost' localhost:INGRESS/
                                            the same backend, by an Ingress
  curl localhost:ADMIN/config                what is live";

/// The EndpointSlice that leads to the echo backend at `addr`, as JSON (which is YAML).
pub fn endpoints(addr: SocketAddr) -> String {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "echo-demo",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "echo" },
        },
        "addressType": if addr.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [
            { "addresses": [addr.ip().to_string()], "conditions": { "ready": true } },
        ],
        "ports": [{ "name": "http", "port": addr.port(), "protocol": "TCP" }],
    })
    .to_string()
}

/// Answers every request with what it received, as JSON. Runs until the future is dropped.
pub async fn echo(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new());
            let service = service_fn(async |request| Ok::<_, Infallible>(answer(&request)));
            // Clients come and go: how a connection ended is of no interest.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut headers = Map::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        match headers.get_mut(name.as_str()) {
            Some(Value::String(all)) => *all = format!("{all}, {value}"),
            _ => {
                headers.insert(name.as_str().to_owned(), Value::String(value.into_owned()));
            }
        }
    }
    let target = request.uri();
    let host = target.authority().map(|a| a.as_str()).map(str::to_owned);
    let echo = json!({
        "method": request.method().as_str(),
        "path": target.path_and_query().map_or("/", |p| p.as_str()),
        "host": host.map_or_else(|| headers.get("host").cloned().unwrap_or_default(), Value::String),
        "headers": headers,
    });
    let mut response = Response::new(Full::new(format!("{echo:#}\n").into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
