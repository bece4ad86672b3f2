//! Tokens from a socket to the backend: hostile ones stop, and good ones go on while their
//! issuer rotates its keys, is away and comes back.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod issuer;
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fixtures::*;
use issuer::hostile::{AUDIENCE, ISSUER, Keys, claims, tokens};
use issuer::server::{Answer, IssuerServer};
use issuer::{SigningKey, jwks};
use serde_json::{Value, json};
use support::*;
use tidegate::source::{FileSource, KeyTimes, Source};
use tidegate::translate::{Settings, translate};

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A route to `one` whose requests need a token of the issuer.
fn protected(keys: &Value) -> String {
    let jwt = json!({
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "keys": keys,
        "claimsToHeaders": [{"claim": "sub", "header": "X-User"}],
    });
    let middleware = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "Middleware",
        "metadata": {"name": "tokens", "namespace": "web"},
        "spec": {"authentication": {"realm": "api", "methods": [{"jwt": jwt}]}},
    });
    let filter = json!({"type": "ExtensionRef",
        "extensionRef": {"group": "tidegate.dev", "kind": "Middleware", "name": "tokens"}});
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "api", "namespace": "web"},
        "spec": {
            "parentRefs": [{"name": "gw"}],
            "rules": [{"filters": [filter], "backendRefs": [{"name": "one", "port": 80}]}],
        },
    });
    format!("{middleware}\n---\n{route}\n")
}

#[test]
fn a_good_token_goes_to_the_backend_as_what_it_says() {
    let keys = Keys::new();
    let site = Site::with(&[], &protected(&json!({"inline": keys.public()})), |_| {});
    let token = keys.ed.token("EdDSA", &claims(now()));
    let bearer = format!("authorization: Bearer {token}");
    let answer = site.send("GET", "api.test", "/", &[&bearer, "x-user: root", "x_user: root"]);
    assert_eq!(who(&answer), "one", "{answer}");
    assert_eq!(field_seen(&answer, "x-user"), Some("alice"));
    assert_eq!(field_seen(&answer, "x_user"), None);
    assert_eq!(field_seen(&answer, "authorization"), None, "it is for us");
}

#[test]
fn a_request_without_a_token_is_told_what_is_missing() {
    let keys = Keys::new();
    let site = Site::with(&[], &protected(&json!({"inline": keys.public()})), |_| {});
    let answer = site.get("api.test", "/");
    assert_eq!(status(&answer), 401);
    let challenge = field(&answer, "www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer realm=\"api\""), "{challenge}");
    assert!(!challenge.contains("error"), "RFC 6750, 3.1: {challenge}");
    let expired = keys.rsa.token("RS256", &json!({"iss": ISSUER, "aud": AUDIENCE, "exp": 1}));
    let bearer = format!("authorization: Bearer {expired}");
    let answer = site.send("GET", "api.test", "/", &[&bearer]);
    assert_eq!(status(&answer), 401);
    let challenge = field(&answer, "www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert!(challenge.contains("expired"), "{challenge}");
    // Other tests of this process refuse tokens as well.
    let series = "tidegate_auth_jwt_refused_total{cause=\"expired\"}";
    assert!(site.proxy.metric(series) >= 1.0, "{series}");
}

#[test]
fn no_hostile_token_comes_through_a_socket() {
    let keys = Keys::new();
    let site = Site::with(&[], &protected(&json!({"inline": keys.public()})), |_| {});
    let list = tokens(&keys, now());
    for (name, token) in &list {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, site.proxy.port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head =
            b"GET / HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\nauthorization: Bearer ";
        // It may be closed before all of it has been written.
        let _ = stream.write_all(&[&head[..], token, b"\r\n\r\n"].concat());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let refused = matches!(status(&answer), 400 | 401 | 431);
        assert!(refused, "{name}: {answer}");
    }
    assert_eq!(site.seen("one").len(), 0);
    for cause in ["malformed", "wrong_signature", "unknown_key", "unsupported", "wrong_audience"] {
        let series = format!("tidegate_auth_jwt_refused_total{{cause=\"{cause}\"}}");
        assert!(site.proxy.metric(&series) >= 1.0, "{series}");
    }
    let good = format!("authorization: Bearer {}", keys.rsa.token("PS256", &claims(now())));
    assert_eq!(who(&site.send("GET", "api.test", "/", &[&good])), "one");
    eprintln!("{} hostile tokens through sockets: none reached the backend", list.len());
}

/// A data plane that follows files, as `tidegate run --from` does.
struct Live {
    proxy: Proxy,
    source: Source,
    _folder: tempfile::TempDir,
    _backend: RawBackend,
}

impl Live {
    async fn start(issuer: &IssuerServer, times: KeyTimes) -> Self {
        let port = free_port();
        let backend = RawBackend::named("one");
        let folder = tempfile::tempdir().unwrap();
        let base = include_str!("fixtures/base.yaml")
            .replace("$GATEWAY", &port.to_string())
            .replace("$ONE", &backend.addr.port().to_string());
        let base = base.replace("$TWO", "9").replace("$SILENT", "9");
        let more = protected(&json!({"remote": {"uri": issuer.url()}}));
        std::fs::write(folder.path().join("a.yaml"), format!("{base}\n---\n{more}")).unwrap();
        let settings = Settings {
            private_issuers: true,
            external_names: true,
            ingress_http_port: free_port(),
            ingress_https_port: free_port(),
            ..Settings::default()
        };
        let paths = vec![folder.path().to_owned()];
        let source = FileSource::start_with(paths, Arc::new(settings), Vec::new(), times);
        let mut source = Source::Files(source.unwrap_or_else(|problems| panic!("{problems:?}")));
        source.changed().await;
        let mut proxy = Proxy::start(translate(&source.snapshot()).graph);
        proxy.port = port;
        Live { proxy, source, _folder: folder, _backend: backend }
    }

    fn status(&self, token: &str) -> u16 {
        let fields =
            format!("host: api.test\r\nauthorization: Bearer {token}\r\nconnection: close");
        status(&self.proxy.exchange(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n")))
    }

    /// Takes up what is new until the token is answered so.
    async fn until(&mut self, what: &str, token: &str, expected: u16) {
        let passes = async {
            while self.status(token) != expected {
                let _ =
                    tokio::time::timeout(Duration::from_millis(50), self.source.changed()).await;
                self.proxy.shared.publish(translate(&self.source.snapshot()).graph);
            }
        };
        let passed = tokio::time::timeout(SOON, passes).await;
        assert!(passed.is_ok(), "{what}: {} instead of {expected}", self.status(token));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_follow_the_keys_of_an_issuer() {
    let (old, new) = (SigningKey::new("old", "ES256"), SigningKey::new("new", "ES256"));
    let by = |key: &SigningKey| key.token("ES256", &claims(now()));
    let issuer = IssuerServer::start(Answer::Keys(jwks([&old])));
    let times = KeyTimes {
        refetch: Duration::from_millis(100),
        retry: Duration::from_millis(20),
        ..KeyTimes::default()
    };
    let mut live = Live::start(&issuer, times).await;
    assert_eq!((live.status(&by(&old)), live.status(&by(&new))), (200, 401));

    issuer.answer(Answer::Keys(jwks([&old, &new])));
    live.until("the token asks for its key", &by(&new), 200).await;
    assert_eq!(live.status(&by(&old)), 200, "the old one is still in use");

    issuer.answer(Answer::Other(500, Vec::new(), Vec::new()));
    let unknown = SigningKey::new("unknown", "ES256");
    for _ in 0..20 {
        assert_eq!(live.status(&by(&unknown)), 401);
        assert_eq!((live.status(&by(&old)), live.status(&by(&new))), (200, 200));
    }

    let remembered = by(&old);
    assert_eq!(live.status(&remembered), 200);
    issuer.answer(Answer::Keys(jwks([&new])));
    live.until("the old key is gone", &remembered, 401).await;
    assert_eq!(live.status(&by(&new)), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_keys_tokens_get_503_until_the_issuer_is_there() {
    let key = SigningKey::new("k", "EdDSA");
    let token = key.token("EdDSA", &claims(now()));
    let issuer = IssuerServer::start(Answer::Other(503, Vec::new(), Vec::new()));
    let times = KeyTimes { retry: Duration::from_millis(20), ..KeyTimes::default() };
    let mut live = Live::start(&issuer, times).await;
    assert_eq!(live.status(&token), 503);
    assert_eq!(live.status("no.token.x"), 401, "that needs no keys");
    issuer.answer(Answer::Keys(jwks([&key])));
    live.until("the issuer is there", &token, 200).await;
}
