//! What a request must look like to meet a rule, and which of several matches wins.
//!
//! The precedence is that of HTTPRoute (`spec.rules.matches`): host first (see `host`), then
//! exact path, regular expression, longest prefix, then method, number of header matches,
//! number of query matches, then the older route, its name, and the order in the route.

use http::{HeaderName, Method};
use regex::Regex;

use super::RuleId;

#[derive(Clone, Debug)]
pub enum PathMatch {
    /// The whole path, in normal form.
    Exact(Box<str>),
    /// A prefix of whole segments, without a trailing slash; empty matches every path.
    Prefix(Box<str>),
    /// A regular expression over the whole path: anchored by whoever builds it.
    Regex(Regex),
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Exact(Box<str>),
    Regex(Regex),
}

#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: ValueMatch,
}

#[derive(Clone, Debug)]
pub struct QueryMatch {
    pub name: Box<str>,
    pub value: ValueMatch,
}

/// All conditions but host and path; all must hold.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
}

/// One match of one rule, as `translate` hands it to a [`super::PathTable`].
#[derive(Clone, Debug)]
pub struct Entry {
    pub path: PathMatch,
    pub matcher: Matcher,
    /// Seconds since the epoch at which the route was made: the older wins a tie.
    pub created: i64,
    /// `NAMESPACE/NAME` of the route: the second tie-break.
    pub object: Box<str>,
    /// The index of the rule and of the match in it: the last tie-break.
    pub order: (u32, u32),
    pub rule: RuleId,
}
