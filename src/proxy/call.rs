//! Calls of policies to services: one request with a whole body, one answer of bounded length,
//! over the same endpoints, connections and TLS as requests that are forwarded.
//!
//! A call is sent again to another endpoint if connecting failed, and on a new connection if a
//! kept one broke before the head of the answer came: a service that policies ask must not mind
//! to be asked twice.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, TE};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body::Body;

use super::balance::{InFlight, Tried, avoid, pick};
use super::hop_by_hop;
use super::http1::client::{SendError, WriteHead};
use super::http1::encode;
use super::http1::framing::Framing;
use super::incoming::Incoming;
use super::pool::{Head, Link, Want};
use super::request_body::RequestBody;
use super::timer::timeout;
use super::worker::Worker;
use crate::graph::{Backend, BackendKey, BackendProtocol, Endpoint, RouteGraph};
use crate::reason::Reason;
use crate::services::{Answer, Limits, ServiceId};

/// How often a call is sent at most.
const MOST_ATTEMPTS: usize = 3;

/// See [`crate::services::Services::call`].
pub async fn call(
    worker: &Worker,
    graph: &RouteGraph,
    to: ServiceId,
    request: Request<Bytes>,
    limits: Limits,
) -> Result<Answer, Reason> {
    let backend = graph.backends.get(to.0 as usize).ok_or(Reason::Internal)?;
    let call = Call { worker, backend, request: &request, limits };
    timeout(limits.timeout, call.run()).await.unwrap_or(Err(Reason::BackendTimeout))
}

struct Call<'a> {
    worker: &'a Worker,
    backend: &'a Backend,
    request: &'a Request<Bytes>,
    limits: Limits,
}

/// Why an attempt failed, and what may be tried next.
enum Failed {
    Unreachable(Reason),
    /// A connection that had served before broke, and no answer came.
    Stale(Reason),
    Finally(Reason),
}

impl Call<'_> {
    async fn run(&self) -> Result<Answer, Reason> {
        let (mut tried, mut fresh, mut last) = (Tried::new(), false, Reason::NoEndpoints);
        for _ in 0..MOST_ATTEMPTS {
            let Some(endpoint) = pick(self.backend, &tried) else { break };
            match self.attempt(&endpoint, fresh).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Finally(reason)) => return Err(reason),
                Err(Failed::Stale(reason)) => (fresh, last) = (true, reason),
                Err(Failed::Unreachable(reason)) => {
                    avoid(&endpoint);
                    tried.push(endpoint);
                    last = reason;
                }
            }
        }
        Err(last)
    }

    async fn attempt(&self, endpoint: &Arc<Endpoint>, fresh: bool) -> Result<Answer, Failed> {
        let _in_flight = InFlight::new(Arc::clone(endpoint));
        let want = Want { http1: false, fresh, once: false };
        let link = self.worker.pools.link(self.backend, endpoint.addr, want);
        // There must be time left for another endpoint.
        let mut link = timeout(self.limits.timeout / 2, link)
            .await
            .unwrap_or(Err(Reason::ConnectTimeout))
            .map_err(Failed::Unreachable)?;
        let was_kept = link.is_kept;
        let head = Asking::new(self).ok_or(Failed::Finally(Reason::Internal))?;
        let body = match self.request.body() {
            bytes if bytes.is_empty() => RequestBody::Empty,
            bytes => RequestBody::Full(bytes.clone()),
        };
        let sent = async { link.send(&head, body, &mut |_, _| {})?.await }.await;
        let response = sent.map_err(|error| {
            tracing::debug!(%error, backend = ?self.backend.key, "a call of a policy broke");
            match error {
                SendError::Protocol(_) => Failed::Finally(Reason::UpstreamProtocol),
                SendError::Request(reason) => Failed::Finally(reason),
                _ if was_kept => Failed::Stale(Reason::UpstreamReset),
                _ => Failed::Unreachable(Reason::UpstreamReset),
            }
        })?;
        read(response, link, self.limits.max_body).await.map_err(Failed::Finally)
    }
}

/// The head of a call.
struct Asking<'a> {
    request: &'a Request<Bytes>,
    authority: Authority,
    is_https: bool,
}

impl<'a> Asking<'a> {
    fn new(call: &Call<'a>) -> Option<Self> {
        let host = match call.request.headers().get(HOST) {
            Some(host) => Bytes::copy_from_slice(host.as_bytes()),
            None => Bytes::from(own_host(&call.backend.key)),
        };
        Some(Asking {
            request: call.request,
            authority: Authority::from_maybe_shared(host).ok()?,
            is_https: matches!(call.backend.protocol, BackendProtocol::Tls(_)),
        })
    }
}

impl WriteHead for Asking<'_> {
    fn method(&self) -> &Method {
        self.request.method()
    }

    fn write(&self, out: &mut BytesMut, framing: Framing) -> Result<(), Reason> {
        let uri = self.request.uri();
        encode::request_line(out, self.request.method(), uri.path(), uri.query());
        let host = HeaderValue::from_str(self.authority.as_str()).map_err(|_| Reason::Internal)?;
        encode::field(out, &HOST, &host);
        let mut headers = self.request.headers().clone();
        headers.remove(HOST);
        headers.remove(TE);
        encode::fields(out, &headers);
        // A policy that tells the length tells it of no body too (GEP-1494).
        let is_told = framing == Framing::Empty && headers.contains_key(CONTENT_LENGTH);
        encode::framing(out, if is_told { Framing::Length(0) } else { framing });
        Ok(())
    }
}

impl Head for Asking<'_> {
    fn http2(&self, body: RequestBody) -> Result<Request<RequestBody>, Reason> {
        let mut request = Request::new(body);
        *request.method_mut() = self.request.method().clone();
        *request.headers_mut() = self.request.headers().clone();
        request.headers_mut().remove(HOST);
        let mut parts = Parts::default();
        parts.scheme = Some(if self.is_https { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = self.request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Reason::Internal)?;
        Ok(request)
    }
}

/// What a service is called where nobody says another name.
fn own_host(key: &BackendKey) -> String {
    format!("{}.{}.svc:{}", key.service, key.namespace, key.port)
}

/// Reads an answer, at most `most` bytes of its body. Its connection is used again only if it
/// was read to its end.
async fn read(response: Response<Incoming>, link: Link, most: usize) -> Result<Answer, Reason> {
    let (parts, mut body) = response.into_parts();
    let mut headers = parts.headers;
    hop_by_hop::strip(&mut headers);
    let mut answer = Answer { status: parts.status, headers, ..Answer::default() };
    let mut data = BytesMut::new();
    let mut body = Pin::new(&mut body);
    loop {
        let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
        let Some(frame) = frame else {
            answer.is_whole = true;
            break;
        };
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "a service broke off its answer to a policy");
            Reason::UpstreamReset
        })?;
        match frame.into_data() {
            Ok(part) => {
                let room = most - data.len();
                data.extend_from_slice(&part[..part.len().min(room)]);
                if part.len() > room {
                    break;
                }
            }
            Err(frame) => {
                answer.trailers = frame.into_trailers().unwrap_or_else(|_| HeaderMap::new())
            }
        }
    }
    answer.body = data.freeze();
    if answer.is_whole {
        link.release();
    }
    Ok(answer)
}
