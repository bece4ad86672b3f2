//! Accepting connections on one socket of one worker.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::server;
use super::timer::timed;
use super::worker::{Counted, Worker};

/// How long nothing is accepted when descriptors or connections have run out.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until `closed` fires or its sender is gone; what is queued by then is still taken.
pub async fn run(
    worker: Rc<Worker>,
    port: u16,
    socket: StdListener,
    mut closed: oneshot::Receiver<()>,
) {
    let _accepting = Counted::new(&worker.common, |common| &common.accepting);
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, port, "a bound socket cannot be used"),
    };
    loop {
        tokio::select! {
            biased;
            _ = &mut closed => break,
            (stream, peer) = next(&worker, &listener) => serve(&worker, port, stream, peer),
        }
    }
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        serve(&worker, port, stream, peer);
    }
}

fn serve(worker: &Rc<Worker>, port: u16, stream: TcpStream, peer: SocketAddr) {
    // Counted before it is served, so that the next one meets the cap.
    let counted = Counted::new(&worker.common, |common| &common.connections);
    spawn_local(timed(server::serve(Rc::clone(worker), port, stream, peer, counted)));
}

/// The next connection. Errors that pass are waited out: the queue is the kernel's meanwhile.
async fn next(worker: &Worker, listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        let common = &worker.common;
        if common.connections.load(Ordering::Acquire) >= common.connection_cap {
            sleep(PAUSE).await;
            continue;
        }
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting pauses");
                sleep(PAUSE).await;
            }
        }
    }
}

/// The client was gone before it was accepted.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
