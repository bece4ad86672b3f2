//! What a client in clear text speaks, by its first bytes, which stay where they are.

use std::time::Duration;

use tokio::net::TcpStream;

use super::stage::Stage;
use super::timer::{after, timeout};
use super::worker::Worker;

/// How an HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// As much as is looked at.
const LOOK: usize = 128;

/// Whether a client begins with the HTTP/2 preface (prior knowledge) or with HTTP/1. `None` if it
/// sends neither, or nothing in time, or leaves: it gets no answer.
pub async fn is_http2(worker: &Worker, stream: &TcpStream, limit: Duration) -> Option<bool> {
    let mut first = [0; LOOK];
    let look = async {
        loop {
            let read = stream.peek(&mut first).await.ok().filter(|read| *read > 0)?;
            let told = tell(&first[..read]);
            if let Told::Http2 | Told::Http1 = told {
                return Some(told == Told::Http2);
            }
            if told == Told::Neither {
                // Bytes that nobody read would make the end of the connection a reset.
                let _ = stream.try_read(&mut first[..read]);
                return None;
            }
            // A part of the preface: rare enough to look again a little later.
            after(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        first = timeout(limit, look) => first.ok().flatten(),
        () = worker.stage.reached(Stage::Closing) => None,
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
    let line = first.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() == first.len() {
        return Told::Http1;
    }
    let words: Vec<&[u8]> = line.trim_ascii_end().split(|byte| *byte == b' ').collect();
    match words[..] {
        [_, _, version] if !version.starts_with(b"HTTP/") => Told::Neither,
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
