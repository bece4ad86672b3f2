//! What a request must look like to meet a rule, and which of several matches wins.
//!
//! The precedence is that of HTTPRoute (`spec.rules.matches`): host first (see `host`), then
//! exact path, regular expression (the longer first), longest prefix, then method, number of
//! header matches, number of query matches, then the older route, its name, and the order in
//! the route.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};

use http::header::HOST;
use http::{HeaderMap, HeaderName, Method};
use percent_encoding::percent_decode_str;
use regex::Regex;

use super::RuleId;
use crate::policy::RequestHead;

#[derive(Clone, Debug)]
pub enum PathMatch {
    /// The whole path, in normal form.
    Exact(Box<str>),
    /// A prefix of whole segments; empty matches every path. A slash at its end changes nothing
    /// but that it goes before the same prefix without one (Ingress v1, `PathTypePrefix`).
    Prefix(Box<str>),
    /// A regular expression over the whole path: anchored by whoever builds it.
    Regex(Regex),
}

impl PathMatch {
    /// Whether `path`, in normal form, matches.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            PathMatch::Exact(exact) => **exact == *path,
            PathMatch::Prefix(prefix) => path
                .strip_prefix(prefix.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            PathMatch::Regex(regex) => regex.is_match(path),
        }
    }

    /// Sorts first what wins: the kind of match, then its length in bytes.
    fn rank(&self) -> (u8, Reverse<usize>) {
        match self {
            PathMatch::Exact(path) => (0, Reverse(path.len())),
            PathMatch::Regex(regex) => (1, Reverse(regex.as_str().len())),
            PathMatch::Prefix(prefix) => (2, Reverse(prefix.len())),
        }
    }
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Exact(Box<str>),
    Regex(Regex),
}

impl ValueMatch {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            ValueMatch::Exact(exact) => exact.as_bytes() == value,
            ValueMatch::Regex(regex) => {
                std::str::from_utf8(value).is_ok_and(|value| regex.is_match(value))
            }
        }
    }
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
    /// The host has so many labels: a wildcard of an Ingress stands for exactly one.
    pub host_labels: Option<u8>,
    /// Over the whole path, beside what the path's own match says: of GRPCRoutes. Anchored by
    /// whoever builds it.
    pub path: Option<Regex>,
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
}

impl Matcher {
    /// Whether every request fulfils it.
    pub fn is_empty(&self) -> bool {
        let Matcher { host_labels, path, method, headers, query } = self;
        host_labels.is_none()
            && path.is_none()
            && method.is_none()
            && headers.is_empty()
            && query.is_empty()
    }

    /// Whether a request fulfils every condition.
    pub fn holds(&self, head: &RequestHead) -> bool {
        self.host_labels.is_none_or(|labels| labels_of(&head.host) == usize::from(labels))
            && self.method.as_ref().is_none_or(|method| *method == head.method)
            && self.headers.iter().all(|header| header.holds(head))
            && self.query.iter().all(|query| query.holds(head.query.as_deref()))
            && self.path.as_ref().is_none_or(|regex| regex.is_match(&head.path))
    }

    /// How much the expression over the path says: nothing without one.
    fn path_rank(&self) -> Reverse<usize> {
        Reverse(self.path.as_ref().map_or(0, |regex| regex.as_str().len()))
    }
}

fn labels_of(host: &str) -> usize {
    host.split('.').count()
}

impl HeaderMatch {
    /// Several fields of one name are one value, joined by `, ` (RFC 9110, 5.2). `Host` is the
    /// host without its port.
    fn holds(&self, head: &RequestHead) -> bool {
        if self.name == HOST {
            return self.value.matches(head.host.as_bytes());
        }
        if let Some(told) = head.told.as_ref().and_then(|told| told.get(&self.name)) {
            return self.value.matches(told);
        }
        joined(&head.headers, &self.name).is_some_and(|value| self.value.matches(&value))
    }
}

fn joined<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let mut joined = Cow::Borrowed(values.next()?.as_bytes());
    for value in values {
        let all = joined.to_mut();
        all.extend_from_slice(b", ");
        all.extend_from_slice(value.as_bytes());
    }
    Some(joined)
}

impl QueryMatch {
    /// The first parameter of the name counts, as HTTPRoute advises for repeated ones.
    fn holds(&self, query: Option<&str>) -> bool {
        query
            .unwrap_or_default()
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(name, _)| *decoded(name) == *self.name.as_bytes())
            .is_some_and(|(_, value)| self.value.matches(&decoded(value)))
    }
}

/// A name or value of a query: percent-decoded, `+` for a space, as forms encode it.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).collect());
    }
    percent_decode_str(text).into()
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

impl Entry {
    /// The order of precedence: less is tried first. Total, so that equal objects make equal
    /// graphs.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        let key = |entry: &Self| {
            (
                entry.path.rank(),
                entry.matcher.path_rank(),
                entry.matcher.method.is_none(),
                Reverse(entry.matcher.headers.len()),
                Reverse(entry.matcher.query.len()),
                entry.created,
            )
        };
        key(self)
            .cmp(&key(other))
            .then_with(|| self.object.cmp(&other.object))
            .then_with(|| self.order.cmp(&other.order))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::graph::testing::entry;
    use crate::policy::testing::head;
    use crate::policy::told::{Common, Told};

    fn exact(value: &str) -> ValueMatch {
        ValueMatch::Exact(value.into())
    }

    fn regex(pattern: &str) -> ValueMatch {
        ValueMatch::Regex(Regex::new(pattern).unwrap())
    }

    fn with_header(name: &'static str, value: ValueMatch) -> Matcher {
        let header = HeaderMatch { name: HeaderName::from_static(name), value };
        Matcher { headers: vec![header], ..Matcher::default() }
    }

    #[test]
    fn fields_that_are_kept_aside_are_matched_too() {
        let value = HeaderValue::from_static;
        let common = Common::new(value("192.0.2.1"), value("http"), value("80"));
        let mut head = head("GET", "http://a/", &[]);
        head.told = Some(Told { common, authority: value("a"), id: None });
        for aside in [true, false] {
            assert_eq!(head.told.is_some(), aside);
            assert!(with_header("x-real-ip", exact("192.0.2.1")).holds(&head));
            assert!(!with_header("x-real-ip", exact("192.0.2.2")).holds(&head));
            assert!(!with_header("x-request-id", exact("1")).holds(&head));
            head.tell();
        }
    }

    fn with_query(name: &str, value: ValueMatch) -> Matcher {
        Matcher { query: vec![QueryMatch { name: name.into(), value }], ..Matcher::default() }
    }

    #[test]
    fn an_expression_over_the_path_is_a_condition_and_wins_over_none() {
        let with = |path: Option<&str>| {
            let mut entry = entry(PathMatch::Prefix("/a.Svc".into()), 0);
            entry.matcher.path = path.map(|pattern| Regex::new(pattern).unwrap());
            entry
        };
        let (long, short, none) = (with(Some("^/a.Svc/Get$")), with(Some("/G")), with(None));
        assert_eq!(long.precedence(&short), Ordering::Less);
        assert_eq!(short.precedence(&none), Ordering::Less);
        let holds = |entry: &Entry, path: &str| {
            entry.matcher.holds(&head("POST", &format!("http://a.example{path}"), &[]))
        };
        assert!(holds(&long, "/a.Svc/Get"));
        assert!(!holds(&long, "/a.Svc/Got"));
    }

    #[test]
    fn precedence_is_that_of_http_route() {
        let base = || entry(PathMatch::Prefix("/a".into()), 0);
        let with = |change: &dyn Fn(&mut Entry)| {
            let mut entry = base();
            change(&mut entry);
            entry
        };
        let header = |n: usize| {
            let one = with_header("x", exact("y")).headers.remove(0);
            move |entry: &mut Entry| entry.matcher.headers = vec![one.clone(); n]
        };
        let query = |n: usize| {
            let one = with_query("x", exact("y")).query.remove(0);
            move |entry: &mut Entry| entry.matcher.query = vec![one.clone(); n]
        };
        // Each wins over all below it, although each one below is older and first in name.
        let mut ranked = [
            with(&|e| e.path = PathMatch::Exact("/".into())),
            with(&|e| e.path = PathMatch::Regex(Regex::new("/abc").unwrap())),
            with(&|e| e.path = PathMatch::Regex(Regex::new("/").unwrap())),
            with(&|e| e.path = PathMatch::Prefix("/a/b".into())),
            with(&|e| e.path = PathMatch::Prefix("/ab".into())),
            with(&|e| e.matcher.method = Some(Method::GET)),
            with(&|e| (header(2)(e), query(1)(e)).0),
            with(&|e| header(2)(e)),
            with(&|e| (header(1)(e), query(9)(e)).0),
            with(&|e| query(2)(e)),
            with(&|e| query(1)(e)),
        ];
        for (n, entry) in (0..).zip(ranked.iter_mut().rev()) {
            entry.created = n;
        }
        let ties = [
            with(&|e| (e.created, e.object, e.order) = (7, "b/b".into(), (9, 9))),
            with(&|e| (e.created, e.object, e.order) = (8, "a/b".into(), (9, 9))),
            with(&|e| (e.created, e.object, e.order) = (8, "a/c".into(), (0, 0))),
            with(&|e| (e.created, e.object, e.order) = (8, "a/c".into(), (0, 1))),
            with(&|e| (e.created, e.object, e.order) = (8, "a/c".into(), (1, 0))),
        ];
        let all: Vec<&Entry> = ranked.iter().chain(&ties).collect();
        for (i, better) in all.iter().enumerate() {
            for worse in &all[i + 1..] {
                assert_eq!(better.precedence(worse), Ordering::Less, "{better:?}\n{worse:?}");
                assert_eq!(worse.precedence(better), Ordering::Greater);
            }
        }
    }

    #[test]
    fn several_fields_of_one_name_are_one_value() {
        let head = head("GET", "http://a.example/", &[("x", "one"), ("x", "two")]);
        assert!(with_header("x", exact("one, two")).holds(&head));
        assert!(with_header("x", regex("^one, two$")).holds(&head));
        assert!(!with_header("x", exact("one")).holds(&head));
        assert!(!with_header("y", regex(".*")).holds(&head));
    }

    #[test]
    fn the_host_can_be_matched_as_a_header() {
        let head = head("GET", "http://a.example:8080/", &[]);
        assert!(with_header("host", exact("a.example")).holds(&head));
    }

    #[test]
    fn values_that_are_not_utf8_meet_no_expression() {
        let mut head = head("GET", "http://a.example/", &[]);
        head.headers.insert("x", http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(!with_header("x", regex("(?s).*")).holds(&head));
    }

    #[test]
    fn the_first_query_parameter_counts_decoded() {
        for (query, name, value, holds) in [
            ("a=1&a=2", "a", "1", true),
            ("a=1&a=2", "a", "2", false),
            ("b=x&a=%31", "a", "1", true),
            ("%61=1", "a", "1", true),
            ("a=x+y", "a", "x y", true),
            ("a=x%2By", "a", "x+y", true),
            ("a", "a", "", true),
            ("a=1=2", "a", "1=2", true),
            ("ab=1", "a", "1", false),
            ("", "a", "", false),
        ] {
            let head = head("GET", &format!("http://a.example/?{query}"), &[]);
            assert_eq!(with_query(name, exact(value)).holds(&head), holds, "{query} {name}");
        }
        let head = head("GET", "http://a.example/", &[]);
        assert!(!with_query("a", regex(".*")).holds(&head));
    }

    #[test]
    fn all_conditions_must_hold() {
        let head = head("POST", "http://a.example/?q=1", &[("x", "1")]);
        let mut matcher = with_header("x", exact("1"));
        matcher.query = with_query("q", exact("1")).query;
        matcher.method = Some(Method::POST);
        assert!(matcher.holds(&head));
        matcher.method = Some(Method::GET);
        assert!(!matcher.holds(&head));
    }
}
