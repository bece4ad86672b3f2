//! A TCP connection of which some bytes were read already: they are read again first.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// See the module's documentation.
#[derive(Debug)]
pub struct Peeked {
    /// What is still to be read again.
    read: Vec<u8>,
    at: usize,
    pub tcp: TcpStream,
}

impl Peeked {
    /// `read` was taken from `tcp` before.
    pub fn new(read: Vec<u8>, tcp: TcpStream) -> Self {
        Peeked { read, at: 0, tcp }
    }
}

impl Peeked {
    /// Ready when reading gives something.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.read.is_empty() {
            true => self.tcp.poll_read_ready(cx),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl From<TcpStream> for Peeked {
    fn from(tcp: TcpStream) -> Self {
        Peeked::new(Vec::new(), tcp)
    }
}

impl AsyncRead for Peeked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let rest = &self.read[self.at..];
        let now = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..now]);
        self.at += now;
        if self.at == self.read.len() {
            self.read = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peeked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
