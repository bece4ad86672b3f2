//! The bytes of a connection, to a client or to an endpoint, in clear text or over TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::peeked::Peeked;

/// See the module's documentation.
#[derive(Debug)]
pub enum Wire {
    Plain(Peeked),
    Tls(Box<TlsStream<Peeked>>),
}

impl Wire {
    /// A connection in clear text.
    pub fn plain(stream: impl Into<Peeked>) -> Self {
        Wire::Plain(stream.into())
    }

    /// A connection over TLS, of either side.
    pub fn tls(stream: impl Into<TlsStream<Peeked>>) -> Self {
        Wire::Tls(Box::new(stream.into()))
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Wire::Tls(_))
    }

    /// The connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => &stream.io,
            Wire::Tls(stream) => &stream.get_ref().0.io,
        }
    }

    /// Whether nothing has come, as far as the runtime knows: costs no system call, and nobody is
    /// woken when something does.
    pub fn is_quiet(&self) -> bool {
        let ready = self.tcp().try_io(Interest::READABLE, || Ok(()));
        ready.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

macro_rules! either {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Wire::Plain(stream) => {
                let $io = Pin::new(stream);
                $call
            }
            Wire::Tls(stream) => {
                let $io = Pin::new(&mut **stream);
                $call
            }
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_shutdown(cx))
    }
}
