//! What routes came to in the last pass, carried over while nothing that they follow from has
//! changed.
//!
//! Everything that a HTTPRoute or GRPCRoute does to a pass goes through a few places, and leaves
//! a trace there: its part of the graph, its status, notes, what it counts for. While the object
//! is the same, the world of all routes is (see [`super::world`]), and so are the Services and
//! the namespaces that it looked at, the trace is followed again instead. Routes whose share
//! depends on other routes (regular expressions are bounded for all of them together) or on more
//! than their trace tells are looked at in every pass, and so are the few routes of other kinds.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::gateway::GatewayState;
use super::memo::Memo;
use super::middleware::Noted;
use super::pass::Pass;
use super::routes::RouteSpec;
use super::world::{Changes, World};
use super::{Key, Note, Snapshot, StatusWrite};
use crate::graph::{GraphBuilder, Part, RouteGraph};

/// What a pass leaves to the next one.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Its number, and that of the graph that it made.
    pub pass: u64,
    world: World,
    /// What the world itself looked at: authorization services that policies name.
    basis: Trace,
    /// Counts passes, so that a route that a pass does not meet is known.
    round: u64,
    /// By the address of the object.
    routes: FxHashMap<usize, Box<Carry>>,
    /// There were routes that are not among these.
    has_more: bool,
}

/// A route and its trace.
#[derive(Debug)]
struct Carry {
    /// The pass that met the route last.
    round: Cell<u64>,
    /// Held, so that its address stays its own.
    _object: Arc<dyn Any + Send + Sync>,
    part: Part,
    trace: Trace,
}

/// What was looked at and done.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Services that it led to or was to lead to.
    services: Vec<Key>,
    /// It looked at more than can be told here.
    is_unsteady: bool,
    /// It has a parent of ours.
    is_ours: bool,
    /// The listeners that count it: the place of the Gateway, and in that.
    attached: Vec<(usize, usize)>,
    /// Ports of Services, and through which Gateways.
    reached: Vec<(Key, u16, Key)>,
    /// What it told policies.
    noted: Vec<Noted>,
    notes: Vec<Note>,
    status: Option<Box<StatusWrite>>,
}

/// The part of a pass that carries over.
#[derive(Debug)]
pub(super) struct Carrying {
    pass: u64,
    world: World,
    basis: Trace,
    round: u64,
    /// Of the last pass and of this one.
    routes: FxHashMap<usize, Box<Carry>>,
    /// How many of them this one has met.
    met: usize,
    changes: Changes,
    /// What the object at work does.
    pub trace: Trace,
    /// Whether the graph will be another than that of the last pass.
    is_new: bool,
    has_more: bool,
}

impl Trace {
    fn is_concerned(&self, changes: &Changes) -> bool {
        let is_other =
            |key: &Key| changes.services.contains(key) || changes.grants.contains(&key.namespace);
        self.services.iter().any(is_other)
    }

    /// It looks at a Service, be it there or not, and at whether it may.
    pub fn look_at(&mut self, service: &Key) {
        if !self.services.contains(service) {
            self.services.push(service.clone());
        }
    }

    /// There are as many traces as routes, most of one Service and one listener.
    fn shrink(&mut self) {
        self.services.shrink_to_fit();
        self.attached.shrink_to_fit();
    }

    /// It looks at what no trace can tell.
    pub fn lose(&mut self) {
        self.is_unsteady = true;
    }
}

impl Carrying {
    /// With a builder that begins after the graph of the last pass if that can be gone on from.
    pub fn new(snapshot: &Snapshot) -> (Self, GraphBuilder) {
        let (carried, live) = snapshot.memo.carried();
        let Carried { pass, mut world, basis, round, routes, has_more } = carried;
        let mut changes = world.follow(snapshot);
        changes.world |= basis.is_unsteady || basis.is_concerned(&changes);
        let live: Option<Arc<RouteGraph>> = live.filter(|_| !changes.world);
        let carrying = Carrying {
            pass,
            world,
            basis: Trace::default(),
            round: round + 1,
            routes: if live.is_some() { routes } else { FxHashMap::default() },
            met: 0,
            // Of those that are not carried over nobody knows whether one is gone.
            is_new: live.is_none() || has_more || !changes.are_none(),
            has_more: false,
            changes,
            trace: Trace::default(),
        };
        let graph = live.map_or_else(GraphBuilder::new, |live| GraphBuilder::after(&live));
        (carrying, graph)
    }

    /// All that routes follow from is known: what it looked at is no route's.
    pub fn world_is_made(&mut self) {
        self.basis = std::mem::take(&mut self.trace);
    }

    /// The route as the last pass left it, if it would come to the same now.
    fn recall(&self, spec: &RouteSpec<'_>) -> Option<&Carry> {
        let carry = self.routes.get(&spec.object.address()?)?;
        let concerned = self.changes.namespaces.contains(&spec.key.namespace)
            || carry.trace.is_concerned(&self.changes);
        if concerned {
            return None;
        }
        carry.round.set(self.round);
        Some(carry)
    }

    fn keep(&mut self, spec: &RouteSpec<'_>, part: Part, trace: Trace) {
        let Some(address) = spec.object.address() else { return };
        let carry =
            Carry { round: Cell::new(self.round), _object: spec.object.held(), part, trace };
        self.routes.insert(address, Box::new(carry));
        self.met += 1;
    }

    /// Whether anything was carried over, or may be.
    pub fn goes_on(&self) -> bool {
        self.met > 0
    }

    /// Leaves all to the next pass. Returns the number of the graph, if it is another than that
    /// of the last pass.
    pub fn finish(self, memo: &Memo) -> Option<u64> {
        let Carrying { world, basis, round, mut routes, met, has_more, .. } = self;
        // A route of the last pass that was not met is gone.
        let is_new = self.is_new || routes.len() > met;
        if routes.len() > met {
            routes.retain(|_, carry| carry.round.get() == round);
        }
        let number = is_new.then(|| memo.next_pass());
        let pass = number.unwrap_or(self.pass);
        memo.carry(Carried { pass, world, basis, round, routes, has_more });
        number
    }
}

impl<'s> Pass<'s> {
    /// Does what the route did in the last pass. False if it must be looked at.
    pub fn carry_over(&mut self, spec: &RouteSpec<'s>, gateways: &mut [GatewayState<'s>]) -> bool {
        let Some(carry) = self.carrying.recall(spec) else { return false };
        let trace = &carry.trace;
        self.graph.keep(&carry.part);
        // Only policies ask.
        if trace.is_ours && !self.policies.objects.is_empty() {
            self.our_routes.insert((spec.kind, spec.key));
        }
        for (gateway, listener) in &trace.attached {
            gateways[*gateway].listeners[*listener].attached += 1;
        }
        for (service, port, gateway) in &trace.reached {
            if let Some((gateway, _)) = self.snapshot.gateways.get_key_value(gateway) {
                self.backends.reached.add("Service", service, *port, gateway);
            }
        }
        for noted in &trace.noted {
            self.policies.take(noted);
        }
        self.statuses.extend(trace.status.as_deref().cloned());
        self.notes.extend(trace.notes.iter().cloned());
        self.carrying.met += 1;
        true
    }

    /// The route is about to be looked at.
    pub fn begin_trace(&mut self, spec: &RouteSpec<'s>) {
        self.carrying.trace = Trace::default();
        self.policies.noted.clear();
        // Streams change others than those that a trace tells of.
        if spec.object.address().is_some() {
            self.carrying.is_new = true;
            self.graph.record_part();
        }
    }

    /// The route was looked at.
    pub fn end_trace(&mut self, spec: &RouteSpec<'s>, is_ours: bool) {
        if spec.object.address().is_none() {
            return;
        }
        let part = self.graph.part();
        let mut trace = std::mem::take(&mut self.carrying.trace);
        if trace.is_unsteady {
            self.carrying.has_more = true;
            return;
        }
        trace.is_ours = is_ours;
        trace.noted = std::mem::take(&mut self.policies.noted);
        trace.shrink();
        self.carrying.keep(spec, part, trace);
    }

    /// A listener counts the route at work.
    pub fn attached(&mut self, gateway: usize, listener: usize) {
        self.carrying.trace.attached.push((gateway, listener));
    }

    /// A Gateway reaches a port of a Service by what is at work.
    pub fn reached(&mut self, service: &Key, port: u16, gateway: &'s Key) {
        // Only their policies ask.
        if self.tls_policies.is_empty() && self.traffic_policies.is_empty() {
            return;
        }
        self.backends.reached.add("Service", service, port, gateway);
        self.carrying.trace.reached.push((service.clone(), port, gateway.clone()));
    }

    pub fn note(&mut self, note: Note) {
        self.carrying.trace.notes.push(note.clone());
        self.notes.insert(note);
    }

    pub fn write_status(&mut self, write: StatusWrite) {
        self.carrying.trace.status = Some(Box::new(write.clone()));
        self.statuses.push(write);
    }
}
