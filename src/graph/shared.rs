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
