//! Connections to endpoints, kept by each worker for itself.
//!
//! HTTP/1.1 connections serve one exchange at a time and are kept last in, first out, so that
//! those that are not needed grow old and are closed. Nobody watches them meanwhile: that one is
//! dead is found when it is wanted, or by the next [`Pools::sweep`]. HTTP/2 connections are
//! shared up to a number of streams; when all are full, one more is opened. What an exchange does
//! with a connection is in [`link`].

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use rustc_hash::FxHashMap;
use tokio::sync::Mutex;

use super::clock;
use super::config::Limits;
use super::connect::{self, Dialed, Settings};
use super::http1::client::Conn;
use super::request_body::RequestBody;
use super::timer::timeout;
use crate::graph::{Backend, BackendProtocol};
use crate::reason::Reason;
use crate::telemetry::WorkerTelemetry;

mod link;

pub use link::{Head, Link, Sending};
use link::{Sender, Stream};

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
    conn: Conn,
    /// In [`clock::ms`].
    since: u64,
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

/// How a connection is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// HTTP/1.1 only: for an upgrade.
    pub http1: bool,
    /// None that was kept: the last one was dead.
    pub fresh: bool,
    /// A request that must not be sent twice: a kept connection is looked at more closely.
    pub once: bool,
}

impl Pools {
    pub fn new(limits: Limits, telemetry: WorkerTelemetry) -> Self {
        Pools { pools: RefCell::default(), limits, telemetry }
    }

    /// A connection to `addr` as `backend` wants it: a kept one, or a new one.
    ///
    /// # Errors
    /// See [`Pools::open`].
    pub async fn link(
        &self,
        backend: &Backend,
        addr: SocketAddr,
        want: Want,
    ) -> Result<Link, Reason> {
        match self.kept(backend, addr, want) {
            Some(link) => Ok(link),
            None => Box::pin(self.open(backend, addr, want)).await,
        }
    }

    /// A kept connection that is still good, or a place on a shared one.
    pub fn kept(&self, backend: &Backend, addr: SocketAddr, want: Want) -> Option<Link> {
        if want.fresh {
            return None;
        }
        let pools = self.pools.borrow();
        let pool = pools.get(&Key { addr, kind: kind(&backend.protocol, want.http1) })?;
        self.shared(pool).or_else(|| self.idle(pool, want.once))
    }

    /// A new connection, or a place on one that others have opened meanwhile.
    ///
    /// # Errors
    /// [`Reason::ConnectFailed`] or [`Reason::ConnectTimeout`].
    pub async fn open(
        &self,
        backend: &Backend,
        addr: SocketAddr,
        want: Want,
    ) -> Result<Link, Reason> {
        let pool = self.pool(Key { addr, kind: kind(&backend.protocol, want.http1) });
        match timeout(backend.connect_timeout, self.connect(&pool, backend, addr, want)).await {
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

    fn idle(&self, pool: &Rc<Pool>, once: bool) -> Option<Link> {
        let mut idle = pool.idle.borrow_mut();
        while let Some(kept) = idle.pop() {
            if kept.is_good(self.limits.pool_idle_timeout) && (!once || kept.conn.is_alive_now()) {
                let sender = Sender::Http1(kept.conn);
                return Some(Link { sender, pool: Rc::clone(pool), is_kept: true });
            }
        }
        None
    }

    fn shared(&self, pool: &Rc<Pool>) -> Option<Link> {
        let mut shared = pool.shared.borrow_mut();
        if shared.is_empty() {
            return None;
        }
        shared.retain(|conn| !conn.sender.is_closed());
        let conn = shared.iter().find(|conn| conn.has_room(self.limits.pool_streams))?;
        let sender = Sender::Http2 { sender: conn.sender.clone(), stream: Stream::take(conn) };
        Some(Link { sender, pool: Rc::clone(pool), is_kept: true })
    }

    async fn connect(
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
        let start = clock::now();
        let dialed = connect::dial(addr, &backend.protocol, want.http1).await;
        // Read anew: what is timed from here on must not count the time that this took.
        let took = clock::now().saturating_duration_since(start);
        self.telemetry.upstream_connect(dialed.is_ok(), took);
        let dialed = dialed.map_err(|error| {
            tracing::debug!(%addr, %error, "connecting to an endpoint failed");
            Reason::ConnectFailed
        })?;
        let sender = match dialed {
            Dialed::Http1(conn) => Sender::Http1(conn),
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
        // An idle worker may have read no clock for long.
        clock::ms();
        self.pools.borrow_mut().retain(|_, pool| {
            pool.idle.borrow_mut().retain(|kept| kept.is_good(most));
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

impl Idle {
    /// Whether the connection can still be used, and has not been idle for longer than `most`.
    fn is_good(&self, most: Duration) -> bool {
        let idle = clock::known_ms().saturating_sub(self.since);
        idle < clock::millis(most) && self.conn.is_alive()
    }
}

impl Pool {
    fn keep(&self, conn: Conn) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.most_idle {
            idle.push(Idle { conn, since: clock::known_ms() });
        }
    }
}
