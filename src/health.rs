//! What the control plane tells about itself: counters and gauges for `/metrics`.
//!
//! One value, shared by the reconcile loop, the controller and `admin`. The data plane's own
//! numbers live in `telemetry`; nothing here is touched on the request path.

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

/// One number as the metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Without the prefix of all metrics, and without the `_total` of counters.
    pub name: &'static str,
    pub help: &'static str,
    pub counter: bool,
    pub value: u64,
}

macro_rules! health {
    (@ counter) => { true };
    (@ gauge) => { false };
    ($($(#[doc = $help:literal])* $field:ident: $kind:ident;)*) => {
        /// See the module's documentation. Each field is one metric of the same name.
        #[derive(Debug, Default)]
        pub struct Health { $($(#[doc = $help])* pub $field: Number,)* }

        impl Health {
            /// All numbers of this moment.
            pub fn shown(&self) -> Vec<Shown> {
                vec![$(Shown {
                    name: stringify!($field),
                    help: concat!($($help),*).trim(),
                    counter: health!(@ $kind),
                    value: self.$field.get(),
                },)*]
            }
        }
    };
}

health! {
    /// Unix time of the last publish, in seconds
    config_last_success_timestamp_seconds: gauge;
    /// Passes over all objects
    reconcile_passes: counter;
    /// Passes that failed by a defect; the last good config went on serving
    reconcile_failures: counter;
    /// Microseconds that the last pass took, from snapshot to publish
    reconcile_last_duration_microseconds: gauge;
    /// Objects that are there and cannot be decoded
    undecodable_objects: gauge;
    /// Ports that should be listened on and cannot be
    listeners_failed: gauge;
    /// Tasks of the control plane that died by a defect and were started again
    control_task_restarts: counter;
    /// 1 while this pod holds the Lease
    leader: gauge;
    /// Times that this pod won the Lease
    elections_won: counter;
    /// Calls about the Lease that failed
    lease_errors: counter;
    /// Statuses written
    status_writes: counter;
    /// Statuses that the API server refused to write; a conflict with a newer object is none
    status_write_errors: counter;
    /// Services and EndpointSlices of Gateways written or deleted
    infrastructure_writes: counter;
    /// Services and EndpointSlices that the API server refused; a conflict is none
    infrastructure_write_errors: counter;
    /// Events written
    events_written: counter;
    /// Events that the API server refused
    events_dropped: counter;
    /// Tidegate pods that answer and are ready, this one included
    ready_peers: gauge;
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
                    self.control_task_restarts.add(1);
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
    fn every_number_is_shown_with_its_help_and_kind() {
        let health = Health::default();
        health.reconcile_passes.add(3);
        let shown = health.shown();
        let passes = shown.iter().find(|s| s.name == "reconcile_passes").unwrap();
        assert_eq!((passes.value, passes.counter), (3, true));
        assert!(!shown.iter().find(|s| s.name == "leader").unwrap().counter);
        assert!(shown.iter().all(|s| !s.help.is_empty()));
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
        assert_eq!(health.control_task_restarts.get(), 1);
    }
}
