//! Memory that all connections of a thread read into, one after the other.
//!
//! Nobody knows before a read how much there is. So everybody reads into room for much, which
//! is the same for all and stays in the processor's cache. Little is copied out, into memory of
//! its own size. Much is lent: the next reads go behind it, or into other memory, until it was
//! given back.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::head::LITTLE;

/// The most that is read at once, in bytes. It goes out again by one write, as one segment of the
/// kernel's: these have some 65,000 bytes, and what is a little longer costs a second one. 64 KiB
/// cost a fifth more than this (`docs/performance.md`).
pub const SIZE: usize = 60 * 1024;
/// The least room that is worth a read while what was read before is lent.
const LEAST: usize = 16 * 1024;

thread_local! {
    static SPARE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Reads once, behind what is in `read`. 0 is the end of the stream.
pub fn poll_read<T: AsyncRead + Unpin>(
    io: &mut T,
    cx: &mut Context<'_>,
    read: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    // A long head that comes in parts is not to be copied for each of them.
    if read.len() > LITTLE {
        return poll_read_buf(Pin::new(io), cx, read);
    }
    SPARE.with_borrow_mut(|spare| {
        make_room(spare);
        spare.extend_from_slice(read);
        let polled = poll_read_buf(Pin::new(io), cx, spare);
        match polled {
            Poll::Ready(Ok(1..)) if spare.len() > LITTLE => *read = spare.split(),
            Poll::Ready(Ok(1..)) => *read = BytesMut::from(&spare[..]),
            _ => {}
        }
        spare.clear();
        polled
    })
}

/// All of it again, once nothing of it is lent.
fn make_room(spare: &mut BytesMut) {
    if !spare.try_reclaim(SIZE) && spare.capacity() < LEAST {
        *spare = BytesMut::with_capacity(SIZE);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// What is there after a read of `bytes` behind `held`.
    fn read(held: &[u8], mut bytes: &[u8]) -> BytesMut {
        let mut read = BytesMut::from(held);
        let cx = &mut Context::from_waker(Waker::noop());
        let polled = poll_read(&mut bytes, cx, &mut read);
        assert!(matches!(polled, Poll::Ready(Ok(n)) if n + held.len() == read.len()), "{polled:?}");
        read
    }

    #[test]
    fn little_has_memory_of_its_own_size() {
        let little = read(b"ab", b"cd");
        assert_eq!(little, "abcd");
        assert!(little.capacity() < 64, "{}", little.capacity());
    }

    #[test]
    fn much_comes_at_once_and_into_the_same_memory_again() {
        let much = vec![b'x'; SIZE];
        let place = |read: &BytesMut| read.as_ptr();
        let first = read(b"", &much);
        assert_eq!(first, much);
        let at = place(&first);
        drop(first);
        assert_eq!(place(&read(b"", &much)), at);
        let behind = read(b"what was held", &much[..LITTLE]);
        assert!(behind.starts_with(b"what was heldxxx"));
        assert_eq!(place(&behind), at);
    }

    #[test]
    fn what_is_lent_stays_as_it_is() {
        let part = |n: u8| vec![n; SIZE / 3];
        let lent: Vec<BytesMut> = (0..20).map(|n| read(b"", &part(n))).collect();
        for (n, lent) in (0..).zip(lent) {
            assert_eq!(lent, part(n));
        }
    }

    #[test]
    fn the_end_and_a_wait_change_nothing() {
        let held = read(b"held", b"");
        assert_eq!(held, "held");
        assert_eq!(read(b"", b"next"), "next", "nothing is left of it for others");
    }

    #[test]
    fn what_is_long_and_comes_in_parts_grows_in_memory_of_its_own() {
        let long = vec![b'x'; LITTLE + 1];
        let mut held = read(b"", &long);
        for _ in 0..SIZE {
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(poll_read(&mut &b"y"[..], cx, &mut held).is_ready());
        }
        assert_eq!(held.len(), LITTLE + 1 + SIZE);
    }
}
