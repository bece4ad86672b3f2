//! Who asks: every method of authentication and their combinations, from YAML to bytes on a
//! socket.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::SystemTime;

use fixtures::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use support::*;
use tidegate::graph::{BackendTls, Roots};

/// alice:test, bob:test and alice:wrong.
const ALICE: &str = "authorization: Basic YWxpY2U6dGVzdA==";
const BOB: &str = "authorization: Basic Ym9iOnRlc3Q=";
const WRONG: &str = "authorization: Basic YWxpY2U6d3Jvbmc=";

fn site() -> Site {
    Site::start(&["authentication.yaml"])
}

/// A token of the issuer in the fixture that is good for some seconds from now, or was.
fn token(subject: &str, seconds: i64) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let claims = serde_json::json!({
        "iss": "https://issuer.test", "sub": subject, "exp": now + seconds, "tenant": "blue",
    });
    let key = jsonwebtoken::EncodingKey::from_secret(b"a-secret-of-thirty-two-characters");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    format!("authorization: Bearer {token}")
}

/// The Consumer that the backend is told of, `-` if it is told of none, or the status.
fn told(site: &Site, path: &str, fields: &[&str]) -> String {
    let answer = site.send("GET", "site.test", path, fields);
    match status(&answer) {
        200 => field_seen(&answer, "x-consumer-name").unwrap_or("-").to_owned(),
        status => status.to_string(),
    }
}

#[test]
fn a_key_is_taken_from_each_of_its_places_and_goes_no_further() {
    let site = site();
    let with = |path: &str, fields: &[&str]| site.send("GET", "site.test", path, fields);
    for (path, fields, target) in [
        ("/key?a=1", &["x-api-key: mobile-key-of-today"][..], "/key?a=1"),
        ("/key?a=1&api_key=mobile-key-of-today&b", &[], "/key?a=1&b"),
        ("/key?a%70i_key=mobile%2Dkey-of-today", &[], "/key"),
        ("/key", &["cookie: a=1; key=mobile-key-of-today; b=2"], "/key"),
    ] {
        let answer = with(path, fields);
        assert_eq!(status(&answer), 200, "{path} {fields:?}");
        assert_eq!(path_seen(&answer), target);
        assert_eq!(field_seen(&answer, "x-consumer-name"), Some("mobile"));
        assert_eq!(field_seen(&answer, "x-consumer-groups"), Some("apps,readers"));
        assert_eq!(field_seen(&answer, "x-consumer-plan"), Some("gold"));
        assert!(!body(&answer).contains("mobile-key"), "{answer}");
    }
    let answer = with("/key", &["cookie: a=1; key=mobile-key-of-today; b=2"]);
    assert_eq!(field_seen(&answer, "cookie"), Some("a=1; b=2"));
    let answer = with("/kept", &["x-api-key: mobile-key-of-today"]);
    assert_eq!(field_seen(&answer, "x-api-key"), Some("mobile-key-of-today"));
}

#[test]
fn what_is_no_key_or_more_than_one_is_refused_with_a_challenge() {
    let site = site();
    for (path, fields) in [
        ("/key", &[][..]),
        ("/key", &["x-api-key:"]),
        ("/key", &["x-api-key: mobile-key-of-nobody"]),
        ("/key", &["x-api-key: MOBILE-KEY-OF-TODAY"]),
        ("/key", &["x-api-key: mobile-key-of-today", "x-api-key: mobile-key-of-today"]),
        ("/key?api_key=mobile-key-of-today", &["x-api-key: mobile-key-of-today"]),
        ("/key", &["authorization: Bearer mobile-key-of-today"]),
    ] {
        let answer = site.send("GET", "site.test", path, fields);
        assert_eq!(status(&answer), 401, "{path} {fields:?}");
        assert_eq!(field(&answer, "www-authenticate"), Some("ApiKey realm=\"api\""));
    }
    assert_eq!(site.seen("one").len(), 0);
}

#[test]
fn two_keys_are_good_at_once_until_one_expires_or_is_removed() {
    let site = site();
    let who = |key: &str| told(&site, "/key", &[&format!("x-api-key: {key}")]);
    assert_eq!(who("mobile-key-of-today"), "mobile");
    assert_eq!(who("mobile-key-of-tomorrow"), "mobile");
    assert_eq!(who("mobile-key-of-yesterday"), "401", "it has expired");
    assert_eq!(who("partner-key-0001"), "partner", "only its digest is known");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/authentication.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let removed = text.replace("      - {secretRef: {name: keys, key: mobile}}\n", "");
    assert_ne!(text, removed);
    site.becomes(&[], &removed);
    assert_eq!(who("mobile-key-of-today"), "401");
    assert_eq!(who("mobile-key-of-tomorrow"), "mobile");
}

#[test]
fn a_key_expires_by_the_clock_and_not_by_a_pass() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/authentication.yaml");
    let soon = jiff::Timestamp::now() + std::time::Duration::from_secs(2);
    let text = std::fs::read_to_string(path).unwrap();
    let site = Site::with(&[], &text.replace("2999-01-01T00:00:00Z", &soon.to_string()), |_| {});
    let who = || told(&site, "/key", &["x-api-key: mobile-key-of-tomorrow"]);
    assert_eq!(who(), "mobile");
    site.proxy.wait("the key has expired", |_| who() == "401");
    assert!(jiff::Timestamp::now() >= soon);
}

#[test]
fn a_token_speaks_for_its_consumer_and_its_claims_are_told() {
    let site = site();
    let forged = ["x-tenant-id: red", "x_tenant_id: red", "x-subject: admin", "x_subject: admin"];
    let with = |token: &str| {
        let fields: Vec<&str> = forged.iter().copied().chain([token]).collect();
        site.send("GET", "site.test", "/token", &fields)
    };
    let answer = with(&token("mobile-app", 60));
    assert_eq!(field_seen(&answer, "x-consumer-name"), Some("mobile"));
    assert_eq!(field_seen(&answer, "x-subject"), Some("mobile-app"));
    assert_eq!(field_seen(&answer, "x-tenant-id"), Some("blue"));
    assert!(!body(&answer).contains("red") && !body(&answer).contains("admin"), "{answer}");
    assert_eq!(field_seen(&answer, "authorization"), None);
    let answer = with(&token("stranger", 60));
    assert_eq!(field_seen(&answer, "x-subject"), Some("stranger"));
    assert_eq!(field_seen(&answer, "x-consumer-name"), None);
    let answer = with(&token("mobile-app", -120));
    assert_eq!(status(&answer), 401);
    let challenge = field(&answer, "www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    let missing = site.get("site.test", "/token");
    assert_eq!(field(&missing, "www-authenticate"), Some("Bearer realm=\"Restricted\""));
}

#[test]
fn users_of_the_secret_and_of_consumers_come_in_by_password() {
    let site = site();
    let answer = site.send("GET", "site.test", "/staff", &[ALICE, "x-subject: root"]);
    assert_eq!(field_seen(&answer, "x-subject"), Some("alice"));
    assert_eq!(field_seen(&answer, "authorization"), None);
    assert_eq!(told(&site, "/staff", &[BOB]), "partner");
    assert_eq!(told(&site, "/staff", &[WRONG]), "401");
    assert_eq!(told(&site, "/staff", &[ALICE, ALICE]), "401");
    assert_eq!(told(&site, "/staff", &["authorization: Bearer x"]), "401");
}

#[test]
fn wrong_credentials_of_one_method_do_not_keep_out_those_of_another() {
    let site = site();
    let (good, old) = (token("mobile-app", 60), token("mobile-app", -120));
    let key = "x-api-key: partner-key-0001";
    for (fields, expected) in [
        (&[&*good][..], "mobile"),
        (&[key], "partner"),
        (&[BOB], "partner"),
        (&[&*old, key], "partner"),
        (&["authorization: Bearer rubbish", key], "partner"),
        (&[WRONG, key], "partner"),
        (&[&*good, "x-api-key: wrong-key-of-nobody"], "mobile"),
        (&[&*good, key], "mobile"),
        (&[&*old], "401"),
        (&[WRONG], "401"),
        (&[], "401"),
    ] {
        assert_eq!(told(&site, "/any", fields), expected, "{fields:?}");
    }
    let answer = site.get("site.test", "/any");
    let challenges = answer.lines().filter(|line| line.starts_with("www-authenticate:"));
    assert_eq!(challenges.count(), 3, "{answer}");
}

#[test]
fn where_all_methods_are_needed_they_must_mean_one_consumer() {
    let site = site();
    let (mobile, stranger) = (token("mobile-app", 60), token("stranger", 60));
    for (fields, expected) in [
        (&[&*mobile, "x-api-key: mobile-key-of-today"][..], "mobile"),
        (&[&*stranger, "x-api-key: mobile-key-of-today"], "mobile"),
        (&[&*mobile, "x-api-key: partner-key-0001"], "401"),
        (&[&*mobile], "401"),
        (&["x-api-key: mobile-key-of-today"], "401"),
        (&[], "401"),
    ] {
        assert_eq!(told(&site, "/all", fields), expected, "{fields:?}");
    }
}

#[test]
fn where_credentials_are_optional_wrong_ones_are_refused_all_the_same() {
    let site = site();
    let old = token("mobile-app", -120);
    for (path, nobody) in [("/optional", "-"), ("/guest", "guest")] {
        for (fields, expected) in [
            (&[][..], nobody),
            (&["x-consumer-name: mobile", "x_consumer_name: mobile"], nobody),
            (&["x-api-key: mobile-key-of-today"], "mobile"),
            (&["x-api-key: wrong-key-of-nobody"], "401"),
        ] {
            assert_eq!(told(&site, path, fields), expected, "{path} {fields:?}");
        }
    }
    assert_eq!(told(&site, "/optional", &[&old]), "401");
    assert_eq!(told(&site, "/optional", &[&old, "x-api-key: mobile-key-of-today"]), "mobile");
    let guest = site.send("GET", "site.test", "/guest", &["x-consumer-plan: gold"]);
    assert_eq!(field_seen(&guest, "x-consumer-plan"), Some("free"));
}

#[test]
fn a_secret_that_is_missing_closes_its_own_rule_and_no_other() {
    let site = site();
    let key = "x-api-key: mobile-key-of-today";
    assert_eq!(told(&site, "/closed", &[key]), "500");
    assert_eq!(told(&site, "/key", &[key]), "mobile");
}

/// A Gateway whose clients must show a certificate, or may show any.
fn gateway(name: &str, port: u16, mode: &str, ca: &str) -> String {
    let (cert, key) = certificate(&["site.test"]);
    let indent = |text: &str| text.replace('\n', "\n    ");
    format!(
        "
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: web}}
spec:
  gatewayClassName: tidegate
  tls: {{frontend: {{default: {{validation: {{mode: {mode}, caCertificateRefs: [{{group: '', kind: ConfigMap, name: {name}}}]}}}}}}}}
  listeners:
    - {{name: https, port: {port}, protocol: HTTPS, tls: {{certificateRefs: [{{name: {name}}}]}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}, namespace: web}}
data:
  ca.crt: |
    {}
---
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: web}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
",
        indent(ca),
        indent(&cert),
        indent(&key),
    )
}

/// Asks with a certificate for this name.
fn ask(port: u16, ca: &CertifiedIssuer<'static, KeyPair>, name: &str) -> String {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let shown = params.signed_by(&key, ca).unwrap().der().clone();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    // Believes every server.
    let any = BackendTls::new("any.test", &Roots::System, false).unwrap();
    let mut config = ClientConfig::clone(&any.config);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let builder = ClientConfig::builder_with_provider(Arc::clone(any.config.crypto_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty());
    let with_cert = builder.with_client_auth_cert(vec![shown], key).unwrap();
    config.client_auth_cert_resolver = with_cert.client_auth_cert_resolver;
    let server = ServerName::try_from("site.test").unwrap();
    let connection = ClientConnection::new(Arc::new(config), server).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    let forged = "x-consumer-name: admin\r\nx-subject: admin";
    let head = format!("GET /certificate HTTP/1.1\r\nhost: site.test\r\n{forged}\r\n");
    tls.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut seen = Vec::new();
    // Some servers close without saying so.
    let _ = tls.read_to_end(&mut seen);
    String::from_utf8(seen).unwrap()
}

#[test]
fn a_certificate_says_who_it_is_only_where_the_listener_verified_it() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let (strict, open) = (free_port(), free_port());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/authentication.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let parents = "parentRefs: [{name: gw}, {name: strict}, {name: open}]";
    let text = format!(
        "{}{}{}",
        text.replacen("parentRefs: [{name: gw}]", parents, 1),
        gateway("strict", strict, "AllowValidOnly", &ca.pem()),
        gateway("open", open, "AllowInsecureFallback", &ca.pem()),
    );
    let site = Site::with(&[], &text, |_| {});
    let answer = ask(strict, &ca, "partner.test");
    assert_eq!(field_seen(&answer, "x-consumer-name"), Some("partner"), "{answer}");
    assert_eq!(field_seen(&answer, "x-subject"), Some("partner.test"));
    let answer = ask(strict, &ca, "stranger.test");
    assert_eq!(field_seen(&answer, "x-subject"), Some("stranger.test"), "{answer}");
    assert_eq!(field_seen(&answer, "x-consumer-name"), None);
    assert_eq!(status(&ask(open, &ca, "partner.test")), 401);
    assert_eq!(told(&site, "/certificate", &[]), "401");
}
