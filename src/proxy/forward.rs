//! From a permitted request to the head of a backend's answer.
//!
//! One attempt after another is made here; whether there is another one is decided in
//! [`super::retry`].

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Method, Response, StatusCode};

use super::balance::{InFlight, Tried, avoid, pick};
use super::clock;
use super::discard::discard;
use super::grpc;
use super::hop_by_hop;
use super::http1::Interim;
use super::http1::client::SendError;
use super::incoming::Incoming;
use super::journey::Journey;
use super::outgoing::Outgoing;
use super::permit::Permitted;
use super::pool::{Link, Sending, Want};
use super::replay::Source;
use super::request_body::{Gate, Upload};
use super::retry::{Failure, Next, Tries};
use super::timer;
use super::worker::Worker;
use crate::graph::{Backend, Endpoint, Retry};
use crate::reason::Reason;

/// Interim answers (1xx) of one exchange that its client is told.
const MOST_TOLD: u32 = 10;

/// One request on its way to one backend.
#[derive(Debug)]
pub struct Forward<'a> {
    pub worker: &'a Worker,
    pub backend: &'a Backend,
    pub outgoing: Outgoing<'a>,
    pub upload: &'a Rc<Upload>,
    /// Opened when the backend says 100 (Continue).
    pub gate: Option<Arc<Gate>>,
    /// Where other interim answers (1xx) go, and how many went there.
    pub interim: Option<Interim>,
    pub told: Cell<u32>,
    pub method: &'a Method,
    pub timeouts: Waits,
    pub retry: Option<&'a Retry>,
    /// The endpoint that the client's session is with, if there still is one.
    pub stay: Option<std::net::SocketAddr>,
}

/// How long to wait for the head of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// From the end of the request, for each attempt.
    pub backend: Option<Duration>,
    /// The rule says so: an attempt that takes longer is a failed one.
    pub is_given: bool,
    /// For the whole exchange, in [`clock::ms`].
    pub deadline: Option<u64>,
}

/// The head of an answer, and what its body needs.
#[derive(Debug)]
pub struct Answer {
    pub response: Response<Incoming>,
    pub link: Link,
    pub in_flight: InFlight,
}

/// What became of an attempt.
type Attempt = Result<Answer, Failed>;

#[derive(Clone, Copy, Debug)]
struct Failed {
    reason: Reason,
    failure: Failure,
}

impl From<Reason> for Failed {
    fn from(reason: Reason) -> Self {
        Failed { reason, failure: Failure::Final }
    }
}

impl Forward<'_> {
    /// Sends the request until there is an answer or a reason to stop.
    pub async fn run(
        &self,
        _permitted: Permitted,
        source: &Source,
        journey: &mut Journey,
    ) -> Result<Answer, Reason> {
        let started = clock::now();
        let mut tries = Tries::new(self.backend, self.retry, self.method.is_idempotent());
        let mut endpoint = self.first().ok_or(Reason::NoEndpoints)?;
        let mut fresh = false;
        self.count_request();
        loop {
            journey.endpoint = Some(endpoint.addr);
            journey.attempts += 1;
            let attempt = self.attempt(&endpoint, source, fresh).await;
            let failure = self.failure(&attempt);
            if failure == Some(Failure::Unreachable) {
                avoid(&endpoint);
            }
            let next = failure
                .filter(|_| source.is_whole())
                .and_then(|failure| tries.next(failure, &endpoint));
            let Some(next) = next else {
                source.let_go();
                let took = clock::now().saturating_duration_since(started);
                journey.upstream = attempt.is_ok().then_some(took);
                return attempt.map_err(|failed| failed.reason);
            };
            // That connection is dead, full, or about to close.
            fresh = matches!(failure, Some(Failure::Dead | Failure::Unprocessed));
            if let Ok(answer) = attempt {
                discard(answer, self.upload.ended().is_some());
            }
            endpoint = self.prepare(next).await?;
        }
    }

    /// Where the request goes first.
    fn first(&self) -> Option<Arc<Endpoint>> {
        let stays = self.stay.and_then(|stay| {
            let endpoints = self.backend.endpoints.load();
            endpoints.iter().find(|endpoint| endpoint.addr == stay).cloned()
        });
        stays.or_else(|| pick(self.backend, &Tried::new()))
    }

    fn count_request(&self) {
        if let Some(budget) = &self.backend.retry_budget {
            self.backend.endpoints.retries.request(budget, clock::unix_ms());
        }
    }

    /// Waits for the turn of the next attempt, if the backend's budget allows it.
    async fn prepare(&self, next: Next) -> Result<Arc<Endpoint>, Reason> {
        let budget = self.backend.retry_budget.as_ref().filter(|_| next.counts);
        let retries = &self.backend.endpoints.retries;
        if budget.is_some_and(|budget| !retries.retry(budget, clock::unix_ms())) {
            return Err(Reason::RetryBudgetSpent);
        }
        if !next.wait.is_zero() {
            self.in_time(timer::after(next.wait)).await.ok_or(Reason::RequestTimeout)?;
        }
        self.worker.telemetry.upstream_retry();
        Ok(next.endpoint)
    }

    /// What was wrong with an attempt; an answer too can be unwanted.
    fn failure(&self, attempt: &Attempt) -> Option<Failure> {
        let answer = match attempt {
            Err(failed) => return Some(failed.failure),
            Ok(answer) => &answer.response,
        };
        let retry = self.retry?;
        let is_code = retry.codes.binary_search(&answer.status().as_u16()).is_ok();
        // A gRPC backend that refuses a call says so in a head that is all of its answer.
        let unavailable =
            || grpc::is_grpc(answer.headers()) && grpc::is_unavailable(answer.headers());
        (is_code || unavailable()).then_some(Failure::Refused)
    }

    async fn attempt(&self, endpoint: &Arc<Endpoint>, source: &Source, fresh: bool) -> Attempt {
        let in_flight = InFlight::new(Arc::clone(endpoint));
        let once = !self.method.is_idempotent();
        let want = Want { http1: self.outgoing.upgrade.is_some(), fresh, once };
        let mut link = match self.worker.pools.kept(self.backend, endpoint.addr, want) {
            Some(link) => link,
            None => self.open(endpoint, want).await?,
        };
        if self.outgoing.upgrade.is_some() && link.is_http2() {
            let takes = self.outgoing.is_web_socket() && Box::pin(link.takes_connect()).await;
            takes.then_some(()).ok_or(Reason::MethodNotImplemented)?;
        }
        if let (Some(gate), true) = (&self.gate, link.is_http2()) {
            // Nobody says 100 (Continue) there.
            gate.open();
        }
        let was_kept = link.is_kept;
        let mut interim = |status, headers: &HeaderMap| self.interim(status, headers);
        let answer = match link.send(&self.outgoing, source.body(), &mut interim) {
            Ok(sending) => self.head(sending).await?,
            Err(error) => Err(error),
        };
        match answer {
            Ok(response) => Ok(Answer { response, link, in_flight }),
            Err(error) => Err(self.broken(&error, was_kept)),
        }
    }

    async fn open(&self, endpoint: &Endpoint, want: Want) -> Result<Link, Failed> {
        // Boxed: opening is rare, and its future is large.
        let opening = Box::pin(self.worker.pools.open(self.backend, endpoint.addr, want));
        let opened = self.in_time(opening).await.ok_or(Reason::RequestTimeout)?;
        opened.map_err(|reason| Failed { reason, failure: Failure::Unreachable })
    }

    /// What a backend says before its answer.
    fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        if status == StatusCode::CONTINUE {
            return self.gate.iter().for_each(|gate| gate.open());
        }
        let Some(interim) = &self.interim else { return };
        self.told.set(self.told.get() + 1);
        if self.told.get() <= MOST_TOLD {
            let mut headers = headers.clone();
            hop_by_hop::strip(&mut headers);
            interim.send(status, &headers);
        }
    }

    fn broken(&self, error: &SendError, was_kept: bool) -> Failed {
        tracing::debug!(%error, "an exchange with a backend broke");
        if let Some(reason) = self.upload.failed() {
            return reason.into();
        }
        // A kept connection was most likely closed while the request was on its way.
        let is_safe = self.method.is_idempotent() && !self.never_again();
        let (reason, failure) = match error {
            SendError::Unsent if was_kept => (Reason::UpstreamReset, Failure::Dead),
            SendError::Unsent | SendError::Unprocessed => {
                (Reason::UpstreamReset, Failure::Unprocessed)
            }
            SendError::Broken(_) if was_kept && is_safe => (Reason::UpstreamReset, Failure::Dead),
            SendError::Broken(_) => (Reason::UpstreamReset, Failure::Broken),
            // Bytes of an answer that cannot be read came, but no answer did.
            SendError::Protocol(_) => (Reason::UpstreamProtocol, Failure::Final),
            SendError::Request(reason) => (*reason, Failure::Final),
        };
        Failed { reason, failure }
    }

    /// The user wants no request to be sent twice.
    fn never_again(&self) -> bool {
        self.retry.is_some_and(|retry| retry.attempts == 0)
    }

    /// Waits for the head of the answer; the time counts from the end of the request's body.
    fn head<'s>(
        &'s self,
        mut sending: Sending<'s>,
    ) -> impl Future<Output = Result<Result<Response<Incoming>, SendError>, Failed>> + 's {
        let mut sent = 0;
        poll_fn(move |cx| match Pin::new(&mut sending).poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_late(&mut sent).map(Err),
        })
    }

    /// Ready when the answer is waited for no longer. `sent` is when the waiting began.
    fn poll_late(&self, sent: &mut u64) -> Poll<Failed> {
        if let Some(deadline) = self.timeouts.deadline
            && timer::poll_until(deadline).is_ready()
        {
            return Poll::Ready(Reason::RequestTimeout.into());
        }
        let Some(limit) = self.timeouts.backend else { return Poll::Pending };
        if *sent == 0 {
            *sent = clock::known_ms();
        }
        // While there is no end it is looked at again later: the body may end without this
        // task being polled.
        let from = self.upload.ended().map_or_else(clock::known_ms, |ended| ended.max(*sent));
        ready!(timer::poll_until(from.saturating_add(clock::millis(limit))));
        let failure = if self.timeouts.is_given { Failure::Late } else { Failure::Final };
        Poll::Ready(Failed { reason: Reason::BackendTimeout, failure })
    }

    /// `None` if the whole exchange's time is over first.
    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        match self.timeouts.deadline {
            None => Some(future.await),
            Some(at) => timer::timeout_at(at, future).await.ok(),
        }
    }
}
