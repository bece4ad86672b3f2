//! Ingress: from YAML to bytes on a socket.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

use fixtures::*;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConnection, StreamOwned};
use support::*;
use tidegate::graph::{BackendTls, Roots};

fn site() -> Site {
    Site::start(&["ingress.yaml"])
}

#[test]
fn an_exact_path_is_that_path() {
    let site = site();
    assert_eq!(site.ingress("paths.test", "/exact"), "one");
    assert_eq!(site.ingress("paths.test", "/exact/"), "404");
}

#[test]
fn a_prefix_ends_at_a_segment() {
    let site = site();
    for (path, backend) in
        [("/prefix", "two"), ("/prefix/", "two"), ("/prefix/x", "two"), ("/prefixed", "404")]
    {
        assert_eq!(site.ingress("paths.test", path), backend, "{path}");
    }
}

#[test]
fn a_wildcard_stands_for_one_label() {
    let site = site();
    assert_eq!(site.ingress("a.wild.test", "/"), "two");
    assert_eq!(site.ingress("b.a.wild.test", "/"), "404");
}

#[test]
fn the_default_backend_has_what_no_rule_matches() {
    let site = Site::start(&["ingress.yaml", "ingress-default.yaml"]);
    assert_eq!(site.ingress("unknown.test", "/x"), "one");
    assert_eq!(site.ingress("paths.test", "/prefixed"), "one", "no path of its host");
    assert_eq!(site.ingress("paths.test", "/prefix"), "two");
}

#[test]
fn an_ingress_of_another_class_is_not_served() {
    assert_eq!(site().ingress("foreign.test", "/"), "404");
}

#[test]
fn a_service_that_is_missing_is_500() {
    assert_eq!(site().ingress("broken.test", "/"), "500");
}

#[test]
fn policies_are_named_by_annotation() {
    let site = site();
    let get = || site.send_to(site.settings.ingress_http_port, "GET", "policies.test", "/", &[]);
    assert_eq!(field(&get(), "x-greeting"), Some("hello"));
    assert_eq!([status(&get()), status(&get()), status(&get())], [200, 200, 429]);
}

#[test]
fn a_gateway_on_a_port_of_its_own_serves_no_ingress() {
    assert_eq!(site().answers("paths.test", "/exact"), "404");
}

/// A site whose Ingress for `secure.test` shows this certificate.
fn secure(pair: &(String, String)) -> Site {
    let secret = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "secure", "namespace": "web"},
        "stringData": {"tls.crt": pair.0, "tls.key": pair.1},
    });
    Site::with(&["ingress-tls.yaml"], &secret.to_string(), |_| {})
}

#[test]
fn the_certificate_of_the_secret_is_shown_and_the_request_served() {
    let pair = certificate(&["secure.test"]);
    let site = secure(&pair);
    let any = BackendTls::new("any.test", &Roots::System, false).unwrap();
    let mut config = rustls::ClientConfig::clone(&any.config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let name = ServerName::try_from("secure.test").unwrap();
    let connection = ClientConnection::new(config, name).unwrap();
    let to = (Ipv4Addr::LOCALHOST, site.settings.ingress_https_port);
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    write!(tls, "GET / HTTP/1.1\r\nhost: secure.test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).unwrap();
    assert_eq!(who(&answer), "one");
    assert_eq!(field_seen(&answer, "x-forwarded-proto"), Some("https"));
    let der = CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap();
    assert!(tls.conn.peer_certificates().unwrap()[0] == der);
}

#[test]
fn ssl_redirect_leads_to_the_port_with_tls_that_is_bound() {
    let site = secure(&certificate(&["secure.test"]));
    let answer = site.send_to(site.settings.ingress_http_port, "GET", "secure.test", "/x?q=1", &[]);
    assert_eq!(status(&answer), 308);
    let expected = format!("https://secure.test:{}/x?q=1", site.settings.ingress_https_port);
    assert_eq!(field(&answer, "location"), Some(&*expected));
}
