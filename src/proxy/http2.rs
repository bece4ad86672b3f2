//! A client's connection that speaks HTTP/2, and the tasks that its engine (hyper) wants.
//!
//! Every stream is a task of its own, so that one that waits holds up no other.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::{self, Builder};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::task::spawn_local;

use super::clock::millis;
use super::config::Limits;
use super::conn::Io;
use super::gather::Gather;
use super::handle::{Via, handle};
use super::response_body::{ResponseBody, Stall};
use super::server::{Client, Graceful, drive};
use super::timer::{poll_until, timed};

/// Serves a connection to its end.
pub async fn speak(client: &Rc<Client>, io: Io) {
    let limits = &client.worker.config.limits;
    client.timeline.set_http2();
    let executor = StreamExecutor { next: Rc::default(), limit: millis(limits.write_stall) };
    let service = service_fn({
        let (client, executor) = (Rc::clone(client), executor.clone());
        move |request: Request<Incoming>| {
            let via = Via::Http2(executor.expect());
            // It is boxed: the engine moves it several times on its way to a task.
            let answer = handle(&client, request.map(Into::into), via);
            answer.map(Ok::<_, Infallible>)
        }
    });
    let io = Gather::new(io);
    let engine = builder(limits, executor).serve_connection(TokioIo::new(io.share()), service);
    drive(client, pin!(Connection { engine, io })).await;
}

fn builder(limits: &Limits, executor: StreamExecutor) -> Builder<StreamExecutor> {
    let http2 = &limits.http2;
    let mut builder = Builder::new(executor);
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

impl<S> Graceful for http2::Connection<TokioIo<Gather<Io>>, S, StreamExecutor>
where
    S: Service<Request<Incoming>, Response = Response<ResponseBody>> + 'static,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Error = hyper::Error;
    fn ask_to_move(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
    const IS_SAFE: bool = true;
}

pin_project! {
    /// The engine, and what it wrote while it was polled.
    struct Connection<C> {
        #[pin]
        engine: C,
        io: Gather<Io>,
    }
}

impl<C: Graceful> Future for Connection<C> {
    type Output = Result<(), C::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let ended = this.engine.poll(cx);
        match this.io.poll_send(cx) {
            Poll::Ready(Err(error)) if ended.is_pending() => {
                tracing::debug!(%error, "a client's connection takes nothing any more");
                Poll::Ready(Ok(()))
            }
            _ => ended,
        }
    }
}

impl<C: Graceful> Graceful for Connection<C> {
    type Error = C::Error;
    fn ask_to_move(self: Pin<&mut Self>) {
        self.project().engine.ask_to_move();
    }
    const IS_SAFE: bool = C::IS_SAFE;
}

/// Runs the engine's tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        spawn_local(timed(future.map(drop)));
    }
}

/// Runs the streams of one connection, and ends a stream whose client takes nothing.
///
/// The engine asks for a response, then hands over the task that will give it: what is
/// [`StreamExecutor::expect`]ed in between belongs to that task.
#[derive(Clone, Debug)]
struct StreamExecutor {
    next: Rc<RefCell<Option<Rc<Stall>>>>,
    /// For how long a client may take nothing, in milliseconds.
    limit: u64,
}

impl StreamExecutor {
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
            Some(stall) => spawn_local(timed(Stalling { future, stall, limit: self.limit })),
        };
    }
}

pin_project! {
    /// A stream's task. Dropping it resets the stream.
    struct Stalling<F> {
        #[pin]
        future: F,
        stall: Rc<Stall>,
        limit: u64,
    }
}

impl<F: Future<Output = ()>> Future for Stalling<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = this.stall.since() else { return Poll::Pending };
        ready!(poll_until(since.saturating_add(*this.limit)));
        tracing::debug!("a client takes nothing of a response: its stream is reset");
        Poll::Ready(())
    }
}
