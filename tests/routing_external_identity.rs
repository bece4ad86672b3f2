//! A service that says who asks, as a method of authentication beside API keys: from YAML to
//! bytes on sockets, by HTTP and by gRPC.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use std::net::SocketAddr;

use fixtures::auth::*;
use fixtures::*;
use support::*;
use tidegate::services::ext_authz::{
    Allowed, CheckResponse, Denied, HttpRequest, HttpResponse, HttpStatus, Status,
};

const HTTP: &str = "protocol: HTTP, http: {path: /verify, forwardOriginal: true, \
     allowedResponseHeaders: [X-Team], responseCookies: [seen]}";
const GRPC: &str = "protocol: GRPC, grpc: {allowedResponseHeaders: [X-Team]}";
const LOGIN: &str = "https://login.test/start";
const KEY: &str = "x-api-key: mobile-key-of-today";
/// What clients would like to be.
const EVIL: &[&str] =
    &["x-user: evil", "x_user: evil", "x-groups: staff", "X_Groups: staff", "x-team: evil"];

/// The fields of a yes for whoever has this cookie.
fn fields_of(cookie: &str) -> Option<[(&'static str, &'static str); 3]> {
    match cookie {
        "s=ann" => Some([("x-user", "ann"), ("x-groups", "staff, readers"), ("x-team", "blue")]),
        "s=bob" => Some([("x-user", "bob"), ("x-groups", "guests"), ("x-team", "red")]),
        _ => None,
    }
}

fn by_http(question: &str) -> String {
    match fields_of(field(question, "cookie").unwrap_or_default()) {
        Some(fields) => {
            let fields = fields.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
            format!("HTTP/1.1 200 OK\r\n{fields}set-cookie: seen=1\r\ncontent-length: 0\r\n\r\n")
        }
        None => format!("HTTP/1.1 302 No\r\nlocation: {LOGIN}\r\ncontent-length: 2\r\n\r\ngo"),
    }
}

fn by_grpc(question: HttpRequest) -> CheckResponse {
    let cookie = question.headers.get("cookie").map_or("", String::as_str);
    let (code, response) = match fields_of(cookie) {
        Some(fields) => {
            let headers = fields.iter().map(|(name, value)| set(name, value)).collect();
            let seen = vec![set("set-cookie", "seen=1")];
            let allowed = Allowed { headers, response_headers_to_add: seen, ..Allowed::default() };
            (0, HttpResponse::Allowed(allowed))
        }
        None => {
            let status = Some(HttpStatus { code: 302 });
            let headers = vec![set("location", LOGIN)];
            (16, HttpResponse::Denied(Denied { status, headers, body: "go".into() }))
        }
    };
    CheckResponse { status: Some(Status { code }), http_response: Some(response) }
}

/// Both kinds of service, and how a method asks them.
fn services() -> [(SocketAddr, &'static str); 2] {
    [(says(by_http).0.addr, HTTP), (grpc(by_grpc), GRPC)]
}

/// A site whose requests go on for staff and the Consumer `mobile`. A key comes before the
/// service.
fn site(auth: SocketAddr, protocol: &str, mode: &str) -> Site {
    let spec = format!(
        "{{authentication: {{mode: {mode}, headers: {{subject: X-Subject, consumer: X-Consumer}}, \
         methods: [{{apiKey: {{}}}}, {{external: {{backendRef: {{name: auth, port: 80}}, {protocol}, \
         identity: {{header: X-User, groupsHeader: X-Groups}}}}}}]}}, \
         authorization: {{mode: {mode}, rules: [{{groups: [staff]}}, {{consumers: [mobile]}}]}}}}"
    );
    let consumer = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: web}\n\
         stringData: {mobile: mobile-key-of-today}\n\
         ---\napiVersion: tidegate.dev/v1alpha1\nkind: Consumer\n\
         metadata: {name: mobile, namespace: web}\n\
         spec: {credentials: {apiKeys: [{secretRef: {name: keys, key: mobile}}]}}\n";
    guarded(auth, &spec, consumer)
}

fn send(site: &Site, fields: &[&[&str]]) -> String {
    site.send("GET", "site.test", "/p", &fields.concat())
}

#[test]
fn authorization_goes_by_the_groups_that_the_service_tells() {
    for (auth, protocol) in services() {
        let site = site(auth, protocol, "Enforce");
        let answer = send(&site, &[&["cookie: s=ann"], EVIL]);
        assert_eq!(who(&answer), "one", "{protocol}");
        assert_eq!(field_seen(&answer, "x-subject"), Some("ann"));
        assert_eq!(field_seen(&answer, "x-team"), Some("blue"));
        assert_eq!(field(&answer, "set-cookie"), Some("seen=1"), "for the client: {protocol}");
        let seen = body(&answer).to_ascii_lowercase();
        assert!(!seen.contains("evil") && !seen.contains("staff"), "{protocol}: {seen}");
        assert_eq!(who(&send(&site, &[&["cookie: s=bob"], EVIL])), "403", "{protocol}");
        assert_eq!(site.seen("one").len(), 1);
    }
}

#[test]
fn who_is_not_signed_in_gets_the_services_own_answer() {
    for (auth, protocol) in services() {
        let site = site(auth, protocol, "Enforce");
        for fields in [&[EVIL][..], &[&["x-api-key: wrong"]], &[&["cookie: s=old"]]] {
            let answer = send(&site, fields);
            assert_eq!((status(&answer), body(&answer)), (302, "go"), "{protocol}");
            assert_eq!(field(&answer, "location"), Some(LOGIN));
        }
        assert_eq!(site.seen("one"), [""; 0]);
    }
}

#[test]
fn a_key_alone_is_enough_and_nobody_is_asked() {
    let (auth, questions) = says(by_http);
    let site = site(auth.addr, HTTP, "Enforce");
    let answer = send(&site, &[&[KEY], EVIL]);
    assert_eq!(who(&answer), "one");
    assert_eq!(field_seen(&answer, "x-consumer"), Some("mobile"));
    let seen = body(&answer).to_ascii_lowercase();
    assert!(!seen.contains("evil") && !seen.contains("staff"), "{seen}");
    assert_eq!(questions.lock().unwrap().len(), 0);
    assert_eq!(who(&send(&site, &[&["cookie: s=ann"]])), "one");
    assert_eq!(questions.lock().unwrap().len(), 1);
}

#[test]
fn a_service_that_is_away_closes_the_way_to_whom_it_alone_knows() {
    for protocol in [HTTP, GRPC] {
        let site = site(dead_endpoint(), protocol, "Enforce");
        let answer = send(&site, &[&["cookie: s=ann"]]);
        assert_eq!((status(&answer), body(&answer)), (503, "AuthUnavailable\n"), "{protocol}");
        assert_eq!(site.seen("one"), [""; 0]);
        assert_eq!(field_seen(&send(&site, &[&[KEY]]), "x-consumer"), Some("mobile"));
    }
}

#[test]
fn in_shadow_mode_nothing_is_denied_and_nothing_changed() {
    for (auth, protocol) in services() {
        let site = site(auth, protocol, "Shadow");
        for cookie in ["cookie: s=ann", "cookie: s=bob", "cookie: s=old"] {
            let answer = send(&site, &[&[cookie], EVIL]);
            assert_eq!(who(&answer), "one", "{protocol}");
            assert_eq!(field(&answer, "set-cookie"), None);
            assert_eq!(field_seen(&answer, "x-subject"), None);
            for field in EVIL {
                let seen = body(&answer).to_ascii_lowercase();
                assert!(seen.contains(&field.to_ascii_lowercase()), "{protocol}: {seen}");
            }
        }
        for (policy, reason) in
            [("authentication", "AuthDenied"), ("authorization", "AccessDenied")]
        {
            let series = format!(
                "tidegate_policy_would_answer_total{{policy=\"{policy}\",reason=\"{reason}\"}}"
            );
            assert_eq!(site.proxy.metric(&series), 1.0, "{protocol} {series}");
        }
    }
}
