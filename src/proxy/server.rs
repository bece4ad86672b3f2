//! One client connection, from its first byte to its last.
//!
//! The engines read and write HTTP (`http1`, `http2`); this file chooses the version, gives them
//! our limits, and drives them together with the connection's deadlines and the process's leaving.

use std::fmt::Display;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::LocalBoxFuture;
use http::{Request, Response};
use tokio::net::TcpStream;

use super::clock;
use super::conn::{Io, Timeline, Verdict};
use super::forwarded::Origin;
use super::handle::{Via, handle, refuse_bytes};
use super::http1::head::{self, BadHead};
use super::http1::{self, Lane};
use super::http2;
use super::incoming::Incoming;
use super::peeked::Peeked;
use super::response_body::ResponseBody;
use super::sniff;
use super::stage::Stage;
use super::stream::{Arrival, Sorted};
use super::timer::poll_until;
use super::tls::{self, Tls};
use super::turn::Ticket;
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
pub async fn serve(
    worker: Rc<Worker>,
    port: u16,
    stream: TcpStream,
    peer: SocketAddr,
    counted: Counted,
) {
    // What only the begin of a connection needs, and what only some connections are, is boxed:
    // an idle one should be small.
    let Some(opened) = Box::pin(open(worker, port, stream, peer, counted)).await else { return };
    let Opened { client, io, read, is_http2, _guard } = opened;
    if is_http2 {
        return Box::pin(http2::speak(&client, io)).await;
    }
    let limits = &client.worker.config.limits;
    let heads = head::Limits {
        head_bytes: limits.read_buffer.min(head::MAX_HEAD),
        fields: limits.header_fields.min(head::MAX_FIELDS),
        target_bytes: limits.uri_bytes,
    };
    let service = Exchanges { client: Rc::clone(&client), ticket: Ticket::default() };
    let connection = http1::server::Connection::new(io, read, heads, service);
    drive(&client, pin!(connection)).await;
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
    mut stream: TcpStream,
    peer: SocketAddr,
    counted: Counted,
) -> Option<Opened> {
    let graph = worker.graph();
    let listener = graph.listeners.get(&port).cloned()?;
    let public_port = listener.public_port;
    let guard =
        Rc::new(ConnectionGuard { worker: Rc::clone(&worker), public_port, _counted: counted });
    worker.telemetry.connection_opened(public_port);
    let limits = &worker.config.limits;
    let mut read = BytesMut::new();
    let arrival = Arrival { worker: Rc::clone(&worker), graph, peer, public_port };
    let (wire, tls, is_http2) = match &listener.protocol {
        Protocol::Http => {
            drop(arrival);
            let first = sniff::first(&worker, &mut stream, limits.header_timeout).await?;
            match first.is_http2 {
                true => (Wire::plain(Peeked::new(first.read, stream)), None, true),
                false => {
                    read = first.read;
                    (Wire::plain(stream), None, false)
                }
            }
        }
        Protocol::Tcp(to) => {
            let to = Arc::clone(to);
            drop(listener);
            Box::pin(arrival.tcp(to, stream)).await;
            return None;
        }
        Protocol::Tls(tls) => {
            let stream = if listener.streams.is_empty() {
                drop(arrival);
                Peeked::from(stream)
            } else {
                match Box::pin(arrival.sort(&listener, stream)).await {
                    Sorted::Http(stream) => stream,
                    Sorted::Stream(stream) => {
                        drop(listener);
                        Box::pin(stream.run()).await;
                        return None;
                    }
                    Sorted::Refused => return None,
                }
            };
            let accepting =
                tls::accept(stream, &tls.config, tls.verifies_clients, limits.handshake_timeout);
            match Box::pin(accepting).await {
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

/// What answers the requests of an HTTP/1.1 connection.
#[derive(Debug)]
struct Exchanges {
    client: Rc<Client>,
    ticket: Ticket,
}

impl http1::server::Service for Exchanges {
    type Body = ResponseBody;

    fn call(
        &self,
        request: Request<Incoming>,
        lane: Lane,
    ) -> LocalBoxFuture<'static, Response<ResponseBody>> {
        handle(&self.client, request, Via::Http1(lane))
    }

    fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        self.client.worker.turns.poll(&self.ticket, cx)
    }

    fn refuse(&self, bad: BadHead) -> Response<ResponseBody> {
        refuse_bytes(&self.client, bad.reason())
    }
}

/// A connection that can be asked to end after what it holds.
pub trait Graceful: Future<Output = Result<(), Self::Error>> {
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

/// What ended a wait.
enum Event<E> {
    Ended(Result<(), E>),
    Due,
    /// Another stage has begun.
    Stage(Stage),
}

/// Runs a connection to its end, or cuts it when a deadline passes.
pub async fn drive<C: Graceful>(client: &Client, mut connection: Pin<&mut C>) {
    let limits = &client.worker.config.limits;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, E, F: Future>(_: fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_http_1_connection_has_no_room_for_what_it_seldom_is() {
        assert!(size(serve) <= 640, "{} bytes", size(serve));
        assert!(size(open) <= 640, "{} bytes", size(open));
    }
}
