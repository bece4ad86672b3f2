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
    head: Rc<RequestHead>,
    to: Vec<BackendId>,
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
        let to: Vec<_> = mirrors.iter().filter(turn).map(|m| m.to).collect();
        (!to.is_empty()).then(|| Copy {
            worker: Rc::clone(worker),
            graph: Rc::clone(graph),
            head: Rc::new(head.clone()),
            to,
            body: BytesMut::new(),
        })
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
        let Copy { worker, graph, head, to, body } = self;
        let body = body.freeze();
        for backend in to {
            if worker.mirroring.get() >= AT_ONCE {
                return;
            }
            let (worker, graph) = (Rc::clone(&worker), Rc::clone(&graph));
            let (head, body) = (Rc::clone(&head), body.clone());
            worker.mirroring.set(worker.mirroring.get() + 1);
            spawn_local(timed(async move {
                let limit = worker.config.limits.response_timeout;
                let sent = timeout(limit, send(&worker, &graph, backend, &head, body)).await;
                if !matches!(sent, Ok(Some(()))) {
                    tracing::debug!(backend = ?graph[backend].key, "a mirrored request failed");
                }
                worker.mirroring.set(worker.mirroring.get() - 1);
            }));
        }
    }
}

async fn send(
    worker: &Worker,
    graph: &RouteGraph,
    backend: BackendId,
    head: &RequestHead,
    body: Bytes,
) -> Option<()> {
    let backend = &graph[backend];
    let endpoint = pick(backend, &Tried::new())?;
    let addr = endpoint.addr;
    let _in_flight = InFlight::new(endpoint);
    let is_https = matches!(backend.protocol, BackendProtocol::Tls(_));
    let outgoing = Outgoing::new(head, is_https).ok()?;
    let want = Want { http1: false, fresh: false, once: false };
    let mut link = worker.pools.link(backend, addr, want).await.ok()?;
    let body = if body.is_empty() { RequestBody::Empty } else { RequestBody::Full(body) };
    let response = async { link.send(&outgoing, body, &mut |_, _| {})?.await }.await.ok()?;
    discard::read(response.into_body(), usize::MAX).await.then(|| link.release())
}
