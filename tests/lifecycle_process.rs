//! The whole program as a process: start, serve, leave. With the demo, so that nothing is needed.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

mod ports;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");
/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A demo on ports of its own. Killed when dropped.
struct Demo {
    process: Child,
    admin: SocketAddr,
    http: SocketAddr,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    ports::free_port(ports::OF_PROXIES)
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Demo {
    fn start(delay: &str) -> Self {
        Self::start_with(delay, Stdio::null())
    }

    fn start_with(delay: &str, stdout: Stdio) -> Self {
        let (admin, http) = (at(free_port()), at(free_port()));
        let offset = http.port() - 80;
        let process = Command::new(TIDEGATE)
            .args(["run", "--demo", "--drain-delay", delay, "--workers", "1"])
            .args(["--admin", &admin.to_string(), "--port-offset", &offset.to_string()])
            .args(["--log-format", "json"])
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let demo = Demo { process, admin, http };
        demo.until(|| status(demo.admin, "/readyz") == Some(200));
        demo
    }

    fn until(&self, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < PATIENCE, "waited in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// The exit code.
    fn end(mut self) -> Option<i32> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the process does not end")
    }
}

/// The status of the answer to a GET on a new connection; None if there is no answer.
fn status(addr: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

fn drain(demo: &Demo, delay: &str) -> Output {
    let admin = demo.admin.to_string();
    Command::new(TIDEGATE)
        .args(["drain", "--admin", &admin, "--drain-delay", delay])
        .output()
        .unwrap()
}

#[test]
fn a_process_that_is_told_to_leave_still_serves_for_the_delay() {
    let demo = Demo::start("2s");
    assert_eq!(status(demo.http, "/"), Some(200));
    let told = Instant::now();
    demo.signal();
    demo.until(|| status(demo.admin, "/readyz") == Some(503));
    assert_eq!(status(demo.admin, "/livez"), Some(200));
    while told.elapsed() < Duration::from_millis(1500) {
        assert_eq!(status(demo.http, "/"), Some(200), "{:?} after SIGTERM", told.elapsed());
    }
    assert_eq!(demo.end(), Some(0));
    assert!(told.elapsed() >= Duration::from_secs(2), "the delay was not kept");
}

#[test]
fn drain_lasts_as_long_as_the_delay_and_the_process_ends_by_itself() {
    let demo = Demo::start("1s");
    let began = Instant::now();
    let output = drain(&demo, "1s");
    assert!(output.status.success(), "{output:?}");
    assert!(began.elapsed() >= Duration::from_secs(1), "it did not wait");
    assert_eq!(demo.end(), Some(0));
}

#[test]
fn drain_of_a_process_that_is_leaving_already_succeeds() {
    let demo = Demo::start("1s");
    demo.signal();
    demo.until(|| status(demo.admin, "/readyz") == Some(503));
    assert!(drain(&demo, "1s").status.success());
    assert_eq!(demo.end(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait() {
    let demo = Demo::start("1h");
    demo.signal();
    demo.until(|| status(demo.admin, "/readyz") == Some(503));
    demo.signal();
    assert_eq!(demo.end(), Some(0));
}

#[test]
fn a_line_of_the_access_log_comes_out_without_further_requests() {
    let mut demo = Demo::start_with("0s", Stdio::piped());
    let stdout = BufReader::new(demo.process.stdout.take().unwrap());
    assert_eq!(status(demo.http, "/alone"), Some(200));
    let mut lines = stdout.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"path\":\"/alone\"")));
}

#[test]
fn the_last_request_before_the_end_is_in_the_access_log() {
    let mut demo = Demo::start_with("1h", Stdio::piped());
    let stdout = BufReader::new(demo.process.stdout.take().unwrap());
    demo.signal();
    demo.until(|| status(demo.admin, "/readyz") == Some(503));
    assert_eq!(status(demo.http, "/last"), Some(200));
    demo.signal();
    assert_eq!(demo.end(), Some(0));
    let mut lines = stdout.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"path\":\"/last\"")));
}

#[test]
fn a_broken_file_at_start_is_named_and_ends_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.yaml");
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports: [{port: x}]\n";
    std::fs::write(&file, text).unwrap();
    let output = Command::new(TIDEGATE)
        .args(["run", "--admin", &at(free_port()).to_string(), "--from"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("broken.yaml:5"), "{told}");
    assert!(told.contains("spec.ports[0].port"), "{told}");
}

#[test]
fn an_admin_address_in_use_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let admin = taken.local_addr().unwrap().to_string();
    let output =
        Command::new(TIDEGATE).args(["run", "--demo", "--admin", &admin]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&admin) && told.contains("--admin"), "{told}");
}
