//! The matches of GRPCRoutes, compiled: a call is the path `/SERVICE/METHOD`.
//!
//! GRPCRoute ranks matches by the length of the service and then of the method. So a call that
//! is named as a whole is an exact path and a service a prefix; what is said of methods beside
//! these is an expression over the path that stands among the other conditions. Expressions for
//! services, which implementations may rank as they like, go before services by name.

use regex::escape;

use super::matches::{Compiled, headers, in_headers, unsupported, whole};
use super::memo::Recall;
use super::status::Problem;
use crate::api::gateway::{GrpcMethodMatch, GrpcRouteMatch, ValueMatchType};
use crate::graph::{Matcher, PathMatch};

/// What any service or any method is.
const ANY: &str = "[^/]+";

/// One match.
///
/// # Errors
/// The first problem: `field` is below the rule.
pub(super) fn one(
    at: &str,
    m: &GrpcRouteMatch,
    memo: &mut Recall<'_>,
) -> Result<Compiled, Problem> {
    let (path, expression) = match &m.method {
        None => (PathMatch::Prefix("".into()), None),
        Some(method) => {
            path_of(method, memo).map_err(|message| unsupported(at, "method", message))?
        }
    };
    let headers = headers(at, &m.headers, memo)?;
    Ok((path, Matcher { path: expression, headers, ..Matcher::default() }))
}

/// How many regular expressions a match has: those of ours count too.
pub(super) fn expressions(m: &GrpcRouteMatch) -> usize {
    let of_method = m.method.as_ref().is_some_and(|method| {
        method.r#type == Some(ValueMatchType::RegularExpression) || parts(method).0.is_none()
    });
    usize::from(of_method) + in_headers(&m.headers)
}

/// Service and method; what is empty says nothing.
fn parts(method: &GrpcMethodMatch) -> (Option<&str>, Option<&str>) {
    let service = method.service.as_deref().filter(|service| !service.is_empty());
    (service, method.method.as_deref().filter(|name| !name.is_empty()))
}

/// The path of the calls, and what is left to say about it.
type Path = (PathMatch, Option<regex::Regex>);

fn path_of(method: &GrpcMethodMatch, memo: &mut Recall<'_>) -> Result<Path, String> {
    let (service, name) = parts(method);
    if service.is_none() && name.is_none() {
        return Err("names neither a service nor a method; set one of them".to_owned());
    }
    match method.r#type.as_ref().unwrap_or(&ValueMatchType::Exact) {
        ValueMatchType::Exact => exact(service, name, memo),
        ValueMatchType::RegularExpression => expression(service, name, memo),
        ValueMatchType::Other(other) => {
            Err(format!("match type {other:?} is not supported; use Exact or RegularExpression"))
        }
    }
}

fn exact(service: Option<&str>, name: Option<&str>, memo: &mut Recall<'_>) -> Result<Path, String> {
    let is_name =
        |text: &&str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b));
    if let Some(wrong) = [service, name].into_iter().flatten().find(|text| !is_name(text)) {
        return Err(format!("{wrong:?} is no name in gRPC; write it like package.Service or Get"));
    }
    Ok(match (service, name) {
        (Some(service), Some(name)) => {
            (PathMatch::Exact(format!("/{service}/{name}").into()), None)
        }
        (Some(service), None) => (PathMatch::Prefix(format!("/{service}").into()), None),
        (None, name) => {
            let pattern = format!("/{ANY}/{}", name.map_or_else(|| ANY.to_owned(), escape));
            (PathMatch::Prefix("".into()), Some(memo.expression(&pattern, whole)?))
        }
    })
}

fn expression(
    service: Option<&str>,
    name: Option<&str>,
    memo: &mut Recall<'_>,
) -> Result<Path, String> {
    // Each by itself first: `a)|(b` must not escape from the groups below.
    for part in [service, name].into_iter().flatten() {
        memo.expression(part, whole)?;
    }
    let pattern = format!("/(?:{})/(?:{})", service.unwrap_or(ANY), name.unwrap_or(ANY));
    let regex = memo.expression(&pattern, whole)?;
    Ok(match service {
        Some(_) => (PathMatch::Regex(regex), None),
        None => (PathMatch::Prefix("".into()), Some(regex)),
    })
}
