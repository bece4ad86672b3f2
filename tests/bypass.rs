//! No way around a policy: tricks of clients with targets, hosts, fields and methods against a
//! protected prefix, and against the fields that say who asks. A trick has worked if a backend
//! saw a path that it may take for one below the prefix, although the policy had not said yes;
//! or a field of the client's that only the policy may write.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;
mod tricks;

use std::io::{Read, Write};
use std::time::Duration;

use fixtures::auth::*;
use fixtures::*;
use http::Request;
use support::*;
use tricks::*;

/// What only the service says; no client knows it.
const SECRET: &str = "said-7f3a91";

/// Says yes to who has the credential, and to everybody for `/public` and `/who`.
fn judge(question: &str) -> String {
    let is = |name: &str, value: &str| {
        field(question, name)
            .is_some_and(|field| field == value || field.ends_with(&format!(".test{value}")))
    };
    let open = ["/public", "/who"]
        .iter()
        .any(|path| is("x-forwarded-uri", path) || is("x-original-url", path));
    let yes = is("authorization", "Bearer right") || open;
    let said = format!("x-verified: {SECRET}\r\nx-user-id: ann\r\n");
    let (status, said) = if yes { ("200 OK", &*said) } else { ("401 No", "") };
    format!("HTTP/1.1 {status}\r\n{said}content-length: 0\r\n\r\n")
}

/// Below `/admin` the service is asked; all else of the host, and another host, is open.
fn site() -> Site {
    let objects = service("auth", &[says(judge).0.addr]) + include_str!("fixtures/bypass.yaml");
    Site::with(&[], &objects, |_| {})
}

/// Sends bytes on a connection of their own, and reads until it is closed; or until nothing comes
/// any more, where the proxy waits for more of a request.
fn send(site: &Site, bytes: &str) {
    let mut raw = Raw::connect(([127, 0, 0, 1], site.proxy.port).into());
    raw.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    raw.stream.write_all(bytes.as_bytes()).unwrap();
    let mut chunk = [0; 4096];
    while raw.stream.read(&mut chunk).is_ok_and(|read| read > 0) {}
}

/// Every request that a backend saw, since the last time.
fn seen(site: &Site, read: &mut [usize; 2]) -> Vec<String> {
    let mut new = Vec::new();
    for (name, read) in ["one", "two"].into_iter().zip(read) {
        let all = site.seen(name);
        new.extend_from_slice(&all[*read..]);
        *read = all.len();
    }
    new
}

/// What a backend of the usual kinds may take a path for: decoded once or twice, with backslashes
/// for slashes, without parameters of segments, cut where a second parser cuts; dot segments
/// resolved after each.
fn meanings(path: &str) -> Vec<String> {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let plain = |text: &str| {
        let segments = text.split('/').map(|s| s.split(';').next().unwrap_or("").to_owned());
        segments.collect::<Vec<_>>().join("/")
    };
    let cut = |text: &str| text.split(['?', '#', '\0']).next().unwrap_or("").to_owned();
    let (once, twice) = (decode(path), decode(&decode(path)));
    let mut all = vec![path.to_owned(), plain(path), decode(&plain(path))];
    for text in [once, twice] {
        all.extend([cut(&text), plain(&text), text.replace('\\', "/"), text]);
    }
    all.iter().map(|text| resolve(text)).collect()
}

fn resolve(path: &str) -> String {
    let mut stack: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(stack.pop()),
            _ => stack.push(segment),
        }
    }
    format!("/{}", stack.join("/"))
}

/// Whether a backend was reached below the prefix without the policy's word.
fn is_bypass(request: &str) -> bool {
    let line = request.lines().next().unwrap_or_default();
    let target = line.split(' ').nth(1).unwrap_or_default();
    let host = field(request, "host").unwrap_or_default().to_ascii_lowercase();
    let host = host.split(':').next().unwrap_or_default().trim_end_matches('.');
    let leads = |name| field(request, name).map(|url| url.split(".test").last().unwrap_or(url));
    let others =
        ["x-original-url", "x-original-uri", "x-rewrite-url"].into_iter().filter_map(leads);
    let path = target.split('?').next().unwrap_or_default();
    let mut means = std::iter::once(path).chain(others).flat_map(meanings);
    let is_below = |path: &String| path == "/admin" || path.starts_with("/admin/");
    ["site.test", "method.test", "deny.test", "allow.test"].contains(&host)
        && means.any(|path| is_below(&path))
        && !is_verified(request)
}

fn is_verified(request: &str) -> bool {
    let heads = request.split("\r\n\r\n").next().unwrap_or_default();
    heads.lines().filter(|line| **line == format!("x-verified: {SECRET}")).count() == 1
}

/// All tricks as bytes of HTTP/1.1.
fn tricks() -> Vec<String> {
    let host = "host: site.test\r\n";
    let request = |method: &str, target: &str, fields: &str| {
        format!("{method} {target} HTTP/1.1\r\n{fields}connection: close\r\n\r\n")
    };
    let mut all = Vec::new();
    for target in PATHS.iter().chain(TARGETS) {
        all.push(request("GET", target, host));
    }
    for fields in FIELDS {
        for target in ["/admin", "/", "/x"] {
            all.push(request("GET", target, &format!("{host}{fields}\r\n")));
        }
    }
    for fields in HOSTS {
        for target in ["/admin", "/x/..;/admin"] {
            all.push(request("GET", target, &format!("{fields}\r\n")));
        }
    }
    for method in METHODS {
        all.push(request(method, "/admin", host));
        all.push(request(method, "/admin%2fsecret", host));
    }
    for (version, fields) in
        [("HTTP/1.0", host), ("HTTP/1.0", ""), ("HTTP/0.9", host), ("HTTP/3.0", host)]
    {
        for target in ["/admin", "/x/..;/admin"] {
            all.push(format!("GET {target} {version}\r\n{fields}connection: close\r\n\r\n"));
        }
    }
    // A second request where none should be.
    let hidden = request("GET", "/admin", host);
    let length = hidden.len();
    for head in [
        format!("GET / HTTP/1.1\r\n{host}content-length: 0\r\n\r\n{hidden}"),
        format!("POST / HTTP/1.1\r\n{host}content-length: {length}\r\n\r\n{hidden}{hidden}"),
        format!("POST / HTTP/1.1\r\n{host}content-length: 0{length}\r\n\r\n{hidden}"),
        format!(
            "POST / HTTP/1.1\r\n{host}transfer-encoding: chunked\r\ncontent-length: {length}\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("POST / HTTP/1.1\r\n{host}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!(
            "POST / HTTP/1.1\r\n{host}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!(
            "GET / HTTP/1.1\r\n{host}upgrade: websocket\r\nconnection: upgrade\r\n\r\n{hidden}"
        ),
        format!("GET / HTTP/1.1\r\n{host}upgrade: h2c\r\nconnection: upgrade\r\n\r\n{hidden}"),
        format!("GET / HTTP/1.1\n{host}\n{hidden}"),
        format!("\r\n\r\n{hidden}"),
        format!(
            "GET / HTTP/1.1\r\n{host}expect: 100-continue\r\ncontent-length: {length}\r\n\r\n{hidden}"
        ),
    ] {
        all.push(head);
    }
    all
}

#[test]
fn the_policy_lets_through_whom_it_should_and_nobody_else() {
    let site = site();
    let right = ["authorization: Bearer right"];
    for path in ["/admin", "/admin/secret", "//admin", "/x/../admin", "/%61dmin", "/admin/a%2Fb"] {
        assert_eq!(who(&site.get("site.test", path)), "401", "{path}");
        let answer = site.send("GET", "site.test", path, &right);
        assert_eq!(who(&answer), "one", "{path}");
        assert_eq!(field_seen(&answer, "x-verified"), Some(SECRET));
    }
    // Where nothing is protected, the same characters are nobody's business.
    for path in ["/", "/public", "/@scope%2Fname", "/a;b=c/d", "/x/a%2F..%2Fb", "/x%2F..;", "/adm"]
    {
        assert_eq!(who(&site.get("site.test", path)), "two", "{path}");
    }
    assert_eq!(who(&site.get("open.test", "/admin")), "two");
    assert!(is_bypass("GET /x/..;/admin HTTP/1.1\r\nhost: site.test\r\n\r\n"), "it is seen");
    assert!(is_bypass("GET / HTTP/1.1\r\nhost: site.test\r\nx-original-url: /admin\r\n\r\n"));
    assert!(!is_bypass("GET /admin.json HTTP/1.1\r\nhost: site.test\r\n\r\n"));
}

#[test]
fn no_trick_over_http1_gets_below_a_protected_prefix() {
    let site = site();
    let (tricks, mut read) = (tricks(), [0; 2]);
    assert!(tricks.len() >= 200, "{}", tricks.len());
    let mut bypasses = Vec::new();
    for trick in &tricks {
        send(&site, trick);
        let worked = seen(&site, &mut read).into_iter().filter(|request| is_bypass(request));
        bypasses
            .extend(worked.map(|request| format!("{trick:?} reached a backend as {request:?}")));
    }
    assert!(bypasses.is_empty(), "{} bypasses:\n{}", bypasses.len(), bypasses.join("\n"));
}

#[test]
fn no_trick_gets_to_a_path_that_a_rule_denies_or_does_not_allow_or_that_a_method_guards() {
    let site = site();
    for host in ["deny.test", "allow.test", "method.test"] {
        assert_eq!(who(&site.get(host, "/x/y")), "two", "{host}");
        assert_eq!(who(&site.get(host, "/x/@scope%2Fname")), "two", "{host}");
        let refused = who(&site.get(host, "/admin"));
        assert!(["401", "403"].contains(&&*refused), "{host}: {refused}");
        let mut read = [site.seen("one").len(), site.seen("two").len()];
        let mut bypasses = Vec::new();
        for trick in tricks() {
            let trick = trick.replace("site.test", host);
            send(&site, &trick);
            let worked = seen(&site, &mut read).into_iter().filter(|request| is_bypass(request));
            bypasses.extend(worked.map(|request| format!("{trick:?} reached it as {request:?}")));
        }
        assert!(bypasses.is_empty(), "{} bypasses:\n{}", bypasses.len(), bypasses.join("\n"));
    }
}

#[test]
fn no_trick_over_http2_gets_below_a_protected_prefix() {
    let site = site();
    let mut read = [0; 2];
    let mut tried = 0;
    let mut bypasses = Vec::new();
    let mut requests: Vec<Request<()>> = Vec::new();
    for path in PATHS {
        requests.extend(Request::get(format!("http://site.test{path}")).body(()));
    }
    for (authority, host) in [
        ("site.test", "open.test"),
        ("open.test", "site.test"),
        ("SITE.TEST", "site.test"),
        ("site.test:80", "site.test"),
        ("site.test.", "site.test"),
        ("user@site.test", "site.test"),
    ] {
        let request = Request::get(format!("http://{authority}/admin")).header("host", host);
        requests.extend(request.body(()));
    }
    for line in FIELDS.iter().filter(|line| !line.contains(['\r', '\n'])) {
        let Some((name, value)) = line.split_once(": ") else { continue };
        for path in ["/admin", "/"] {
            let request = Request::get(format!("http://site.test{path}")).header(name, value);
            requests.extend(request.body(()));
        }
    }
    for method in METHODS.iter().filter(|method| **method != "CONNECT") {
        requests.extend(Request::builder().method(*method).uri("http://site.test/admin").body(()));
    }
    for request in requests {
        let trick = format!("{request:?}");
        tried += 1;
        http2::run(async {
            let (mut client, _) = http2::connect(site.proxy.addr()).await;
            // Some are refused by the client's own library, and some by a reset.
            if let Ok((response, _)) = client.send_request(request, true) {
                let _ = tokio::time::timeout(Duration::from_secs(5), response).await;
            }
        });
        let worked = seen(&site, &mut read).into_iter().filter(|request| is_bypass(request));
        bypasses.extend(worked.map(|request| format!("{trick} reached a backend as {request:?}")));
    }
    assert!(tried >= 200, "{tried}");
    assert!(bypasses.is_empty(), "{} bypasses:\n{}", bypasses.len(), bypasses.join("\n"));
}

#[test]
fn no_field_of_a_client_says_who_asks() {
    let site = site();
    let (mut read, mut reached) = ([0; 2], [0; 2]);
    let versions = [("HTTP/1.1", "connection: close\r\n"), ("HTTP/1.0", "")];
    let hosts = ["site.test", "method.test"].into_iter().zip(0..);
    let ways = hosts.flat_map(|host| versions.map(|version| (host, version)));
    for fields in IDENTITY {
        for ((host, at), (version, close)) in ways.clone() {
            send(&site, &format!("GET /who {version}\r\nhost: {host}\r\n{fields}\r\n{close}\r\n"));
            for request in seen(&site, &mut read) {
                reached[at] += 1;
                assert!(is_verified(&request), "the service was not asked: {request}");
                assert!(!request.contains("evil"), "{fields:?} reached a backend as {request:?}");
            }
        }
    }
    let most = reached.iter().all(|reached| *reached >= IDENTITY.len());
    assert!(most, "most of them are requests: {reached:?}");
}
