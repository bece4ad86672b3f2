//! Clients and backends that speak HTTP/2, for tests that look at frames and not at bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::SOON;

pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(SOON, test).await.expect("the test takes too long") })
}

/// A connection with prior knowledge; the handle tells when it ended.
pub async fn connect(addr: SocketAddr) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let tcp = TcpStream::connect(addr).await.unwrap();
    // Room for more than one stream, so that a stalled one does not hold up the others.
    let (client, connection) = h2::client::Builder::new()
        .initial_connection_window_size(1 << 20)
        .handshake(tcp)
        .await
        .unwrap();
    let ended = tokio::spawn(async move {
        let _ = connection.await;
    });
    (client.ready().await.unwrap(), ended)
}

pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.test{path}")).body(()).unwrap()
}

/// The body and the trailers.
pub async fn collect(mut body: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        all.extend_from_slice(&chunk);
    }
    (all, body.trailers().await.unwrap())
}

pub async fn fetch(client: &mut SendRequest<Bytes>, request: Request<()>) -> (StatusCode, String) {
    let (response, _) = client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    let status = response.status();
    (status, String::from_utf8(collect(response.into_body()).await.0).unwrap())
}

/// An HTTP/2 backend: `serve` gets each request.
pub fn backend<F>(
    serve: impl Fn(Request<RecvStream>, h2::server::SendResponse<Bytes>) -> F + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    serving(serve, |_| {})
}

/// The same, with settings of its own.
pub fn serving<F>(
    serve: impl Fn(Request<RecvStream>, h2::server::SendResponse<Bytes>) -> F + Send + Sync + 'static,
    set: impl FnOnce(&mut h2::server::Builder),
) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    set(&mut builder);
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    socket.set_nonblocking(true).unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (counted, serve) = (Arc::clone(&connections), Arc::new(serve));
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(socket).unwrap();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let (serve, builder) = (Arc::clone(&serve), builder.clone());
                tokio::spawn(async move {
                    let mut connection = builder.handshake(tcp).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(request, respond));
                    }
                });
            }
        });
    });
    (addr, connections)
}

/// Sends back the body, and as trailers the fields that the request's trailers had.
pub async fn echo(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let path = request.uri().path().to_owned();
    let authority = request.uri().authority().unwrap().to_string();
    let scheme = request.uri().scheme_str().unwrap().to_owned();
    let (body, trailers) = collect(request.into_body()).await;
    let response = Response::builder()
        .header("x-path", path)
        .header("x-authority", authority)
        .header("x-scheme", scheme)
        .body(())
        .unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    stream.send_data(body.into(), false).unwrap();
    let mut trailers = trailers.unwrap_or_default();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}
