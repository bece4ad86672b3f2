//! Asking by plain HTTP: the service gets the head of the request under a path of its own, and
//! 200 means yes; or it is told of the request in fields, see [`super::original`], and any 2xx
//! means yes.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HOST, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use regex::Regex;

use super::identity::Principal;
use super::judge::Unlisted;
use super::sign_in::SignIn;
use super::spec::{AskMethod, HttpSpec};
use super::verdict::{Changes, KEPT, NOT_KEPT, Refusal, Said, Verdict};
use super::{fields, original};
use crate::policy::exchange::{HeaderEdit, HeaderEditKind};
use crate::policy::path_modifier::absolute;
use crate::policy::{Invalid, RequestHead, rewrite};
use crate::reason::Reason;
use crate::services::Answer;

#[derive(Debug)]
pub(super) struct Http {
    /// Without a trailing slash, empty for none; or the whole path, where the request is told in
    /// fields.
    path: Box<str>,
    /// The request is told in fields.
    forwards_original: bool,
    /// None: that of the request.
    method: Option<Method>,
    /// What the service gets besides what it always gets; empty where the request is told in
    /// fields: all.
    allowed: Vec<HeaderName>,
    /// What the backend gets of the answer.
    taken: Taken,
    /// Names of cookies that the client gets with a yes.
    cookies: Vec<String>,
    sign_in: Option<SignIn>,
}

/// Which fields of an answer go to the backend.
#[derive(Debug)]
struct Taken {
    names: Vec<HeaderName>,
    pattern: Option<Regex>,
    /// All, where nothing is listed: see [`Unlisted`].
    all: bool,
}

impl Http {
    pub fn compile(spec: &HttpSpec, unlisted: Unlisted) -> Result<Self, Invalid> {
        let path = match spec.path.as_deref().filter(|path| !path.is_empty()) {
            None => String::new(),
            Some(path) => absolute("http.path", path)?,
        };
        let path = match spec.forward_original {
            true if path.is_empty() => "/".into(),
            true => path.into(),
            false => path.trim_end_matches('/').into(),
        };
        let method = match spec.method {
            Some(AskMethod::Get) => Some(Method::GET),
            Some(AskMethod::Head) => Some(Method::HEAD),
            Some(AskMethod::Post) => Some(Method::POST),
            None => spec.forward_original.then_some(Method::GET),
        };
        Ok(Http {
            path,
            forwards_original: spec.forward_original,
            method,
            allowed: fields::names("http.allowedHeaders", &spec.allowed_headers)?,
            taken: Taken::compile(spec, unlisted)?,
            cookies: spec.response_cookies.clone(),
            sign_in: spec.sign_in.as_ref().map(SignIn::compile).transpose()?,
        })
    }

    pub fn question(&self, head: &RequestHead, body: Bytes) -> Result<Request<Bytes>, Reason> {
        let mut headers = match self.forwards_original {
            true => original::fields(head, &self.allowed),
            false => self.fields(head)?,
        };
        if !self.forwards_original || !body.is_empty() {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        let target = match (self.forwards_original, &head.query) {
            (true, _) => self.path.to_string(),
            (false, None) => format!("{}{}", self.path, head.path),
            (false, Some(query)) => format!("{}{}?{query}", self.path, head.path),
        };
        let target = PathAndQuery::from_maybe_shared(Bytes::from(target));
        let mut request = Request::new(body);
        *request.method_mut() = self.method.as_ref().unwrap_or(&head.method).clone();
        *request.uri_mut() = Uri::from(target.map_err(|_| Reason::Internal)?);
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Those of the request that the service gets, and Host.
    fn fields(&self, head: &RequestHead) -> Result<HeaderMap, Reason> {
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
        Ok(headers)
    }

    /// What an answer to `head` means.
    ///
    /// # Errors
    /// The service failed.
    pub fn read(
        &self,
        head: &RequestHead,
        answer: Answer,
        principal: Option<&Principal>,
    ) -> Result<Said, Reason> {
        let status = answer.status;
        let is_yes = status == StatusCode::OK || (self.forwards_original && status.is_success());
        if status.is_server_error() {
            tracing::debug!(%status, "an authorization service failed");
            return Err(Reason::UpstreamProtocol);
        }
        let mut keep_ms = keep_ms(&answer);
        let verdict = if is_yes {
            let mut changes = self.changes(&answer.headers);
            changes.identity = principal.and_then(|who| {
                let fields: Vec<_> = answer.headers.iter().collect();
                who.find(&fields)
            });
            changes.into()
        } else {
            match &self.sign_in {
                Some(sign_in) if status == StatusCode::UNAUTHORIZED => {
                    // It leads back to this very request.
                    keep_ms = NOT_KEPT;
                    sign_in.redirect(head, &answer.headers)?.into()
                }
                _ if Verdict::is_refusal(status) => refusal(answer).into(),
                _ => Verdict::denied(),
            }
        };
        Ok(Said { verdict, keep_ms })
    }

    fn changes(&self, answer: &HeaderMap) -> Changes {
        let mut changes = Changes::default();
        for name in answer.keys().filter(|name| self.taken.takes(name)) {
            let mut how = HeaderEditKind::Set;
            for value in answer.get_all(name) {
                let edit = HeaderEdit { name: name.clone(), value: value.clone(), how };
                changes.request.push(edit);
                how = HeaderEditKind::Append;
            }
        }
        for value in answer.get_all(SET_COOKIE) {
            let (name, value, how) = (SET_COOKIE, value.clone(), HeaderEditKind::Append);
            if self.cookies.iter().any(|cookie| sets(&value, cookie)) {
                changes.answer.push(HeaderEdit { name, value, how });
            }
        }
        changes
    }

    /// Removes what only the service may say: where it says nothing, nobody does.
    pub fn strip(&self, headers: &mut HeaderMap) {
        fields::strip(&self.taken.names, headers);
        let Some(pattern) = &self.taken.pattern else { return };
        let is_like = |name: &&HeaderName| {
            let text = name.as_str();
            pattern.is_match(text) || pattern.is_match(&text.replace('_', "-"))
        };
        let found = headers.keys().filter(|name| !fields::is_of_proxy(name)).filter(is_like);
        for name in found.cloned().collect::<Vec<_>>() {
            headers.remove(name);
        }
    }
}

impl Taken {
    fn compile(spec: &HttpSpec, unlisted: Unlisted) -> Result<Self, Invalid> {
        let field = "http.allowedResponseHeaders";
        let names = fields::taken(field, &spec.allowed_response_headers)?;
        let pattern = spec.allowed_response_headers_regex.as_deref();
        let regex = |pattern| rewrite::regex("http.allowedResponseHeadersRegex", pattern);
        let pattern = pattern.map(regex).transpose()?;
        let lists_none = names.is_empty() && pattern.is_none();
        let all = lists_none && !spec.forward_original && unlisted == Unlisted::Taken;
        Ok(Taken { names, pattern, all })
    }

    fn takes(&self, name: &HeaderName) -> bool {
        if self.names.contains(name) {
            return true;
        }
        let matches = || self.pattern.as_ref().is_some_and(|p| p.is_match(name.as_str()));
        (self.all || matches()) && !fields::is_of_proxy(name) && !fields::is_of_message(name)
    }
}

/// Whether a Set-Cookie field sets the cookie `name`.
fn sets(field: &HeaderValue, name: &str) -> bool {
    let pair = field.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let set = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    pair.len() > set.len() && set.trim_ascii() == name.as_bytes()
}

/// For how long an answer may be kept (RFC 9111, 5.2.2), in milliseconds.
fn keep_ms(answer: &Answer) -> u64 {
    let status = answer.status;
    let is_verdict =
        status.is_success() || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if !is_verdict || !answer.is_whole || answer.headers.contains_key(SET_COOKIE) {
        return NOT_KEPT;
    }
    let mut keep_ms = KEPT;
    for line in answer.headers.get_all(CACHE_CONTROL) {
        let Ok(line) = line.to_str() else { return NOT_KEPT };
        for directive in line.split(',').map(|d| d.trim().to_ascii_lowercase()) {
            if directive.starts_with("no-store") || directive.starts_with("no-cache") {
                return NOT_KEPT;
            }
            if let Some(seconds) = directive.strip_prefix("max-age=") {
                let seconds: u64 = seconds.trim_matches('"').parse().unwrap_or(0);
                keep_ms = keep_ms.min(seconds.saturating_mul(1000));
            }
        }
    }
    keep_ms
}

/// The service's own answer, for the client.
fn refusal(answer: Answer) -> Refusal {
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
    Refusal { status, headers, body, knows_nobody: status == StatusCode::UNAUTHORIZED }
}
