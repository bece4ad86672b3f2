//! The one meeting point of control plane and data plane: the graph that is live.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{BackendKey, EndpointSet, Installed, RouteGraph, RouteStats, RuleName};

/// Holds the live graph. Cheap to read; written by one publisher.
#[derive(Debug)]
pub struct Shared {
    graph: ArcSwap<RouteGraph>,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    /// Graphs that were live: kept until nobody else holds them, so that it is never a worker
    /// that has to take one apart.
    retired: Mutex<Vec<Arc<RouteGraph>>>,
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            graph: ArcSwap::default(),
            generation: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            retired: Mutex::default(),
        }
    }
}

impl Shared {
    /// The generation of the live graph; 0 before the first publish.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The live graph. Workers keep it and load again only when [`Shared::generation`] moved.
    pub fn load(&self) -> Arc<RouteGraph> {
        self.graph.load_full()
    }

    /// Tells of each publish.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Makes `graph` live: numbers it, carries over the state of what did not change (policies
    /// of the same key and equal Spec, endpoints of the same backend), and swaps it in. What it
    /// shares with the graph before has its state already.
    pub fn publish(&self, mut graph: RouteGraph) -> u64 {
        let old = self.graph.load();
        graph.generation = old.generation + 1;
        adopt_policies(&old, &mut graph);
        adopt_endpoints(&old, &mut graph);
        adopt_counters(&old, &mut graph);
        drop(old);
        let generation = graph.generation;
        let old = self.graph.swap(Arc::new(graph));
        self.generation.store(generation, Ordering::Release);
        self.changed.send_replace(generation);
        self.bury(Some(old));
        generation
    }

    /// Takes apart the graphs that were live and that nobody holds any more, on this thread.
    /// Returns whether some are held still.
    pub fn clean_up(&self) -> bool {
        self.bury(None)
    }

    fn bury(&self, one_more: Option<Arc<RouteGraph>>) -> bool {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.extend(one_more);
        retired.retain(|graph| Arc::strong_count(graph) > 1);
        !retired.is_empty()
    }
}

/// What is shared has its state, and nothing else has the same key: that would be shared, too.
fn adopt_policies(old: &RouteGraph, new: &mut RouteGraph) {
    let mut known: HashMap<&str, Vec<&Installed>> = HashMap::new();
    for before in old.policies.not_in(&new.policies) {
        known.entry(&before.key).or_default().push(before);
    }
    for new in new.policies.fresh() {
        let same = known.get(&*new.key).into_iter().flatten().find(|p| p.spec == new.spec);
        if let Some(before) = same {
            new.policy.adopt(&before.policy);
        }
    }
}

fn adopt_endpoints(old: &RouteGraph, new: &mut RouteGraph) {
    let gone = old.backends.not_in(&new.backends);
    let sets: HashMap<&BackendKey, &Arc<EndpointSet>> =
        gone.map(|b| (&b.key, &b.endpoints)).collect();
    for backend in new.backends.fresh() {
        if let Some(set) = sets.get(&backend.key) {
            set.replace(&backend.endpoints.addrs());
            backend.endpoints = Arc::clone(set);
        }
    }
}

fn adopt_counters(old: &RouteGraph, new: &mut RouteGraph) {
    let names: Vec<RuleName> = new.rules.fresh().map(|rule| rule.name.clone()).collect();
    if names.is_empty() {
        return;
    }
    let mut stats: HashMap<_, Arc<RouteStats>> =
        names.iter().map(|name| (name.route(), Arc::default())).collect();
    // All rules of a route are shared, or none is.
    for rule in old.rules.not_in(&new.rules) {
        if let Some(of_route) = stats.get_mut(&rule.name.route()) {
            of_route.clone_from(&rule.stats);
        }
    }
    for rule in new.rules.fresh() {
        if let Some(of_route) = stats.get(&rule.name.route()) {
            rule.stats = Arc::clone(of_route);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::graph::testing::{backend, key, rule};
    use crate::graph::{GraphBuilder, PolicyId};
    use crate::policy::testing::{exchange, rate_limit};
    use crate::policy::{AnySpec, Mode, Refs};

    fn limited(policy_key: &str, requests: i64) -> RouteGraph {
        limited_in(Mode::Enforce, policy_key, requests)
    }

    fn limited_in(mode: Mode, policy_key: &str, requests: i64) -> RouteGraph {
        let spec = AnySpec::RateLimit(rate_limit(requests, "1h"));
        let mut builder = GraphBuilder::new();
        builder.policy(policy_key, &spec, mode, &Refs::default()).unwrap();
        builder.build()
    }

    /// Whether the live graph's limit lets a request through.
    async fn passes(shared: &Shared) -> bool {
        let graph = shared.load();
        let mut ex = exchange("GET", "http://a.example/", &[]);
        graph[PolicyId(0)].policy.on_request(&mut ex).await.is_continue()
    }

    #[tokio::test]
    async fn a_limit_stays_spent_while_its_key_and_spec_stay() {
        let shared = Shared::default();
        shared.publish(limited("RateLimit/ns/a", 1));
        assert!(passes(&shared).await && !passes(&shared).await);
        shared.publish(limited("RateLimit/ns/a", 1));
        assert!(!passes(&shared).await);
        shared.publish(limited("RateLimit/ns/b", 1));
        assert!(passes(&shared).await && !passes(&shared).await);
        shared.publish(limited("RateLimit/ns/b", 2));
        assert!(passes(&shared).await);
    }

    #[tokio::test]
    async fn a_limit_stays_spent_when_only_its_mode_changes() {
        let shared = Shared::default();
        shared.publish(limited("RateLimit/ns/a", 1));
        assert!(passes(&shared).await);
        for mode in [Mode::Shadow, Mode::Enforce] {
            shared.publish(limited_in(mode, "RateLimit/ns/a", 1));
            assert!(!passes(&shared).await, "{mode:?}");
        }
    }

    #[test]
    fn endpoints_of_a_backend_that_stays_are_the_same_and_renewed() {
        let graph = |last: &[u8]| {
            let mut builder = GraphBuilder::new();
            builder.backend(&key("web", 80), || backend("web", 80, last));
            builder.build()
        };
        let shared = Shared::default();
        shared.publish(graph(&[1, 2]));
        let before = shared.load();
        before.backends[0].endpoints.load()[1].in_flight.store(5, Relaxed);
        shared.publish(graph(&[2, 3]));
        let (old, new) = (&before.backends[0].endpoints, &shared.load().backends[0].endpoints);
        assert!(Arc::ptr_eq(old, new), "requests under the old graph see new endpoints");
        assert_eq!(new.addrs(), graph(&[2, 3]).backends[0].endpoints.addrs());
        assert_eq!(new.load()[0].in_flight.load(Relaxed), 5);
    }

    #[test]
    fn what_a_graph_shares_with_the_last_one_keeps_its_state() {
        let shared = Shared::default();
        let mut builder = GraphBuilder::new();
        builder.record_part();
        builder.backend(&key("web", 80), || backend("web", 80, &[1]));
        builder.rule(rule("a"));
        let part = builder.part();
        shared.publish(builder.build());
        let before = shared.load();
        before.backends[0].endpoints.replace(&[([192, 0, 2, 9], 80).into()]);
        let mut builder = GraphBuilder::after(&before);
        builder.keep(&part);
        builder.rule(rule("b"));
        shared.publish(builder.build());
        let after = shared.load();
        assert_eq!(after.backends[0].endpoints.addrs(), [([192, 0, 2, 9], 80).into()]);
        assert!(Arc::ptr_eq(&before.rules[0].stats, &after.rules[0].stats));
        assert!(!Arc::ptr_eq(&before.rules[0].stats, &after.rules[1].stats), "another route");
    }

    #[test]
    fn counters_of_a_route_that_stays_are_the_same() {
        let graph = |names: &[&str]| {
            let mut builder = GraphBuilder::new();
            for name in names {
                builder.rule(rule(name));
            }
            builder.build()
        };
        let shared = Shared::default();
        shared.publish(graph(&["a", "b"]));
        let before = shared.load();
        shared.publish(graph(&["b", "a"]));
        let after = shared.load();
        assert!(Arc::ptr_eq(&before.rules[0].stats, &after.rules[1].stats));
        assert!(!Arc::ptr_eq(&after.rules[0].stats, &after.rules[1].stats));
    }

    #[test]
    fn a_graph_that_was_live_is_taken_apart_by_who_cleans_up() {
        let shared = Shared::default();
        shared.publish(limited("RateLimit/ns/a", 1));
        let held = shared.load();
        let gone = Arc::downgrade(&held);
        shared.publish(RouteGraph::default());
        drop(held);
        assert!(gone.upgrade().is_some(), "the last reader does not");
        assert!(!shared.clean_up());
        assert!(gone.upgrade().is_none());
    }

    #[test]
    fn each_publish_counts_and_is_told() {
        let shared = Shared::default();
        let mut told = shared.subscribe();
        assert_eq!((shared.generation(), shared.load().generation), (0, 0));
        assert_eq!(shared.publish(RouteGraph::default()), 1);
        assert_eq!(shared.publish(RouteGraph::default()), 2);
        assert_eq!((shared.generation(), shared.load().generation), (2, 2));
        assert_eq!(*told.borrow_and_update(), 2);
    }
}
