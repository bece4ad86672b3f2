//! No way around a gate through a path that backends read otherwise than we do.
//!
//! A rule is found by what a path says. Where a backend may read another path in it (see
//! [`readings`]) that meets another rule, and that one has a gate which the found one has not,
//! the request is refused: the user has said that nobody gets there unasked. Nothing changes
//! where both meet the same rule, as `/@scope%2Fname` does, or where no gates differ.

use std::sync::Arc;

use crate::graph::{Action, Found, Listener, PolicyId, RouteGraph, Section};
use crate::policy::readings::readings;
use crate::policy::{Kind, RequestHead};

/// Whether `head`, which met `found`, would be a way around another rule's gates.
pub fn is_way_around(
    graph: &RouteGraph,
    listener: &Listener,
    sections: &[Arc<Section>],
    head: &mut RequestHead,
    found: &Found<'_>,
) -> bool {
    let readings = readings(&head.path);
    if readings.is_empty() {
        return false;
    }
    let path = std::mem::take(&mut head.path);
    let is_around = readings.into_iter().any(|reading| {
        let leaves = !is_below(&reading, found.prefix);
        head.path = reading.into();
        match look(graph, listener, sections, head) {
            // Whoever wrote a prefix has not given away what is not below it.
            None => leaves,
            Some(other) => other.id != found.id && is_stricter(graph, &other, found),
        }
    });
    head.path = path;
    is_around
}

/// The rule that a request meets, without what filters of listeners would do to it.
fn look<'g>(
    graph: &'g RouteGraph,
    listener: &'g Listener,
    sections: &'g [Arc<Section>],
    head: &RequestHead,
) -> Option<Found<'g>> {
    for section in sections {
        let found = graph.find_in(section, head);
        if found.is_some() || !section.filters.is_empty() {
            return found;
        }
    }
    graph.find_ingress(listener, head)
}

/// Whether `other` refuses what `found` might not.
fn is_stricter(graph: &RouteGraph, other: &Found<'_>, found: &Found<'_>) -> bool {
    let answers = |id: &&PolicyId| graph[**id].policy.kind() == Kind::DirectResponse;
    // CORS only describes answers.
    let decides = |id: &&PolicyId| graph[**id].policy.kind() != Kind::Cors;
    let is_missing =
        |id: &PolicyId| !found.rule.gates.contains(id) && !found.rule.transforms.contains(id);
    let gates = other.rule.gates.iter().filter(decides);
    let mut checks = gates.chain(other.rule.transforms.iter().filter(answers));
    let refuses = matches!(other.rule.action, Action::Refuse(_));
    checks.any(is_missing) || refuses && !matches!(found.rule.action, Action::Refuse(_))
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
