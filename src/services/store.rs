//! Counting together: what a limit asks of a store that several Tidegate pods share.
//!
//! A store decides all checks of a request at once: either every one has room and all are
//! charged, or none is. Which requests are checked for what is the policy's to say.

pub mod counting;
pub mod redis;

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;

/// How requests are counted. Times are milliseconds of the store's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `burst` tokens at most, refilled evenly with `limit` in each window.
    TokenBucket,
    /// The same arithmetic. It is the burst that tells them apart: where it is 1, requests are
    /// evenly spaced, and what comes early is refused.
    LeakyBucket,
    /// `limit` in each window; windows begin at multiples of their length since the epoch.
    FixedWindow,
    /// `limit` in the window that ends now, with the share of the previous fixed window that
    /// reaches into it: an estimate that takes two counters.
    SlidingWindow,
    /// `limit` in the window that ends now, exactly: remembers every request that was let through.
    SlidingLog,
}

/// One limit that a request must have room in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is counted together; bounded by whoever makes it, and without secrets.
    pub key: Box<[u8]>,
    /// What lies together in a Cluster: checks of one tag are decided by one node, at once.
    pub tag: Arc<str>,
    pub algorithm: Algorithm,
    /// Cost that is let through in each window, at least 1.
    pub limit: u64,
    /// Cost that may come at once, for the buckets.
    pub burst: u64,
    /// Length of a window in milliseconds, at least 1000.
    pub window_ms: u64,
    /// What this request costs; 0 only looks. More than fits in at once is never admitted.
    pub cost: u64,
}

/// What a store says to one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// There was room. Charged only if there was room in all checks of the request.
    pub admitted: bool,
    /// Cost that there is still room for now.
    pub remaining: u64,
    /// Milliseconds until all of the limit is there again.
    pub reset_ms: u64,
    /// Milliseconds until the same request would be admitted; 0 if it was.
    pub retry_after_ms: u64,
}

/// Where several pods count.
pub trait Store: Debug + Send + Sync {
    /// Decides all `checks` of a request at once, bounded in time. The verdicts are in the order
    /// of the checks, one for each.
    ///
    /// # Errors
    /// There is no answer: nothing is known of whether they were charged.
    fn decide<'a>(
        &'a self,
        checks: &'a [Check],
    ) -> LocalBoxFuture<'a, Result<Vec<Verdict>, StoreError>>;
}

/// Why a store gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or it says that it cannot serve now.
    #[error("the store is down")]
    Down,
    /// It did not answer in time.
    #[error("the store did not answer in time")]
    Timeout,
    /// It was not asked, because it has not answered others lately.
    #[error("the store is not asked until it answers again")]
    Open,
    /// Its answer is not one that could be understood.
    #[error("the store answered something else")]
    Protocol,
}
