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
            (GROUP, "ListenerSet") => match self.snapshot.listener_sets.get(&key) {
                None => gone(),
                Some(set) => {
                    let known = |name| set.spec.listeners.iter().any(|l| l.name == name);
                    let ours = gateways.iter().any(|g| g.sets.iter().any(|set| *set.key == key));
                    match section.is_none_or(known) {
                        _ if !ours => Found::Foreign,
                        true => Found::Here(ancestor),
                        false => no_section(),
                    }
                }
            },
            (GROUP, "HTTPRoute" | "GRPCRoute") => match self.rule_names(&target.kind, &key) {
                None => gone(),
                Some((kind, names)) => {
                    if !self.our_routes.contains(&(kind, &key)) {
                        Found::Foreign
                    } else if section.is_none_or(|section| names.contains(&section)) {
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
                "{kind} of group {group:?} is not supported; use Gateway, ListenerSet, HTTPRoute, \
                 GRPCRoute or Ingress"
            )),
        }
    }

    /// The kind of a route that policies can target, and the names of its rules.
    fn rule_names(&self, kind: &str, key: &Key) -> Option<(ObjectKind, Vec<&'s str>)> {
        if kind == ObjectKind::GrpcRoute.kind() {
            let rules = &self.snapshot.grpc_routes.get(key)?.spec.rules;
            let names = rules.iter().filter_map(|rule| rule.name.as_deref());
            return Some((ObjectKind::GrpcRoute, names.collect()));
        }
        let rules = &self.snapshot.http_routes.get(key)?.spec.rules;
        let names = rules.iter().filter_map(|rule| rule.name.as_deref());
        Some((ObjectKind::HttpRoute, names.collect()))
    }
}
