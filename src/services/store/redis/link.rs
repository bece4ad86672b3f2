//! One connection of one worker, kept up in the background.
//!
//! A link finds its server, connects, and proves the connection by the very script that requests
//! will ask: only then it is used. A connection that is not proven in the circuit's current epoch
//! is proven again first. No request waits for any of this but those of a worker that has only
//! just begun.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::config::Address;
use super::connect::{Connected, connect, login};
use super::failure::Failure;
use super::script::{Question, probe};
use super::sentinel;

/// Between attempts to connect or to prove: doubled from the shortest to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// How often the Sentinels are asked whether the master is still the same: one that was cut off
/// from them may not know that it is not.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Which server a link leads to.
#[derive(Clone, Debug)]
pub enum Target {
    /// This one.
    Address(Address),
    /// The one that the Sentinels of the configuration name.
    Master,
}

pub struct Link {
    shared: Arc<Shared>,
    target: Target,
    /// What proves that the server can decide.
    probe: Question,
    live: ArcSwapOption<Live>,
    /// Somebody needs the connection proven.
    wake: Notify,
    has_started: AtomicBool,
    started: Notify,
}

struct Live {
    connection: MultiplexedConnection,
    /// The epoch in which it last was; 0: never, or it was refused since.
    proven: AtomicU64,
}

/// What became of an attempt to prove a connection.
enum Proof {
    Good,
    /// It may be good later: slow, full, loading.
    NotNow(Failure),
    /// Another connection is needed.
    Lost(Failure),
}

impl Link {
    /// A link that connects from now on, on the current runtime, until `closed`. `tag` is a hash
    /// tag that the server has the slot of.
    pub fn start(
        shared: &Arc<Shared>,
        target: Target,
        tag: &str,
        closed: CancellationToken,
    ) -> Arc<Self> {
        let link = Arc::new(Link {
            shared: Arc::clone(shared),
            target,
            probe: probe(&shared.config.key_prefix, tag),
            live: ArcSwapOption::empty(),
            wake: Notify::new(),
            has_started: AtomicBool::new(false),
            started: Notify::new(),
        });
        let keeper = Arc::clone(&link);
        tokio::spawn(async move {
            closed.run_until_cancelled(keeper.keep()).await;
            keeper.live.store(None);
        });
        link
    }

    /// Whether questions can be asked at once.
    pub fn is_live(&self) -> bool {
        self.live.load().as_ref().is_some_and(|live| self.is_proven(live))
    }

    /// Asks without waiting for a connection.
    pub async fn ask(&self, question: &Question) -> Result<Vec<i64>, Failure> {
        self.asked(question, false).await
    }

    /// Asks a node that takes a slot over (`ASKING`).
    pub async fn ask_ahead(&self, question: &Question) -> Result<Vec<i64>, Failure> {
        self.asked(question, true).await
    }

    async fn asked(&self, question: &Question, ahead: bool) -> Result<Vec<i64>, Failure> {
        let live = self.live.load_full().ok_or(Failure::Down)?;
        if !self.is_proven(&live) {
            self.wake.notify_one();
            return Err(Failure::Open);
        }
        let answer = send(&live.connection, question, ahead).await;
        if let Err(failure) = &answer
            && failure.redirect().is_none()
        {
            // The server itself said that it cannot: the next answer has to be seen first.
            live.proven.store(0, Ordering::Relaxed);
            self.wake.notify_one();
        }
        answer
    }

    /// Any other command, for whoever keeps links: not proven, and not bounded in time.
    pub async fn command<T: redis::FromRedisValue>(&self, cmd: &redis::Cmd) -> Result<T, Failure> {
        let live = self.live.load_full().ok_or(Failure::Down)?;
        let mut connection = live.connection.clone();
        cmd.query_async(&mut connection).await.map_err(|error| Failure::of(&error))
    }

    /// Returns once the first attempt to connect is over, however it ended.
    pub async fn started(&self) {
        if self.has_started.load(Ordering::Acquire) {
            return;
        }
        let mut notified = pin!(self.started.notified());
        notified.as_mut().enable();
        if !self.has_started.load(Ordering::Acquire) {
            notified.await;
        }
    }

    fn is_proven(&self, live: &Live) -> bool {
        live.proven.load(Ordering::Relaxed) == self.shared.circuit.epoch()
    }

    fn has_tried(&self) {
        if !self.has_started.swap(true, Ordering::AcqRel) {
            self.started.notify_waiters();
        }
    }

    async fn keep(&self) {
        let mut pause = SHORTEST_PAUSE;
        let mut told = None;
        loop {
            let failure = match self.connect().await {
                Ok((address, connected)) => {
                    let (failure, was_live) = self.hold(&address, connected).await;
                    self.live.store(None);
                    if was_live {
                        (pause, told) = (SHORTEST_PAUSE, None);
                    }
                    failure
                }
                Err(failure) => failure,
            };
            self.has_tried();
            if told.as_ref() != Some(&failure) {
                tracing::warn!(server = ?self.target, cause = failure.as_str(), "no store");
                told = Some(failure);
            }
            // A little by chance, so that many workers and pods do not come at once.
            sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<(Address, Connected), Failure> {
        let shared = &self.shared;
        let config = &shared.config;
        let connecting = async {
            let address = match &self.target {
                Target::Address(address) => address.clone(),
                Target::Master => sentinel::master(shared).await?,
            };
            let login = login(&config.credentials, config.database);
            let connected = connect(&address, shared.tls.as_ref(), &login).await?;
            Ok((address, connected))
        };
        timeout(config.connect_timeout, connecting).await.unwrap_or(Err(Failure::Timeout))
    }

    /// Keeps a connection until it is of no use any more. Why, and whether it ever was.
    async fn hold(&self, address: &Address, (connection, driver): Connected) -> (Failure, bool) {
        let live = Arc::new(Live { connection, proven: AtomicU64::new(0) });
        let mut was_live = false;
        let failure = tokio::select! {
            () = driver => Failure::Broken,
            failure = self.prove_and_wait(address, &live, &mut was_live) => failure,
        };
        (failure, was_live)
    }

    async fn prove_and_wait(
        &self,
        address: &Address,
        live: &Arc<Live>,
        was_live: &mut bool,
    ) -> Failure {
        let mut pause = SHORTEST_PAUSE;
        loop {
            if !self.is_proven(live) {
                match self.prove(live).await {
                    Proof::Good => {
                        if !*was_live {
                            *was_live = true;
                            tracing::info!(%address, "the store answers");
                            self.live.store(Some(Arc::clone(live)));
                            self.has_tried();
                        }
                        pause = SHORTEST_PAUSE;
                    }
                    Proof::NotNow(failure) => {
                        tracing::debug!(%address, cause = failure.as_str(), "the store cannot serve");
                        self.has_tried();
                        sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                    Proof::Lost(failure) => return failure,
                }
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep(LOOK_AGAIN), if matches!(self.target, Target::Master) => {
                    let named = timeout(LOOK_AGAIN, sentinel::master(&self.shared)).await;
                    // Sentinels that do not answer do not make a master a bad one.
                    if named.is_ok_and(|named| named.is_ok_and(|named| named != *address)) {
                        return Failure::ReadOnly;
                    }
                }
            }
        }
    }

    /// Asks what requests will ask. An answer that comes too late proves nothing, but the
    /// connection is still good for another attempt.
    async fn prove(&self, live: &Live) -> Proof {
        let config = &self.shared.config;
        let epoch = self.shared.circuit.epoch();
        let begun = Instant::now();
        let most = config.connect_timeout.max(config.timeout);
        let Ok(answer) = timeout(most, send(&live.connection, &self.probe, false)).await else {
            return Proof::Lost(Failure::Timeout);
        };
        match answer {
            Err(failure) if failure.is_wrong_server() => Proof::Lost(failure),
            Err(failure) if failure.redirect().is_none() => Proof::NotNow(failure),
            _ if begun.elapsed() > config.timeout => Proof::NotNow(Failure::Timeout),
            _ => {
                live.proven.store(epoch, Ordering::Relaxed);
                Proof::Good
            }
        }
    }
}

/// Asks by the script's name, and with the script itself if the server does not know it.
async fn send(
    connection: &MultiplexedConnection,
    question: &Question,
    ahead: bool,
) -> Result<Vec<i64>, Failure> {
    let mut connection = connection.clone();
    let known = once(&mut connection, question.by_name(), ahead).await;
    let answer = match known {
        Err(error) if is_unknown(&error) => once(&mut connection, question.in_full(), ahead).await,
        answer => answer,
    };
    answer.map_err(|error| Failure::of(&error))
}

fn is_unknown(error: &redis::RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript)
}

fn once<'a>(
    connection: &'a mut MultiplexedConnection,
    cmd: redis::Cmd,
    ahead: bool,
) -> BoxFuture<'a, redis::RedisResult<Vec<i64>>> {
    Box::pin(async move {
        if ahead {
            let mut pipe = redis::pipe();
            pipe.cmd("ASKING").ignore().add_command(cmd);
            let (answer,) = pipe.query_async(connection).await?;
            return Ok(answer);
        }
        cmd.query_async(connection).await
    })
}
