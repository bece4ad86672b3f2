//! The one meeting point of control plane and data plane: the graph that is live.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{BackendKey, EndpointSet, Installed, RouteGraph};

/// Holds the live graph. Cheap to read; written by one publisher.
#[derive(Debug)]
pub struct Shared {
    graph: ArcSwap<RouteGraph>,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            graph: ArcSwap::default(),
            generation: AtomicU64::new(0),
            changed: watch::Sender::new(0),
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
    /// of the same key and equal Spec, endpoints of the same backend), and swaps it in.
    pub fn publish(&self, mut graph: RouteGraph) -> u64 {
        let old = self.graph.load();
        graph.generation = old.generation + 1;
        let mut policies: HashMap<&str, Vec<&Installed>> = HashMap::new();
        for before in &old.policies {
            policies.entry(&before.key).or_default().push(before);
        }
        for new in &mut graph.policies {
            let same = policies.get(&*new.key).into_iter().flatten().find(|p| p.spec == new.spec);
            if let Some(before) = same {
                new.policy.adopt(&before.policy);
            }
        }
        let sets: HashMap<&BackendKey, &Arc<EndpointSet>> =
            old.backends.iter().map(|b| (&b.key, &b.endpoints)).collect();
        for backend in &mut graph.backends {
            if let Some(set) = sets.get(&backend.key) {
                set.replace(&backend.endpoints.addrs());
                backend.endpoints = Arc::clone(set);
            }
        }
        let mut stats: HashMap<_, _> =
            old.rules.iter().map(|rule| (rule.name.route(), Arc::clone(&rule.stats))).collect();
        for rule in &mut graph.rules {
            let of_route = stats.entry(rule.name.route()).or_default();
            rule.stats = Arc::clone(of_route);
        }
        let generation = graph.generation;
        self.graph.store(Arc::new(graph));
        self.generation.store(generation, Ordering::Release);
        self.changed.send_replace(generation);
        generation
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::graph::testing::{backend, key, rule};
    use crate::graph::{GraphBuilder, PolicyId};
    use crate::policy::rate_limit::{Key, KeyType, Local, Spec};
    use crate::policy::testing::exchange;
    use crate::policy::{AnySpec, Refs};

    fn limited(policy_key: &str, average: i32) -> RouteGraph {
        let local = Local { average, burst: None, period: Some("1h".into()) };
        let key = Some(Key { r#type: KeyType::All, header: None });
        let spec = AnySpec::RateLimit(Spec { local, key });
        let mut builder = GraphBuilder::new();
        builder.policy(policy_key, &spec, &Refs::default()).unwrap();
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
