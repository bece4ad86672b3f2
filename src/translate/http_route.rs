//! HTTPRoutes: which listeners take them, and what their status says. What their rules become
//! is in `rules`.

use std::collections::{BTreeSet, HashMap};

use super::draft::Compiled;
use super::gateway::{ByKey, GatewayState};
use super::hostname;
use super::listeners::{ListenerState, Parent, Place};
use super::pass::{Pass, created};
use super::status::{Problem, Said, conditions, in_place};
use super::{Key, ObjectKind};
use crate::api::gateway::{GROUP, HttpRoute, ParentReference, RouteParentStatus, RouteStatus};
use crate::graph::{Entry, RuleId};

/// The conditions that are ours in a route's status.
const OWNED: [&str; 3] = ["Accepted", "ResolvedRefs", "PartiallyInvalid"];

/// Most entries of `HTTPRoute.status.parents`, of all controllers together.
const MAX_PARENTS: usize = 32;

/// Most regular expressions of one host on one listener, of all routes together: each is tried
/// for each request, whoever it is meant for.
const MAX_EXPRESSIONS: usize = 256;

/// A route with what holds for all of its parents.
struct Route<'s> {
    key: &'s Key,
    object: &'s HttpRoute,
    /// In lower case; one empty name for every host.
    hostnames: Vec<String>,
    compiled: Compiled<'s>,
    /// The rules of the graph by the Gateway and listener whose policies they carry.
    made: HashMap<(usize, usize), Vec<Option<RuleId>>>,
    /// Where its entries stand already: two parentRefs may name one listener.
    attached: BTreeSet<(usize, usize)>,
}

impl<'s> Pass<'s> {
    pub fn http_routes(&mut self, gateways: &mut [GatewayState<'s>], by_key: &ByKey<'s>) {
        let snapshot = self.snapshot;
        let mut routes: Vec<_> = snapshot.http_routes.iter().collect();
        // Of what is bounded the older have their share first.
        routes.sort_by_key(|(key, object)| (created(&object.metadata), *key));
        for (key, object) in routes {
            let mut ours: Vec<(&'s ParentReference, usize)> = Vec::new();
            for parent in &object.spec.parent_refs {
                let place = parent_of(parent, key).and_then(|gateway| by_key.get(&gateway));
                if let Some(place) = place.filter(|_| ours.iter().all(|(p, _)| *p != parent)) {
                    ours.push((parent, *place));
                }
            }
            self.http_route(key, object, &ours, gateways);
        }
    }

    fn http_route(
        &mut self,
        key: &'s Key,
        object: &'s HttpRoute,
        ours: &[(&'s ParentReference, usize)],
        gateways: &mut [GatewayState<'s>],
    ) {
        let mut parents = Vec::with_capacity(ours.len());
        if !ours.is_empty() {
            let mut route = self.read(key, object);
            for (parent, place) in ours {
                let accepted = self.attach(&mut route, parent, *place, gateways);
                if let Err(problem) = &accepted {
                    self.warn(ObjectKind::HttpRoute, key, &object.metadata, problem);
                }
                parents.push(self.parent_status(&route, parent, accepted));
            }
            let problems = route.compiled.problems();
            for problem in &problems {
                self.warn(ObjectKind::HttpRoute, key, &object.metadata, problem);
            }
        }
        let old = object.status.as_ref();
        let before = old.map_or(&[][..], |status| &status.parents);
        let controller = &self.snapshot.settings.controller_name;
        let foreign = before.iter().filter(|parent| parent.controller_name != *controller);
        parents.truncate(MAX_PARENTS.saturating_sub(foreign.clone().count()));
        parents.extend(foreign.cloned());
        let same = |a: &RouteParentStatus, b: &RouteParentStatus| {
            a.parent_ref == b.parent_ref && a.controller_name == b.controller_name
        };
        let parents = in_place(parents, before, same);
        let other = old.map(|status| status.other.clone()).unwrap_or_default();
        let new = RouteStatus { parents, other };
        self.status(ObjectKind::HttpRoute, key, &object.metadata, old, new);
    }

    fn read(&mut self, key: &'s Key, object: &'s HttpRoute) -> Route<'s> {
        let mut compiled = self.rules(key, object);
        let mut hostnames = Vec::new();
        for (i, name) in object.spec.hostnames.iter().enumerate() {
            match hostname::parse(name) {
                Ok(name) => hostnames.push(name),
                Err(message) => {
                    let field = format!("spec.hostnames[{i}]");
                    compiled.refused.push(Problem::new("UnsupportedValue", field, message));
                }
            }
        }
        if object.spec.hostnames.is_empty() {
            hostnames.push(String::new());
        }
        let (made, attached) = (HashMap::new(), BTreeSet::new());
        Route { key, object, hostnames, compiled, made, attached }
    }

    /// Attaches the route to the listeners that one parentRef means.
    ///
    /// # Errors
    /// Why it is not accepted.
    fn attach(
        &mut self,
        route: &mut Route<'s>,
        parent: &ParentReference,
        place: usize,
        gateways: &mut [GatewayState<'s>],
    ) -> Result<(), Problem> {
        let gateway = &mut gateways[place];
        let matching = self.matching(route, parent, gateway)?;
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
            accepted |= listener.refused.is_none() && listener.conflict.is_none();
            listener.attached += i32::from(fresh && refused.is_none());
        }
        let pending = |message: String| Err(Problem::new("Pending", "", message));
        match (refused, &gateway.problem, accepted) {
            (Some(problem), _, _) => Err(problem),
            (None, Some(problem), _) => {
                pending(format!("Gateway {} is not accepted: {problem}", gateway.key))
            }
            (None, None, false) => pending(format!(
                "no listener of Gateway {} is accepted; see its status",
                gateway.key
            )),
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
        parent: &ParentReference,
        gateway: &GatewayState<'_>,
    ) -> Result<Vec<usize>, Problem> {
        let named = |listener: &ListenerState<'_>| {
            listener.parent == Parent::Gateway(gateway.key)
                && parent.section_name.as_ref().is_none_or(|name| *name == listener.spec.name)
                && parent.port.is_none_or(|port| port == listener.spec.port)
        };
        let namespace = &route.key.namespace;
        let no = |reason, message: String| Err(Problem::new(reason, "spec.parentRefs", message));
        let listeners = || gateway.listeners.iter().enumerate().filter(|(_, l)| named(l));
        if listeners().next().is_none() {
            let port = parent.port.map(|port| format!(" on port {port}")).unwrap_or_default();
            let name = parent.section_name.as_deref();
            let name = name.map(|name| format!(" {name}")).unwrap_or_default();
            let known: Vec<&str> = gateway.listeners.iter().map(|l| &*l.spec.name).collect();
            let message = format!(
                "Gateway {} has no listener{name}{port}; it has {}",
                gateway.key,
                known.join(", ")
            );
            return no("NoMatchingParent", message);
        }
        let allows = |l: &ListenerState<'_>| l.allows(self.snapshot, "HTTPRoute", namespace);
        let allowed: Vec<_> = listeners().filter(|(_, l)| allows(l)).collect();
        if allowed.is_empty() {
            let message = format!(
                "no listener of Gateway {} allows HTTPRoutes of namespace {namespace}; its \
                 allowedRoutes must name them",
                gateway.key
            );
            return no("NotAllowedByListeners", message);
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
                "no name in spec.hostnames is one of Gateway {}: use names of {}",
                gateway.key,
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
            let place = gateway.listeners[*i].place;
            let Some(section) = place.and_then(Place::section) else { continue };
            for name in &route.hostnames {
                let there = self.expressions.get(&(section, name.clone())).copied().unwrap_or(0);
                if there + more > MAX_EXPRESSIONS {
                    let host = if name.is_empty() { "*" } else { name };
                    let message = format!(
                        "older HTTPRoutes have {there} regular expressions for host {host:?} of \
                         Gateway {}, at most {MAX_EXPRESSIONS} are served; use Exact or PathPrefix",
                        gateway.key
                    );
                    return Some(Problem::new("UnsupportedValue", "spec.rules", message));
                }
            }
        }
        None
    }

    /// Puts the route's matches under one listener.
    fn serve(
        &mut self,
        route: &mut Route<'s>,
        place: usize,
        gateway: &GatewayState<'s>,
        index: usize,
    ) {
        let listener = &gateway.listeners[index];
        let Some(section) = listener.place.and_then(Place::section) else { return };
        let levels = self.outer(gateway, listener);
        let context = if levels.is_plain() { (usize::MAX, usize::MAX) } else { (place, index) };
        if !route.made.contains_key(&context) {
            let mut made = Vec::with_capacity(route.compiled.rules.len());
            for draft in &route.compiled.rules {
                made.push(self.make(route.key, draft, &levels));
            }
            route.made.insert(context, made);
        }
        let created = created(&route.object.metadata);
        let object: Box<str> = route.key.to_string().into();
        // Under its own names, not their intersection with the listener's: the section claims
        // only hosts of the listener, and of two routes the more specific name must win.
        let meets = |name: &&String| hostname::intersect(name, &listener.hostname);
        for name in route.hostnames.iter().filter(meets) {
            if route.compiled.expressions > 0 {
                let there = self.expressions.entry((section, name.clone())).or_default();
                *there += route.compiled.expressions;
            }
            for (draft, rule) in route.compiled.rules.iter().zip(&route.made[&context]) {
                let Some(rule) = rule else { continue };
                for (i, (path, matcher)) in draft.matches.iter().enumerate() {
                    let entry = Entry {
                        path: path.clone(),
                        matcher: matcher.clone(),
                        created,
                        object: object.clone(),
                        order: (draft.index, u32::try_from(i).unwrap_or(u32::MAX)),
                        rule: *rule,
                    };
                    self.graph.route(section, name, entry);
                }
            }
        }
    }

    fn parent_status(
        &self,
        route: &Route<'_>,
        parent: &ParentReference,
        accepted: Result<(), Problem>,
    ) -> RouteParentStatus {
        let controller = &self.snapshot.settings.controller_name;
        let resolved = route.compiled.unresolved();
        let mut said = vec![
            Said::of("Accepted", "Accepted", accepted.as_ref().err()),
            Said::of("ResolvedRefs", "ResolvedRefs", resolved.as_ref()),
        ];
        if let Some(dropped) = route.compiled.dropped().filter(|_| accepted.is_ok()) {
            said.push(Said::yes("PartiallyInvalid", "UnsupportedValue", dropped));
        }
        let status = route.object.status.as_ref();
        let old = status.and_then(|status| {
            let ours = |p: &&RouteParentStatus| p.controller_name == *controller;
            status.parents.iter().filter(ours).find(|p| p.parent_ref == *parent)
        });
        let before = old.map_or(&[][..], |old| &old.conditions);
        let generation = route.object.metadata.generation;
        RouteParentStatus {
            parent_ref: parent.clone(),
            controller_name: controller.clone(),
            conditions: conditions(before, &OWNED, &said, generation, &self.now),
            other: old.map(|old| old.other.clone()).unwrap_or_default(),
        }
    }
}

/// The Gateway that a parentRef means.
pub(super) fn parent_of(parent: &ParentReference, route: &Key) -> Option<Key> {
    let group = parent.group.as_deref().unwrap_or(GROUP);
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    (group == GROUP && kind == "Gateway").then(|| Key::new(namespace, &*parent.name))
}
