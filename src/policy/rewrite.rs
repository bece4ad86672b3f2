//! Changes the host name and the path that the backend sees (HTTPRoute `urlRewrite`, and
//! regular expressions with captures). Matching has been done by then: it is not done again.

use std::ops::ControlFlow;

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path_modifier::{PathChange, PathModifier, absolute, has_dot_segment};
use super::{Exchange, Invalid, Policy, Refs, Reply};
use crate::reason::Reason;

/// Longest path that a substitution may make: that of a request (`UriTooLong`).
const MAX_PATH: usize = 16 * 1024;

/// What the backend sees in place of what the client wrote. `path` and `regex` exclude each
/// other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Rewrite")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The host name that goes upstream as Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub hostname: Option<String>,
    /// How the path changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// Replaces what a regular expression matches in the path, without the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<RegexRewrite>,
}

/// A regular expression and what stands in its place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegexRewrite {
    /// The expression (RE2-like syntax); the first match in the path is replaced. Anchor it
    /// with `^` and `$` to replace the whole path.
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: String,
    /// The replacement: `$1` and `${name}` stand for captures, `$$` for a dollar sign.
    #[schemars(length(max = 1024))]
    pub substitution: String,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Rewrite {
    hostname: Option<Box<str>>,
    path: Option<Change>,
}

#[derive(Debug)]
enum Change {
    Modifier(PathChange),
    Regex { pattern: Regex, substitution: Box<str> },
}

impl Policy for Rewrite {
    type Spec = Spec;

    fn compile(spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        let path = match (&spec.path, &spec.regex) {
            (Some(_), Some(_)) => {
                return Err(Invalid::new("regex", "`path` is set too; keep one of them"));
            }
            (Some(path), None) => Some(Change::Modifier(PathChange::compile("path", path)?)),
            (None, Some(regex)) => Some(compile_regex(regex)?),
            (None, None) => None,
        };
        Ok(Rewrite { hostname: spec.hostname.as_deref().map(hostname).transpose()?, path })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        if let Some(hostname) = &self.hostname {
            ex.request.upstream_host = Some(hostname.clone());
        }
        match &self.path {
            None => {}
            Some(Change::Modifier(change)) => {
                ex.request.path = change.apply(&ex.request.path, &ex.matched_prefix);
            }
            Some(Change::Regex { pattern, substitution }) => {
                match substitute(&ex.request.path, pattern, substitution) {
                    Ok(path) => ex.request.path = path,
                    Err(reason) => return ControlFlow::Break(Reply::of(reason)),
                }
            }
        }
        ControlFlow::Continue(())
    }
}

fn compile_regex(spec: &RegexRewrite) -> Result<Change, Invalid> {
    let pattern = regex("regex.pattern", &spec.pattern)?;
    // The references are not part of the path, the rest must be able to stand in one.
    let literal: String = spec.substitution.split(['$', '{', '}']).collect();
    absolute("regex.substitution", &literal)?;
    Ok(Change::Regex { pattern, substitution: spec.substitution.as_str().into() })
}

/// Compiles an expression of a tenant: its size and nesting are bounded, so that it costs
/// neither memory nor stack; matching is linear in any case.
pub fn regex(field: &str, pattern: &str) -> Result<Regex, Invalid> {
    RegexBuilder::new(pattern).size_limit(1 << 20).nest_limit(50).build().map_err(|error| {
        let message = match error {
            regex::Error::CompiledTooBig(_) => {
                format!("{pattern:?} is too big when compiled; use fewer or smaller repetitions")
            }
            // The crate draws the place below the expression, on lines of its own.
            error => {
                let text = error.to_string();
                let cause = text.lines().last().unwrap_or_default();
                format!("not a regular expression: {}", cause.trim_start_matches("error: "))
            }
        };
        Invalid::new(field, message)
    })
}

/// A host name as it goes into Host or Location: lower case, letters, digits, `-` and `.`.
pub(super) fn hostname(name: &str) -> Result<Box<str>, Invalid> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(name.to_ascii_lowercase().into());
    }
    let message = format!("{name:?} is not a host name; write it without port and wildcard");
    Err(Invalid::new("hostname", message))
}

/// Replaces the first match. The result is put into the normal form of a path again; where
/// there is none, because captures met in a dot segment (`/files(.*)` over `/files../secret`),
/// the request is refused.
fn substitute(path: &str, pattern: &Regex, substitution: &str) -> Result<Box<str>, Reason> {
    let replaced = pattern.replace(path, substitution);
    if replaced.len() > MAX_PATH {
        return Err(Reason::UriTooLong);
    }
    let mut normal = String::with_capacity(replaced.len() + 1);
    normal.push('/');
    for c in replaced.chars() {
        if c != '/' || !normal.ends_with('/') {
            normal.push(c);
        }
    }
    if has_dot_segment(&normal) { Err(Reason::InvalidPath) } else { Ok(normal.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{answer, exchange};

    fn spec(pattern: &str, substitution: &str) -> Spec {
        let regex = RegexRewrite { pattern: pattern.into(), substitution: substitution.into() };
        Spec { regex: Some(regex), ..Spec::default() }
    }

    fn refused(spec: &Spec) -> String {
        Rewrite::compile(spec, &Refs::default()).unwrap_err().field
    }

    /// The path after the rewrite, or why there is none.
    fn rewritten(spec: &Spec, path: &str) -> Result<String, Reason> {
        let mut ex = exchange("GET", &format!("http://a.example{path}?q=1"), &[]);
        let policy = Rewrite::compile(spec, &Refs::default()).unwrap();
        match answer(&policy, &mut ex) {
            Some(reply) => Err(reply.reason),
            None => Ok(ex.request.path.into()),
        }
    }

    #[test]
    fn captures_stand_where_they_are_named() {
        for (pattern, substitution, path, expected) in [
            ("^/api/v([0-9]+)/(.*)$", "/${2}/version$1", "/api/v2/users/7", "/users/7/version2"),
            ("^/(?<who>[^/]+)/", "/people/${who}/", "/bob/x", "/people/bob/x"),
            ("^/api(/|$)(.*)", "/$2", "/api", "/"),
            ("^/api(.*)", "/$1", "/api/x", "/x"),
            ("^/(.*)", "$1", "/x", "/x"),
            ("/nowhere", "/there", "/x", "/x"),
        ] {
            let result = rewritten(&spec(pattern, substitution), path);
            assert_eq!(result.as_deref(), Ok(expected), "{pattern} {substitution} {path}");
        }
    }

    #[test]
    fn captures_that_meet_in_a_dot_segment_are_refused() {
        for path in ["/files../secret", "/files%2e%2E/secret", "/files."] {
            let result = rewritten(&spec("^/files(.*)", "/$1"), path);
            assert_eq!(result, Err(Reason::InvalidPath), "{path}");
        }
    }

    #[test]
    fn the_host_goes_upstream_and_stays_for_matching() {
        let spec = Spec { hostname: Some("B.example".into()), ..Spec::default() };
        let policy = Rewrite::compile(&spec, &Refs::default()).unwrap();
        let mut ex = exchange("GET", "http://a.example/", &[]);
        assert!(answer(&policy, &mut ex).is_none());
        assert_eq!(ex.request.upstream_host.as_deref(), Some("b.example"));
        assert_eq!(&*ex.request.host, "a.example");
    }

    #[test]
    fn expressions_that_cost_too_much_are_refused() {
        for pattern in [
            "(a{1000}){1000}",
            &"(".repeat(100),
            "(",
            &format!("{}a{}", "(".repeat(60), ")".repeat(60)),
        ] {
            assert_eq!(refused(&spec(pattern, "/")), "regex.pattern", "{pattern}");
        }
    }

    #[test]
    fn substitutions_that_leave_the_path_are_refused() {
        for substitution in ["/a?b", "/a#b", "/a b", "/../b", "/a\r\nb"] {
            assert_eq!(refused(&spec("x", substitution)), "regex.substitution", "{substitution}");
        }
        let both = Spec { path: Some(PathModifier::default()), ..spec("x", "/") };
        assert_eq!(refused(&both), "regex");
    }
}
