//! From a permitted request to the head of a backend's answer.
//!
//! One attempt after another is made here; whether there is another one is decided in
//! [`super::retry`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use hyper::client::conn::TrySendError;
use tokio::time::{sleep, sleep_until};

use super::balance::{InFlight, Tried, avoid, pick};
use super::clock;
use super::discard::discard;
use super::grpc;
use super::incoming::Incoming;
use super::journey::Journey;
use super::outgoing::Outgoing;
use super::permit::Permitted;
use super::pool::{Link, Want};
use super::replay::Source;
use super::request_body::{Gate, RequestBody, Upload};
use super::retry::{Failure, Next, Tries};
use super::worker::Worker;
use crate::graph::{Backend, Endpoint, Retry};
use crate::reason::Reason;

/// One request on its way to one backend.
#[derive(Debug)]
pub struct Forward<'a> {
    pub worker: &'a Worker,
    pub backend: &'a Backend,
    pub outgoing: Outgoing,
    pub upload: &'a Rc<Upload>,
    /// Opened when the backend says 100 (Continue).
    pub gate: Option<Arc<Gate>>,
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
    /// For the whole exchange.
    pub deadline: Option<Instant>,
}

/// The head of an answer, and what its body needs.
#[derive(Debug)]
pub struct Answer {
    pub response: Response<Incoming>,
    pub link: Link,
    pub in_flight: InFlight,
}

/// What became of an attempt.
type Attempt = Result<Box<Answer>, Failed>;

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
    ) -> Result<Box<Answer>, Reason> {
        let started = Instant::now();
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
                journey.upstream = attempt.is_ok().then(|| started.elapsed());
                return attempt.map_err(|failed| failed.reason);
            };
            // That connection is dead, full, or about to close.
            fresh = matches!(failure, Some(Failure::Dead | Failure::Unprocessed));
            if let Ok(answer) = attempt {
                discard(*answer, self.upload.ended().is_some());
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
            self.in_time(sleep(next.wait)).await.ok_or(Reason::RequestTimeout)?;
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
        let want = Want { http1: self.outgoing.upgrade.is_some(), fresh };
        let linked = self.worker.pools.link(self.backend, endpoint.addr, want);
        let linked = self.in_time(linked).await.ok_or(Reason::RequestTimeout)?;
        let mut link = linked.map_err(|reason| {
            let failure = Failure::Unreachable;
            Failed { reason, failure }
        })?;
        if self.outgoing.upgrade.is_some() && link.is_http2() {
            let takes = self.outgoing.is_web_socket() && link.takes_connect().await;
            takes.then_some(()).ok_or(Reason::MethodNotImplemented)?;
        }
        let mut request = self.outgoing.request(link.is_http2(), source.body())?;
        self.await_continue(&mut request, link.is_http2());
        let was_kept = link.is_kept;
        let answered = self.in_time(self.head(link.send(request))).await;
        match answered.ok_or(Reason::RequestTimeout)? {
            None => {
                let late = if self.timeouts.is_given { Failure::Late } else { Failure::Final };
                Err(Failed { reason: Reason::BackendTimeout, failure: late })
            }
            Some(Ok(response)) => Ok(Box::new(Answer { response, link, in_flight })),
            Some(Err(error)) => Err(self.broken(*error, was_kept)),
        }
    }

    /// Lets the backend's 100 (Continue) open the gate; HTTP/2 needs none.
    fn await_continue(&self, request: &mut Request<RequestBody>, is_http2: bool) {
        let Some(gate) = self.gate.clone() else { return };
        if is_http2 {
            return gate.open();
        }
        hyper::ext::on_informational(request, move |response| {
            if response.status() == http::StatusCode::CONTINUE {
                gate.open();
            }
        });
    }

    fn broken(&self, mut error: TrySendError<Request<RequestBody>>, was_kept: bool) -> Failed {
        let is_unsent = error.take_message().is_some();
        let error = error.into_error();
        tracing::debug!(%error, "an exchange with a backend broke");
        if let Some(reason) = self.upload.failed() {
            return reason.into();
        }
        let reason = match () {
            () if error.is_parse() || error.is_user() => Reason::UpstreamProtocol,
            () => Reason::UpstreamReset,
        };
        let failure = match () {
            () if is_unsent && was_kept => Failure::Dead,
            () if is_unsent || is_unprocessed(&error) => Failure::Unprocessed,
            // Bytes of an answer that cannot be read came, but no answer did.
            () if error.is_parse() => Failure::Final,
            // Most likely it was closed while the request was on its way.
            () if was_kept && self.method.is_idempotent() && !self.never_again() => Failure::Dead,
            () => Failure::Broken,
        };
        Failed { reason, failure }
    }

    /// The user wants no request to be sent twice.
    fn never_again(&self) -> bool {
        self.retry.is_some_and(|retry| retry.attempts == 0)
    }

    /// Waits for the head of the answer; the time counts from the end of the request's body.
    /// `None` when it is over.
    async fn head<T>(&self, send: impl Future<Output = T>) -> Option<T> {
        let Some(limit) = self.timeouts.backend else { return Some(send.await) };
        let mut send = std::pin::pin!(send);
        let sent = Instant::now();
        let mut until = sent + limit;
        loop {
            tokio::select! {
                biased;
                done = &mut send => return Some(done),
                () = sleep_until(until.into()) => {}
            }
            let now = Instant::now();
            until = match self.upload.ended() {
                Some(ended) => ended.max(sent) + limit,
                None => now + limit,
            };
            if until <= now {
                return None;
            }
        }
    }

    /// `None` if the whole exchange's time is over first.
    async fn in_time<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        match self.timeouts.deadline {
            None => Some(future.await),
            Some(at) => tokio::time::timeout_at(at.into(), future).await.ok(),
        }
    }
}

/// Whether the backend says that it did not begin with the request: its stream was refused, or
/// is beyond the last one of a GOAWAY (RFC 9113, 6.8 and 8.7).
fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (error.is_go_away() || (error.is_reset() && refused));
        }
        source = error.source();
    }
    false
}
