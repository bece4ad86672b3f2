//! The backend of every proxy: one thread, prepared answers, no allocation a request.
//!
//! | path | answer |
//! |---|---|
//! | `/10k`, `/1m` | 10,000 and 1,000,000 bytes |
//! | `/auth` | 204, for nginx's auth_request |
//! | `/ws` | a WebSocket that sends every message back |
//! | any other | 100 bytes, after the request's body was read |

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use memchr::memmem;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::answer::field;
use crate::websocket;

const LISTENER: Token = Token(usize::MAX);

struct Answers {
    small: Vec<u8>,
    medium: Vec<u8>,
    large: Vec<u8>,
    empty: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let sized = |length: usize| {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
            )
            .into_bytes();
            answer.resize(answer.len() + length, b'x');
            answer
        };
        Answers {
            small: sized(100),
            medium: sized(10_000),
            large: sized(1_000_000),
            empty: b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        }
    }

    fn get(&self, answer: Answer) -> &[u8] {
        match answer {
            Answer::Small => &self.small,
            Answer::Medium => &self.medium,
            Answer::Large => &self.large,
            Answer::Empty => &self.empty,
        }
    }
}

#[derive(Clone, Copy)]
enum Answer {
    Small,
    Medium,
    Large,
    Empty,
}

struct Connection {
    socket: TcpStream,
    /// Of a head or message that has come in part.
    partial: Vec<u8>,
    state: State,
    /// What is owed: a prepared answer from this byte on.
    owed: Option<(Answer, usize)>,
    /// What is owed of an echo or a handshake.
    out: Vec<u8>,
}

enum State {
    Head,
    /// So many bytes of the request's body are to come, then the answer.
    Body(u64, Answer),
    WebSocket,
}

pub fn serve(address: SocketAddr) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address).with_context(|| address.to_string())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1_024);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let answers = Answers::new();
    let mut buffer = vec![0; 256 * 1_024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&poll, &listener, &mut connections, &mut free)?;
                continue;
            }
            let slot = &mut connections[event.token().0];
            let alive =
                slot.as_mut().is_some_and(|one| one.on(event, &answers, &mut buffer).is_ok());
            if !alive && slot.take().is_some() {
                free.push(event.token().0);
            }
        }
    }
}

fn accept(
    poll: &Poll,
    listener: &TcpListener,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> Result<()> {
    loop {
        let (mut socket, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error).context("accept"),
        };
        socket.set_nodelay(true)?;
        let i = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, Token(i), both)?;
        connections[i] = Some(Connection {
            socket,
            partial: Vec::new(),
            state: State::Head,
            owed: None,
            out: Vec::new(),
        });
    }
}

impl Connection {
    /// An error ends the connection.
    fn on(&mut self, event: &Event, answers: &Answers, buffer: &mut [u8]) -> Result<()> {
        if event.is_writable() && (self.owed.is_some() || !self.out.is_empty()) {
            self.flush(answers)?;
        }
        if !event.is_readable() {
            return Ok(());
        }
        loop {
            let n = match self.socket.read(buffer) {
                Ok(0) => bail!("closed"),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if self.partial.is_empty() {
                let used = self.take(&buffer[..n], answers)?;
                self.partial.extend_from_slice(&buffer[used..n]);
            } else {
                let mut all = std::mem::take(&mut self.partial);
                all.extend_from_slice(&buffer[..n]);
                let used = self.take(&all, answers)?;
                all.drain(..used);
                self.partial = all;
            }
            if n < buffer.len() {
                return Ok(()); // all that was there: epoll(7) says so for streams
            }
        }
    }

    /// Takes whole requests off `input`; returns how many bytes they were.
    fn take(&mut self, input: &[u8], answers: &Answers) -> Result<usize> {
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            match self.state {
                State::Head => {
                    let Some(end) = memmem::find(rest, b"\r\n\r\n") else { break };
                    self.head(std::str::from_utf8(&rest[..end])?)?;
                    used += end + 4;
                    if let State::Body(0, answer) = self.state {
                        self.answer(answer, answers)?;
                    }
                }
                State::Body(left, answer) => {
                    let n = left.min(rest.len() as u64);
                    used += n as usize;
                    self.state = State::Body(left - n, answer);
                    if left == n {
                        self.answer(answer, answers)?;
                    }
                }
                State::WebSocket => {
                    let Some(n) = websocket::echo(rest, &mut self.out) else { break };
                    used += n;
                }
            }
        }
        if !self.out.is_empty() {
            self.flush(answers)?;
        }
        Ok(used)
    }

    fn head(&mut self, head: &str) -> Result<()> {
        let target = head.split(' ').nth(1).context("no target")?;
        let answer = match target {
            "/10k" => Answer::Medium,
            "/1m" => Answer::Large,
            "/auth" => Answer::Empty,
            "/ws" => {
                let key = field(head, "sec-websocket-key").context("no key")?;
                let accept = websocket::accept(key);
                self.out.extend_from_slice(
                    format!(
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                         Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                    )
                    .as_bytes(),
                );
                self.state = State::WebSocket;
                return Ok(());
            }
            _ => Answer::Small,
        };
        if field(head, "transfer-encoding").is_some() {
            bail!("bodies must have a Content-Length");
        }
        let length = match field(head, "content-length") {
            Some(length) => length.parse()?,
            None => 0,
        };
        self.state = State::Body(length, answer);
        Ok(())
    }

    fn answer(&mut self, answer: Answer, answers: &Answers) -> Result<()> {
        if self.owed.is_some() {
            bail!("pipelined requests"); // no proxy of the bench sends them
        }
        self.state = State::Head;
        self.owed = Some((answer, 0));
        self.flush(answers)
    }

    fn flush(&mut self, answers: &Answers) -> Result<()> {
        if let Some((answer, from)) = self.owed.take() {
            let bytes = answers.get(answer);
            let sent = write(&mut self.socket, &bytes[from..])?;
            if from + sent < bytes.len() {
                self.owed = Some((answer, from + sent));
            }
        }
        let sent = write(&mut self.socket, &self.out)?;
        self.out.drain(..sent);
        Ok(())
    }
}

/// Writes until the socket takes no more; returns how much it took.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}
