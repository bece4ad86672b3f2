//! Asks a service whether a request may go on (HTTPRoute `ExternalAuth`, GEP-1494): by plain
//! HTTP, where 200 means yes, or by gRPC in Envoy's external authorization protocol.
//!
//! It fails closed: if the service cannot be asked, is slow or gives no usable answer, the
//! client gets 503 and nothing of what the service said. A refusal is the service's own answer
//! with its status, fields and body, so that it can ask for credentials or send the client to a
//! login. What the two protocols send and what they read is in [`http`] and [`grpc`], which
//! fields may cross is in [`fields`].

mod fields;
mod grpc;
mod http;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use ::http::StatusCode;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Exchange, Invalid, Policy, Refs, Reply, ResponseHead};
use crate::reason::Reason;
use crate::services::{Limits, ServiceId};

/// The field of a Spec that names the service.
pub const BACKEND_REF: &str = "backendRef";
/// Most bytes of a body that is sent to the service.
const MAX_BODY: i32 = 1024 * 1024;
/// Most requests of one policy that wait for the service; more are refused as overload.
const MAX_ASKING: usize = 1024;
/// The bounds of one question. A refusal's body goes to the client, if it is not longer.
const LIMITS: Limits = Limits { timeout: Duration::from_millis(500), max_body: 64 * 1024 };

/// A service that decides whether requests go on. It has half a second; without an answer the
/// request is refused with 503.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExternalAuth")]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The service that is asked.
    pub backend_ref: BackendRef,
    /// How it is asked: HTTP, where 200 lets the request go on and every other answer goes to
    /// the client; or GRPC, by Envoy's `envoy.service.auth.v3.Authorization`.
    pub protocol: Protocol,
    /// What is sent and taken over with protocol HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSpec>,
    /// What is sent with protocol GRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcSpec>,
    /// Sends the body of the request too; it is read to its end before anything goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_body: Option<ForwardBody>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    /// The API group; empty (the core group) by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// The kind; `Service` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The namespace, if it is another one; a ReferenceGrant there must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The Service's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "GRPC")]
    Grpc,
}

/// The service gets the method, Host, the path and query, Content-Length and Authorization of
/// the request, and what is listed here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpSpec {
    /// Put before the path of the request; nothing by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Fields of the request that the service gets too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allowed_headers: Vec<String>,
    /// Fields of the answer that the request to the backend gets; what the client wrote in
    /// them is removed. Empty: all but those that describe the answer itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allowed_response_headers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcSpec {
    /// Fields of the request that the service gets; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allowed_headers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForwardBody {
    /// Longest body in bytes; a longer one is refused with 413. 0: the body is not sent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub max_size: i32,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ExternalAuth {
    service: ServiceId,
    protocol: Compiled,
    /// Longest body that is sent along; None: none is.
    most_body: Option<usize>,
    /// Requests that wait for the service; outlives a graph.
    asking: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Compiled {
    Http(http::Http),
    Grpc(grpc::Grpc),
}

impl Policy for ExternalAuth {
    type Spec = Spec;

    fn compile(spec: &Spec, refs: &Refs) -> Result<Self, Invalid> {
        let protocol = match (spec.protocol, &spec.http, &spec.grpc) {
            (Protocol::Http, _, Some(_)) => {
                return Err(Invalid::new("grpc", "protocol is HTTP; remove this or use GRPC"));
            }
            (Protocol::Grpc, Some(_), _) => {
                return Err(Invalid::new("http", "protocol is GRPC; remove this or use HTTP"));
            }
            (Protocol::Http, http, None) => {
                Compiled::Http(http::Http::compile(&http.clone().unwrap_or_default())?)
            }
            (Protocol::Grpc, None, grpc) => {
                let allowed = grpc.as_ref().map_or(&[][..], |grpc| &grpc.allowed_headers);
                Compiled::Grpc(grpc::Grpc::compile(allowed)?)
            }
        };
        let max_size = spec.forward_body.as_ref().map_or(0, |body| body.max_size);
        if !(0..=MAX_BODY).contains(&max_size) {
            let message = format!("{max_size} bytes cannot be kept; use 0 to {MAX_BODY}");
            return Err(Invalid::new("forwardBody.maxSize", message));
        }
        let service = refs.services.get(BACKEND_REF).copied();
        Ok(ExternalAuth {
            service: service.ok_or_else(|| {
                let message = format!("{} does not exist; create it", spec.backend_ref.name);
                Invalid::new(BACKEND_REF, message)
            })?,
            protocol,
            most_body: usize::try_from(max_size).ok().filter(|most| *most > 0),
            asking: Arc::default(),
        })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        // Boxed: every request has room for the future of any policy, and this one is large.
        Box::pin(self.ask(ex)).await
    }

    fn on_response(&self, ex: &Exchange<'_>, res: &mut ResponseHead) {
        for edit in ex.answer_edits.take() {
            edit.apply(&mut res.headers);
        }
    }

    fn adopt(&mut self, old: &Self) {
        self.asking = Arc::clone(&old.asking);
    }
}

impl ExternalAuth {
    async fn ask(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        let body = match self.most_body {
            None => Bytes::new(),
            Some(most) => match ex.lent.body(most).await {
                Ok(body) => body,
                Err(reason) => return ControlFlow::Break(Reply::of(reason)),
            },
        };
        let Some(_turn) = Turn::take(&self.asking) else {
            return ControlFlow::Break(Reply::of(Reason::Overloaded));
        };
        let verdict = match &self.protocol {
            Compiled::Http(http) => http.ask(self.service, ex, body).await,
            Compiled::Grpc(grpc) => grpc.ask(self.service, ex, body).await,
        };
        match verdict {
            Ok(Verdict::Allowed) => ControlFlow::Continue(()),
            Ok(Verdict::Denied(reply)) => ControlFlow::Break(*reply),
            Err(reason) => {
                tracing::debug!(%reason, "an external authorization service gave no answer");
                ControlFlow::Break(Reply::of(Reason::AuthUnavailable))
            }
        }
    }
}

/// What a service said. The changes that it wants are made already.
#[derive(Debug)]
enum Verdict {
    Allowed,
    Denied(Box<Reply>),
}

impl Verdict {
    /// Refused without a word for the client.
    fn denied() -> Self {
        Verdict::Denied(Box::new(Reply::of(Reason::AuthDenied)))
    }

    /// Whether a client can be given this status as a refusal: of the others some would say
    /// that the request was served, and some that it was not the client's fault.
    fn is_refusal(status: StatusCode) -> bool {
        status.is_redirection() || status.is_client_error()
    }
}

/// One of the requests that may wait, until it is dropped.
struct Turn<'a>(&'a AtomicUsize);

impl<'a> Turn<'a> {
    fn take(asking: &'a AtomicUsize) -> Option<Self> {
        let turn = Turn(asking);
        (asking.fetch_add(1, Relaxed) < MAX_ASKING).then_some(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
