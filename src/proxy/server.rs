//! One client connection, from its first byte to its last.
//!
//! The engine (hyper) reads and writes HTTP; this file chooses the version, gives it our
//! limits, and drives it together with the connection's deadlines and the process's leaving.

use std::cell::RefCell;
use std::fmt::Display;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::future::LocalBoxFuture;
use http::{Request, Response};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Sleep, sleep_until};

use super::clock;
use super::config::Limits;
use super::conn::{Io, Timeline, Verdict};
use super::connect::tune;
use super::forwarded::Origin;
use super::handle::{Via, handle, refuse_bytes};
use super::http1::head::{self, BadHead};
use super::http1::{self, Lane};
use super::incoming::Incoming;
use super::peeked::Peeked;
use super::response_body::{ResponseBody, Stall};
use super::sniff;
use super::stage::Stage;
use super::stream::{Arrival, Sorted};
use super::timer::{poll_until, timed};
use super::tls::{self, Tls};
use super::wire::Wire;
use super::worker::{Counted, Worker};
use crate::graph::Protocol;
use crate::policy::Scheme;

/// How long a client that was asked to move may keep an idle connection.
const MOVE_TIME: Duration = Duration::from_secs(5);

/// The client's end of a connection: what every request on it has in common.
#[derive(Debug)]
pub struct Client {
    pub worker: Rc<Worker>,
    pub timeline: Rc<Timeline>,
    pub peer: SocketAddr,
    /// The port that is bound.
    pub port: u16,
    /// The port that users connect to.
    pub public_port: u16,
    pub tls: Option<Tls>,
    /// What backends are told of it.
    pub origin: Origin,
    guard: Weak<ConnectionGuard>,
}

impl Client {
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }

    pub fn sni(&self) -> Option<&str> {
        self.tls.as_ref()?.sni.as_deref()
    }

    /// Keeps the connection counted after HTTP on it has ended: for a tunnel.
    pub fn guard(&self) -> Rc<ConnectionGuard> {
        self.guard.upgrade().expect("the connection is being served")
    }
}

/// A connection is counted as open until all of these are dropped.
#[derive(Debug)]
pub struct ConnectionGuard {
    worker: Rc<Worker>,
    public_port: u16,
    _counted: Counted,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.worker.telemetry.connection_closed(self.public_port);
    }
}

/// Serves one accepted connection to its end.
pub async fn serve(worker: Rc<Worker>, port: u16, stream: TcpStream, counted: Counted) {
    // What only the begin of a connection needs, and what only some connections are, is boxed:
    // an idle one should be small.
    let Some(opened) = Box::pin(open(worker, port, stream, counted)).await else { return };
    let Opened { client, io, read, is_http2, _guard } = opened;
    if is_http2 {
        return Box::pin(speak_http2(&client, io)).await;
    }
    let limits = &client.worker.config.limits;
    let heads = head::Limits {
        head_bytes: limits.read_buffer.min(head::MAX_HEAD),
        fields: limits.header_fields.min(head::MAX_FIELDS),
        target_bytes: limits.uri_bytes,
    };
    let service = Exchanges(Rc::clone(&client));
    drive(&client, http1::server::Connection::new(io, read, heads, service)).await;
}

/// A connection that HTTP begins on.
struct Opened {
    client: Rc<Client>,
    io: Io,
    /// What was read of it already.
    read: BytesMut,
    is_http2: bool,
    _guard: Rc<ConnectionGuard>,
}

/// Looks what a connection is. `None` if it was no HTTP and has ended.
async fn open(
    worker: Rc<Worker>,
    port: u16,
    stream: TcpStream,
    counted: Counted,
) -> Option<Opened> {
    let graph = worker.graph();
    let listener = graph.listeners.get(&port).cloned()?;
    let peer = stream.peer_addr().ok()?;
    let public_port = listener.public_port;
    let guard =
        Rc::new(ConnectionGuard { worker: Rc::clone(&worker), public_port, _counted: counted });
    worker.telemetry.connection_opened(public_port);
    if let Err(error) = tune(&stream) {
        tracing::debug!(%error, %peer, "a client's socket cannot be used");
        return None;
    }
    let limits = &worker.config.limits;
    let mut read = BytesMut::new();
    let arrival = Arrival { worker: Rc::clone(&worker), graph, peer, public_port };
    let (wire, tls, is_http2) = match &listener.protocol {
        Protocol::Http => {
            drop(arrival);
            let first = sniff::first(&worker, &stream, limits.header_timeout).await?;
            match first.is_http2 {
                true => (Wire::plain(Peeked::new(first.read.into(), stream)), None, true),
                false => {
                    read = first.read;
                    (Wire::plain(stream), None, false)
                }
            }
        }
        Protocol::Tcp(to) => {
            let to = Arc::clone(to);
            drop(listener);
            arrival.tcp(to, stream).await;
            return None;
        }
        Protocol::Tls(tls) => {
            let stream = if listener.streams.is_empty() {
                drop(arrival);
                Peeked::from(stream)
            } else {
                match arrival.sort(&listener, stream).await {
                    Sorted::Http(stream) => stream,
                    Sorted::Stream(stream) => {
                        drop(listener);
                        stream.run().await;
                        return None;
                    }
                    Sorted::Refused => return None,
                }
            };
            match tls::accept(stream, &tls.config, limits.handshake_timeout).await {
                Ok((stream, tls)) => {
                    let is_http2 = tls.is_http2;
                    (Wire::tls(stream), Some(tls), is_http2)
                }
                Err(error) => {
                    worker.telemetry.handshake_failed(public_port);
                    tracing::debug!(%error, %peer, port, "a TLS handshake failed");
                    return None;
                }
            }
        }
    };
    drop(listener);
    let timeline = Timeline::new();
    let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
    let trusted = &worker.config.trusted_proxies;
    let origin = Origin::new(peer.ip(), scheme, public_port, trusted);
    let client = Rc::new(Client {
        worker,
        origin,
        timeline: Rc::clone(&timeline),
        peer,
        port,
        public_port,
        tls,
        guard: Rc::downgrade(&guard),
    });
    let io = Io { wire, timeline };
    Some(Opened { client, io, read, is_http2, _guard: guard })
}

async fn speak_http2(client: &Rc<Client>, io: Io) {
    let limits = &client.worker.config.limits;
    client.timeline.set_http2();
    let executor = StreamExecutor::new(limits.write_stall);
    let service = service_fn({
        let (client, executor) = (Rc::clone(client), executor.clone());
        move |request: Request<hyper::body::Incoming>| {
            let via = Via::Http2(executor.expect());
            infallible(handle(Rc::clone(&client), request.map(Into::into), via))
        }
    });
    let connection = http2_builder(limits, executor).serve_connection(TokioIo::new(io), service);
    drive(client, connection).await;
}

async fn infallible<T>(future: impl Future<Output = T>) -> Result<T, std::convert::Infallible> {
    Ok(future.await)
}

/// What answers the requests of an HTTP/1.1 connection.
#[derive(Debug)]
struct Exchanges(Rc<Client>);

impl http1::server::Service for Exchanges {
    type Body = ResponseBody;

    fn call(
        &self,
        request: Request<Incoming>,
        lane: Lane,
    ) -> LocalBoxFuture<'static, Response<ResponseBody>> {
        Box::pin(handle(Rc::clone(&self.0), request, Via::Http1(lane)))
    }

    fn refuse(&self, bad: BadHead) -> Response<ResponseBody> {
        refuse_bytes(&self.0, bad.reason())
    }
}

fn http2_builder(limits: &Limits, executor: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let http2 = &limits.http2;
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(http2.streams)
        .initial_stream_window_size(http2.stream_window)
        .initial_connection_window_size(http2.connection_window)
        .max_header_list_size(http2.header_list)
        .max_send_buf_size(http2.send_buffer)
        .max_pending_accept_reset_streams(http2.early_resets)
        .max_local_error_reset_streams(http2.error_resets)
        .keep_alive_interval(http2.ping_interval)
        .keep_alive_timeout(http2.ping_timeout)
        .enable_connect_protocol();
    builder
}

/// A connection that can be asked to end after what it holds.
trait Graceful: Future<Output = Result<(), Self::Error>> {
    type Error: Display;
    fn ask_to_move(self: Pin<&mut Self>);
    /// Whether being asked is safe while requests are on their way: a GOAWAY says which were
    /// taken, but HTTP/1.1 closes at once when it is idle.
    const IS_SAFE: bool;
}

impl Graceful for http1::server::Connection<Exchanges> {
    type Error = http1::server::Ended;
    fn ask_to_move(self: Pin<&mut Self>) {
        self.get_mut().leave();
    }
    const IS_SAFE: bool = false;
}

impl<S> Graceful for http2::Connection<TokioIo<Io>, S, StreamExecutor>
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<ResponseBody>> + 'static,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Error = hyper::Error;
    fn ask_to_move(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
    const IS_SAFE: bool = true;
}

/// What ended a wait.
enum Event<E> {
    Ended(Result<(), E>),
    Due,
    /// Another stage has begun.
    Stage(Stage),
}

/// Runs a connection to its end, or cuts it when a deadline passes.
async fn drive<C: Graceful>(client: &Client, connection: C) {
    let limits = &client.worker.config.limits;
    let mut connection = std::pin::pin!(connection);
    let mut watch = client.worker.stage.watch();
    // A connection of a late stage is asked at the next one, or it would never serve.
    let mut asked_at = client.worker.stage.now().min(Stage::Draining);
    let mut asked = false;
    let mut look_at = clock::ms_after(limits.header_timeout);
    loop {
        let event = poll_fn(|cx| {
            let stage = watch.poll(cx);
            if stage > asked_at {
                return Poll::Ready(Event::Stage(stage));
            }
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(Event::Ended(result));
            }
            // That may have brought a deadline that is nearer.
            let deadline = client.timeline.deadline(limits).unwrap_or(u64::MAX);
            poll_until(deadline.min(look_at)).map(|()| Event::Due)
        });
        match event.await {
            Event::Ended(Ok(())) => return,
            Event::Ended(Err(error)) => {
                return tracing::debug!(%error, peer = %client.peer, "a client's connection ended");
            }
            Event::Stage(stage) => {
                asked_at = stage;
                if C::IS_SAFE || stage == Stage::Closing {
                    connection.as_mut().ask_to_move();
                    asked = true;
                }
                continue;
            }
            Event::Due => {}
        }
        look_at = match client.timeline.verdict(clock::ms(), limits, asked) {
            Verdict::Wait(time) => clock::ms_after(time),
            Verdict::Cut => return,
            Verdict::Move => {
                connection.as_mut().ask_to_move();
                asked = true;
                clock::ms_after(MOVE_TIME)
            }
        };
    }
}

/// Runs the engine's tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        spawn_local(timed(async move {
            future.await;
        }));
    }
}

/// Runs the streams of one HTTP/2 connection, and ends a stream whose client takes nothing.
///
/// The engine asks for a response, then hands over the task that will give it: what is
/// [`StreamExecutor::expect`]ed in between belongs to that task.
#[derive(Clone, Debug)]
struct StreamExecutor {
    next: Rc<RefCell<Option<Rc<Stall>>>>,
    limit: Duration,
}

impl StreamExecutor {
    fn new(limit: Duration) -> Self {
        StreamExecutor { next: Rc::default(), limit }
    }

    fn expect(&self) -> Rc<Stall> {
        let stall = Rc::<Stall>::default();
        *self.next.borrow_mut() = Some(Rc::clone(&stall));
        stall
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        match self.next.borrow_mut().take() {
            None => spawn_local(timed(future)),
            Some(stall) => {
                let limit = self.limit;
                spawn_local(timed(Stalling { future, stall, sleep: None, limit }))
            }
        };
    }
}

pin_project! {
    /// A stream's task. Dropping it resets the stream.
    struct Stalling<F> {
        #[pin]
        future: F,
        stall: Rc<Stall>,
        sleep: Option<Pin<Box<Sleep>>>,
        limit: Duration,
    }
}

impl<F: Future<Output = ()>> Future for Stalling<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while let Some(since) = this.stall.since() {
            let until = since + *this.limit;
            if until <= Instant::now() {
                tracing::debug!("a client takes nothing of a response: its stream is reset");
                return Poll::Ready(());
            }
            let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(until.into())));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            sleep.as_mut().reset(until.into());
        }
        Poll::Pending
    }
}
