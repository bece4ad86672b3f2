//! Readings of the same bytes by different parsers: whole messages, up to the first fault.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use http_parser::ParseAction;
use http_parser::{CallbackResult, HttpMethod, HttpParser, HttpParserCallback, HttpParserType};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tidegate::proxy::http1::encode;
use tidegate::proxy::http1::framing::{Decoded, Decoder, Framing};
use tidegate::proxy::http1::head::{self, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const LIMITS: Limits = Limits { head_bytes: 32 * 1024, fields: 100, target_bytes: 16 * 1024 };

/// A request as far as framing and routing go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
}

/// A final response.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub fields: usize,
    pub body: Vec<u8>,
}

/// The requests that our codec reads, as a server would.
pub fn by_us(input: &[u8]) -> Vec<Message> {
    let mut buf = BytesMut::from(input);
    let mut found = Vec::new();
    while let Ok(Some(head)) = head::request(&mut buf, &LIMITS) {
        let Some(body) = body(head.framing, &mut buf) else { break };
        let target = head.parts.uri.to_string();
        found.push(Message { method: head.parts.method.to_string(), target, body });
        if !head.keep_alive || head.parts.method == Method::CONNECT {
            break;
        }
    }
    found
}

/// The whole body, or nothing if it breaks or is not all there.
fn body(framing: Framing, buf: &mut BytesMut) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(framing);
    let mut body = Vec::new();
    loop {
        match decoder.decode(buf).ok()? {
            Decoded::Data(piece) => body.extend_from_slice(&piece),
            Decoded::Trailers(_) => {}
            Decoded::NeedMore => decoder.at_eof().ok()?,
            Decoded::Done => return Some(body),
        }
    }
}

/// The final response that our codec reads, as a client would.
pub fn response_by_us(input: &[u8], method: &Method) -> Option<Answer> {
    let mut buf = BytesMut::from(input);
    loop {
        let head = head::response(&mut buf, method, &LIMITS).ok()??;
        let status = head.parts.status;
        if status.is_informational() && status != http::StatusCode::SWITCHING_PROTOCOLS {
            continue;
        }
        let body = body(head.framing, &mut buf)?;
        return Some(Answer { status: status.as_u16(), fields: head.parts.headers.len(), body });
    }
}

/// A request as we send it on: as a chunked one if it has a body.
pub fn written(request: &Message) -> Vec<u8> {
    let mut out = BytesMut::new();
    let headers = HeaderMap::from_iter([(http::header::HOST, "a".parse().unwrap())]);
    let method: Method = request.method.parse().unwrap();
    let framing = if request.body.is_empty() { Framing::Empty } else { Framing::Chunked };
    encode::request_head(&mut out, &method, &request.target, &headers, framing);
    if !request.body.is_empty() {
        encode::chunk_head(&mut out, request.body.len());
        out.extend_from_slice(&request.body);
        out.extend_from_slice(encode::CHUNK_END);
        encode::last_chunk(&mut out, None);
    }
    out.to_vec()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Both ends of a connection in memory; the far one has sent `input` and its end.
async fn connected(input: &[u8]) -> (DuplexStream, DuplexStream) {
    let (near, mut far) = tokio::io::duplex(1024 * 1024);
    far.write_all(input).await.unwrap();
    far.shutdown().await.unwrap();
    (near, far)
}

/// The requests that hyper's server reads.
pub fn by_hyper(input: &[u8]) -> Vec<Message> {
    let found = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn({
        let found = Rc::clone(&found);
        move |request: Request<Incoming>| {
            let found = Rc::clone(&found);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes().to_vec();
                let (method, target) = (parts.method.to_string(), parts.uri.to_string());
                found.borrow_mut().push(Message { method, target, body });
                Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
            }
        }
    });
    run(async {
        let (near, mut far) = connected(input).await;
        let mut builder = hyper::server::conn::http1::Builder::new();
        let connection = builder.half_close(true).serve_connection(TokioIo::new(near), service);
        let mut answers = Vec::new();
        let (ended, _) = tokio::join!(connection, far.read_to_end(&mut answers));
        drop(ended);
    });
    found.take()
}

/// The final response that hyper's client reads.
pub fn by_hyper_client(input: &[u8], method: &Method) -> Option<Answer> {
    run(async {
        let (near, mut far) = tokio::io::duplex(1024 * 1024);
        let backend = async {
            let mut request = [0; 1024];
            let _ = far.read(&mut request).await;
            let _ = far.write_all(input).await;
            let _ = far.shutdown().await;
        };
        let client = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(near)).await.ok()?;
            let request = Request::builder().method(method).uri("/").header("host", "a");
            let answer = async {
                let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
                let (parts, body) = answer.await.ok()?.into_parts();
                let body = body.collect().await.ok()?.to_bytes().to_vec();
                let (status, fields) = (parts.status.as_u16(), parts.headers.len());
                Some(Answer { status, fields, body })
            };
            tokio::join!(connection, answer).1
        };
        tokio::join!(backend, client).1
    })
}

/// The requests that a port of Node's former parser reads.
pub fn by_http_parser(input: &[u8]) -> Vec<Message> {
    #[derive(Default)]
    struct Seen {
        now: Option<Message>,
        found: Vec<Message>,
    }
    impl Seen {
        fn now(&mut self) -> &mut Message {
            let empty = || Message { method: String::new(), target: String::new(), body: vec![] };
            self.now.get_or_insert_with(empty)
        }
    }
    impl HttpParserCallback for Seen {
        fn on_url(&mut self, _: &mut HttpParser, data: &[u8]) -> CallbackResult {
            self.now().target.push_str(&String::from_utf8_lossy(data));
            Ok(ParseAction::None)
        }
        fn on_headers_complete(&mut self, parser: &mut HttpParser) -> CallbackResult {
            self.now().method = parser.method.map(name_of).unwrap_or_default();
            Ok(ParseAction::None)
        }
        fn on_body(&mut self, _: &mut HttpParser, data: &[u8]) -> CallbackResult {
            self.now().body.extend_from_slice(data);
            Ok(ParseAction::None)
        }
        fn on_message_complete(&mut self, _: &mut HttpParser) -> CallbackResult {
            let message = self.now.take();
            self.found.extend(message);
            Ok(ParseAction::None)
        }
    }
    let mut seen = Seen::default();
    HttpParser::new(HttpParserType::Request).execute(&mut seen, input);
    seen.found
}

fn name_of(method: HttpMethod) -> String {
    method.to_string()
}
