//! The policies of a rule, out of all levels where some attach.
//!
//! Levels, the most specific first: the rule's filters (or an Ingress's annotations), policies
//! that target the rule, the route, the listener, the Gateway. Gates of all levels add up, so
//! that a tenant can never weaken what a Gateway's owner asks for; of each kind of transform
//! the most specific level wins. CORS, a gate that only describes answers, goes by the latter.
//! A policy in Shadow mode takes nothing's place: it changes nothing here either.
//!
//! Gates run in the order of the policy table, with one exception: from authentication on, those
//! of an outer owner run before those of an inner one begin. So what a route says of its callers
//! (its own keys, groups and plans) means nothing to the authorization and the limits of a
//! Gateway of another namespace, while what the Gateway found out holds for the route.

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
    /// Merges the levels, the most specific first, for a rule of `namespace`. All of the first
    /// level's transforms apply; of the others, the first of each kind.
    pub fn merge(&mut self, levels: &[Vec<Use>], namespace: &str, place: &str) -> Merged {
        let mut gates: Vec<(usize, Use)> = Vec::new();
        let mut winners: BTreeMap<Kind, (usize, Use)> = BTreeMap::new();
        let mut kept: Vec<Vec<PolicyId>> = vec![Vec::new(); levels.len()];
        let uses =
            levels.iter().enumerate().flat_map(|(at, uses)| uses.iter().map(move |u| (at, *u)));
        for (level, policy) in uses {
            if policy.kind.is_gate() && policy.kind != Kind::Cors {
                gates.push((level, policy));
                continue;
            }
            let (won_at, winner) = match policy.mode {
                Mode::Shadow => winners.get(&policy.kind).copied().unwrap_or((level, policy)),
                _ => *winners.entry(policy.kind).or_insert((level, policy)),
            };
            // Those of a rule's own list all apply. Nothing that only watches is in the way.
            let both = won_at == level && (level == 0 || policy.mode == Mode::Shadow);
            match (winner == policy || both, policy.kind) {
                (true, Kind::Cors) => gates.push((level, policy)),
                (true, _) => kept[level].push(policy.id),
                (false, _) => self.overridden(policy, winner, place),
            }
        }
        // The outer levels see the request first.
        let transforms = kept.into_iter().rev().flatten().collect();
        let depths = self.depths(levels, namespace);
        gates.sort_by_key(|(level, policy)| match policy.kind.is_before_identity() {
            true => (0, policy.kind),
            false => (depths[*level], policy.kind),
        });
        let mut seen = HashSet::new();
        let gates = gates.into_iter().map(|(_, policy)| policy.id).filter(|id| seen.insert(*id));
        Merged { gates: gates.collect(), transforms }
    }

    /// How many owners, which are namespaces, a request has met at each level. Policies of one
    /// owner trust each other, at whatever level they are.
    fn depths(&self, levels: &[Vec<Use>], namespace: &str) -> Vec<usize> {
        let mut depths = vec![0; levels.len()];
        let (mut depth, mut last) = (0, None);
        for (level, uses) in levels.iter().enumerate().rev() {
            if let Some(first) = uses.first() {
                let object = first.object.map(|place| self.objects[place].key.namespace.as_str());
                let owner = Some(object.unwrap_or(namespace));
                depth += usize::from(owner != last);
                last = owner;
            }
            depths[level] = depth;
        }
        depths
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
