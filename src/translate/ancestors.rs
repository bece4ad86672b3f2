//! Statuses by ancestor (GEP-713): what an object for backends says to each Gateway through
//! which its backend is reached; and which of several policies holds for a target.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use super::Key;
use super::pass::Pass;
use super::status::{Said, conditions, in_place};
use crate::api::gateway::{GROUP, ParentReference, PolicyAncestorStatus, PolicyStatus};

/// What of a status is ours: types of conditions, and how many entries there may be at most, of
/// all controllers together.
pub(super) type Owned = (&'static [&'static str], usize);

/// GEP-713.
pub(super) const POLICY: Owned = (&["Accepted"], 16);
pub(super) const TLS_POLICY: Owned = (&["Accepted", "ResolvedRefs"], 16);
/// GEP-4894.
pub(super) const XBACKEND: Owned = (&["Accepted", "ResolvedRefs"], 32);

/// Through which Gateways backends are reached: collected while routes resolve theirs.
#[derive(Debug, Default)]
pub(super) struct Reached<'s> {
    by: BTreeMap<(&'static str, Key), BTreeMap<u16, BTreeSet<&'s Key>>>,
}

impl<'s> Reached<'s> {
    /// A route of the Gateway names this port (0: the object's only one).
    pub fn add(&mut self, kind: &'static str, object: &Key, port: u16, gateway: &'s Key) {
        self.by.entry((kind, object.clone())).or_default().entry(port).or_default().insert(gateway);
    }

    /// The Gateways that reach a port for which `covers` holds.
    pub fn gateways(
        &self,
        kind: &'static str,
        object: &Key,
        covers: impl Fn(u16) -> bool,
    ) -> BTreeSet<&'s Key> {
        let ports = self.by.get(&(kind, object.clone())).into_iter().flatten();
        ports.filter(|(port, _)| covers(**port)).flat_map(|(_, by)| by).copied().collect()
    }
}

/// A Gateway as an ancestor.
pub(super) fn gateway_ref(key: &Key) -> ParentReference {
    ParentReference {
        group: Some(GROUP.to_owned()),
        kind: Some("Gateway".to_owned()),
        namespace: Some(key.namespace.clone()),
        name: key.name.clone(),
        section_name: None,
        port: None,
    }
}

impl Pass<'_> {
    /// The status that says `said` to its ancestors. Entries of other controllers stay as they
    /// are; ours beyond the bound have no room.
    pub fn ancestor_status(
        &self,
        old: Option<&PolicyStatus>,
        generation: Option<i64>,
        (owned, most): &Owned,
        said: Vec<(ParentReference, Vec<Said>)>,
    ) -> PolicyStatus {
        let controller = &self.snapshot.settings.controller_name;
        let old = old.map_or(&[][..], |status| &status.ancestors);
        let foreign: Vec<_> = old.iter().filter(|a| a.controller_name != *controller).collect();
        let room = most.saturating_sub(foreign.len());
        let mut entries = Vec::new();
        for (ancestor, said) in said.into_iter().take(room) {
            let same = |a: &&PolicyAncestorStatus| {
                a.controller_name == *controller && a.ancestor_ref == ancestor
            };
            let before = old.iter().find(same);
            let standing = before.map_or(&[][..], |before| &before.conditions);
            entries.push(PolicyAncestorStatus {
                conditions: conditions(standing, owned, &said, generation, &self.now),
                ancestor_ref: ancestor,
                controller_name: controller.clone(),
                other: before.map(|before| before.other.clone()).unwrap_or_default(),
            });
        }
        entries.extend(foreign.into_iter().cloned());
        let same = |a: &PolicyAncestorStatus, b: &PolicyAncestorStatus| {
            a.ancestor_ref == b.ancestor_ref && a.controller_name == b.controller_name
        };
        PolicyStatus { ancestors: in_place(entries, old, same) }
    }
}

/// Which policy holds for a target: of several the one that claims it first.
#[derive(Debug)]
pub(super) struct Holders<T>(HashMap<T, usize>);

impl<T> Default for Holders<T> {
    fn default() -> Self {
        Holders(HashMap::new())
    }
}

impl<T: Eq + Hash> Holders<T> {
    /// Claims `target` for the policy at `place`; returns the place of the one that has it already.
    pub fn claim(&mut self, target: T, place: usize) -> Option<usize> {
        let holder = *self.0.entry(target).or_insert(place);
        (holder != place).then_some(holder)
    }

    /// The place of the policy that holds for `target`.
    pub fn of(&self, target: &T) -> Option<usize> {
        self.0.get(target).copied()
    }
}
