//! One exchange, from the head of the request to the head of the response.

use std::borrow::Cow;
use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use http::header::{CONNECTION, EXPECT, SEC_WEBSOCKET_KEY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};

use super::head::{self, Checked};
use super::http1::Lane;
use super::incoming::Incoming;
use super::journey::{Journey, Route};
use super::lend::Lender;
use super::mirror::Copy;
use super::outline::Outline;
use super::permit::{self, Answered, Passed};
use super::relay::{Relay, Relayed, Rest};
use super::response_body::{ResponseBody, Stall};
use super::server::Client;
use super::upgrade::{self, Asking, OnUpgrade};
use super::way_around::is_way_around;
use super::worker::Graph;
use super::{grpc, hop_by_hop, reply};
use crate::graph::normal::normalise;
use crate::graph::{
    Action, Found, Listener, RouteGraph, RuleName, Section, Split, Target, Timeouts,
};
use crate::policy::{self, Exchange, Reply, RequestHead, ResponseHead, RouteRef};
use crate::reason::Reason;

/// How a request came, and what its connection can do besides giving its body.
#[derive(Debug)]
pub enum Via {
    Http1(Lane),
    Http2(Rc<Stall>),
}

/// Answers one request. There is always an answer; what went wrong is its status.
///
/// Its head is looked at here, at once: the future that is left is made with a few pointers.
pub fn handle(
    client: &Rc<Client>,
    request: Request<Incoming>,
    via: Via,
) -> LocalBoxFuture<'static, Response<ResponseBody>> {
    match begin(client, request, via) {
        Ok(begun) => Box::pin(route(Rc::clone(client), begun)),
        Err(refused) => Box::pin(ready(refuse(refused.journey, refused.reason, refused.close))),
    }
}

/// A request with a good head, and what came with it.
struct Begun {
    graph: Graph,
    head: RequestHead,
    body: Incoming,
    rest: Rest,
    journey: Box<Journey>,
}

/// A request whose head was refused.
struct Refused {
    journey: Box<Journey>,
    reason: Reason,
    close: bool,
}

fn begin(
    client: &Rc<Client>,
    mut request: Request<Incoming>,
    via: Via,
) -> Result<Box<Begun>, Refused> {
    let graph = client.worker.graph();
    let (method, version) = (request.method().clone(), request.version());
    let mut journey = Journey::begin(client, method, version);
    let outline = Outline::of(request.headers());
    journey.is_grpc = outline.has_content_type && grpc::is_grpc(request.headers());
    let asked = hop_by_hop::asked(request.headers(), &outline);
    let asking = asking(&mut request, &via, asked.upgrade);
    let expects_continue = outline.has_expect && expects_continue(request.headers_mut());
    let (mut parts, body) = request.into_parts();
    let (interim, stall) = match via {
        Via::Http1(lane) => (lane.into_interim(), None),
        Via::Http2(stall) => (None, Some(stall)),
    };
    let rest = Rest { asking, expects_continue, trailers: asked.trailers, stall, interim };
    let limits = &client.worker.config.limits;
    let Checked { mut head, authority } =
        match head::check(&mut parts, &outline, client.scheme(), limits) {
            Ok(checked) => checked,
            Err(refused) => {
                journey.path = parts.uri.path().into();
                return Err(Refused { journey, reason: refused.reason, close: refused.close });
            }
        };
    if rest.asking.as_ref().is_some_and(|asking| asking.is_http2) {
        upgrade::to_http1(&mut head);
    }
    let trusted = &client.worker.config.trusted_proxies;
    journey.client_ip = client.origin.tell(&mut head, &outline, authority, trusted);
    journey.note(&head);
    if client.worker.common.pressure.is_critical() {
        return Err(Refused { journey, reason: Reason::Overloaded, close: true });
    }
    Ok(Box::new(Begun { graph, head, body, rest, journey }))
}

/// A request for another protocol, by Upgrade or by extended CONNECT.
fn asking(
    request: &mut Request<Incoming>,
    via: &Via,
    upgrade: Option<HeaderValue>,
) -> Option<Asking> {
    match via {
        Via::Http1(lane) => {
            let protocol = upgrade?;
            let on_client = lane.on_upgrade()?;
            let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned();
            Some(Asking { protocol, on_client, is_http2: false, key })
        }
        Via::Http2(_) => {
            let protocol = request.extensions().get::<hyper::ext::Protocol>()?;
            let protocol = HeaderValue::from_str(protocol.as_str()).ok()?;
            let on_client = OnUpgrade::Http2(hyper::upgrade::on(request));
            Some(Asking { protocol, on_client, is_http2: true, key: None })
        }
    }
}

/// Takes Expect away: whether it goes on is decided for each connection.
fn expects_continue(headers: &mut HeaderMap) -> bool {
    let expect = headers.remove(EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

async fn route(client: Rc<Client>, begun: Box<Begun>) -> Response<ResponseBody> {
    let Begun { graph, head, body, mut rest, mut journey } = *begun;
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
    let lender = Lender::new(&client, &graph, body);
    let mut ex = Exchange::new(head, peer, &lender, journey.start_ms);
    let mut passed = Passed::default();
    let mut timeouts = Timeouts::default();
    let result = match meet(&graph, listener, sections, &mut ex, &mut passed, &mut journey).await {
        Err(stop) => Err(stop),
        Ok(found) if is_way_around(&graph, listener, sections, &mut ex.request, &found) => {
            Err(Reason::InvalidPath.into())
        }
        Ok(found) => {
            journey.note_section(&found.section.name);
            journey.route =
                Route::InGraph { graph: Rc::clone(&graph), rule: found.id, backend: None };
            ex.matched_prefix = found.prefix.into();
            ex.route = route_ref(&found.rule.name);
            timeouts = found.rule.timeouts;
            let way = Way { client: &client, graph: &graph, found: &found, lender: &lender };
            serve(way, &mut ex, &mut passed, &mut rest, &mut journey).await
        }
    };
    journey.identity = ex.identity.take();
    journey.slots = std::mem::take(&mut ex.slots);
    journey.note_shadowed(ex.shadowed.take());
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

/// A route as policies know it.
fn route_ref(name: &RuleName) -> RouteRef<'_> {
    let RuleName { kind, namespace, name, rule } = name;
    RouteRef { kind, namespace, name, rule }
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
            journey.note_section(&section.name);
            // Boxed: hardly any listener has filters.
            Box::pin(permit::filters(graph, &section.filters, ex, passed)).await?;
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
    Backend(Box<Relayed>),
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
    rest: &mut Rest,
    journey: &mut Journey,
) -> Result<Served, Stop> {
    let Way { client, graph, found, lender } = way;
    let rule = found.rule;
    let permitted = match permit::without_gates(rule) {
        Some(permitted) => permitted,
        None => permit::gates(graph, rule, ex, passed).await?,
    };
    ex.hide_credentials();
    if !rule.transforms.is_empty() {
        permit::transforms(graph, &rule.transforms, ex, passed).await?;
    }
    let split = match &rule.action {
        Action::Refuse(reason) => return Err((*reason).into()),
        Action::Forward(split) => split,
    };
    let target = choose(split);
    let backend = target.to?;
    if !target.transforms.is_empty() {
        permit::transforms(graph, &target.transforms, ex, passed).await?;
    }
    journey.route.set_backend(backend);
    if rule.session.is_some() || graph[backend].session.is_some() {
        ex.request.tell();
    }
    let mirrors = if rest.asking.is_none() { &rule.mirrors[..] } else { &[] };
    let copy = Copy::of(&client.worker, graph, mirrors, &ex.request);
    let relay = Relay { client, graph, backend, rule, lender };
    Ok(Served::Backend(relay.send(permitted, ex, copy, rest, journey).await?))
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

/// An answer to a request that met no rule.
fn refuse(journey: Box<Journey>, reason: Reason, close: bool) -> Response<ResponseBody> {
    answer(journey, reply::of(reason), &mut |_| {}, close)
}

/// An answer to bytes that are no head of a request: its method and path are not known.
pub fn refuse_bytes(client: &Rc<Client>, reason: Reason) -> Response<ResponseBody> {
    let method = Method::from_bytes(b"-").unwrap_or_default();
    let journey = Journey::begin(client, method, Version::HTTP_11);
    refuse(journey, reason, true)
}

/// An answer of our own, in the way that the client understands.
pub fn answer(
    mut journey: Box<Journey>,
    own: Reply,
    finish: &mut dyn FnMut(&mut ResponseHead),
    close: bool,
) -> Response<ResponseBody> {
    journey.reason = Some(own.reason);
    let as_grpc = journey.is_grpc && grpc::is_error(&own);
    let (mut head, body) =
        if as_grpc { grpc::head(own) } else { reply::with_body(own, &journey.method) };
    finish(&mut head);
    journey.status = Some(head.status);
    journey.grpc_status = grpc::status(&head.headers);
    let close = close || must_close(&journey);
    respond(head, ResponseBody::full(body, journey), close)
}

/// Whether an HTTP/1.1 client is told to come back by another connection.
pub fn must_close(journey: &Journey) -> bool {
    let client = &journey.client;
    journey.protocol == Version::HTTP_10
        || client.worker.is_moving()
        || client.timeline.is_worn(&client.worker.config.limits)
        || client.worker.common.pressure.is_high()
}

/// The response as the engine takes it.
pub fn respond(head: ResponseHead, body: ResponseBody, close: bool) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_an_exchange_is_small() {
        assert!(size(route) <= 3 * 1024, "{} bytes", size(route));
    }
}
