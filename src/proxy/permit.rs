//! Gates and transforms: who may go on, and with which changes.
//!
//! [`Permitted`] is the proof that a request passed its rule's gates. Only [`gates`] makes one,
//! or [`without_gates`] for a rule that has none, and `forward` demands it, so nothing can be
//! forwarded around them.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::account::Account;
use crate::graph::{Installed, PolicyId, RouteGraph, Rule};
use crate::policy::rate_limit::Limits;
use crate::policy::{AnyPolicy, Exchange, Kind, Mode, Reply, ResponseHead};
use crate::services::store::Store;

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

/// The proof for a rule that has no gates.
pub fn without_gates(rule: &Rule) -> Option<Permitted> {
    rule.gates.is_empty().then_some(Permitted(()))
}

/// Asks every gate of `rule`, in order. Limits that stand side by side are decided together.
pub async fn gates(
    graph: &RouteGraph,
    rule: &Rule,
    ex: &mut Exchange<'_>,
    passed: &mut Passed,
) -> Result<Permitted, Answered> {
    ex.request.tell();
    let mut account = Account::default();
    let mut ids = &rule.gates[..];
    while let Some(first) = ids.first() {
        let kind = graph[*first].policy.kind();
        let of_kind = |id: &&PolicyId| graph[**id].policy.kind() == kind;
        let limits = ids.iter().take_while(of_kind).map_while(|id| enforced(graph, *id)).count();
        let (now, then) = ids.split_at(limits.max(1));
        ids = then;
        if limits == 0 {
            run(graph, now, ex, passed).await?;
            continue;
        }
        passed.0.extend(now);
        let limits = now.iter().filter_map(|id| enforced(graph, *id));
        let later = |store: &Arc<dyn Store>| {
            let mut then = then.iter().filter_map(|id| enforced(graph, *id));
            then.any(|limits| limits.count_in(store))
        };
        if let ControlFlow::Break(reply) = account.0.decide(limits, ex, later).await {
            return Err(Answered { kind, reply });
        }
    }
    Ok(Permitted(()))
}

/// The limits of a policy that has some, unless it only watches.
fn enforced(graph: &RouteGraph, id: PolicyId) -> Option<&Limits> {
    let Installed { policy, mode, .. } = &graph[id];
    policy.limits().filter(|_| *mode == Mode::Enforce)
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
    ex.request.tell();
    for id in ids {
        let Installed { policy, mode, .. } = &graph[*id];
        if *mode == Mode::Shadow {
            // Boxed: hardly any policy is in this mode.
            Box::pin(watch(policy, ex)).await;
            continue;
        }
        passed.0.push(*id);
        if let ControlFlow::Break(reply) = policy.on_request(ex).await {
            return Err(Answered { kind: policy.kind(), reply });
        }
    }
    Ok(())
}

/// Lets a policy in Shadow mode see a clone of the exchange, and notes what it would have done.
/// It never sees the response.
async fn watch(policy: &AnyPolicy, ex: &mut Exchange<'_>) {
    let mut shadowed = ex.shadowed.take().unwrap_or_default();
    let mut seen = ex.clone();
    seen.is_shadow = true;
    if seen.identity.is_none() {
        seen.identity.clone_from(&shadowed.identity);
    }
    if let ControlFlow::Break(reply) = policy.on_request(&mut seen).await {
        shadowed.answers.push((policy.kind(), reply.reason));
    }
    shadowed.identity = seen.identity;
    shadowed.slots.extend(seen.slots.drain(ex.slots.len()..));
    ex.shadowed = Some(shadowed);
}

impl Passed {
    /// Lets the policies change the head of the response, the last one first.
    pub fn respond(&self, graph: &RouteGraph, ex: &Exchange<'_>, head: &mut ResponseHead) {
        for id in self.0.iter().rev() {
            graph[*id].policy.on_response(ex, head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::GraphBuilder;
    use crate::graph::testing::rule;
    use crate::policy::authentication::{self, method};
    use crate::policy::authorization::{self, RuleSpec};
    use crate::policy::limit_key::{Part, PartType};
    use crate::policy::testing::{exchange, rate_limit};
    use crate::policy::{AnySpec, Refs, bandwidth, concurrency};
    use crate::policy::{cors, direct_response, external_auth, ip_access, redirect};
    use crate::policy::{header_edits, request_headers, response_headers, rewrite};
    use crate::reason::Reason;
    use crate::services::ServiceId;

    /// A Spec of each kind that answers the second request of [`asked`] at the latest, or changes
    /// it, and why it answers.
    fn strict(kind: Kind) -> (AnySpec, Option<Reason>) {
        let header = || header_edits::Header { name: "x-new".into(), value: "1".into() };
        match kind {
            Kind::IpAccess => {
                let deny = vec!["192.0.2.0/24".into()];
                let spec = ip_access::Spec { deny, ..Default::default() };
                (AnySpec::IpAccess(spec), Some(Reason::IpDenied))
            }
            Kind::Cors => {
                let allow_origins = vec!["https://a.example".into()];
                let spec = cors::Spec { allow_origins, ..Default::default() };
                (AnySpec::Cors(spec), Some(Reason::CorsPreflight))
            }
            Kind::RateLimit => (AnySpec::RateLimit(rate_limit(1, "1h")), Some(Reason::RateLimited)),
            Kind::IdentityLimit => {
                (AnySpec::IdentityLimit(rate_limit(1, "1h")), Some(Reason::RateLimited))
            }
            Kind::Concurrency | Kind::IdentityConcurrency => {
                let is_late = kind == Kind::IdentityConcurrency;
                let part = if is_late { PartType::Consumer } else { PartType::All };
                let key = vec![Part { r#type: part, name: None }];
                let spec = vec![concurrency::Limit { name: "one".into(), requests: 1, key }];
                let spec = match is_late {
                    true => AnySpec::IdentityConcurrency(spec),
                    false => AnySpec::Concurrency(spec),
                };
                (spec, Some(Reason::TooManyConcurrent))
            }
            Kind::Bandwidth => {
                let spec = bandwidth::Spec { upload: Some("1Ki".into()), ..Default::default() };
                (AnySpec::Bandwidth(spec), None)
            }
            Kind::Authentication => {
                let keys = method::Spec { api_key: Some(Default::default()), ..Default::default() };
                let spec = authentication::Spec { methods: vec![keys], ..Default::default() };
                (AnySpec::Authentication(spec), Some(Reason::Unauthenticated))
            }
            Kind::Authorization => {
                let rule = RuleSpec { groups: vec!["staff".into()], ..Default::default() };
                let spec = authorization::Spec { rules: vec![rule] };
                (AnySpec::Authorization(spec), Some(Reason::Unauthenticated))
            }
            Kind::ExternalAuth => {
                let spec = external_auth::Spec::default();
                (AnySpec::ExternalAuth(spec), Some(Reason::AuthUnavailable))
            }
            Kind::RequestHeaders => {
                let spec = request_headers::Spec { set: vec![header()], ..Default::default() };
                (AnySpec::RequestHeaders(spec), None)
            }
            Kind::ResponseHeaders => {
                let spec = response_headers::Spec { set: vec![header()], ..Default::default() };
                (AnySpec::ResponseHeaders(spec), None)
            }
            Kind::Rewrite => {
                let hostname = Some("b.example".into());
                (AnySpec::Rewrite(rewrite::Spec { hostname, ..Default::default() }), None)
            }
            Kind::Redirect => {
                let spec =
                    redirect::Spec { hostname: Some("b.example".into()), ..Default::default() };
                (AnySpec::Redirect(spec), Some(Reason::Redirected))
            }
            Kind::DirectResponse => {
                let spec = direct_response::Spec { status_code: 204, ..Default::default() };
                (AnySpec::DirectResponse(spec), Some(Reason::DirectResponse))
            }
        }
    }

    /// A preflight, which CORS answers as well.
    fn asked() -> Exchange<'static> {
        let fields = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
        exchange("OPTIONS", "http://a.example/x?y=1", &fields)
    }

    fn refs() -> Refs {
        let users = [("auth".to_owned(), b"a:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=".to_vec())];
        Refs {
            secrets: [("users".to_owned(), users.into())].into(),
            services: [(external_auth::BACKEND_REF, ServiceId(0))].into(),
            ..Refs::default()
        }
    }

    async fn ask(graph: &RouteGraph, ex: &mut Exchange<'_>) -> (Option<Reason>, Passed) {
        let mut passed = Passed::default();
        let rule = &graph.rules[0];
        let result = match gates(graph, rule, ex, &mut passed).await {
            Ok(_) => transforms(graph, &rule.transforms, ex, &mut passed).await,
            Err(answered) => Err(answered),
        };
        (result.err().map(|answered| answered.reply.reason), passed)
    }

    fn graph(kind: Kind, mode: Mode) -> RouteGraph {
        let mut builder = GraphBuilder::new();
        let id = builder.policy("p", &strict(kind).0, mode, &refs()).unwrap();
        let mut rule = rule("a");
        if kind.is_gate() { &mut rule.gates } else { &mut rule.transforms }.push(id);
        builder.rule(rule);
        builder.build()
    }

    #[tokio::test]
    async fn every_policy_in_shadow_mode_answers_nothing_and_changes_nothing_and_is_noted() {
        for kind in Kind::ALL {
            let graph = graph(*kind, Mode::Shadow);
            let mut first = asked();
            ask(&graph, &mut first).await;
            let mut ex = asked();
            let before = format!("{ex:?}");
            let (answer, passed) = ask(&graph, &mut ex).await;
            assert_eq!(answer, None, "{kind:?}");
            assert!(passed.0.is_empty(), "{kind:?} sees the response");
            let shadowed = ex.shadowed.take().unwrap();
            assert_eq!(format!("{ex:?}"), before, "{kind:?}");
            let expected: Vec<_> =
                strict(*kind).1.map(|reason| (*kind, reason)).into_iter().collect();
            assert_eq!(shadowed.answers, expected);
        }
    }

    #[tokio::test]
    async fn every_policy_that_is_enforced_answers_or_passes() {
        for kind in Kind::ALL {
            let graph = graph(*kind, Mode::Enforce);
            let mut first = asked();
            ask(&graph, &mut first).await;
            let mut ex = asked();
            let (answer, passed) = ask(&graph, &mut ex).await;
            assert_eq!((answer, passed.0.len()), (strict(*kind).1, 1), "{kind:?}");
            assert!(ex.shadowed.is_none());
        }
    }
}
