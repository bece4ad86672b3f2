//! Keys that issuers publish, fetched by the control plane from issuers that rotate, fail, hang
//! and lie: what policies get of them, and how often issuers are asked.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod issuer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use issuer::server::{Answer, IssuerServer};
use issuer::{SigningKey, jwks};
use serde_json::json;
use tempfile::TempDir;
use tidegate::policy::jwt::KeySet;
use tidegate::source::{FileSource, KeyTimes, Source};
use tidegate::translate::{KeySetState, Settings, Snapshot};

/// What must not happen is looked for during this time.
const WHILE: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(20);

/// Short, so that nobody waits for long; long, so that a slow machine does not matter.
const TIMES: KeyTimes = KeyTimes {
    refetch: Duration::from_millis(200),
    retry: Duration::from_millis(20),
    patience: Duration::from_secs(1),
    stale: Duration::from_hours(24),
};

/// A folder with a Middleware that takes tokens by the keys of an issuer.
struct Site {
    folder: TempDir,
    source: Source,
    snapshot: Snapshot,
}

impl Site {
    async fn start(uri: &str, private: bool, times: KeyTimes) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[uri]);
        let settings = Settings { private_issuers: private, ..Settings::default() };
        let paths = vec![folder.path().to_owned()];
        let source = FileSource::start_with(paths, Arc::new(settings), Vec::new(), times);
        let mut source = Source::Files(source.unwrap());
        source.changed().await;
        let snapshot = source.snapshot();
        Site { folder, source, snapshot }
    }

    /// With the first keys of an issuer of this machine.
    async fn of(issuer: &IssuerServer) -> Self {
        Site::start(&issuer.url(), true, TIMES).await
    }

    fn state(&self) -> KeySetState {
        self.snapshot.key_sets.values().next().cloned().unwrap_or_default()
    }

    fn keys(&self) -> Arc<KeySet> {
        self.state().keys.expect("there are keys")
    }

    fn error(&self) -> String {
        self.state().error.expect("there is an error")
    }

    /// Passes until the state is so.
    async fn until(&mut self, what: &str, done: impl Fn(&KeySetState) -> bool) {
        let passes = async {
            while !done(&self.state()) {
                self.source.changed().await;
                self.snapshot = self.source.snapshot();
            }
        };
        let passed = tokio::time::timeout(SOON, passes).await;
        assert!(passed.is_ok(), "{what}: {:?}", self.state());
    }
}

fn write(folder: &Path, uris: &[&str]) {
    let methods: Vec<_> = uris
        .iter()
        .map(|uri| json!({"jwt": {"issuer": "https://issuer.test", "keys": {"remote": {"uri": uri}}}}))
        .collect();
    let object = json!({
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "Middleware",
        "metadata": {"name": "tokens", "namespace": "api"},
        "spec": {"authentication": {"methods": methods}},
    });
    std::fs::write(folder.join("a.json"), object.to_string()).unwrap();
}

fn key(kid: &str) -> SigningKey {
    SigningKey::new(kid, "ES256")
}

async fn wait_until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, wait).await.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_pass_has_the_keys() {
    let issuer = IssuerServer::start(Answer::Keys(jwks([&key("a"), &key("b")])));
    let site = Site::of(&issuer).await;
    assert_eq!(site.keys().len(), 2);
    assert_eq!(site.state().error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_let_the_set_be_fetched_once_in_a_while_whatever_comes() {
    let issuer = IssuerServer::start(Answer::Keys(jwks([&key("a")])));
    let mut site = Site::of(&issuer).await;
    issuer.answer(Answer::Keys(jwks([&key("a"), &key("b")])));
    let refetch = site.state().refetch;
    let began = std::time::Instant::now();
    let flood = tokio::spawn(async move {
        loop {
            refetch.ask();
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
    });
    site.until("the key that is new", |state| state.keys.as_ref().is_some_and(|k| k.len() == 2))
        .await;
    wait_until("several fetches", || issuer.asked().len() >= 5).await;
    flood.abort();
    let asked = issuer.asked();
    let most = began.elapsed().as_millis() / TIMES.refetch.as_millis() + 2;
    assert!(asked.len() as u128 <= most, "{} fetches, {most} are allowed", asked.len());
    // Sockets take their time, on either side of a fetch.
    let least = TIMES.refetch / 2;
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= least), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_says_the_same_is_the_same() {
    let keys = jwks([&key("a")]);
    let issuer = IssuerServer::start(Answer::Keys(keys));
    let mut site = Site::of(&issuer).await;
    let before = site.keys();
    site.state().refetch.ask();
    wait_until("a second fetch", || issuer.asked().len() == 2).await;
    let pass = tokio::time::timeout(WHILE, site.source.changed()).await;
    assert!(pass.is_err(), "there is nothing new");
    assert!(Arc::ptr_eq(
        &before,
        &site.source.snapshot().key_sets.values().next().unwrap().keys.clone().unwrap()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_while_an_issuer_fails_in_whatever_way() {
    let good = jwks([&key("a")]);
    let issuer = IssuerServer::start(Answer::Keys(good.clone()));
    let mut site = Site::of(&issuer).await;
    let before = site.keys();
    let metadata = ("location".to_owned(), "http://169.254.169.254/latest/".to_owned());
    let html = b"<!doctype html><title>Sign in</title>".to_vec();
    let secret = json!({"keys": [SigningKey::mac("m", &[7; 64]).jwk()]}).to_string();
    let many: Vec<_> = vec![key("a").jwk(); 10_000];
    let many = json!({"keys": many}).to_string();
    assert!(many.len() > 1024 * 1024, "it is too long as well");
    for (answer, expected) in [
        (Answer::Other(500, Vec::new(), b"no".to_vec()), "status 500"),
        (Answer::Other(404, Vec::new(), good.clone().into_bytes()), "status 404"),
        (Answer::Other(302, vec![metadata], good.clone().into_bytes()), "redirect"),
        (Answer::Other(200, Vec::new(), html), "no JWKS"),
        (Answer::Other(200, Vec::new(), Vec::new()), "no JWKS"),
        (Answer::Keys("{\"keys\":[]}".into()), "without any key"),
        (Answer::Keys(secret), "no usable key"),
        (Answer::Keys(format!("{}x", &good[..good.len() - 1])), "no JWKS"),
        (Answer::Keys(many), "longer than"),
        (Answer::Huge(50 * 1024 * 1024), "longer than"),
        (Answer::Hang, "no answer"),
        (Answer::Drip(Duration::from_millis(10)), "no answer"),
        (Answer::Raw(b"SSH-2.0-x\r\n".to_vec()), "no HTTP"),
        (Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec()), "breaks off"),
        (Answer::Raw(Vec::new()), "no HTTP"),
    ] {
        issuer.answer(answer);
        site.state().refetch.ask();
        site.until(expected, |state| state.error.as_ref().is_some_and(|e| e.contains(expected)))
            .await;
        assert!(Arc::ptr_eq(&before, &site.keys()), "{expected}");
        issuer.answer(Answer::Keys(good.clone()));
        site.until("good again", |state| state.error.is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_too_old_are_used_no_more() {
    let issuer = IssuerServer::start(Answer::Keys(jwks([&key("a")])));
    let times = KeyTimes { stale: Duration::from_millis(500), ..TIMES };
    let mut site = Site::start(&issuer.url(), true, times).await;
    site.keys();
    issuer.answer(Answer::Other(503, Vec::new(), Vec::new()));
    site.state().refetch.ask();
    site.until("stale keys", |state| state.error.is_some() && state.keys.is_some()).await;
    site.until("no keys", |state| state.keys.is_none()).await;
    assert!(site.error().contains("status 503"), "{}", site.error());
    issuer.answer(Answer::Keys(jwks([&key("b")])));
    site.until("keys again", |state| state.keys.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_at_first_is_asked_until_it_is_there() {
    let issuer = IssuerServer::start(Answer::Other(503, Vec::new(), Vec::new()));
    let mut site = Site::of(&issuer).await;
    assert!(site.state().keys.is_none());
    issuer.answer(Answer::Keys(jwks([&key("a")])));
    site.until("keys", |state| state.keys.is_some()).await;
    assert_eq!(site.state().error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_issuer_does_not_hold_up_the_first_pass_for_long() {
    let issuer = IssuerServer::start(Answer::Hang);
    let times = KeyTimes { patience: Duration::from_secs(60), ..TIMES };
    let began = std::time::Instant::now();
    let site = Site::start(&issuer.url(), true, times).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(site.state().keys.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_private_is_asked_unless_that_is_allowed() {
    let issuer = IssuerServer::start(Answer::Keys(jwks([&key("a")])));
    let port = issuer.address.port();
    for host in
        ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"]
    {
        let site = Site::start(&format!("https://{host}:{port}/jwks.json"), false, TIMES).await;
        assert!(site.error().contains("no public address"), "{host}: {}", site.error());
    }
    for (uri, expected) in [
        (format!("http://127.0.0.1:{port}/"), "use https"),
        (format!("http://issuer.test:{port}/"), "use https"),
        ("file:///etc/passwd".to_owned(), "uri"),
        ("ftp://issuer.test/".to_owned(), "no https URL"),
        ("/jwks.json".to_owned(), "no https URL"),
        ("https://user:password@issuer.test/".to_owned(), "has a user"),
        ("nonsense \u{0}".to_owned(), "no URL"),
    ] {
        let site = Site::start(&uri, false, TIMES).await;
        assert!(site.error().contains(expected), "{uri}: {}", site.error());
    }
    let site = Site::start("http://169.254.169.254/jwks.json", true, TIMES).await;
    assert!(site.error().contains("no address that may be asked"), "{}", site.error());
    assert_eq!(issuer.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_wants_any_more_is_forgotten_and_not_asked() {
    let issuer = IssuerServer::start(Answer::Keys(jwks([&key("a")])));
    let other = IssuerServer::start(Answer::Keys(jwks([&key("b"), &key("c")])));
    let mut site = Site::of(&issuer).await;
    let refetch = site.state().refetch;
    write(site.folder.path(), &[&other.url()]);
    site.until("those of the other", |state| state.keys.as_ref().is_some_and(|k| k.len() == 2))
        .await;
    assert_eq!(site.snapshot.key_sets.len(), 1);
    let before = issuer.asked().len();
    refetch.ask();
    tokio::time::sleep(WHILE).await;
    assert_eq!(issuer.asked().len(), before);
}
