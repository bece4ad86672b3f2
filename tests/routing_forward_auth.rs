//! Forward auth by a Middleware: from YAML to bytes on sockets.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use fixtures::auth::*;
use fixtures::*;
use support::*;

/// A site whose requests go on if a service that answers like this says so, and the questions.
fn site(answer: fn(&str) -> String, spec: &str) -> (Site, Questions) {
    let (auth, questions) = says(answer);
    let spec = format!(
        "{{externalAuth: {{backendRef: {{name: auth, port: 80}}, protocol: HTTP, {spec}}}}}"
    );
    (guarded(auth.addr, &spec, ""), questions)
}

fn yes(_: &str) -> String {
    "HTTP/1.1 204 No Content\r\nx-user: ann\r\nset-cookie: s=2\r\n\r\n".to_owned()
}

fn no(_: &str) -> String {
    "HTTP/1.1 401 No\r\nset-cookie: csrf=1\r\ncontent-length: 2\r\n\r\nno".to_owned()
}

const FORWARD: &str = "http: {path: /verify, forwardOriginal: true, \
     allowedResponseHeaders: [X-User], responseCookies: [s]}";

#[test]
fn the_service_is_told_of_the_request_and_the_backend_of_the_user() {
    let (site, questions) = site(yes, FORWARD);
    let fields = ["cookie: s=1", "x-user: root", "x-forwarded-uri: /public", "content-length: 3"];
    let mut raw = site.proxy.connect();
    let sent: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    raw.send(&format!("POST /p?q=1 HTTP/1.1\r\nhost: site.test\r\n{sent}\r\nabc"));
    let answer = raw.message();
    assert_eq!(who(&answer), "one");
    assert_eq!(field_seen(&answer, "x-user"), Some("ann"));
    assert!(answer.ends_with("abc"), "the body goes to the backend alone");
    assert_eq!(field(&answer, "set-cookie"), Some("s=2"));
    let question = questions.lock().unwrap()[0].clone();
    assert!(question.starts_with("GET /verify HTTP/1.1\r\n"), "{question}");
    for (name, value) in [
        ("host", "auth.web.svc:80"),
        ("cookie", "s=1"),
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "site.test"),
        ("x-forwarded-uri", "/p?q=1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-original-url", "http://site.test/p?q=1"),
    ] {
        assert_eq!(field(&question, name), Some(value), "{name}");
        assert_eq!(question.matches(&format!("\r\n{name}: ")).count(), 1, "{name}");
    }
    assert!(question.ends_with("\r\n\r\n"), "no body: {question}");
    assert_eq!(field(&question, "content-length"), None);
}

#[test]
fn who_is_not_signed_in_is_sent_to_sign_in() {
    let sign_in =
        "http: {path: /verify, forwardOriginal: true, signIn: {url: 'https://login.test/start'}}";
    let (site, _) = site(no, sign_in);
    let answer = site.get("site.test", "/p?q=1");
    assert_eq!(status(&answer), 302);
    let expected = "https://login.test/start?rd=http%3A%2F%2Fsite.test%2Fp%3Fq%3D1";
    assert_eq!(field(&answer, "location"), Some(expected));
    assert_eq!(field(&answer, "set-cookie"), Some("csrf=1"));
    assert_eq!(site.seen("one"), [""; 0]);
}

#[test]
fn the_same_question_is_asked_once() {
    let plain = |_: &str| "HTTP/1.1 200 OK\r\nx-user: ann\r\ncontent-length: 0\r\n\r\n".to_owned();
    let spec = format!("{FORWARD}, cache: {{duration: 1h, key: [{{type: Cookie, name: s}}]}}");
    let (site, questions) = site(plain, &spec);
    for path in ["/a", "/b", "/a"] {
        let answer = site.send("GET", "site.test", path, &["cookie: s=1", "x-user: root"]);
        assert_eq!(field_seen(&answer, "x-user"), Some("ann"));
    }
    assert_eq!(questions.lock().unwrap().len(), 1);
    assert_eq!(who(&site.send("GET", "site.test", "/a", &["cookie: s=2"])), "one");
    assert_eq!(questions.lock().unwrap().len(), 2);
    let text = site.proxy.telemetry.render();
    assert!(text.contains("tidegate_external_auth_total{result=\"cached\"} "), "{text}");
}

#[test]
fn a_service_that_fails_is_passed_over_only_where_the_user_says_so() {
    let fails = |_: &str| "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned();
    let (closed, _) = site(fails, FORWARD);
    assert_eq!(who(&closed.get("site.test", "/")), "503");
    let (open, _) = site(fails, &format!("{FORWARD}, failOpen: true"));
    let answer = open.send("GET", "site.test", "/", &["x-user: root"]);
    assert_eq!(who(&answer), "one");
    assert_eq!(field_seen(&answer, "x-user"), None);
}
