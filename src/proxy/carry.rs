//! Bytes between a client and a backend, both ways at once.
//!
//! Each way ends on its own: the end of a source is passed on to its sink (half-close), while
//! the other way goes on. What is read is written before more is read, so that a slow sink
//! stops its source and memory stays bounded.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use futures_util::future::try_join;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use crate::reason::Reason;

/// Bytes that are held in each direction.
const BUFFER: usize = 16 * 1024;

/// What has passed so far.
#[derive(Debug)]
pub struct Progress {
    last: Cell<Instant>,
    /// From the client.
    pub received: Cell<u64>,
    /// To the client.
    pub sent: Cell<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { last: Cell::new(Instant::now()), received: Cell::new(0), sent: Cell::new(0) }
    }
}

impl Progress {
    /// Notes bytes of one direction.
    pub fn count(&self, direction: &Cell<u64>, bytes: usize) {
        direction.set(direction.get() + bytes as u64);
        self.last.set(Instant::now());
    }

    /// How long nothing has passed.
    pub fn silence(&self) -> Duration {
        self.last.get().elapsed()
    }

    /// Returns once nothing has passed for `idle`; never for zero.
    pub async fn silent(&self, idle: Duration) {
        if idle.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let until = self.last.get() + idle;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

/// Carries bytes until both ways have ended, or until one side breaks or nothing passes for
/// `idle` (zero: for ever).
///
/// # Errors
/// [`Reason::ClientGone`] and [`Reason::UpstreamReset`] say which side broke, and
/// [`Reason::IdleTimeout`] that both were silent. Both sides should be reset then, so that
/// neither takes it for a regular end.
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
    let (mut from_client, mut to_client) = split(client);
    let (mut from_backend, mut to_backend) = split(backend);
    let up = async {
        let count = |bytes| progress.count(&progress.received, bytes);
        match way(&mut from_client, &mut to_backend, count).await {
            Ok(()) => Ok(None),
            Err(Broken::Sink) => Ok(Some(Reason::UpstreamReset)),
            Err(Broken::Source) => Err(Reason::ClientGone),
        }
    };
    let down = async {
        let count = |bytes| progress.count(&progress.sent, bytes);
        match way(&mut from_backend, &mut to_client, count).await {
            Ok(()) => Ok(None),
            Err(Broken::Sink) => Ok(Some(Reason::ClientGone)),
            Err(Broken::Source) => Err(Reason::UpstreamReset),
        }
    };
    let (up, down) = tokio::select! {
        biased;
        ended = try_join(up, down) => ended?,
        () = progress.silent(idle) => return Err(Reason::IdleTimeout),
    };
    up.or(down).map_or(Ok(()), Err)
}

/// Which end of one way broke.
enum Broken {
    /// Nothing can be given back to it either: both ways are over.
    Source,
    /// It takes no more, but what it sent before is still on its way.
    Sink,
}

/// One way, until the source ends; then the sink is told so.
async fn way<S, D>(source: &mut S, sink: &mut D, count: impl Fn(usize)) -> Result<(), Broken>
where
    S: AsyncRead + Unpin,
    D: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = source.read(&mut buffer).await.map_err(|_| Broken::Source)?;
        if read == 0 {
            return sink.shutdown().await.map_err(|_| Broken::Sink);
        }
        count(read);
        write(sink, &buffer[..read]).await.map_err(|_| Broken::Sink)?;
        count(0);
    }
}

async fn write<D: AsyncWrite + Unpin>(sink: &mut D, bytes: &[u8]) -> io::Result<()> {
    sink.write_all(bytes).await?;
    // TLS takes bytes before the socket does.
    sink.flush().await
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::join;

    use super::*;

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
        let (end, ()) = join!(carrying, script(client, backend));
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
