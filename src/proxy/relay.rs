//! A request that is forwarded, and its answer on the way back: what either needs besides its
//! head. Which backend it is was decided before; how it is reached is [`super::forward`]'s work.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::forward::{Answer, Forward, Waits};
use super::handle::{answer, must_close, respond};
use super::http1::Interim;
use super::journey::Journey;
use super::lend::{ClientBody, Lender};
use super::mirror::Copy;
use super::outgoing::Outgoing;
use super::paced::{Lanes, Paced};
use super::permit::Permitted;
use super::replay::Source;
use super::request_body::{FromClient, Gate, Hold, Upload};
use super::response_body::{FromBackend, ResponseBody, Stall};
use super::server::Client;
use super::session::Stay;
use super::upgrade::{self, Asking, OnUpgrade, Tunnel};
use super::worker::Graph;
use super::{clock, grpc, hop_by_hop, reply};
use crate::graph::{BackendId, BackendProtocol, Rule, Timeouts};
use crate::policy::{Exchange, ResponseHead};
use crate::reason::Reason;

/// What the engine gave us of a request, besides its head and its body.
#[derive(Debug)]
pub struct Rest {
    pub asking: Option<Asking>,
    pub expects_continue: bool,
    pub trailers: bool,
    pub stall: Option<Rc<Stall>>,
    /// The way for interim answers (1xx), where the client takes them.
    pub interim: Option<Interim>,
}

/// Where a request goes.
#[derive(Debug)]
pub struct Relay<'a> {
    pub client: &'a Client,
    pub graph: &'a Graph,
    pub backend: BackendId,
    pub rule: &'a Rule,
    pub lender: &'a Lender<'a>,
}

/// A backend's answer before our part of it.
#[derive(Debug)]
pub struct Relayed {
    answer: Answer,
    asking: Option<Asking>,
    upload: Rc<Upload>,
    deadline: Option<u64>,
    stall: Option<Rc<Stall>>,
    /// How fast bytes pass to the client, and from it once the connection is upgraded.
    down: Lanes,
    up: Lanes,
    /// The field that tells the client of a new session.
    session: Option<(HeaderName, HeaderValue)>,
}

impl Relay<'_> {
    /// Sends the request to its backend.
    pub async fn send(
        self,
        permitted: Permitted,
        ex: &Exchange<'_>,
        copy: Option<Copy>,
        rest: &mut Rest,
        journey: &mut Journey,
    ) -> Result<Box<Relayed>, Reason> {
        let limits = &self.client.worker.config.limits;
        let backend = &self.graph[self.backend];
        let is_https = matches!(backend.protocol, BackendProtocol::Tls(_));
        let mut outgoing = Outgoing::new(&ex.request, is_https)?;
        outgoing.trailers = rest.trailers;
        outgoing.upgrade = rest.asking.as_ref().map(|asking| asking.protocol.clone());
        let upload = Upload::new(self.body_idle(journey));
        let mut gate = None;
        let up = Lanes::upload(&ex.paces);
        let source = match self.lender.take() {
            ClientBody::Gone(reason) => return Err(reason),
            ClientBody::Kept(bytes) => {
                // It is here: others wait for what it took.
                up.reserve(bytes.len());
                whole(bytes, &upload, copy)
            }
            ClientBody::Unread(body) => {
                outgoing.expects_continue = rest.expects_continue;
                let (hold, opened) = hold(rest.expects_continue);
                gate = opened;
                let body = Paced::new(body, up.clone());
                let body = FromClient::new(body, &upload, copy, hold);
                Source::new(body, self.kept_bytes())
            }
        };
        let now = journey.start_ms / 1000;
        let session = self.rule.session.as_ref().or(backend.session.as_ref());
        let stay = session.map(|s| Stay::read(s, &backend.key, &ex.request.headers, now));
        let deadline = self.deadline(ex, journey);
        let forward = Forward {
            worker: &self.client.worker,
            backend,
            outgoing,
            upload: &upload,
            gate,
            interim: rest.interim.take(),
            told: Cell::new(0),
            method: &ex.request.method,
            timeouts: Waits { deadline, ..self.waits(journey) },
            retry: self.rule.retry.as_ref(),
            stay: stay.as_ref().and_then(|stay| stay.endpoint),
        };
        let result = forward.run(permitted, &source, journey).await;
        journey.received = upload.received();
        let answer = result?;
        upload.relax(self.rule.timeouts.idle.unwrap_or(limits.response_idle));
        let session = stay
            .zip(journey.endpoint)
            .and_then(|(stay, endpoint)| stay.begin(endpoint, self.client.scheme(), now));
        let (asking, stall) = (rest.asking.take(), rest.stall.take());
        let down = Lanes::download(&ex.paces);
        Ok(Box::new(Relayed { answer, asking, upload, deadline, stall, down, up, session }))
    }

    /// How much of the body is kept for another attempt. An HTTP/1.1 backend never says that it
    /// did not begin with a request, so without a retry of the rule's nothing has to be kept.
    fn kept_bytes(&self) -> usize {
        let may_be_http2 = !matches!(self.graph[self.backend].protocol, BackendProtocol::Http1);
        let retry = self.rule.retry.as_ref();
        let is_kept = retry.map_or(may_be_http2, |retry| retry.attempts > 0);
        if is_kept { self.client.worker.config.limits.retry_bytes } else { 0 }
    }

    /// When the whole exchange has to be over: by the rule, and by the gRPC client's own word.
    fn deadline(&self, ex: &Exchange<'_>, journey: &Journey) -> Option<u64> {
        let of_rule = limit(self.rule.timeouts.request);
        let of_client = journey.is_grpc.then(|| grpc::timeout(&ex.request.headers)).flatten();
        let soonest = of_rule.into_iter().chain(of_client).min()?;
        Some(clock::ms_of(journey.start).saturating_add(clock::millis(soonest)))
    }

    /// How long an attempt waits for the head of its answer.
    fn waits(&self, journey: &Journey) -> Waits {
        let limits = &self.client.worker.config.limits;
        let Timeouts { request, backend_request, idle } = self.rule.timeouts;
        let backend = match (backend_request, request) {
            (Some(given), _) => limit(Some(given)),
            // The rule's own limit of the whole is meant to be reached.
            (None, Some(_)) => None,
            // A gRPC server may send its head with the first message of a long stream.
            (None, None) if journey.is_grpc => limit(Some(idle.unwrap_or(limits.response_idle))),
            (None, None) => limit(Some(limits.response_timeout)),
        };
        Waits { backend, is_given: backend_request.is_some(), deadline: None }
    }

    /// A gRPC client may stream: silent until the server has something to say.
    fn body_idle(&self, journey: &Journey) -> Duration {
        let limits = &self.client.worker.config.limits;
        if journey.is_grpc {
            return self.rule.timeouts.idle.unwrap_or(limits.response_idle);
        }
        limits.request_body_idle
    }
}

/// A body that a policy has read already.
fn whole(bytes: Bytes, upload: &Upload, copy: Option<Copy>) -> Source {
    upload.set_whole(bytes.len());
    if let Some(mut copy) = copy
        && copy.push(&bytes)
    {
        copy.send();
    }
    Source::Whole(bytes)
}

fn hold(expects_continue: bool) -> (Option<Hold>, Option<Arc<Gate>>) {
    if !expects_continue {
        return (None, None);
    }
    let (hold, gate) = Hold::new();
    (Some(hold), Some(gate))
}

/// Zero stands for no limit (GEP-1742).
fn limit(timeout: Option<Duration>) -> Option<Duration> {
    timeout.filter(|timeout| !timeout.is_zero())
}

impl Relayed {
    /// The client's answer.
    pub fn respond(
        self,
        client: &Rc<Client>,
        timeouts: Timeouts,
        mut journey: Box<Journey>,
        finish: &mut dyn FnMut(&mut ResponseHead),
    ) -> Response<ResponseBody> {
        let idle = timeouts.idle.unwrap_or(client.worker.config.limits.response_idle);
        let Answer { mut response, link, in_flight } = self.answer;
        let status = response.status();
        // Over HTTP/2 a backend agrees by 200 to what was asked by CONNECT (RFC 8441).
        let by_connect = link.is_http2() && self.asking.is_some() && status == StatusCode::OK;
        let agrees = status == StatusCode::SWITCHING_PROTOCOLS || by_connect;
        let is_stream = agrees && link.is_http2();
        let stream = is_stream.then(|| OnUpgrade::Http2(hyper::upgrade::on(&mut response)));
        let agreed = agrees.then(|| response.headers().get(UPGRADE).cloned()).flatten();
        let (parts, inner) = response.into_parts();
        let mut headers = parts.headers;
        hop_by_hop::strip(&mut headers);
        match (agrees, self.asking) {
            (false, _) => {
                let mut head = ResponseHead { status, headers };
                if journey.is_grpc {
                    journey.grpc_status = grpc::status(&head.headers);
                }
                finish(&mut head);
                tell(&mut head, self.session);
                let body = FromBackend {
                    inner: Paced::new(inner, self.down),
                    link: Some(link),
                    _in_flight: in_flight,
                    upload: self.upload,
                    idle,
                    deadline: self.deadline,
                    silent_until: None,
                    failed: None,
                };
                journey.status = Some(head.status);
                let close = must_close(&journey);
                let body = ResponseBody::backend(body, journey, self.stall);
                respond(head, body, close)
            }
            (true, None) => answer(journey, reply::of(Reason::UpstreamProtocol), finish, false),
            (true, Some(asking)) => {
                let mut head = upgrade::accepted(&asking, headers, agreed);
                finish(&mut head);
                tell(&mut head, self.session);
                journey.status = Some(StatusCode::SWITCHING_PROTOCOLS);
                journey.route.detach();
                let (on_backend, link) = match stream {
                    Some(stream) => (stream, Some(link)),
                    None => (OnUpgrade::Done(link.into_upgraded()), None),
                };
                let tunnel = Tunnel {
                    on_client: asking.on_client,
                    on_backend,
                    _link: link,
                    idle,
                    lanes: [self.up, self.down],
                    journey,
                    _in_flight: in_flight,
                    _guard: client.guard(),
                };
                tunnel.spawn();
                respond(head, ResponseBody::empty(), false)
            }
        }
    }
}

/// Adds the field of a new session. A header of that name is ours alone; cookies stand together.
fn tell(head: &mut ResponseHead, session: Option<(HeaderName, HeaderValue)>) {
    let Some((name, value)) = session else { return };
    if name == http::header::SET_COOKIE {
        head.headers.append(name, value);
    } else {
        head.headers.insert(name, value);
    }
}
