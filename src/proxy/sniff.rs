//! What a client in clear text speaks, by its first bytes.

use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::http1::spare;
use super::stage::Stage;
use super::timer::timeout;
use super::worker::Worker;

/// How an HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The begin of a connection.
#[derive(Debug)]
pub struct First {
    /// The client begins with the HTTP/2 preface (prior knowledge), not with HTTP/1.
    pub is_http2: bool,
    /// What was read to know that.
    pub read: BytesMut,
}

/// Reads the first bytes. `None` if they are of neither version, or none come in time, or the
/// client leaves: it gets no answer.
pub async fn first(worker: &Worker, stream: &mut TcpStream, limit: Duration) -> Option<First> {
    tokio::select! {
        biased;
        first = timeout(limit, read(stream)) => first.ok().flatten(),
        () = worker.stage.reached(Stage::Closing) => None,
    }
}

async fn read(stream: &mut TcpStream) -> Option<First> {
    let mut read = BytesMut::new();
    loop {
        if poll_fn(|cx| spare::poll_read(stream, cx, &mut read)).await.ok()? == 0 {
            return None;
        }
        match tell(&read) {
            Told::Nothing => {}
            Told::Http2 => return Some(First { is_http2: true, read }),
            Told::Http1 => return Some(First { is_http2: false, read }),
            Told::Neither => return None,
        }
    }
}

/// What the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// A part of the preface.
    Nothing,
    Http2,
    Http1,
    Neither,
}

fn tell(first: &[u8]) -> Told {
    if first.starts_with(PREFACE) {
        return Told::Http2;
    }
    if PREFACE.starts_with(first) {
        return Told::Nothing;
    }
    // An answer in HTTP would be noise to a client whose first line looks like a request's but
    // names no version of HTTP: a broken preface of HTTP/2 (RFC 9113, 3.4), or another protocol.
    let Some(end) = memchr::memchr(b'\n', first) else { return Told::Http1 };
    let line = &first[..end];
    let mut words = line.trim_ascii_end().splitn(4, |byte| *byte == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some(version), None) if !version.starts_with(b"HTTP/") => Told::Neither,
        _ => Told::Http1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_the_version() {
        for (first, told) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"[..], Told::Http2),
            (b"PRI * HT", Told::Nothing),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", Told::Http1),
            (b"GET / HTTP/1.1\r\nhost: a\r\n", Told::Http1),
            (b"GET / HTTP/9.9\r\n", Told::Http1),
            (b"GET /a b HTTP/1.1\r\n", Told::Http1),
            (b"GET /a-very-long", Told::Http1),
            (b"\r\nGET / HTTP/1.1\r\n", Told::Http1),
            (b"INVALID CONNECTION PREFACE\r\n\r\n", Told::Neither),
        ] {
            assert_eq!(tell(first), told, "{}", first.escape_ascii());
        }
    }
}
