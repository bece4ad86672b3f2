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
    /// The rule of every request, where nothing goes before a match that asks for nothing. Most
    /// hosts are like this, and the rest of their tables need not come into the cache.
    every: Option<RuleId>,
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
        table.shrink();
        table.every = table.rule_of_every_request();
        table
    }

    fn rule_of_every_request(&self) -> Option<RuleId> {
        let [root] = &self.prefixes[..] else { return None };
        let first = root.entries.first()?;
        let is_alone = self.exact.is_empty() && self.regex.is_empty();
        (is_alone && first.matcher.is_empty()).then_some(first.rule)
    }

    /// There are as many tables as hosts, most of one match: room for more is room lost.
    fn shrink(&mut self) {
        self.exact.values_mut().for_each(Vec::shrink_to_fit);
        self.regex.shrink_to_fit();
        self.prefixes.iter_mut().for_each(|node| node.entries.shrink_to_fit());
        self.prefixes.shrink_to_fit();
    }

    /// Every match, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let prefixes = self.prefixes.iter().flat_map(|node| &node.entries);
        self.exact.values().flatten().chain(&self.regex).chain(prefixes)
    }

    /// The rule of the first match in order of precedence, and the prefix it was found by.
    pub fn find(&self, head: &RequestHead) -> Option<(RuleId, &str)> {
        if let Some(rule) = self.every {
            return Some((rule, ""));
        }
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

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::graph::testing::entry;
    use crate::policy::testing::head;

    fn exact(path: &str) -> PathMatch {
        PathMatch::Exact(path.into())
    }

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }

    fn regex(pattern: &str) -> PathMatch {
        PathMatch::Regex(Regex::new(pattern).unwrap())
    }

    /// A table whose rules are numbered in the order of `paths`.
    fn table(paths: &[PathMatch]) -> PathTable {
        PathTable::new((0..).zip(paths).map(|(n, path)| entry(path.clone(), n)).collect())
    }

    fn find(table: &PathTable, path: &str) -> Option<(u32, String)> {
        let head = head("GET", &format!("http://a.example{path}"), &[]);
        table.find(&head).map(|(rule, prefix)| (rule.0, prefix.to_owned()))
    }

    #[test]
    fn prefixes_end_at_segments() {
        let table = table(&[prefix("/foo"), prefix("/foo/bar")]);
        for (path, expected) in [
            ("/foo", Some((0, "/foo"))),
            ("/foo/", Some((0, "/foo"))),
            ("/foo/x", Some((0, "/foo"))),
            ("/foo/barx", Some((0, "/foo"))),
            ("/foo/bar", Some((1, "/foo/bar"))),
            ("/foo/bar/", Some((1, "/foo/bar"))),
            ("/foobar", None),
            ("/fo", None),
            ("/", None),
            ("/x/foo", None),
        ] {
            let expected = expected.map(|(rule, prefix)| (rule, prefix.to_owned()));
            assert_eq!(find(&table, path), expected, "{path}");
        }
    }

    #[test]
    fn a_trailing_slash_of_a_prefix_is_ignored() {
        let table = table(&[prefix("/foo/"), prefix("/")]);
        assert_eq!(find(&table, "/foo"), Some((0, "/foo".into())));
        assert_eq!(find(&table, "/foo/x"), Some((0, "/foo".into())));
        assert_eq!(find(&table, "/x"), Some((1, String::new())));
        assert_eq!(find(&table, "/"), Some((1, String::new())));
    }

    #[test]
    fn of_equal_prefixes_the_one_with_a_slash_at_its_end_wins() {
        let table = table(&[prefix("/foo"), prefix("/foo/"), prefix("/foo/bar")]);
        for (path, rule) in [("/foo", 1), ("/foo/", 1), ("/foo/x", 1), ("/foo/bar", 2)] {
            assert_eq!(find(&table, path).map(|found| found.0), Some(rule), "{path}");
        }
    }

    #[test]
    fn exact_paths_win_over_expressions_and_these_over_prefixes() {
        let table = table(&[
            prefix("/a/b/c"),
            regex("^/a/.*$"),
            regex("^/a/b/.*$"),
            exact("/a/b/c"),
            exact("/a/b/c/"),
        ]);
        for (path, rule) in [("/a/b/c", 3), ("/a/b/c/", 4), ("/a/b/c/d", 2), ("/a/x", 1)] {
            assert_eq!(find(&table, path).map(|found| found.0), Some(rule), "{path}");
        }
    }

    #[test]
    fn what_does_not_hold_leaves_the_request_to_the_next_best() {
        let mut longest = entry(prefix("/a/b"), 0);
        longest.matcher.method = Some(http::Method::POST);
        let mut precise = entry(exact("/a/b"), 1);
        precise.matcher.method = Some(http::Method::PUT);
        let table = PathTable::new(vec![longest, precise, entry(prefix("/a"), 2)]);
        for (method, rule) in [("PUT", 1), ("POST", 0), ("GET", 2)] {
            let head = head(method, "http://a.example/a/b", &[]);
            assert_eq!(table.find(&head).map(|(rule, _)| rule.0), Some(rule), "{method}");
        }
    }

    #[test]
    fn a_match_that_asks_for_nothing_answers_at_once_only_if_none_goes_before_it() {
        let all = || entry(prefix("/"), 7);
        let mut posted = entry(prefix("/"), 1);
        posted.matcher.method = Some(http::Method::POST);
        let every = |others: Vec<Entry>| PathTable::new([others, vec![all()]].concat()).every;
        assert_eq!(every(vec![]), Some(RuleId(7)));
        assert_eq!(PathTable::new(vec![]).every, None);
        for other in [posted, entry(prefix("/a"), 1), entry(exact("/"), 1), entry(regex("x"), 1)] {
            assert_eq!(every(vec![other.clone()]), None, "{other:?}");
        }
    }

    #[test]
    fn long_paths_and_many_prefixes_are_found() {
        let deep = "/s".repeat(4000);
        let paths: Vec<_> = (0..2000).map(|n| prefix(&format!("/p{n}/x"))).collect();
        let table = table(&[paths, vec![prefix(&deep)]].concat());
        assert_eq!(find(&table, "/p1234/x/y").map(|found| found.0), Some(1234));
        assert_eq!(find(&table, &format!("{deep}/t")).map(|found| found.0), Some(2000));
        assert_eq!(find(&table, &"/s".repeat(3999)), None);
    }
}
