//! What is told of the stores in which limits are counted together.

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::collect::Encoder;
use crate::services::store::redis::{STORE_BOUNDS, StoreTotals, totals};

/// Adds the totals of all stores of the process.
pub fn encode(out: &mut Encoder<'_>) -> std::fmt::Result {
    let StoreTotals { errors, healed, buckets, sum_seconds } = totals();
    let errors = errors.into_iter().map(|(kind, n)| ([("kind", kind)], n));
    let help = "Requests that the store of a rate limit gave no answer to, by kind";
    out.counters("ratelimit_store_errors", help, errors)?;
    let help = "Keys of a wrong kind that were in the way of counters, and were deleted";
    out.counter("ratelimit_store_healed_keys", help, healed)?;
    let bounds = STORE_BOUNDS.into_iter().chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(buckets).collect();
    let count = buckets.iter().map(|(_, n)| n).sum();
    let help =
        "From a question to the store of a rate limit to its answer, or until it was given up";
    let name = "ratelimit_store_duration";
    let (unit, kind) = (Unit::Seconds, MetricType::Histogram);
    out.0.encode_descriptor(name, help, Some(&unit), kind)?.encode_histogram::<NoLabelSet>(
        sum_seconds,
        count,
        &buckets,
        None,
    )
}
