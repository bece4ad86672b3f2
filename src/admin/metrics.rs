//! The control plane's series: what `health` and `source` have counted.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::health::{Health, Shown};
use crate::source::Handle;

/// To be registered with `telemetry`.
pub struct ControlPlane {
    pub health: Arc<Health>,
    pub source: Handle,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("health", &self.health).finish_non_exhaustive()
    }
}

impl ControlPlane {
    fn shown(&self) -> Vec<Shown> {
        let counts = self.source.stats().counts();
        let counter = |name, help, value| Shown { name, help, counter: true, value };
        let mut shown = self.health.shown();
        shown.extend([
            counter(
                "source_events",
                "Objects that arrived from the cluster or files",
                counts.events,
            ),
            counter("source_watch_errors", "Errors of lists and watches", counts.watch_errors),
            counter("source_watch_restarts", "Watches built anew", counts.watch_restarts),
            counter("source_undecodable", "Objects that could not be decoded", counts.undecodable),
            counter("source_echoes", "Events that were our own status writes", counts.echoes),
            counter("source_panics", "Tasks of the source started again", counts.panics),
            counter(
                "key_set_fetches",
                "Times that issuers were asked for keys",
                counts.key_fetches,
            ),
            counter("key_set_errors", "Fetches that brought no keys", counts.key_errors),
            counter(
                "source_endpoint_updates",
                "Endpoints replaced without a pass",
                counts.endpoint_updates,
            ),
            counter(
                "config_reload_errors",
                "Times that files had problems or a pass failed; the last good config served on",
                counts.reload_errors + self.health.reconcile_failures.get(),
            ),
        ]);
        shown
    }
}

impl Collector for ControlPlane {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Shown { name, help, counter, value } in self.shown() {
            if counter {
                let metric = ConstCounter::new(value);
                let kind = metric.metric_type();
                metric.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
            } else {
                let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
                let kind = metric.metric_type();
                metric.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
            }
        }
        Ok(())
    }
}
