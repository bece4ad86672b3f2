//! What a route's rules are before it is known through which listener they are reached, and what
//! is wrong with them. How they come about is in `rules` and `streams`.

use std::sync::Arc;

use super::matches;
use super::middleware::Use;
use super::status::Problem;
use crate::api::gateway::BackendObjectReference;
use crate::graph::{Action, PolicyId, Retry, Session, Split, Target, Timeouts};
use crate::reason::Reason;

/// Of how many requests how many: numerator and denominator.
pub(super) type Share = (u32, u32);

/// The rules of a route.
#[derive(Debug, Default)]
pub(super) struct Compiled<'s> {
    pub rules: Vec<Draft<'s>>,
    /// Regular expressions in the matches of the rules that can be served.
    pub expressions: usize,
    /// Problems for which the route as a whole is not accepted.
    pub refused: Vec<Problem>,
}

/// A rule before it is known whose policies it carries, and who connects to its backends.
#[derive(Debug, Default)]
pub(super) struct Draft<'s> {
    pub index: u32,
    /// The rule's own name.
    pub name: Option<&'s str>,
    pub matches: Vec<matches::Compiled>,
    /// The policies of its filters, in their order.
    pub filters: Vec<Use>,
    pub mirrors: Vec<(Share, Reference<'s>)>,
    pub targets: Vec<Weighted<'s>>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    pub session: Option<Arc<Session>>,
    /// What it cannot be served for (`Accepted`).
    pub unsupported: Option<Problem>,
    /// Policies that it refers to and that are not there or not allowed (`ResolvedRefs`).
    pub unresolved: Vec<Problem>,
    /// A filter or policy is missing: requests must not go on without it.
    pub closed: Option<Reason>,
}

/// A backend, by the field that names it.
#[derive(Debug)]
pub(super) struct Reference<'s> {
    pub field: String,
    pub to: &'s BackendObjectReference,
}

/// A backend with its share.
#[derive(Debug)]
pub(super) struct Weighted<'s> {
    pub weight: u32,
    pub reference: Reference<'s>,
    /// The policies of the reference's filters.
    pub transforms: Vec<PolicyId>,
    /// Why its share is answered with an error, whatever the reference leads to.
    pub closed: Option<Reason>,
}

impl Compiled<'_> {
    /// Why the route is not accepted: no rule can be served.
    pub fn refused(&self) -> Option<Problem> {
        if let Some(problem) = self.refused.first() {
            return Some(problem.clone());
        }
        let all = !self.rules.is_empty() && self.rules.iter().all(|r| r.unsupported.is_some());
        self.rules.first().filter(|_| all).and_then(|rule| rule.unsupported.clone())
    }

    /// Which rules are not served while others are.
    pub fn dropped(&self) -> Option<String> {
        let bad: Vec<String> = self
            .rules
            .iter()
            .filter_map(|r| r.unsupported.as_ref())
            .map(|p| p.to_string())
            .collect();
        let some = !bad.is_empty() && bad.len() < self.rules.len();
        some.then(|| format!("Dropped Rule(s): {}", bad.join("; ")))
    }

    /// All references that cannot be resolved, those to backends given, under the reason of the
    /// first.
    pub fn unresolved(&self, backends: &[Problem]) -> Option<Problem> {
        /// Enough to see what is wrong; the rest is in the events.
        const MAX: usize = 5;
        let mut all = self.rules.iter().flat_map(|rule| &rule.unresolved).chain(backends);
        let first = all.next()?;
        let mut message = first.to_string();
        for problem in all.take(MAX - 1) {
            message.push_str("; ");
            message.push_str(&problem.to_string());
        }
        Some(Problem::new(first.reason, "", message))
    }

    /// Everything that is wrong without regard to parents and backends.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let of_rules =
            self.rules.iter().flat_map(|rule| rule.unsupported.iter().chain(&rule.unresolved));
        self.refused.iter().chain(of_rules)
    }
}

impl Draft<'_> {
    /// The rule cannot be served; the first problem is told.
    pub fn refuse(&mut self, problem: Problem) {
        self.unsupported.get_or_insert(problem);
    }

    /// Why all that matches is answered with an error.
    pub fn closed(&self) -> Option<Reason> {
        self.unsupported.as_ref().map(|_| Reason::UnsupportedValue).or(self.closed)
    }
}

impl Weighted<'_> {
    /// A backendRef's `weight` as a share: 1 by default.
    pub fn weight(weight: Option<i32>) -> u32 {
        u32::try_from(weight.unwrap_or(1)).unwrap_or(0).min(1_000_000)
    }
}

/// Targets of weight 0 get no requests; if there are no others, nothing can be answered.
pub(super) fn split(targets: Vec<Target>) -> Action {
    let targets: Vec<Target> = targets.into_iter().filter(|target| target.weight > 0).collect();
    let total = targets.iter().fold(0_u32, |sum, target| sum.saturating_add(target.weight));
    if total == 0 {
        Action::Refuse(Reason::NoBackend)
    } else {
        Action::Forward(Split { targets, total })
    }
}
