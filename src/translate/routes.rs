//! Routes of all five kinds: which listeners take them, and what their status says. What their
//! rules become is in `rules` and `streams`, and how these come into the graph in `serve`.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::draft::Compiled;
use super::gateway::GatewayState;
use super::hostname;
use super::links::Linked;
use super::listeners::{ListenerState, Parent};
use super::parents::{Named, Parents};
use super::pass::{Pass, created};
use super::status::{Problem, Said, conditions, in_place};
use super::{Key, ObjectKind, Snapshot};
use crate::api::gateway::{
    DefaultScope, GrpcRoute, GrpcRouteRule, HttpRoute, HttpRouteRule, ParentReference,
    RouteParentStatus, RouteStatus, StreamRouteRule,
};
use crate::graph::RuleId;

/// The conditions that are ours in a route's status.
const OWNED: [&str; 3] = ["Accepted", "ResolvedRefs", "PartiallyInvalid"];

/// Most entries of `status.parents` of a route, of all controllers together.
const MAX_PARENTS: usize = 32;

/// Most regular expressions of one host on one listener, of all routes together: each is tried
/// for each request, whoever it is meant for.
const MAX_EXPRESSIONS: usize = 256;

/// What a route of any kind says.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteSpec<'s> {
    pub kind: ObjectKind,
    pub object: Object<'s>,
    pub key: &'s Key,
    pub meta: &'s ObjectMeta,
    pub parents: &'s [ParentReference],
    pub default_gateways: Option<&'s DefaultScope>,
    /// Always empty for TCP and UDP.
    pub hostnames: &'s [String],
    pub rules: Rules<'s>,
    pub status: Option<&'s RouteStatus>,
}

/// What tells a route from all others, and from other versions of itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Object<'s> {
    Http(&'s Arc<HttpRoute>),
    Grpc(&'s Arc<GrpcRoute>),
    Stream,
}

impl Object<'_> {
    /// Its own as long as it is held. None for streams.
    pub fn address(self) -> Option<usize> {
        match self {
            Object::Http(route) => Some(Arc::as_ptr(route).addr()),
            Object::Grpc(route) => Some(Arc::as_ptr(route).addr()),
            Object::Stream => None,
        }
    }

    pub fn held(self) -> Arc<dyn Any + Send + Sync> {
        match self {
            Object::Http(route) => Arc::<HttpRoute>::clone(route),
            Object::Grpc(route) => Arc::<GrpcRoute>::clone(route),
            Object::Stream => Arc::new(()),
        }
    }
}

/// The rules of a route, which is where kinds differ.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rules<'s> {
    Http(&'s [HttpRouteRule]),
    Grpc(&'s [GrpcRouteRule]),
    Stream(&'s [StreamRouteRule]),
}

/// A route with what holds for all of its parents.
#[derive(Debug)]
pub(super) struct Route<'s> {
    pub spec: RouteSpec<'s>,
    /// In lower case; one empty name for every host.
    pub hostnames: Vec<String>,
    pub compiled: Compiled<'s>,
    /// The backends of its rules, by the Gateways that connect to them.
    pub linked: Vec<Linked>,
    /// The rules of the graph by the Gateway, and by the listener if they carry its policies.
    pub made: HashMap<(usize, Option<usize>), Vec<Option<RuleId>>>,
    /// Where its entries stand already: two parentRefs may name one listener.
    attached: BTreeSet<(usize, usize)>,
}

/// The routes of every kind.
fn specs(snapshot: &Snapshot) -> impl Iterator<Item = RouteSpec<'_>> {
    macro_rules! all {
        ($field:ident, $kind:ident, $rules:ident, $object:ident => $is:expr, $hostnames:expr) => {
            snapshot.$field.iter().map(|(key, $object)| RouteSpec {
                kind: ObjectKind::$kind,
                object: $is,
                key,
                meta: &$object.metadata,
                parents: &$object.spec.parent_refs,
                default_gateways: $object.spec.use_default_gateways.as_ref(),
                hostnames: $hostnames,
                rules: Rules::$rules(&$object.spec.rules),
                status: $object.status.as_ref(),
            })
        };
    }
    all!(http_routes, HttpRoute, Http, route => Object::Http(route), &route.spec.hostnames)
        .chain(
            all!(grpc_routes, GrpcRoute, Grpc, route => Object::Grpc(route), &route.spec.hostnames),
        )
        .chain(all!(tls_routes, TlsRoute, Stream, route => Object::Stream, &route.spec.hostnames))
        .chain(all!(tcp_routes, TcpRoute, Stream, route => Object::Stream, &[]))
        .chain(all!(udp_routes, UdpRoute, Stream, route => Object::Stream, &[]))
}

impl<'s> Pass<'s> {
    pub fn routes(&mut self, gateways: &mut [GatewayState<'s>]) {
        let parents = Parents::new(gateways);
        let mut anew: Vec<RouteSpec<'s>> = Vec::new();
        for spec in specs(self.snapshot) {
            if !self.carry_over(&spec, gateways) {
                anew.push(spec);
            }
        }
        // Of what is bounded the older have their share first; what is carried over has none of
        // that. Each kind is in the order of its keys, and sorting keeps that.
        anew.sort_by_cached_key(|route| created(route.meta));
        for spec in anew {
            let ours = parents.of(&spec);
            self.begin_trace(&spec);
            self.route(spec, &ours, gateways);
            self.end_trace(&spec, !ours.is_empty());
        }
    }

    fn route(
        &mut self,
        spec: RouteSpec<'s>,
        ours: &[Named<'s>],
        gateways: &mut [GatewayState<'s>],
    ) {
        let mut parents = Vec::with_capacity(ours.len());
        if !ours.is_empty() {
            self.our_routes.insert((spec.kind, spec.key));
            let mut route = self.read(spec);
            let mut problems = Vec::new();
            for named in ours {
                let accepted = self.attach(&mut route, named, &mut gateways[named.place]);
                let entry = self.parent_status(&mut route, named, accepted.as_ref().err());
                parents.push(entry);
                problems.extend(accepted.err());
            }
            problems.extend(route.compiled.problems().cloned());
            problems.extend(route.linked.into_iter().flat_map(|linked| linked.problems));
            for problem in &problems {
                self.warn(spec.kind, spec.key, spec.meta, problem);
            }
        }
        self.route_status(spec, parents);
    }

    fn read(&mut self, spec: RouteSpec<'s>) -> Route<'s> {
        let mut compiled = match spec.rules {
            Rules::Http(rules) => self.rules(spec, rules.iter().map(Into::into)),
            Rules::Grpc(rules) => self.rules(spec, rules.iter().map(Into::into)),
            Rules::Stream(rules) => super::streams::rules(spec.kind, rules),
        };
        let mut hostnames = Vec::new();
        for (i, name) in spec.hostnames.iter().enumerate() {
            match hostname::parse(name) {
                Ok(name) => hostnames.push(name),
                Err(message) => {
                    let field = format!("spec.hostnames[{i}]");
                    compiled.refused.push(Problem::new("UnsupportedValue", field, message));
                }
            }
        }
        if spec.hostnames.is_empty() {
            hostnames.push(String::new());
        }
        Route {
            spec,
            hostnames,
            compiled,
            linked: Vec::new(),
            made: HashMap::new(),
            attached: BTreeSet::new(),
        }
    }

    /// Attaches the route to the listeners that one parentRef means.
    ///
    /// # Errors
    /// Why it is not accepted.
    fn attach(
        &mut self,
        route: &mut Route<'s>,
        named: &Named<'s>,
        gateway: &mut GatewayState<'s>,
    ) -> Result<(), Problem> {
        let (place, parent) = (named.place, named.parent);
        let matching = self.matching(route, named, gateway)?;
        if let Some(problem) = self.crowded(route, gateway, place, &matching) {
            return Err(problem);
        }
        let refused = route.compiled.refused();
        let mut accepted = false;
        for i in matching {
            let fresh = route.attached.insert((place, i));
            if fresh {
                self.serve(route, place, gateway, i);
            }
            let listener = &mut gateway.listeners[i];
            accepted |= listener.is_accepted();
            if fresh && refused.is_none() {
                listener.attached += 1;
                self.attached(place, i);
            }
        }
        let pending = |message: String| Err(Problem::new("Pending", "", message));
        match (refused, &gateway.problem, accepted) {
            (Some(problem), _, _) => Err(problem),
            (None, Some(problem), _) => {
                pending(format!("Gateway {} is not accepted: {problem}", gateway.key))
            }
            (None, None, false) => {
                pending(format!("no listener of {parent} is accepted; see its status"))
            }
            (None, None, true) => Ok(()),
        }
    }

    /// The listeners that one parentRef means, and that take the route.
    ///
    /// # Errors
    /// Why there are none.
    fn matching(
        &self,
        route: &Route<'_>,
        named: &Named<'s>,
        gateway: &GatewayState<'s>,
    ) -> Result<Vec<usize>, Problem> {
        let parent = named.parent;
        let no = |reason, message: String| Err(Problem::new(reason, "spec.parentRefs", message));
        if let Some(problem) = not_taken(parent, gateway) {
            return no("Pending", format!("{parent} is not accepted: {problem}"));
        }
        let meant: Vec<(usize, &ListenerState<'_>)> =
            gateway.listeners.iter().enumerate().filter(|(_, l)| means(named, l)).collect();
        if meant.is_empty() {
            return no("NoMatchingParent", no_listener(named, gateway));
        }
        let (kind, namespace) = (route.spec.kind.kind(), &route.spec.key.namespace);
        let allows = |l: &ListenerState<'_>| l.allows(self.snapshot, kind, namespace);
        let allowed: Vec<_> = meant.iter().filter(|(_, l)| allows(l)).collect();
        if allowed.is_empty() {
            let of_kind = meant.iter().any(|(_, l)| l.kinds.iter().any(|k| k.kind == kind));
            let message = if of_kind {
                format!(
                    "no listener of {parent} allows {kind}s of namespace {namespace}; its \
                     allowedRoutes must name them"
                )
            } else {
                let kinds: BTreeSet<&str> =
                    meant.iter().flat_map(|(_, l)| &l.kinds).map(|k| &*k.kind).collect();
                let kinds: Vec<&str> = kinds.into_iter().collect();
                let only = match kinds.is_empty() {
                    true => String::new(),
                    false => format!(", only {}", kinds.join(", ")),
                };
                format!(
                    "the listeners of {parent} that are meant take no {kind}{only}; name others, \
                     or change their protocol or allowedRoutes"
                )
            };
            return no("NotAllowedByListeners", message);
        }
        if route.hostnames.is_empty() {
            let message = "no name in spec.hostnames is valid; correct them";
            return no("NoMatchingListenerHostname", message.to_owned());
        }
        let meets = |l: &ListenerState<'_>| {
            route.hostnames.iter().any(|name| hostname::intersect(name, &l.hostname))
        };
        let matching: Vec<usize> =
            allowed.iter().filter(|(_, l)| meets(l)).map(|(i, _)| *i).collect();
        if matching.is_empty() {
            let known: BTreeSet<&str> = allowed.iter().map(|(_, l)| &*l.hostname).collect();
            let known: Vec<&str> = known.into_iter().collect();
            let message = format!(
                "no name in spec.hostnames is one of {parent}: use names of {}",
                known.join(", ")
            );
            return no("NoMatchingListenerHostname", message);
        }
        Ok(matching)
    }

    /// Why the route's regular expressions find no room under one of these listeners.
    fn crowded(
        &self,
        route: &Route<'_>,
        gateway: &GatewayState<'_>,
        place: usize,
        matching: &[usize],
    ) -> Option<Problem> {
        let more = route.compiled.expressions;
        for i in matching.iter().filter(|i| more > 0 && !route.attached.contains(&(place, **i))) {
            let at = gateway.listeners[*i].place.and_then(|place| place.section());
            let Some(section) = at else { continue };
            for name in &route.hostnames {
                let there = self.expressions.get(&(section, name.clone())).copied().unwrap_or(0);
                if there + more > MAX_EXPRESSIONS {
                    let host = if name.is_empty() { "*" } else { name };
                    let message = format!(
                        "older routes have {there} regular expressions for host {host:?} of \
                         Gateway {}, at most {MAX_EXPRESSIONS} are served; use Exact or PathPrefix",
                        gateway.key
                    );
                    return Some(Problem::new("UnsupportedValue", "spec.rules", message));
                }
            }
        }
        None
    }

    fn parent_status(
        &mut self,
        route: &mut Route<'s>,
        named: &Named<'s>,
        refused: Option<&Problem>,
    ) -> RouteParentStatus {
        let unreachable = self.unreachable(route, named.place);
        let resolved = route.compiled.unresolved(&unreachable);
        let mut said = vec![
            Said::of("Accepted", "Accepted", refused),
            Said::of("ResolvedRefs", "ResolvedRefs", resolved.as_ref()),
        ];
        if let Some(dropped) = route.compiled.dropped().filter(|_| refused.is_none()) {
            said.push(Said::yes("PartiallyInvalid", "UnsupportedValue", dropped));
        }
        let controller = &self.snapshot.settings.controller_name;
        let old = route.spec.status.and_then(|status| {
            let ours = |p: &&RouteParentStatus| p.controller_name == *controller;
            status.parents.iter().filter(ours).find(|p| p.parent_ref == named.reference)
        });
        let before = old.map_or(&[][..], |old| &old.conditions);
        let generation = route.spec.meta.generation;
        RouteParentStatus {
            parent_ref: named.reference.clone(),
            controller_name: controller.clone(),
            conditions: conditions(before, &OWNED, &said, generation, &self.now),
            other: old.map(|old| old.other.clone()).unwrap_or_default(),
        }
    }

    fn route_status(&mut self, spec: RouteSpec<'s>, mut parents: Vec<RouteParentStatus>) {
        let before = spec.status.map_or(&[][..], |status| &status.parents);
        let controller = &self.snapshot.settings.controller_name;
        let foreign = before.iter().filter(|parent| parent.controller_name != *controller);
        parents.truncate(MAX_PARENTS.saturating_sub(foreign.clone().count()));
        parents.extend(foreign.cloned());
        let same = |a: &RouteParentStatus, b: &RouteParentStatus| {
            a.parent_ref == b.parent_ref && a.controller_name == b.controller_name
        };
        let parents = in_place(parents, before, same);
        let other = spec.status.map(|status| status.other.clone()).unwrap_or_default();
        let new = RouteStatus { parents, other };
        self.status(spec.kind, spec.key, spec.meta, spec.status, new);
    }
}

/// Why the Gateway does not take the ListenerSet that is a route's parent.
fn not_taken<'g>(parent: Parent<'_>, gateway: &'g GatewayState<'_>) -> Option<&'g Problem> {
    let Parent::ListenerSet(key) = parent else { return None };
    gateway.sets.iter().find(|set| set.key == key)?.problem.as_ref()
}

/// Whether a parentRef means this listener: one of the very object that it names.
fn means(named: &Named<'_>, listener: &ListenerState<'_>) -> bool {
    let reference = &named.reference;
    listener.parent == named.parent
        && reference.section_name.as_ref().is_none_or(|name| *name == listener.spec.name)
        && reference.port.is_none_or(|port| port == listener.spec.port)
}

fn no_listener(named: &Named<'_>, gateway: &GatewayState<'_>) -> String {
    let Named { reference, parent, .. } = named;
    let port = reference.port.map(|port| format!(" on port {port}")).unwrap_or_default();
    let name = reference.section_name.as_deref();
    let name = name.map(|name| format!(" {name}")).unwrap_or_default();
    let own = gateway.listeners.iter().filter(|listener| listener.parent == *parent);
    let known: Vec<&str> = own.map(|listener| &*listener.spec.name).collect();
    format!("{parent} has no listener{name}{port}; it has {}", known.join(", "))
}
