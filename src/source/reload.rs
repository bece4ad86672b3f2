//! When to read files again: a thread that is told by the operating system, and looks by itself
//! now and then in case it was not told (network file systems, exhausted watches).
//!
//! What counts is whether the files differ (identity, size, time), not which event came: editors
//! rename over a file, and a ConfigMap's volume swaps a link to a folder.

use std::fs::Metadata;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::{error, warn};

use super::files::{Files, is_hidden, is_manifest};
use super::stats::count;
use super::world::Handle;

/// Files are read when they have been quiet for so long, or after `PATIENCE`.
const QUIET: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(1);
/// How often to look without being told.
const LOOK: Duration = Duration::from_secs(2);

enum Wake {
    Changed,
    Stop,
}

/// The thread. Dropping it ends it.
pub(super) struct Reload {
    wake: Sender<Wake>,
}

impl Drop for Reload {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.wake.send(Wake::Stop);
    }
}

impl Reload {
    /// `seen`: what was there before the files were read.
    pub fn start(files: Files, world: Handle, seen: Vec<Seen>) -> Self {
        let (wake, woken) = channel();
        let tell = wake.clone();
        let work = move || run(files, &world, &woken, tell, seen);
        if let Err(error) = thread::Builder::new().name("files".into()).spawn(work) {
            error!("no thread for watching files, they are not read again: {error}");
        }
        Reload { wake }
    }
}

fn run(
    mut files: Files,
    world: &Handle,
    woken: &Receiver<Wake>,
    tell: Sender<Wake>,
    mut seen: Vec<Seen>,
) {
    let _watcher = watch(&files.paths, tell.clone());
    // Nobody was told of what changed before the watch began. We hold the other end.
    let _ = tell.send(Wake::Changed);
    drop(tell);
    loop {
        match woken.recv_timeout(LOOK) {
            Ok(Wake::Changed) if settle(woken) => {}
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
        let now = look(&files.paths);
        if now == seen {
            continue;
        }
        seen = now;
        let work = AssertUnwindSafe(|| files.reload(world));
        if catch_unwind(work).is_err() {
            count(&world.stats().panics);
            error!("reading the files panicked; what was read before stays");
        }
    }
}

/// Waits until nothing happens any more. False: it is time to end.
fn settle(woken: &Receiver<Wake>) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match woken.recv_timeout(QUIET) {
            Ok(Wake::Changed) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}

/// Asks the operating system to tell of changes: for a file in its folder, because it may be
/// replaced; for a folder in all that is below it.
fn watch(paths: &[PathBuf], tell: Sender<Wake>) -> Option<RecommendedWatcher> {
    let changed = move |_| {
        // The thread may have ended already.
        let _ = tell.send(Wake::Changed);
    };
    let result = notify::recommended_watcher(changed).and_then(|mut watcher| {
        for path in paths {
            if path.is_dir() {
                watcher.watch(path, RecursiveMode::Recursive)?;
            } else {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let folder = parent.unwrap_or(Path::new("."));
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
        }
        Ok(watcher)
    });
    match result {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            warn!("files are looked at every {} s instead of watched: {error}", LOOK.as_secs());
            None
        }
    }
}

/// Number, length and time of the last change, of the rights too: they decide whether a file can
/// be read.
type State = (u64, u64, i64, i64);

/// A file as it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    path: PathBuf,
    /// None: it could not be looked at.
    state: Option<State>,
}

/// All files that would be read.
pub(super) fn look(paths: &[PathBuf]) -> Vec<Seen> {
    let mut seen = Vec::new();
    for path in paths {
        look_at(path, true, 0, &mut seen);
    }
    seen
}

fn look_at(path: &Path, named: bool, depth: usize, seen: &mut Vec<Seen>) {
    let metadata = std::fs::metadata(path).ok();
    match &metadata {
        Some(metadata) if metadata.is_dir() && depth < 16 => {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let mut names: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            names.sort();
            for name in names.iter().filter(|name| !is_hidden(name)) {
                look_at(name, false, depth + 1, seen);
            }
        }
        _ if named || is_manifest(path) => {
            let state = metadata.as_ref().map(identity);
            seen.push(Seen { path: path.to_owned(), state });
        }
        _ => {}
    }
}

fn identity(metadata: &Metadata) -> State {
    use std::os::unix::fs::MetadataExt;
    (metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec())
}
