//! One line a request, written by a thread of its own; how a line looks is [`super::line`]'s.
//!
//! Each worker gathers its lines and hands many at once over a bounded queue, without waiting:
//! what finds the queue full is dropped and counted. Waking the writer for each line would cost
//! more than writing it. Only a worker that ends waits, a second at most, until its lines are
//! written: the process may end right after it.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::time::{Duration, Instant};

use super::line::{self, Clock};
use super::stream::{self, StreamRecord};
use super::{Outcome, Record};

/// How many bundles may wait for the writer: 8 MiB.
const QUEUE: usize = 128;
/// Bytes at which a bundle is handed over.
const BUNDLE: usize = 64 * 1024;
/// Room for the line that exceeds it.
const LINE: usize = 1024;
/// How long a line may wait for others of its worker.
pub const LINES_WAIT: Duration = Duration::from_millis(50);
/// How long a worker that ends waits for the writer: less than the process waits for its workers.
const LAST_WAIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Whole lines on their way to the writer.
#[derive(Debug, Default)]
struct Bundle {
    text: String,
    lines: u64,
    /// Dropped with the bundle, once it is written: who has the other end may wait for that.
    _written: Option<Sender<()>>,
}

/// The log of a process.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    queue: SyncSender<Bundle>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer thread, which ends when nobody has lines for it any more and all is
    /// written.
    pub fn start(format: Format, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, bundles) = sync_channel(QUEUE);
        let lost = Arc::default();
        let also_lost = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_bundles(&bundles, out, &also_lost))?;
        Ok(AccessLog { format, queue, lost })
    }

    /// How many lines were dropped, because the writer or what it writes to could not follow.
    pub fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// For the lines of one worker.
    pub fn lines(&self) -> Lines {
        Lines {
            format: self.format,
            queue: self.queue.clone(),
            lost: Arc::clone(&self.lost),
            waiting: RefCell::default(),
            clock: Clock::default(),
        }
    }
}

/// The lines of one worker; takes them and never blocks.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    queue: SyncSender<Bundle>,
    lost: Arc<AtomicU64>,
    waiting: RefCell<Bundle>,
    clock: Clock,
}

impl Lines {
    pub fn write(&self, outcome: &Outcome<'_>, record: &Record<'_>) {
        let write = if self.format == Format::Json { line::json } else { line::text };
        self.add(|text| write(text, &self.clock, outcome, record));
    }

    pub fn write_stream(&self, record: &StreamRecord<'_>) {
        let write = if self.format == Format::Json { stream::json } else { stream::text };
        self.add(|text| write(text, &self.clock, record));
    }

    fn add(&self, write: impl FnOnce(&mut String)) {
        let mut bundle = self.waiting.borrow_mut();
        if bundle.text.capacity() == 0 {
            bundle.text.reserve(BUNDLE + LINE);
        }
        write(&mut bundle.text);
        bundle.lines += 1;
        let is_full = bundle.text.len() >= BUNDLE;
        drop(bundle);
        if is_full {
            self.flush();
        }
    }

    /// Hands over what waits.
    pub fn flush(&self) {
        let bundle = self.waiting.take();
        let lines = bundle.lines;
        if lines > 0 && self.queue.try_send(bundle).is_err() {
            self.lost.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let (sender, written) = channel();
        let mut last = Bundle { _written: Some(sender), ..self.waiting.take() };
        let lines = last.lines;
        let deadline = Instant::now() + LAST_WAIT;
        loop {
            match self.queue.try_send(last) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => last = back,
                Err(_) => {
                    self.lost.fetch_add(lines, Ordering::Relaxed);
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // The queue is in order: so everything before it is written too. Nothing is ever sent
        // here: it ends with an error when the bundle is gone.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Writes until all senders are gone. A sink that fails (a closed pipe) loses lines, not
/// requests.
fn write_bundles(bundles: &Receiver<Bundle>, mut out: impl Write, lost: &AtomicU64) {
    while let Ok(bundle) = bundles.recv() {
        if out.write_all(bundle.text.as_bytes()).and_then(|()| out.flush()).is_err() {
            lost.fetch_add(bundle.lines, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;
    use crate::telemetry::testing::{outcome, record};

    fn lines(queue: usize) -> (Lines, Receiver<Bundle>) {
        let (queue, bundles) = sync_channel(queue);
        let log = AccessLog { format: Format::Json, queue, lost: Arc::default() };
        (log.lines(), bundles)
    }

    /// Keeps what is written to it, if it is not closed.
    #[derive(Clone, Default)]
    struct Sink {
        written: Arc<Mutex<Vec<u8>>>,
        is_closed: bool,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // As a pipe takes it: in part.
            let bytes = &bytes[..bytes.len().min(1_000)];
            self.written.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_wait_for_others_until_they_are_asked_for_or_many() {
        let (log, bundles) = lines(8);
        log.flush();
        log.write(&outcome(), &record("/a"));
        log.write(&outcome(), &record("/b"));
        assert!(bundles.try_recv().is_err());
        log.flush();
        let text = bundles.try_recv().unwrap().text;
        assert_eq!((text.lines().count(), text.ends_with("}\n")), (2, true));
        let mut written = 0;
        let full = loop {
            log.write(&outcome(), &record("/c"));
            written += 1;
            if let Ok(bundle) = bundles.try_recv() {
                break bundle;
            }
        };
        assert!(full.lines == written && full.text.len() >= BUNDLE);
        assert!(full.text.len() < BUNDLE + LINE && full.text.capacity() <= BUNDLE + LINE);
        drop(bundles);
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        let (log, bundles) = lines(1);
        for _ in 0..3 {
            log.write(&outcome(), &record("/"));
            log.write(&outcome(), &record("/"));
            log.flush();
        }
        assert_eq!(log.lost.load(Ordering::Relaxed), 4);
        drop(bundles);
    }

    #[test]
    fn all_lines_of_a_worker_are_written_whole_and_in_order_when_it_has_ended() {
        const MANY: usize = 1_000;
        let sink = Sink::default();
        let log = AccessLog::start(Format::Json, sink.clone()).unwrap();
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let lines = log.lines();
                std::thread::spawn(move || {
                    for number in 0..MANY {
                        lines.write(&outcome(), &record(&format!("/{worker}/{number}")));
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(log.lost().load(Ordering::Relaxed), 0);
        let written = sink.written.lock().unwrap();
        let mut next = [0; 3];
        for line in str::from_utf8(&written).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let (worker, number) = line["path"].as_str().unwrap()[1..].split_once('/').unwrap();
            let next = &mut next[worker.parse::<usize>().unwrap()];
            assert_eq!(number, next.to_string());
            *next += 1;
        }
        assert_eq!(next, [MANY; 3]);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let sink = Sink { is_closed: true, ..Sink::default() };
        let log = AccessLog::start(Format::Text, sink).unwrap();
        let lines = log.lines();
        lines.write(&outcome(), &record("/"));
        lines.flush();
        lines.write(&outcome(), &record("/"));
        drop(lines);
        assert_eq!(log.lost().load(Ordering::Relaxed), 2);
    }
}
