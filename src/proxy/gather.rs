//! What an HTTP/2 engine writes while it is polled, sent in one piece.
//!
//! The engine flushes after every frame that is longer than a few hundred bytes, so that the
//! answers of streams that were ready together would cost a system call and a TLS record each.
//! Here its writes are copied together and leave when its poll is over, or when there are
//! [`MOST`] bytes. Only what the socket does not take stays with the connection.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are sent at once: what rustls takes at once too.
const MOST: usize = 64 * 1024;

thread_local! {
    /// The memory for all connections of a worker that take what is written.
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// The connection as its engine has it, and whoever polls the engine.
#[derive(Debug)]
pub struct Gather<T>(Rc<RefCell<Inner<T>>>);

#[derive(Debug)]
struct Inner<T> {
    io: T,
    /// What was written and not sent.
    out: BytesMut,
    /// The socket has not got all of it yet.
    is_unsent: bool,
    /// The socket is full: the engine has to wait.
    is_full: bool,
}

impl<T> Gather<T> {
    pub fn new(io: T) -> Self {
        let out = BytesMut::new();
        Gather(Rc::new(RefCell::new(Inner { io, out, is_unsent: false, is_full: false })))
    }

    /// The same connection, for whoever polls the engine.
    pub fn share(&self) -> Self {
        Gather(Rc::clone(&self.0))
    }
}

impl<T: AsyncWrite + Unpin> Gather<T> {
    /// Sends what the engine has written: to be polled after each of its polls.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_unsent {
            return Poll::Ready(Ok(()));
        }
        self.is_full = true;
        while !self.out.is_empty() {
            let taken = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(taken);
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        (self.is_full, self.is_unsent) = (false, false);
        SPARE.set(std::mem::take(&mut self.out));
        Poll::Ready(Ok(()))
    }

    /// Makes room for `bytes`, if there are not too many already.
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<()>> {
        if self.is_full || self.out.len() + bytes > MOST {
            ready!(self.poll_send(cx))?;
        }
        if !self.is_unsent {
            self.is_unsent = true;
            self.out = SPARE.take();
            self.out.clear();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        let bytes = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(MOST);
        ready!(inner.poll_room(cx, bytes))?;
        let mut left = bytes;
        for buf in bufs {
            let part = &buf[..buf.len().min(left)];
            inner.out.extend_from_slice(part);
            left -= part.len();
        }
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The engine flushes often: [`Gather::poll_send`] is what sends.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket with room for some bytes, that notes what each write gave it.
    #[derive(Debug, Default)]
    struct Fake {
        room: usize,
        writes: Vec<Vec<u8>>,
        is_shut: bool,
    }

    impl AsyncWrite for Fake {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.room -= taken;
            self.writes.push(buf[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.is_shut = true;
            Poll::Ready(Ok(()))
        }
    }

    struct Case(Gather<Fake>);

    impl Case {
        fn new(room: usize) -> Self {
            Case(Gather::new(Fake { room, ..Fake::default() }))
        }

        fn cx() -> Context<'static> {
            Context::from_waker(std::task::Waker::noop())
        }

        fn write(&mut self, buf: &[u8]) -> Poll<usize> {
            Pin::new(&mut self.0).poll_write(&mut Self::cx(), buf).map(Result::unwrap)
        }

        fn send(&self) -> Poll<()> {
            self.0.poll_send(&mut Self::cx()).map(Result::unwrap)
        }

        fn written(&self) -> Vec<usize> {
            self.0.0.borrow().io.writes.iter().map(Vec::len).collect()
        }
    }

    #[test]
    fn what_is_written_in_pieces_is_sent_in_one_and_only_when_asked_for() {
        let mut case = Case::new(1000);
        assert_eq!(case.write(b"one "), Poll::Ready(4));
        let parts = [io::IoSlice::new(b"two "), io::IoSlice::new(b"three")];
        let wrote = Pin::new(&mut case.0).poll_write_vectored(&mut Case::cx(), &parts);
        assert_eq!(wrote.map(Result::unwrap), Poll::Ready(9));
        let flushed = Pin::new(&mut case.0).poll_flush(&mut Case::cx());
        assert!(flushed.is_ready() && case.written().is_empty());
        assert_eq!(case.0.share().poll_send(&mut Case::cx()).map(Result::unwrap), Poll::Ready(()));
        assert_eq!(case.0.0.borrow().io.writes, [b"one two three".to_vec()]);
        assert_eq!(case.send(), Poll::Ready(()), "nothing is left");
        assert_eq!(case.0.0.borrow().out.capacity(), 0, "an idle connection has no memory");
    }

    #[test]
    fn more_than_a_socket_takes_stops_the_engine_until_it_is_sent() {
        let mut case = Case::new(10);
        assert_eq!(case.write(&[1; 30]), Poll::Ready(30));
        assert_eq!(case.send(), Poll::Pending);
        assert_eq!(case.write(&[2]), Poll::Pending);
        case.0.0.borrow_mut().io.room = 100;
        assert_eq!(case.write(&[2]), Poll::Ready(1));
        assert_eq!(case.send(), Poll::Ready(()));
        assert_eq!(case.written(), [10, 20, 1]);
    }

    #[test]
    fn there_are_never_more_than_so_many_bytes() {
        let mut case = Case::new(MOST);
        assert_eq!(case.write(&vec![1; MOST + 1]), Poll::Ready(MOST));
        assert_eq!(case.write(&[2; 2]), Poll::Ready(2));
        assert_eq!(case.written(), [MOST], "the first were sent to make room");
        assert_eq!(case.write(&vec![3; MOST]), Poll::Pending);
        assert_eq!(case.0.0.borrow().out.len(), 2);
    }

    #[test]
    fn the_end_comes_after_all_that_was_written() {
        let mut case = Case::new(1);
        assert_eq!(case.write(b"ab"), Poll::Ready(2));
        let shut = |case: &mut Case| Pin::new(&mut case.0).poll_shutdown(&mut Case::cx());
        assert!(shut(&mut case).is_pending() && !case.0.0.borrow().io.is_shut);
        case.0.0.borrow_mut().io.room = 1;
        assert!(shut(&mut case).is_ready() && case.0.0.borrow().io.is_shut);
        assert_eq!(case.written(), [1, 1]);
    }
}
