//! From a permitted request to the head of a backend's answer.
//!
//! What is tried again, and never more than three times:
//! - connecting failed: another endpoint, while there is one;
//! - the connection died before any byte of the request was sent: always;
//! - it died before any byte of the answer came: requests without a body whose method is
//!   idempotent (RFC 9110, 9.2.2), as the backend may have acted on it already.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::sleep_until;

use super::balance::{InFlight, Tried, avoid, pick};
use super::journey::Journey;
use super::outgoing::Outgoing;
use super::permit::Permitted;
use super::pool::{Link, Want};
use super::request_body::{Gate, RequestBody, Upload};
use super::worker::Worker;
use crate::graph::{Backend, Endpoint};
use crate::reason::Reason;

/// How often a request is sent again at most.
const MOST_RETRIES: usize = 3;
/// How many endpoints are tried if connecting fails.
const MOST_ENDPOINTS: usize = 3;

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
}

/// How long to wait for the head of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// From the end of the request, for each attempt.
    pub backend: Option<Duration>,
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
enum Attempt {
    Answered(Box<Answer>),
    /// The endpoint could not be reached; the body was not touched.
    Unreachable(Reason, RequestBody),
    /// It can be sent again.
    Broken {
        reason: Reason,
        body: RequestBody,
        was_kept: bool,
    },
    Failed(Reason),
}

impl Forward<'_> {
    /// Sends the request until there is an answer or a reason to stop.
    pub async fn run(
        &self,
        _permitted: Permitted,
        mut body: RequestBody,
        journey: &mut Journey,
    ) -> Result<Box<Answer>, Reason> {
        let started = Instant::now();
        let mut tried = Tried::new();
        let mut retries = 0;
        let mut fresh = false;
        let mut last = Reason::NoEndpoints;
        while let Some(endpoint) = pick(self.backend, &tried) {
            journey.endpoint = Some(endpoint.addr);
            journey.attempts += 1;
            match self.attempt(&endpoint, body, fresh).await {
                Attempt::Answered(answer) => {
                    journey.upstream = Some(started.elapsed());
                    return Ok(answer);
                }
                Attempt::Failed(reason) => return Err(reason),
                Attempt::Unreachable(reason, unsent) => {
                    avoid(&endpoint);
                    tried.push(endpoint);
                    (last, body) = (reason, unsent);
                    if tried.len() == MOST_ENDPOINTS {
                        break;
                    }
                }
                Attempt::Broken { reason, body: unsent, was_kept } => {
                    (last, body, fresh) = (reason, unsent, was_kept);
                    retries += 1;
                    if retries == MOST_RETRIES {
                        break;
                    }
                    // A new connection that breaks speaks against the endpoint.
                    if !was_kept {
                        tried.push(endpoint);
                    }
                }
            }
            self.worker.telemetry.upstream_retry();
        }
        Err(last)
    }

    async fn attempt(&self, endpoint: &Arc<Endpoint>, body: RequestBody, fresh: bool) -> Attempt {
        let in_flight = InFlight::new(Arc::clone(endpoint));
        let want = Want { http1: self.outgoing.upgrade.is_some(), fresh };
        let linked = self.worker.pools.link(self.backend, endpoint.addr, want);
        let mut link = match self.in_time(linked).await {
            None => return Attempt::Failed(Reason::RequestTimeout),
            Some(Err(reason)) => return Attempt::Unreachable(reason, body),
            Some(Ok(link)) => link,
        };
        let is_replayable = body.is_empty() && self.method.is_idempotent();
        let mut request = match self.outgoing.request(link.is_http2(), body) {
            Ok(request) => request,
            Err(reason) => return Attempt::Failed(reason),
        };
        self.await_continue(&mut request, link.is_http2());
        let was_kept = link.is_kept;
        match self.in_time(self.head(link.send(request))).await {
            None => Attempt::Failed(Reason::RequestTimeout),
            Some(Err(reason)) => Attempt::Failed(reason),
            Some(Ok(Ok(response))) => {
                Attempt::Answered(Box::new(Answer { response, link, in_flight }))
            }
            Some(Ok(Err(error))) => self.broken(*error, was_kept, is_replayable),
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

    fn broken(
        &self,
        mut error: TrySendError<Request<RequestBody>>,
        was_kept: bool,
        is_replayable: bool,
    ) -> Attempt {
        let unsent = error.take_message().map(Request::into_body);
        let error = error.into_error();
        tracing::debug!(%error, "an exchange with a backend broke");
        if let Some(reason) = self.upload.failed() {
            return Attempt::Failed(reason);
        }
        let reason = match () {
            () if error.is_parse() || error.is_user() => Reason::UpstreamProtocol,
            () => Reason::UpstreamReset,
        };
        // Bytes of an answer that cannot be read came, but no answer did.
        let unanswered = !error.is_parse() && is_replayable;
        match unsent.or(unanswered.then_some(RequestBody::Empty)) {
            Some(body) => Attempt::Broken { reason, body, was_kept },
            None => Attempt::Failed(reason),
        }
    }

    /// Waits for the head of the answer; the time counts from the end of the request's body.
    async fn head<T>(&self, send: impl Future<Output = T>) -> Result<T, Reason> {
        let Some(limit) = self.timeouts.backend else { return Ok(send.await) };
        let mut send = std::pin::pin!(send);
        let sent = Instant::now();
        let mut until = sent + limit;
        loop {
            tokio::select! {
                biased;
                done = &mut send => return Ok(done),
                () = sleep_until(until.into()) => {}
            }
            let now = Instant::now();
            until = match self.upload.ended() {
                Some(ended) => ended.max(sent) + limit,
                None => now + limit,
            };
            if until <= now {
                return Err(Reason::BackendTimeout);
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
