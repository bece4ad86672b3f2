//! A service that decides about requests, and asking it: what the policy `externalAuth` and the
//! method of authentication share. What follows from a verdict is theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, HeaderName};

use super::cache::Cache;
use super::counts::Outcome;
use super::identity::Principal;
use super::spec::{HttpSpec, Protocol, Spec};
use super::verdict::{Said, Verdict};
use super::{BACKEND_REF, fields, grpc, http as plain};
use crate::policy::{Exchange, Invalid, Refs, duration};
use crate::reason::Reason;
use crate::services::ext_authz::CheckRequest;
use crate::services::{Limits, ServiceId};

/// Most bytes of a body that is sent to the service.
pub(super) const MAX_BODY: i32 = 1024 * 1024;
/// Most requests of one policy that wait for the service; more are refused as overload.
pub(super) const MAX_ASKING: usize = 1024;
/// The bounds of one question, unless the user gives another time. A refusal's body goes to the
/// client, if it is not longer.
pub(super) const LIMITS: Limits =
    Limits { timeout: Duration::from_millis(500), max_body: 64 * 1024 };
/// The longest time that a user can give.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);

/// See the module's documentation.
#[derive(Debug)]
pub struct Judge {
    service: ServiceId,
    protocol: Compiled,
    pub(super) limits: Limits,
    /// Longest body that is sent along; None: none is.
    most_body: Option<usize>,
    principal: Option<Principal>,
    pub(super) cache: Option<Cache>,
    /// Requests that wait for the service; it outlives a graph.
    pub(super) asking: Arc<AtomicUsize>,
}

/// What becomes of the fields of a yes, where the user lists none that the backend gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlisted {
    /// It gets all of them, but by forward auth. Every request is one that the service has seen,
    /// so no client writes them.
    Taken,
    /// It gets none: a request that nobody asks about could bring them along.
    Left,
}

/// Why there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoVerdict {
    /// The service cannot be asked about this request.
    NotAsked(Reason),
    /// It gives no usable answer.
    Unanswered(Reason),
}

impl NoVerdict {
    /// Counts a request that is refused for it.
    pub fn count(self, ex: &Exchange<'_>) {
        if matches!(self, NoVerdict::Unanswered(_)) {
            Outcome::Unavailable.count(ex);
        }
    }

    /// Why the request is refused, where nobody goes on unasked.
    pub const fn reason(self) -> Reason {
        match self {
            NoVerdict::NotAsked(reason) => reason,
            NoVerdict::Unanswered(Reason::Overloaded) => Reason::Overloaded,
            NoVerdict::Unanswered(_) => Reason::AuthUnavailable,
        }
    }
}

#[derive(Debug)]
enum Compiled {
    Http(Box<plain::Http>),
    Grpc(grpc::Grpc),
}

/// What the service is asked, made once.
pub(super) enum Question {
    Http(Box<http::Request<Bytes>>),
    Grpc(Box<CheckRequest>),
}

impl Judge {
    /// # Errors
    /// A field of the Spec. The service is that of [`BACKEND_REF`].
    pub fn compile(spec: &Spec, refs: &Refs, unlisted: Unlisted) -> Result<Self, Invalid> {
        let principal = spec.identity.as_ref().map(Principal::compile).transpose()?;
        let protocol = protocol(spec, unlisted)?;
        let max_size = spec.forward_body.as_ref().map_or(0, |body| body.max_size);
        if !(0..=MAX_BODY).contains(&max_size) {
            let message = format!("{max_size} bytes cannot be kept; use 0 to {MAX_BODY}");
            return Err(Invalid::new("forwardBody.maxSize", message));
        }
        let most_body = usize::try_from(max_size).ok().filter(|most| *most > 0);
        let cache = spec.cache.as_ref().map(|cache| Cache::compile(cache, most_body.is_some()));
        let service = refs.services.get(BACKEND_REF).copied();
        Ok(Judge {
            service: service.ok_or_else(|| {
                let message = format!("{} does not exist; create it", spec.backend_ref.name);
                Invalid::new(BACKEND_REF, message)
            })?,
            protocol,
            limits: Limits { timeout: timeout(spec)?, ..LIMITS },
            most_body,
            principal,
            cache: cache.transpose()?,
            asking: Arc::default(),
        })
    }

    /// Keeps what `old` remembers, and counts on.
    pub fn adopt(&mut self, old: &Self) {
        self.asking = Arc::clone(&old.asking);
        if let (Some(new), Some(old)) = (&mut self.cache, &old.cache) {
            new.adopt(old);
        }
    }

    /// The fields in which the service says who the client is. The client's own are removed
    /// before it is asked.
    pub fn identity_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.principal.iter().flat_map(Principal::names)
    }

    /// Whether equal questions are told apart by who asks.
    pub fn needs_identity(&self) -> bool {
        self.cache.as_ref().is_some_and(Cache::needs_identity)
    }

    /// Removes what only the service may say of the client, as far as it is known beforehand;
    /// once it is decided, because the service may want to see it.
    pub fn strip(&self, headers: &mut HeaderMap) {
        match &self.protocol {
            Compiled::Http(http) => http.strip(headers),
            Compiled::Grpc(grpc) => fields::strip(grpc.taken(), headers),
        }
    }

    /// What the service decides, now or earlier. Boxed: every request has room for the future of
    /// any policy, and this one is large.
    pub fn decide<'a>(
        &'a self,
        ex: &'a Exchange<'_>,
    ) -> LocalBoxFuture<'a, Result<Verdict, NoVerdict>> {
        self.verdict(ex).boxed_local()
    }

    async fn verdict(&self, ex: &Exchange<'_>) -> Result<Verdict, NoVerdict> {
        let body = match self.most_body {
            None => Bytes::new(),
            Some(most) => ex.lent.body(most).await.map_err(NoVerdict::NotAsked)?,
        };
        let question = self.question(ex, body).map_err(NoVerdict::NotAsked)?;
        let key = self.cache.as_ref().map(|cache| cache.key(ex, &question));
        if let Some(found) = self.cache.as_ref().zip(key).and_then(|(c, k)| c.get(k, ex.now_ms)) {
            Outcome::Cached.count(ex);
            return Ok(found);
        }
        let Said { verdict, keep_ms } = self.ask(ex, question).await.map_err(|reason| {
            tracing::debug!(%reason, "an external authorization service gave no answer");
            NoVerdict::Unanswered(reason)
        })?;
        if let Some((cache, key)) = self.cache.as_ref().zip(key) {
            cache.put(key, &verdict, keep_ms, ex.now_ms);
        }
        match verdict {
            Verdict::Allowed(_) => Outcome::Allowed.count(ex),
            Verdict::Denied(_) => Outcome::Denied.count(ex),
        }
        Ok(verdict)
    }

    fn question(&self, ex: &Exchange<'_>, body: Bytes) -> Result<Question, Reason> {
        Ok(match &self.protocol {
            Compiled::Http(http) => Question::Http(Box::new(http.question(&ex.request, body)?)),
            Compiled::Grpc(grpc) => Question::Grpc(Box::new(grpc.question(ex, body))),
        })
    }

    async fn ask(&self, ex: &Exchange<'_>, question: Question) -> Result<Said, Reason> {
        let Some(_turn) = Turn::take(&self.asking) else { return Err(Reason::Overloaded) };
        let principal = self.principal.as_ref();
        match (&self.protocol, question) {
            (Compiled::Http(http), Question::Http(request)) => {
                let answer = ex.lent.call(self.service, *request, self.limits).await?;
                http.read(&ex.request, answer, principal)
            }
            (Compiled::Grpc(grpc), Question::Grpc(check)) => {
                grpc.ask(ex.lent, self.service, &check, self.limits, principal).await
            }
            _ => Err(Reason::Internal),
        }
    }
}

fn protocol(spec: &Spec, unlisted: Unlisted) -> Result<Compiled, Invalid> {
    match (spec.protocol, &spec.http, &spec.grpc) {
        (Protocol::Http, _, Some(_)) => {
            Err(Invalid::new("grpc", "protocol is HTTP; remove this or use GRPC"))
        }
        (Protocol::Grpc, Some(_), _) => {
            Err(Invalid::new("http", "protocol is GRPC; remove this or use HTTP"))
        }
        (Protocol::Http, http, None) => {
            let default = HttpSpec::default();
            let http = plain::Http::compile(http.as_deref().unwrap_or(&default), unlisted)?;
            Ok(Compiled::Http(Box::new(http)))
        }
        (Protocol::Grpc, None, grpc) => {
            let spec = grpc.clone().unwrap_or_default();
            Ok(Compiled::Grpc(grpc::Grpc::compile(&spec, unlisted)?))
        }
    }
}

fn timeout(spec: &Spec) -> Result<Duration, Invalid> {
    let Some(text) = &spec.timeout else { return Ok(LIMITS.timeout) };
    let wrong = |message| Invalid::new("timeout", message);
    let timeout = duration::parse(text).map_err(wrong)?;
    if timeout.is_zero() || timeout > MAX_TIMEOUT {
        return Err(wrong("out of range; use 1ms to 1m".into()));
    }
    Ok(timeout)
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
