//! What a Middleware's or RateLimit's status says: where it applies, and what overrides it.

use std::collections::BTreeSet;

use super::ancestors::POLICY;
use super::gateway::{ByKey, GatewayState};
use super::middleware::{NETWORKING, OURS, PolicyObject, reference};
use super::pass::Pass;
use super::status::{Problem, Said};
use super::{Key, ObjectKind};
use crate::api::gateway::{GROUP, ParentReference, PolicyStatus};
use crate::api::target::TargetRef;
use crate::policy::Mode;

/// What became of one `targetRefs` entry.
enum Found {
    Here(ParentReference),
    /// Another controller's: it has a say about it, we have none.
    Foreign,
    Missing(ParentReference, Problem),
}

/// An object that a policy names.
#[derive(Default)]
struct Target<'a> {
    /// Whether we have a say about it.
    is_ours: bool,
    /// The parts of it that can be named.
    sections: Vec<&'a str>,
}

impl<'s> Pass<'s> {
    pub fn policy_statuses(&mut self, gateways: &[GatewayState<'s>], by_key: &ByKey<'s>) {
        let objects = std::mem::take(&mut self.policies.objects);
        for object in &objects {
            let new = self.policy_status(object, gateways, by_key);
            self.status(object.kind, object.key, object.meta, object.status, new);
        }
        self.policies.objects = objects;
    }

    fn policy_status(
        &mut self,
        object: &PolicyObject<'s>,
        gateways: &[GatewayState<'s>],
        by_key: &ByKey<'s>,
    ) -> PolicyStatus {
        let ancestors = self.ancestors(object, gateways, by_key);
        let notes = notes(object);
        let said = |problem: Option<&Problem>| {
            let mut said = Said::of("Accepted", "Accepted", object.problem().or(problem));
            let own = (!said.message.is_empty()).then_some(said.message);
            said.message =
                own.iter().chain(&notes).map(String::as_str).collect::<Vec<_>>().join("; ");
            said
        };
        let mut seen = BTreeSet::new();
        let fresh = ancestors.into_iter().filter(|(ancestor, _)| seen.insert(ancestor.clone()));
        let said = fresh.map(|(ancestor, problem)| (ancestor, vec![said(problem.as_ref())]));
        let said = said.collect();
        self.ancestor_status(object.status, object.meta.generation, &POLICY, said)
    }

    /// Where the policy applies, or was meant to and why it does not.
    fn ancestors(
        &mut self,
        object: &PolicyObject<'s>,
        gateways: &[GatewayState<'s>],
        by_key: &ByKey<'s>,
    ) -> Vec<(ParentReference, Option<Problem>)> {
        let mut ancestors: Vec<(ParentReference, Option<Problem>)> = Vec::new();
        for (i, target) in object.targets.iter().enumerate() {
            match self.find(object.key, i, target, gateways, by_key) {
                Found::Here(ancestor) => ancestors.push((ancestor, None)),
                Found::Missing(ancestor, problem) => {
                    self.warn(object.kind, object.key, object.meta, &problem);
                    ancestors.push((ancestor, Some(problem)));
                }
                Found::Foreign => {}
            }
        }
        ancestors.extend(object.named_by.iter().map(|ancestor| (ancestor.clone(), None)));
        if ancestors.is_empty() && (object.is_unused() || object.problem().is_some()) {
            // Its owner should see that, and what is wrong with it, all the same.
            let itself = ParentReference {
                group: Some(OURS.to_owned()),
                ..reference(object.kind.kind(), object.key, None)
            };
            ancestors.push((itself, None));
        }
        ancestors
    }

    fn find(
        &self,
        policy: &Key,
        index: usize,
        target: &TargetRef,
        gateways: &[GatewayState<'s>],
        by_key: &ByKey<'s>,
    ) -> Found {
        let key = Key::new(&*policy.namespace, &*target.name);
        let section = target.section_name.as_deref();
        let ancestor = ParentReference {
            group: Some(target.group.clone()),
            ..reference(&target.kind, &key, section)
        };
        let missing = |what: String| {
            let field = format!("spec.targetRefs[{index}]");
            let problem = Problem::new("TargetNotFound", field, what);
            Found::Missing(ancestor.clone(), problem)
        };
        let kind = format!("{} {key}", target.kind);
        match self.targeted(target, &key, gateways, by_key) {
            Err(()) => missing(format!(
                "{} of group {:?} is not supported; use Gateway, ListenerSet, HTTPRoute, \
                 GRPCRoute or Ingress",
                target.kind, target.group
            )),
            Ok(None) => missing(format!("{kind} does not exist; create it")),
            Ok(Some(Target { is_ours: false, .. })) => Found::Foreign,
            Ok(Some(Target { sections, .. })) => match section {
                Some(name) if !sections.contains(&name) => {
                    missing(format!("{kind} has no section {name}; name one that it has"))
                }
                _ => Found::Here(ancestor),
            },
        }
    }

    /// The object that a policy names, if it exists.
    ///
    /// # Errors
    /// Policies cannot target objects of its kind.
    fn targeted<'a>(
        &'a self,
        target: &TargetRef,
        key: &Key,
        gateways: &'a [GatewayState<'s>],
        by_key: &ByKey<'s>,
    ) -> Result<Option<Target<'a>>, ()> {
        let snapshot = self.snapshot;
        let is_ours = |kind| self.our_routes.contains(&(kind, key));
        Ok(match (target.group.as_str(), target.kind.as_str()) {
            (GROUP, "Gateway") => match by_key.get(key) {
                Some(place) => {
                    let sections = gateways[*place].own().map(|l| l.spec.name.as_str());
                    Some(Target { is_ours: true, sections: sections.collect() })
                }
                None => snapshot.gateways.get(key).map(|_| Target::default()),
            },
            (GROUP, "ListenerSet") => snapshot.listener_sets.get(key).map(|set| Target {
                is_ours: gateways.iter().any(|g| g.sets.iter().any(|set| set.key == key)),
                sections: set.spec.listeners.iter().map(|l| l.name.as_str()).collect(),
            }),
            (GROUP, "HTTPRoute") => snapshot.http_routes.get(key).map(|route| Target {
                is_ours: is_ours(ObjectKind::HttpRoute),
                sections: route.spec.rules.iter().filter_map(|r| r.name.as_deref()).collect(),
            }),
            (GROUP, "GRPCRoute") => snapshot.grpc_routes.get(key).map(|route| Target {
                is_ours: is_ours(ObjectKind::GrpcRoute),
                sections: route.spec.rules.iter().filter_map(|r| r.name.as_deref()).collect(),
            }),
            (NETWORKING, "Ingress") => {
                let there = snapshot.ingresses.contains_key(key);
                there.then(|| Target { is_ours: true, sections: Vec::new() })
            }
            _ => return Err(()),
        })
    }
}

/// What its owner should know besides: modes, what it does not get, and what overrides it.
fn notes(object: &PolicyObject<'_>) -> Vec<String> {
    let modes = object.not_enforced.iter().map(|(field, mode)| {
        // A RateLimit has one mode for all of it.
        let part = if object.kind == ObjectKind::RateLimit { "spec" } else { *field };
        match mode {
            Mode::Off => format!("{part} is Off: it is not applied"),
            _ => format!("{part} is in Shadow mode: nothing is denied"),
        }
    });
    let mut notes: Vec<String> = modes.collect();
    if object.is_unused() {
        let how = "name it in an ExtensionRef filter of a route, or give it targetRefs";
        notes.push(format!("nothing uses it; {how}"));
    }
    // A RateLimit may be several policies.
    notes.dedup();
    notes.extend(object.missed.iter().map(Problem::to_string));
    notes.extend(object.overridden.iter().cloned());
    notes
}
