//! The rules of one host, found by path.
//!
//! Exact paths are looked up in a map, prefixes in a trie of segments, so that a lookup costs
//! as much as the path is long, however many rules there are; only regular expressions are
//! tried one by one.

use rustc_hash::FxHashMap;

use super::{Entry, PathMatch, RuleId};
use crate::policy::RequestHead;

/// All matches of one host name in one section, in the order of precedence.
#[derive(Clone, Debug, Default)]
pub struct PathTable {
    exact: FxHashMap<Box<str>, Vec<Entry>>,
    regex: Vec<Entry>,
    /// The root comes first; there is none if there are no prefixes.
    prefixes: Vec<Node>,
}

/// A prefix of whole segments.
#[derive(Clone, Debug, Default)]
struct Node {
    children: FxHashMap<Box<str>, u32>,
    entries: Vec<Entry>,
    /// The next shorter prefix; the root is its own.
    parent: u32,
}

impl PathTable {
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(Entry::precedence);
        let mut table = PathTable::default();
        for entry in entries {
            match &entry.path {
                PathMatch::Exact(path) => {
                    table.exact.entry(path.clone()).or_default().push(entry);
                }
                PathMatch::Regex(_) => table.regex.push(entry),
                PathMatch::Prefix(prefix) => {
                    let node = table.node(&prefix.clone());
                    table.prefixes[node].entries.push(entry);
                }
            }
        }
        table
    }

    /// The rule of the first match in order of precedence, and the prefix it was found by.
    pub fn find(&self, head: &RequestHead) -> Option<(RuleId, &str)> {
        let holds = |entry: &&Entry| entry.matcher.holds(head);
        if let Some(entry) = self.exact.get(&head.path).and_then(|list| list.iter().find(holds)) {
            return Some((entry.rule, ""));
        }
        for entry in &self.regex {
            if entry.path.matches(&head.path) && entry.matcher.holds(head) {
                return Some((entry.rule, ""));
            }
        }
        let mut at = self.longest(&head.path)?;
        loop {
            let node = &self.prefixes[at];
            if let Some(entry) = node.entries.iter().find(holds) {
                let PathMatch::Prefix(prefix) = &entry.path else { return None };
                return Some((entry.rule, prefix.trim_end_matches('/')));
            }
            if at == 0 {
                return None;
            }
            at = node.parent as usize;
        }
    }

    /// The deepest node whose prefix `path` has.
    fn longest(&self, path: &str) -> Option<usize> {
        let mut at = 0;
        let mut node = self.prefixes.first()?;
        for segment in segments(path) {
            let Some(child) = node.children.get(segment) else { break };
            at = *child as usize;
            node = &self.prefixes[at];
        }
        Some(at)
    }

    /// The node of `prefix`, made if it is not there.
    fn node(&mut self, prefix: &str) -> usize {
        if self.prefixes.is_empty() {
            self.prefixes.push(Node::default());
        }
        let mut at = 0;
        for segment in segments(prefix.trim_end_matches('/')) {
            at = match self.prefixes[at].children.get(segment) {
                Some(child) => *child as usize,
                None => {
                    let new = self.prefixes.len();
                    let parent = u32::try_from(at).expect("fewer than 2^32 prefixes");
                    let child = u32::try_from(new).expect("fewer than 2^32 prefixes");
                    self.prefixes[at].children.insert(segment.into(), child);
                    self.prefixes.push(Node { parent, ..Node::default() });
                    new
                }
            };
        }
        at
    }
}

/// What stands between the slashes of `/a/b`: none for the empty prefix.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}
