//! One client connection, from its first byte to its last.
//!
//! The engine (hyper) reads and writes HTTP; this file chooses the version, gives it our
//! limits, and drives it together with the connection's deadlines and the process's leaving.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Sleep, sleep, sleep_until};

use super::clock::{self, millis};
use super::config::Limits;
use super::conn::{Io, Timeline, Verdict};
use super::connect::tune;
use super::forwarded::Origin;
use super::handle::handle;
use super::peeked::Peeked;
use super::response_body::{ResponseBody, Stall};
use super::sniff;
use super::stage::Stage;
use super::stream::{Arrival, Sorted};
use super::timer::timed;
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
    pub timeline: Arc<Timeline>,
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
    let graph = worker.graph();
    let Some(listener) = graph.listeners.get(&port).cloned() else { return };
    let Ok(peer) = stream.peer_addr() else { return };
    let public_port = listener.public_port;
    let guard =
        Rc::new(ConnectionGuard { worker: Rc::clone(&worker), public_port, _counted: counted });
    worker.telemetry.connection_opened(public_port);
    if let Err(error) = tune(&stream) {
        return tracing::debug!(%error, %peer, "a client's socket cannot be used");
    }
    let limits = &worker.config.limits;
    let arrival = Arrival { worker: Rc::clone(&worker), graph, peer, public_port };
    let (wire, tls, is_http2) = match &listener.protocol {
        Protocol::Http => {
            drop(arrival);
            match sniff::is_http2(&worker, &stream, limits.header_timeout).await {
                None => return,
                Some(is_http2) => (Wire::plain(stream), None, is_http2),
            }
        }
        Protocol::Tcp(to) => {
            let to = Arc::clone(to);
            drop(listener);
            return arrival.tcp(to, stream).await;
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
                        return stream.run().await;
                    }
                    Sorted::Refused => return,
                }
            };
            match tls::accept(stream, &tls.config, limits.handshake_timeout).await {
                Ok((stream, tls)) => {
                    let is_http2 = tls.is_http2;
                    (Wire::tls(stream), Some(tls), is_http2)
                }
                Err(error) => {
                    worker.telemetry.handshake_failed(public_port);
                    return tracing::debug!(%error, %peer, port, "a TLS handshake failed");
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
        timeline: Arc::clone(&timeline),
        peer,
        port,
        public_port,
        tls,
        guard: Rc::downgrade(&guard),
    });
    speak(&client, Io { wire, timeline }, is_http2).await;
}

async fn speak(client: &Rc<Client>, io: Io, is_http2: bool) {
    let limits = &client.worker.config.limits;
    let io = TokioIo::new(io);
    if is_http2 {
        client.timeline.set_http2();
        let executor = StreamExecutor::new(limits.write_stall);
        let service = service_fn({
            let (client, executor) = (Rc::clone(client), executor.clone());
            move |request: Request<Incoming>| {
                let stall = executor.expect();
                infallible(handle(Rc::clone(&client), request.map(Into::into), Some(stall)))
            }
        });
        let connection = http2_builder(limits, executor).serve_connection(io, service);
        drive(client, connection).await;
    } else {
        let service = service_fn({
            let client = Rc::clone(client);
            move |request: Request<Incoming>| {
                infallible(handle(Rc::clone(&client), request.map(Into::into), None))
            }
        });
        let connection = http1_builder(limits).serve_connection(io, service).with_upgrades();
        drive(client, connection).await;
    }
}

async fn infallible<T>(future: impl Future<Output = T>) -> Result<T, std::convert::Infallible> {
    Ok(future.await)
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The timeline has the deadlines of head and silence: the engine knows only one for both,
    // and would set a timer for each request.
    builder
        .header_read_timeout(None)
        .max_buf_size(limits.read_buffer)
        .max_header_size(limits.read_buffer);
    builder
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
trait Graceful: Future<Output = hyper::Result<()>> {
    fn ask_to_move(self: Pin<&mut Self>);
    /// Whether being asked is safe while requests are on their way: a GOAWAY says which were
    /// taken, but HTTP/1.1 closes at once when it is idle.
    const IS_SAFE: bool;
}

impl<S> Graceful for http1::UpgradeableConnection<TokioIo<Io>, S>
where
    S: Service<Request<Incoming>, Response = Response<ResponseBody>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn ask_to_move(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
    const IS_SAFE: bool = false;
}

impl<S> Graceful for http2::Connection<TokioIo<Io>, S, StreamExecutor>
where
    S: Service<Request<Incoming>, Response = Response<ResponseBody>> + 'static,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn ask_to_move(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
    const IS_SAFE: bool = true;
}

/// What ended a wait.
enum Event {
    Ended(hyper::Result<()>),
    Due,
    /// Another stage has begun.
    Asked,
}

/// A timer that is moved later only when it fires, so that progress costs nothing.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    due: u64,
}

impl Timer {
    fn set(&mut self, after: Duration) {
        self.due = clock::ms() + millis(after);
        self.sleep.as_mut().reset(tokio::time::Instant::now() + after);
    }

    /// Polls the connection, then looks whether that brought a deadline that is nearer.
    fn poll<C: Graceful>(
        &mut self,
        connection: Pin<&mut C>,
        client: &Client,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        if let Poll::Ready(result) = connection.poll(cx) {
            return Poll::Ready(Event::Ended(result));
        }
        let deadline = client.timeline.deadline(&client.worker.config.limits);
        if let Some(deadline) = deadline.filter(|deadline| *deadline < self.due) {
            let now = clock::ms();
            if deadline <= now {
                return Poll::Ready(Event::Due);
            }
            self.set(Duration::from_millis(deadline - now));
        }
        self.sleep.as_mut().poll(cx).map(|()| Event::Due)
    }
}

/// Runs a connection to its end, or cuts it when a deadline passes.
async fn drive<C: Graceful>(client: &Client, connection: C) {
    let limits = &client.worker.config.limits;
    let mut connection = std::pin::pin!(connection);
    let mut watch = client.worker.stage.watch();
    let mut timer = Timer { sleep: Box::pin(sleep(Duration::ZERO)), due: 0 };
    timer.set(limits.header_timeout);
    // A connection of a late stage is asked at the next one, or it would never serve.
    let mut asked_at = client.worker.stage.now().min(Stage::Draining);
    let mut asked = false;
    loop {
        let stage = client.worker.stage.now();
        if stage > asked_at {
            asked_at = stage;
            if C::IS_SAFE || stage == Stage::Closing {
                connection.as_mut().ask_to_move();
                asked = true;
            }
        }
        let event = poll_fn(|cx| {
            if watch.poll(cx) > asked_at {
                return Poll::Ready(Event::Asked);
            }
            timer.poll(connection.as_mut(), client, cx)
        });
        let event = event.await;
        if matches!(event, Event::Asked) {
            continue;
        }
        if let Event::Ended(result) = event {
            if let Err(error) = result {
                tracing::debug!(%error, peer = %client.peer, "a client's connection ended");
            }
            return;
        }
        match client.timeline.verdict(clock::ms(), limits, asked) {
            Verdict::Wait(time) => timer.set(time),
            Verdict::Cut => return,
            Verdict::Move => {
                connection.as_mut().ask_to_move();
                asked = true;
                timer.set(MOVE_TIME);
            }
        }
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
