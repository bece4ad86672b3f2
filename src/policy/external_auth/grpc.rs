//! Asking by gRPC, in Envoy's external authorization protocol.

use std::collections::BTreeMap;
use std::str;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, PROXY_AUTHENTICATE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::fields;
use super::identity::Principal;
use super::judge::Unlisted;
use super::spec::GrpcSpec;
use super::verdict::{Changes, KEPT, NOT_KEPT, Refusal, Said, Verdict};
use crate::policy::exchange::{HeaderEdit, HeaderEditKind};
use crate::policy::{Exchange, Invalid};
use crate::reason::Reason;
use crate::services::ext_authz::{
    Address, Allowed, AttributeContext, CHECK, CheckRequest, CheckResponse, Denied, HeaderOption,
    HttpRequest, HttpResponse, Peer, Request, SocketAddress, Timestamp,
};
use crate::services::{Limits, ServiceId, Services, grpc};

/// `google.rpc.Code.OK`.
const OK: i32 = 0;
/// Most changes of fields that one answer may ask for.
const MAX_EDITS: usize = 100;

#[derive(Debug)]
pub(super) struct Grpc {
    /// What the service gets; empty: all.
    allowed: Vec<HeaderName>,
    /// What the backend gets of a yes; None: all.
    taken: Option<Vec<HeaderName>>,
}

impl Grpc {
    pub fn compile(spec: &GrpcSpec, unlisted: Unlisted) -> Result<Self, Invalid> {
        let list = &spec.allowed_response_headers;
        let taken = fields::taken("grpc.allowedResponseHeaders", list)?;
        let all = taken.is_empty() && unlisted == Unlisted::Taken;
        Ok(Grpc {
            allowed: fields::names("grpc.allowedHeaders", &spec.allowed_headers)?,
            taken: (!all).then_some(taken),
        })
    }

    /// The fields that only the service may write.
    pub fn taken(&self) -> &[HeaderName] {
        self.taken.as_deref().unwrap_or_default()
    }

    /// Asks, and reads what the answer means.
    ///
    /// # Errors
    /// There is no usable answer.
    pub async fn ask(
        &self,
        services: &(impl Services + ?Sized),
        to: ServiceId,
        question: &CheckRequest,
        limits: Limits,
        principal: Option<&Principal>,
    ) -> Result<Said, Reason> {
        let answer: CheckResponse = grpc::unary(services, to, CHECK, question, limits).await?;
        let is_allowed = answer.status.is_some_and(|status| status.code == OK);
        let verdict = match answer.http_response {
            Some(HttpResponse::Allowed(allowed)) if is_allowed => self.allow(allowed, principal)?,
            None if is_allowed => Changes::default().into(),
            Some(HttpResponse::Denied(denied)) => refusal(denied)?,
            _ => Verdict::denied(),
        };
        let keep_ms = if may_be_kept(&verdict) { KEPT } else { NOT_KEPT };
        Ok(Said { verdict, keep_ms })
    }

    fn allow(&self, allowed: Allowed, principal: Option<&Principal>) -> Result<Verdict, Reason> {
        let parameters = allowed.query_parameters_to_set.len();
        if parameters + allowed.query_parameters_to_remove.len() > MAX_EDITS {
            return Err(Reason::UpstreamProtocol);
        }
        let removed = allowed.headers_to_remove.iter().take(MAX_EDITS);
        let removed = removed.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let mut request = edits(allowed.headers)?;
        let said: Vec<_> = request.iter().map(|edit| (&edit.name, &edit.value)).collect();
        let identity = principal.and_then(|who| who.find(&said));
        if let Some(taken) = &self.taken {
            request.retain(|edit| taken.contains(&edit.name));
        }
        let mut answer = edits(allowed.response_headers_to_add)?;
        answer.retain(|edit| !fields::is_framing(&edit.name));
        let set = allowed.query_parameters_to_set.into_iter();
        let changes = Changes {
            identity,
            removed: removed.collect(),
            request,
            answer,
            query_set: set.map(|parameter| (parameter.key, parameter.value)).collect(),
            query_removed: allowed.query_parameters_to_remove,
        };
        Ok(changes.into())
    }

    pub fn question(&self, ex: &Exchange<'_>, body: Bytes) -> CheckRequest {
        let head = &ex.request;
        let source = Peer {
            address: Some(address(ex.client.ip.to_string(), ex.client.peer.port())),
            principal: ex.identity.as_ref().map_or(String::new(), |who| who.name().to_owned()),
        };
        let destination = Peer {
            address: Some(address(String::new(), ex.client.listener_port)),
            principal: String::new(),
        };
        let time = Timestamp {
            seconds: i64::try_from(ex.now_ms / 1000).unwrap_or_default(),
            nanos: i32::try_from(ex.now_ms % 1000).unwrap_or_default() * 1_000_000,
        };
        let length = || head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        let mut http = HttpRequest {
            id: text(head.headers.get("x-request-id")),
            method: head.method.to_string(),
            headers: self.headers(&head.headers),
            path: match &head.query {
                None => head.path.to_string(),
                Some(query) => format!("{}?{query}", head.path),
            },
            host: match head.port {
                None => head.host.to_string(),
                Some(port) => format!("{}:{port}", head.host),
            },
            scheme: head.scheme.as_str().to_owned(),
            size: length().unwrap_or(-1),
            ..HttpRequest::default()
        };
        if !body.is_empty() {
            http.size = i64::try_from(body.len()).unwrap_or(-1);
            match str::from_utf8(&body) {
                Ok(text) => http.body = text.to_owned(),
                Err(_) => http.raw_body = body,
            }
        }
        let request = Request { time: Some(time), http: Some(http) };
        let attributes = AttributeContext {
            source: Some(source),
            destination: Some(destination),
            request: Some(request),
        };
        CheckRequest { attributes: Some(attributes) }
    }

    /// The fields by name, those of one name joined.
    fn headers(&self, all: &HeaderMap) -> BTreeMap<String, String> {
        let is_allowed = |name: &HeaderName| self.allowed.is_empty() || self.allowed.contains(name);
        let joined = |name: &HeaderName| {
            let values: Vec<String> = all.get_all(name).iter().map(|v| text(Some(v))).collect();
            (name.to_string(), values.join(","))
        };
        all.keys().filter(|name| is_allowed(name)).map(joined).collect()
    }
}

fn address(address: String, port: u16) -> Address {
    Address { socket_address: Some(SocketAddress { address, port_value: port.into() }) }
}

fn text(value: Option<&HeaderValue>) -> String {
    String::from_utf8_lossy(value.map_or(b"", HeaderValue::as_bytes)).into_owned()
}

fn may_be_kept(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Allowed(changes) => changes.answer.iter().all(|edit| edit.name != SET_COOKIE),
        Verdict::Denied(refusal) => {
            matches!(refusal.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                && !refusal.headers.contains_key(SET_COOKIE)
        }
    }
}

fn refusal(denied: Denied) -> Result<Verdict, Reason> {
    let code = denied.status.map(|status| u16::try_from(status.code).unwrap_or_default());
    let status = code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = match status {
        None => Reason::AuthDenied.status(),
        Some(status) if status.is_server_error() || Verdict::is_refusal(status) => status,
        Some(_) => return Ok(Verdict::denied()),
    };
    let mut headers = HeaderMap::new();
    for edit in edits(denied.headers)? {
        if !fields::is_framing(&edit.name) || edit.name == PROXY_AUTHENTICATE {
            edit.apply(&mut headers);
        }
    }
    let body = Bytes::from(denied.body);
    let knows_nobody = status == StatusCode::UNAUTHORIZED;
    Ok(Refusal { status, headers, body, knows_nobody }.into())
}

/// The changes that a service asks for.
///
/// # Errors
/// [`Reason::UpstreamProtocol`] if one of them cannot be made: a request must not go on with
/// half of what the service has decided.
fn edits(options: Vec<HeaderOption>) -> Result<Vec<HeaderEdit>, Reason> {
    let one = |option: HeaderOption| {
        let header = option.header?;
        // Pseudo fields, such as `:path`, and Host are not for the service to change.
        if header.key.starts_with(':') {
            return None;
        }
        let name = HeaderName::from_bytes(header.key.as_bytes());
        let value = match header.raw_value.is_empty() {
            true => Bytes::from(header.value),
            false => header.raw_value,
        };
        let value = HeaderValue::from_maybe_shared(value);
        let how = match (option.append, option.append_action) {
            (Some(true), _) => HeaderEditKind::Append,
            (Some(false), _) | (None, 0 | 2) => HeaderEditKind::Set,
            (None, 1) => HeaderEditKind::SetIfAbsent,
            (None, _) => HeaderEditKind::SetIfPresent,
        };
        Some(name.ok().zip(value.ok()).map(|(name, value)| HeaderEdit { name, value, how }))
    };
    if options.len() > MAX_EDITS {
        return Err(Reason::UpstreamProtocol);
    }
    options.into_iter().filter_map(one).collect::<Option<_>>().ok_or(Reason::UpstreamProtocol)
}
