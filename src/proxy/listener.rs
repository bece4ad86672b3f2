//! The supervisor of the listening sockets: binds what the graph wants, closes what it wants
//! no longer, and tells the workers.
//!
//! Every worker has a socket of its own for each port (SO_REUSEPORT), and the kernel spreads
//! connections over them. As that option also hides that another process of the same user has
//! the port, a socket without it is bound first, to see.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::worker::{Command, Common};
use crate::graph::{Bound, Transport};
use crate::lifecycle::Phase;

/// The ports that are bound, and why others are not.
pub type Listening = Arc<Bound>;

/// How often binding a port that was not free is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Connections that the kernel keeps until we accept them, for each socket.
const BACKLOG: i32 = 4096;

/// See the module's documentation.
#[derive(Debug)]
pub struct Supervisor {
    pub common: Arc<Common>,
    pub workers: Vec<mpsc::UnboundedSender<Command>>,
    pub listening: watch::Sender<Listening>,
}

impl Supervisor {
    /// Follows the live graph until draining begins, then closes everything.
    pub async fn run(self) {
        let mut changed = self.common.shared.subscribe();
        let lifecycle = self.common.lifecycle.clone();
        let mut draining = std::pin::pin!(lifecycle.reached(Phase::Draining));
        loop {
            changed.mark_unchanged();
            self.settle();
            let has_failed = self.listening.borrow().values().any(Result::is_err);
            tokio::select! {
                biased;
                () = &mut draining => break,
                _ = changed.changed() => {}
                () = sleep(RETRY), if has_failed => {}
            }
        }
        let bound: Vec<_> = self.listening.borrow().keys().copied().collect();
        bound.into_iter().for_each(|(_, port)| self.close(port));
        self.listening.send_replace(Listening::default());
    }

    /// Makes the sockets what the live graph wants.
    fn settle(&self) {
        let mut wanted = self.common.shared.load().ports();
        wanted.retain(|(over, _)| *over == Transport::Tcp);
        let mut now = Bound::clone(&self.listening.borrow());
        let gone: Vec<_> = now.keys().filter(|port| !wanted.contains(port)).copied().collect();
        for port in gone {
            if let Some(Ok(())) = now.remove(&port) {
                self.close(port.1);
            }
        }
        for port in wanted {
            if !matches!(now.get(&port), Some(Ok(()))) {
                now.insert(port, self.open(port.1));
            }
        }
        self.listening.send_if_modified(|before| {
            let differs = **before != now;
            if differs {
                *before = Arc::new(now);
            }
            differs
        });
    }

    /// Binds `port` once for each worker.
    fn open(&self, port: u16) -> Result<(), String> {
        let bind = self.common.config.bind;
        let explain = |error: io::Error| explain(port, &error);
        drop(listen(bind, port, false).map_err(explain)?);
        let sockets: io::Result<Vec<TcpListener>> =
            self.workers.iter().map(|_| listen(bind, port, true)).collect();
        for (worker, socket) in self.workers.iter().zip(sockets.map_err(explain)?) {
            // A worker that is gone has ended the process already.
            let _ = worker.send(Command::Open(port, socket));
        }
        tracing::info!(port, "listening");
        Ok(())
    }

    fn close(&self, port: u16) {
        for worker in &self.workers {
            let _ = worker.send(Command::Close(port));
        }
        tracing::info!(port, "no longer listening");
    }
}

fn explain(port: u16, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; another process or listener has it, choose another port",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability NET_BIND_SERVICE or a port offset"
        }
        _ => "",
    };
    format!("port {port} cannot be bound: {error}{remedy}")
}

/// A listening socket; without an address on every one that the machine has.
fn listen(bind: Option<IpAddr>, port: u16, shared: bool) -> io::Result<TcpListener> {
    match bind {
        Some(ip) => socket(SocketAddr::new(ip, port), shared),
        None => match socket((Ipv6Addr::UNSPECIFIED, port).into(), shared) {
            Err(error) if has_no_ipv6(&error) => {
                socket((Ipv4Addr::UNSPECIFIED, port).into(), shared)
            }
            result => result,
        },
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn socket(addr: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}
