//! A client with many connections in one thread: as fast as it goes, or at a fixed rate.

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;

use crate::answer;
use crate::histogram::Histogram;
use crate::io::{self, Io};
use crate::ticker::Ticker;
use crate::websocket;

const TICKER: Token = Token(usize::MAX);
/// After so many failed exchanges the numbers would say nothing.
const MAX_ERRORS: u64 = 1_000;

#[derive(clap::Args)]
pub struct Options {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    seconds: u64,
    /// Requests a second, sent whether or not earlier ones were answered; as many as possible
    /// if absent
    #[arg(long)]
    rate: Option<u32>,
    /// End after so many, if that is earlier
    #[arg(long)]
    requests: Option<u64>,
    #[arg(long, default_value = "/")]
    path: String,
    /// The hosts h0.bench.example to hN.bench.example, at random
    #[arg(long)]
    hosts: Option<usize>,
    /// A new connection for every request
    #[arg(long)]
    close: bool,
    #[arg(long)]
    tls: bool,
    /// TLS sessions are resumed; it is an error if they are not
    #[arg(long)]
    resume: bool,
    /// Instead of requests, WebSocket messages of this many bytes
    #[arg(long)]
    websocket: Option<u16>,
}

struct Connection {
    io: Io<TcpStream>,
    state: State,
    /// When the request on the way was sent or should have been.
    since: Instant,
    /// Which request is on the way, and how much of it was written.
    request: usize,
    written: usize,
    /// How much is in the buffer.
    filled: usize,
    buffer: Box<[u8; 2_048]>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Idle,
    Head,
    Rest(u64),
    /// The answer is complete; the server has to close.
    Closing,
    Upgrading,
    Echo(usize),
}

struct Client {
    options: Options,
    /// One for each connection: sessions are resumed by the one that had them.
    tls: Vec<Arc<ClientConfig>>,
    requests: Vec<Vec<u8>>,
    poll: Poll,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    due: Vec<usize>,
    ticker: Option<Ticker>,
    random: u64,
    latencies: Histogram,
    done: u64,
    resumed: u64,
    errors: u64,
    last_error: String,
}

pub fn run(options: Options) -> Result<()> {
    let mut client = Client::new(options)?;
    let began = Instant::now();
    let end = began + Duration::from_secs(client.options.seconds);
    let mut events = Events::with_capacity(1_024);
    client.start()?;
    let mut now = Instant::now();
    let enough = client.options.requests.unwrap_or(u64::MAX);
    while now < end && client.done < enough {
        client.send_due(now)?;
        client.poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            match &client.ticker {
                Some(ticker) if event.token() == TICKER => ticker.clear()?,
                _ => client.on(event.token().0)?,
            }
        }
        now = Instant::now();
    }
    client.report(began.elapsed())
}

impl Client {
    fn new(options: Options) -> Result<Self> {
        ensure!(options.rate != Some(0), "--rate must be at least 1");
        let poll = Poll::new()?;
        let ticker =
            options.rate.map(|rate| Ticker::new(poll.registry(), TICKER, rate)).transpose()?;
        let clients = if options.tls { options.connections } else { 0 };
        let tls = (0..clients).map(|_| io::tls(options.resume)).collect::<Result<_>>()?;
        Ok(Client {
            tls,
            requests: requests(&options),
            poll,
            connections: Vec::new(),
            idle: Vec::new(),
            due: Vec::new(),
            ticker,
            random: 0x9e37_79b9_7f4a_7c15,
            latencies: Histogram::new(),
            done: 0,
            resumed: 0,
            errors: 0,
            last_error: String::new(),
            options,
        })
    }

    fn start(&mut self) -> Result<()> {
        for i in 0..self.options.connections {
            let connection = self.connect(i)?;
            self.connections.push(connection);
            if self.options.websocket.is_some() {
                self.connections[i].state = State::Upgrading;
                self.on(i)?;
            } else if self.free(i) {
                self.on(i)?;
            }
        }
        Ok(())
    }

    fn connect(&self, i: usize) -> Result<Connection> {
        let mut socket = TcpStream::connect(self.options.address)?;
        socket.set_nodelay(true)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(i), both)?;
        Ok(Connection {
            io: Io::new(socket, self.tls.get(i))?,
            state: State::Idle,
            since: Instant::now(),
            request: 0,
            written: 0,
            filled: 0,
            buffer: Box::new([0; 2_048]),
        })
    }

    /// The connection can take a request: at once, or when the next is due. Whether it took one.
    fn free(&mut self, i: usize) -> bool {
        if self.ticker.is_some() {
            self.idle.push(i);
            return false;
        }
        self.begin(i, Instant::now());
        true
    }

    fn send_due(&mut self, now: Instant) -> Result<()> {
        let Some(mut ticker) = self.ticker.take() else { return Ok(()) };
        while !self.idle.is_empty() {
            let Some(at) = ticker.due(now) else { break };
            if let Some(i) = self.idle.pop() {
                self.begin(i, at);
                self.due.push(i);
            }
        }
        self.ticker = Some(ticker);
        while let Some(i) = self.due.pop() {
            self.on(i)?;
        }
        Ok(())
    }

    fn begin(&mut self, i: usize, since: Instant) {
        let request = self.next_request();
        let connection = &mut self.connections[i];
        connection.since = since;
        connection.request = request;
        connection.written = 0;
        connection.state = match self.options.websocket {
            Some(length) => State::Echo(websocket::echo_bytes(length)),
            None => State::Head,
        };
    }

    fn next_request(&mut self) -> usize {
        if self.options.websocket.is_some() {
            return 1;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % self.requests.len() as u64) as usize
    }

    /// Drives a connection as far as it goes.
    fn on(&mut self, i: usize) -> Result<()> {
        loop {
            let close = self.options.close;
            match self.connections[i].drive(&self.requests, close) {
                Ok(false) => return Ok(()),
                Ok(true) => {
                    self.count(i);
                    if close {
                        self.connections[i] = self.connect(i)?;
                    }
                }
                Err(error) => {
                    self.failed(&error)?;
                    self.connections[i] = self.connect(i)?;
                }
            }
            if !self.free(i) {
                return Ok(());
            }
        }
    }

    fn count(&mut self, i: usize) {
        let connection = &self.connections[i];
        self.latencies.add(connection.since.elapsed());
        self.done += 1;
        self.resumed += u64::from(connection.io.resumed());
    }

    fn failed(&mut self, error: &anyhow::Error) -> Result<()> {
        self.errors += 1;
        self.last_error = format!("{error:#}");
        let bearable = self.errors < MAX_ERRORS && self.options.websocket.is_none();
        ensure!(bearable, "{} errors; the last: {}", self.errors, self.last_error);
        Ok(())
    }

    fn report(&self, took: Duration) -> Result<()> {
        if self.options.resume {
            let floor = self.done * 9 / 10;
            ensure!(self.resumed >= floor, "{} of {} resumed", self.resumed, self.done);
        }
        writeln!(
            stdout(),
            "{{\"requests\": {}, \"seconds\": {:.6}, \"errors\": {}, \"resumed\": {}, \
             \"p50_us\": {:.1}, \"p99_us\": {:.1}, \"last_error\": {:?}}}",
            self.done,
            took.as_secs_f64(),
            self.errors,
            self.resumed,
            self.latencies.quantile_us(0.5),
            self.latencies.quantile_us(0.99),
            self.last_error,
        )?;
        Ok(())
    }
}

impl Connection {
    /// Writes what is left of the request, reads what there is. True: the exchange is complete.
    fn drive(&mut self, requests: &[Vec<u8>], close: bool) -> Result<bool> {
        loop {
            if self.state == State::Idle {
                return Ok(false);
            }
            if !self.flush(&requests[self.request])? && self.written == 0 {
                return Ok(false);
            }
            let Some(n) = self.io.read(&mut self.buffer[self.filled..])? else {
                return Ok(false);
            };
            if n == 0 {
                ensure!(self.state == State::Closing, "closed before the answer's end");
                return Ok(true);
            }
            self.filled += n;
            if self.take(close)? {
                return Ok(true);
            }
        }
    }

    /// Whether all of the request is written.
    fn flush(&mut self, request: &[u8]) -> Result<bool> {
        while self.written < request.len() {
            match self.io.write(&request[self.written..])? {
                Some(n) => self.written += n,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes what was read. True: the answer is complete, and no close is waited for.
    fn take(&mut self, close: bool) -> Result<bool> {
        match self.state {
            State::Head | State::Upgrading => {
                let Some(head) = answer::head(&self.buffer[..self.filled])? else {
                    ensure!(self.filled < self.buffer.len(), "the head is too large");
                    return Ok(false);
                };
                let wanted = if self.state == State::Head { 200 } else { 101 };
                ensure!(head.status == wanted, "status {}", head.status);
                let body = self.filled - head.bytes;
                ensure!(body as u64 <= head.body, "more bytes than announced");
                self.state = State::Rest(head.body - body as u64);
            }
            State::Rest(left) => {
                ensure!(self.filled as u64 <= left, "more bytes than announced");
                self.state = State::Rest(left - self.filled as u64);
            }
            State::Echo(left) => {
                ensure!(self.filled <= left, "more bytes than sent");
                self.state = if self.filled == left {
                    State::Rest(0)
                } else {
                    State::Echo(left - self.filled)
                };
            }
            State::Idle | State::Closing => bail!("bytes that nobody asked for"),
        }
        self.filled = 0;
        if self.state != State::Rest(0) {
            return Ok(false);
        }
        self.state = if close { State::Closing } else { State::Idle };
        Ok(!close)
    }
}

/// All that may be sent; for a WebSocket, the handshake and the message.
fn requests(options: &Options) -> Vec<Vec<u8>> {
    let path = &options.path;
    if let Some(length) = options.websocket {
        let handshake = format!(
            "GET {path} HTTP/1.1\r\nHost: bench.example\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
            websocket::KEY
        );
        return vec![handshake.into_bytes(), websocket::message(length)];
    }
    let fields = if options.close { "Connection: close\r\n" } else { "" };
    let request = |host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    match options.hosts {
        None => vec![request("bench.example").into_bytes()],
        Some(hosts) => {
            (0..hosts).map(|i| request(&format!("h{i}.bench.example")).into_bytes()).collect()
        }
    }
}
