#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::pin::Pin;

use http_body::Body as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{spawn_local, yield_now};

use super::*;
use crate::proxy::http1::encode;
use crate::proxy::incoming::BodyError;
use crate::proxy::timer::timed;

/// More than both sockets' buffers take.
const LARGE: usize = 16 << 20;

struct Head(Method);

impl WriteHead for Head {
    fn method(&self) -> &Method {
        &self.0
    }

    fn write(&self, out: &mut BytesMut, framing: Framing) -> Result<(), Reason> {
        encode::request_head(out, &self.0, "/", &HeaderMap::new(), framing);
        Ok(())
    }
}

const GET: Head = Head(Method::GET);
const POST: Head = Head(Method::POST);

/// Runs `script` with both ends of a new connection.
fn play(script: impl AsyncFnOnce(Conn, TcpStream)) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.unwrap().block_on(timed(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(addr), listener.accept());
        script(Conn::new(Wire::plain(ours.unwrap())), theirs.unwrap().0).await;
    }));
}

async fn send(
    conn: &Conn,
    head: &Head,
    body: RequestBody,
) -> Result<Response<Incoming>, SendError> {
    async { conn.send(head, body, &mut |_, _| {})?.await }.await
}

/// Lets the peer read a request without a body, and say `answer`.
async fn exchange(
    conn: &Conn,
    head: &Head,
    peer: &mut TcpStream,
    answer: &str,
) -> Result<Response<Incoming>, SendError> {
    peer.write_all(answer.as_bytes()).await.unwrap();
    let answer = send(conn, head, RequestBody::Empty).await;
    head_of(peer).await;
    answer
}

async fn head_of(peer: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(peer.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn read(body: &mut Incoming) -> Result<Vec<u8>, BodyError> {
    let mut all = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            all.extend_from_slice(&data);
        }
    }
    Ok(all)
}

/// Waits until the runtime has heard of what the peer did.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[test]
fn a_head_and_a_small_body_are_one_write() {
    play(async |conn, mut peer| {
        peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        let body = RequestBody::Full(Bytes::from_static(b"hello"));
        let answer = send(&conn, &POST, body).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let mut buffer = [0; 1000];
        let read = peer.read(&mut buffer).await.unwrap();
        let text = std::str::from_utf8(&buffer[..read]).unwrap();
        assert_eq!(text, "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello");
    });
}

#[test]
fn a_connection_serves_one_exchange_after_the_other() {
    play(async |conn, mut peer| {
        for (head, answer, body) in [
            (GET, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi"),
            (
                GET,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
                "hi",
            ),
            (Head(Method::HEAD), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", ""),
            (GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n", ""),
            (GET, "HTTP/1.1 204 No Content\r\n\r\n", ""),
            (GET, "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", ""),
        ] {
            let mut response = exchange(&conn, &head, &mut peer, answer).await.unwrap();
            assert_eq!(read(response.body_mut()).await.unwrap(), body.as_bytes(), "{answer:?}");
            assert!(conn.rest() && conn.is_alive() && conn.is_alive_now(), "{answer:?}");
            assert_eq!(conn.inner().io.read.capacity(), 0, "an idle connection has memory");
        }
    });
}

#[test]
fn a_connection_that_one_side_wants_to_close_or_that_said_too_much_is_not_kept() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nx",
        "HTTP/1.1 204 No Content\r\n\r\nhi",
    ] {
        play(async |conn, mut peer| {
            let mut response = exchange(&conn, &GET, &mut peer, answer).await.unwrap();
            read(response.body_mut()).await.unwrap();
            assert!(!conn.rest(), "{answer:?}");
        });
    }
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    play(async |conn, mut peer| {
        let answer = "HTTP/1.1 200 OK\r\n\r\nall of it";
        let mut response = exchange(&conn, &GET, &mut peer, answer).await.unwrap();
        drop(peer);
        assert_eq!(read(response.body_mut()).await.unwrap(), b"all of it");
        assert!(!conn.rest());
    });
}

#[test]
fn what_is_no_answer_is_a_breach_of_the_protocol() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\nx: y\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
    ] {
        play(async |conn, mut peer| {
            let error = exchange(&conn, &GET, &mut peer, answer).await.unwrap_err();
            assert!(matches!(error, SendError::Protocol(_)), "{answer:?}: {error:?}");
        });
    }
}

#[test]
fn a_body_that_breaks_its_framing_or_breaks_off_is_an_error() {
    for (body, is_malformed) in
        [("zz\r\nhi\r\n", true), ("2\r\nhix", true), ("2\r\nhi\r\n", false), ("9\r\nhi", false)]
    {
        play(async |conn, mut peer| {
            let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
            let mut response = exchange(&conn, &GET, &mut peer, &answer).await.unwrap();
            drop(peer);
            let error = read(response.body_mut()).await.unwrap_err();
            assert_eq!(matches!(error, BodyError::Malformed(_)), is_malformed, "{error:?}");
            assert!(!conn.rest());
        });
    }
}

#[test]
fn an_idle_connection_that_is_closed_or_speaks_is_noticed() {
    play(async |conn, peer| {
        assert!(conn.is_alive());
        drop(peer);
        assert!(!conn.is_alive_now(), "the kernel knows at once");
        until(|| !conn.is_alive()).await;
    });
    play(async |conn, mut peer| {
        peer.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        assert!(!conn.is_alive_now());
        until(|| !conn.is_alive()).await;
    });
}

#[test]
fn of_a_connection_that_was_reset_nothing_is_sent() {
    play(async |conn, peer| {
        SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        let error = send(&conn, &POST, RequestBody::Full(Bytes::from_static(b"x"))).await;
        assert!(matches!(error, Err(SendError::Unsent)), "{error:?}");
    });
}

#[test]
fn a_connection_that_ends_before_the_answer_is_broken() {
    for part in ["", "HTTP/1.1 200 O"] {
        play(async |conn, mut peer| {
            peer.write_all(part.as_bytes()).await.unwrap();
            let answer = send(&conn, &GET, RequestBody::Empty);
            let close = async { drop((head_of(&mut peer).await, peer)) };
            let (error, ()) = tokio::join!(answer, close);
            assert!(matches!(error, Err(SendError::Broken(_))), "{part:?}: {error:?}");
        });
    }
}

#[test]
fn interim_answers_are_told_and_counted() {
    play(async |conn, mut peer| {
        let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
                      HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        peer.write_all(answer.as_bytes()).await.unwrap();
        let mut told = Vec::new();
        let mut tell = |status: StatusCode, headers: &HeaderMap| {
            told.push((status.as_u16(), headers.len()));
        };
        let response = conn.send(&GET, RequestBody::Empty, &mut tell).unwrap().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(told, [(100, 0), (103, 1)]);
    });
    let many = "HTTP/1.1 102 Processing\r\n\r\n".repeat(MOST_INTERIM as usize + 1);
    let long = format!("HTTP/1.1 103 Early Hints\r\na: {}\r\n\r\n", "x".repeat(20_000)).repeat(2);
    for flood in [many, long] {
        play(async |conn, mut peer| {
            let error = exchange(&conn, &GET, &mut peer, &flood).await;
            assert!(matches!(error, Err(SendError::Protocol(_))), "{error:?}");
        });
    }
}

#[test]
fn after_a_101_the_connection_is_handed_over_with_what_was_read() {
    play(async |conn, mut peer| {
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                      upgrade: websocket\r\n\r\nfirst bytes";
        let response = exchange(&conn, &GET, &mut peer, answer).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert!(response.body().is_end_stream());
        let (mut wire, read) = conn.into_upgraded().unwrap();
        assert_eq!(&read[..], b"first bytes");
        peer.write_all(b"more").await.unwrap();
        let mut more = [0; 4];
        wire.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"more");
    });
}

#[test]
fn an_answer_before_the_requests_end_lets_the_rest_go_on() {
    play(async |conn, mut peer| {
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
        let body = RequestBody::Full(vec![b'x'; LARGE].into());
        let mut response = send(&conn, &POST, body).await.unwrap();
        assert_eq!(read(response.body_mut()).await.unwrap(), b"hi");
        assert!(!conn.rest(), "the request is still being written");
        head_of(&mut peer).await;
        let mut all = vec![0; LARGE];
        peer.read_exact(&mut all).await.unwrap();
        until(|| conn.inner().is_sent).await;
        assert!(conn.rest());
    });
}

#[test]
fn a_request_ends_with_its_answer() {
    play(async |conn, mut peer| {
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
        let body = RequestBody::Full(vec![b'x'; LARGE].into());
        drop(send(&conn, &POST, body).await.unwrap());
        drop(conn);
        let mut all = Vec::new();
        // The end of the connection is all that the peer hears.
        let _ = peer.read_to_end(&mut all).await;
        assert!(all.len() < LARGE);
    });
}

#[test]
fn an_endpoint_that_takes_no_more_may_have_answered() {
    play(async |conn, mut peer| {
        let task = spawn_local(async move {
            head_of(&mut peer).await;
            peer.write_all(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
            peer.shutdown().await.unwrap();
            yield_now().await;
        });
        let body = RequestBody::Full(vec![b'x'; LARGE].into());
        let mut response = send(&conn, &POST, body).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read(response.body_mut()).await.unwrap(), b"no");
        assert!(!conn.rest());
        task.await.unwrap();
    });
}

#[test]
fn an_echo_of_any_length_does_not_stop() {
    play(async |conn, mut peer| {
        let task = spawn_local(async move {
            head_of(&mut peer).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
            peer.write_all(head.as_bytes()).await.unwrap();
            let (mut from, mut to) = peer.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        let body = RequestBody::Full(vec![b'x'; LARGE].into());
        let mut response = send(&conn, &POST, body).await.unwrap();
        assert_eq!(read(response.body_mut()).await.unwrap().len(), LARGE);
        assert!(conn.rest());
        drop((response, conn));
        task.await.unwrap();
    });
}
