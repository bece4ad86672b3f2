//! The rules of one host, found by path.

use super::Entry;

/// All matches of one host name in one section, in the order of precedence.
#[derive(Clone, Debug, Default)]
pub struct PathTable {
    _entries: Vec<Entry>,
}
