//! One client's datagrams to one endpoint, and the answers.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::rc::Rc;
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use super::socket::Between;
use crate::graph::{
    Action, Backend, BackendKey, BackendProtocol, Endpoint, EndpointSet, RouteGraph, Stream,
};
use crate::proxy::balance::{InFlight, avoid};
use crate::proxy::carry::Progress;
use crate::proxy::passage::Passage;
use crate::proxy::worker::{Counted, Worker};
use crate::reason::Reason;

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    pub between: Between,
    pub upstream: UdpSocket,
    pub progress: Rc<Progress>,
    /// Told when it is taken out of the table.
    pub ended: Notify,
    endpoint: Arc<Endpoint>,
    key: BackendKey,
    endpoints: Arc<EndpointSet>,
    /// The list in which `endpoint` was found last.
    list: RefCell<Arc<Vec<Arc<Endpoint>>>>,
    /// The graph whose rule was found to lead to this backend last.
    generation: Cell<u64>,
    /// The endpoint said that nobody is there.
    refused: Cell<bool>,
    passage: RefCell<Passage>,
    _in_flight: InFlight,
    _open: Open,
}

/// Counts a session as open until it is dropped.
#[derive(Debug)]
pub struct Open {
    worker: Rc<Worker>,
    _counted: Counted,
}

impl Open {
    pub fn new(worker: &Rc<Worker>) -> Self {
        worker.sessions.set(worker.sessions.get() + 1);
        worker.telemetry.session_opened();
        let counted = Counted::new(&worker.common, |common| &common.sessions);
        Open { worker: Rc::clone(worker), _counted: counted }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.sessions.set(self.worker.sessions.get() - 1);
        self.worker.telemetry.session_closed();
    }
}

impl Session {
    /// # Errors
    /// The backend is one of connections, or there is no socket to be had.
    pub fn new(
        between: Between,
        graph: &RouteGraph,
        backend: &Backend,
        endpoint: Arc<Endpoint>,
        mut passage: Passage,
        open: Open,
    ) -> Result<Self, Reason> {
        let BackendProtocol::Udp = backend.protocol else { return Err(Reason::ConnectFailed) };
        let upstream = dial(endpoint.addr).map_err(|error| {
            tracing::debug!(%error, addr = %endpoint.addr, "no socket for a UDP session");
            match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    Reason::Overloaded
                }
                _ => Reason::ConnectFailed,
            }
        })?;
        passage.endpoint = Some(endpoint.addr);
        passage.attempts = 1;
        Ok(Session {
            between,
            upstream,
            progress: Rc::clone(&passage.progress),
            ended: Notify::new(),
            key: backend.key.clone(),
            endpoints: Arc::clone(&backend.endpoints),
            list: RefCell::new(Arc::clone(&backend.endpoints.load())),
            generation: Cell::new(graph.generation),
            refused: Cell::new(false),
            passage: RefCell::new(passage),
            _in_flight: InFlight::new(Arc::clone(&endpoint)),
            _open: open,
            endpoint,
        })
    }

    /// Whether its datagrams still go where they went: the rule leads to the backend, and the
    /// backend has the endpoint.
    pub fn holds(&self, graph: &RouteGraph, stream: &Stream) -> bool {
        if self.generation.get() != graph.generation {
            if !self.is_wanted(graph, stream) {
                return false;
            }
            self.generation.set(graph.generation);
        }
        let list = self.endpoints.load();
        if !Arc::ptr_eq(&list, &self.list.borrow()) {
            if !list.iter().any(|endpoint| endpoint.addr == self.endpoint.addr) {
                return false;
            }
            self.list.replace(Arc::clone(&list));
        }
        // Where nobody is there, somebody may be elsewhere.
        !(self.refused.replace(false) && list.len() > 1)
    }

    fn is_wanted(&self, graph: &RouteGraph, stream: &Stream) -> bool {
        let Some(rule) = stream.find("") else { return false };
        let Action::Forward(split) = &graph[rule].action else { return false };
        split
            .targets
            .iter()
            .filter(|target| target.weight > 0)
            .any(|target| target.to.is_ok_and(|backend| graph[backend].key == self.key))
    }

    /// Sends a datagram on. It waits for nothing: a full socket is an error.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        SockRef::from(&self.upstream).send(bytes)?;
        self.progress.count(&self.progress.received, bytes.len());
        Ok(())
    }

    /// The endpoint's machine says that nobody is there.
    pub fn refused(&self) {
        self.refused.set(true);
        avoid(&self.endpoint);
    }

    /// Ends it; `reason` is for the log.
    pub fn end(&self, reason: Option<Reason>) {
        self.passage.borrow_mut().reason = reason;
        self.ended.notify_one();
    }
}

/// A socket of its own for each session: so the kernel tells its answers and errors apart.
fn dial(addr: SocketAddr) -> io::Result<UdpSocket> {
    let any = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = StdSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(addr)?;
    UdpSocket::from_std(socket)
}
