//! Real Redis servers for tests: processes of their own, on free loopback ports, with folders of
//! their own, gone with the test.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::ports;
use tempfile::TempDir;
use tidegate::services::store::redis::{Address, Redis, RedisConfig};
use tidegate::services::store::{Algorithm, Check, Store as _, StoreError, Verdict};
use tokio::runtime::{Builder, LocalOptions};

/// A limit for everything that should happen soon.
pub const SOON: Duration = Duration::from_secs(20);

/// A port that nobody else has, for a server.
pub fn free_port() -> u16 {
    ports::free_port(ports::OF_SERVERS)
}

/// A running server. It is killed with this.
pub struct Server {
    child: Child,
    pub port: u16,
    pub dir: TempDir,
    args: Vec<String>,
    tls: bool,
}

impl Server {
    pub fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Server::start_in(dir, free_port(), args.iter().map(|arg| (*arg).to_owned()).collect())
    }

    /// Speaks TLS only, with this certificate and key (files).
    pub fn start_tls(certificate: &Path, key: &Path) -> Self {
        let port = free_port();
        let [certificate, key] = [certificate, key].map(|path| path.to_str().unwrap().to_owned());
        let args = ["--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"]
            .into_iter()
            .chain(["--tls-cert-file", &certificate, "--tls-key-file", &key])
            .map(str::to_owned)
            .collect();
        Server::start_in(tempfile::tempdir().unwrap(), port, args)
    }

    fn start_in(dir: TempDir, port: u16, args: Vec<String>) -> Self {
        let tls = args.iter().any(|arg| arg == "--tls-port");
        let child = spawn(&dir, port, &args);
        let mut server = Server { child, port, dir, args, tls };
        server.wait();
        server
    }

    /// The same again: same port, same folder, same settings.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.dir, self.port, &self.args);
        self.wait();
    }

    fn wait(&mut self) {
        let begun = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(begun.elapsed() < SOON, "redis-server does not listen: {}", self.log());
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        assert!(done.success());
    }

    pub fn address(&self) -> Address {
        format!("127.0.0.1:{}", self.port).parse().unwrap()
    }

    pub fn config(&self) -> RedisConfig {
        patient(RedisConfig::single(self.address()))
    }

    /// A connection that is not ours, to look and to harm.
    pub fn client(&self) -> redis::Connection {
        self.client_of("")
    }

    /// The same as a user (`:password@`) or in a database.
    pub fn client_of(&self, login: &str) -> redis::Connection {
        assert!(!self.tls, "tests look into servers without TLS only");
        let client = redis::Client::open(format!("redis://{login}127.0.0.1:{}/", self.port));
        client.unwrap().get_connection().unwrap()
    }

    /// Sends one command, its words apart by spaces.
    pub fn command<T: redis::FromRedisValue>(&self, words: &str) -> T {
        command(&mut self.client(), words)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn command<T: redis::FromRedisValue>(client: &mut redis::Connection, words: &str) -> T {
    let mut words = words.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        cmd.arg(word);
    });
    cmd.query(client).unwrap()
}

fn spawn(dir: &TempDir, port: u16, args: &[String]) -> Child {
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut command = Command::new("redis-server");
    let sentinel = args.first().is_some_and(|arg| arg == "--sentinel");
    if sentinel {
        command.arg(path("sentinel.conf")).args(["--sentinel", "--port", &port.to_string()]);
    } else if !args.iter().any(|arg| arg == "--tls-port") {
        command.args(["--port", &port.to_string()]);
    }
    if !sentinel {
        command.args(["--save", "", "--appendonly", "no"]).args(args);
    }
    command.args(["--bind", "127.0.0.1", "--dir", dir.path().to_str().unwrap()]);
    command.args(["--logfile", &path("log"), "--daemonize", "no"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| {
        panic!("redis-server cannot be started ({error}): install it (Debian: redis-server)")
    })
}

/// A Sentinel that watches `master` as `name` from the start. A majority of `quorum` decides.
pub fn sentinel(name: &str, master: &Server, quorum: usize) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        format!("sentinel monitor {name} 127.0.0.1 {} {quorum}", master.port),
        format!("sentinel down-after-milliseconds {name} 500"),
        format!("sentinel failover-timeout {name} 3000"),
    ];
    std::fs::write(dir.path().join("sentinel.conf"), lines.join("\n") + "\n").unwrap();
    Server::start_in(dir, free_port(), vec!["--sentinel".into()])
}

/// With a timeout that a busy machine keeps too.
pub fn patient(config: RedisConfig) -> RedisConfig {
    RedisConfig { timeout: Duration::from_secs(1), ..config }
}

/// Runs as a worker of the proxy does: on one thread, with a runtime of its own.
pub fn on_worker<T>(future: impl Future<Output = T>) -> T {
    let builder = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    builder.unwrap().block_on(future)
}

pub fn store(config: &RedisConfig) -> Arc<Redis> {
    Redis::shared(config).unwrap()
}

/// `limit` a minute.
pub fn check(key: &str, algorithm: Algorithm, limit: u64) -> Check {
    Check {
        key: key.as_bytes().into(),
        tag: "test".into(),
        algorithm,
        limit,
        burst: limit,
        window_ms: 60_000,
        cost: 1,
    }
}

pub async fn ask(store: &Redis, check: &Check) -> Result<Verdict, StoreError> {
    store.decide(std::slice::from_ref(check)).await.map(|verdicts| verdicts[0])
}

/// Asks until there is an answer. How long that took.
pub async fn answers(store: &Redis, check: &Check) -> Duration {
    let begun = Instant::now();
    while let Err(error) = ask(store, check).await {
        assert!(begun.elapsed() < SOON, "no answer: {error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

/// Asks until there is none any more.
pub async fn fails(store: &Redis, check: &Check) -> StoreError {
    let begun = Instant::now();
    loop {
        match ask(store, check).await {
            Err(error) => return error,
            Ok(_) => assert!(begun.elapsed() < SOON, "it still answers"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}
