//! What a route's rules are before it is known through which listener they are reached, and what
//! is wrong with them. How they come about is in `rules`.

use super::matches;
use super::middleware::Use;
use super::status::Problem;
use crate::graph::{Action, BackendId, Mirror, PolicyId, Split, Target, Timeouts};
use crate::reason::Reason;

/// Of how many requests how many: numerator and denominator.
pub(super) type Share = (u32, u32);

/// A weight, the backend or why there is none, and the policies of the reference's filters.
pub(super) type Weighted = (u32, Result<BackendId, Reason>, Vec<PolicyId>);

/// The rules of a route.
#[derive(Debug, Default)]
pub(super) struct Compiled<'s> {
    pub rules: Vec<Draft<'s>>,
    /// Regular expressions in the matches of the rules that can be served.
    pub expressions: usize,
    /// Problems for which the route as a whole is not accepted.
    pub refused: Vec<Problem>,
}

/// A rule before it is known whose policies it carries.
#[derive(Debug)]
pub(super) struct Draft<'s> {
    pub index: u32,
    /// The rule's own name.
    pub name: Option<&'s str>,
    pub matches: Vec<matches::Compiled>,
    /// The policies of its filters, in their order.
    pub filters: Vec<Use>,
    pub mirrors: Vec<(Share, BackendId)>,
    pub targets: Vec<Weighted>,
    pub timeouts: Timeouts,
    /// What it cannot be served for (`Accepted`).
    pub unsupported: Option<Problem>,
    /// What it refers to and is not there or not allowed (`ResolvedRefs`).
    pub unresolved: Vec<Problem>,
    /// A filter or policy is missing: requests must not go on without it.
    pub closed: Option<Reason>,
    /// Experimental fields without which requests go on.
    pub ignored: Vec<Problem>,
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

    /// All references that cannot be resolved, under the reason of the first.
    pub fn unresolved(&self) -> Option<Problem> {
        /// Enough to see what is wrong; the rest is in the events.
        const MAX: usize = 5;
        let mut all = self.rules.iter().flat_map(|rule| &rule.unresolved);
        let first = all.next()?;
        let mut message = first.to_string();
        for problem in all.take(MAX - 1) {
            message.push_str("; ");
            message.push_str(&problem.to_string());
        }
        Some(Problem::new(first.reason, "", message))
    }

    pub fn problems(&self) -> Vec<Problem> {
        let of = |rule: &'_ Draft<'_>| {
            let all = rule.unsupported.iter().chain(&rule.unresolved).chain(&rule.ignored);
            all.cloned().collect::<Vec<_>>()
        };
        self.refused.iter().cloned().chain(self.rules.iter().flat_map(of)).collect()
    }
}

impl Draft<'_> {
    /// The rule cannot be served; the first problem is told.
    pub fn refuse(&mut self, problem: Problem) {
        self.unsupported.get_or_insert(problem);
    }
}

pub(super) fn mirror(((numerator, denominator), to): &(Share, BackendId)) -> Mirror {
    Mirror { to: *to, numerator: *numerator, denominator: *denominator }
}

/// Targets of weight 0 get no requests; if there are no others, nothing can be answered.
pub(super) fn split(targets: &[Weighted]) -> Action {
    let targets: Vec<Target> = targets
        .iter()
        .filter(|(weight, ..)| *weight > 0)
        .map(|(weight, to, transforms)| Target {
            weight: *weight,
            to: *to,
            transforms: transforms.clone(),
        })
        .collect();
    let total = targets.iter().fold(0_u32, |sum, target| sum.saturating_add(target.weight));
    if total == 0 {
        Action::Refuse(Reason::NoBackend)
    } else {
        Action::Forward(Split { targets, total })
    }
}
