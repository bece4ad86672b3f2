//! What is counted for each route: counters that outlive graphs, as endpoints do.
//!
//! A route's counters are interned when the graph is published, so that counting looks nothing
//! up, and they vanish with the route, so that series of routes that are gone do too.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Workers share this many sets of counters: few enough to be small, enough to stay apart.
const SHARDS: usize = 4;

/// Upper bounds of the duration buckets in seconds; the last bucket is open.
pub const DURATION_BOUNDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A histogram with fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; DURATION_BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, value: Duration) {
        let seconds = value.as_secs_f64();
        let bucket = DURATION_BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(u64::try_from(value.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Adds what was observed to `total`.
    pub fn add_to(&self, total: &mut HistogramTotal) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Relaxed);
        }
        total.sum_seconds += self.sum_us.load(Relaxed) as f64 / 1e6;
    }
}

/// The sum of several histograms at one moment.
#[derive(Clone, Debug, Default)]
pub struct HistogramTotal {
    /// Not cumulative; the last one is everything above the last bound.
    pub buckets: [u64; DURATION_BOUNDS.len() + 1],
    pub sum_seconds: f64,
}

/// The counters of one route, all workers together.
#[derive(Debug, Default)]
pub struct RouteStats {
    /// Allocated at a worker's first request: a route without traffic costs a few words.
    shards: [OnceLock<Box<RouteCounters>>; SHARDS],
}

/// One worker's share of a route's counters.
#[derive(Debug, Default)]
pub struct RouteCounters {
    /// By the first digit of the status code: 1xx to 5xx.
    classes: [AtomicU64; 5],
    pub duration: Histogram,
    pub upstream: Histogram,
    /// Connections and UDP sessions of a route that carries bytes.
    pub streams: AtomicU64,
    pub bytes_received: AtomicU64,
    pub bytes_sent: AtomicU64,
}

impl RouteCounters {
    pub fn count_status(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.classes[class].fetch_add(1, Relaxed);
    }
}

/// A route's counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct RouteTotal {
    pub classes: [u64; 5],
    pub duration: HistogramTotal,
    pub upstream: HistogramTotal,
    pub streams: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

impl RouteStats {
    /// The counters that worker number `worker` adds to.
    pub fn of_worker(&self, worker: usize) -> &RouteCounters {
        self.shards[worker % SHARDS].get_or_init(Box::default)
    }

    /// Adds everything counted so far to `total`.
    pub fn add_to(&self, total: &mut RouteTotal) {
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            for (sum, class) in total.classes.iter_mut().zip(&shard.classes) {
                *sum += class.load(Relaxed);
            }
            shard.duration.add_to(&mut total.duration);
            shard.upstream.add_to(&mut total.upstream);
            total.streams += shard.streams.load(Relaxed);
            total.bytes_received += shard.bytes_received.load(Relaxed);
            total.bytes_sent += shard.bytes_sent.load(Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_falls_into_that_bucket() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_micros(1001));
        histogram.observe(Duration::from_secs(60));
        let mut total = HistogramTotal::default();
        histogram.add_to(&mut total);
        assert_eq!((total.buckets[0], total.buckets[1], total.buckets[13]), (1, 1, 1));
        assert!((total.sum_seconds - 60.002001).abs() < 1e-9);
    }

    #[test]
    fn the_total_adds_up_the_workers() {
        let stats = RouteStats::default();
        for worker in 0..6 {
            stats.of_worker(worker).count_status(200);
        }
        stats.of_worker(1).count_status(503);
        let mut total = RouteTotal::default();
        stats.add_to(&mut total);
        assert_eq!(total.classes, [0, 6, 0, 0, 1]);
    }
}
