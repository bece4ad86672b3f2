//! One line a request, written by a thread of its own; how a line looks is [`super::line`]'s.
//!
//! Each worker gathers its lines and hands many at once over a bounded queue, without waiting:
//! what finds the queue full is dropped and counted. Waking the writer for each line would cost
//! more than writing it.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::line::{self, Clock};
use super::stream::{self, StreamRecord};
use super::{Outcome, Record};

/// How many bundles may wait for the writer: 8 MiB.
const QUEUE: usize = 256;
/// Bytes at which a bundle is handed over.
const BUNDLE: usize = 32 * 1024;
/// Room for the line that exceeds it.
const LINE: usize = 1024;
/// How long a line may wait for others of its worker.
pub const LINES_WAIT: Duration = Duration::from_millis(50);

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
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_bundles(&bundles, out))?;
        Ok(AccessLog { format, queue, lost: Arc::default() })
    }

    /// How many lines were dropped.
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
        self.flush();
    }
}

/// Writes until all senders are gone. A sink that fails (a closed pipe) loses lines, not
/// requests.
fn write_bundles(bundles: &Receiver<Bundle>, mut out: impl Write) {
    while let Ok(bundle) = bundles.recv() {
        let _ = out.write_all(bundle.text.as_bytes());
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::{outcome, record};

    fn lines(queue: usize) -> (Lines, Receiver<Bundle>) {
        let (queue, bundles) = sync_channel(queue);
        let log = AccessLog { format: Format::Json, queue, lost: Arc::default() };
        (log.lines(), bundles)
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
        log.write(&outcome(), &record("/d"));
        drop(log);
        assert_eq!(bundles.try_recv().unwrap().lines, 1, "the last ones are not forgotten");
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        let (log, _kept) = lines(1);
        for _ in 0..3 {
            log.write(&outcome(), &record("/"));
            log.write(&outcome(), &record("/"));
            log.flush();
        }
        assert_eq!(log.lost.load(Ordering::Relaxed), 4);
    }
}
