//! Host names to values: exact names before wildcards, longer wildcards before shorter.

use std::collections::HashMap;
use std::sync::Arc;

/// A map from host names and wildcard host names (`*.example.com`, any number of labels, as
/// Gateway API means them) to values. Tenants share it, so its hashes are seeded: nobody can
/// choose names that make the lookups of others slow.
#[derive(Clone, Debug)]
pub struct HostMap<T> {
    exact: HashMap<Arc<str>, T>,
    /// By suffix with its leading dot: `.example.com`.
    wildcard: HashMap<Arc<str>, T>,
    any: Option<T>,
}

/// A key of a [`HostMap`], made once for the maps of many graphs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    Exact(Arc<str>),
    /// With its leading dot.
    Suffix(Arc<str>),
    Any,
}

impl<T: AsRef<str> + ?Sized> From<&T> for Pattern {
    /// Of a lower-case name, `*.suffix`, or empty for every host.
    fn from(text: &T) -> Self {
        let text = text.as_ref();
        match text.strip_prefix('*') {
            None if text.is_empty() => Pattern::Any,
            Some("") => Pattern::Any,
            Some(suffix) => Pattern::Suffix(suffix.into()),
            None => Pattern::Exact(text.into()),
        }
    }
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        HostMap { exact: HashMap::default(), wildcard: HashMap::default(), any: None }
    }
}

impl<T> HostMap<T> {
    /// With room for so many names without wildcards.
    pub fn with_capacity(names: usize) -> Self {
        HostMap { exact: HashMap::with_capacity(names), ..HostMap::default() }
    }

    /// The value of `pattern`: a lower-case name, `*.suffix`, or empty for every host. A
    /// pattern that is new gets the default.
    pub fn entry(&mut self, pattern: &str) -> &mut T
    where
        T: Default,
    {
        match Pattern::from(pattern) {
            Pattern::Exact(name) => self.exact.entry(name).or_default(),
            Pattern::Suffix(suffix) => self.wildcard.entry(suffix).or_default(),
            Pattern::Any => self.any.get_or_insert_default(),
        }
    }

    /// Sets the value of `pattern`, and returns what it was.
    pub fn insert(&mut self, pattern: impl Into<Pattern>, value: T) -> Option<T> {
        match pattern.into() {
            Pattern::Exact(name) => self.exact.insert(name, value),
            Pattern::Suffix(suffix) => self.wildcard.insert(suffix, value),
            Pattern::Any => self.any.replace(value),
        }
    }

    /// The value of exactly this pattern.
    pub fn get_exact(&self, pattern: &str) -> Option<&T> {
        if pattern.is_empty() || pattern == "*" {
            return self.any.as_ref();
        }
        match pattern.strip_prefix('*') {
            Some(suffix) => self.wildcard.get(suffix),
            None => self.exact.get(pattern),
        }
    }

    /// The values whose patterns match `host`, the most specific first. A wildcard stands for
    /// one label or more: `*.example.com` does not match `example.com`.
    pub fn matching<'m, 'h>(&'m self, host: &'h str) -> Matching<'m, 'h, T> {
        Matching { map: self, host, next: Next::Exact }
    }

    /// Every value, in no order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.any)
    }

    /// Every pattern as it was given (`*` for every host) with its value, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (String, &T)> {
        let exact = self.exact.iter().map(|(name, value)| (name.to_string(), value));
        let wildcard = self.wildcard.iter().map(|(suffix, value)| (format!("*{suffix}"), value));
        exact.chain(wildcard).chain(self.any.iter().map(|value| ("*".to_owned(), value)))
    }

    /// The same patterns with other values.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> HostMap<U> {
        HostMap {
            exact: self.exact.into_iter().map(|(k, v)| (k, f(v))).collect(),
            wildcard: self.wildcard.into_iter().map(|(k, v)| (k, f(v))).collect(),
            any: self.any.map(f),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }
}

/// See [`HostMap::matching`].
#[derive(Debug)]
pub struct Matching<'m, 'h, T> {
    map: &'m HostMap<T>,
    host: &'h str,
    next: Next,
}

/// What is looked up next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Exact,
    /// The wildcard whose suffix begins at a dot at or after this byte of the host.
    Wildcard(usize),
    Any,
    End,
}

impl<'m, T> Iterator for Matching<'m, '_, T> {
    type Item = &'m T;

    fn next(&mut self) -> Option<&'m T> {
        loop {
            let found = match self.next {
                Next::Exact => {
                    let wildcards = !self.map.wildcard.is_empty();
                    // From byte 1: a wildcard stands for at least one label before the dot.
                    self.next = if wildcards { Next::Wildcard(1) } else { Next::Any };
                    self.map.exact.get(self.host)
                }
                Next::Wildcard(from) => {
                    let dot = self.host.get(from..).and_then(|rest| rest.find('.'));
                    let Some(dot) = dot else {
                        self.next = Next::Any;
                        continue;
                    };
                    self.next = Next::Wildcard(from + dot + 1);
                    self.map.wildcard.get(&self.host[from + dot..])
                }
                Next::Any => {
                    self.next = Next::End;
                    self.map.any.as_ref()
                }
                Next::End => return None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(patterns: &[&'static str]) -> HostMap<&'static str> {
        let mut map = HostMap::default();
        for pattern in patterns {
            map.insert(*pattern, *pattern);
        }
        map
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let map = map(&["", "*.com", "*.example.com", "a.example.com", "*.a.example.com"]);
        for (host, expected) in [
            ("a.example.com", &["a.example.com", "*.example.com", "*.com", ""][..]),
            ("b.a.example.com", &["*.a.example.com", "*.example.com", "*.com", ""]),
            ("x.y.example.com", &["*.example.com", "*.com", ""]),
            ("example.com", &["*.com", ""]),
            ("com", &[""]),
            ("", &[""]),
            ("[::1]", &[""]),
        ] {
            assert_eq!(map.matching(host).copied().collect::<Vec<_>>(), expected, "{host}");
        }
    }

    #[test]
    fn a_wildcard_never_matches_its_bare_suffix_or_an_empty_label() {
        let map = map(&["*.example.com"]);
        for host in ["example.com", ".example.com", "badexample.com", "example.com.evil"] {
            assert_eq!(map.matching(host).next(), None, "{host}");
        }
    }

    #[test]
    fn entry_and_get_exact_mean_the_same_place() {
        let mut map = HostMap::<u32>::default();
        for (n, pattern) in (1..).zip(["", "*.example.com", "example.com"]) {
            *map.entry(pattern) = n;
            assert_eq!(map.get_exact(pattern), Some(&n));
        }
        assert_eq!(map.get_exact("a.example.com"), None);
        assert_eq!(map.values().sum::<u32>(), 6);
    }
}
