//! ListenerSets (GEP-1713): which of them a Gateway takes, and what their status says.
//!
//! A set's listeners become the Gateway's, after its own. Routes attach to the set and not to
//! the Gateway; certificates are referred to by the set, with ReferenceGrants of its own.

use std::collections::HashMap;

use super::addresses::Addresses;
use super::gateway::GatewayState;
use super::listeners::{ListenerState, Owner, Parent};
use super::namespaces::Namespaces;
use super::pass::{Pass, created};
use super::status::{Problem, Said, conditions};
use super::{Key, ObjectKind, Snapshot};
use crate::api::gateway::{
    FromNamespaces, GROUP, Gateway, ListenerSet, ListenerSetStatus, ListenerStatus,
};

/// The conditions that are ours in a ListenerSet's status.
const OWNED: [&str; 2] = ["Accepted", "Programmed"];

/// A ListenerSet and its key.
pub(super) type Named<'s> = (&'s Key, &'s ListenerSet);

/// A ListenerSet that names a Gateway of ours.
#[derive(Debug)]
pub(super) struct SetState<'s> {
    pub key: &'s Key,
    pub object: &'s ListenerSet,
    /// Why the Gateway does not take it; its listeners are not the Gateway's then.
    pub problem: Option<Problem>,
}

/// The ListenerSets by the Gateway that they name, the oldest first.
pub(super) fn by_gateway(snapshot: &Snapshot) -> HashMap<Key, Vec<Named<'_>>> {
    let mut sets: HashMap<Key, Vec<Named<'_>>> = HashMap::new();
    for (key, set) in snapshot.listener_sets.iter() {
        let parent = &set.spec.parent_ref;
        let is_gateway = parent.group.as_deref().is_none_or(|group| group == GROUP)
            && parent.kind.as_deref().is_none_or(|kind| kind == "Gateway");
        if is_gateway {
            let namespace = parent.namespace.as_deref().unwrap_or(&key.namespace);
            sets.entry(Key::new(namespace, &*parent.name)).or_default().push((key, set));
        }
    }
    for sets in sets.values_mut() {
        sets.sort_by_key(|(key, set)| (created(&set.metadata), *key));
    }
    sets
}

impl<'s> Pass<'s> {
    /// Adds the listeners of the sets that the Gateway allows.
    pub fn listener_sets(
        &mut self,
        gateway_key: &Key,
        gateway: &'s Gateway,
        sets: &[Named<'s>],
        listeners: &mut Vec<ListenerState<'s>>,
    ) -> Vec<SetState<'s>> {
        let mut states = Vec::with_capacity(sets.len());
        for (key, object) in sets {
            let problem = not_allowed(self.snapshot, gateway_key, gateway, &key.namespace);
            if problem.is_none() {
                let old = object.status.as_ref().map_or(&[][..], |status| &status.listeners);
                let (parent, meta) = (Parent::ListenerSet(key), &object.metadata);
                let owner = Owner { parent, meta, listeners: &object.spec.listeners, old };
                listeners.extend(self.listeners(owner));
            }
            states.push(SetState { key, object, problem });
        }
        states
    }

    /// Says of every ListenerSet what became of it.
    pub fn listener_set_statuses(&mut self, gateways: &[GatewayState<'s>]) {
        for gateway in gateways {
            for set in &gateway.sets {
                self.listener_set_status(gateway, set);
            }
        }
    }

    fn listener_set_status(&mut self, gateway: &GatewayState<'s>, set: &SetState<'s>) {
        let meta = &set.object.metadata;
        let of_set: Vec<_> = gateway.of(Parent::ListenerSet(set.key)).collect();
        let listeners: Vec<ListenerStatus> =
            of_set.iter().map(|l| self.listener_status(gateway, l, meta.generation)).collect();
        let said = [accepted(gateway, set), self.set_programmed(gateway, set)];
        let old = set.object.status.as_ref();
        let before = old.map_or(&[][..], |status| &status.conditions);
        let new = ListenerSetStatus {
            conditions: conditions(before, &OWNED, &said, meta.generation, &self.now),
            listeners,
            other: old.map(|status| status.other.clone()).unwrap_or_default(),
        };
        let problems = of_set.iter().flat_map(|listener| listener.problems());
        for problem in set.problem.iter().chain(problems) {
            self.warn(ObjectKind::ListenerSet, set.key, meta, problem);
        }
        self.status(ObjectKind::ListenerSet, set.key, meta, old, new);
    }

    fn set_programmed(&self, gateway: &GatewayState<'_>, set: &SetState<'_>) -> Said {
        let accepted = accepted(gateway, set);
        if !accepted.holds {
            let reason = match accepted.reason {
                "ParentNotAccepted" => "ParentNotProgrammed",
                reason => reason,
            };
            return Said::no("Programmed", reason, accepted.message);
        }
        let addresses = Addresses::of(self.snapshot, gateway);
        if let Some(problem) = self.not_reachable(gateway, &addresses) {
            return Said::no("Programmed", "ParentNotProgrammed", problem.message);
        }
        match self.not_live(gateway, Parent::ListenerSet(set.key)) {
            Some(problem) => Said::no("Programmed", problem.reason, problem.message),
            None => Said::yes("Programmed", "Programmed", ""),
        }
    }
}

/// How many ListenerSets a Gateway has accepted.
pub(super) fn attached(gateway: &GatewayState<'_>) -> i32 {
    let accepted = gateway.sets.iter().filter(|set| accepted(gateway, set).holds);
    i32::try_from(accepted.count()).unwrap_or(i32::MAX)
}

fn accepted(gateway: &GatewayState<'_>, set: &SetState<'_>) -> Said {
    let no = |reason, message| Said::no("Accepted", reason, message);
    if let Some(problem) = &set.problem {
        return no(problem.reason, problem.to_string());
    }
    if gateway.problem.is_some() {
        let message = format!("Gateway {} is not accepted; see its status", gateway.key);
        return no("ParentNotAccepted", message);
    }
    let listeners = || gateway.of(Parent::ListenerSet(set.key));
    let bad = |listener: &&ListenerState<'_>| !listener.serves();
    let bad: Vec<&str> = listeners().filter(bad).map(|l| &*l.spec.name).collect();
    let message = format!("cannot be served: {}; see their conditions", bad.join(", "));
    if bad.is_empty() && listeners().next().is_some() {
        Said::yes("Accepted", "Accepted", "")
    } else if bad.len() < listeners().count() {
        Said::yes("Accepted", "ListenersNotValid", message)
    } else {
        no("ListenersNotValid", message)
    }
}

/// Why ListenerSets of `namespace` may not attach to a Gateway.
fn not_allowed(
    snapshot: &Snapshot,
    key: &Key,
    gateway: &Gateway,
    namespace: &str,
) -> Option<Problem> {
    let allowed = gateway.spec.allowed_listeners.as_ref();
    let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
    let from = namespaces.and_then(|namespaces| namespaces.from.as_ref());
    let selector = namespaces.and_then(|namespaces| namespaces.selector.as_ref());
    // Nobody, unless it is said; and what is not understood allows nobody.
    let allowed = Namespaces::of(from.unwrap_or(&FromNamespaces::None), selector);
    if allowed.is_some_and(|allowed| allowed.allow(snapshot, &key.namespace, namespace)) {
        return None;
    }
    let message = format!(
        "Gateway {key} allows no ListenerSets of namespace {namespace}; its owner can allow them \
         with spec.allowedListeners"
    );
    Some(Problem::new("NotAllowed", "spec.parentRef", message))
}
