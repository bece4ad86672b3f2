#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::Ipv4Addr;

use http::{HeaderMap, HeaderValue, Method};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::proxy::conn::Timeline;
use crate::proxy::upgrade::OnUpgrade;
use crate::proxy::wire::Wire;

/// A body of these parts.
#[derive(Default)]
struct Parts {
    parts: VecDeque<Frame<Bytes>>,
    length: Option<u64>,
    /// It never ends.
    hangs: bool,
}

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.parts.pop_front() {
            None if self.hangs => Poll::Pending,
            next => Poll::Ready(next.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty() && !self.hangs
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

type Answered = Response<Parts>;

/// An answer whose length is known.
fn text(text: impl Into<Bytes>) -> Answered {
    let bytes = text.into();
    let length = Some(bytes.len() as u64);
    Response::new(Parts { parts: [Frame::data(bytes)].into(), length, hangs: false })
}

/// An answer whose length is not.
fn stream(parts: &[&'static str], trailers: Option<HeaderMap>) -> Answered {
    let mut parts: VecDeque<_> =
        parts.iter().map(|part| Frame::data(Bytes::from_static(part.as_bytes()))).collect();
    parts.extend(trailers.map(Frame::trailers));
    Response::new(Parts { parts, ..Parts::default() })
}

struct Play<F>(F);

impl<F> Service for Play<F>
where
    F: Fn(Request<Incoming>, Lane) -> LocalBoxFuture<'static, Answered>,
{
    type Body = Parts;

    fn call(&self, request: Request<Incoming>, lane: Lane) -> LocalBoxFuture<'static, Answered> {
        self.0(request, lane)
    }

    fn refuse(&self, bad: BadHead) -> Answered {
        let mut answer = text("refused");
        *answer.status_mut() = bad.reason().status();
        answer
    }
}

const LIMITS: head::Limits = head::Limits { head_bytes: 8192, fields: 100, target_bytes: 1024 };

/// A connection that is served by `answer`, and its client.
async fn open<F, A>(answer: F) -> (TcpStream, Connection<impl Service + Unpin>)
where
    F: Fn(Request<Incoming>, Lane) -> A + Unpin + 'static,
    A: Future<Output = Answered> + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let io = Io { wire: Wire::plain(stream), timeline: Timeline::new() };
    let play = Play(move |request, lane| -> LocalBoxFuture<'static, Answered> {
        Box::pin(answer(request, lane))
    });
    (client, Connection::new(io, BytesMut::new(), LIMITS, play))
}

/// What a client gets until its connection ends, which is then served to its end.
async fn talk<F, A>(sent: &str, answer: F) -> String
where
    F: Fn(Request<Incoming>, Lane) -> A + Unpin + 'static,
    A: Future<Output = Answered> + 'static,
{
    let (mut client, connection) = open(answer).await;
    let script = async move {
        client.write_all(sent.as_bytes()).await.unwrap();
        rest(&mut client).await
    };
    let (_, got) = tokio::join!(connection, script);
    got
}

async fn rest(client: &mut TcpStream) -> String {
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.unwrap();
    String::from_utf8(got).unwrap()
}

/// Reads until `end` has come.
async fn until(client: &mut TcpStream, end: &str) -> String {
    let mut got = String::new();
    while !got.ends_with(end) {
        got.push(char::from(client.read_u8().await.unwrap()));
    }
    got
}

async fn whole(body: &mut Incoming) -> Result<Vec<u8>, crate::proxy::incoming::BodyError> {
    use http_body::Body;
    let mut all = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            all.extend_from_slice(&data);
        }
    }
    Ok(all)
}

async fn echo(mut request: Request<Incoming>, _: Lane) -> Answered {
    let body = whole(request.body_mut()).await.unwrap();
    text(format!("{} {}", request.uri().path(), String::from_utf8(body).unwrap()))
}

fn bodies(got: &str) -> Vec<&str> {
    got.split("HTTP/1.").filter_map(|one| Some(one.split_once("\r\n\r\n")?.1)).collect()
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let got = talk(
        "POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\none\
         POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\nx: 1\r\n\r\n\
         \r\nGET /c HTTP/1.1\r\nconnection: close\r\n\r\n",
        echo,
    )
    .await;
    assert_eq!(bodies(&got), ["/a one", "/b two", "/c "]);
    assert_eq!(got.matches("connection: close").count(), 1);
}

#[tokio::test]
async fn a_client_may_end_its_side_after_pipelined_requests() {
    let (mut client, connection) = open(echo).await;
    let script = async move {
        let one = "GET /a HTTP/1.1\r\n\r\n";
        client.write_all(one.repeat(3).as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        rest(&mut client).await
    };
    let (ended, got) = tokio::join!(connection, script);
    assert!(ended.is_ok());
    assert_eq!(bodies(&got).len(), 3);
}

#[tokio::test]
async fn a_head_that_is_refused_is_answered_and_nothing_after_it_is() {
    let got = talk("GET / HTTP/1.1\r\na : b\r\n\r\nGET / HTTP/1.1\r\n\r\n", echo);
    let got = got.await;
    assert!(got.starts_with("HTTP/1.1 400 "), "{got}");
    assert!(got.contains("connection: close\r\n"), "{got}");
    assert_eq!(bodies(&got), ["refused"]);
}

#[tokio::test]
async fn an_answer_of_unknown_length_is_chunked_or_ends_with_the_connection() {
    let answer = async |_: Request<Incoming>, _: Lane| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        stream(&["one", "", "two"], Some(trailers))
    };
    let get = |head| talk(head, answer);
    let old = get("GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 ") && !old.contains("chunked"), "{old}");
    assert_eq!(bodies(&old), ["onetwo"]);
    let new = get("GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert_eq!(bodies(&new), ["3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"]);
    let takes = get("GET / HTTP/1.1\r\nte: gzip, trailers\r\nconnection: close\r\n\r\n").await;
    assert_eq!(bodies(&takes), ["3\r\none\r\n3\r\ntwo\r\n0\r\nx-sum: 7\r\n\r\n"]);
}

#[tokio::test]
async fn head_and_not_modified_have_no_body_but_may_tell_its_length() {
    let answer = async |request: Request<Incoming>, _: Lane| {
        let mut answer = Response::new(Parts::default());
        if request.method() != Method::HEAD {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        answer.headers_mut().insert("content-length", HeaderValue::from_static("9"));
        answer
    };
    let got = talk("HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n", answer).await;
    assert_eq!(got.matches("content-length: 9\r\n").count(), 2, "{got}");
    assert_eq!(bodies(&got), ["", ""]);
}

#[tokio::test]
async fn the_client_is_told_to_continue_when_its_body_is_wanted() {
    let (mut client, connection) = open(echo).await;
    let script = async move {
        let head = "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hi").await.unwrap();
        until(&mut client, "/ hi").await;
        drop(client);
    };
    let (ended, ()) = tokio::join!(connection, script);
    assert!(ended.is_ok());
}

#[tokio::test]
async fn after_an_answer_instead_of_continue_the_connection_is_closed() {
    let refuse = async |_: Request<Incoming>, _: Lane| text("no");
    let head = "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    let got = talk(head, refuse).await;
    assert!(got.starts_with("HTTP/1.1 200 ") && got.contains("connection: close\r\n"), "{got}");
}

#[tokio::test]
async fn a_short_body_that_nobody_wants_is_passed_over() {
    let refuse = async |_: Request<Incoming>, _: Lane| text("no");
    let post = format!("POST / HTTP/1.1\r\ncontent-length: 4000\r\n\r\n{}", "x".repeat(4000));
    let got = talk(&format!("{post}GET / HTTP/1.1\r\nconnection: close\r\n\r\n"), refuse).await;
    assert_eq!(bodies(&got), ["no", "no"]);
}

#[tokio::test]
async fn a_client_that_still_sends_gets_the_whole_answer_before_the_end() {
    let (mut client, connection) =
        open(async |_: Request<Incoming>, _: Lane| text(vec![b'a'; 100_000])).await;
    let script = async move {
        let head = "POST / HTTP/1.1\r\ncontent-length: 1000000000\r\n\r\n";
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![b'x'; 150_000]).await.unwrap();
        let got = rest(&mut client).await;
        // The other side has ended its own only.
        client.write_all(&[b'x'; 10_000]).await.unwrap();
        drop(client);
        got
    };
    let (ended, got) = tokio::join!(connection, script);
    assert!(ended.is_ok());
    assert!(got.contains("connection: close\r\n"));
    assert_eq!(bodies(&got)[0].len(), 100_000);
}

#[tokio::test]
async fn interim_answers_come_before_the_final_one_and_never_after_it() {
    let kept: Rc<Cell<Option<super::super::Interim>>> = Rc::default();
    let late = Rc::clone(&kept);
    let answer = move |_: Request<Incoming>, lane: Lane| {
        let late = Rc::clone(&late);
        async move {
            if let Some(late) = late.take() {
                late.send(StatusCode::EARLY_HINTS, &HeaderMap::new());
            }
            if let Some(interim) = lane.into_interim() {
                let mut fields = HeaderMap::new();
                fields.insert("link", HeaderValue::from_static("</a.css>"));
                interim.send(StatusCode::EARLY_HINTS, &fields);
                interim.send(StatusCode::CONTINUE, &fields);
                late.set(Some(interim));
            }
            text("done")
        }
    };
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n";
    let got = talk("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n", answer).await;
    assert!(got.starts_with(hints), "{got}");
    assert_eq!(got.matches("HTTP/1.").count(), 3, "{got}");
}

#[tokio::test]
async fn a_connection_that_changes_its_protocol_takes_along_what_was_read() {
    let upgraded: Rc<Cell<Option<OnUpgrade>>> = Rc::default();
    let to = Rc::clone(&upgraded);
    let answer = move |_: Request<Incoming>, lane: Lane| {
        to.set(lane.on_upgrade());
        let mut answer = Response::new(Parts::default());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        std::future::ready(answer)
    };
    let (mut client, connection) = open(answer).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\nearly").await.unwrap();
    connection.await.unwrap();
    let head = until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("connection: upgrade\r\n"));
    assert!(!head.contains("length"), "{head}");
    let mut other = upgraded.take().unwrap().upgraded().await.unwrap();
    client.write_all(b" and late").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = String::new();
    other.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "early and late");
    other.write_all(b"bye").await.unwrap();
    drop(other);
    assert_eq!(rest(&mut client).await, "bye");
}

#[tokio::test]
async fn an_exchange_whose_client_is_gone_is_dropped() {
    struct Noted(Rc<Cell<bool>>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let gone = Rc::new(Cell::new(false));
    let noted = Rc::clone(&gone);
    let answer = move |_: Request<Incoming>, _: Lane| {
        let noted = Noted(Rc::clone(&noted));
        async move {
            pending::<()>().await;
            drop(noted);
            text("")
        }
    };
    let (mut client, mut connection) = open(answer).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    drop(client);
    let ended = poll_fn(|cx| Pin::new(&mut connection).poll(cx)).await;
    assert!(matches!(ended, Err(Ended::Gone)) && !gone.get());
    drop(connection);
    assert!(gone.get());
}

#[tokio::test]
async fn a_body_that_is_cut_short_or_malformed_is_no_whole_one() {
    use crate::proxy::incoming::BodyError::{Gone, Malformed};
    let answer =
        async |mut request: Request<Incoming>, _: Lane| match whole(request.body_mut()).await {
            Err(Malformed(_)) => text("malformed"),
            Err(Gone) => text("gone"),
            Ok(_) => text("whole"),
        };
    let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    let got = talk(&format!("{chunked}zz\r\nGET / HTTP/1.1\r\n\r\n"), answer).await;
    assert_eq!(bodies(&got), ["malformed"]);
    let (mut client, connection) = open(answer).await;
    let script = async move {
        client.write_all(format!("{chunked}5\r\nhel").as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        rest(&mut client).await
    };
    let (_, got) = tokio::join!(connection, script);
    assert_eq!(bodies(&got), ["gone"]);
}

#[tokio::test]
async fn an_answer_that_is_not_as_long_as_it_says_is_cut() {
    for parts in [&["12"][..], &["12", "34"]] {
        let answer = async move |_: Request<Incoming>, _: Lane| {
            stream(parts, None).map(|body| Parts { length: Some(3), ..body })
        };
        let (mut client, connection) = open(answer).await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(matches!(connection.await, Err(Ended::BrokenOff(BrokenOff::Length))));
        assert_eq!(bodies(&rest(&mut client).await), ["12"]);
    }
}

#[tokio::test]
async fn a_connection_that_leaves_ends_at_once_or_with_the_answer_that_is_due() {
    let (client, mut idle) = open(echo).await;
    let waits = poll_fn(|cx| Poll::Ready(Pin::new(&mut idle).poll(cx).is_pending())).await;
    assert!(waits);
    idle.leave();
    idle.await.unwrap();
    drop(client);
    let (mut client, mut busy) = open(echo).await;
    let both = "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n";
    client.write_all(both.as_bytes()).await.unwrap();
    tokio::select! {
        biased;
        _ = &mut busy => panic!("the second answer is due"),
        _ = until(&mut client, "/ ") => busy.leave(),
    }
    let script = async move {
        client.write_all(b"hi").await.unwrap();
        rest(&mut client).await
    };
    let (_, got) = tokio::join!(busy, script);
    assert!(got.contains("connection: close\r\n") && got.ends_with("/ hi"), "{got}");
}

#[tokio::test]
async fn an_idle_connection_holds_no_memory() {
    let (mut client, mut connection) = open(echo).await;
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        tokio::select! {
            biased;
            _ = &mut connection => panic!("the client is there"),
            got = until(&mut client, "/ ") => assert!(got.contains("200 OK")),
        }
        poll_fn(|cx| Poll::Ready(Pin::new(&mut connection).poll(cx).is_pending())).await;
        let inner = connection.shared.inner();
        let wire = inner.wire.as_ref().unwrap();
        assert_eq!((wire.read.capacity(), wire.write.capacity()), (0, 0));
    }
    assert!(size_of_val(&connection) <= 256, "{}", size_of_val(&connection));
}
