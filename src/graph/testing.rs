//! Parts of graphs for tests.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::{
    Action, Backend, BackendKey, BackendProtocol, Entry, Matcher, PathMatch, Rule, RuleId,
    RuleName, certified_key,
};
use crate::reason::Reason;

/// A rule of the HTTPRoute `ns/NAME`.
pub fn rule(name: &str) -> Rule {
    let name =
        RuleName { kind: "HTTPRoute", namespace: "ns".into(), name: name.into(), rule: "0".into() };
    Rule::new(name, Action::Refuse(Reason::NoBackend))
}

/// An entry without conditions, leading to the rule of that number.
pub fn entry(path: PathMatch, rule: u32) -> Entry {
    let (matcher, object, rule) = (Matcher::default(), "ns/route".into(), RuleId(rule));
    Entry { path, matcher, created: 0, object, order: (0, 0), rule }
}

/// The key of the HTTP/1.1 backend for a port of the Service `ns/SERVICE`.
pub fn key(service: &str, port: u16) -> BackendKey {
    BackendKey {
        kind: "Service",
        namespace: "ns".into(),
        service: service.into(),
        port,
        protocol: "http1",
        context: None,
    }
}

/// A backend with endpoints 192.0.2.N.
pub fn backend(service: &str, port: u16, last: &[u8]) -> Backend {
    let addrs: Vec<_> = last.iter().map(|n| ([192, 0, 2, *n], port).into()).collect();
    Backend::new(key(service, port), BackendProtocol::Http1, &addrs)
}

/// A self-signed certificate for `name` and its key, PEM.
pub fn pem(name: &str) -> (String, String) {
    let signed = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (signed.cert.pem(), signed.signing_key.serialize_pem())
}

/// The same, parsed.
pub fn certified(name: &str) -> Arc<CertifiedKey> {
    let (cert, key) = pem(name);
    Arc::new(certified_key(cert.as_bytes(), key.as_bytes()).unwrap())
}
