//! What the proxy lends to the policies of one request: its body, and services to ask.
//!
//! Both are bounded. What is kept of bodies counts for the whole process, as long as anybody
//! holds it: the service that was asked, a mirror, the backend.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use http::Request;
use http_body::Body;

use super::call::call;
use super::incoming::{BodyError, Incoming};
use super::server::Client;
use super::timer::timeout;
use crate::graph::RouteGraph;
use crate::policy::Lent;
use crate::policy::certificate::Names;
use crate::reason::Reason;
use crate::services::{Answer, Limits, ServiceId, Services};

/// See the module's documentation.
#[derive(Debug)]
pub struct Lender<'a> {
    client: &'a Client,
    graph: &'a RouteGraph,
    body: RefCell<ClientBody>,
}

/// The body of a request, as the policies left it.
#[derive(Debug)]
pub enum ClientBody {
    /// Nobody has looked at it.
    Unread(Incoming),
    /// All of it.
    Kept(Bytes),
    /// Reading it failed, or somebody has it.
    Gone(Reason),
}

impl<'a> Lender<'a> {
    pub fn new(client: &'a Client, graph: &'a RouteGraph, body: Incoming) -> Self {
        Lender { client, graph, body: RefCell::new(ClientBody::Unread(body)) }
    }

    /// The body, for the backend.
    pub fn take(&self) -> ClientBody {
        self.body.replace(ClientBody::Gone(Reason::Internal))
    }

    async fn whole(&self, most: usize) -> Result<Bytes, Reason> {
        let bytes = match self.take() {
            ClientBody::Gone(reason) => return Err(reason),
            ClientBody::Kept(bytes) => bytes,
            ClientBody::Unread(body) => {
                let worker = &self.client.worker;
                let limits = &worker.config.limits;
                let room = Room::new(&worker.common.kept_bytes, limits.kept_bytes);
                match collect(body, most, room, limits.request_body_idle).await {
                    Ok(bytes) => bytes,
                    Err(Stopped { reason, body }) => {
                        let left = body.map_or(ClientBody::Gone(reason), ClientBody::Unread);
                        self.body.replace(left);
                        return Err(reason);
                    }
                }
            }
        };
        self.body.replace(ClientBody::Kept(bytes.clone()));
        if bytes.len() > most {
            return Err(Reason::BodyTooLarge);
        }
        Ok(bytes)
    }
}

impl Services for Lender<'_> {
    fn call(
        &self,
        to: ServiceId,
        request: Request<Bytes>,
        limits: Limits,
    ) -> LocalBoxFuture<'_, Result<Answer, Reason>> {
        Box::pin(call(&self.client.worker, self.graph, to, request, limits))
    }
}

impl Lent for Lender<'_> {
    fn body(&self, most: usize) -> LocalBoxFuture<'_, Result<Bytes, Reason>> {
        Box::pin(self.whole(most))
    }

    fn certificate(&self) -> Option<&Names> {
        self.client.tls.as_ref()?.client_names()
    }
}

/// Reads all of a body. A client may be silent for `idle` at most.
async fn collect(
    mut body: Incoming,
    most: usize,
    mut room: Room,
    idle: Duration,
) -> Result<Bytes, Stopped> {
    let known = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let fits = if known > most { Err(Reason::BodyTooLarge) } else { room.take(known) };
    if let Err(reason) = fits {
        return Err(Stopped { reason, body: Some(body) });
    }
    let failed = |reason| Stopped { reason, body: None };
    let mut data = BytesMut::with_capacity(known);
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let frame = timeout(idle, frame).await.map_err(|_| failed(Reason::ClientTimeout))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| match error {
            BodyError::Gone => failed(Reason::ClientGone),
            BodyError::Malformed(_) => failed(Reason::BadRequest),
        })?;
        let Ok(part) = frame.into_data() else { continue };
        data.extend_from_slice(&part);
        let more = data.len().saturating_sub(room.taken);
        let fits = if data.len() > most { Err(Reason::BodyTooLarge) } else { room.take(more) };
        if let Err(reason) = fits {
            let first = Bytes::from_owner(Kept { data, _room: room });
            return Err(Stopped { reason, body: Some(Incoming::begun(first, body)) });
        }
    }
    Ok(Bytes::from_owner(Kept { data, _room: room }))
}

/// Why a body was not collected; and the body, if somebody else may still have it.
struct Stopped {
    reason: Reason,
    body: Option<Incoming>,
}

/// Bytes that are counted until nobody holds them any more.
struct Kept {
    data: BytesMut,
    _room: Room,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// A part of what the process may keep of bodies.
struct Room {
    all: Arc<AtomicUsize>,
    most: usize,
    taken: usize,
}

impl Room {
    fn new(all: &Arc<AtomicUsize>, most: usize) -> Self {
        Room { all: Arc::clone(all), most, taken: 0 }
    }

    fn take(&mut self, more: usize) -> Result<(), Reason> {
        let before = self.all.fetch_add(more, Relaxed);
        self.taken += more;
        if before.saturating_add(more) > self.most { Err(Reason::Overloaded) } else { Ok(()) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.fetch_sub(self.taken, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_when_the_last_holder_of_the_bytes_is_gone() {
        let all = Arc::default();
        let mut room = Room::new(&all, 10);
        room.take(4).unwrap();
        room.take(6).unwrap();
        assert_eq!(Room::new(&all, 10).take(1), Err(Reason::Overloaded));
        assert_eq!(all.load(Relaxed), 10, "a refusal takes nothing");
        let bytes = Bytes::from_owner(Kept { data: BytesMut::from(&b"abc"[..]), _room: room });
        let part = bytes.slice(1..);
        drop(bytes);
        assert_eq!(all.load(Relaxed), 10);
        drop(part);
        assert_eq!(all.load(Relaxed), 0);
    }
}
