//! One exchange, from the head of the request to the head of the response.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, CONTENT_TYPE, EXPECT, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::forward::{Answer, Forward, Waits};
use super::journey::{Journey, Route};
use super::lend::{ClientBody, Lender};
use super::mirror::Copy;
use super::outgoing::{Outgoing, client_authority};
use super::permit::{self, Answered, Passed, Permitted};
use super::request_body::{Gate, Hold, RequestBody, Upload};
use super::response_body::{FromBackend, ResponseBody, Stall};
use super::server::Client;
use super::upgrade::{self, Asking, Tunnel};
use super::worker::Graph;
use super::{clock, forwarded, head, hop_by_hop, reply};
use crate::graph::normal::normalise;
use crate::graph::{
    Action, BackendId, BackendProtocol, Found, Listener, RouteGraph, Section, Split, Target,
    Timeouts,
};
use crate::policy::{self, Exchange, Reply, RequestHead, ResponseHead};
use crate::reason::Reason;

/// What the engine gave us of a request, besides its head and its body.
struct Rest {
    asking: Option<Asking>,
    expects_continue: bool,
    trailers: bool,
    stall: Option<Rc<Stall>>,
}

/// Answers one request. There is always an answer; what went wrong is its status.
pub async fn handle(
    client: Rc<Client>,
    mut request: Request<Incoming>,
    stall: Option<Rc<Stall>>,
) -> Response<ResponseBody> {
    let graph = client.worker.graph();
    let now_ms = clock::unix_ms();
    let (method, version) = (request.method().clone(), request.version());
    let mut journey = Journey::begin(&client, method, version, now_ms);
    let asked = hop_by_hop::asked(request.headers());
    let asking = asking(&mut request, asked.upgrade);
    let expects_continue = expects_continue(request.headers_mut());
    let (parts, body) = request.into_parts();
    let target = parts.uri.clone();
    let rest = Rest { asking, expects_continue, trailers: asked.trailers, stall };
    let mut head = match head::check(parts, client.scheme(), &client.worker.config.limits) {
        Ok(head) => head,
        Err(refused) => {
            journey.path = target.path().into();
            return refuse(journey, refused.reason, refused.close);
        }
    };
    if rest.asking.as_ref().is_some_and(|asking| asking.is_http2) {
        upgrade::to_http1(&mut head);
    }
    let facts = forwarded::Facts {
        peer: client.peer,
        scheme: client.scheme(),
        authority: &client_authority(&head),
        port: client.public_port,
    };
    let trusted = &client.worker.config.trusted_proxies;
    journey.client_ip = forwarded::apply(&mut head.headers, facts, trusted);
    journey.request_id = forwarded::request_id(&mut head.headers);
    journey.note(&head);
    if client.worker.common.pressure.is_critical() {
        return refuse(journey, Reason::Overloaded, true);
    }
    route(client, graph, head, body, rest, journey).await
}

/// A request for another protocol, by Upgrade or by extended CONNECT.
fn asking(request: &mut Request<Incoming>, upgrade: Option<HeaderValue>) -> Option<Asking> {
    let extended = request.extensions().get::<hyper::ext::Protocol>();
    let protocol = extended.map(|p| HeaderValue::from_str(p.as_str()).ok());
    let is_http2 = protocol.is_some();
    let protocol = protocol.unwrap_or(upgrade)?;
    Some(Asking { protocol, on_client: hyper::upgrade::on(request), is_http2 })
}

/// Takes Expect away: whether it goes on is decided for each connection.
fn expects_continue(headers: &mut HeaderMap) -> bool {
    let expect = headers.remove(EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

async fn route(
    client: Rc<Client>,
    graph: Graph,
    head: RequestHead,
    body: Incoming,
    rest: Rest,
    mut journey: Box<Journey>,
) -> Response<ResponseBody> {
    let Some(listener) = graph.listeners.get(&client.port) else {
        return refuse(journey, Reason::NoRoute, true);
    };
    let sections = match listener.claimed(client.sni(), &head.host) {
        Ok(sections) => sections,
        Err(reason) => return refuse(journey, reason, false),
    };
    let peer = policy::Client {
        peer: client.peer,
        ip: journey.client_ip,
        listener_port: client.public_port,
    };
    let lender = Lender::new(&client.worker, &graph, body);
    let mut ex = Exchange::new(head, peer, &lender, journey.start_ms);
    let mut passed = Passed::default();
    let mut timeouts = Timeouts::default();
    let result = match meet(&graph, listener, sections, &mut ex, &mut passed, &mut journey).await {
        Err(stop) => Err(stop),
        Ok(found) => {
            journey.section = Some(Arc::clone(&found.section.name));
            journey.route =
                Route::InGraph { graph: Rc::clone(&graph), rule: found.id, backend: None };
            ex.matched_prefix = found.prefix.into();
            timeouts = found.rule.timeouts;
            let way = Way { client: &client, graph: &graph, found: &found, lender: &lender };
            serve(way, &mut ex, &mut passed, rest, &mut journey).await
        }
    };
    journey.consumer = ex.consumer.take();
    let served = match result {
        Ok(served) => served,
        Err(stop) => Served::Own(stop.into_reply(&client)),
    };
    let mut finish = |head: &mut ResponseHead| passed.respond(&graph, &ex, head);
    match served {
        Served::Own(own) => answer(journey, own, &mut finish, false),
        Served::Backend(backend) => backend.respond(&client, timeouts, journey, &mut finish),
    }
}

/// Looks for the rule, section by section. A section's own filters run before its routes are
/// looked at, and may change what these see, but not the host: a request that they have seen
/// belongs to this section, and nobody else is asked (GEP-5224).
async fn meet<'g>(
    graph: &'g RouteGraph,
    listener: &'g Listener,
    sections: &'g [Arc<Section>],
    ex: &mut Exchange<'_>,
    passed: &mut Passed,
    journey: &mut Journey,
) -> Result<Found<'g>, Stop> {
    for section in sections {
        if !section.filters.is_empty() {
            journey.section = Some(Arc::clone(&section.name));
            permit::filters(graph, &section.filters, ex, passed).await?;
            let changed = match normalise(&ex.request.path)? {
                Cow::Owned(path) => Some(path),
                Cow::Borrowed(_) => None,
            };
            if let Some(path) = changed {
                ex.request.path = path.into();
            }
            return graph.find_in(section, &ex.request).ok_or(Reason::NoRoute.into());
        }
        if let Some(found) = graph.find_in(section, &ex.request) {
            return Ok(found);
        }
    }
    graph.find_ingress(listener, &ex.request).ok_or(Reason::NoRoute.into())
}

/// Why a request goes no further.
enum Stop {
    Policy(Answered),
    Reason(Reason),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Stop::Reason(reason)
    }
}

impl From<Answered> for Stop {
    fn from(answered: Answered) -> Self {
        Stop::Policy(answered)
    }
}

impl Stop {
    fn into_reply(self, client: &Client) -> Reply {
        match self {
            Stop::Reason(reason) => reply::of(reason),
            Stop::Policy(Answered { kind, reply }) => {
                client.worker.telemetry.policy_answered(kind, reply.reason);
                reply
            }
        }
    }
}

/// Who answered.
enum Served {
    Own(Reply),
    Backend(Box<FromBackendHead>),
}

/// A backend's answer before our part of it.
struct FromBackendHead {
    answer: Box<Answer>,
    asking: Option<Asking>,
    upload: Rc<Upload>,
    deadline: Option<Instant>,
    stall: Option<Rc<Stall>>,
}

/// A request that met its rule.
#[derive(Clone, Copy)]
struct Way<'a> {
    client: &'a Client,
    graph: &'a Graph,
    found: &'a Found<'a>,
    lender: &'a Lender<'a>,
}

async fn serve(
    way: Way<'_>,
    ex: &mut Exchange<'_>,
    passed: &mut Passed,
    rest: Rest,
    journey: &mut Journey,
) -> Result<Served, Stop> {
    let Way { client, graph, found, lender } = way;
    let rule = found.rule;
    let permitted = permit::gates(graph, rule, ex, passed).await?;
    permit::transforms(graph, &rule.transforms, ex, passed).await?;
    let split = match &rule.action {
        Action::Refuse(reason) => return Err((*reason).into()),
        Action::Forward(split) => split,
    };
    let target = choose(split);
    let backend = target.to?;
    permit::transforms(graph, &target.transforms, ex, passed).await?;
    journey.route.set_backend(backend);
    let mirrors = if rest.asking.is_none() { &rule.mirrors[..] } else { &[] };
    let copy = Copy::of(&client.worker, graph, mirrors, &ex.request);
    let to = To { client, graph, backend, timeouts: rule.timeouts, lender };
    Ok(Served::Backend(to.forward(permitted, ex, copy, rest, journey).await?))
}

/// One target by chance, as its weight says.
pub fn choose(split: &Split) -> &Target {
    let mut at = fastrand::u32(..split.total.max(1));
    for target in &split.targets {
        match at.checked_sub(target.weight) {
            Some(rest) => at = rest,
            None => return target,
        }
    }
    split.targets.last().expect("a split has a target: its total is not 0")
}

/// Where a request goes.
struct To<'a> {
    client: &'a Client,
    graph: &'a Graph,
    backend: BackendId,
    timeouts: Timeouts,
    lender: &'a Lender<'a>,
}

impl To<'_> {
    async fn forward(
        self,
        permitted: Permitted,
        ex: &Exchange<'_>,
        copy: Option<Copy>,
        rest: Rest,
        journey: &mut Journey,
    ) -> Result<Box<FromBackendHead>, Reason> {
        let limits = &self.client.worker.config.limits;
        let backend = &self.graph[self.backend];
        let is_https = matches!(backend.protocol, BackendProtocol::Tls(_));
        let mut outgoing = Outgoing::new(&ex.request, is_https)?;
        outgoing.trailers = rest.trailers;
        outgoing.upgrade = rest.asking.as_ref().map(|asking| asking.protocol.clone());
        let upload = Upload::new(self.body_idle(&ex.request));
        let mut gate = None;
        let body = match self.lender.take() {
            ClientBody::Gone => return Err(Reason::Internal),
            ClientBody::Kept(bytes) => RequestBody::whole(bytes, &upload, copy),
            ClientBody::Unread(body) => {
                outgoing.expects_continue = rest.expects_continue;
                let (hold, opened) = hold(rest.expects_continue);
                gate = opened;
                RequestBody::of(body, &upload, copy, hold)
            }
        };
        let deadline = limit(self.timeouts.request).map(|limit| journey.start + limit);
        let waits = match (self.timeouts.backend_request, self.timeouts.request) {
            // The rule's own limit of the whole is meant to be reached.
            (None, Some(_)) => None,
            (given, _) => limit(Some(given.unwrap_or(limits.response_timeout))),
        };
        let forward = Forward {
            worker: &self.client.worker,
            backend,
            outgoing,
            upload: &upload,
            gate,
            method: &ex.request.method,
            timeouts: Waits { backend: waits, deadline },
        };
        let result = forward.run(permitted, body, journey).await;
        journey.received = upload.received();
        let answer = result?;
        upload.relax(self.timeouts.idle.unwrap_or(limits.response_idle));
        let (asking, stall) = (rest.asking, rest.stall);
        Ok(Box::new(FromBackendHead { answer, asking, upload, deadline, stall }))
    }

    /// A gRPC client may stream: silent until the server has something to say.
    fn body_idle(&self, head: &RequestHead) -> Duration {
        let limits = &self.client.worker.config.limits;
        let is_grpc = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if is_grpc {
            return self.timeouts.idle.unwrap_or(limits.response_idle);
        }
        limits.request_body_idle
    }
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

impl FromBackendHead {
    fn respond(
        self,
        client: &Rc<Client>,
        timeouts: Timeouts,
        mut journey: Box<Journey>,
        finish: &mut dyn FnMut(&mut ResponseHead),
    ) -> Response<ResponseBody> {
        let idle = timeouts.idle.unwrap_or(client.worker.config.limits.response_idle);
        let Answer { mut response, link, in_flight } = *self.answer;
        let status = response.status();
        let agreed = response.headers().get(UPGRADE).cloned();
        let on_backend =
            (status == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut response));
        let (parts, inner) = response.into_parts();
        let mut headers = parts.headers;
        hop_by_hop::strip(&mut headers);
        match (on_backend, self.asking) {
            (None, _) => {
                let mut head = ResponseHead { status, headers };
                finish(&mut head);
                let (upload, deadline) = (self.upload, self.deadline);
                let body = FromBackend {
                    inner,
                    link: Some(link),
                    _in_flight: in_flight,
                    upload,
                    idle,
                    deadline,
                    last: Instant::now(),
                    sleep: None,
                };
                journey.status = Some(head.status);
                let close = must_close(&journey);
                let body = ResponseBody::backend(body, journey, self.stall);
                respond(head, body, close)
            }
            (Some(_), None) => answer(journey, reply::of(Reason::UpstreamProtocol), finish, false),
            (Some(on_backend), Some(asking)) => {
                let mut head = upgrade::accepted(&asking, headers, agreed);
                finish(&mut head);
                journey.status = Some(StatusCode::SWITCHING_PROTOCOLS);
                journey.route.detach();
                let tunnel = Tunnel {
                    on_client: asking.on_client,
                    on_backend,
                    idle,
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

/// An answer to a request that met no rule.
fn refuse(journey: Box<Journey>, reason: Reason, close: bool) -> Response<ResponseBody> {
    answer(journey, reply::of(reason), &mut |_| {}, close)
}

fn answer(
    mut journey: Box<Journey>,
    own: Reply,
    finish: &mut dyn FnMut(&mut ResponseHead),
    close: bool,
) -> Response<ResponseBody> {
    journey.reason = Some(own.reason);
    let (mut head, body) = reply::with_body(own, &journey.method);
    finish(&mut head);
    journey.status = Some(head.status);
    let close = close || must_close(&journey);
    respond(head, ResponseBody::full(body, journey), close)
}

/// Whether an HTTP/1.1 client is told to come back by another connection.
fn must_close(journey: &Journey) -> bool {
    let client = &journey.client;
    journey.protocol == Version::HTTP_10
        || client.worker.is_moving()
        || client.timeline.is_worn(&client.worker.config.limits)
        || client.worker.common.pressure.is_high()
}

fn respond(head: ResponseHead, body: ResponseBody, close: bool) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
