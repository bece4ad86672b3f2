//! The policies of a rule, out of all levels where some attach.
//!
//! Levels, the most specific first: the rule's filters (or an Ingress's annotations), policies
//! that target the rule, the route, the listener, the Gateway. Gates of all levels add up, so
//! that a tenant can never weaken what a Gateway's owner asks for; of each kind of transform
//! the most specific level wins. CORS, a gate that only describes answers, goes by the latter.
//! A policy in Shadow mode takes nothing's place: it changes nothing here either.

use std::collections::{BTreeMap, HashSet};

use super::middleware::{Attached, Noted, Use};
use crate::graph::PolicyId;
use crate::policy::{Kind, Mode};

/// The policies of a rule, merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Merged {
    pub gates: Vec<PolicyId>,
    pub transforms: Vec<PolicyId>,
}

impl Attached<'_> {
    /// Merges the levels, the most specific first. All of the first level's transforms apply;
    /// of the others, the first of each kind.
    pub fn merge(&mut self, levels: &[Vec<Use>], place: &str) -> Merged {
        let mut gates: Vec<PolicyId> = Vec::new();
        let mut winners: BTreeMap<Kind, (usize, Use)> = BTreeMap::new();
        let mut kept: Vec<Vec<PolicyId>> = vec![Vec::new(); levels.len()];
        let uses =
            levels.iter().enumerate().flat_map(|(at, uses)| uses.iter().map(move |u| (at, *u)));
        for (level, policy) in uses {
            if policy.kind.is_gate() && policy.kind != Kind::Cors {
                gates.push(policy.id);
                continue;
            }
            let (won_at, winner) = match policy.mode {
                Mode::Shadow => winners.get(&policy.kind).copied().unwrap_or((level, policy)),
                _ => *winners.entry(policy.kind).or_insert((level, policy)),
            };
            // Those of a rule's own list all apply. Nothing that only watches is in the way.
            let both = won_at == level && (level == 0 || policy.mode == Mode::Shadow);
            match (winner == policy || both, policy.kind) {
                (true, Kind::Cors) => gates.push(policy.id),
                (true, _) => kept[level].push(policy.id),
                (false, _) => self.overridden(policy, winner, place),
            }
        }
        let mut seen = HashSet::new();
        gates.retain(|id| seen.insert(*id));
        // The outer levels see the request first.
        Merged { gates, transforms: kept.into_iter().rev().flatten().collect() }
    }

    fn overridden(&mut self, loser: Use, winner: Use, place: &str) {
        let by = match winner.object {
            Some(object) => {
                let object = &self.objects[object];
                format!("{} {}", object.kind.kind(), object.key)
            }
            None => "a filter".to_owned(),
        };
        let Some(object) = loser.object else { return };
        let message = format!("{} on {place} is overridden by {by}", loser.kind.as_str());
        self.note(Noted::Overridden(object, message));
    }
}
