//! One line a request, written by a thread of its own; how a line looks is
//! [`super::json`]'s and [`super::text`]'s.
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

use super::append::{Clock, Page};
use super::{Outcome, Record, StreamRecord, json, text};

/// How many bundles may wait for the writer: 8 MiB.
const QUEUE: usize = 128;
/// Bytes at which a bundle is handed over.
const BUNDLE: usize = 64 * 1024;
/// Room for the line that exceeds it.
const LINE: usize = 1024;
/// How many bundles that are written may wait for a worker to fill them again.
const SPARE: usize = 2;
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
#[derive(Debug)]
struct Bundle {
    page: Page,
    lines: u64,
    /// Takes the memory back.
    home: SyncSender<Page>,
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
        let (home, spare) = sync_channel(SPARE);
        Lines {
            format: self.format,
            queue: self.queue.clone(),
            lost: Arc::clone(&self.lost),
            waiting: RefCell::default(),
            home,
            spare,
            clock: Clock::default(),
        }
    }
}

/// Lines that are not handed over yet.
#[derive(Debug, Default)]
struct Waiting {
    page: Page,
    lines: u64,
}

/// The lines of one worker; takes them and never blocks.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    queue: SyncSender<Bundle>,
    lost: Arc<AtomicU64>,
    waiting: RefCell<Waiting>,
    /// The way back for the memory of bundles: so the same few are filled again and again.
    home: SyncSender<Page>,
    spare: Receiver<Page>,
    clock: Clock,
}

impl Lines {
    pub fn write(&self, outcome: &Outcome<'_>, record: &Record<'_>) {
        self.add(|out| match self.format {
            Format::Json => json::request(out, &self.clock, outcome, record),
            Format::Text => text::request(out, &self.clock, outcome, record),
        });
    }

    pub fn write_stream(&self, record: &StreamRecord<'_>) {
        self.add(|out| match self.format {
            Format::Json => json::stream(out, &self.clock, record),
            Format::Text => text::stream(out, &self.clock, record),
        });
    }

    fn add(&self, write: impl FnOnce(&mut Page)) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.page.size() == 0 {
            waiting.page = self.spare.try_recv().unwrap_or_else(|_| Page::new(BUNDLE + LINE));
        }
        write(&mut waiting.page);
        waiting.lines += 1;
        let is_full = waiting.page.filled().len() >= BUNDLE;
        drop(waiting);
        if is_full {
            self.flush();
        }
    }

    /// Hands over what waits.
    pub fn flush(&self) {
        if self.waiting.borrow().lines == 0 {
            return;
        }
        let bundle = self.bundle(None);
        let lines = bundle.lines;
        if self.queue.try_send(bundle).is_err() {
            self.lost.fetch_add(lines, Ordering::Relaxed);
        }
    }

    fn bundle(&self, written: Option<Sender<()>>) -> Bundle {
        let Waiting { page, lines } = self.waiting.take();
        Bundle { page, lines, home: self.home.clone(), _written: written }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let (sender, written) = channel();
        let mut last = self.bundle(Some(sender));
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
    while let Ok(mut bundle) = bundles.recv() {
        if out.write_all(bundle.page.filled()).and_then(|()| out.flush()).is_err() {
            lost.fetch_add(bundle.lines, Ordering::Relaxed);
        }
        bundle.page.clear();
        // What a long line made large is not kept, nor more than what a worker fills meanwhile.
        if bundle.page.size() <= BUNDLE + LINE {
            let _ = bundle.home.try_send(bundle.page);
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
        let bundle = bundles.try_recv().unwrap();
        let text = str::from_utf8(bundle.page.filled()).unwrap();
        assert_eq!((text.lines().count(), text.ends_with("}\n")), (2, true));
        let mut written = 0;
        let full = loop {
            log.write(&outcome(), &record("/c"));
            written += 1;
            if let Ok(bundle) = bundles.try_recv() {
                break bundle;
            }
        };
        assert!(full.lines == written && full.page.filled().len() >= BUNDLE);
        assert_eq!(full.page.size(), BUNDLE + LINE);
        drop(bundles);
    }

    #[test]
    fn memory_of_what_was_written_is_filled_again_unless_it_grew() {
        let (log, bundles) = lines(8);
        let (written, next) = sync_channel(8);
        let fill = |path: &str| {
            log.write(&outcome(), &record(path));
            log.flush();
            let bundle = bundles.try_recv().unwrap();
            let memory = bundle.page.filled().as_ptr().addr();
            written.send(bundle).unwrap();
            memory
        };
        let (first, large) = (fill("/a"), fill(&"/".repeat(BUNDLE + LINE)));
        assert_ne!(first, large);
        drop(written);
        write_bundles(&next, io::sink(), &AtomicU64::default());
        let spares: Vec<_> = log.spare.try_iter().collect();
        assert_eq!(spares.len(), 1);
        log.home.send(spares.into_iter().next().unwrap()).unwrap();
        log.write(&outcome(), &record("/b"));
        assert_eq!(log.waiting.borrow().page.filled().as_ptr().addr(), first);
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
