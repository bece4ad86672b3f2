//! Copies of requests for mirrors (HTTPRoute `requestMirror`).
//!
//! A copy never slows the original: the body is copied while it passes, up to a bound, and the
//! copy is sent once the original's body has ended. Longer bodies are not mirrored. Answers
//! are thrown away.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_local;

use super::balance::{InFlight, Tried, pick};
use super::discard;
use super::outgoing::Outgoing;
use super::pool::Want;
use super::request_body::RequestBody;
use super::timer::{timed, timeout};
use super::worker::{Graph, Worker};
use crate::graph::{BackendId, BackendProtocol, Mirror, RouteGraph};
use crate::policy::RequestHead;

/// Mirrored requests of one worker that may be under way at once; more are not sent.
const AT_ONCE: usize = 256;

/// A copy that is being made.
#[derive(Debug)]
pub struct Copy {
    worker: Rc<Worker>,
    graph: Graph,
    to: Vec<(BackendId, Outgoing)>,
    body: BytesMut,
}

impl Copy {
    /// A copy for those of `mirrors` whose turn it is.
    pub fn of(
        worker: &Rc<Worker>,
        graph: &Graph,
        mirrors: &[Mirror],
        head: &RequestHead,
    ) -> Option<Self> {
        let turn = |m: &&Mirror| fastrand::u32(..m.denominator.max(1)) < m.numerator;
        let copy = |m: &Mirror| Some((m.to, Outgoing::new(head, is_https(graph, m.to)).ok()?));
        let to: Vec<_> = mirrors.iter().filter(turn).filter_map(copy).collect();
        let (worker, graph) = (Rc::clone(worker), Rc::clone(graph));
        (!to.is_empty()).then(|| Copy { worker, graph, to, body: BytesMut::new() })
    }

    /// Adds a part of the body; false if it has become too long.
    pub fn push(&mut self, data: &Bytes) -> bool {
        let fits = self.body.len() + data.len() <= self.worker.config.limits.mirror_bytes;
        if fits {
            self.body.extend_from_slice(data);
        }
        fits
    }

    /// The original's body has ended: sends the copies.
    pub fn send(self) {
        let Copy { worker, graph, to, body } = self;
        let body = body.freeze();
        for (backend, outgoing) in to {
            if worker.mirroring.get() >= AT_ONCE {
                return;
            }
            let (worker, graph, body) = (Rc::clone(&worker), Rc::clone(&graph), body.clone());
            worker.mirroring.set(worker.mirroring.get() + 1);
            spawn_local(timed(async move {
                let limit = worker.config.limits.response_timeout;
                let sent = timeout(limit, send(&worker, &graph, backend, &outgoing, body)).await;
                if !matches!(sent, Ok(Some(()))) {
                    tracing::debug!(backend = ?graph[backend].key, "a mirrored request failed");
                }
                worker.mirroring.set(worker.mirroring.get() - 1);
            }));
        }
    }
}

fn is_https(graph: &RouteGraph, backend: BackendId) -> bool {
    matches!(graph[backend].protocol, BackendProtocol::Tls(_))
}

async fn send(
    worker: &Worker,
    graph: &RouteGraph,
    backend: BackendId,
    outgoing: &Outgoing,
    body: Bytes,
) -> Option<()> {
    let backend = &graph[backend];
    let endpoint = pick(backend, &Tried::new())?;
    let addr = endpoint.addr;
    let _in_flight = InFlight::new(endpoint);
    let want = Want { http1: false, fresh: false };
    let mut link = worker.pools.link(backend, addr, want).await.ok()?;
    let body = if body.is_empty() { RequestBody::Empty } else { RequestBody::Full(body) };
    let response = link.send(outgoing.request(link.is_http2(), body).ok()?).await.ok()?;
    discard::read(response.into_body(), usize::MAX).await.then(|| link.release())
}
