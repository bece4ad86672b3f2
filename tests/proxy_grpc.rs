//! gRPC through the proxy: streams in both directions, trailers, deadlines, and our own errors
//! in gRPC's way.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason as H2Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use support::http2::*;
use support::*;
use tidegate::graph::{BackendProtocol, Retry, RouteGraph, Timeouts};
use tokio::time::sleep;

fn call(path: &str) -> http::request::Builder {
    Request::post(format!("http://a.test{path}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
}

fn graph(to: &[SocketAddr], timeouts: Timeouts) -> RouteGraph {
    let mut graph = Graph::http(free_port());
    let id = graph.backend("grpc", BackendProtocol::H2c, to);
    let mut rule = forward(id);
    rule.timeouts = timeouts;
    graph.rule("/svc", rule);
    graph.builder.build()
}

/// The head of an answer that is also its trailers.
async fn error(client: &mut SendRequest<Bytes>, request: Request<()>) -> (StatusCode, HeaderMap) {
    let (response, _) = client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert!(response.body().is_end_stream(), "one frame tells it all");
    (response.status(), response.headers().clone())
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("x-detail", HeaderValue::from_static("kept"));
    trailers
}

#[test]
fn our_own_errors_are_statuses_of_the_call() {
    let proxy = Proxy::start(graph(&[dead_endpoint()], Timeouts::default()));
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        let (status, fields) = error(&mut client, call("/elsewhere").body(()).unwrap()).await;
        assert_eq!((status, &fields["grpc-status"]), (StatusCode::OK, &"12".parse().unwrap()));
        assert_eq!(fields["content-type"], "application/grpc");
        assert_eq!(fields["grpc-message"], "NoRoute");
        let (status, fields) = error(&mut client, call("/svc/m").body(()).unwrap()).await;
        assert_eq!((status, &fields["grpc-status"]), (StatusCode::OK, &"14".parse().unwrap()));
        let plain = Request::get("http://a.test/elsewhere").body(()).unwrap();
        assert_eq!(fetch(&mut client, plain).await.0, 404, "others get HTTP");
    });
}

#[test]
fn a_deadline_is_that_of_the_rule_or_of_the_client_whichever_ends_first() {
    let (addr, _) =
        backend(|request: Request<RecvStream>, mut respond: SendResponse<Bytes>| async move {
            assert_eq!(request.headers()["grpc-timeout"], "200m", "the backend knows it too");
            sleep(Duration::from_secs(3)).await;
            let _ = respond.send_response(head(), true);
        });
    let long = Some(Duration::from_secs(60));
    let proxy = Proxy::start(graph(&[addr], Timeouts { request: long, ..Timeouts::default() }));
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        let request = call("/svc/m").header("grpc-timeout", "200m").body(()).unwrap();
        let (status, fields) = error(&mut client, request).await;
        assert_eq!((status, &fields["grpc-status"]), (StatusCode::OK, &"4".parse().unwrap()));
    });
}

/// Answers each message at once, until the client has no more.
async fn ping_pong(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    assert_eq!(request.headers()["te"], "trailers");
    let mut stream = respond.send_response(head(), false).unwrap();
    let mut body = request.into_body();
    while let Some(message) = body.data().await {
        let message = message.unwrap();
        body.flow_control().release_capacity(message.len()).unwrap();
        stream.send_data(message, false).unwrap();
    }
    stream.send_trailers(trailers("5")).unwrap();
}

#[test]
fn messages_go_both_ways_while_the_call_is_open_and_trailers_end_it() {
    let (addr, _) = backend(ping_pong);
    let proxy = Proxy::start(graph(&[addr], Timeouts::default()));
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        let (response, mut up) =
            client.send_request(call("/svc/m").body(()).unwrap(), false).unwrap();
        let mut down = response.await.unwrap().into_body();
        for round in 0..20_u8 {
            up.send_data(Bytes::from(vec![round; 100]), false).unwrap();
            let mut got = Vec::new();
            while got.len() < 100 {
                let part = down.data().await.unwrap().unwrap();
                down.flow_control().release_capacity(part.len()).unwrap();
                got.extend_from_slice(&part);
            }
            assert_eq!(got, vec![round; 100]);
        }
        up.send_data(Bytes::new(), true).unwrap();
        assert!(down.data().await.is_none());
        let end = down.trailers().await.unwrap().unwrap();
        assert_eq!(
            (&end["grpc-status"], &end["x-detail"]),
            (&"5".parse().unwrap(), &"kept".parse().unwrap())
        );
    });
}

/// Sends a part of an answer, then breaks off as `how` says.
async fn breaks_off(mut respond: SendResponse<Bytes>, how: Option<H2Reason>) {
    let mut stream = respond.send_response(head(), false).unwrap();
    stream.send_data(Bytes::from_static(b"part"), false).unwrap();
    sleep(Duration::from_millis(100)).await;
    match how {
        Some(reason) => stream.send_reset(reason),
        None => sleep(Duration::from_secs(5)).await,
    }
}

#[test]
fn a_call_that_breaks_off_ends_with_a_status() {
    let (addr, _) = backend(|request: Request<RecvStream>, respond| {
        let reset = request.uri().path() == "/svc/reset";
        breaks_off(respond, reset.then_some(H2Reason::INTERNAL_ERROR))
    });
    let short = Some(Duration::from_millis(400));
    let proxy = Proxy::start(graph(&[addr], Timeouts { request: short, ..Timeouts::default() }));
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        for (path, status) in [("/svc/reset", "14"), ("/svc/silent", "4")] {
            let (response, _) = client.send_request(call(path).body(()).unwrap(), true).unwrap();
            let (body, trailers) = collect(response.await.unwrap().into_body()).await;
            assert_eq!(
                (&body[..], &trailers.unwrap()["grpc-status"]),
                (&b"part"[..], &status.parse().unwrap())
            );
        }
    });
}

#[test]
fn a_call_that_the_backend_refuses_at_once_is_made_again() {
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&count);
    let (addr, _) = backend(move |request, mut respond| {
        let first = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        async move {
            if first {
                let mut refused = head();
                refused.headers_mut().insert("grpc-status", HeaderValue::from_static("14"));
                respond.send_response(refused, true).unwrap();
                return;
            }
            ping_pong(request, respond).await;
        }
    });
    let mut graph = graph(&[addr], Timeouts::default());
    let backoff = Duration::from_millis(1);
    graph.rules[0].retry = Some(Retry { codes: Vec::new(), attempts: 1, backoff });
    let proxy = Proxy::start(graph);
    run(async {
        let (mut client, _ended) = connect(proxy.addr()).await;
        let (response, mut up) =
            client.send_request(call("/svc/m").body(()).unwrap(), false).unwrap();
        up.send_data(Bytes::from_static(b"hello"), true).unwrap();
        let (body, trailers) = collect(response.await.unwrap().into_body()).await;
        assert_eq!(
            (&body[..], &trailers.unwrap()["grpc-status"]),
            (&b"hello"[..], &"5".parse().unwrap())
        );
    });
}
