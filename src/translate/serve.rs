//! Puts the rules of routes into the graph, under the listeners that take them.

use super::draft::{Draft, split};
use super::gateway::GatewayState;
use super::hostname;
use super::links::{Links, traffic};
use super::listeners::{ListenerState, Parent, Place};
use super::merge::Merged;
use super::middleware::Use;
use super::pass::{Pass, created};
use super::routes::{Route, RouteSpec};
use super::{Key, ObjectKind};
use crate::graph::{Action, Entry, GraphBuilder, Rule, RuleId, RuleName, SectionId, StreamId};
use crate::reason::Reason;

/// The policies of what a rule is reached through, the most specific first: the listener, the
/// ListenerSet that it stands in, if any, and the Gateway.
#[derive(Debug)]
struct Outer(Vec<Result<Vec<Use>, String>>);

impl Outer {
    /// Whether there are none, so that rules can be shared with other such listeners.
    fn is_plain(&self) -> bool {
        self.0.iter().all(|uses| uses.as_ref().is_ok_and(Vec::is_empty))
    }
}

impl<'s> Pass<'s> {
    /// Puts a route under one listener.
    pub fn serve(
        &mut self,
        route: &mut Route<'s>,
        place: usize,
        gateway: &GatewayState<'s>,
        index: usize,
    ) {
        let listener = &gateway.listeners[index];
        let carried = traffic(route.spec.kind, Some(listener.intake));
        let linked = self.link(route, Some((place, gateway)), carried);
        match listener.place {
            Some(Place::Http(section)) => {
                let outer = self.outer(gateway, listener);
                let at = (place, (!outer.is_plain()).then_some(index));
                if !route.made.contains_key(&at) {
                    let made = self.make(route, linked, &outer);
                    route.made.insert(at, made);
                }
                self.place_requests(route, &route.made[&at], section, listener);
            }
            Some(Place::Stream(stream)) => self.place_connections(route, linked, stream, listener),
            None => {}
        }
    }

    /// The rules of the graph; None for those without matches.
    fn make(&mut self, route: &Route<'s>, linked: usize, outer: &Outer) -> Vec<Option<RuleId>> {
        let rules = route.compiled.rules.iter().zip(&route.linked[linked].rules);
        let made = rules.map(|(draft, links)| {
            (!draft.matches.is_empty()).then(|| self.make_rule(&route.spec, draft, links, outer))
        });
        made.collect()
    }

    /// Makes the rule, with the policies of all levels.
    fn make_rule(
        &mut self,
        spec: &RouteSpec<'s>,
        draft: &Draft<'s>,
        links: &Links,
        outer: &Outer,
    ) -> RuleId {
        let merged = self.levels(spec, draft, outer);
        let mut rule = Rule::new(name_of(spec, draft), Action::Refuse(Reason::InvalidPolicy));
        rule.timeouts = draft.timeouts;
        match (draft.closed(), merged) {
            (Some(reason), _) | (None, Err(reason)) => rule.action = Action::Refuse(reason),
            (None, Ok(merged)) => {
                rule.gates = merged.gates;
                rule.transforms = merged.transforms;
                rule.action = split(links.targets.clone());
                rule.mirrors = links.mirrors.clone();
                rule.retry = draft.retry.clone();
                rule.session = draft.session.clone();
            }
        }
        self.graph.rule(rule)
    }

    /// Puts the matches of the rules into a section.
    fn place_requests(
        &mut self,
        route: &Route<'s>,
        made: &[Option<RuleId>],
        section: SectionId,
        listener: &ListenerState<'s>,
    ) {
        let add = match route.spec.kind {
            ObjectKind::GrpcRoute => GraphBuilder::grpc_route,
            _ => GraphBuilder::route,
        };
        let created = created(route.spec.meta);
        let object: Box<str> = route.spec.key.to_string().into();
        for name in names(route, listener) {
            if route.compiled.expressions > 0 {
                let there = self.expressions.entry((section, name.clone())).or_default();
                *there += route.compiled.expressions;
            }
            for (draft, rule) in route.compiled.rules.iter().zip(made) {
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
                    add(&mut self.graph, section, name, entry);
                }
            }
        }
    }

    /// Sends what comes in through a stream by the route's only rule.
    fn place_connections(
        &mut self,
        route: &Route<'s>,
        linked: usize,
        stream: StreamId,
        listener: &ListenerState<'s>,
    ) {
        let rules = route.compiled.rules.iter().zip(&route.linked[linked].rules);
        let Some((draft, links)) = rules.clone().next() else { return };
        let action = match draft.closed() {
            Some(reason) => Action::Refuse(reason),
            None => split(links.targets.clone()),
        };
        let rule = self.graph.rule(Rule::new(name_of(&route.spec, draft), action));
        let (created, object) = (created(route.spec.meta), route.spec.key.to_string());
        for name in names(route, listener) {
            self.graph.stream_route(stream, name, (created, &object), rule);
        }
    }

    /// The policies that target the objects that a rule is reached through.
    fn outer(&self, gateway: &GatewayState<'s>, listener: &ListenerState<'s>) -> Outer {
        let section = Some(listener.spec.name.as_str());
        let targeting = |parent: Parent<'s>, section| {
            let Key { namespace, name } = parent.key();
            self.policies.targeting((parent.kind().kind(), namespace, name, section))
        };
        let mut levels = vec![targeting(listener.parent, section)];
        if listener.parent != Parent::Gateway(gateway.key) {
            levels.push(targeting(listener.parent, None));
        }
        levels.push(targeting(Parent::Gateway(gateway.key), None));
        Outer(levels)
    }

    fn levels(
        &mut self,
        spec: &RouteSpec<'s>,
        draft: &Draft<'s>,
        outer: &Outer,
    ) -> Result<Merged, Reason> {
        let (kind, Key { namespace, name: route }) = (spec.kind.kind(), spec.key);
        let of_rule = match draft.name {
            Some(name) => self.policies.targeting((kind, namespace, route, Some(name))),
            None => Ok(Vec::new()),
        };
        let of_route = self.policies.targeting((kind, namespace, route, None));
        let all = [Ok(draft.filters.clone()), of_rule, of_route];
        let all = all.into_iter().chain(outer.0.iter().cloned());
        let levels: Result<Vec<Vec<Use>>, String> = all.collect();
        let levels = levels.map_err(|_| Reason::InvalidPolicy)?;
        let place = format!("{kind} {} rule {}", spec.key, label(draft));
        Ok(self.policies.merge(&levels, namespace, &place))
    }
}

/// The route's names under which a listener's clients find it: its own, not their intersection
/// with the listener's. What a listener claims is told apart before, and of two routes the more
/// specific name must win.
fn names<'r>(
    route: &'r Route<'_>,
    listener: &'r ListenerState<'_>,
) -> impl Iterator<Item = &'r String> {
    route.hostnames.iter().filter(|name| hostname::intersect(name, &listener.hostname))
}

/// The rule's own name, or its index.
fn label(draft: &Draft<'_>) -> String {
    draft.name.map_or_else(|| draft.index.to_string(), str::to_owned)
}

fn name_of(spec: &RouteSpec<'_>, draft: &Draft<'_>) -> RuleName {
    RuleName {
        kind: spec.kind.kind(),
        namespace: spec.key.namespace.as_str().into(),
        name: spec.key.name.as_str().into(),
        rule: label(draft).into(),
    }
}
