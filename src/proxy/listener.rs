//! The supervisor of the listening sockets: binds what the graph wants, closes what it wants
//! no longer, and tells the workers.
//!
//! Every worker has a socket of its own for each port (SO_REUSEPORT), and the kernel spreads
//! connections over them. As that option also hides that another process of the same user has
//! the port, a socket without it is bound first, to see. Where TCP listens at every address,
//! IPv4 has a socket beside that of IPv6: a connection of IPv4 that came by one of IPv6 costs
//! the kernel more.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::connect::tune;
use super::worker::{Command, Common};
use crate::graph::{Bound, Transport};
use crate::lifecycle::Phase;

/// The ports that are bound, and why others are not.
pub type Listening = Arc<Bound>;

/// How often binding a port that was not free is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Connections that the kernel keeps until we accept them, for each socket.
const BACKLOG: i32 = 4096;
/// Bytes of datagrams that the kernel keeps until we read them, for each socket.
const UDP_QUEUE: usize = 1024 * 1024;

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
        bound.into_iter().for_each(|(over, port)| self.close(over, port));
        self.listening.send_replace(Listening::default());
    }

    /// Makes the sockets what the live graph wants.
    fn settle(&self) {
        let wanted = self.common.shared.load().ports();
        let mut now = Bound::clone(&self.listening.borrow());
        let gone: Vec<_> = now.keys().filter(|port| !wanted.contains(port)).copied().collect();
        for port in gone {
            if let Some(Ok(())) = now.remove(&port) {
                self.close(port.0, port.1);
            }
        }
        for port in wanted {
            if !matches!(now.get(&port), Some(Ok(()))) {
                now.insert(port, self.open(port.0, port.1));
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
    fn open(&self, over: Transport, port: u16) -> Result<(), String> {
        let bind = self.common.config.bind;
        let explain = |error: io::Error| explain(over, port, &error);
        drop(sockets(over, bind, port, false).map_err(explain)?);
        let all: io::Result<Vec<_>> =
            self.workers.iter().map(|_| sockets(over, bind, port, true)).collect();
        for (worker, sockets) in self.workers.iter().zip(all.map_err(explain)?) {
            // A worker that is gone has ended the process already.
            let _ = worker.send(Command::Open(port, sockets));
        }
        tracing::info!(%over, port, "listening");
        Ok(())
    }

    fn close(&self, over: Transport, port: u16) {
        for worker in &self.workers {
            let _ = worker.send(Command::Close(over, port));
        }
        tracing::info!(%over, port, "no longer listening");
    }
}

/// A socket that is bound, for one worker.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Socket {
    pub fn transport(&self) -> Transport {
        match self {
            Socket::Tcp(_) => Transport::Tcp,
            Socket::Udp(_) => Transport::Udp,
        }
    }
}

fn explain(over: Transport, port: u16, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; another process or listener has it, choose another port",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability NET_BIND_SERVICE or a port offset"
        }
        _ => "",
    };
    let over = if over == Transport::Udp { "UDP " } else { "" };
    format!("{over}port {port} cannot be bound: {error}{remedy}")
}

/// A socket at `bind`; without an address as many as it takes for every one that the machine has.
fn sockets(
    over: Transport,
    bind: Option<IpAddr>,
    port: u16,
    shared: bool,
) -> io::Result<Vec<Socket>> {
    if let Some(ip) = bind {
        return Ok(vec![socket(over, (ip, port).into(), shared, false)?]);
    }
    let v4 = || socket(over, (Ipv4Addr::UNSPECIFIED, port).into(), shared, false);
    // Sessions of UDP know the address that they were spoken to by, of either version.
    let is_only = over == Transport::Tcp;
    match socket(over, (Ipv6Addr::UNSPECIFIED, port).into(), shared, is_only) {
        Err(error) if has_no_ipv6(&error) => Ok(vec![v4()?]),
        Ok(v6) if is_only => Ok(vec![v6, v4()?]),
        v6 => Ok(vec![v6?]),
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// `only_v6`: an address of IPv6 stands for that version alone.
fn socket(over: Transport, addr: SocketAddr, shared: bool, only_v6: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(addr);
    let (kind, protocol) = match over {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = RawSocket::new(domain, kind, Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // For UDP it would let others have the port too.
    socket.set_reuse_address(over == Transport::Tcp)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    match over {
        Transport::Tcp if shared => {
            // Linux gives every accepted connection what was set here: five calls less for each.
            tune(&SockRef::from(&socket))?;
            socket.listen(BACKLOG)?;
        }
        Transport::Tcp => {}
        // As much as the system allows.
        Transport::Udp => socket.set_recv_buffer_size(UDP_QUEUE)?,
    }
    Ok(match over {
        Transport::Tcp => Socket::Tcp(socket.into()),
        Transport::Udp => Socket::Udp(socket.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn an_accepted_connection_has_the_options_of_its_listening_socket() {
        let Socket::Tcp(listener) =
            socket(Transport::Tcp, (Ipv4Addr::LOCALHOST, 0).into(), true, false).unwrap()
        else {
            panic!("a socket of TCP")
        };
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 3);
    }
}
