//! The rules of HTTPRoutes: matches, filters, backends and timeouts, and what is wrong with
//! them.
//!
//! A rule that cannot be understood answers 500 where it still matches, and so does one whose
//! filters or policies are missing: it never goes on without them. A backend that cannot be
//! resolved takes its share of requests and answers 500 for it.

use std::time::Duration;

use super::backends::{Traffic, Unresolved};
use super::draft::{Compiled, Draft, mirror, split};
use super::external_auth::NoPolicy;
use super::filters::{self, Filter};
use super::gateway::GatewayState;
use super::listeners::ListenerState;
use super::matches;
use super::middleware::{Merged, OURS, Use, reference};
use super::pass::Pass;
use super::references::From;
use super::status::Problem;
use super::{Key, ObjectKind};
use crate::api::gateway::{
    GROUP, HttpBackendRef, HttpRoute, HttpRouteFilter, HttpRouteRule, HttpRouteTimeouts,
    LocalObjectReference,
};
use crate::graph::{Action, Rule, RuleId, RuleName, Timeouts};
use crate::policy::{AnySpec, Refs, duration};
use crate::reason::Reason;

/// The kind of a rule's route, as log lines and metrics name it.
const KIND: &str = "HTTPRoute";

/// Most regular expressions in the matches of one route: each is tried for each request.
const MAX_EXPRESSIONS: usize = 64;
/// Most in the matches of all routes of a namespace: each takes memory of a shared process.
const MAX_OF_NAMESPACE: usize = 512;

/// The policies of the Gateway and of the listener that a rule is reached through.
#[derive(Debug)]
pub(super) struct Outer {
    listener: Result<Vec<Use>, String>,
    gateway: Result<Vec<Use>, String>,
}

impl Outer {
    /// Whether there are none, so that rules can be shared with other such listeners.
    pub fn is_plain(&self) -> bool {
        matches!((&self.listener, &self.gateway), (Ok(a), Ok(b)) if a.is_empty() && b.is_empty())
    }
}

impl<'s> Pass<'s> {
    pub fn rules(&mut self, key: &'s Key, route: &'s HttpRoute) -> Compiled<'s> {
        let mut compiled = Compiled::default();
        for (index, rule) in route.spec.rules.iter().enumerate() {
            let more = matches::expressions(&rule.matches);
            let room = self.room(key, more, compiled.expressions);
            if room.is_ok() {
                compiled.expressions += more;
            }
            let draft = self.draft(key, index, rule, room);
            compiled.rules.push(draft);
        }
        if compiled.expressions > 0 {
            let there = self.expressions_of.entry(key.namespace.as_str()).or_default();
            *there += compiled.expressions;
        }
        compiled
    }

    /// Whether a route that has `own` regular expressions may have `more`.
    ///
    /// # Errors
    /// A message for the user.
    fn room(&self, key: &Key, more: usize, own: usize) -> Result<(), String> {
        let others = self.expressions_of.get(key.namespace.as_str()).copied().unwrap_or(0);
        let hint = "use Exact or PathPrefix, or join expressions by `|`";
        if more == 0 {
            Ok(())
        } else if own + more > MAX_EXPRESSIONS {
            Err(format!("more than {MAX_EXPRESSIONS} regular expressions in one HTTPRoute; {hint}"))
        } else if others + own + more > MAX_OF_NAMESPACE {
            Err(format!(
                "more than {MAX_OF_NAMESPACE} regular expressions in the HTTPRoutes of namespace \
                 {}, and older ones come first; {hint}",
                key.namespace
            ))
        } else {
            Ok(())
        }
    }

    /// `room`: whether the regular expressions of this rule may be.
    fn draft(
        &mut self,
        key: &'s Key,
        index: usize,
        rule: &'s HttpRouteRule,
        room: Result<(), String>,
    ) -> Draft<'s> {
        let at = format!("spec.rules[{index}]");
        let mut draft = Draft {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            name: rule.name.as_deref(),
            matches: Vec::new(),
            filters: Vec::new(),
            mirrors: Vec::new(),
            targets: Vec::new(),
            timeouts: Timeouts::default(),
            unsupported: None,
            unresolved: Vec::new(),
            closed: None,
            ignored: ignored(&at, rule),
        };
        match self.matches(rule, room) {
            Ok(matches) => draft.matches = matches,
            Err(mut problem) => {
                problem.field = format!("{at}.{}", problem.field);
                draft.unsupported = Some(problem);
            }
        }
        if let Some(message) = filters::incompatible(&rule.filters) {
            draft.refuse(Problem::new("IncompatibleFilters", format!("{at}.filters"), message));
        }
        match timeouts(rule.timeouts.as_ref()) {
            Ok(timeouts) => draft.timeouts = timeouts,
            Err((field, message)) => {
                let field = format!("{at}.timeouts.{field}");
                draft.refuse(Problem::new("UnsupportedValue", field, message));
            }
        }
        draft.filters = self.filters(key, &at, &rule.filters, &mut draft);
        for (i, backend) in rule.backend_refs.iter().enumerate() {
            self.target(key, &format!("{at}.backendRefs[{i}]"), backend, &mut draft);
        }
        draft
    }

    fn matches(
        &mut self,
        rule: &HttpRouteRule,
        room: Result<(), String>,
    ) -> Result<Vec<matches::Compiled>, Problem> {
        room.map_err(|message| Problem::new("UnsupportedValue", "matches", message))?;
        matches::compile(&rule.matches, &mut self.memo)
    }

    /// The policies of a list of filters; mirrors and problems go into the draft.
    fn filters(
        &mut self,
        key: &Key,
        at: &str,
        list: &'s [HttpRouteFilter],
        draft: &mut Draft<'s>,
    ) -> Vec<Use> {
        let mut uses = Vec::new();
        for (i, filter) in list.iter().enumerate() {
            let field = format!("{at}.filters[{i}]");
            let unsupported =
                |message: String| Problem::new("UnsupportedValue", field.clone(), message);
            match filters::read(filter) {
                Err(message) => draft.refuse(unsupported(message)),
                Ok(Filter::Policy(spec)) => match self.policy(key, &field, &spec) {
                    Ok(policy) => uses.push(policy),
                    Err(message) => draft.refuse(unsupported(message)),
                },
                Ok(Filter::Mirror(mirror)) => {
                    let share = match filters::share_of(mirror) {
                        Ok(share) => share,
                        Err(message) => {
                            draft.refuse(unsupported(message));
                            continue;
                        }
                    };
                    let from = From { group: GROUP, kind: KIND, namespace: &key.namespace };
                    match self.backend_of(from, None, &mirror.backend_ref, Traffic::Http) {
                        Ok(backend) => draft.mirrors.push((share, backend)),
                        // Not mirrored; the request itself is not concerned.
                        Err(error) => {
                            let field = format!("{field}.requestMirror.backendRef");
                            draft.unresolved.push(problem(field, &error));
                        }
                    }
                }
                Ok(Filter::ExternalAuth(auth)) => {
                    let from = From { group: GROUP, kind: KIND, namespace: &key.namespace };
                    match self.external_auth(from, None, key, &field, auth) {
                        Ok(policy) => uses.push(policy),
                        Err(NoPolicy::Invalid(message)) => draft.refuse(unsupported(message)),
                        Err(NoPolicy::Unresolved(error)) => {
                            let field = format!("{field}.externalAuth.backendRef");
                            draft.unresolved.push(problem(field, &error));
                            draft.closed = Some(error.reason);
                        }
                    }
                }
                Ok(Filter::Extension(extension)) => match self.extension(key, extension) {
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

    fn policy(&mut self, key: &Key, field: &str, spec: &AnySpec) -> Result<Use, String> {
        let name = format!("{KIND}/{key}/{field}");
        let id = self.graph.policy(&name, spec, &Refs::default()).map_err(|e| e.to_string())?;
        Ok(Use { id, kind: spec.kind(), object: None })
    }

    fn extension(
        &mut self,
        key: &Key,
        extension: &LocalObjectReference,
    ) -> Result<Vec<Use>, (&'static str, String)> {
        let kind = match (extension.group.as_str(), extension.kind.as_str()) {
            (OURS, "Middleware") => ObjectKind::Middleware,
            (OURS, "RateLimit") => ObjectKind::RateLimit,
            (group, kind) => {
                let message = format!(
                    "{kind} of group {group:?} is not supported; use Middleware or RateLimit of \
                     {OURS}"
                );
                return Err((Reason::InvalidKind.as_str(), message));
            }
        };
        let object = Key::new(&*key.namespace, &*extension.name);
        let named = self.policies.named(kind, &object, &reference(KIND, key, None));
        named.map_err(|(reason, message)| (reason.as_str(), message))
    }

    fn target(&mut self, key: &Key, at: &str, backend: &'s HttpBackendRef, draft: &mut Draft<'s>) {
        let from = From { group: GROUP, kind: KIND, namespace: &key.namespace };
        let to = self.backend_of(from, None, &backend.target, Traffic::Http);
        if let Err(error) = &to {
            draft.unresolved.push(problem(at.to_owned(), error));
        }
        // Filters of one backend that cannot be had close only its share.
        let outer = (draft.unsupported.take(), draft.closed.take());
        if let Some(message) = filters::incompatible(&backend.filters) {
            let field = format!("{at}.filters");
            draft.refuse(Problem::new("IncompatibleFilters", field, message));
        }
        let mirrors = draft.mirrors.len();
        let mut uses = self.filters(key, at, &backend.filters, draft);
        if draft.mirrors.len() > mirrors {
            draft.mirrors.truncate(mirrors);
            let message = "RequestMirror is supported for rules only; move it there";
            draft.refuse(Problem::new("UnsupportedValue", format!("{at}.filters"), message));
        }
        uses.sort_by_key(|policy| !policy.kind.is_gate());
        let own = draft.unsupported.take();
        let closed = draft.closed.take().or(own.as_ref().map(|_| Reason::UnsupportedValue));
        (draft.unsupported, draft.closed) = outer;
        if let Some(problem) = own {
            draft.unresolved.push(problem);
        }
        let to = match (to, closed) {
            (Ok(_), Some(reason)) => Err(reason),
            (Ok(id), None) => Ok(id),
            (Err(error), _) => Err(error.reason),
        };
        let weight = u32::try_from(backend.weight.unwrap_or(1)).unwrap_or(0).min(1_000_000);
        draft.targets.push((weight, to, uses.into_iter().map(|policy| policy.id).collect()));
    }

    /// The policies that target a Gateway and one of its listeners.
    pub fn outer(&self, gateway: &GatewayState<'_>, listener: &ListenerState<'_>) -> Outer {
        let Key { namespace, name } = gateway.key;
        let section = Some(listener.spec.name.as_str());
        let (kind, of) = (listener.parent.kind().kind(), listener.parent.key());
        Outer {
            listener: self.policies.targeting((kind, &of.namespace, &of.name, section)),
            gateway: self.policies.targeting(("Gateway", namespace, name, None)),
        }
    }

    /// Makes the rule, with the policies of all levels; None if it has no matches.
    pub fn make(&mut self, key: &Key, draft: &Draft<'_>, outer: &Outer) -> Option<RuleId> {
        if draft.matches.is_empty() {
            return None;
        }
        let index = draft.index.to_string();
        let name = draft.name.unwrap_or(&index);
        let merged = self.levels(key, draft, outer, name);
        let name = RuleName {
            kind: KIND,
            namespace: key.namespace.as_str().into(),
            name: key.name.as_str().into(),
            rule: name.into(),
        };
        let mut rule = Rule::new(name, Action::Refuse(Reason::InvalidPolicy));
        rule.timeouts = draft.timeouts;
        let closed = draft.unsupported.as_ref().map(|_| Reason::UnsupportedValue);
        match (closed.or(draft.closed), merged) {
            (Some(reason), _) => rule.action = Action::Refuse(reason),
            (None, Err(reason)) => rule.action = Action::Refuse(reason),
            (None, Ok(merged)) => {
                rule.gates = merged.gates;
                rule.transforms = merged.transforms;
                rule.action = split(&draft.targets);
                rule.mirrors = draft.mirrors.iter().map(mirror).collect();
            }
        }
        Some(self.graph.rule(rule))
    }

    fn levels(
        &mut self,
        key: &Key,
        draft: &Draft<'_>,
        outer: &Outer,
        name: &str,
    ) -> Result<Merged, Reason> {
        let Key { namespace, name: route } = key;
        let of_rule = match draft.name {
            Some(name) => self.policies.targeting((KIND, namespace, route, Some(name))),
            None => Ok(Vec::new()),
        };
        let of_route = self.policies.targeting((KIND, namespace, route, None));
        let closed = |_| Reason::InvalidPolicy;
        let levels = [
            draft.filters.clone(),
            of_rule.map_err(closed)?,
            of_route.map_err(closed)?,
            outer.listener.clone().map_err(closed)?,
            outer.gateway.clone().map_err(closed)?,
        ];
        Ok(self.policies.merge(&levels, &format!("{KIND} {key} rule {name}")))
    }
}

/// Only told, because without these requests are served all the same.
fn ignored(at: &str, rule: &HttpRouteRule) -> Vec<Problem> {
    let fields = [
        ("retry", rule.retry.is_some()),
        ("sessionPersistence", rule.session_persistence.is_some()),
    ];
    let set = fields.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(field, _)| {
        let message = "experimental, and not supported; the rule is served without it";
        Problem::new("UnsupportedValue", format!("{at}.{field}"), message)
    })
    .collect()
}

fn problem(field: String, error: &Unresolved) -> Problem {
    Problem::new(error.reason.as_str(), field, error.message.clone())
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
