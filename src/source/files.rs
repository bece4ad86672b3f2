//! Objects from files and folders, read again when they change.
//!
//! Everything is read anew at every change and replaces what was there in one step. What cannot
//! be read keeps its last good version: an object that cannot be decoded, all objects of a file
//! that is no YAML, all objects of a folder that cannot be opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::manifest::{self, Manifest};
use super::reload::{self, Reload};
use super::state::{Arrival, WatchId};
use super::stats::count;
use super::world::Handle;
use super::{KeyTimes, Pace, dns, key_sets};
use crate::translate::{Key, ObjectKind, Settings};

/// Largest file that is read.
const LARGEST: u64 = 64 << 20;
/// Folders in folders that are looked into.
const DEEPEST: usize = 16;

/// A manifest that is compiled in (`run --demo`): a name for messages, and YAML.
#[derive(Clone, Debug)]
pub struct Embedded {
    pub name: String,
    pub text: String,
}

/// Where an object stands: a file and the line where its document begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    pub file: Arc<str>,
    /// From 1; 0: the file as a whole.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Something wrong with a file or with an object in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{origin}: {message}")]
pub struct FileProblem {
    /// The line of the field, if one is known, else where the document begins.
    pub origin: Origin,
    /// The object (`HTTPRoute default/a: `) if it is known, the field, the cause.
    pub message: String,
}

impl FileProblem {
    fn new(file: &Arc<str>, line: u32, message: String) -> Self {
        FileProblem { origin: Origin { file: Arc::clone(file), line }, message }
    }
}

/// See the module's documentation. Dropping it ends its watch of the files.
pub struct FileSource {
    pub(super) world: Handle,
    pub(super) pace: Pace,
    _reload: Reload,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl FileSource {
    /// Reads everything once and begins to watch, on the current tokio runtime and a thread of
    /// its own. With any problem at all nothing starts.
    pub fn start(
        paths: Vec<PathBuf>,
        settings: Arc<Settings>,
        embedded: Vec<Embedded>,
    ) -> Result<FileSource, Vec<FileProblem>> {
        Self::start_with(paths, settings, embedded, KeyTimes::default())
    }

    /// [`FileSource::start`] with other times for the keys of issuers.
    pub fn start_with(
        paths: Vec<PathBuf>,
        settings: Arc<Settings>,
        embedded: Vec<Embedded>,
        times: KeyTimes,
    ) -> Result<FileSource, Vec<FileProblem>> {
        let seen = reload::look(&paths);
        let (world, problems, files) = first(paths, settings, embedded, false);
        if !problems.is_empty() {
            return Err(problems);
        }
        world.brings_keys();
        let mut tasks = vec![tokio::spawn(key_sets::run(world.clone(), times))];
        if world.settings().external_names {
            tasks.push(tokio::spawn(dns::run(world.clone())));
        }
        let tasks = tasks.into_iter().map(AbortOnDropHandle::new).collect();
        match files.objects() {
            0 => warn!("no object of a kind that Tidegate reads is in any of the files"),
            objects => info!(objects, "files read"),
        }
        let reload = Reload::start(files, world.clone(), seen);
        Ok(FileSource { world, pace: Pace::default(), _reload: reload, _tasks: tasks })
    }
}

/// Reads everything once, without watching: what is wrong is returned beside what is right. If
/// `strict`, that is also what the API server would refuse or drop of an object's fields.
pub fn read_once(
    paths: Vec<PathBuf>,
    settings: Arc<Settings>,
    embedded: Vec<Embedded>,
    strict: bool,
) -> (Handle, Vec<FileProblem>) {
    let (world, problems, _) = first(paths, settings, embedded, strict);
    (world, problems)
}

/// The line of a field of an object in the file at `origin`; the origin's own line if the file
/// cannot be read any more.
pub fn line_of(origin: &Origin, kind: ObjectKind, key: &Key, field: &str) -> u32 {
    let text = std::fs::read_to_string(&*origin.file).ok();
    text.and_then(|text| manifest::line_of(&text, kind, key, field)).unwrap_or(origin.line)
}

fn first(
    paths: Vec<PathBuf>,
    settings: Arc<Settings>,
    embedded: Vec<Embedded>,
    strict: bool,
) -> (Handle, Vec<FileProblem>, Files) {
    let world = Handle::new(Arc::clone(&settings), None);
    world.brings(false, settings.external_names);
    let watch = world.new_watch();
    let mut files = Files { paths, embedded, strict, watch, held: BTreeMap::new() };
    let news = files.read();
    let problems = news.problems.clone();
    news.publish(&world, watch);
    (world, problems, files)
}

/// What is read, and what was found there the last time.
pub(super) struct Files {
    pub paths: Vec<PathBuf>,
    embedded: Vec<Embedded>,
    strict: bool,
    watch: WatchId,
    /// The objects of each file that still serve.
    held: BTreeMap<Arc<str>, BTreeSet<(ObjectKind, Key)>>,
}

impl Files {
    /// Reads everything again, while running: problems are told, once each.
    pub fn reload(&mut self, world: &Handle) {
        let before = world.problems();
        let news = self.read();
        let problems = &news.problems;
        for problem in problems.iter().filter(|problem| !before.contains(problem)) {
            warn!("{problem}");
        }
        let objects = self.objects();
        if problems.is_empty() {
            info!(objects, "files read again");
        } else {
            count(&world.stats().reload_errors);
            let problems = problems.len();
            warn!(problems, objects, "files read again; what is wrong keeps its last good version");
        }
        news.publish(world, self.watch);
    }

    fn objects(&self) -> usize {
        self.held.values().map(BTreeSet::len).sum()
    }

    /// Reads everything.
    fn read(&mut self) -> News {
        let mut read = Found { strict: self.strict, ..Found::default() };
        for embedded in &self.embedded {
            read.text(&Arc::from(embedded.name.as_str()), &embedded.text);
        }
        for path in &self.paths {
            read.path(path, true);
        }
        let Found { files, mut problems, lost, .. } = read;
        let mut taken: BTreeMap<(ObjectKind, Key), Option<Origin>> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        let mut held = BTreeMap::new();
        let mut arrivals = Vec::new();
        for (file, manifest) in files {
            let Manifest { arrivals: mut found, problems: wrong, partial } = manifest;
            problems.extend(wrong);
            let mut ids = BTreeSet::new();
            found.retain(|arrival| {
                let id = (arrival.kind, arrival.key.clone());
                if let Some(other) = taken.get(&id) {
                    problems.extend(duplicate(arrival, other.as_ref()));
                    return false;
                }
                taken.insert(id.clone(), arrival.origin().cloned());
                ids.insert(id);
                true
            });
            // Most have all in one file: there are many, so they are not moved about.
            match arrivals.is_empty() {
                true => arrivals = found,
                false => arrivals.append(&mut found),
            }
            if partial {
                ids.extend(self.held.remove(&file).unwrap_or_default());
                kept.extend(ids.iter().cloned());
            }
            held.insert(file, ids);
        }
        for (file, ids) in &self.held {
            let is_lost = lost.iter().any(|lost| Path::new(&**file).starts_with(lost));
            if is_lost && !held.contains_key(file) {
                kept.extend(ids.iter().cloned());
                held.insert(Arc::clone(file), ids.clone());
            }
        }
        arrivals.extend(missing_namespaces(taken.keys().chain(&kept)));
        self.held = held;
        problems.sort();
        News { arrivals, kept, problems }
    }
}

/// What the files hold now.
struct News {
    arrivals: Vec<Arrival>,
    /// What could not be read and stays.
    kept: BTreeSet<(ObjectKind, Key)>,
    problems: Vec<FileProblem>,
}

impl News {
    /// Puts it into the world; the problems first, so that whoever sees the objects sees them.
    fn publish(self, world: &Handle, watch: WatchId) {
        world.set_problems(self.problems);
        world.replace(watch, self.arrivals, &self.kept);
    }
}

fn duplicate(arrival: &Arrival, other: Option<&Origin>) -> Option<FileProblem> {
    let other = other.map(Origin::to_string).unwrap_or_default();
    let message = format!(
        "{} {}: is already at {other}; remove one of the two",
        arrival.kind.kind(),
        arrival.key
    );
    Some(FileProblem { origin: arrival.origin()?.clone(), message })
}

/// A Namespace for each that objects are in and that is in no file.
fn missing_namespaces<'a>(ids: impl Iterator<Item = &'a (ObjectKind, Key)>) -> Vec<Arrival> {
    let mut used = BTreeSet::new();
    let mut there = BTreeSet::new();
    for (kind, key) in ids {
        match kind {
            ObjectKind::Namespace => there.insert(key.name.as_str()),
            _ => used.insert(key.namespace.as_str()),
        };
    }
    used.into_iter()
        .filter(|name| !name.is_empty() && !there.contains(name))
        .filter_map(manifest::namespace)
        .collect()
}

/// What was read in one go.
#[derive(Default)]
struct Found {
    strict: bool,
    files: Vec<(Arc<str>, Manifest)>,
    problems: Vec<FileProblem>,
    /// Paths that could not be opened: what was below them stays.
    lost: Vec<PathBuf>,
    /// The folders that what is being read is in, without links.
    within: Vec<PathBuf>,
}

impl Found {
    fn text(&mut self, file: &Arc<str>, text: &str) {
        self.files.push((Arc::clone(file), manifest::read(file, text, self.strict)));
    }

    /// A file, or a folder and what is in it, in the order of names.
    fn path(&mut self, path: &Path, named: bool) {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => return self.lose(path, &error.to_string()),
        };
        if metadata.is_dir() {
            self.folder(path);
        } else if metadata.is_file() && (named || is_manifest(path)) {
            match read_text(path, metadata.len()) {
                Ok(text) => self.text(&Arc::from(path.to_string_lossy()), &text),
                Err(message) => self.lose(path, &message),
            }
        } else if named {
            self.lose(path, "is neither a file nor a folder");
        }
    }

    fn folder(&mut self, path: &Path) {
        let real = std::fs::canonicalize(path);
        let entries: Result<Vec<_>, _> =
            std::fs::read_dir(path).and_then(|entries| entries.collect());
        let (real, entries) = match (real, entries) {
            (Ok(real), Ok(entries)) => (real, entries),
            (Err(error), _) | (_, Err(error)) => return self.lose(path, &error.to_string()),
        };
        if self.within.contains(&real) {
            return self.lose(path, "is a link to a folder that it is in; remove it");
        }
        if self.within.len() >= DEEPEST {
            return self.lose(path, &format!("more than {DEEPEST} folders in each other"));
        }
        let mut names: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        names.sort();
        self.within.push(real);
        for name in names.iter().filter(|name| !is_hidden(name)) {
            self.path(name, false);
        }
        self.within.pop();
    }

    fn lose(&mut self, path: &Path, message: &str) {
        let file = Arc::from(path.to_string_lossy());
        self.problems.push(FileProblem::new(&file, 0, format!("cannot be read: {message}")));
        self.lost.push(path.to_owned());
    }
}

fn read_text(path: &Path, length: u64) -> Result<String, String> {
    if length > LARGEST {
        return Err(format!("is larger than {} MiB", LARGEST >> 20));
    }
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    // It may grow while it is read.
    file.take(LARGEST).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

pub(super) fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"))
}

/// Also what a ConfigMap's volume keeps its versions in (`..data`).
pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
