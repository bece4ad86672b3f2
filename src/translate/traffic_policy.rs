//! XBackendTrafficPolicies: sessions and a budget of retries for Services and XBackends.
//!
//! Of several for one target the oldest holds, then the one whose name comes first. One that is
//! invalid changes nothing: requests are safe without it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ancestors::{Holders, POLICY, gateway_ref};
use super::pass::{Pass, created};
use super::status::{Problem, Said};
use super::{Key, ObjectKind, session};
use crate::api::gateway::{
    PolicyTargetReference, RequestRate, RetryConstraint, X_GROUP, XBackendTrafficPolicy,
};
use crate::graph::{RetryBudget, Session};
use crate::policy::duration;

const KIND: ObjectKind = ObjectKind::XBackendTrafficPolicy;
const HOUR: Duration = Duration::from_secs(3600);

/// What a policy asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub budget: Option<RetryBudget>,
    pub session: Option<Arc<Session>>,
}

#[derive(Debug)]
struct TrafficPolicy<'s> {
    key: &'s Key,
    object: &'s XBackendTrafficPolicy,
    asked: Result<Asked, Problem>,
    /// By target: who holds it, if it is another.
    conflicts: Vec<Option<&'s Key>>,
}

/// Every XBackendTrafficPolicy of the snapshot.
#[derive(Debug, Default)]
pub(super) struct TrafficPolicies<'s> {
    all: Vec<TrafficPolicy<'s>>,
    /// By kind, namespace and name of a target.
    holders: Holders<(&'static str, &'s str, &'s str)>,
}

impl TrafficPolicies<'_> {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What holds for a Service or an XBackend.
    pub fn of(&self, kind: &'static str, target: &Key) -> Asked {
        let holder = self.holders.of(&(kind, &*target.namespace, &*target.name));
        let asked = holder.and_then(|place| self.all[place].asked.as_ref().ok());
        asked.cloned().unwrap_or_default()
    }
}

impl<'s> Pass<'s> {
    pub fn collect_traffic_policies(&mut self) {
        let mut all: Vec<_> = self.snapshot.x_backend_traffic_policies.iter().collect();
        all.sort_by_key(|(key, object)| (created(&object.metadata), *key));
        let mut policies = TrafficPolicies::default();
        for (place, (key, object)) in all.into_iter().enumerate() {
            let holders = &mut policies.holders;
            let mut conflicts = Vec::with_capacity(object.spec.target_refs.len());
            for target in object.spec.target_refs.iter() {
                let id = kind_of(target).map(|kind| (kind, &*key.namespace, &*target.name));
                let rival = id.and_then(|id| holders.claim(id, place));
                conflicts.push(rival.map(|rival| policies.all[rival].key));
            }
            let asked = asked(key, object);
            if let Err(problem) = &asked {
                self.warn(KIND, key, &object.metadata, problem);
            }
            policies.all.push(TrafficPolicy { key, object, asked, conflicts });
        }
        self.traffic_policies = policies;
    }

    /// Says of every policy what became of it, for each Gateway that reaches its targets.
    pub fn traffic_policy_statuses(&mut self) {
        let policies = std::mem::take(&mut self.traffic_policies);
        for policy in &policies.all {
            let (key, meta) = (policy.key, &policy.object.metadata);
            let mut ancestors: BTreeMap<&Key, Option<Problem>> = BTreeMap::new();
            for (i, target) in policy.object.spec.target_refs.iter().enumerate() {
                let problem = self.traffic_problem(policy, i, target);
                if let Some(problem) = &problem {
                    self.warn(KIND, key, meta, problem);
                }
                let Some(kind) = kind_of(target) else { continue };
                let object = Key::new(&*key.namespace, &*target.name);
                for gateway in self.backends.reached.gateways(kind, &object, |_| true) {
                    let first = ancestors.entry(gateway).or_default();
                    *first = first.take().or_else(|| problem.clone());
                }
            }
            let said = ancestors.into_iter().map(|(gateway, problem)| {
                let problem = policy.asked.as_ref().err().or(problem.as_ref());
                (gateway_ref(gateway), vec![Said::of("Accepted", "Accepted", problem)])
            });
            let old = policy.object.status.as_ref();
            let new = self.ancestor_status(old, meta.generation, &POLICY, said.collect());
            self.status(KIND, key, meta, old, new);
        }
        self.traffic_policies = policies;
    }

    /// Why the policy does not hold for one of its targets.
    fn traffic_problem(
        &self,
        policy: &TrafficPolicy<'_>,
        index: usize,
        target: &PolicyTargetReference,
    ) -> Option<Problem> {
        let field = format!("spec.targetRefs[{index}]");
        let object = Key::new(&*policy.key.namespace, &*target.name);
        let problem = |reason, message: String| Some(Problem::new(reason, field, message));
        let exists = match kind_of(target) {
            None => {
                let message = format!(
                    "{} of group {:?} cannot be a target; name a Service or an XBackend",
                    target.kind, target.group
                );
                return problem("TargetNotFound", message);
            }
            Some("Service") => self.snapshot.services.contains_key(&object),
            Some(_) => self.snapshot.x_backends.contains_key(&object),
        };
        if !exists {
            let message = format!("{} {object} does not exist; create it", target.kind);
            return problem("TargetNotFound", message);
        }
        let holder = policy.conflicts.get(index).copied().flatten()?;
        let message = format!(
            "XBackendTrafficPolicy {holder} targets the same and comes first (by age, then by \
             name); remove one of them"
        );
        problem("Conflicted", message)
    }
}

fn kind_of(target: &PolicyTargetReference) -> Option<&'static str> {
    match (target.group.as_str(), target.kind.as_str()) {
        ("", "Service") => Some("Service"),
        (X_GROUP, "XBackend") => Some("XBackend"),
        _ => None,
    }
}

fn asked(key: &Key, object: &XBackendTrafficPolicy) -> Result<Asked, Problem> {
    let budget = object.spec.retry_constraint.as_ref().map(budget).transpose()?;
    let session = match &object.spec.session_persistence {
        None => None,
        Some(spec) => {
            let owner = format!("XBackendTrafficPolicy {key}");
            let session = session::read(spec, &owner, &object.metadata);
            Some(session.map_err(|(field, message)| {
                Problem::new("Invalid", format!("spec.sessionPersistence.{field}"), message)
            })?)
        }
    };
    Ok(Asked { budget, session: session.map(Arc::new) })
}

/// With the defaults of GEP-3388: 20 of a hundred in 10 s, and 10 in a second anyway.
fn budget(spec: &RetryConstraint) -> Result<RetryBudget, Problem> {
    let at = "spec.retryConstraint";
    let wrong =
        |field: &str, message: String| Problem::new("Invalid", format!("{at}.{field}"), message);
    let length = |field: &str, text: Option<&str>, default, least: Duration| {
        let Some(text) = text else { return Ok(default) };
        let length = duration::parse(text).map_err(|message| wrong(field, message))?;
        match (least..=HOUR).contains(&length) {
            true => Ok(length),
            false => Err(wrong(field, format!("{text} is too short or longer than 1h"))),
        }
    };
    let share = spec.budget.clone().unwrap_or_default();
    let percent = u32::try_from(share.percent.unwrap_or(20)).ok().filter(|p| *p <= 100);
    let rate = spec.min_retry_rate.clone().unwrap_or_default();
    let RequestRate { count, interval } = rate;
    let count = u32::try_from(count.unwrap_or(10)).ok().filter(|c| (1..=1_000_000).contains(c));
    let second = Duration::from_secs(1);
    Ok(RetryBudget {
        percent: percent.ok_or_else(|| wrong("budget.percent", "use 0 to 100".into()))?,
        interval: length(
            "budget.interval",
            share.interval.as_deref(),
            Duration::from_secs(10),
            second,
        )?,
        min_rate: (
            count.ok_or_else(|| wrong("minRetryRate.count", "use 1 to 1000000".into()))?,
            length("minRetryRate.interval", interval.as_deref(), second, Duration::from_millis(1))?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> Result<RetryBudget, String> {
        budget(&serde_json::from_value(spec).unwrap()).map_err(|problem| problem.field)
    }

    #[test]
    fn what_is_not_said_is_as_the_specification_has_it() {
        let second = Duration::from_secs(1);
        let standard = RetryBudget { percent: 20, interval: 10 * second, min_rate: (10, second) };
        assert_eq!(of(json!({})), Ok(standard));
        let own = json!({"budget": {"percent": 50}, "minRetryRate": {"interval": "2s"}});
        let own_budget = RetryBudget { percent: 50, min_rate: (10, 2 * second), ..standard };
        assert_eq!(of(own), Ok(own_budget));
    }

    #[test]
    fn what_is_out_of_bounds_is_told_by_its_field() {
        let at = |field: &str| Err(format!("spec.retryConstraint.{field}"));
        assert_eq!(of(json!({"budget": {"percent": 101}})), at("budget.percent"));
        assert_eq!(of(json!({"budget": {"interval": "500ms"}})), at("budget.interval"));
        assert_eq!(of(json!({"minRetryRate": {"count": 0}})), at("minRetryRate.count"));
        assert_eq!(of(json!({"minRetryRate": {"interval": "0s"}})), at("minRetryRate.interval"));
        assert_eq!(of(json!({"minRetryRate": {"interval": "2h"}})), at("minRetryRate.interval"));
    }
}
