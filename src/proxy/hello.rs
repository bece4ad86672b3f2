//! The first message of a TLS client, read before anybody answers it: by its server name we
//! learn whether HTTP is spoken on the connection, or whose stream it is.
//!
//! Every byte that was read is read again by whoever ends the TLS, here or in a backend.

use std::io;

use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of a ClientHello, with the heads of its records. One with a key exchange that resists
/// quantum computers has less than 2 KiB; the protocol itself would allow 16 MiB.
const LONGEST: usize = 16 * 1024;

/// What a client said first.
#[derive(Debug)]
pub struct Hello {
    /// Every byte that was read.
    pub bytes: Vec<u8>,
    /// In lower case, without a trailing dot.
    pub server_name: Option<Box<str>>,
}

/// Reads until the ClientHello is complete, however its bytes are cut into segments and records.
/// A client that says something else is told so, as TLS has it.
///
/// # Errors
/// The connection broke, it says something else than TLS, or more than [`LONGEST`] bytes.
pub async fn read(tcp: &mut TcpStream) -> io::Result<Hello> {
    let mut parser = Parser::default();
    let mut bytes = Vec::with_capacity(2048);
    loop {
        let before = bytes.len();
        if before >= LONGEST {
            return Err(invalid("a ClientHello that is too long"));
        }
        if tcp.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parser.feed(&bytes[before..]) {
            Ok(None) => {}
            Ok(Some(server_name)) => return Ok(Hello { bytes, server_name: server_name.0 }),
            Err(refused) => {
                // It has no matter whether the client still listens.
                let _ = tcp.write_all(&refused.alert).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, refused.error));
            }
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A hello is complete: its server name, if it has one.
#[derive(Debug, PartialEq, Eq)]
struct ServerName(Option<Box<str>>);

/// It is no hello: what the client is to be told, and the log.
#[derive(Debug)]
struct Refused {
    alert: Vec<u8>,
    error: rustls::Error,
}

/// The part of rustls that understands a hello and answers nothing.
#[derive(Default)]
struct Parser(Acceptor);

impl Parser {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<Option<ServerName>, Refused> {
        let no_hello = |error| Refused { alert: Vec::new(), error };
        while !bytes.is_empty() {
            match self.0.read_tls(&mut bytes) {
                Ok(read) if read > 0 => {}
                _ => return Err(no_hello(rustls::Error::HandshakeNotComplete)),
            }
            match self.0.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    return Ok(Some(ServerName(hello.server_name().map(normal))));
                }
                Err((error, mut alert)) => {
                    let mut refused = no_hello(error);
                    // Writing to memory cannot fail.
                    let _ = alert.write_all(&mut refused.alert);
                    return Err(refused);
                }
            }
        }
        Ok(None)
    }
}

/// A server name as hosts are compared.
fn normal(name: &str) -> Box<str> {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::graph::{BackendTls, Roots};

    /// The first bytes of a client that asks for `name`.
    fn hello(name: Option<&str>) -> Vec<u8> {
        let tls = BackendTls::new("unused.example", &Roots::System, false);
        let mut config = (*tls.unwrap().config).clone();
        config.enable_sni = name.is_some();
        let name = name.unwrap_or("unused.example").to_owned().try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let mut records = Vec::new();
        for part in hello[5..].chunks(size) {
            records.extend_from_slice(&hello[..3]);
            records.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
            records.extend_from_slice(part);
        }
        records
    }

    /// What the parser says of bytes that come in pieces of `size`.
    fn parse(bytes: &[u8], size: usize) -> Result<Option<ServerName>, Refused> {
        let mut parser = Parser::default();
        for part in bytes.chunks(size) {
            if let Some(name) = parser.feed(part)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn name(name: &str) -> Option<ServerName> {
        Some(ServerName(Some(name.into())))
    }

    #[test]
    fn the_server_name_is_found_however_the_hello_is_cut() {
        let hello = hello(Some("A.Example.COM"));
        for size in [1, 7, 100, hello.len()] {
            assert_eq!(parse(&hello, size).unwrap(), name("a.example.com"), "pieces of {size}");
        }
        for size in [1, 50, 1000] {
            let records = in_records(&hello, size);
            assert_eq!(parse(&records, 600).unwrap(), name("a.example.com"), "records of {size}");
        }
    }

    #[test]
    fn a_hello_without_a_name_is_one_too() {
        assert_eq!(parse(&hello(None), 300).unwrap(), Some(ServerName(None)));
    }

    #[test]
    fn a_part_of_a_hello_is_none() {
        let hello = hello(Some("a.example"));
        assert_eq!(parse(&hello[..hello.len() - 1], 1000).unwrap(), None);
    }

    #[test]
    fn what_is_no_tls_is_refused_at_once_with_an_alert() {
        for bytes in [&b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n"[..], &[0; 64], &[0x16; 64]] {
            let refused = parse(bytes, bytes.len()).unwrap_err();
            assert_eq!(refused.alert.first().copied().unwrap_or(21), 21, "{:?}", refused.error);
        }
        // A record of alerts, and a handshake that begins with another message.
        for bytes in [[21, 3, 1, 0, 2, 1, 0, 0, 0], [22, 3, 1, 0, 4, 14, 0, 0, 0]] {
            assert!(parse(&bytes, 9).is_err(), "{bytes:?}");
        }
    }
}
