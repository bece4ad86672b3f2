//! What is counted for each route: counters that outlive graphs, as endpoints do.
//!
//! A route's counters are interned when the graph is published, so that counting looks nothing
//! up, and they vanish with the route, so that series of routes that are gone do too.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Sets of counters of a route: one for each of the first workers, and the last for all others.
const SHARDS: usize = 8;

/// Upper bounds of the duration buckets in seconds; the last bucket is open.
pub const DURATION_BOUNDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The same in nanoseconds.
const BOUNDS_NS: [u64; DURATION_BOUNDS.len()] = {
    let mut bounds = [0; DURATION_BOUNDS.len()];
    let mut n = 0;
    while n < bounds.len() {
        bounds[n] = (DURATION_BOUNDS[n] * 1e9) as u64;
        n += 1;
    }
    bounds
};

/// Who adds to a set of counters. What one thread alone adds to needs no operation that keeps
/// other cores away from memory: a load and a store will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adders {
    One,
    Many,
}

impl Adders {
    pub fn add(self, counter: &AtomicU64, more: u64) {
        match self {
            Adders::One => counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed),
            Adders::Many => {
                counter.fetch_add(more, Relaxed);
            }
        }
    }
}

/// A histogram with fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; DURATION_BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, value: Duration, adders: Adders) {
        let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.iter().take_while(|bound| **bound < ns).count();
        adders.add(&self.buckets[bucket], 1);
        adders.add(&self.sum_us, ns / 1000);
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
    duration: Histogram,
    upstream: Histogram,
    /// Connections and UDP sessions of a route that carries bytes.
    streams: AtomicU64,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
}

/// What the counters want to know of a finished request.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub status: u16,
    pub duration: Duration,
    /// From the first attempt to the head of the backend's answer.
    pub upstream: Option<Duration>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
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
    /// Counts a request that worker number `worker` served.
    pub fn request(&self, worker: usize, counts: &Counts) {
        let (counters, adders) = self.of_worker(worker);
        let class = usize::from(counts.status / 100).clamp(1, 5) - 1;
        adders.add(&counters.classes[class], 1);
        counters.duration.observe(counts.duration, adders);
        if let Some(upstream) = counts.upstream {
            counters.upstream.observe(upstream, adders);
        }
        adders.add(&counters.bytes_received, counts.bytes_received);
        adders.add(&counters.bytes_sent, counts.bytes_sent);
    }

    /// Counts a stream that worker number `worker` carried.
    pub fn stream(&self, worker: usize, received: u64, sent: u64) {
        let (counters, adders) = self.of_worker(worker);
        adders.add(&counters.streams, 1);
        adders.add(&counters.bytes_received, received);
        adders.add(&counters.bytes_sent, sent);
    }

    fn of_worker(&self, worker: usize) -> (&RouteCounters, Adders) {
        let last = SHARDS - 1;
        let adders = if worker < last { Adders::One } else { Adders::Many };
        (self.shards[worker.min(last)].get_or_init(Box::default), adders)
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
        histogram.observe(Duration::from_millis(1), Adders::One);
        histogram.observe(Duration::from_micros(1001), Adders::Many);
        histogram.observe(Duration::from_secs(60), Adders::One);
        let mut total = HistogramTotal::default();
        histogram.add_to(&mut total);
        assert_eq!((total.buckets[0], total.buckets[1], total.buckets[13]), (1, 1, 1));
        assert!((total.sum_seconds - 60.002001).abs() < 1e-9);
    }

    #[test]
    fn the_total_adds_up_the_workers() {
        let stats = RouteStats::default();
        let counts = |status| Counts {
            status,
            duration: Duration::from_millis(2),
            upstream: None,
            bytes_received: 1,
            bytes_sent: 2,
        };
        for worker in 0..100 {
            stats.request(worker, &counts(200));
        }
        stats.request(1, &counts(503));
        let mut total = RouteTotal::default();
        stats.add_to(&mut total);
        assert_eq!(total.classes, [0, 100, 0, 0, 1]);
        assert_eq!((total.duration.buckets[1], total.bytes_sent), (101, 202));
    }

    #[test]
    fn workers_that_share_a_set_lose_nothing() {
        let stats = RouteStats::default();
        std::thread::scope(|scope| {
            for worker in [SHARDS - 1, SHARDS, SHARDS + 100] {
                let stats = &stats;
                scope.spawn(move || (0..10_000).for_each(|_| stats.stream(worker, 1, 0)));
            }
        });
        let mut total = RouteTotal::default();
        stats.add_to(&mut total);
        assert_eq!((total.streams, total.bytes_received), (30_000, 30_000));
    }
}
