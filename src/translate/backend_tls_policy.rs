//! BackendTLSPolicies: which Service ports they hold for, and what they say about TLS to them.
//!
//! A policy for a port stands above one for the whole Service; of several for the same the
//! oldest holds, then the one whose name comes first. What holds, holds for every route and
//! Ingress that leads to the port; if it is invalid, nothing is sent there.

use std::collections::{BTreeMap, BTreeSet};

use super::ancestors::{Holders, TLS_POLICY, gateway_ref};
use super::backend_tls::Validated;
use super::backends::Unresolved;
use super::pass::{Pass, created};
use super::references::From;
use super::status::{Problem, Said};
use super::{Key, ObjectKind, Snapshot};
use crate::api::gateway::{BackendTlsPolicy, GROUP, PolicyTargetReference};
use crate::graph::TlsSpec;
use crate::reason::Reason;

/// `options`: the oldest version of TLS that is spoken, `1.2` (the default) or `1.3`.
const MIN_TLS: &str = "tidegate.dev/min-tls-version";
const KIND: ObjectKind = ObjectKind::BackendTlsPolicy;

/// A policy, and what is wrong with it.
#[derive(Debug)]
struct TlsPolicy<'s> {
    key: &'s Key,
    object: &'s BackendTlsPolicy,
    validated: Validated,
    /// By target: who holds it, if it is another.
    conflicts: Vec<Option<&'s Key>>,
}

/// Every BackendTLSPolicy of the snapshot.
#[derive(Debug, Default)]
pub(super) struct TlsPolicies<'s> {
    all: Vec<TlsPolicy<'s>>,
    /// By namespace and name of a Service, and the name of a port or all.
    holders: Holders<(&'s str, &'s str, Option<&'s str>)>,
}

impl<'s> TlsPolicies<'s> {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The policy that holds for a port of a Service.
    fn of(&self, service: &Key, port: Option<&str>) -> Option<&TlsPolicy<'s>> {
        let Key { namespace, name } = service;
        let of_port = port.and_then(|port| self.holders.of(&(namespace, name, Some(port))));
        let holder = of_port.or_else(|| self.holders.of(&(namespace, name, None)))?;
        Some(&self.all[holder])
    }

    /// What holds for a port of a Service; None: nobody says that TLS is spoken.
    ///
    /// # Errors
    /// The policy is invalid.
    pub fn spec(&self, service: &Key, port: Option<&str>) -> Result<Option<&TlsSpec>, Unresolved> {
        let Some(policy) = self.of(service, port) else { return Ok(None) };
        policy.validated.spec.as_ref().map(Some).map_err(|problem| {
            let message = format!(
                "BackendTLSPolicy {} holds for Service {service} and is invalid: {problem}",
                policy.key
            );
            Unresolved::new(Reason::InvalidPolicy, message)
        })
    }
}

impl<'s> Pass<'s> {
    pub fn collect_tls_policies(&mut self) {
        let mut all: Vec<_> = self.snapshot.backend_tls_policies.iter().collect();
        all.sort_by_key(|(key, object)| (created(&object.metadata), *key));
        let mut policies = TlsPolicies::default();
        for (place, (key, object)) in all.into_iter().enumerate() {
            let holders = &mut policies.holders;
            let mut conflicts = Vec::with_capacity(object.spec.target_refs.len());
            for target in object.spec.target_refs.iter() {
                let id = (key.namespace.as_str(), target.name.as_str(), section(target));
                let rival = is_service(target).then(|| holders.claim(id, place)).flatten();
                conflicts.push(rival.map(|rival| policies.all[rival].key));
            }
            let validated = self.checked(key, object);
            policies.all.push(TlsPolicy { key, object, validated, conflicts });
        }
        self.tls_policies = policies;
    }

    fn checked(&mut self, key: &Key, object: &BackendTlsPolicy) -> Validated {
        let from = From { group: GROUP, kind: "BackendTLSPolicy", namespace: &key.namespace };
        let mut validated = self.validated(from, "spec.validation", &object.spec.validation);
        validated.spec = validated.spec.and_then(|spec| options(object, spec)).and_then(|spec| {
            let wrong = |message: String| Problem::new("Invalid", "spec.validation", message);
            self.memo.backend_tls(&spec).map_err(wrong)?;
            Ok(spec)
        });
        let problems = validated.spec.as_ref().err().into_iter().chain(&validated.unresolved);
        for problem in problems.cloned().collect::<Vec<_>>() {
            self.warn(KIND, key, &object.metadata, &problem);
        }
        validated
    }

    /// Says of every policy what became of it, for each Gateway that reaches its targets.
    pub fn tls_policy_statuses(&mut self) {
        let policies = std::mem::take(&mut self.tls_policies);
        for policy in &policies.all {
            let (key, meta) = (policy.key, &policy.object.metadata);
            let mut ancestors: BTreeMap<&Key, Option<Problem>> = BTreeMap::new();
            for (i, target) in policy.object.spec.target_refs.iter().enumerate() {
                let problem = self.target_problem(policy, i, target);
                if let Some(problem) = &problem {
                    self.warn(KIND, key, meta, problem);
                }
                for gateway in self.reaching(key, target) {
                    let first = ancestors.entry(gateway).or_default();
                    *first = first.take().or_else(|| problem.clone());
                }
            }
            let said = ancestors.into_iter().map(|(gateway, problem)| {
                let accepted = policy.validated.spec.as_ref().err().or(problem.as_ref());
                let unresolved = policy.validated.unresolved.as_ref();
                let said = vec![
                    Said::of("Accepted", "Accepted", accepted),
                    Said::of("ResolvedRefs", "ResolvedRefs", unresolved),
                ];
                (gateway_ref(gateway), said)
            });
            let old = policy.object.status.as_ref();
            let new = self.ancestor_status(old, meta.generation, &TLS_POLICY, said.collect());
            self.status(KIND, key, meta, old, new);
        }
        self.tls_policies = policies;
    }

    /// The Gateways that reach what is targeted.
    fn reaching(&self, policy: &Key, target: &PolicyTargetReference) -> BTreeSet<&'s Key> {
        if !is_service(target) {
            return BTreeSet::new();
        }
        let service = Key::new(&*policy.namespace, &*target.name);
        let ports = port_names(self.snapshot, &service);
        // A name that no port has concerns everybody who uses the Service.
        let wanted = section(target).filter(|wanted| ports.iter().any(|(_, name)| name == wanted));
        let covers = |number: u16| match wanted {
            None => true,
            Some(wanted) => {
                ports.iter().any(|(n, name)| *n == i32::from(number) && *name == wanted)
            }
        };
        self.backends.reached.gateways("Service", &service, covers)
    }

    /// Why the policy does not hold for one of its targets.
    fn target_problem(
        &self,
        policy: &TlsPolicy<'_>,
        index: usize,
        target: &PolicyTargetReference,
    ) -> Option<Problem> {
        let field = format!("spec.targetRefs[{index}]");
        let service = Key::new(&*policy.key.namespace, &*target.name);
        let problem = |reason, message: String| Some(Problem::new(reason, field, message));
        if !is_service(target) {
            let message = format!(
                "{} of group {:?} cannot be a target; name a Service (an XBackend has spec.tls)",
                target.kind, target.group
            );
            return problem("TargetNotFound", message);
        }
        if !self.snapshot.services.contains_key(&service) {
            return problem(
                "TargetNotFound",
                format!("Service {service} does not exist; create it"),
            );
        }
        if let Some(section) = section(target) {
            let names = port_names(self.snapshot, &service);
            if !names.iter().any(|(_, name)| *name == section) {
                let message =
                    format!("Service {service} has no port named {section}; name one that it has");
                return problem("TargetNotFound", message);
            }
        }
        let holder = policy.conflicts.get(index).copied().flatten()?;
        let message = format!(
            "BackendTLSPolicy {holder} targets the same and comes first (by age, then by name); \
             remove one of them"
        );
        problem("Conflicted", message)
    }
}

fn is_service(target: &PolicyTargetReference) -> bool {
    target.group.is_empty() && target.kind == "Service"
}

fn section(target: &PolicyTargetReference) -> Option<&str> {
    target.section_name.as_deref().filter(|name| !name.is_empty())
}

/// The numbers and names of a Service's ports.
fn port_names<'s>(snapshot: &'s Snapshot, service: &Key) -> Vec<(i32, &'s str)> {
    let service = snapshot.services.get(service);
    let ports = service.and_then(|service| service.spec.as_ref()?.ports.as_ref());
    let ports = ports.into_iter().flatten();
    ports.map(|port| (port.port, port.name.as_deref().unwrap_or_default())).collect()
}

/// What the policy's `options` make of it.
///
/// # Errors
/// One of ours is not understood. Those of other implementations are none of our business.
fn options(object: &BackendTlsPolicy, mut spec: TlsSpec) -> Result<TlsSpec, Problem> {
    for (name, value) in &object.spec.options {
        let wrong = |message: String| {
            Err(Problem::new("Invalid", format!("spec.options[{name}]"), message))
        };
        match (name.as_str(), value.as_str()) {
            (MIN_TLS, "1.2") => spec.only_tls13 = false,
            (MIN_TLS, "1.3") => spec.only_tls13 = true,
            (MIN_TLS, other) => {
                return wrong(format!("{other:?} is not supported; use 1.2 or 1.3"));
            }
            (name, _) if name.starts_with("tidegate.dev/") => {
                return wrong(format!("is not known; {MIN_TLS} is"));
            }
            _ => {}
        }
    }
    Ok(spec)
}
