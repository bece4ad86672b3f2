//! The Lease: the right to write, held by one replica at a time.
//!
//! The rules are those of `coordination.k8s.io`: every write carries the resourceVersion that
//! was read, so that of two candidates one loses; expiry is measured on our own clock from when
//! we saw the record change, so that clocks need not agree; and a holder stops writing
//! [`Times::deadline`] after it began its last successful renewal, before anybody else may take
//! the Lease. Without the API server nobody leads, and the process goes on serving.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::health::Health;
use crate::lifecycle::{Lifecycle, Phase};

/// How the Lease is kept. `deadline` must be shorter than `duration`.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long others wait for a holder that went silent; whole seconds. Short, because
    /// nothing but writing depends on it: 6 s.
    pub duration: Duration,
    /// A holder writes no longer than this after it began its last successful renewal: 4 s.
    pub deadline: Duration,
    /// Between two renewals: 1 s.
    pub retry: Duration,
    /// Between two looks of a candidate: 500 ms, so that a Lease that was given back is taken
    /// within the second.
    pub poll: Duration,
    /// One call to the API server, at most: 2 s.
    pub call: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            duration: Duration::from_secs(6),
            deadline: Duration::from_secs(4),
            retry: Duration::from_secs(1),
            poll: Duration::from_millis(500),
            call: Duration::from_secs(2),
        }
    }
}

/// Longest duration of a foreign record that is believed.
const LONGEST: Duration = Duration::from_secs(60);

/// Whether this process holds the Lease, and until when it may write.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: watch::Receiver<Option<Instant>>,
}

impl Leadership {
    /// Until when writing is allowed; None: not now.
    pub fn deadline(&self) -> Option<Instant> {
        self.until.borrow().filter(|until| Instant::now() < *until)
    }

    pub fn holds(&self) -> bool {
        self.deadline().is_some()
    }

    /// Returns while the Lease is held; never, if it cannot be held any more.
    pub async fn held(&mut self) {
        loop {
            self.until.mark_unchanged();
            if self.holds() {
                return;
            }
            if self.until.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Identities of processes that are known to be gone: their Lease need not run out.
pub type Gone = watch::Receiver<Arc<BTreeSet<String>>>;

/// Stands for election until the process leaves.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    times: Times,
    lifecycle: Lifecycle,
    health: Arc<Health>,
    gone: Gone,
    until: watch::Sender<Option<Instant>>,
    /// The Lease as we wrote it last, to renew it without reading.
    own: Option<Lease>,
    /// The version of the Lease that was seen last, and when it was seen first.
    seen: Option<(String, Instant)>,
    failing: bool,
}

#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the API server did not answer in time")]
    Timeout,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl Candidate {
    /// `identity` must be new for each process, even in the same pod.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        name: &str,
        identity: &str,
        lifecycle: Lifecycle,
        health: Arc<Health>,
        gone: Gone,
    ) -> Self {
        Candidate {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            times: Times::default(),
            lifecycle,
            health,
            gone,
            until: watch::Sender::new(None),
            own: None,
            seen: None,
            failing: false,
        }
    }

    pub fn with_times(mut self, times: Times) -> Self {
        self.times = times;
        self
    }

    pub fn leadership(&self) -> Leadership {
        Leadership { until: self.until.subscribe() }
    }

    /// Returns when the process leaves and the Lease has been given back.
    pub async fn run(mut self) {
        let lifecycle = self.lifecycle.clone();
        let leaving = lifecycle.reached(Phase::Leaving);
        tokio::pin!(leaving);
        loop {
            // A write that is cut off here may still happen: `release` reads again.
            let pause = tokio::select! {
                biased;
                () = &mut leaving => break,
                pause = self.stand() => pause,
            };
            tokio::select! {
                biased;
                () = &mut leaving => break,
                Ok(()) = self.gone.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.release().await;
    }

    /// One attempt to win or to renew. Returns how long to wait before the next.
    async fn stand(&mut self) -> Duration {
        // The deadline counts from before the renewal was sent: others count from later.
        let began = Instant::now();
        let outcome = match timeout(self.times.call, self.attempt()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Lost::Timeout),
        };
        match outcome {
            Ok(true) => {
                self.set(Some(began + self.times.deadline));
                self.failing = false;
                self.times.retry
            }
            Ok(false) => {
                self.set(None);
                self.failing = false;
                self.times.poll
            }
            Err(error) => {
                self.own = None;
                self.health.lease_errors.add(1);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(lease = self.name, %error, "cannot reach the Lease; trying on");
                }
                self.expire();
                self.times.retry
            }
        }
    }

    /// Whether the Lease is ours now.
    async fn attempt(&mut self) -> Result<bool, Lost> {
        if let Some(own) = self.own.take()
            && self.write(own, &self.identity.clone()).await?
        {
            return Ok(true);
        }
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            return self.create().await;
        };
        let elapsed = self.notice(&lease);
        let gone = self.gone.borrow_and_update().clone();
        match verdict(&lease, &self.identity, elapsed, &gone) {
            Verdict::Wait => Ok(false),
            Verdict::Take => self.write(lease, &self.identity.clone()).await,
        }
    }

    /// For how long the record has not changed, by our own clock.
    fn notice(&mut self, lease: &Lease) -> Duration {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed(),
            _ => {
                self.seen = Some((version, Instant::now()));
                Duration::ZERO
            }
        }
    }

    async fn create(&mut self) -> Result<bool, Lost> {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: Some(self.record(None, &self.identity)),
        };
        match self.api.create(&PostParams::default(), &lease).await {
            Ok(lease) => {
                self.own = Some(lease);
                Ok(true)
            }
            Err(error) if conflict(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes `holder` at the version that `lease` was read at; false: somebody was faster.
    async fn write(&mut self, mut lease: Lease, holder: &str) -> Result<bool, Lost> {
        lease.spec = Some(self.record(lease.spec.take(), holder));
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(lease) => {
                self.own = Some(lease);
                Ok(true)
            }
            Err(error) if conflict(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn record(&self, old: Option<LeaseSpec>, holder: &str) -> LeaseSpec {
        let old = old.unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        let stays = old.holder_identity.as_deref() == Some(holder);
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(self.times.duration.as_secs().max(1)).ok(),
            acquire_time: old.acquire_time.filter(|_| stays).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(
                old.lease_transitions.unwrap_or(0).saturating_add(i32::from(!stays)),
            ),
            ..old
        }
    }

    /// Gives the Lease back, if it is ours. Bounded in time: whoever is left waits otherwise.
    async fn release(&mut self) {
        let led = self.until.borrow().is_some();
        self.set(None);
        if !led && self.own.is_none() && !self.failing {
            return;
        }
        let call = self.times.call;
        let giving_back = async {
            for _ in 0..3 {
                let Some(lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
                let spec = lease.spec.as_ref();
                if spec.and_then(|s| s.holder_identity.as_deref()) != Some(&self.identity) {
                    return Ok(());
                }
                if self.write(lease, "").await? {
                    break;
                }
            }
            Ok::<_, Lost>(())
        };
        match timeout(call, giving_back).await {
            Ok(Ok(())) => tracing::info!("the Lease is given back"),
            Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be given back"),
            Err(_) => tracing::warn!("the Lease could not be given back in time"),
        }
    }

    fn set(&self, until: Option<Instant>) {
        let led = self.until.borrow().is_some();
        match (led, until.is_some()) {
            (false, true) => {
                self.health.elections_won.add(1);
                tracing::info!(identity = self.identity, "leading: this pod writes now");
            }
            (true, false) => tracing::info!(identity = self.identity, "not leading any more"),
            _ => {}
        }
        self.health.leader.set(u64::from(until.is_some()));
        self.until.send_replace(until);
    }

    /// Ends a leadership whose deadline has passed.
    fn expire(&self) {
        let over = self.until.borrow().is_some_and(|until| until <= Instant::now());
        if over {
            self.set(None);
        }
    }
}

/// 409: the object is there already, or is not at that version any more.
fn conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Take,
    Wait,
}

/// May `me` write itself into this record, which has not changed for `elapsed`?
fn verdict(lease: &Lease, me: &str, elapsed: Duration, gone: &BTreeSet<String>) -> Verdict {
    let Some(spec) = &lease.spec else { return Verdict::Take };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder.is_empty() || holder == me || gone.contains(holder) {
        return Verdict::Take;
    }
    let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
    let duration = Duration::from_secs(seconds).min(LONGEST);
    if elapsed > duration { Verdict::Take } else { Verdict::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, seconds: i32) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(seconds),
                // Far in the past: another clock's time must not matter.
                renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    fn decide(holder: &str, elapsed: u64, gone: &[&str]) -> Verdict {
        let gone = gone.iter().map(|g| (*g).to_owned()).collect();
        verdict(&lease(holder, 6), "me", Duration::from_secs(elapsed), &gone)
    }

    #[test]
    fn expiry_counts_from_what_we_saw_and_not_from_the_record() {
        assert_eq!(decide("other", 0, &[]), Verdict::Wait);
        assert_eq!(decide("other", 6, &[]), Verdict::Wait);
        assert_eq!(decide("other", 7, &[]), Verdict::Take);
    }

    #[test]
    fn a_lease_given_back_is_free_at_once() {
        assert_eq!(decide("", 0, &[]), Verdict::Take);
    }

    #[test]
    fn the_lease_of_a_process_that_is_gone_is_free_at_once() {
        assert_eq!(decide("other", 0, &["other"]), Verdict::Take);
        assert_eq!(decide("other", 0, &["third"]), Verdict::Wait);
    }

    #[test]
    fn an_absurd_duration_does_not_lock_the_lease_for_good() {
        let lease = lease("other", i32::MAX);
        let elapsed = LONGEST + Duration::from_secs(1);
        assert_eq!(verdict(&lease, "me", elapsed, &BTreeSet::new()), Verdict::Take);
    }

    #[test]
    fn a_holder_stops_before_others_may_begin() {
        let times = Times::default();
        assert!(times.deadline + times.call <= times.duration);
    }
}
