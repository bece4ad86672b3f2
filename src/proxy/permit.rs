//! Gates and transforms: who may go on, and with which changes.
//!
//! [`Permitted`] is the proof that a request passed its rule's gates. Only [`gates`] makes one,
//! and `forward` demands it, so nothing can be forwarded around them.

use std::ops::ControlFlow;

use crate::graph::{PolicyId, RouteGraph, Rule};
use crate::policy::{Exchange, Kind, Reply, ResponseHead};

/// The request passed every gate of its rule.
#[derive(Debug)]
pub struct Permitted(());

/// A policy's answer, and which kind of policy it was.
#[derive(Debug)]
pub struct Answered {
    pub kind: Kind,
    pub reply: Reply,
}

/// The policies that have seen a request, in order: the response passes them in reverse.
#[derive(Debug, Default)]
pub struct Passed(Vec<PolicyId>);

/// Asks every gate of `rule`, in order.
pub async fn gates(
    graph: &RouteGraph,
    rule: &Rule,
    ex: &mut Exchange<'_>,
    passed: &mut Passed,
) -> Result<Permitted, Answered> {
    run(graph, &rule.gates, ex, passed).await?;
    Ok(Permitted(()))
}

/// Runs the filters of a listener, before a rule is looked for: strictly in their order
/// (GEP-5224).
pub async fn filters(
    graph: &RouteGraph,
    ids: &[PolicyId],
    ex: &mut Exchange<'_>,
    passed: &mut Passed,
) -> Result<(), Answered> {
    run(graph, ids, ex, passed).await
}

/// Lets every transform of `ids` change the request, or answer it (a redirect).
pub async fn transforms(
    graph: &RouteGraph,
    ids: &[PolicyId],
    ex: &mut Exchange<'_>,
    passed: &mut Passed,
) -> Result<(), Answered> {
    run(graph, ids, ex, passed).await
}

async fn run(
    graph: &RouteGraph,
    ids: &[PolicyId],
    ex: &mut Exchange<'_>,
    passed: &mut Passed,
) -> Result<(), Answered> {
    for id in ids {
        let policy = &graph[*id].policy;
        passed.0.push(*id);
        if let ControlFlow::Break(reply) = policy.on_request(ex).await {
            return Err(Answered { kind: policy.kind(), reply });
        }
    }
    Ok(())
}

impl Passed {
    /// Lets the policies change the head of the response, the last one first.
    pub fn respond(&self, graph: &RouteGraph, ex: &Exchange<'_>, head: &mut ResponseHead) {
        for id in self.0.iter().rev() {
            graph[*id].policy.on_response(ex, head);
        }
    }
}
