//! A connection with memory: what was read and not yet used, and what is still to be written.
//!
//! An idle connection has none: it reads into memory that all connections of its thread share,
//! and has of its own what came and was not used at once; all of it is given back when the
//! connection rests. Both engines' sides use this; what the bytes mean is not known here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::spare;

/// Data up to this size is copied behind its head, so that both go by one plain write.
const COPIED: usize = 4 * 1024;
/// Beyond this nothing is added before some of it was written.
const FULL: usize = 16 * 1024;

/// See the module's documentation.
#[derive(Debug)]
pub struct Buffered<T> {
    pub io: T,
    /// What was read and nobody has taken.
    pub read: BytesMut,
    /// What goes out next. Only added to while [`Buffered::has_room`].
    pub write: BytesMut,
    /// Follows `write`: too large to be copied.
    large: Bytes,
    /// Follows `large`.
    tail: &'static [u8],
    /// Something was written that the socket may still hold back (TLS).
    is_dirty: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Buffered<T> {
    /// `read` was taken from `io` before.
    pub fn new(io: T, read: BytesMut) -> Self {
        Buffered {
            io,
            read,
            write: BytesMut::new(),
            large: Bytes::new(),
            tail: &[],
            is_dirty: false,
        }
    }

    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// The connection, and what was read of it but not used.
    pub fn into_parts(self) -> (T, BytesMut) {
        (self.io, self.read)
    }

    /// Reads once, behind what is in `read`. 0 is the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        spare::poll_read(&mut self.io, cx, &mut self.read)
    }

    /// Whether more may be added to what is to be written.
    pub fn has_room(&self) -> bool {
        self.takes_more() && self.write.len() < FULL
    }

    /// Nothing waits that more would overtake.
    fn takes_more(&self) -> bool {
        self.large.is_empty() && self.tail.is_empty()
    }

    /// Adds data, then `tail`. Only while [`Buffered::has_room`].
    pub fn push(&mut self, data: Bytes, tail: &'static [u8]) {
        debug_assert!(self.takes_more(), "what is added would overtake what waits");
        if data.len() <= COPIED {
            self.write.extend_from_slice(&data);
            self.write.extend_from_slice(tail);
        } else {
            (self.large, self.tail) = (data, tail);
        }
    }

    /// Whether everything was handed to the socket, and by it to the network.
    pub fn is_flushed(&self) -> bool {
        self.write.is_empty() && self.takes_more() && !self.is_dirty
    }

    /// Writes everything.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !(self.write.is_empty() && self.takes_more()) {
            let is_plain = self.takes_more();
            let io = Pin::new(&mut self.io);
            let polled = if is_plain {
                io.poll_write(cx, &self.write)
            } else {
                let parts = [&self.write[..], &self.large, self.tail].map(io::IoSlice::new);
                // Where there is nothing, the kernel need not look.
                let from = usize::from(self.write.is_empty());
                let to = 3 - usize::from(self.tail.is_empty());
                io.poll_write_vectored(cx, &parts[from..to])
            };
            let written = ready!(polled)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_dirty = true;
            self.advance(written);
        }
        if self.is_dirty {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        if written >= self.write.len() {
            written -= self.write.len();
            self.write.clear();
        } else {
            self.write.advance(written);
            return;
        }
        let of_large = written.min(self.large.len());
        self.large.advance(of_large);
        if self.large.is_empty() {
            // What was read together with it may be used again.
            self.large = Bytes::new();
        }
        self.tail = &self.tail[written - of_large..];
    }

    /// Ends the way out, for good.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Gives back memory that holds nothing: the connection is idle.
    pub fn rest(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        if self.write.is_empty() {
            self.write = BytesMut::new();
        }
    }
}
