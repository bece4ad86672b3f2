//! The rules of HTTPRoutes and GRPCRoutes: matches, filters, backends, timeouts and the like, and
//! what is wrong with them.
//!
//! A rule that cannot be understood answers 500 where it still matches, and so does one whose
//! filters or policies are missing: it never goes on without them. A backend that cannot be
//! resolved takes its share of requests and answers 500 for it.

use std::sync::Arc;
use std::time::Duration;

use super::draft::{Compiled, Draft, Reference, Weighted};
use super::external_auth::NoPolicy;
use super::filters::{self, Filter};
use super::links;
use super::matches::{self, Matches};
use super::middleware::{Use, reference};
use super::pass::Pass;
use super::references;
use super::retry;
use super::routes::RouteSpec;
use super::session;
use super::status::Problem;
use crate::api::gateway::{
    GROUP, GrpcRouteRule, HttpBackendRef, HttpRouteFilter, HttpRouteRetry, HttpRouteRule,
    HttpRouteTimeouts, LocalObjectReference, SessionPersistence,
};
use crate::graph::{Session, Timeouts};
use crate::policy::{AnySpec, Mode, Refs, duration};
use crate::reason::Reason;

/// Most regular expressions in the matches of one route: each is tried for each request.
const MAX_EXPRESSIONS: usize = 64;
/// Most in the matches of all routes of a namespace: each takes memory of a shared process.
const MAX_OF_NAMESPACE: usize = 512;

/// A rule of an HTTPRoute or of a GRPCRoute.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleSpec<'s> {
    name: Option<&'s str>,
    matches: Matches<'s>,
    filters: &'s [HttpRouteFilter],
    backends: &'s [HttpBackendRef],
    timeouts: Option<&'s HttpRouteTimeouts>,
    retry: Option<&'s HttpRouteRetry>,
    session: Option<&'s SessionPersistence>,
}

impl<'s> From<&'s HttpRouteRule> for RuleSpec<'s> {
    fn from(rule: &'s HttpRouteRule) -> Self {
        RuleSpec {
            name: rule.name.as_deref(),
            matches: Matches::Http(&rule.matches),
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: rule.timeouts.as_ref(),
            retry: rule.retry.as_ref(),
            session: rule.session_persistence.as_ref(),
        }
    }
}

impl<'s> From<&'s GrpcRouteRule> for RuleSpec<'s> {
    fn from(rule: &'s GrpcRouteRule) -> Self {
        RuleSpec {
            name: rule.name.as_deref(),
            matches: Matches::Grpc(&rule.matches),
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: None,
            retry: None,
            session: rule.session_persistence.as_ref(),
        }
    }
}

impl<'s> Pass<'s> {
    pub fn rules(
        &mut self,
        route: RouteSpec<'s>,
        rules: impl Iterator<Item = RuleSpec<'s>>,
    ) -> Compiled<'s> {
        let mut compiled = Compiled::default();
        for (index, rule) in rules.enumerate() {
            let more = rule.matches.expressions();
            if more > 0 {
                // Whether there is room depends on other routes.
                self.carrying.trace.lose();
            }
            let room = self.room(&route, more, compiled.expressions);
            if room.is_ok() {
                compiled.expressions += more;
            }
            let draft = self.draft(&route, index, &rule, room);
            compiled.rules.push(draft);
        }
        if compiled.expressions > 0 {
            let there = self.expressions_of.entry(route.key.namespace.as_str()).or_default();
            *there += compiled.expressions;
        }
        compiled
    }

    /// Whether a route that has `own` regular expressions may have `more`.
    ///
    /// # Errors
    /// A message for the user.
    fn room(&self, route: &RouteSpec<'_>, more: usize, own: usize) -> Result<(), String> {
        let namespace = route.key.namespace.as_str();
        let others = self.expressions_of.get(namespace).copied().unwrap_or(0);
        let hint = "use Exact or PathPrefix, or join expressions by `|`";
        if more == 0 {
            Ok(())
        } else if own + more > MAX_EXPRESSIONS {
            let kind = route.kind.kind();
            Err(format!("more than {MAX_EXPRESSIONS} regular expressions in one {kind}; {hint}"))
        } else if others + own + more > MAX_OF_NAMESPACE {
            Err(format!(
                "more than {MAX_OF_NAMESPACE} regular expressions in the routes of namespace \
                 {namespace}, and older ones come first; {hint}"
            ))
        } else {
            Ok(())
        }
    }

    /// `room`: whether the regular expressions of this rule may be.
    fn draft(
        &mut self,
        route: &RouteSpec<'s>,
        index: usize,
        rule: &RuleSpec<'s>,
        room: Result<(), String>,
    ) -> Draft<'s> {
        let at = format!("spec.rules[{index}]");
        let mut draft = Draft {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            name: rule.name,
            ..Draft::default()
        };
        match self.matches(rule, room) {
            Ok(matches) => draft.matches = matches,
            Err(mut problem) => {
                problem.field = format!("{at}.{}", problem.field);
                draft.unsupported = Some(problem);
            }
        }
        if let Some(message) = filters::incompatible(rule.filters) {
            draft.refuse(Problem::new("IncompatibleFilters", format!("{at}.filters"), message));
        }
        if let Err((field, message)) = attempts(route, &at, rule, &mut draft) {
            draft.refuse(Problem::new("UnsupportedValue", format!("{at}.{field}"), message));
        }
        draft.filters = self.filters(route, &at, rule.filters, &mut draft);
        for (i, backend) in rule.backends.iter().enumerate() {
            self.target(route, format!("{at}.backendRefs[{i}]"), backend, &mut draft);
        }
        draft
    }

    fn matches(
        &mut self,
        rule: &RuleSpec<'s>,
        room: Result<(), String>,
    ) -> Result<Vec<matches::Compiled>, Problem> {
        room.map_err(|message| Problem::new("UnsupportedValue", "matches", message))?;
        rule.matches.compile(&mut self.memo)
    }

    /// The policies of a list of filters; mirrors and problems go into the draft.
    fn filters(
        &mut self,
        route: &RouteSpec<'s>,
        at: &str,
        list: &'s [HttpRouteFilter],
        draft: &mut Draft<'s>,
    ) -> Vec<Use> {
        let mut uses = Vec::new();
        for (i, filter) in list.iter().enumerate() {
            let field = format!("{at}.filters[{i}]");
            let unsupported =
                |message: String| Problem::new("UnsupportedValue", field.clone(), message);
            match filters::read(route.kind, filter) {
                Err(message) => draft.refuse(unsupported(message)),
                Ok(Filter::Policy(spec)) => match self.policy(route, &field, &spec) {
                    Ok(policy) => uses.push(policy),
                    Err(message) => draft.refuse(unsupported(message)),
                },
                Ok(Filter::Mirror(mirror)) => match filters::share_of(mirror) {
                    Ok(share) => {
                        let field = format!("{field}.requestMirror.backendRef");
                        draft.mirrors.push((share, Reference { field, to: &mirror.backend_ref }));
                    }
                    Err(message) => draft.refuse(unsupported(message)),
                },
                Ok(Filter::ExternalAuth(auth)) => {
                    let (group, kind) = (GROUP, route.kind.kind());
                    let from = references::From { group, kind, namespace: &route.key.namespace };
                    match self.external_auth(from, None, route.key, &field, auth) {
                        Ok(policy) => uses.push(policy),
                        Err(NoPolicy::Invalid(message)) => draft.refuse(unsupported(message)),
                        Err(NoPolicy::Unresolved(error)) => {
                            let field = format!("{field}.externalAuth.backendRef");
                            draft.unresolved.push(links::problem(field, &error));
                            draft.closed = Some(error.reason);
                        }
                    }
                }
                Ok(Filter::Extension(extension)) => match self.extension(route, extension) {
                    Ok(named) => uses.extend(named),
                    Err((reason, message)) => {
                        let field = format!("{field}.extensionRef");
                        draft.unresolved.push(Problem::new(reason, field, message));
                        draft.closed = Some(Reason::InvalidPolicy);
                    }
                },
            }
        }
        uses
    }

    fn policy(
        &mut self,
        route: &RouteSpec<'s>,
        field: &str,
        spec: &AnySpec,
    ) -> Result<Use, String> {
        let name = format!("{}/{}/{field}", route.kind.kind(), route.key);
        let made = self.graph.policy(&name, spec, Mode::Enforce, &Refs::default());
        let id = made.map_err(|error| error.to_string())?;
        Ok(Use { id, kind: spec.kind(), mode: Mode::Enforce, object: None })
    }

    fn extension(
        &mut self,
        route: &RouteSpec<'s>,
        extension: &LocalObjectReference,
    ) -> Result<Vec<Use>, (&'static str, String)> {
        let user = reference(route.kind.kind(), route.key, None);
        let named = self.extension_of(&user, &route.key.namespace, extension);
        named.map_err(|(reason, message)| (reason.as_str(), message))
    }

    fn target(
        &mut self,
        route: &RouteSpec<'s>,
        at: String,
        backend: &'s HttpBackendRef,
        draft: &mut Draft<'s>,
    ) {
        // Filters of one backend that cannot be had close only its share.
        let mut own = Draft::default();
        if let Some(message) = filters::incompatible(&backend.filters) {
            let field = format!("{at}.filters");
            own.refuse(Problem::new("IncompatibleFilters", field, message));
        }
        let mut uses = self.filters(route, &at, &backend.filters, &mut own);
        if !own.mirrors.is_empty() {
            let message = "RequestMirror is supported for rules only; move it there";
            own.refuse(Problem::new("UnsupportedValue", format!("{at}.filters"), message));
        }
        uses.sort_by_key(|policy| !policy.kind.is_gate());
        let closed = own.closed.or(own.unsupported.as_ref().map(|_| Reason::UnsupportedValue));
        draft.unresolved.append(&mut own.unresolved);
        draft.unresolved.extend(own.unsupported);
        draft.targets.push(Weighted {
            weight: Weighted::weight(backend.weight),
            reference: Reference { field: at, to: &backend.target },
            transforms: uses.into_iter().map(|policy| policy.id).collect(),
            closed,
        });
    }
}

/// How long and how often a request is tried, and where.
///
/// # Errors
/// The field below the rule, and a message for the user.
fn attempts(
    route: &RouteSpec<'_>,
    at: &str,
    rule: &RuleSpec<'_>,
    draft: &mut Draft<'_>,
) -> Result<(), (String, String)> {
    let below = |part: &str, (field, message)| (format!("{part}.{field}"), message);
    draft.timeouts = timeouts(rule.timeouts).map_err(|error| below("timeouts", error))?;
    if let Some(spec) = rule.retry {
        draft.retry = Some(retry::read(spec).map_err(|error| below("retry", error))?);
    }
    if let Some(spec) = rule.session {
        let owner = format!("{} {} {at}", route.kind.kind(), route.key);
        let session = session::read(spec, &owner, route.meta);
        let session: Session = session.map_err(|error| below("sessionPersistence", error))?;
        draft.session = Some(Arc::new(session));
    }
    Ok(())
}

fn timeouts(spec: Option<&HttpRouteTimeouts>) -> Result<Timeouts, (&'static str, String)> {
    let Some(spec) = spec else { return Ok(Timeouts::default()) };
    let read = |field: &'static str, text: &Option<String>| -> Result<Option<Duration>, _> {
        text.as_deref().map(duration::parse).transpose().map_err(|message| (field, message))
    };
    let request = read("request", &spec.request)?;
    let backend_request = read("backendRequest", &spec.backend_request)?;
    Ok(Timeouts { request, backend_request, idle: None })
}
