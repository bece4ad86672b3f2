//! The backends of a route's rules, as one Gateway reaches them: what it shows to them and what
//! policies hold between it and them may be its own.

use super::ObjectKind;
use super::backends::{Traffic, Unresolved};
use super::draft::{Compiled, Reference};
use super::gateway::GatewayState;
use super::intake::Intake;
use super::pass::Pass;
use super::references::From;
use super::routes::{Route, RouteSpec};
use super::status::Problem;
use crate::api::gateway::GROUP;
use crate::graph::{Mirror, Target};

/// The links of every rule of a route, in the order of the rules.
#[derive(Debug)]
pub(super) struct Linked {
    /// The Gateway that connects; None: nobody does, and only the status asks.
    gateway: Option<usize>,
    traffic: Traffic,
    pub rules: Vec<Links>,
    pub problems: Vec<Problem>,
}

/// The backends of a rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    pub targets: Vec<Target>,
    pub mirrors: Vec<Mirror>,
}

/// What goes from a listener to the backends of a route; without a listener, what would.
pub(super) fn traffic(kind: ObjectKind, listener: Option<Intake>) -> Traffic {
    match (kind, listener) {
        (ObjectKind::HttpRoute, _) => Traffic::Http,
        (ObjectKind::GrpcRoute, _) => Traffic::Grpc,
        (ObjectKind::UdpRoute, _) => Traffic::Udp,
        (ObjectKind::TlsRoute, Some(Intake::TlsPassthrough)) => Traffic::Passthrough,
        _ => Traffic::Stream,
    }
}

impl<'s> Pass<'s> {
    /// The place in `route.linked` of what one Gateway reaches, resolved if nobody asked before.
    pub fn link(
        &mut self,
        route: &mut Route<'s>,
        gateway: Option<(usize, &GatewayState<'s>)>,
        traffic: Traffic,
    ) -> usize {
        let place = gateway.map(|(place, _)| place);
        let known = |linked: &Linked| linked.gateway == place && linked.traffic == traffic;
        route.linked.iter().position(known).unwrap_or_else(|| {
            let gateway = gateway.map(|(_, gateway)| gateway);
            let (rules, problems) = self.links(&route.spec, &route.compiled, gateway, traffic);
            route.linked.push(Linked { gateway: place, traffic, rules, problems });
            route.linked.len() - 1
        })
    }

    fn links(
        &mut self,
        spec: &RouteSpec<'s>,
        compiled: &Compiled<'s>,
        gateway: Option<&GatewayState<'s>>,
        traffic: Traffic,
    ) -> (Vec<Links>, Vec<Problem>) {
        let from = From { group: GROUP, kind: spec.kind.kind(), namespace: &spec.key.namespace };
        let (mut rules, mut problems) = (Vec::new(), Vec::new());
        for draft in &compiled.rules {
            let mut links = Links::default();
            let mut resolve = |reference: &Reference<'s>| {
                let to = self.backend_of(from, gateway, reference.to, traffic);
                if let Err(error) = &to {
                    problems.push(problem(reference.field.clone(), error));
                }
                to
            };
            for ((numerator, denominator), reference) in &draft.mirrors {
                // One that is not there is not mirrored to; the request is not concerned.
                let Ok(to) = resolve(reference) else { continue };
                let (numerator, denominator) = (*numerator, *denominator);
                links.mirrors.push(Mirror { to, numerator, denominator });
            }
            for target in &draft.targets {
                let to = resolve(&target.reference).map_err(|error| error.reason);
                links.targets.push(Target {
                    weight: target.weight,
                    to: to.and_then(|id| target.closed.map_or(Ok(id), Err)),
                    transforms: target.transforms.clone(),
                });
            }
            rules.push(links);
        }
        (rules, problems)
    }

    /// What is wrong with the backends of a route, for its status at one Gateway. Where that
    /// connects to none of them, they are looked up all the same.
    pub fn unreachable(&mut self, route: &mut Route<'s>, place: usize) -> Vec<Problem> {
        let mut at = Some(place);
        if route.linked.iter().all(|linked| linked.gateway != at) {
            self.link(route, None, traffic(route.spec.kind, None));
            at = None;
        }
        let mut problems: Vec<Problem> = Vec::new();
        for linked in route.linked.iter().filter(|linked| linked.gateway == at) {
            for problem in &linked.problems {
                if !problems.contains(problem) {
                    problems.push(problem.clone());
                }
            }
        }
        problems
    }
}

pub(super) fn problem(field: String, error: &Unresolved) -> Problem {
    Problem::new(error.reason.as_str(), field, error.message.clone())
}
