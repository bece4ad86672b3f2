//! Our policy kinds: compiled once, found by name or by what they target, and merged for a rule.
//!
//! Levels, the most specific first: the rule's filters (or an Ingress's annotations), policies
//! that target the rule, the route, the listener, the Gateway. Gates of all levels add up, so
//! that a tenant can never weaken what a Gateway's owner asks for; of each kind of transform
//! the most specific level wins. CORS, a gate that only describes answers, goes by the latter.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pass::{Pass, created};
use super::references::From;
use super::status::Problem;
use super::{Key, ObjectKind};
use crate::api::gateway::{GROUP, LocalObjectReference, ParentReference, PolicyStatus};
use crate::api::middleware::MiddlewareSpec;
use crate::api::target::TargetRef;
use crate::graph::PolicyId;
use crate::policy::external_auth::BACKEND_REF;
use crate::policy::{AnySpec, Invalid, Kind, Refs};
use crate::reason::Reason;

/// The API group of Middleware and RateLimit.
pub(super) const OURS: &str = "tidegate.dev";
pub(super) const NETWORKING: &str = "networking.k8s.io";

/// A compiled policy where it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub id: PolicyId,
    pub kind: Kind,
    /// Its place in [`Attached::objects`], if it comes from an object of ours.
    pub object: Option<usize>,
}

/// What an object or a part of it is called by `targetRefs`: kind, namespace, name, section.
pub(super) type Target<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

/// One Middleware or RateLimit.
#[derive(Debug)]
pub(super) struct PolicyObject<'s> {
    pub kind: ObjectKind,
    pub key: &'s Key,
    pub meta: &'s ObjectMeta,
    pub targets: &'s [TargetRef],
    pub status: Option<&'s PolicyStatus>,
    pub compiled: Result<Vec<Use>, Problem>,
    /// The routes that name it themselves.
    pub named_by: BTreeSet<ParentReference>,
    /// What does not apply, because something else does.
    pub overridden: BTreeSet<String>,
}

/// Every Middleware and RateLimit of the snapshot.
#[derive(Debug, Default)]
pub(super) struct Attached<'s> {
    pub objects: Vec<PolicyObject<'s>>,
    by_name: HashMap<(ObjectKind, &'s Key), usize>,
    /// In the order in which they win: the older first, then by name.
    by_target: HashMap<Target<'s>, Vec<usize>>,
    /// What the object at work told them.
    pub noted: Vec<Noted>,
}

/// What an object tells a policy that it uses or would use: the policy's place, and what its
/// status is to say.
#[derive(Clone, Debug)]
pub(super) enum Noted {
    NamedBy(usize, ParentReference),
    Overridden(usize, String),
}

/// The policies of a rule, merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Merged {
    pub gates: Vec<PolicyId>,
    pub transforms: Vec<PolicyId>,
}

impl<'s> Pass<'s> {
    /// Compiles every Middleware and RateLimit, used or not: their owners want to know.
    pub fn collect_policies(&mut self) {
        let snapshot = self.snapshot;
        let mut objects = Vec::new();
        for (key, object) in snapshot.middlewares.iter() {
            let specs = specs_of(&object.spec);
            objects.push(PolicyObject {
                kind: ObjectKind::Middleware,
                key,
                meta: &object.metadata,
                targets: &object.spec.target_refs,
                status: object.status.as_ref(),
                compiled: self.compile(ObjectKind::Middleware, key, specs),
                named_by: BTreeSet::new(),
                overridden: BTreeSet::new(),
            });
        }
        for (key, object) in snapshot.rate_limits.iter() {
            let spec = ("local", AnySpec::RateLimit(object.spec.policy()));
            objects.push(PolicyObject {
                kind: ObjectKind::RateLimit,
                key,
                meta: &object.metadata,
                targets: &object.spec.target_refs,
                status: object.status.as_ref(),
                compiled: self.compile(ObjectKind::RateLimit, key, vec![spec]),
                named_by: BTreeSet::new(),
                overridden: BTreeSet::new(),
            });
        }
        objects.sort_by_key(|object| (created(object.meta), object.key, object.kind));
        for (place, object) in objects.iter_mut().enumerate() {
            for policy in object.compiled.iter_mut().flatten() {
                policy.object = Some(place);
            }
            self.policies.by_name.insert((object.kind, object.key), place);
            for target in object.targets {
                let group = if target.kind == "Ingress" { NETWORKING } else { GROUP };
                if target.group != group {
                    continue;
                }
                let section = target.section_name.as_deref();
                let namespace = object.key.namespace.as_str();
                let target = (target.kind.as_str(), namespace, target.name.as_str(), section);
                let list = self.policies.by_target.entry(target).or_default();
                if list.last() != Some(&place) {
                    list.push(place);
                }
            }
            if let Err(problem) = &object.compiled {
                let problem = problem.clone();
                self.warn(object.kind, object.key, object.meta, &problem);
            }
        }
        self.policies.objects = objects;
    }

    /// The policies of the Middleware or RateLimit that `user`, an object in `namespace`, names.
    ///
    /// # Errors
    /// A message for `user`: the kind is another, or see [`Attached::named`].
    pub fn extension_of(
        &mut self,
        user: &ParentReference,
        namespace: &str,
        named: &LocalObjectReference,
    ) -> Result<Vec<Use>, (Reason, String)> {
        let kind = match (named.group.as_str(), named.kind.as_str()) {
            (OURS, "Middleware") => ObjectKind::Middleware,
            (OURS, "RateLimit") => ObjectKind::RateLimit,
            (group, kind) => {
                let message = format!(
                    "{kind} of group {group:?} is not supported; use Middleware or RateLimit of \
                     {OURS}"
                );
                return Err((Reason::InvalidKind, message));
            }
        };
        self.policies.named(kind, &Key::new(namespace, &*named.name), user)
    }

    fn compile(
        &mut self,
        kind: ObjectKind,
        key: &Key,
        specs: Vec<(&'static str, AnySpec)>,
    ) -> Result<Vec<Use>, Problem> {
        let invalid = |field: &str, error: Invalid| {
            let below = if kind == ObjectKind::RateLimit { "" } else { field };
            let parts = ["spec", below, error.field.as_str()];
            let path: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            Problem::new("Invalid", path.join("."), error.message)
        };
        if specs.is_empty() {
            return Err(Problem::new("Invalid", "spec", "there is no policy; set at least one"));
        }
        let mut uses = Vec::with_capacity(specs.len());
        for (field, spec) in specs {
            let name = format!("{}/{key}/{field}", kind.kind());
            let refs = self.refs_of(kind, &key.namespace, &spec);
            let refs = refs.map_err(|error| invalid(field, error))?;
            let id = self.graph.policy(&name, &spec, &refs).map_err(|e| invalid(field, e))?;
            uses.push(Use { id, kind: spec.kind(), object: None });
        }
        Ok(uses)
    }

    /// What a Spec of an object in `namespace` refers to.
    fn refs_of(
        &mut self,
        kind: ObjectKind,
        namespace: &str,
        spec: &AnySpec,
    ) -> Result<Refs, Invalid> {
        let mut refs = Refs::default();
        if let AnySpec::ExternalAuth(spec) = spec {
            let from = From { group: OURS, kind: kind.kind(), namespace };
            let service = self.service_of(from, None, spec);
            let service = service.map_err(|error| Invalid::new(BACKEND_REF, error.message))?;
            refs.services.insert(BACKEND_REF, service);
        }
        if let AnySpec::BasicAuth(spec) = spec {
            let name = &spec.secret_ref.name;
            if let Some(secret) = self.snapshot.secrets.get(&Key::new(namespace, name)) {
                let mut data: BTreeMap<String, Vec<u8>> = BTreeMap::new();
                for (key, text) in secret.string_data.iter().flatten() {
                    data.insert(key.clone(), text.clone().into_bytes());
                }
                for (key, bytes) in secret.data.iter().flatten() {
                    data.insert(key.clone(), bytes.0.clone());
                }
                refs.secrets.insert(name.clone(), data);
            }
        }
        Ok(refs)
    }
}

/// The policies of a Middleware, each with its field.
fn specs_of(spec: &MiddlewareSpec) -> Vec<(&'static str, AnySpec)> {
    let MiddlewareSpec {
        target_refs: _,
        ip_access,
        cors,
        basic_auth,
        external_auth,
        request_headers,
        response_headers,
        rewrite,
        redirect,
        direct_response,
    } = spec.clone();
    [
        ip_access.map(|spec| ("ipAccess", AnySpec::IpAccess(spec))),
        cors.map(|spec| ("cors", AnySpec::Cors(spec))),
        basic_auth.map(|spec| ("basicAuth", AnySpec::BasicAuth(spec))),
        external_auth.map(|spec| ("externalAuth", AnySpec::ExternalAuth(spec))),
        request_headers.map(|spec| ("requestHeaders", AnySpec::RequestHeaders(spec))),
        response_headers.map(|spec| ("responseHeaders", AnySpec::ResponseHeaders(spec))),
        rewrite.map(|spec| ("rewrite", AnySpec::Rewrite(spec))),
        redirect.map(|spec| ("redirect", AnySpec::Redirect(spec))),
        direct_response.map(|spec| ("directResponse", AnySpec::DirectResponse(spec))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl<'s> Attached<'s> {
    /// The policies of the object of that name, for `user`, which names it.
    ///
    /// # Errors
    /// A message for `user`: the object does not exist, or it is invalid itself.
    pub fn named(
        &mut self,
        kind: ObjectKind,
        key: &Key,
        user: &ParentReference,
    ) -> Result<Vec<Use>, (Reason, String)> {
        let Some(place) = self.by_name.get(&(kind, key)).copied() else {
            let message = format!("{} {key} does not exist; create it", kind.kind());
            return Err((Reason::BackendNotFound, message));
        };
        self.note(Noted::NamedBy(place, user.clone()));
        let object = &self.objects[place];
        let invalid = |problem| (Reason::InvalidPolicy, invalid(object, &problem));
        object.compiled.clone().map_err(invalid)
    }

    /// The policies that target exactly this.
    ///
    /// # Errors
    /// A message for the owner of the target: one of them is invalid.
    pub fn targeting(&self, target: Target<'_>) -> Result<Vec<Use>, String> {
        let Some(places) = self.by_target.get(&target) else { return Ok(Vec::new()) };
        let mut uses = Vec::new();
        for place in places {
            let object = &self.objects[*place];
            uses.extend(object.compiled.as_ref().map_err(|problem| invalid(object, problem))?);
        }
        Ok(uses)
    }

    /// Merges the levels, the most specific first. All of the first level's transforms apply;
    /// of the others, the first of each kind.
    pub fn merge(&mut self, levels: &[Vec<Use>], place: &str) -> Merged {
        let mut merged = Merged::default();
        let mut winners: BTreeMap<Kind, (usize, Use)> = BTreeMap::new();
        let mut kept: Vec<Vec<PolicyId>> = vec![Vec::new(); levels.len()];
        for (level, uses) in levels.iter().enumerate() {
            for policy in uses {
                if policy.kind.is_gate() && policy.kind != Kind::Cors {
                    if !merged.gates.contains(&policy.id) {
                        merged.gates.push(policy.id);
                    }
                    continue;
                }
                let (won_at, winner) = *winners.entry(policy.kind).or_insert((level, *policy));
                let wins = winner == *policy || (level == 0 && won_at == 0);
                match (wins, policy.kind) {
                    (true, Kind::Cors) => merged.gates.push(policy.id),
                    (true, _) => kept[level].push(policy.id),
                    (false, _) => self.overridden(*policy, winner, place),
                }
            }
        }
        // The outer levels see the request first.
        merged.transforms = kept.into_iter().rev().flatten().collect();
        merged.gates.dedup();
        merged
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

    fn note(&mut self, noted: Noted) {
        self.take(&noted);
        self.noted.push(noted);
    }

    /// Keeps in mind what an object told a policy.
    pub fn take(&mut self, noted: &Noted) {
        /// Enough to see where to look.
        const MAX: usize = 8;
        match noted {
            Noted::NamedBy(place, user) => {
                self.objects[*place].named_by.insert(user.clone());
            }
            Noted::Overridden(place, message) => {
                let overridden = &mut self.objects[*place].overridden;
                if overridden.len() < MAX {
                    overridden.insert(message.clone());
                }
            }
        }
    }
}

fn invalid(object: &PolicyObject<'_>, problem: &Problem) -> String {
    format!("{} {} is invalid: {problem}", object.kind.kind(), object.key)
}

/// An object as the status of a policy names it.
pub(super) fn reference(kind: &str, key: &Key, section: Option<&str>) -> ParentReference {
    let group = if kind == "Ingress" { NETWORKING } else { GROUP };
    ParentReference {
        group: Some(group.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(key.namespace.clone()),
        name: key.name.clone(),
        section_name: section.map(str::to_owned),
        port: None,
    }
}
