//! The admin address: `/livez`, `/readyz`, `/metrics` and `/peer` for everyone who can reach it;
//! `/drain`, `/problems` and `/config` for loopback peers only.
//!
//! A small HTTP/1.1 server on the control plane's runtime, bounded in connections, time and
//! memory. It shows and never decides: what `/drain` starts is `lifecycle`'s, what `/metrics`
//! prints comes from `telemetry`, `health` and `source`. What `/config` shows is in `config`.

mod config;
mod metrics;
mod peer;
mod problems;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::controller::peers::Listening;
use crate::graph::Shared;
use crate::lifecycle::{Lifecycle, Phase};
pub use metrics::ControlPlane;
pub use problems::problems;

/// Connections at once, and of one address: a noisy neighbour must not starve the kubelet.
const MAX_CONNECTIONS: usize = 256;
const MAX_PER_ADDRESS: usize = 16;
/// For a whole request head, and for the silence between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

type Body = UnsyncBoxBody<Bytes, Infallible>;
/// Makes all metrics, in the OpenMetrics text format.
pub type Metrics = Box<dyn Fn() -> String + Send + Sync>;
/// Makes a JSON document.
pub type Document = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What the admin address shows.
pub struct Admin {
    pub lifecycle: Lifecycle,
    pub shared: Arc<Shared>,
    /// Who this process is among its peers; see [`PeerReport::identity`].
    pub identity: String,
    pub listening: Listening,
    pub metrics: Metrics,
    pub problems: Document,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Admin {
    /// Serves until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let guests = Arc::new(Guests::default());
        loop {
            let (stream, remote) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: others will be closed meanwhile.
                    tracing::warn!(%error, "cannot accept a connection at the admin address");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let address = remote.ip().to_canonical();
            let Some(guest) = Guests::admit(&guests, address) else { continue };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
            let admin = Arc::clone(&self);
            tokio::spawn(async move {
                admin.converse(stream, remote).await;
                drop((guest, slot));
            });
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        // Lines of `/peer` are small and must not wait for each other.
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request: Request<Incoming>| {
            let admin = Arc::clone(&self);
            async move {
                let local = remote.ip().to_canonical().is_loopback();
                Ok::<_, Infallible>(
                    admin.answer(request.method(), request.uri().path(), local).await,
                )
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%remote, %error, "a connection to the admin address ended early");
        }
    }

    async fn answer(&self, method: &Method, path: &str, local: bool) -> Response<Body> {
        let loopback_only = matches!(path, "/drain" | "/problems" | "/config");
        if loopback_only && !local {
            return text(StatusCode::FORBIDDEN, "only from loopback\n");
        }
        let allowed = if path == "/drain" { Method::POST } else { Method::GET };
        if method != allowed && !(allowed == Method::GET && method == Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "");
            let value = if path == "/drain" { "POST" } else { "GET, HEAD" };
            refusal.headers_mut().insert(ALLOW, http::HeaderValue::from_static(value));
            return refusal;
        }
        match path {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            "/peer" => peer::stream(&self.identity, &self.lifecycle, &self.listening),
            "/drain" => self.drain().await,
            "/problems" => json(&(self.problems)()),
            "/config" => json(&config::summary(&self.shared.load())),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn readiness(&self) -> Response<Body> {
        match self.lifecycle.phase() {
            Phase::Ready => text(StatusCode::OK, "ok\n"),
            Phase::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Phase::Leaving => text(StatusCode::SERVICE_UNAVAILABLE, "leaving\n"),
            Phase::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            Phase::Stopped => text(StatusCode::SERVICE_UNAVAILABLE, "stopped\n"),
        }
    }

    fn metrics(&self) -> Response<Body> {
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        typed(StatusCode::OK, content_type, (self.metrics)())
    }

    /// Answers once the delay is over, so that a preStop hook lasts as long as it must.
    async fn drain(&self) -> Response<Body> {
        self.lifecycle.advance(Phase::Leaving);
        self.lifecycle.reached(Phase::Draining).await;
        text(StatusCode::OK, "draining\n")
    }
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn json(value: &serde_json::Value) -> Response<Body> {
    typed(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

/// How many connections each address holds.
#[derive(Debug, Default)]
struct Guests(Mutex<HashMap<IpAddr, usize>>);

/// One connection's entry in the list of guests.
struct Guest {
    guests: Arc<Guests>,
    address: IpAddr,
}

impl Guests {
    fn admit(guests: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        let mut held = guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= MAX_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Guest { guests: Arc::clone(guests), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut held = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
