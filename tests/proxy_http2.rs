//! HTTP/2 on either side.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::SendRequest;
use h2::ext::Protocol;
use http::{HeaderMap, Method, Request, StatusCode};
use support::http2::*;
use support::*;
use tidegate::graph::{BackendProtocol, BackendTls, Roots};
use tidegate::lifecycle::Phase;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

fn h2c(addr: SocketAddr) -> tidegate::graph::RouteGraph {
    let mut graph = Graph::http(free_port());
    let id = graph.backend("h2c", BackendProtocol::H2c, &[addr]);
    graph.rule("/", forward(id));
    graph.builder.build()
}

#[test]
fn a_client_with_prior_knowledge_reaches_an_http_1_backend() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        let mut request = get("/x/../y?q=1");
        request.headers_mut().append("cookie", "a=1".parse().unwrap());
        request.headers_mut().append("cookie", "b=2".parse().unwrap());
        let (status, seen) = fetch(&mut client, request).await;
        assert_eq!(status, 200);
        assert!(seen.starts_with("GET /y?q=1 HTTP/1.1\r\n"), "{seen}");
        assert_eq!(field(&seen, "host"), Some("a.test"));
        assert_eq!(field(&seen, "cookie"), Some("a=1; b=2"));
        assert_eq!(field(&seen, "transfer-encoding"), None);
    });
}

#[test]
fn bodies_and_trailers_pass_from_http_2_to_http_2() {
    let (addr, connections) = backend(echo);
    let proxy = Proxy::start_with(h2c(addr), |config| config.workers = 1);
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        for _ in 0..3 {
            let request =
                Request::post("http://a.test/grpc").header("te", "trailers").body(()).unwrap();
            let (response, mut stream) = client.send_request(request, false).unwrap();
            stream.send_data("hello".into(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-check", "1".parse().unwrap());
            trailers.insert("authorization", "evil".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.headers()["x-path"], "/grpc");
            assert_eq!(response.headers()["x-authority"], "a.test");
            assert_eq!(response.headers()["x-scheme"], "http");
            let (body, trailers) = collect(response.into_body()).await;
            let trailers = trailers.unwrap();
            assert_eq!(body, b"hello");
            assert_eq!(
                (&trailers["grpc-status"], &trailers["x-check"]),
                (&"0".parse().unwrap(), &"1".parse().unwrap())
            );
            assert!(!trailers.contains_key("authorization"));
        }
    });
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn an_http_1_client_reaches_an_http_2_backend() {
    let (addr, _) = backend(echo);
    let proxy = Proxy::start(h2c(addr));
    let mut client = proxy.connect();
    client.send("POST /p HTTP/1.1\r\nhost: b.test:81\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    let response = client.rest();
    assert_eq!(status(&response), 200);
    assert_eq!(field(&response, "x-authority"), Some("b.test:81"));
    assert!(body(&response).contains("hi"), "{response}");
}

#[test]
fn streams_beyond_the_cap_of_a_connection_get_another_one() {
    let (addr, connections) = backend(|request, respond| async {
        sleep(Duration::from_millis(200)).await;
        echo(request, respond).await;
    });
    let proxy = Proxy::start_with(h2c(addr), |config| {
        config.workers = 1;
        config.limits.pool_streams = 10;
    });
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        let mut waiting = Vec::new();
        for n in 0..30 {
            client = client.ready().await.unwrap();
            waiting.push(client.send_request(get(&format!("/{n}")), true).unwrap().0);
        }
        for response in waiting {
            assert_eq!(response.await.unwrap().status(), 200);
        }
    });
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[test]
fn heads_that_break_the_rules_are_refused_and_the_connection_goes_on() {
    let backend = RawBackend::echo();
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        let mut other_host = get("/");
        other_host.headers_mut().insert("host", "evil.test".parse().unwrap());
        assert_eq!(
            fetch(&mut client, other_host).await,
            (StatusCode::BAD_REQUEST, "InvalidHost\n".into())
        );
        let mut crumbs = get("/");
        for _ in 0..101 {
            crumbs.headers_mut().append("cookie", "a=b".parse().unwrap());
        }
        assert_eq!(fetch(&mut client, crumbs).await.1, "HeadTooLarge\n");
        let connect =
            Request::builder().method(Method::CONNECT).uri("a.test:443").body(()).unwrap();
        assert_eq!(fetch(&mut client, connect).await.0, StatusCode::NOT_IMPLEMENTED);
        assert_eq!(fetch(&mut client, get("/")).await.0, StatusCode::OK);
    });
}

#[test]
fn http_2_is_chosen_by_alpn_on_both_sides() {
    let pair = certificate(&["a.test"]);
    let plain = RawBackend::echo();
    let behind =
        Proxy::start(Graph::with(free_port(), tls(&[("a.test", &pair)])).all_to(&[plain.addr]));
    let roots = Roots::pem(pair.0.as_bytes()).unwrap();
    let to_behind = Arc::new(BackendTls::new("a.test", &roots, true).unwrap());
    let mut graph = Graph::with(free_port(), tls(&[("a.test", &pair)]));
    let id = graph.backend("tls", BackendProtocol::Tls(Arc::clone(&to_behind)), &[behind.addr()]);
    graph.rule("/", forward(id));
    let proxy = Proxy::start(graph.builder.build());
    run(async {
        let tcp = TcpStream::connect(proxy.addr()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&to_behind.config));
        let stream = connector.connect(to_behind.server_name.clone(), tcp).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let request = Request::get("https://a.test/x").body(()).unwrap();
        let (status, seen) = fetch(&mut client, request).await;
        assert_eq!(status, 200);
        assert_eq!(field(&seen, "x-forwarded-proto"), Some("https"));
        let request = Request::get("https://b.test/x").body(()).unwrap();
        assert_eq!(fetch(&mut client, request).await.0, 200, "one section for all hosts");
    });
}

#[test]
fn a_web_socket_of_http_2_becomes_one_of_http_1() {
    let backend = RawBackend::start(|mut raw, _| {
        let head = raw.head();
        assert!(head.starts_with("GET /ws HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "upgrade"), Some("websocket"));
        assert_eq!(field(&head, "sec-websocket-key").map(str::len), Some(24));
        raw.send(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: x\r\n\r\nwelcome",
        );
        assert_eq!(raw.exactly(4), "ping");
        raw.send("pong");
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        // The server's settings allow it once they have arrived.
        fetch_settings(&mut client).await;
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://a.test/ws")
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let (response, mut stream): (_, SendStream<Bytes>) =
            client.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        stream.send_data("ping".into(), false).unwrap();
        let (body, _) = collect(response.into_body()).await;
        assert_eq!(body, b"welcomepong");
    });
}

#[test]
fn a_web_socket_of_http_1_becomes_one_of_http_2() {
    let (addr, _) = serving(
        |request, mut respond| async move {
            assert_eq!(request.method(), Method::CONNECT);
            assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
            assert_eq!(request.uri().path(), "/ws");
            assert_eq!(request.headers()["sec-websocket-version"], "13");
            assert!(!request.headers().contains_key("sec-websocket-key"));
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            stream.send_data("welcome".into(), false).unwrap();
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                stream.send_data(data.unwrap(), false).unwrap();
            }
            stream.send_data("bye".into(), true).unwrap();
        },
        |builder| _ = builder.enable_connect_protocol(),
    );
    let proxy = Proxy::start(h2c(addr));
    let mut client = proxy.connect();
    client.send(
        "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let head = client.head();
    assert_eq!(status(&head), 101);
    assert_eq!(field(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(client.exactly(7), "welcome");
    client.send("ping");
    assert_eq!(client.exactly(4), "ping");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "bye");
}

#[test]
fn an_http_2_backend_that_knows_no_web_sockets_is_not_asked() {
    let (addr, _) = backend(|_, _| async { panic!("it gets no request") });
    let proxy = Proxy::start(h2c(addr));
    let response = proxy.exchange(
        "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, close\r\nupgrade: websocket\r\n\r\n",
    );
    assert_eq!((status(&response), body(&response)), (501, "MethodNotImplemented\n"));
}

async fn fetch_settings(client: &mut SendRequest<Bytes>) {
    while !client.is_extended_connect_protocol_enabled() {
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn while_leaving_a_client_is_told_to_go_and_its_streams_are_finished() {
    let backend = RawBackend::start(|mut raw, _| {
        while !raw.message().is_empty() {
            thread::sleep(Duration::from_millis(500));
            raw.send(&ok("done"));
        }
    });
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.limits.move_after = Duration::from_millis(50);
    });
    run(async {
        let (mut client, ended) = connect(proxy.addr()).await;
        let (held, _) = client.send_request(get("/"), true).unwrap();
        sleep(Duration::from_millis(100)).await;
        proxy.lifecycle.advance(Phase::Leaving);
        sleep(Duration::from_millis(200)).await;
        assert!(client.clone().ready().await.is_err(), "no GOAWAY came");
        let response = held.await.unwrap();
        assert_eq!(collect(response.into_body()).await.0, b"done");
        ended.await.unwrap();
        // A new connection is still served.
        let (mut client, _ended) = connect(proxy.addr()).await;
        assert_eq!(fetch(&mut client, get("/")).await.1, "done");
    });
}

#[test]
fn a_stream_whose_client_takes_nothing_is_reset_and_the_others_go_on() {
    let backend = RawBackend::start(|mut raw, _| {
        while let request = raw.message()
            && !request.is_empty()
        {
            let size = if request.starts_with("GET /big") { 10_000_000 } else { 2 };
            if raw.stream.write_all(ok(&"x".repeat(size)).as_bytes()).is_err() {
                return;
            }
        }
    });
    let proxy = Proxy::start_with(Graph::http(free_port()).all_to(&[backend.addr]), |config| {
        config.limits.write_stall = Duration::from_millis(300);
    });
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        let (response, _) = client.send_request(get("/big"), true).unwrap();
        let mut stalled = response.await.unwrap().into_body();
        let mut error = None;
        while error.is_none() {
            assert_eq!(fetch(&mut client, get("/small")).await.1, "xx");
            sleep(Duration::from_millis(50)).await;
            // Taken, but the window is never opened again.
            while let Ok(Some(chunk)) = timeout(Duration::from_millis(10), stalled.data()).await {
                error = chunk.err();
                if error.is_some() {
                    break;
                }
            }
        }
        assert_eq!(error.unwrap().reason(), Some(h2::Reason::CANCEL));
        assert_eq!(fetch(&mut client, get("/small")).await.1, "xx");
    });
}

#[test]
fn a_client_that_resets_its_stream_frees_the_backend() {
    let freed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&freed);
    let backend = RawBackend::start(move |mut raw, _| {
        raw.message();
        assert_eq!(raw.rest(), "");
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let proxy = Proxy::start(Graph::http(free_port()).all_to(&[backend.addr]));
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        let (response, mut stream) = client.send_request(get("/"), true).unwrap();
        sleep(Duration::from_millis(100)).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        while freed.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    });
}
