//! Opens connections, sends one request on each, and keeps them all open.

use std::io::{BufRead, Write, stdin, stdout};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use crate::answer;
use crate::io::{self, Io};

#[derive(clap::Args)]
pub struct Options {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    tls: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let tls = options.tls.then(|| io::tls(false)).transpose()?;
    let mut held = Vec::with_capacity(options.connections);
    for i in 0..options.connections {
        let socket = TcpStream::connect(options.address)
            .with_context(|| format!("connection {} of {}", i + 1, options.connections))?;
        socket.set_nodelay(true)?;
        let mut connection = Io::new(socket, tls.as_ref())?;
        ask(&mut connection)?;
        held.push(connection);
    }
    writeln!(stdout(), "{}", held.len())?;
    stdin().lock().lines().for_each(drop); // until it is closed
    Ok(())
}

fn ask(connection: &mut Io<TcpStream>) -> Result<()> {
    connection.write(b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n")?;
    let mut buffer = [0; 4_096];
    let mut filled = 0;
    loop {
        let n = connection.read(&mut buffer[filled..])?.unwrap_or(0);
        ensure!(n > 0, "the connection was closed instead of an answer");
        filled += n;
        if let Some(head) = answer::head(&buffer[..filled])? {
            ensure!(head.status == 200, "status {}", head.status);
            if filled as u64 >= head.bytes as u64 + head.body {
                return Ok(());
            }
        }
    }
}
