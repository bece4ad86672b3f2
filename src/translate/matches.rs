//! The matches of HTTPRoutes, compiled, and what those of GRPCRoutes share with them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use http::{HeaderName, Method};
use regex::{Regex, RegexBuilder};

use super::memo::Recall;
use super::methods;
use super::status::Problem;
use crate::api::gateway as api;
use crate::api::gateway::{GrpcRouteMatch, HttpRouteMatch, PathMatchType, ValueMatchType};
use crate::graph::normal::normalise;
use crate::graph::{HeaderMatch, Matcher, PathMatch, QueryMatch, ValueMatch};
use crate::policy::rewrite;

/// A match without what the route adds to it.
pub(super) type Compiled = (PathMatch, Matcher);

/// The matches of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) enum Matches<'s> {
    Http(&'s [HttpRouteMatch]),
    Grpc(&'s [GrpcRouteMatch]),
}

impl Matches<'_> {
    /// Compiles them; none given means every request.
    ///
    /// # Errors
    /// The first problem: `field` is below the rule.
    pub fn compile(self, memo: &mut Recall<'_>) -> Result<Vec<Compiled>, Problem> {
        let at = |i: usize| format!("matches[{i}]");
        match self {
            Matches::Http([]) | Matches::Grpc([]) => {
                Ok(vec![(PathMatch::Prefix("".into()), Matcher::default())])
            }
            Matches::Http(all) => {
                all.iter().enumerate().map(|(i, m)| one(&at(i), m, memo)).collect()
            }
            Matches::Grpc(all) => {
                all.iter().enumerate().map(|(i, m)| methods::one(&at(i), m, memo)).collect()
            }
        }
    }

    /// How many regular expressions there are among them.
    pub fn expressions(self) -> usize {
        match self {
            Matches::Http(all) => all.iter().map(expressions).sum(),
            Matches::Grpc(all) => all.iter().map(methods::expressions).sum(),
        }
    }
}

fn expressions(m: &HttpRouteMatch) -> usize {
    let path = |path: &api::PathMatch| {
        usize::from(path.r#type.as_ref() == Some(&PathMatchType::RegularExpression))
    };
    let query = |query: &api::QueryParamMatch| is_expression(query.r#type.as_ref());
    m.path.as_ref().map_or(0, path)
        + in_headers(&m.headers)
        + m.query_params.iter().filter(|parameter| query(parameter)).count()
}

/// How many of the matches of header fields are regular expressions.
pub(super) fn in_headers(headers: &[api::HeaderMatch]) -> usize {
    headers.iter().filter(|header| is_expression(header.r#type.as_ref())).count()
}

fn is_expression(r#type: Option<&ValueMatchType>) -> bool {
    r#type == Some(&ValueMatchType::RegularExpression)
}

fn one(at: &str, m: &HttpRouteMatch, memo: &mut Recall<'_>) -> Result<Compiled, Problem> {
    let path = match &m.path {
        None => PathMatch::Prefix("".into()),
        Some(path) => path_match(path, memo).map_err(|message| unsupported(at, "path", message))?,
    };
    let method = m.method.as_deref().map(|name| {
        Method::from_bytes(name.as_bytes()).map_err(|_| {
            unsupported(at, "method", format!("{name:?} is not a method; write it like GET"))
        })
    });
    let headers = headers(at, &m.headers, memo)?;
    let mut seen = BTreeSet::new();
    let mut query = Vec::new();
    for (i, parameter) in m.query_params.iter().enumerate() {
        let field = format!("queryParams[{i}]");
        if seen.insert(parameter.name.as_str()) {
            let value = value_match(parameter.r#type.as_ref(), &parameter.value, memo);
            let value = value.map_err(|m| unsupported(at, &field, m))?;
            query.push(QueryMatch { name: parameter.name.as_str().into(), value });
        }
    }
    Ok((path, Matcher { method: method.transpose()?, headers, query, ..Matcher::default() }))
}

pub(super) fn unsupported(at: &str, field: &str, message: String) -> Problem {
    Problem::new("UnsupportedValue", format!("{at}.{field}"), message)
}

/// The matches of header fields.
///
/// # Errors
/// The first problem: `field` is below the rule.
pub(super) fn headers(
    at: &str,
    list: &[api::HeaderMatch],
    memo: &mut Recall<'_>,
) -> Result<Vec<HeaderMatch>, Problem> {
    let mut seen = BTreeSet::new();
    let mut headers = Vec::new();
    for (i, header) in list.iter().enumerate() {
        let field = format!("headers[{i}]");
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| {
            let hint = "is not a header field name; write it like X-Name";
            unsupported(at, &field, format!("{:?} {hint}", header.name))
        })?;
        // Of several matches with one name, all but the first are ignored (HTTPRoute).
        if seen.insert(name.as_str().to_owned()) {
            let value = value_match(header.r#type.as_ref(), &header.value, memo);
            let value = value.map_err(|m| unsupported(at, &field, m))?;
            headers.push(HeaderMatch { name, value });
        }
    }
    Ok(headers)
}

fn path_match(path: &api::PathMatch, memo: &mut Recall<'_>) -> Result<PathMatch, String> {
    let value = path.value.as_deref().unwrap_or("/");
    match path.r#type.as_ref().unwrap_or(&PathMatchType::PathPrefix) {
        PathMatchType::Exact => Ok(PathMatch::Exact(absolute(value)?.into())),
        PathMatchType::PathPrefix => Ok(prefix(&absolute(value)?)),
        PathMatchType::RegularExpression => memo.expression(value, whole).map(PathMatch::Regex),
        PathMatchType::Other(other) => Err(format!(
            "path match type {other:?} is not supported; use Exact, PathPrefix or \
             RegularExpression"
        )),
    }
}

/// A prefix of whole segments.
fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.trim_end_matches('/').into())
}

/// `path` in the normal form that requests are matched in, without a query.
///
/// # Errors
/// A message for the user: no request can have this path.
pub(super) fn absolute(path: &str) -> Result<Cow<'_, str>, String> {
    let odd = |segment: &str| segment == "." || segment == "..";
    if !path.starts_with('/') {
        return Err(format!("{path:?} does not begin with a slash; write it like /app"));
    }
    if path.contains(['?', '#']) || path.contains("//") || path.split('/').any(odd) {
        return Err(format!(
            "{path:?} can never match: write it without a query, and without empty, `.` and \
             `..` segments"
        ));
    }
    normalise(path).map_err(|_| format!("{path:?} has no normal form; percent-encode it rightly"))
}

fn value_match(
    r#type: Option<&ValueMatchType>,
    value: &str,
    memo: &mut Recall<'_>,
) -> Result<ValueMatch, String> {
    match r#type.unwrap_or(&ValueMatchType::Exact) {
        ValueMatchType::Exact => Ok(ValueMatch::Exact(value.into())),
        ValueMatchType::RegularExpression => memo.expression(value, whole).map(ValueMatch::Regex),
        ValueMatchType::Other(other) => {
            Err(format!("match type {other:?} is not supported; use Exact or RegularExpression"))
        }
    }
}

/// Most memory of one expression, in bytes: of the program, and of what each worker keeps for
/// it. Tenants have many, and all of them share the process.
const MAX_PROGRAM: usize = 256 << 10;
const MAX_CACHE: usize = 256 << 10;

/// An expression that must match the whole text.
pub(super) fn whole(pattern: &str) -> Result<Regex, String> {
    // By itself first: `a)|(b` must not escape from the group below.
    rewrite::regex("", pattern).map_err(|error| error.message)?;
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(MAX_PROGRAM)
        .dfa_size_limit(MAX_CACHE)
        .nest_limit(50)
        .build()
        .map_err(|_| {
            format!(
                "{pattern:?} is too big when compiled; use fewer or smaller repetitions, and \
                 [0-9A-Za-z_] for \\w"
            )
        })
}
