//! Requests for the tests of policies and of the graph.

use std::ops::ControlFlow;

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::{Client, Exchange, Policy, Reply, RequestHead, Scheme};

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
        upstream_host: None,
    }
}

/// A request from 192.0.2.1 to a listener on the scheme's own port.
pub fn exchange(method: &str, url: &str, headers: &[(&str, &str)]) -> Exchange {
    let request = head(method, url, headers);
    let peer = "192.0.2.1:50000".parse().unwrap();
    let listener_port = request.scheme.default_port();
    let client = Client { peer, ip: std::net::SocketAddr::ip(&peer), listener_port };
    Exchange::new(request, client, "", 1_700_000_000_000)
}

/// What a policy that never waits does to a request.
pub fn run<P: Policy>(policy: &P, ex: &mut Exchange) -> ControlFlow<Reply> {
    policy.on_request(ex).now_or_never().expect("a policy that does not wait")
}

/// The answer of a policy that never waits, if it gives one.
pub fn answer<P: Policy>(policy: &P, ex: &mut Exchange) -> Option<Reply> {
    run(policy, ex).break_value()
}
