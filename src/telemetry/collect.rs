//! The scrape: adds up what workers and routes have counted and encodes it.
//!
//! Label sets are bounded: reasons, policies and protocols by their enums, status codes by
//! what occurred below 600, routes by what the live graph holds and by [`MAX_ROUTES`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::graph::stats::{DURATION_BOUNDS, HistogramTotal, RouteTotal};
use crate::graph::{RouteGraph, Shared};
use crate::policy::Kind;
use crate::policy::external_auth;
use crate::policy::rate_limit::{Limits, Outcome};
use crate::reason::Reason;

use super::consumers::{Admitted, CLASSES};
use super::counters::WorkerCounters;
use super::{StreamKind, identity, store};

/// Routes beyond this number are counted together under `name="_other"`.
const MAX_ROUTES: usize = 2_000;

/// See the module's documentation.
#[derive(Debug)]
pub struct DataPlane {
    pub shared: Arc<Shared>,
    pub workers: Arc<Mutex<Vec<Arc<WorkerCounters>>>>,
    /// Which Consumers have series of their own.
    pub consumers: Arc<Admitted>,
    /// Access-log lines that found the queue full.
    pub lost_lines: Option<Arc<AtomicU64>>,
}

impl Collector for DataPlane {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let graph = self.shared.load();
        let mut out = Encoder(encoder);
        out.workers(&workers)?;
        out.routes(&totals(&graph))?;
        out.limits(&limits(&graph))?;
        store::encode(&mut out)?;
        identity::encode(&mut out, &self.consumers, workers.iter().map(|w| &w.consumers))?;
        out.gauge("config_generation", "Number of the live route graph", graph.generation)?;
        if let Some(lost) = &self.lost_lines {
            let help = "Log lines dropped because the writer was behind";
            out.counter("access_log_lost", help, lost.load(Relaxed))?;
        }
        Ok(())
    }
}

/// Limits beyond this number are counted together under `limit="_other"`.
const MAX_LIMITS: usize = 2_000;

/// In the order of [`Outcome::ALL`].
type LimitTotal = [u64; Outcome::ALL.len()];

type RouteLabels = [(&'static str, String); 3];

/// The totals of each route of the graph, bounded.
fn totals(graph: &RouteGraph) -> BTreeMap<RouteLabels, RouteTotal> {
    let mut seen = BTreeMap::new();
    for rule in &graph.rules {
        let name = &rule.name;
        seen.entry((name.kind, &*name.namespace, &*name.name)).or_insert(&rule.stats);
    }
    let mut totals = BTreeMap::new();
    for (n, ((kind, namespace, name), stats)) in seen.into_iter().enumerate() {
        let (namespace, name) = if n < MAX_ROUTES { (namespace, name) } else { ("", "_other") };
        let labels = [
            ("kind", kind.to_owned()),
            ("namespace", namespace.to_owned()),
            ("name", name.to_owned()),
        ];
        stats.add_to(totals.entry(labels).or_default());
    }
    totals
}

/// What the limits of the graph made of requests, bounded.
fn limits(graph: &RouteGraph) -> BTreeMap<String, LimitTotal> {
    let mut seen = BTreeMap::<String, LimitTotal>::new();
    let policies = graph.policies.iter().filter_map(|installed| installed.policy.limits());
    for (name, totals) in policies.flat_map(Limits::totals) {
        let known = seen.contains_key(&name) || seen.len() < MAX_LIMITS;
        let name = if known { name } else { "_other".to_owned() };
        seen.entry(name).or_default().iter_mut().zip(totals).for_each(|(sum, n)| *sum += n);
    }
    seen
}

fn encode_total(mut metric: MetricEncoder<'_>, total: &HistogramTotal) -> std::fmt::Result {
    let bounds = DURATION_BOUNDS.into_iter().chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(total.buckets).collect();
    let count = total.buckets.iter().sum();
    metric.encode_histogram::<NoLabelSet>(total.sum_seconds, count, &buckets, None)
}

/// Writes metrics one by one.
pub(super) struct Encoder<'a>(pub(super) DescriptorEncoder<'a>);

impl Encoder<'_> {
    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> std::fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> std::fmt::Result {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn histogram(&mut self, name: &str, help: &str, total: &HistogramTotal) -> std::fmt::Result {
        let unit = Unit::Seconds;
        let metric = self.0.encode_descriptor(name, help, Some(&unit), MetricType::Histogram)?;
        encode_total(metric, total)
    }

    fn histograms<'h, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, &'h HistogramTotal)>,
    ) -> std::fmt::Result {
        let unit = Unit::Seconds;
        let mut metric =
            self.0.encode_descriptor(name, help, Some(&unit), MetricType::Histogram)?;
        for (labels, total) in values {
            encode_total(metric.encode_family(&labels)?, total)?;
        }
        Ok(())
    }

    fn workers(&mut self, workers: &[Arc<WorkerCounters>]) -> std::fmt::Result {
        let sum = |field: fn(&WorkerCounters) -> &AtomicU64| -> u64 {
            workers.iter().map(|w| field(w).load(Relaxed)).sum()
        };
        let mut statuses = BTreeMap::new();
        for (status, n) in workers.iter().flat_map(|w| w.statuses()) {
            *statuses.entry(status).or_insert(0) += n;
        }
        let statuses = statuses.into_iter().map(|(s, n)| ([("code", s.to_string())], n));
        self.counters("responses", "Answers to clients by status code", statuses)?;

        let reasons = Reason::ALL.iter().map(|r| {
            let n: u64 = workers.iter().map(|w| w.reasons[*r as usize].load(Relaxed)).sum();
            ([("reason", r.as_str())], n)
        });
        let help = "Requests and streams that Tidegate ended itself or that failed, by cause";
        self.counters("own_answers", help, reasons.filter(|(_, n)| *n > 0))?;

        let protocols = ["HTTP/1.0", "HTTP/1.1", "HTTP/2"].iter().enumerate().map(|(i, name)| {
            let n: u64 = workers.iter().map(|w| w.protocols[i].load(Relaxed)).sum();
            ([("protocol", *name)], n)
        });
        self.counters("requests", "Requests by protocol", protocols)?;

        let policies = Kind::ALL.iter().map(|k| {
            let n: u64 = workers.iter().map(|w| w.policy_answers[*k as usize].load(Relaxed)).sum();
            ([("policy", k.as_str())], n)
        });
        let help = "Requests that a policy answered instead of the backend";
        self.counters("policy_answers", help, policies)?;

        let pairs =
            Kind::ALL.iter().flat_map(|kind| Reason::ALL.iter().map(move |reason| (kind, reason)));
        let would = pairs.map(|(kind, reason)| {
            let n = workers.iter().map(|w| w.would_answer(*kind, *reason).load(Relaxed)).sum();
            ([("policy", kind.as_str()), ("reason", reason.as_str())], n)
        });
        let help = "Requests that a policy in Shadow mode would have answered, by cause";
        self.counters("policy_would_answer", help, would.filter(|(_, n): &(_, u64)| *n > 0))?;
        let asked =
            external_auth::Outcome::ALL.map(|what| ([("result", what.as_str())], what.total()));
        let help = "Requests that an external authorization service was to decide on";
        self.counters("external_auth", help, asked)?;

        self.streams(workers)?;

        let mut duration = HistogramTotal::default();
        let mut connect = HistogramTotal::default();
        for worker in workers {
            worker.duration.add_to(&mut duration);
            worker.connect_time.add_to(&mut connect);
        }
        let help = "From the head of a request to the last byte of its answer";
        self.histogram("request_duration", help, &duration)?;
        let help = "Time to a new connection to a backend, TLS included";
        self.histogram("upstream_connect", help, &connect)?;

        let opened = sum(|w| &w.connections_opened);
        let closed = sum(|w| &w.connections_closed);
        self.gauge("connections", "Open client connections", opened.saturating_sub(closed))?;
        let totals = [
            ("connections_accepted", "Client connections accepted", opened),
            (
                "handshakes_failed",
                "TLS handshakes that failed or timed out",
                sum(|w| &w.handshakes_failed),
            ),
            (
                "upstream_connections",
                "Connections made to backends",
                sum(|w| &w.upstream_connected),
            ),
            (
                "upstream_connect_failures",
                "Connections to backends that failed",
                sum(|w| &w.upstream_connect_failed),
            ),
            ("upstream_retries", "Requests sent again", sum(|w| &w.upstream_retries)),
            (
                "received_bytes",
                "Bytes of request bodies and of streams from clients",
                sum(|w| &w.bytes_received),
            ),
            (
                "sent_bytes",
                "Bytes of response bodies and of streams to clients",
                sum(|w| &w.bytes_sent),
            ),
        ];
        for (name, help, value) in totals {
            self.counter(name, help, value)?;
        }
        Ok(())
    }

    fn streams(&mut self, workers: &[Arc<WorkerCounters>]) -> std::fmt::Result {
        let sum = |field: &dyn Fn(&WorkerCounters) -> &AtomicU64| -> u64 {
            workers.iter().map(|w| field(w).load(Relaxed)).sum()
        };
        let kinds = StreamKind::ALL
            .map(|kind| ([("protocol", kind.as_str())], sum(&|w| &w.streams[kind as usize])));
        self.counters("streams", "Finished TCP and TLS streams and UDP sessions", kinds)?;
        let opened = sum(&|w| &w.sessions_opened);
        let open = opened.saturating_sub(sum(&|w| &w.sessions_closed));
        self.gauge("udp_sessions", "Open UDP sessions", open)?;
        let dropped = Reason::ALL
            .iter()
            .map(|r| ([("reason", r.as_str())], sum(&|w| &w.datagrams_dropped[*r as usize])));
        let help = "UDP datagrams that were not passed on, by cause";
        self.counters("udp_datagrams_dropped", help, dropped.filter(|(_, n)| *n > 0))
    }

    fn limits(&mut self, limits: &BTreeMap<String, LimitTotal>) -> std::fmt::Result {
        let series = limits.iter().flat_map(|(name, totals)| {
            let outcomes = Outcome::ALL.iter().zip(totals).filter(|(_, n)| **n > 0);
            outcomes.map(move |(outcome, n)| {
                ([("limit", name.as_str()), ("result", outcome.as_str())], *n)
            })
        });
        let help = "Requests that a limit let through or not, by NAMESPACE/NAME/LIMIT";
        self.counters("ratelimit_requests", help, series)
    }

    fn routes(&mut self, routes: &BTreeMap<RouteLabels, RouteTotal>) -> std::fmt::Result {
        let classes = routes.iter().flat_map(|(labels, total)| {
            let [kind, namespace, name] = labels;
            CLASSES.iter().zip(total.classes).filter(|(_, n)| *n > 0).map(move |(class, n)| {
                let labels = vec![
                    (kind.0, kind.1.as_str()),
                    (namespace.0, namespace.1.as_str()),
                    (name.0, name.1.as_str()),
                    ("class", *class),
                ];
                (labels, n)
            })
        });
        self.counters("route_requests", "Requests by route and class of status", classes)?;
        let used: Vec<_> =
            routes.iter().filter(|(_, t)| t.classes.iter().any(|n| *n > 0)).collect();
        self.histograms(
            "route_request_duration",
            "From the head of a request to the last byte of its answer, by route",
            used.iter().map(|(labels, t)| (labels.as_slice(), &t.duration)),
        )?;
        self.histograms(
            "route_upstream_duration",
            "From the first attempt to the head of the backend's answer, by route",
            used.iter().map(|(labels, t)| (labels.as_slice(), &t.upstream)),
        )?;
        let streams: Vec<_> = routes.iter().filter(|(_, t)| t.streams > 0).collect();
        let counts = streams.iter().map(|(labels, t)| (labels.as_slice(), t.streams));
        self.counters("route_streams", "Finished streams and UDP sessions by route", counts)?;
        let used = || used.iter().chain(&streams);
        let received = used().map(|(labels, t)| (labels.as_slice(), t.bytes_received));
        self.counters(
            "route_received_bytes",
            "Bytes of request bodies and of streams from clients, by route",
            received,
        )?;
        let sent = used().map(|(labels, t)| (labels.as_slice(), t.bytes_sent));
        self.counters(
            "route_sent_bytes",
            "Bytes of response bodies and of streams to clients, by route",
            sent,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    #[test]
    fn series_without_labels_and_with_them_are_rendered() {
        let telemetry = Telemetry::new(Arc::default(), None);
        let worker = telemetry.worker();
        worker.connection_opened(80);
        worker.policy_answered(Kind::RateLimit, Reason::RateLimited);
        worker.policy_would_answer(Kind::IpAccess, Reason::IpDenied);
        let text = telemetry.render();
        for line in [
            "tidegate_connections 1",
            "tidegate_connections_accepted_total 1",
            "tidegate_policy_answers_total{policy=\"rate_limit\"} 1",
            "tidegate_policy_would_answer_total{policy=\"ip_access\",reason=\"IpDenied\"} 1",
            "tidegate_request_duration_seconds_count 0",
            "tidegate_config_generation 0",
            "tidegate_ratelimit_store_healed_keys_total 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
