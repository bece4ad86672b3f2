//! Limits of concurrency and bandwidth (`RateLimit`): from YAML to bytes on sockets.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod fixtures;
mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fixtures::*;
use http::Request;
use support::*;

/// A Service at this address, and a route of its own that goes by a RateLimit.
fn limited(addr: SocketAddr, limit: &str) -> String {
    let port = addr.port();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: own, namespace: web}}\n\
         spec: {{ports: [{{name: http, port: 80}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: own-a, namespace: web, labels: {{kubernetes.io/service-name: own}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: {port}}}]\n\
         endpoints: [{{addresses: [127.0.0.1]}}]\n\
         ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: r, namespace: web}}\nspec:\n  parentRefs: [{{name: gw}}]\n  rules:\n  \
         - filters: [{{type: ExtensionRef, extensionRef: {{group: tidegate.dev, kind: RateLimit, name: l}}}}]\n    \
         backendRefs: [{{name: own, port: 80}}]\n\
         ---\napiVersion: tidegate.dev/v1alpha1\nkind: RateLimit\n\
         metadata: {{name: l, namespace: web}}\nspec:\n  {limit}\n"
    )
}

fn site(backend: &RawBackend, limit: &str) -> Site {
    Site::with(&[], &limited(backend.addr, limit), |_| {})
}

/// Says when somebody may go on.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<bool>>);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
    }

    fn wait(&self) {
        eventually("the gate opens", || *self.0.lock().unwrap());
    }
}

/// Sends half of every answer, and the rest when the gate opens.
fn halting(gate: &Gate) -> RawBackend {
    let gate = gate.clone();
    RawBackend::start(move |mut raw, _| {
        while !raw.message().is_empty() {
            raw.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
            gate.wait();
            if raw.stream.write_all(b"rest").is_err() {
                return;
            }
        }
    })
}

const ONE: &str = "concurrency: [{name: one, requests: 1, key: [{type: Header, name: x-key}]}]";

fn begin(site: &Site, key: &str) -> Raw {
    let mut raw = site.proxy.connect();
    raw.send(&format!("GET / HTTP/1.1\r\nhost: site.test\r\nx-key: {key}\r\n\r\n"));
    raw
}

fn answer_to(site: &Site, key: &str) -> u16 {
    status(&begin(site, key).head())
}

#[test]
fn a_request_counts_until_its_answer_has_ended() {
    let gate = Gate::default();
    let backend = halting(&gate);
    let site = site(&backend, ONE);
    let mut first = begin(&site, "a");
    assert_eq!(status(&first.head()), 200);
    let refused = begin(&site, "a").head();
    assert_eq!((status(&refused), field(&refused, "retry-after")), (429, Some("1")));
    assert_eq!(answer_to(&site, "b"), 200, "another key");
    gate.open();
    assert_eq!(first.exactly(8), "halfrest");
    eventually("its place is free", || answer_to(&site, "a") == 200);
    assert!(site.proxy.telemetry.render().contains("reason=\"TooManyConcurrent\""));
}

#[test]
fn a_client_that_goes_leaves_its_place_at_once() {
    let gate = Gate::default();
    let backend = halting(&gate);
    let site = site(&backend, ONE);
    let mut first = begin(&site, "a");
    assert_eq!(status(&first.head()), 200);
    assert_eq!(answer_to(&site, "a"), 429);
    drop(first);
    eventually("its place is free", || answer_to(&site, "a") == 200);
    gate.open();
}

#[test]
fn an_upgraded_connection_counts_until_it_ends() {
    let backend = RawBackend::start(|mut raw, _| {
        while !raw.head().is_empty() {
            raw.send("HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
            raw.rest();
        }
    });
    let site = site(&backend, ONE);
    let upgrade = || {
        let mut raw = site.proxy.connect();
        raw.send(
            "GET / HTTP/1.1\r\nhost: site.test\r\nx-key: a\r\nconnection: upgrade\r\n\
             upgrade: x\r\n\r\n",
        );
        let head = raw.head();
        (status(&head), raw)
    };
    let (first, tunnel) = upgrade();
    assert_eq!(first, 101);
    assert_eq!(upgrade().0, 429);
    drop(tunnel);
    eventually("its place is free", || upgrade().0 == 101);
}

#[test]
fn counts_outlive_a_change_of_the_configuration() {
    let gate = Gate::default();
    let backend = halting(&gate);
    let site = site(&backend, ONE);
    let mut first = begin(&site, "a");
    assert_eq!(status(&first.head()), 200);
    site.becomes(&["matches.yaml"], &limited(backend.addr, ONE));
    assert_eq!(answer_to(&site, "a"), 429);
    gate.open();
    assert_eq!(first.exactly(8), "halfrest");
    eventually("its place is free", || answer_to(&site, "a") == 200);
}

/// Bytes of a body that passes in about half a second.
const LENGTH: usize = 256 * 1024;
const FAST: &str = "bandwidth: {download: 512Ki, upload: 512Ki, key: [{type: All}]}";
/// What passes at once: 50 ms of the rate, and one part.
const AT_ONCE: usize = 512 * 1024 / 20 + 16 * 1024;

/// Answers with `length` bytes.
fn long(head: &'static str) -> RawBackend {
    RawBackend::start(move |mut raw, _| {
        while !raw.message().is_empty() {
            raw.send(head);
            let _ = raw.stream.write_all(&[b'x'; LENGTH]);
            if head.contains("close") {
                return;
            }
        }
    })
}

/// How long `bytes` take at least.
fn least(bytes: usize) -> Duration {
    Duration::from_secs_f64((bytes - AT_ONCE) as f64 / (512.0 * 1024.0))
}

/// Runs `passing` and holds its time against the rate. Timers are late on a busy machine, so that
/// only the lower bound is strict.
fn timed(bytes: usize, passing: impl FnOnce()) {
    let start = Instant::now();
    passing();
    let took = start.elapsed();
    assert!(took >= least(bytes), "{took:?}");
    assert!(took < SOON, "{took:?}");
}

#[test]
fn a_download_is_as_slow_as_it_should_be_and_all_of_it_comes() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 262144\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
    ] {
        let backend = long(head);
        let site = site(&backend, FAST);
        timed(LENGTH, || {
            let answer = site.get("site.test", "/");
            assert_eq!(status(&answer), 200);
            let body = body(&answer);
            // Chunks have lines of their own where the length is not known before.
            assert_eq!(body.bytes().filter(|byte| *byte == b'x').count(), LENGTH);
        });
    }
}

#[test]
fn downloads_of_one_key_share_their_rate_over_all_workers() {
    let backend = long("HTTP/1.1 200 OK\r\ncontent-length: 262144\r\n\r\n");
    let site = site(&backend, FAST);
    timed(4 * LENGTH, || {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert!(site.get("site.test", "/").len() > LENGTH));
            }
        });
    });
}

#[test]
fn an_upload_is_as_slow_as_it_should_be_and_all_of_it_comes() {
    let backend = RawBackend::echo();
    let site = site(&backend, "bandwidth: {upload: 512Ki}");
    timed(LENGTH, || {
        let mut raw = site.proxy.connect();
        raw.send(&format!(
            "POST / HTTP/1.1\r\nhost: site.test\r\ncontent-length: {LENGTH}\r\n\r\n"
        ));
        let mut sender = raw.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || sender.write_all(&[b'x'; LENGTH]).unwrap());
            let answer = raw.message();
            assert_eq!(status(&answer), 200);
            assert!(answer.ends_with(&"x".repeat(1000)) && answer.len() > LENGTH);
        });
    });
}

#[test]
fn an_http2_client_waits_as_well() {
    let backend = long("HTTP/1.1 200 OK\r\ncontent-length: 262144\r\n\r\n");
    let site = site(&backend, FAST);
    timed(LENGTH, || {
        http2::run(async {
            let (mut client, _) = http2::connect(site.proxy.addr()).await;
            let request = Request::get("http://site.test/").body(()).unwrap();
            let (status, body) = http2::fetch(&mut client, request).await;
            assert_eq!((status.as_u16(), body.len()), (200, LENGTH));
        });
    });
}

#[test]
fn an_upload_from_http2_to_http2_waits_as_well() {
    let (addr, _) = http2::backend(http2::echo);
    let more = limited(addr, FAST).replace(
        "{name: http, port: 80}]}\n---\napiVersion: discovery",
        "{name: http, port: 80, appProtocol: kubernetes.io/h2c}]}\n---\napiVersion: discovery",
    );
    let site = Site::with(&[], &more, |_| {});
    timed(LENGTH, || {
        http2::run(async {
            let (mut client, _) = http2::connect(site.proxy.addr()).await;
            let request = Request::post("http://site.test/").body(()).unwrap();
            let (response, mut stream) = client.send_request(request, false).unwrap();
            stream.send_data(Bytes::from(vec![b'x'; LENGTH]), true).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            let (body, _) = http2::collect(response.into_body()).await;
            assert_eq!(body.len(), LENGTH);
        });
    });
}

#[test]
fn an_upgraded_connection_is_as_slow_as_it_should_be() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.head();
        raw.send("HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
        let _ = raw.stream.write_all(&[b'x'; LENGTH]);
    });
    let site = site(&backend, FAST);
    timed(LENGTH, || {
        let mut raw = site.proxy.connect();
        raw.send("GET / HTTP/1.1\r\nhost: site.test\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
        assert_eq!(status(&raw.head()), 101);
        assert_eq!(raw.rest().len(), LENGTH);
    });
}

#[test]
fn a_client_that_waits_for_its_turn_holds_no_more_than_a_part_and_may_go() {
    let backend = RawBackend::start(|mut raw, _| {
        raw.message();
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n");
        let mut sent = 0;
        raw.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        while let Ok(more) = raw.stream.write(&[b'x'; 16 * 1024]) {
            sent += more;
        }
        // What the kernel's buffers on the way take, and not all of it.
        assert!(sent < 32 * 1024 * 1024, "{sent} bytes were read ahead");
        let _ = raw.stream.read(&mut [0]);
    });
    let site = site(&backend, "bandwidth: {download: 1Ki}");
    let mut raw = site.proxy.connect();
    raw.send("GET / HTTP/1.1\r\nhost: site.test\r\n\r\n");
    assert_eq!(status(&raw.head()), 200);
    drop(raw);
    eventually("the connection is closed", || {
        site.proxy.handle.as_ref().unwrap().connections() == 0
    });
}
