//! What a Middleware's or RateLimit's status says: where it applies, and what overrides it.

use std::collections::BTreeSet;

use super::Key;
use super::gateway::{ByKey, GatewayState};
use super::http_route::parent_of;
use super::middleware::{NETWORKING, OURS, PolicyObject, reference};
use super::pass::Pass;
use super::status::{Problem, Said, conditions, in_place};
use crate::api::gateway::{GROUP, ParentReference, PolicyAncestorStatus, PolicyStatus};
use crate::api::target::TargetRef;

/// Most entries, of all controllers together (GEP-713).
const MAX: usize = 16;

/// What became of one `targetRefs` entry.
enum Found {
    Here(ParentReference),
    /// Another controller's: it has a say about it, we have none.
    Foreign,
    Missing(ParentReference, Problem),
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
        let invalid = object.compiled.as_ref().err();
        let said = |problem: Option<&Problem>| {
            let mut said = Said::of("Accepted", "Accepted", invalid.or(problem));
            if said.holds && !object.overridden.is_empty() {
                let parts: Vec<&str> = object.overridden.iter().map(String::as_str).collect();
                said.message = parts.join("; ");
            }
            said
        };
        let controller = &self.snapshot.settings.controller_name;
        let old = object.status.map_or(&[][..], |status| &status.ancestors);
        let foreign: Vec<_> = old.iter().filter(|a| a.controller_name != *controller).collect();
        let mut seen = BTreeSet::new();
        let mut entries = Vec::new();
        for (ancestor, problem) in ancestors {
            if entries.len() + foreign.len() >= MAX || !seen.insert(ancestor.clone()) {
                continue;
            }
            let same = |a: &&PolicyAncestorStatus| {
                a.controller_name == *controller && a.ancestor_ref == ancestor
            };
            let before = old.iter().find(same);
            let conditions = conditions(
                before.map_or(&[][..], |before| &before.conditions),
                &["Accepted"],
                &[said(problem.as_ref())],
                object.meta.generation,
                &self.now,
            );
            entries.push(PolicyAncestorStatus {
                ancestor_ref: ancestor,
                controller_name: controller.clone(),
                conditions,
                other: before.map(|before| before.other.clone()).unwrap_or_default(),
            });
        }
        entries.extend(foreign.into_iter().cloned());
        let same = |a: &PolicyAncestorStatus, b: &PolicyAncestorStatus| {
            a.ancestor_ref == b.ancestor_ref && a.controller_name == b.controller_name
        };
        PolicyStatus { ancestors: in_place(entries, old, same) }
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
        if ancestors.is_empty() && object.compiled.is_err() {
            // Nobody uses it yet; its owner should see the problem all the same.
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
        let no_section = || {
            missing(format!(
                "{kind} has no section {}; name one that it has",
                section.unwrap_or("")
            ))
        };
        let gone = || missing(format!("{kind} does not exist; create it"));
        match (target.group.as_str(), target.kind.as_str()) {
            (GROUP, "Gateway") => match by_key.get(&key) {
                None if self.snapshot.gateways.contains_key(&key) => Found::Foreign,
                None => gone(),
                Some(place) => {
                    let listeners = || gateways[*place].own();
                    let known = |name| listeners().any(|l| l.spec.name == name);
                    if section.is_none_or(known) { Found::Here(ancestor) } else { no_section() }
                }
            },
            (GROUP, "HTTPRoute") => match self.snapshot.http_routes.get(&key) {
                None => gone(),
                Some(route) => {
                    let parents = route.spec.parent_refs.iter();
                    let mut gateways = parents.filter_map(|parent| parent_of(parent, &key));
                    let known =
                        |name| route.spec.rules.iter().any(|r| r.name.as_deref() == Some(name));
                    if !gateways.any(|gateway| by_key.contains_key(&gateway)) {
                        Found::Foreign
                    } else if section.is_none_or(known) {
                        Found::Here(ancestor)
                    } else {
                        no_section()
                    }
                }
            },
            (NETWORKING, "Ingress") => match self.snapshot.ingresses.contains_key(&key) {
                true if section.is_none() => Found::Here(ancestor),
                true => no_section(),
                false => gone(),
            },
            (group, kind) => missing(format!(
                "{kind} of group {group:?} is not supported; use Gateway, HTTPRoute or Ingress"
            )),
        }
    }
}
