//! A worker: one thread with its own runtime, sockets, connections and pools.
//!
//! A panic inside a task ends that task alone. A worker that ends on its own, or whose
//! accepting ends, would leave sockets that nobody serves: then the process ends.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::accept;
use super::config::Config;
use super::listener::Socket;
use super::pool::Pools;
use super::pressure::Pressure;
use super::stage::{Stage, Stages};
use super::turn::Turns;
use super::udp;
use crate::graph::{RouteGraph, Shared, Transport};
use crate::lifecycle::{Lifecycle, Phase};
use crate::telemetry::{LINES_WAIT, Telemetry, WorkerTelemetry};

/// The graph as a worker holds it: cheap to clone, without an atomic operation.
pub type Graph = Rc<Arc<RouteGraph>>;

/// Closes a socket when it is dropped.
type Close = oneshot::Sender<()>;

/// What all workers share.
#[derive(Debug)]
pub struct Common {
    pub config: Arc<Config>,
    pub shared: Arc<Shared>,
    pub lifecycle: Lifecycle,
    pub telemetry: Arc<Telemetry>,
    pub pressure: Arc<Pressure>,
    /// Client connections, tunnels included.
    pub connections: AtomicUsize,
    pub connection_cap: usize,
    /// UDP sessions.
    pub sessions: AtomicUsize,
    /// Of each worker.
    pub session_cap: usize,
    /// Sockets that accept connections or datagrams.
    pub accepting: AtomicUsize,
    /// Bytes of bodies that are kept for policies.
    pub kept_bytes: Arc<AtomicUsize>,
}

/// What the supervisor of the listeners tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Serve these sockets, which belong to this port.
    Open(u16, Vec<Socket>),
    /// Take what is queued on the port's sockets, then close them.
    Close(Transport, u16),
}

/// The state of one worker; stays on its thread.
#[derive(Debug)]
pub struct Worker {
    pub common: Arc<Common>,
    pub config: Arc<Config>,
    pub telemetry: WorkerTelemetry,
    pub pools: Pools,
    pub stage: Stages,
    pub turns: Turns,
    /// Mirrored requests under way.
    pub mirroring: Cell<usize>,
    /// UDP sessions of this worker.
    pub sessions: Cell<usize>,
    graph: RefCell<Graph>,
    ports: RefCell<FxHashMap<(Transport, u16), Vec<Close>>>,
}

impl Worker {
    fn new(common: Arc<Common>) -> Rc<Self> {
        let config = Arc::clone(&common.config);
        let telemetry = common.telemetry.worker();
        Rc::new(Worker {
            pools: Pools::new(config.limits.clone(), telemetry.clone()),
            telemetry,
            stage: Stages::default(),
            turns: Turns::default(),
            mirroring: Cell::new(0),
            sessions: Cell::new(0),
            graph: RefCell::new(Rc::new(common.shared.load())),
            ports: RefCell::default(),
            config,
            common,
        })
    }

    /// The live graph: one atomic read if it has not changed.
    pub fn graph(&self) -> Graph {
        let mut graph = self.graph.borrow_mut();
        if graph.generation != self.common.shared.generation() {
            *graph = Rc::new(self.common.shared.load());
        }
        Rc::clone(&graph)
    }

    pub fn is_moving(&self) -> bool {
        self.stage.now() >= Stage::Moving
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Open(port, sockets) => {
                sockets.into_iter().for_each(|socket| self.open(port, socket));
            }
            Command::Close(over, port) => drop(self.ports.borrow_mut().remove(&(over, port))),
        }
    }

    fn open(self: &Rc<Self>, port: u16, socket: Socket) {
        let (close, closed) = oneshot::channel();
        self.ports.borrow_mut().entry((socket.transport(), port)).or_default().push(close);
        let guard = AbortOnPanic;
        let worker = Rc::clone(self);
        spawn_local(async move {
            let _guard = guard;
            match socket {
                Socket::Tcp(socket) => accept::run(worker, port, socket, closed).await,
                Socket::Udp(socket) => udp::run(worker, port, socket, closed).await,
            }
        });
    }

    /// Moves from stage to stage as the process leaves.
    async fn leave(self: Rc<Self>) {
        let limits = &self.config.limits;
        let lifecycle = &self.common.lifecycle;
        lifecycle.reached(Phase::Leaving).await;
        tokio::select! {
            () = sleep(limits.move_after) => {}
            () = lifecycle.reached(Phase::Draining) => {}
        }
        self.stage.set(Stage::Moving);
        lifecycle.reached(Phase::Draining).await;
        self.stage.set(Stage::Draining);
        sleep(limits.drain_idle).await;
        self.stage.set(Stage::Closing);
    }

    /// Hands the lines of the access log over.
    async fn log(self: Rc<Self>) {
        let mut ticks = interval(LINES_WAIT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.telemetry.logs() {
            ticks.tick().await;
            self.telemetry.flush();
        }
    }

    /// Lets requests begin that wait for their turn.
    async fn take_turns(self: Rc<Self>) {
        self.turns.run().await;
    }

    /// Closes connections to endpoints that nobody needs.
    async fn sweep(self: Rc<Self>) {
        let mut ticks = interval(Duration::from_secs(5));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // An idle worker lets go of an old graph too.
            drop(self.graph());
            let under_pressure = self.common.pressure.is_high();
            let most = if under_pressure { Duration::ZERO } else { self.pools.idle_timeout() };
            self.pools.sweep(most);
        }
    }
}

/// Runs a worker on the current thread until the process stops.
pub fn run(common: Arc<Common>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let _guard = AbortOnPanic;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("a runtime needs only a few file descriptors, and this is the start");
    runtime.block_on(async move {
        let worker = Worker::new(common);
        spawn_local(Rc::clone(&worker).leave());
        spawn_local(Rc::clone(&worker).sweep());
        spawn_local(Rc::clone(&worker).log());
        spawn_local(Rc::clone(&worker).take_turns());
        let lifecycle = worker.common.lifecycle.clone();
        let mut stopped = std::pin::pin!(lifecycle.reached(Phase::Stopped));
        loop {
            tokio::select! {
                Some(command) = commands.recv() => worker.obey(command),
                () = &mut stopped => return,
            }
        }
    });
    // Dropping the runtime cuts what is still held.
}

/// Ends the process if it is dropped by a panic.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a worker panicked: the process ends, so that no socket is left alone");
            std::process::abort();
        }
    }
}

/// Counts in `counter` until it is dropped.
#[derive(Debug)]
pub struct Counted {
    common: Arc<Common>,
    counter: fn(&Common) -> &AtomicUsize,
}

impl Counted {
    pub fn new(common: &Arc<Common>, counter: fn(&Common) -> &AtomicUsize) -> Self {
        counter(common).fetch_add(1, Ordering::AcqRel);
        Counted { common: Arc::clone(common), counter }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.counter)(&self.common).fetch_sub(1, Ordering::AcqRel);
    }
}
