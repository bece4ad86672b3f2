//! What is told of who asked and of what they may: what authentication found out, decisions of
//! authorization, and requests by Consumer.

use super::collect::Encoder;
use super::consumers::{Admitted, CLASSES, ConsumerCounters};
use crate::policy::authentication::counters;
use crate::policy::authorization::Decision;

/// Adds the decisions of the process, and what the workers counted by Consumer.
pub fn encode<'c>(
    out: &mut Encoder<'_>,
    admitted: &Admitted,
    workers: impl Iterator<Item = &'c ConsumerCounters>,
) -> std::fmt::Result {
    let methods =
        counters::all().map(|(method, result, n)| ([("method", method), ("result", result)], n));
    let help = "What methods of authentication policies made of requests";
    out.counters("auth_requests", help, methods)?;
    let refusals = counters::refusals().map(|(cause, n)| ([("cause", cause)], n));
    out.counters("auth_jwt_refused", "Why tokens were refused", refusals)?;
    let decisions = Decision::ALL.map(|d| ([("result", d.as_str())], d.total()));
    out.counters("authorization", "Decisions of authorization policies", decisions)?;
    let totals = admitted.totals(workers);
    let series = totals.iter().flat_map(|(consumer, totals)| {
        let classes = CLASSES.into_iter().zip(*totals).filter(|(_, n)| *n > 0);
        classes.map(|(class, n)| ([("consumer", consumer.as_str()), ("class", class)], n))
    });
    out.counters("consumer_requests", "Requests by Consumer and class of status", series)
}
