//! `tidegate drain`: what a pod's preStop hook runs.
//!
//! The image has no shell and no sleep, so the hook must last by itself as long as load
//! balancers need: the process at the admin address answers when its drain delay is over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::parse;

/// Beyond the delay: for a busy machine.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The admin address of the process, as it was given to `run`. Only its port matters: the
    /// process is asked over loopback.
    #[arg(long, env = "TIDEGATE_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:9901",
          value_parser = parse::address)]
    admin: SocketAddr,
    /// The delay that was given to `run`: the answer is waited for as long, and 5 s more.
    #[arg(long, env = "TIDEGATE_DRAIN_DELAY", value_name = "TIME", default_value = "10s",
          value_parser = parse::duration)]
    drain_delay: Duration,
}

/// Exit code 0 also if the process was leaving already or ends while we wait; 1 if it cannot be
/// reached.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let addr = loopback(args.admin);
    let patience = args.drain_delay + GRACE;
    eprintln!("asking the process at {addr} to leave; waiting {patience:?} at most");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(patience, ask(addr)).await });
    match outcome {
        Ok(Ok(StatusCode::OK)) => eprintln!("the delay is over: it takes no new work"),
        Ok(Ok(status)) => anyhow::bail!("the process at {addr} answered {status} to POST /drain"),
        Ok(Err(Asked::Never(error))) => return Err(error),
        Ok(Err(Asked::Ended)) => eprintln!("the process has ended"),
        Err(_) => eprintln!("it is leaving, and did not answer within {patience:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// How asking failed.
#[derive(Debug)]
enum Asked {
    Never(anyhow::Error),
    /// The question arrived, and the connection ended before the answer.
    Ended,
}

async fn ask(addr: SocketAddr) -> Result<StatusCode, Asked> {
    let stream = TcpStream::connect(addr)
        .await
        .with_context(|| format!("no process can be reached at the admin address {addr}"))
        .map_err(Asked::Never)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| Asked::Never(error.into()))?;
    let request = Request::post("/drain")
        .header(http::header::HOST, addr.to_string())
        .body(Empty::new())
        .map_err(|error| Asked::Never(error.into()))?;
    let connection = async {
        // Its end is seen by whoever waits for the answer.
        let _ = connection.await;
        std::future::pending::<StatusCode>().await
    };
    tokio::select! {
        answer = sender.send_request(request) => match answer {
            Ok(answer) => Ok(answer.status()),
            Err(_) => Err(Asked::Ended),
        },
        never = connection => Ok(never),
    }
}

/// The loopback address of the same family, unless the admin address is one itself.
fn loopback(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, admin.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_asked_over_loopback() {
        let at = |text: &str| loopback(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:9901"), "127.0.0.1:9901");
        assert_eq!(at("10.1.2.3:9000"), "127.0.0.1:9000");
        assert_eq!(at("127.0.0.5:9901"), "127.0.0.5:9901");
        assert_eq!(at("[::]:9901"), "[::1]:9901");
    }

    fn ask_of(answer: &'static str) -> (Result<StatusCode, Asked>, String) {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let process = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let n = stream.read(&mut head).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&head[..n]).into_owned()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(ask(addr));
        (outcome, process.join().unwrap())
    }

    #[test]
    fn a_process_that_ends_before_its_answer_was_drained() {
        let (outcome, head) = ask_of("");
        assert!(matches!(outcome, Err(Asked::Ended)), "{outcome:?}");
        assert!(head.starts_with("POST /drain HTTP/1.1\r\n"), "{head}");
    }

    #[test]
    fn the_answer_is_the_status() {
        let (outcome, _) = ask_of("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
        assert!(matches!(outcome, Ok(StatusCode::FORBIDDEN)), "{outcome:?}");
    }

    #[test]
    fn nobody_there_is_an_error() {
        let addr = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(matches!(runtime.block_on(ask(addr)), Err(Asked::Never(_))));
    }
}
