//! What the control plane tells about itself: counters and gauges for `/metrics`.
//!
//! One value, shared by the reconcile loop, the controller and `admin`. The data plane's own
//! numbers live in `telemetry`; nothing here is touched on the request path.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that goes up, or one that is set.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! health {
    ($($(#[doc = $help:literal])* $field:ident: $kind:literal $metric:literal;)*) => {
        /// See the module's documentation. Each field is one metric.
        #[derive(Debug, Default)]
        pub struct Health { $($(#[doc = $help])* pub $field: Number,)* }

        impl Health {
            /// Appends all metrics in the Prometheus text format.
            pub fn render(&self, out: &mut String) {
                $(
                    let help = concat!($($help),*);
                    // Writing to a String cannot fail.
                    let _ = writeln!(out, "# HELP {} {}", $metric, help.trim());
                    let _ = writeln!(out, "# TYPE {} {}", $metric, $kind);
                    let _ = writeln!(out, "{} {}", $metric, self.$field.get());
                )*
            }
        }
    };
}

health! {
    /// Generation of the live config; 0 before the first.
    generation: "gauge" "tidegate_config_generation";
    /// Unix time of the last publish, in seconds.
    published_at: "gauge" "tidegate_config_last_success_timestamp_seconds";
    /// Passes over all objects.
    passes: "counter" "tidegate_reconcile_passes_total";
    /// Passes that failed by a defect; the last good config went on serving.
    failed_passes: "counter" "tidegate_config_reload_errors_total";
    /// Microseconds that the last pass took, snapshot to publish.
    pass_micros: "gauge" "tidegate_reconcile_last_duration_microseconds";
    /// Objects that are there and cannot be decoded.
    undecodable: "gauge" "tidegate_undecodable_objects";
    /// Ports that should be listened on and cannot be.
    failed_ports: "gauge" "tidegate_listeners_failed";
    /// Tasks of the control plane that died by a defect and were started again.
    restarts: "counter" "tidegate_control_task_restarts_total";
    /// 1 while this pod holds the Lease.
    leader: "gauge" "tidegate_leader";
    /// Times that this pod won the Lease.
    elections: "counter" "tidegate_elections_won_total";
    /// Calls about the Lease that failed.
    lease_errors: "counter" "tidegate_lease_errors_total";
    /// Statuses written.
    status_writes: "counter" "tidegate_status_writes_total";
    /// Statuses that the API server refused to write; a conflict with a newer object is none.
    status_errors: "counter" "tidegate_status_write_errors_total";
    /// Services and EndpointSlices of Gateways written or deleted.
    infrastructure_writes: "counter" "tidegate_infrastructure_writes_total";
    /// Services and EndpointSlices that the API server refused; a conflict is none.
    infrastructure_errors: "counter" "tidegate_infrastructure_write_errors_total";
    /// Events written.
    events: "counter" "tidegate_events_written_total";
    /// Events not written, because there were too many or the API server refused them.
    events_dropped: "counter" "tidegate_events_dropped_total";
    /// Tidegate pods that answer and are ready, this one included.
    ready_peers: "gauge" "tidegate_ready_peers";
}

impl Health {
    /// Runs what `task` makes until it returns; a panic is logged and counted, and after a
    /// second the task is made again.
    pub async fn keep_running<F>(&self, name: &str, mut task: impl FnMut() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let running = AbortOnDrop(tokio::spawn(task()));
            match running.join().await {
                Err(e) if e.is_panic() => {
                    self.restarts.add(1);
                    tracing::error!(task = name, "a defect ended a task; starting it again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                _ => return,
            }
        }
    }
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl AbortOnDrop {
    async fn join(mut self) -> Result<(), tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn metrics_have_help_type_and_value() {
        let health = Health::default();
        health.passes.add(3);
        let mut text = String::new();
        health.render(&mut text);
        assert!(text.contains(
            "# HELP tidegate_reconcile_passes_total Passes over all objects.\n\
             # TYPE tidegate_reconcile_passes_total counter\n\
             tidegate_reconcile_passes_total 3\n"
        ));
        let names = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).count();
        assert_eq!(text.lines().count(), 3 * names);
    }

    #[tokio::test]
    async fn a_task_that_panics_is_started_again_and_counted() {
        let health = Arc::new(Health::default());
        let mut first = true;
        health
            .keep_running("test", || {
                let panics = std::mem::take(&mut first);
                async move {
                    assert!(!panics, "the first run dies");
                }
            })
            .await;
        assert_eq!(health.restarts.get(), 1);
    }
}
