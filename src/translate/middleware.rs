//! Our policy kinds: compiled once, and found by name or by what they target. How those of one
//! rule are merged is in [`super::merge`], what their statuses say in [`super::policy_status`].

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pass::{Pass, created};
use super::rate_limit_store;
use super::references::From;
use super::status::Problem;
use super::{Key, ObjectKind, Snapshot};
use crate::api::gateway::{GROUP, LocalObjectReference, ParentReference, PolicyStatus};
use crate::api::middleware::MiddlewareSpec;
use crate::api::target::TargetRef;
use crate::graph::PolicyId;
use crate::policy::external_auth::BACKEND_REF;
use crate::policy::{AnySpec, Invalid, Kind, Mode, Refs};
use crate::reason::Reason;

/// The API group of Middleware and RateLimit.
pub(super) const OURS: &str = "tidegate.dev";
pub(super) const NETWORKING: &str = "networking.k8s.io";

/// A compiled policy where it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub id: PolicyId,
    pub kind: Kind,
    pub mode: Mode,
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
    /// What cannot be compiled closes the rules that use it.
    pub compiled: Result<Vec<Use>, Problem>,
    /// A policy in Shadow mode that cannot be compiled: it is left out and closes nothing.
    pub left_out: Option<Problem>,
    /// The policies that are not enforced, by their fields.
    pub not_enforced: Vec<(&'static str, Mode)>,
    /// What it depends on and does not get, such as the keys of an issuer.
    pub missed: Vec<Problem>,
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
    /// See [`PolicyObject::missed`]: that of the object at work.
    pub missed: Vec<Problem>,
}

/// What an object tells a policy that it uses or would use: the policy's place, and what its
/// status is to say.
#[derive(Clone, Debug)]
pub(super) enum Noted {
    NamedBy(usize, ParentReference),
    Overridden(usize, String),
}

impl<'s> Pass<'s> {
    /// Compiles every Middleware and RateLimit, used or not: their owners want to know.
    pub fn collect_policies(&mut self) {
        let snapshot = self.snapshot;
        let mut objects = Vec::new();
        for (key, object) in snapshot.middlewares.iter() {
            let (meta, specs) = (&object.metadata, specs_of(&object.spec));
            let mut made = self.policy_object(ObjectKind::Middleware, key, meta, specs);
            made.targets = &object.spec.target_refs;
            made.status = object.status.as_ref();
            objects.push(made);
        }
        for (key, object) in snapshot.rate_limits.iter() {
            let (meta, specs) = (&object.metadata, object.spec.policies(&key.to_string()));
            let mut made = self.policy_object(ObjectKind::RateLimit, key, meta, specs);
            made.targets = &object.spec.target_refs;
            made.status = object.status.as_ref();
            objects.push(made);
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
            let problems: Vec<Problem> =
                object.problem().into_iter().chain(&object.missed).cloned().collect();
            for problem in &problems {
                self.warn(object.kind, object.key, object.meta, problem);
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

    /// Compiles the policies of an object; where it attaches is not said yet.
    fn policy_object(
        &mut self,
        kind: ObjectKind,
        key: &'s Key,
        meta: &'s ObjectMeta,
        specs: Vec<(&'static str, Mode, AnySpec)>,
    ) -> PolicyObject<'s> {
        let nothing = || Problem::new("Invalid", "spec", "there is no policy; set at least one");
        let mut object = PolicyObject {
            kind,
            key,
            meta,
            targets: &[],
            status: None,
            compiled: if specs.is_empty() { Err(nothing()) } else { Ok(Vec::new()) },
            left_out: None,
            not_enforced: Vec::new(),
            missed: Vec::new(),
            named_by: BTreeSet::new(),
            overridden: BTreeSet::new(),
        };
        for (field, mode, spec) in specs {
            if mode != Mode::Enforce {
                object.not_enforced.push((field, mode));
            }
            if mode == Mode::Off {
                continue;
            }
            match (self.compile(kind, key, field, mode, &spec), mode) {
                (Ok(policy), _) => object.compiled.iter_mut().for_each(|uses| uses.push(policy)),
                (Err(problem), Mode::Enforce) if object.compiled.is_ok() => {
                    object.compiled = Err(problem);
                }
                (Err(problem), _) => _ = object.left_out.get_or_insert(problem),
            }
        }
        object.missed = std::mem::take(&mut self.policies.missed);
        object
    }

    fn compile(
        &mut self,
        kind: ObjectKind,
        key: &Key,
        field: &'static str,
        mode: Mode,
        spec: &AnySpec,
    ) -> Result<Use, Problem> {
        let invalid = |error: Invalid| {
            let below = if kind == ObjectKind::RateLimit { "" } else { field };
            let parts = ["spec", below, error.field.as_str()];
            let path: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            Problem::new("Invalid", path.join("."), error.message)
        };
        let name = format!("{}/{key}/{field}", kind.kind());
        let refs = self.refs_of(kind, &key.namespace, spec).map_err(invalid)?;
        let id = self.graph.policy(&name, spec, mode, &refs).map_err(invalid)?;
        Ok(Use { id, kind: spec.kind(), mode, object: None })
    }

    /// What a Spec of an object in `namespace` refers to.
    fn refs_of(
        &mut self,
        kind: ObjectKind,
        namespace: &str,
        spec: &AnySpec,
    ) -> Result<Refs, Invalid> {
        let mut refs = Refs::default();
        let from = From { group: OURS, kind: kind.kind(), namespace };
        if let AnySpec::RateLimit(spec) | AnySpec::IdentityLimit(spec) = spec {
            let secret = |name: &str| self.secret_data(namespace, name);
            refs.store = rate_limit_store::store(&spec.store, secret)?;
            if spec.counts_by_replicas() {
                refs.replicas = ready_replicas(self.snapshot);
            }
        }
        if let AnySpec::ExternalAuth(spec) = spec {
            let service = self.service_of(from, None, spec);
            let service = service.map_err(|error| Invalid::new(BACKEND_REF, error.message))?;
            refs.services.insert(BACKEND_REF, service);
        }
        if let AnySpec::Authentication(spec) = spec {
            self.authentication_refs(from, spec, &mut refs)?;
        }
        Ok(refs)
    }
}

/// Tidegate pods that are ready; 0 where nobody counts them.
pub(super) fn ready_replicas(snapshot: &Snapshot) -> u32 {
    let ready = snapshot.peers.iter().filter(|peer| peer.is_ready()).count();
    u32::try_from(ready).unwrap_or(u32::MAX)
}

/// The policies of a Middleware, each with its field and its mode.
fn specs_of(spec: &MiddlewareSpec) -> Vec<(&'static str, Mode, AnySpec)> {
    let MiddlewareSpec {
        target_refs: _,
        ip_access,
        cors,
        authentication,
        authorization,
        external_auth,
        request_headers,
        response_headers,
        rewrite,
        redirect,
        direct_response,
    } = spec.clone();
    [
        ip_access.map(|p| ("ipAccess", p.mode, AnySpec::IpAccess(p.spec))),
        cors.map(|p| ("cors", p.mode, AnySpec::Cors(p.spec))),
        authentication.map(|p| ("authentication", p.mode, AnySpec::Authentication(p.spec))),
        authorization.map(|p| ("authorization", p.mode, AnySpec::Authorization(p.spec))),
        external_auth.map(|p| ("externalAuth", p.mode, AnySpec::ExternalAuth(p.spec))),
        request_headers.map(|p| ("requestHeaders", p.mode, AnySpec::RequestHeaders(p.spec))),
        response_headers.map(|p| ("responseHeaders", p.mode, AnySpec::ResponseHeaders(p.spec))),
        rewrite.map(|p| ("rewrite", p.mode, AnySpec::Rewrite(p.spec))),
        redirect.map(|p| ("redirect", p.mode, AnySpec::Redirect(p.spec))),
        direct_response.map(|p| ("directResponse", p.mode, AnySpec::DirectResponse(p.spec))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl PolicyObject<'_> {
    /// What is wrong with it itself.
    pub fn problem(&self) -> Option<&Problem> {
        self.compiled.as_ref().err().or(self.left_out.as_ref())
    }

    /// Whether no object names it, and it names none.
    pub fn is_unused(&self) -> bool {
        self.targets.is_empty() && self.named_by.is_empty()
    }
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

    pub fn note(&mut self, noted: Noted) {
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
                overridden.insert(message.clone());
                // Which ones stay must not depend on who came first.
                if overridden.len() > MAX {
                    overridden.pop_last();
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
