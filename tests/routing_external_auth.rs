//! External authorization (HTTPRoute `ExternalAuth`, GEP-1494): from YAML to bytes on sockets,
//! with services that speak HTTP and gRPC.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fixtures::auth::*;
use fixtures::*;
use support::*;
use tidegate::services::ext_authz::{
    Allowed, CheckResponse, Denied, HttpRequest, HttpResponse, HttpStatus, Status,
};

/// A route whose only rule asks `auth` first; `more` are other filters.
fn route(external_auth: &str, more: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: r, namespace: web}}\n\
         spec:\n  parentRefs: [{{name: gw}}]\n  rules:\n  - filters:\n{more}    \
         - type: ExternalAuth\n      externalAuth: {{backendRef: {{name: auth, port: 80}}, \
         {external_auth}}}\n    backendRefs: [{{name: one, port: 80}}]\n"
    )
}

const HTTP: &str = "protocol: HTTP, http: {}";
const GRPC: &str = "protocol: GRPC, grpc: {}";

/// A site where requests go to `one` if a service that answers like this lets them.
fn asking(auth: &RawBackend, external_auth: &str) -> Site {
    let more = service("auth", &[auth.addr]) + &route(external_auth, "");
    Site::with(&[], &more, |_| {})
}

fn yes(_: &str) -> String {
    "HTTP/1.1 200 OK\r\nx-user: ann\r\nauthorization: Internal\r\nkeep-alive: 1\r\n\
     host: evil\r\ncontent-length: 2\r\n\r\nok"
        .to_owned()
}

#[test]
fn a_yes_lets_the_request_on_with_what_the_service_said() {
    let (auth, questions) = says(yes);
    let site = asking(&auth, "protocol: HTTP, http: {path: /verify, allowedHeaders: [cookie]}");
    let sent = ["authorization: Bearer x", "cookie: a=b", "x-user: evil", "x-mine: 1"];
    let answer = site.send("GET", "site.test", "/p?q=1", &sent);
    assert_eq!(who(&answer), "one");
    assert_eq!(path_seen(&answer), "/p?q=1");
    assert_eq!(field_seen(&answer, "host"), Some("site.test"));
    assert_eq!(field_seen(&answer, "x-user"), Some("ann"));
    assert_eq!(field_seen(&answer, "authorization"), Some("Internal"));
    assert_eq!(field_seen(&answer, "x-mine"), Some("1"));
    assert_eq!(field_seen(&answer, "keep-alive"), None);
    let question = questions.lock().unwrap()[0].clone();
    assert!(question.starts_with("GET /verify/p?q=1 HTTP/1.1\r\n"), "{question}");
    assert_eq!(field(&question, "host"), Some("site.test"));
    assert_eq!(field(&question, "authorization"), Some("Bearer x"));
    assert_eq!(field(&question, "cookie"), Some("a=b"));
    assert_eq!(field(&question, "content-length"), Some("0"));
    assert_eq!(field(&question, "x-mine"), None);
    assert_eq!(field(&question, "x-forwarded-for"), None);
}

#[test]
fn a_no_is_the_services_own_answer_and_the_backend_sees_nothing() {
    let (auth, _) = says(|_| {
        "HTTP/1.1 401 No\r\nwww-authenticate: Bearer\r\ntransfer-encoding: chunked\r\n\r\n\
         3\r\nno!\r\n0\r\n\r\n"
            .to_owned()
    });
    let site = asking(&auth, HTTP);
    let answer = site.get("site.test", "/");
    assert_eq!((status(&answer), body(&answer)), (401, "no!"));
    assert_eq!(field(&answer, "www-authenticate"), Some("Bearer"));
    assert_eq!(field(&answer, "content-length"), Some("3"));
    assert_eq!(field(&answer, "transfer-encoding"), None);
    assert_eq!(site.seen("one"), [""; 0]);
    assert!(site.proxy.telemetry.render().contains("reason=\"AuthDenied\""));
}

#[test]
fn without_a_service_nobody_passes_and_nobody_waits_long() {
    let silent = RawBackend::start(|mut raw, _| drop(raw.rest()));
    let garbage = RawBackend::start(|mut raw, _| {
        raw.message();
        raw.send("yes\r\n");
    });
    let endless = RawBackend::start(|mut raw, _| {
        raw.message();
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok");
        raw.rest();
    });
    let broken = RawBackend::start(|mut raw, _| drop(raw.message()));
    let (failing, _) = says(|_| "HTTP/1.1 500 Oh\r\ncontent-length: 5\r\n\r\ntrace".to_owned());
    let dead = vec![dead_endpoint()];
    for (name, addrs) in [
        ("dead", dead),
        ("none", Vec::new()),
        ("silent", vec![silent.addr]),
        ("garbage", vec![garbage.addr]),
        ("endless", vec![endless.addr]),
        ("broken", vec![broken.addr]),
        ("failing", vec![failing.addr]),
    ] {
        let more = service("auth", &addrs) + &route(HTTP, "");
        let site = Site::with(&[], &more, |_| {});
        let start = Instant::now();
        let answer = site.get("site.test", "/");
        assert_eq!((status(&answer), body(&answer)), (503, "AuthUnavailable\n"), "{name}");
        assert!(start.elapsed() < Duration::from_secs(2), "{name}: {:?}", start.elapsed());
        assert_eq!(site.seen("one"), [""; 0], "{name}");
    }
}

#[test]
fn of_several_endpoints_those_that_are_there_are_asked() {
    let (auth, questions) = says(yes);
    let more = service("auth", &[dead_endpoint(), auth.addr]) + &route(HTTP, "");
    let site = Site::with(&[], &more, |_| {});
    for _ in 0..10 {
        assert_eq!(site.answers("site.test", "/"), "one");
    }
    assert_eq!(questions.lock().unwrap().len(), 10);
}

#[test]
fn connections_to_the_service_are_kept_and_a_broken_one_is_replaced() {
    let auth = RawBackend::start(|mut raw, number| {
        // The first connection dies while its second question is on its way.
        for _ in 0..if number == 0 { 1 } else { usize::MAX } {
            if raw.message().is_empty() {
                return;
            }
            raw.send(&yes(""));
        }
        raw.message();
    });
    let more = service("auth", &[auth.addr]) + &route(HTTP, "");
    let site = Site::with(&[], &more, |_| {});
    let mut client = site.proxy.connect();
    for _ in 0..4 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(who(&client.message()), "one");
    }
    assert_eq!(auth.connections.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[test]
fn a_body_is_shown_to_the_service_and_still_reaches_the_backend() {
    let (auth, questions) = says(yes);
    let site = asking(&auth, "protocol: HTTP, http: {}, forwardBody: {maxSize: 8}");
    let post = |framing: &str, body: &str| {
        let mut raw = site.proxy.connect();
        raw.send(&format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{framing}\r\n\r\n{body}"
        ));
        raw.rest()
    };
    let answer = post("content-length: 8", "12345678");
    assert_eq!(who(&answer), "one");
    assert!(answer.ends_with("\r\n\r\n12345678"), "{answer}");
    let answer = post("transfer-encoding: chunked", "4\r\n1234\r\n2\r\n56\r\n0\r\n\r\n");
    assert_eq!(who(&answer), "one");
    assert!(answer.ends_with("\r\n\r\n123456"), "{answer}");
    {
        let questions = questions.lock().unwrap();
        assert!(questions[0].starts_with("POST / ") && questions[0].ends_with("12345678"));
        assert_eq!(field(&questions[1], "content-length"), Some("6"));
    }
    for (framing, sent) in [
        ("content-length: 9", "123456789"),
        ("transfer-encoding: chunked", "4\r\n1234\r\n5\r\n56789\r\n0\r\n\r\n"),
    ] {
        assert_eq!(status(&post(framing, sent)), 413, "{framing}");
    }
    assert_eq!(questions.lock().unwrap().len(), 2);
}

#[test]
fn a_client_that_waits_to_be_told_is_told_to_send_its_body() {
    let (auth, _) = says(yes);
    let site = asking(&auth, "protocol: HTTP, http: {}, forwardBody: {maxSize: 8}");
    let mut raw = site.proxy.connect();
    raw.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(status(&raw.head()), 100);
    raw.send("hi");
    let answer = raw.message();
    assert_eq!(who(&answer), "one");
    assert_eq!(field_seen(&answer, "expect"), None, "the body is there already");
}

#[test]
fn without_forward_body_the_service_sees_none_and_nothing_is_kept() {
    let (auth, questions) = says(yes);
    let site = asking(&auth, HTTP);
    let mut raw = site.proxy.connect();
    raw.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody");
    let answer = raw.rest();
    assert!(answer.ends_with("\r\n\r\nbody"), "{answer}");
    let questions = questions.lock().unwrap();
    assert_eq!(field(&questions[0], "content-length"), Some("0"));
    assert!(!questions[0].contains("body"));
}

#[test]
fn a_preflight_is_answered_before_the_service_is_asked() {
    let (auth, questions) = says(|_| "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n".to_owned());
    let cors =
        "    - {type: CORS, cors: {allowOrigins: ['https://app.test'], allowMethods: [PUT]}}\n";
    let more = service("auth", &[auth.addr]) + &route(HTTP, cors);
    let site = Site::with(&[], &more, |_| {});
    let fields = ["origin: https://app.test", "access-control-request-method: PUT"];
    assert_eq!(status(&site.send("OPTIONS", "site.test", "/", &fields)), 204);
    assert_eq!(questions.lock().unwrap().len(), 0);
    let answer = site.send("PUT", "site.test", "/", &fields[..1]);
    assert_eq!(status(&answer), 403);
    let allowed = field(&answer, "access-control-allow-origin");
    assert_eq!(allowed, Some("https://app.test"), "a script may read the refusal");
}

/// Lets in whoever says so in `x-password` and in the body, if there is one.
fn judge(http: HttpRequest) -> CheckResponse {
    let good = http.headers.get("x-password").is_some_and(|p| p == "good") && http.body != "bad";
    let (code, response) = if good {
        let user = format!("{} {} {}", http.method, http.host, http.path);
        let allowed = Allowed {
            headers: vec![set("x-user", &user)],
            headers_to_remove: vec!["x-password".into()],
            response_headers_to_add: vec![set("x-judged", "yes")],
            ..Allowed::default()
        };
        (0, HttpResponse::Allowed(allowed))
    } else {
        let denied = Denied {
            status: Some(HttpStatus { code: 401 }),
            headers: vec![set("x-why", "password")],
            body: "not you".into(),
        };
        (16, HttpResponse::Denied(denied))
    };
    CheckResponse { status: Some(Status { code }), http_response: Some(response) }
}

#[test]
fn a_grpc_service_judges_and_changes_request_and_answer() {
    let more = service("auth", &[grpc(judge)]) + &route(GRPC, "");
    let site = Site::with(&[], &more, |_| {});
    let answer = site.send("GET", "site.test", "/p?q=1", &["x-password: good"]);
    assert_eq!(who(&answer), "one");
    assert_eq!(field_seen(&answer, "x-user"), Some("GET site.test /p?q=1"));
    assert_eq!(field_seen(&answer, "x-password"), None);
    assert_eq!(field(&answer, "x-judged"), Some("yes"));
    let answer = site.send("GET", "site.test", "/", &["x-password: bad"]);
    assert_eq!((status(&answer), body(&answer)), (401, "not you"));
    assert_eq!(field(&answer, "x-why"), Some("password"));
    assert_eq!(site.seen("one").len(), 1);
}

#[test]
fn a_grpc_service_sees_only_fields_that_are_listed_and_the_body_if_it_fits() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let addr = grpc(move |http| {
        notes.lock().unwrap().push(http.headers.keys().cloned().collect::<Vec<_>>().join(" "));
        judge(http)
    });
    let spec = "protocol: GRPC, grpc: {allowedHeaders: [X-Password]}, forwardBody: {maxSize: 4}";
    let more = service("auth", &[addr]) + &route(spec, "");
    let site = Site::with(&[], &more, |_| {});
    let post = |text: &str| {
        let mut raw = site.proxy.connect();
        let length = text.len();
        raw.send(&format!(
            "POST / HTTP/1.1\r\nhost: a\r\nx-password: good\r\nx-other: 1\r\n\
             connection: close\r\ncontent-length: {length}\r\n\r\n{text}"
        ));
        raw.rest()
    };
    assert!(post("fine").ends_with("\r\n\r\nfine"));
    assert_eq!(status(&post("bad")), 401);
    assert_eq!(status(&post("longer")), 413);
    assert_eq!(*seen.lock().unwrap(), ["x-password", "x-password"]);
}

#[test]
fn something_else_behind_a_grpc_port_lets_nobody_pass() {
    let (auth, _) = says(yes);
    let more = service("auth", &[auth.addr]) + &route(GRPC, "");
    let site = Site::with(&[], &more, |_| {});
    assert_eq!(status(&site.get("site.test", "/")), 503);
    assert_eq!(site.seen("one"), [""; 0]);
}
