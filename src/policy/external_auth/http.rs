//! Asking by plain HTTP: the service gets the head of the request under a path of its own, and
//! 200 means yes.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};

use super::{HttpSpec, LIMITS, Verdict, fields};
use crate::policy::path_modifier::absolute;
use crate::policy::{Exchange, Invalid, Reply, RequestHead};
use crate::reason::Reason;
use crate::services::{Answer, ServiceId};

#[derive(Debug)]
pub(super) struct Http {
    /// Without a trailing slash: empty for none.
    prefix: Box<str>,
    /// What the service gets besides what it always gets.
    allowed: Vec<HeaderName>,
    /// What the backend gets of the answer; empty: all.
    taken: Vec<HeaderName>,
}

impl Http {
    pub fn compile(spec: &HttpSpec) -> Result<Self, Invalid> {
        let prefix = match spec.path.as_deref().filter(|path| !path.is_empty()) {
            None => String::new(),
            Some(path) => absolute("http.path", path)?,
        };
        let field = "http.allowedResponseHeaders";
        let taken = fields::names(field, &spec.allowed_response_headers)?;
        if let Some(i) = taken.iter().position(fields::is_of_proxy) {
            let message = format!("{} is set by the proxy alone; leave it out", taken[i]);
            return Err(Invalid::new(format!("{field}[{i}]"), message));
        }
        Ok(Http {
            prefix: prefix.trim_end_matches('/').into(),
            allowed: fields::names("http.allowedHeaders", &spec.allowed_headers)?,
            taken,
        })
    }

    pub async fn ask(
        &self,
        to: ServiceId,
        ex: &mut Exchange<'_>,
        body: Bytes,
    ) -> Result<Verdict, Reason> {
        let request = self.request(&ex.request, body)?;
        let answer = ex.lent.call(to, request, LIMITS).await?;
        if answer.status == StatusCode::OK {
            self.take_over(&mut ex.request.headers, &answer.headers);
            return Ok(Verdict::Allowed);
        }
        if answer.status.is_server_error() {
            tracing::debug!(status = %answer.status, "an authorization service failed");
            return Err(Reason::UpstreamProtocol);
        }
        Ok(if Verdict::is_refusal(answer.status) { refusal(answer) } else { Verdict::denied() })
    }

    fn request(&self, head: &RequestHead, body: Bytes) -> Result<Request<Bytes>, Reason> {
        let (prefix, path) = (&self.prefix, &head.path);
        let target = match &head.query {
            None => format!("{prefix}{path}"),
            Some(query) => format!("{prefix}{path}?{query}"),
        };
        let target = PathAndQuery::from_maybe_shared(Bytes::from(target));
        let host = match head.port {
            None => HeaderValue::from_str(&head.host),
            Some(port) => HeaderValue::try_from(format!("{}:{port}", head.host)),
        };
        let mut headers = HeaderMap::new();
        for name in self.allowed.iter().chain([&AUTHORIZATION]) {
            if !headers.contains_key(name) && !fields::is_framing(name) {
                for value in head.headers.get_all(name) {
                    headers.append(name, value.clone());
                }
            }
        }
        headers.insert(HOST, host.map_err(|_| Reason::Internal)?);
        headers.insert(CONTENT_LENGTH, body.len().into());
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = Uri::from(target.map_err(|_| Reason::Internal)?);
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Puts the answer's fields into the request. What is listed comes from the service alone:
    /// a client cannot say it where the service does not.
    fn take_over(&self, headers: &mut HeaderMap, answer: &HeaderMap) {
        for name in &self.taken {
            headers.remove(name);
            fields::remove_look_alikes(headers, name);
        }
        let all = self.taken.is_empty();
        let is_taken = |name: &HeaderName| match all {
            true => !fields::is_of_proxy(name) && !fields::is_of_message(name),
            false => self.taken.contains(name),
        };
        for name in answer.keys().filter(|name| is_taken(name)) {
            headers.remove(name);
            fields::remove_look_alikes(headers, name);
            for value in answer.get_all(name) {
                headers.append(name, value.clone());
            }
        }
    }
}

/// The service's own answer, for the client.
fn refusal(answer: Answer) -> Verdict {
    let Answer { status, headers: all, body, is_whole, .. } = answer;
    let mut headers = HeaderMap::with_capacity(all.len());
    // A body that is too long is left out, and what tells of it.
    let is_kept = |name: &HeaderName| {
        !fields::is_framing(name) && (is_whole || !name.as_str().starts_with("content-"))
    };
    for (name, value) in all.iter().filter(|(name, _)| is_kept(name)) {
        headers.append(name, value.clone());
    }
    let body = if is_whole { body } else { Bytes::new() };
    Verdict::Denied(Box::new(Reply { status, headers, body, reason: Reason::AuthDenied }))
}
