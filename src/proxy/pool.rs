//! Connections to endpoints, kept by each worker for itself.
//!
//! HTTP/1.1 connections serve one exchange at a time and are kept last in, first out, so that
//! those that are not needed grow old and are closed. HTTP/2 connections are shared up to a
//! number of streams; when all are full, one more is opened.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::client::conn::{TrySendError, http1, http2};
use rustc_hash::FxHashMap;
use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::config::Limits;
use super::connect::{self, Dialed, SETTINGS_AFTER_MS, Settings};
use super::incoming::Incoming;
use super::request_body::RequestBody;
use crate::graph::{Backend, BackendProtocol};
use crate::reason::Reason;
use crate::telemetry::WorkerTelemetry;

/// All pools of one worker.
#[derive(Debug)]
pub struct Pools {
    pools: RefCell<FxHashMap<Key, Rc<Pool>>>,
    limits: Limits,
    telemetry: WorkerTelemetry,
}

/// What connections must have in common to be exchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    addr: SocketAddr,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Http1,
    H2c,
    /// By TLS identity, and whether HTTP/1.1 is demanded (for an upgrade).
    Tls(u64, bool),
}

#[derive(Debug)]
struct Pool {
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Shared>>,
    /// Held while a connection is opened that others could use too.
    opening: Mutex<()>,
    /// Known once a connection was opened.
    is_http2: Cell<Option<bool>>,
    most_idle: usize,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    streams: Rc<Cell<usize>>,
    settings: Rc<Settings>,
    used: Rc<Cell<Instant>>,
}

impl Shared {
    /// A connection for which the endpoint allows no stream at all would never be of use: it
    /// gets one, so that not every request opens another connection.
    fn has_room(&self, most: usize) -> bool {
        self.streams.get() < most.min(self.settings.streams.get()).max(1)
    }
}

/// A connection to an endpoint, for one exchange.
#[derive(Debug)]
pub struct Link {
    sender: Sender,
    pool: Rc<Pool>,
    /// It has served before: that it fails says nothing about the endpoint.
    pub is_kept: bool,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2 { sender: http2::SendRequest<RequestBody>, stream: Stream },
}

/// A place on a shared connection.
#[derive(Debug)]
struct Stream {
    streams: Rc<Cell<usize>>,
    settings: Rc<Settings>,
    used: Rc<Cell<Instant>>,
}

impl Stream {
    fn take(shared: &Shared) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Stream {
            streams: Rc::clone(&shared.streams),
            settings: Rc::clone(&shared.settings),
            used: Rc::clone(&shared.used),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.set(self.streams.get() - 1);
        self.used.set(Instant::now());
    }
}

/// How a connection is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// HTTP/1.1 only: for an upgrade.
    pub http1: bool,
    /// None that was kept: the last one was dead.
    pub fresh: bool,
}

impl Pools {
    pub fn new(limits: Limits, telemetry: WorkerTelemetry) -> Self {
        Pools { pools: RefCell::default(), limits, telemetry }
    }

    /// A connection to `addr` as `backend` wants it: a kept one, or a new one.
    ///
    /// # Errors
    /// [`Reason::ConnectFailed`] or [`Reason::ConnectTimeout`].
    pub async fn link(
        &self,
        backend: &Backend,
        addr: SocketAddr,
        want: Want,
    ) -> Result<Link, Reason> {
        let pool = self.pool(Key { addr, kind: kind(&backend.protocol, want.http1) });
        if let Some(link) = (!want.fresh).then(|| self.kept(&pool)).flatten() {
            return Ok(link);
        }
        match timeout(backend.connect_timeout, self.open(&pool, backend, addr, want)).await {
            Ok(link) => link,
            Err(_) => {
                self.telemetry.upstream_connect(false, backend.connect_timeout);
                Err(Reason::ConnectTimeout)
            }
        }
    }

    fn pool(&self, key: Key) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        let most_idle = self.limits.pool_idle;
        Rc::clone(pools.entry(key).or_insert_with(|| {
            Rc::new(Pool {
                idle: RefCell::default(),
                shared: RefCell::default(),
                opening: Mutex::new(()),
                is_http2: Cell::new(None),
                most_idle,
            })
        }))
    }

    /// A kept connection that is still good.
    fn kept(&self, pool: &Rc<Pool>) -> Option<Link> {
        if let Some(link) = self.shared(pool) {
            return Some(link);
        }
        let mut idle = pool.idle.borrow_mut();
        while let Some(kept) = idle.pop() {
            if kept.sender.is_ready() && kept.since.elapsed() < self.limits.pool_idle_timeout {
                let sender = Sender::Http1(kept.sender);
                return Some(Link { sender, pool: Rc::clone(pool), is_kept: true });
            }
        }
        None
    }

    fn shared(&self, pool: &Rc<Pool>) -> Option<Link> {
        let mut shared = pool.shared.borrow_mut();
        shared.retain(|conn| !conn.sender.is_closed());
        let conn = shared.iter().find(|conn| conn.has_room(self.limits.pool_streams))?;
        let sender = Sender::Http2 { sender: conn.sender.clone(), stream: Stream::take(conn) };
        Some(Link { sender, pool: Rc::clone(pool), is_kept: true })
    }

    async fn open(
        &self,
        pool: &Rc<Pool>,
        backend: &Backend,
        addr: SocketAddr,
        want: Want,
    ) -> Result<Link, Reason> {
        if pool.is_http2.get() == Some(false) || matches!(backend.protocol, BackendProtocol::Http1)
        {
            return self.dial(pool, backend, addr, want).await;
        }
        // Whoever waited here finds room on the connection that was opened meanwhile.
        let _opening = pool.opening.lock().await;
        match self.shared(pool) {
            Some(link) if !want.fresh => Ok(link),
            _ => self.dial(pool, backend, addr, want).await,
        }
    }

    async fn dial(
        &self,
        pool: &Rc<Pool>,
        backend: &Backend,
        addr: SocketAddr,
        want: Want,
    ) -> Result<Link, Reason> {
        let start = Instant::now();
        let dialed = connect::dial(addr, &backend.protocol, want.http1).await;
        self.telemetry.upstream_connect(dialed.is_ok(), start.elapsed());
        let dialed = dialed.map_err(|error| {
            tracing::debug!(%addr, %error, "connecting to an endpoint failed");
            Reason::ConnectFailed
        })?;
        let sender = match dialed {
            Dialed::Http1(sender) => Sender::Http1(sender),
            Dialed::Http2(sender, settings) => {
                let conn = Shared {
                    sender: sender.clone(),
                    settings,
                    streams: Rc::default(),
                    used: Rc::new(Cell::new(Instant::now())),
                };
                let stream = Stream::take(&conn);
                pool.shared.borrow_mut().push(conn);
                Sender::Http2 { sender, stream }
            }
        };
        pool.is_http2.set(Some(matches!(sender, Sender::Http2 { .. })));
        Ok(Link { sender, pool: Rc::clone(pool), is_kept: false })
    }

    /// Closes what has been idle for longer than `most`.
    pub fn sweep(&self, most: Duration) {
        self.pools.borrow_mut().retain(|_, pool| {
            pool.idle
                .borrow_mut()
                .retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < most);
            pool.shared.borrow_mut().retain(|conn| {
                let busy = conn.streams.get() > 0 || conn.used.get().elapsed() < most;
                busy && !conn.sender.is_closed()
            });
            let in_use = Rc::strong_count(pool) > 1;
            in_use || !pool.idle.borrow().is_empty() || !pool.shared.borrow().is_empty()
        });
    }

    /// How long connections are kept.
    pub fn idle_timeout(&self) -> Duration {
        self.limits.pool_idle_timeout
    }
}

fn kind(protocol: &BackendProtocol, http1: bool) -> Kind {
    match protocol {
        // Streams and datagrams have no pools: dialling them for HTTP fails.
        BackendProtocol::Http1 | BackendProtocol::Tcp | BackendProtocol::Udp => Kind::Http1,
        BackendProtocol::H2c => Kind::H2c,
        BackendProtocol::Tls(tls) => Kind::Tls(tls.identity, http1),
    }
}

impl Link {
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2 { .. })
    }

    /// Whether the endpoint takes a CONNECT with a protocol over HTTP/2 (RFC 8441). A new
    /// connection may have to wait a moment for its settings.
    pub async fn takes_connect(&self) -> bool {
        let Sender::Http2 { stream, .. } = &self.sender else { return false };
        for ms in SETTINGS_AFTER_MS {
            if stream.settings.extended_connect.get() {
                return true;
            }
            sleep(Duration::from_millis(ms)).await;
        }
        stream.settings.extended_connect.get()
    }

    /// Sends a request and waits for the head of the answer. The error has the request again
    /// if nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Box<TrySendError<Request<RequestBody>>>> {
        let sent = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2 { sender, .. } => sender.try_send_request(request).await,
        };
        sent.map(|response| response.map(Into::into)).map_err(Box::new)
    }

    /// The exchange is over and the connection is good for another.
    pub fn release(self) {
        let Link { sender, pool, .. } = self;
        let Sender::Http1(mut sender) = sender else { return };
        if sender.is_ready() {
            pool.keep(sender);
        } else if !sender.is_closed() {
            // The connection has not yet noticed that the exchange is over.
            spawn_local(async move {
                if sender.ready().await.is_ok() {
                    pool.keep(sender);
                }
            });
        }
    }
}

impl Pool {
    fn keep(&self, sender: http1::SendRequest<RequestBody>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.most_idle {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}
