//! The rules of TLSRoutes, TCPRoutes and UDPRoutes: one, which is nothing but its backends.

use super::ObjectKind;
use super::draft::{Compiled, Draft, Reference, Weighted};
use super::status::Problem;
use crate::api::gateway::StreamRouteRule;

/// Reads the rules. A connection that a backend cannot be found for is closed, for the share of
/// that backend; so is every one of a rule without backends.
pub(super) fn rules(kind: ObjectKind, rules: &[StreamRouteRule]) -> Compiled<'_> {
    let drafts = rules.iter().enumerate().map(|(index, rule)| {
        let at = format!("spec.rules[{index}]");
        let targets = rule.backend_refs.iter().enumerate().map(|(i, backend)| Weighted {
            weight: Weighted::weight(backend.weight),
            reference: Reference { field: format!("{at}.backendRefs[{i}]"), to: &backend.target },
            transforms: Vec::new(),
            closed: None,
        });
        let mut draft = Draft {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            name: rule.name.as_deref(),
            targets: targets.collect(),
            ..Draft::default()
        };
        if index > 0 {
            let message = format!(
                "a {} has one rule, because nothing tells its connections apart; make a route of \
                 each",
                kind.kind()
            );
            draft.refuse(Problem::new("UnsupportedValue", at, message));
        }
        draft
    });
    Compiled { rules: drafts.collect(), ..Compiled::default() }
}
