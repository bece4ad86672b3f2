//! UDP: datagrams between clients and backends, in sessions.
//!
//! A session is what one client address sends to one of our addresses. Its first datagram
//! chooses the endpoint, and the others follow it until the session has been silent for a while.
//! The kernel gives all datagrams of a session to the same worker, as long as the workers'
//! sockets stay. Nothing waits here: a datagram that finds a full socket or a full table is
//! dropped and counted, as UDP allows.

mod session;
mod socket;
mod table;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now};
use tokio::time::sleep;

use session::{Open, Session};
use socket::{Between, Socket};
use table::Table;

use super::balance::{Tried, pick};
use super::passage::Passage;
use super::stage::Stage;
use super::stream::meet;
use super::timer::timed;
use super::worker::{Counted, Graph, Worker};
use crate::lifecycle::Phase;
use crate::reason::Reason;
use crate::telemetry::StreamKind;

/// The longest datagram that there can be.
const LONGEST: usize = 65_535;
/// Datagrams that are taken before other tasks have their turn.
const BATCH: usize = 32;
/// How often a socket that is only kept for others looks whether they are done.
const LOOK: Duration = Duration::from_millis(50);

/// One UDP port on one worker.
#[derive(Debug)]
struct Port {
    worker: Rc<Worker>,
    number: u16,
    socket: Socket,
    sessions: RefCell<Table>,
    /// Where the backends' datagrams are read to.
    buffer: RefCell<Vec<u8>>,
    /// No session begins any more.
    is_draining: Cell<bool>,
}

/// Serves a UDP socket until `closed` fires or its sender is gone. If that is because the
/// process drains, the sessions go on until they are silent.
pub async fn run(
    worker: Rc<Worker>,
    number: u16,
    socket: UdpSocket,
    mut closed: oneshot::Receiver<()>,
) {
    let _accepting = Counted::new(&worker.common, |common| &common.accepting);
    let socket = match Socket::new(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, number, "a bound socket cannot be used"),
    };
    let port = Rc::new(Port {
        worker,
        number,
        socket,
        sessions: RefCell::default(),
        buffer: RefCell::new(vec![0; LONGEST]),
        is_draining: Cell::new(false),
    });
    let mut buffer = vec![0; LONGEST];
    loop {
        tokio::select! {
            biased;
            _ = &mut closed => break,
            () = port.serve(&mut buffer) => {}
        }
    }
    if port.worker.common.lifecycle.phase() >= Phase::Draining {
        port.is_draining.set(true);
        port.drain(&mut buffer).await;
    }
    for session in port.sessions.borrow_mut().drain() {
        session.end(None);
    }
}

impl Port {
    /// Waits for datagrams and passes some of them on.
    async fn serve(self: &Rc<Self>, buffer: &mut [u8]) {
        /// How long nothing is read after an error of the socket.
        const PAUSE: Duration = Duration::from_millis(50);
        if let Err(error) = self.socket.readable().await {
            tracing::warn!(%error, port = self.number, "reading datagrams pauses");
            return sleep(PAUSE).await;
        }
        for _ in 0..BATCH {
            match self.socket.try_recv(buffer) {
                Ok(Some((between, length))) => self.pass_on(between, &buffer[..length]),
                Ok(None) => self.worker.telemetry.datagram_dropped(Reason::BadRequest),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, port = self.number, "reading datagrams pauses");
                    return sleep(PAUSE).await;
                }
            }
        }
        yield_now().await;
    }

    /// Serves the sessions that are there. A socket that closes would change to whom the kernel
    /// gives the datagrams of the others: so all stay until no worker has a session.
    async fn drain(self: &Rc<Self>, buffer: &mut [u8]) {
        while self.worker.common.sessions.load(Ordering::Acquire) > 0 {
            tokio::select! {
                () = self.serve(buffer) => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    fn pass_on(self: &Rc<Self>, between: Between, bytes: &[u8]) {
        if let Err(reason) = self.try_pass_on(between, bytes) {
            self.worker.telemetry.datagram_dropped(reason);
        }
    }

    fn try_pass_on(self: &Rc<Self>, between: Between, bytes: &[u8]) -> Result<(), Reason> {
        // That an earlier datagram was refused is told when the next is sent.
        for _ in 0..2 {
            let session = self.session(between)?;
            match session.send(bytes) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => session.refused(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Reason::Overloaded);
                }
                Err(error) => {
                    tracing::debug!(%error, "a datagram cannot be sent to an endpoint");
                    return Err(Reason::UpstreamReset);
                }
            }
        }
        Err(Reason::ConnectFailed)
    }

    /// The session of a datagram: the one that is there, or another if its endpoint is gone.
    fn session(self: &Rc<Self>, between: Between) -> Result<Rc<Session>, Reason> {
        let graph = self.worker.graph();
        let session = self.sessions.borrow().get(&between).cloned();
        if let Some(session) = session {
            let datagrams = graph.datagrams.get(&self.number);
            if datagrams.is_some_and(|datagrams| session.holds(&graph, &datagrams.stream)) {
                return Ok(session);
            }
            self.sessions.borrow_mut().remove(&between);
            session.end(None);
        }
        self.begin(between, &graph)
    }

    fn begin(self: &Rc<Self>, between: Between, graph: &Graph) -> Result<Rc<Session>, Reason> {
        let worker = &self.worker;
        if self.is_draining.get() {
            return Err(Reason::Stopped);
        }
        let datagrams = graph.datagrams.get(&self.number).ok_or(Reason::NoRoute)?;
        let (rule, backend) = meet(graph, &datagrams.stream, "");
        let (Some(rule), backend) = (rule, backend?) else { return Err(Reason::NoRoute) };
        let endpoint = pick(backend, &Tried::new()).ok_or(Reason::NoEndpoints)?;
        self.make_room(graph.datagrams.len())?;
        let (client, public_port) = (between.client, datagrams.public_port);
        let mut passage = Passage::begin(worker, StreamKind::Udp, client, public_port);
        passage.section = Some(datagrams.stream.name.clone());
        passage.meets(rule);
        passage.backend = Some(backend.key.clone());
        let session = Session::new(between, graph, backend, endpoint, passage, Open::new(worker))?;
        let session = Rc::new(session);
        self.sessions.borrow_mut().insert(between, Rc::clone(&session));
        spawn_local(timed(Rc::clone(self).answer(Rc::clone(&session))));
        Ok(session)
    }

    /// Gives up a silent session if there are as many as there may be. Each of all `ports` has
    /// an equal share that others cannot take: so there may be twice as many for a while.
    fn make_room(&self, ports: usize) -> Result<(), Reason> {
        let worker = &self.worker;
        if worker.common.pressure.is_critical() {
            return Err(Reason::Overloaded);
        }
        if worker.sessions.get() < worker.common.session_cap {
            return Ok(());
        }
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() < (worker.common.session_cap / ports.max(1)).max(1) {
            return Ok(());
        }
        let silence = |session: &Rc<Session>| session.progress.silence();
        let given_up = sessions.give_up_one(silence).ok_or(Reason::Overloaded)?;
        given_up.end(Some(Reason::Overloaded));
        Ok(())
    }

    /// Passes the answers of a session on until it ends.
    async fn answer(self: Rc<Self>, session: Rc<Session>) {
        let limits = &self.worker.config.limits;
        // What is silent for that long need not be waited for when the process leaves.
        let mut idle = limits.udp_idle;
        loop {
            let silent = session.progress.silent(idle);
            tokio::select! {
                biased;
                () = session.ended.notified() => return,
                () = silent => break,
                () = self.worker.stage.reached(Stage::Draining),
                    if idle > limits.drain_idle => idle = limits.drain_idle,
                () = self.take_answers(&session) => {}
            }
        }
        self.sessions.borrow_mut().remove(&session.between);
        session.end(None);
    }

    async fn take_answers(&self, session: &Session) {
        if session.upstream.readable().await.is_err() {
            return std::future::pending().await;
        }
        self.pass_back(session);
        // Others have their turn, also when there is more.
        yield_now().await;
    }

    fn pass_back(&self, session: &Session) {
        let mut buffer = self.buffer.borrow_mut();
        for _ in 0..BATCH {
            let length = match session.upstream.try_recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    session.refused();
                    continue;
                }
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!(%error, "datagrams of an endpoint cannot be read");
                    }
                    return;
                }
            };
            match self.socket.send(&buffer[..length], session.between) {
                Ok(()) => session.progress.count(&session.progress.sent, length),
                Err(error) => {
                    let full = error.kind() == io::ErrorKind::WouldBlock;
                    let reason = if full { Reason::Overloaded } else { Reason::ClientGone };
                    self.worker.telemetry.datagram_dropped(reason);
                    tracing::debug!(%error, "a datagram cannot be sent to a client");
                }
            }
        }
    }
}
