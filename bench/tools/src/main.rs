//! What stands on both sides of the proxies that `bench/run` measures.
//!
//! `origin` is the backend: fixed answers at a cost so low that the proxy is the bottleneck.
//! `load` is a client for what wrk and h2load cannot do: a fixed rate, a connection or a TLS
//! handshake for every request, random hosts, WebSocket. `hold` keeps connections open.

mod answer;
mod grpc;
mod histogram;
mod hold;
mod io;
mod load;
mod origin;
mod ticker;
mod websocket;

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(about = "An origin and load clients for bench/run")]
enum Command {
    /// Answers HTTP/1.1 and WebSocket at one address, gRPC (HTTP/2 in clear) at another
    Origin {
        #[arg(long)]
        http: SocketAddr,
        #[arg(long)]
        grpc: SocketAddr,
    },
    /// Sends requests for a time and prints what came of them, as JSON
    Load(load::Options),
    /// Opens connections, sends a request on each, and keeps them until stdin ends
    Hold(hold::Options),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Origin { http, grpc } => {
            std::thread::Builder::new().name("grpc".into()).spawn(move || grpc::serve(grpc))?;
            origin::serve(http)
        }
        Command::Load(options) => load::run(options),
        Command::Hold(options) => hold::run(&options),
    }
}
