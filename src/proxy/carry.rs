//! Bytes between a client and a backend, both ways at once.
//!
//! Each way ends on its own: the end of a source is passed on to its sink (half-close), while
//! the other way goes on. What is read is written before more is read, so that a slow sink
//! stops its source and memory stays bounded. Bytes pass through one buffer that all of a
//! worker's connections share: a connection has memory of its own only for what its sink did
//! not take at once, so that an idle tunnel costs none.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock;
use super::http1::spare;
use super::paced::Lanes;
use super::timer::poll_until;
use crate::reason::Reason;

/// Bytes that are read at once, and the most that one way holds.
const BUFFER: usize = spare::SIZE;

thread_local! {
    /// Where bytes are on their way from a source to its sink, in one poll.
    static PASSING: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// What has passed so far.
#[derive(Debug)]
pub struct Progress {
    /// In [`clock::ms`].
    last: Cell<u64>,
    /// From the client.
    pub received: Cell<u64>,
    /// To the client.
    pub sent: Cell<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { last: Cell::new(clock::ms()), received: Cell::new(0), sent: Cell::new(0) }
    }
}

impl Progress {
    /// Notes bytes of one direction.
    pub fn count(&self, direction: &Cell<u64>, bytes: usize) {
        direction.set(direction.get() + bytes as u64);
        self.last.set(clock::ms());
    }

    /// How long nothing has passed.
    pub fn silence(&self) -> Duration {
        Duration::from_millis(clock::ms().saturating_sub(self.last.get()))
    }

    /// Returns once nothing has passed for `idle`; never for zero.
    pub async fn silent(&self, idle: Duration) {
        poll_fn(|_| self.poll_silent(idle)).await;
    }

    fn poll_silent(&self, idle: Duration) -> Poll<()> {
        if idle.is_zero() {
            return Poll::Pending;
        }
        poll_until(self.last.get().saturating_add(clock::millis(idle)))
    }
}

/// Carries bytes until both ways have ended, or until one side breaks or nothing passes for
/// `idle` (zero: for ever).
///
/// # Errors
/// [`Reason::ClientGone`] and [`Reason::UpstreamReset`] say which side broke, and
/// [`Reason::IdleTimeout`] that both were silent. Both sides should be reset then, so that
/// neither takes it for a regular end.
///
/// Its task has to be [`timed`](super::timer::timed).
pub async fn carry<C, B>(
    client: &mut C,
    backend: &mut B,
    progress: &Progress,
    idle: Duration,
) -> Result<(), Reason>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    carry_paced(client, backend, progress, idle, Default::default()).await
}

/// The same, where bytes from the client and to it stand in lines.
///
/// # Errors
/// Those of [`carry`].
pub async fn carry_paced<C, B>(
    client: &mut C,
    backend: &mut B,
    progress: &Progress,
    idle: Duration,
    lanes: [Lanes; 2],
) -> Result<(), Reason>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let [mut up, mut down] = lanes.map(|lanes| Way { lanes, ..Way::default() });
    poll_fn(|cx| {
        let count = |bytes| progress.count(&progress.received, bytes);
        let up = up.poll(cx, client, backend, count).map_err(|_| Reason::ClientGone)?;
        let count = |bytes| progress.count(&progress.sent, bytes);
        let down = down.poll(cx, backend, client, count).map_err(|_| Reason::UpstreamReset)?;
        match (up, down) {
            (Poll::Ready(End::Passed), Poll::Ready(End::Passed)) => Poll::Ready(Ok(())),
            (Poll::Ready(End::Refused), Poll::Ready(_)) => Poll::Ready(Err(Reason::UpstreamReset)),
            (Poll::Ready(_), Poll::Ready(End::Refused)) => Poll::Ready(Err(Reason::ClientGone)),
            _ => progress.poll_silent(idle).map(|()| Err(Reason::IdleTimeout)),
        }
    })
    .await
}

/// One way: from a source to its sink.
#[derive(Default)]
struct Way {
    state: State,
    /// What the sink has not taken yet.
    held: Vec<u8>,
    /// How much of that it has taken.
    at: usize,
    lanes: Lanes,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Reading,
    /// What is held passes at this moment of [`clock::ms`].
    Waiting(u64),
    /// The sink has to take what is held, and then to let it go: TLS takes bytes before the
    /// socket does.
    Writing,
    /// The source ended: the sink has to be told.
    Closing,
    Ended(End),
}

/// How a way ended.
#[derive(Clone, Copy)]
enum End {
    /// The source's end was passed on.
    Passed,
    /// The sink takes no more, but what it sent before is still on its way.
    Refused,
}

/// A source broke: nothing can be given back to it either, so both ways are over.
struct Broken;

impl Way {
    /// Carries until the source or the sink has to be waited for. May be asked again after the
    /// end.
    fn poll<S, D>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut D,
        count: impl Fn(usize),
    ) -> Poll<Result<End, Broken>>
    where
        S: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        loop {
            self.state = match self.state {
                State::Ended(end) => return Poll::Ready(Ok(end)),
                State::Closing => match ready!(Pin::new(&mut *sink).poll_shutdown(cx)) {
                    Ok(()) => State::Ended(End::Passed),
                    Err(_) => State::Ended(End::Refused),
                },
                State::Writing => {
                    let was_slow = !self.held.is_empty();
                    match ready!(self.write_held(cx, sink)) {
                        true => {
                            // That the sink takes it at last is progress too.
                            if was_slow {
                                count(0);
                            }
                            State::Reading
                        }
                        false => State::Ended(End::Refused),
                    }
                }
                State::Waiting(due) => {
                    // Who waits for a turn is not silent.
                    count(0);
                    ready!(poll_until(due));
                    State::Writing
                }
                State::Reading if !self.lanes.is_free() => match ready!(self.hold(cx, source))? {
                    0 => State::Closing,
                    read => {
                        count(read);
                        State::Waiting(self.lanes.reserve(read))
                    }
                },
                State::Reading => match ready!(self.pass(cx, source, sink))? {
                    0 => State::Closing,
                    read => {
                        count(read);
                        State::Writing
                    }
                },
            }
        }
    }

    /// Reads once, and holds what the sink does not take at once. How much was read. That the
    /// sink is broken shows when it is given what is held.
    fn pass<S, D>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut D,
    ) -> Poll<Result<usize, Broken>>
    where
        S: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        PASSING.with_borrow_mut(|passing| {
            let mut buffer = ReadBuf::new(passing);
            ready!(Pin::new(source).poll_read(cx, &mut buffer)).map_err(|_| Broken)?;
            let read = buffer.filled();
            if !read.is_empty() {
                let written = match Pin::new(sink).poll_write(cx, read) {
                    Poll::Ready(Ok(written)) => written,
                    Poll::Ready(Err(_)) | Poll::Pending => 0,
                };
                self.held.extend_from_slice(&read[written..]);
            }
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Reads once, no more than may pass at once, and holds it. How much was read.
    fn hold<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
    ) -> Poll<Result<usize, Broken>> {
        PASSING.with_borrow_mut(|passing| {
            let most = passing.len().min(self.lanes.most_at_once());
            let mut buffer = ReadBuf::new(&mut passing[..most]);
            ready!(Pin::new(source).poll_read(cx, &mut buffer)).map_err(|_| Broken)?;
            self.held.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// Gives the sink what is held, and frees that. Whether the sink is good.
    fn write_held<D: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut D,
    ) -> Poll<bool> {
        let mut sink = Pin::new(sink);
        while self.at < self.held.len() {
            match ready!(sink.as_mut().poll_write(cx, &self.held[self.at..])) {
                Ok(written) if written > 0 => self.at += written,
                _ => return Poll::Ready(false),
            }
        }
        (self.held, self.at) = (Vec::new(), 0);
        sink.poll_flush(cx).map(|flushed| flushed.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::join;

    use super::*;
    use crate::proxy::timer::timed;

    /// Carries between small pipes while `script` plays client and backend. How the stream
    /// ended, and what was received and sent.
    async fn play(
        idle: Duration,
        script: impl AsyncFnOnce(DuplexStream, DuplexStream),
    ) -> (Result<(), Reason>, u64, u64) {
        let (client, mut client_side) = duplex(1024);
        let (backend, mut backend_side) = duplex(1024);
        let progress = Progress::default();
        let carrying = async {
            let end = carry(&mut client_side, &mut backend_side, &progress, idle).await;
            drop((client_side, backend_side));
            end
        };
        let (end, ()) = timed(async { join!(carrying, script(client, backend)) }).await;
        (end, progress.received.get(), progress.sent.get())
    }

    async fn rest(stream: &mut DuplexStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn each_way_ends_on_its_own() {
        let end = play(Duration::ZERO, async |mut client, mut backend| {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(rest(&mut backend).await, b"question");
            backend.write_all(b"a late answer").await.unwrap();
            backend.shutdown().await.unwrap();
            assert_eq!(rest(&mut client).await, b"a late answer");
        });
        assert_eq!(end.await, (Ok(()), 8, 13));
    }

    #[tokio::test]
    async fn a_sink_that_takes_nothing_stops_its_source() {
        let idle = Duration::from_millis(50);
        let end = play(idle, async |mut client, _backend| {
            assert!(client.write_all(&[0; 1 << 20]).await.is_err(), "all of it was taken");
        });
        let (end, received, _) = end.await;
        assert_eq!(end, Err(Reason::IdleTimeout));
        assert!(received <= BUFFER as u64, "{received}");
    }

    #[tokio::test]
    async fn what_a_backend_sent_before_it_went_reaches_the_client() {
        let end = play(Duration::ZERO, async |mut client, mut backend| {
            backend.write_all(b"last words").await.unwrap();
            drop(backend);
            client.write_all(b"to nobody").await.unwrap();
            assert_eq!(rest(&mut client).await, b"last words");
        });
        assert_eq!(end.await.0, Err(Reason::UpstreamReset));
    }
}
