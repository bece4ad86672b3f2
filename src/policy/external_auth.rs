//! Asks a service whether a request may go on: by plain HTTP, as HTTPRoute's `ExternalAuth`
//! (GEP-1494) has it or in the form of forward auth, or by gRPC in Envoy's external
//! authorization protocol.
//!
//! It fails closed unless the user wants it otherwise: if the service cannot be asked, is slow
//! or gives no usable answer, the client gets 503 and nothing of what the service said. A
//! refusal is the service's own answer with its status, fields and body, so that it can ask for
//! credentials or send the client to a login. What the protocols send and read is in [`http`],
//! [`original`] and [`grpc`], which fields may cross in [`fields`], what becomes of an answer in
//! [`verdict`], and how long it is kept in [`cache`].

mod cache;
mod counts;
mod fields;
mod grpc;
mod http;
mod identity;
mod original;
mod sign_in;
mod spec;
mod verdict;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;

use self::cache::Cache;
pub use self::counts::{COUNTS, Outcome};
use self::identity::Principal;
pub use self::spec::{
    AskMethod, BackendRef, CacheSpec, ForwardBody, GrpcSpec, HttpSpec, IdentitySpec, Protocol,
    SignIn, Spec,
};
use self::verdict::{Said, Verdict};
use super::{Exchange, Invalid, Policy, Refs, Reply, ResponseHead, duration};
use crate::reason::Reason;
use crate::services::{Limits, ServiceId};

/// The field of a Spec that names the service.
pub const BACKEND_REF: &str = "backendRef";
/// Most bytes of a body that is sent to the service.
const MAX_BODY: i32 = 1024 * 1024;
/// Most requests of one policy that wait for the service; more are refused as overload.
const MAX_ASKING: usize = 1024;
/// The bounds of one question, unless the user gives another time. A refusal's body goes to the
/// client, if it is not longer.
const LIMITS: Limits = Limits { timeout: Duration::from_millis(500), max_body: 64 * 1024 };
/// The longest time that a user can give.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);
/// Between two lines of the log that say that requests go on unasked.
const LOG_PAUSE_MS: u64 = 1000;

/// See the module's documentation.
#[derive(Debug)]
pub struct ExternalAuth {
    service: ServiceId,
    protocol: Compiled,
    limits: Limits,
    /// Longest body that is sent along; None: none is.
    most_body: Option<usize>,
    fail_open: bool,
    principal: Option<Principal>,
    cache: Option<Cache>,
    state: Arc<State>,
}

/// What outlives a graph.
#[derive(Debug, Default)]
struct State {
    /// Requests that wait for the service.
    asking: AtomicUsize,
    /// When it was last logged that a request went on unasked, in milliseconds since the Unix
    /// epoch.
    logged_at: AtomicU64,
}

#[derive(Debug)]
enum Compiled {
    Http(Box<http::Http>),
    Grpc(grpc::Grpc),
}

/// What the service is asked, made once.
enum Question {
    Http(Box<::http::Request<Bytes>>),
    Grpc(Box<crate::services::ext_authz::CheckRequest>),
}

impl Policy for ExternalAuth {
    type Spec = Spec;

    fn compile(spec: &Spec, refs: &Refs) -> Result<Self, Invalid> {
        let principal = spec.identity.as_ref().map(Principal::compile).transpose()?;
        let protocol = match (spec.protocol, &spec.http, &spec.grpc) {
            (Protocol::Http, _, Some(_)) => {
                return Err(Invalid::new("grpc", "protocol is HTTP; remove this or use GRPC"));
            }
            (Protocol::Grpc, Some(_), _) => {
                return Err(Invalid::new("http", "protocol is GRPC; remove this or use HTTP"));
            }
            (Protocol::Http, http, None) => Compiled::Http(Box::new(http::Http::compile(
                http.as_deref().unwrap_or(&HttpSpec::default()),
            )?)),
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
        let most_body = usize::try_from(max_size).ok().filter(|most| *most > 0);
        let cache = spec.cache.as_ref().map(|cache| Cache::compile(cache, most_body.is_some()));
        let service = refs.services.get(BACKEND_REF).copied();
        Ok(ExternalAuth {
            service: service.ok_or_else(|| {
                let message = format!("{} does not exist; create it", spec.backend_ref.name);
                Invalid::new(BACKEND_REF, message)
            })?,
            protocol,
            limits: Limits { timeout: timeout(spec)?, ..LIMITS },
            most_body,
            fail_open: spec.fail_open,
            principal,
            cache: cache.transpose()?,
            state: Arc::default(),
        })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        // Boxed: every request has room for the future of any policy, and this one is large.
        Box::pin(self.decide(ex)).await
    }

    fn on_response(&self, ex: &Exchange<'_>, res: &mut ResponseHead) {
        for edit in ex.answer_edits.take() {
            edit.apply(&mut res.headers);
        }
    }

    fn adopt(&mut self, old: &Self) {
        self.state = Arc::clone(&old.state);
        if let (Some(new), Some(old)) = (&mut self.cache, &old.cache) {
            new.adopt(old);
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

impl ExternalAuth {
    async fn decide(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        if let Some(principal) = &self.principal {
            principal.strip(&mut ex.request.headers);
        }
        let body = match self.most_body {
            None => Bytes::new(),
            Some(most) => match ex.lent.body(most).await {
                Ok(body) => body,
                Err(reason) => return ControlFlow::Break(Reply::of(reason)),
            },
        };
        let question = match self.question(ex, body) {
            Ok(question) => question,
            Err(reason) => return ControlFlow::Break(Reply::of(reason)),
        };
        let key = self.cache.as_ref().map(|cache| cache.key(ex, &question));
        if let Some(found) = self.cache.as_ref().zip(key).and_then(|(c, k)| c.get(k, ex.now_ms)) {
            COUNTS.count(Outcome::Cached);
            return self.carry_out(&found, ex);
        }
        match self.ask(ex, question).await {
            Ok(Said { verdict, keep_ms }) => {
                let verdict = Arc::new(verdict);
                if let Some((cache, key)) = self.cache.as_ref().zip(key) {
                    cache.put(key, &verdict, keep_ms, ex.now_ms);
                }
                COUNTS.count(match *verdict {
                    Verdict::Allowed(_) => Outcome::Allowed,
                    Verdict::Denied(_) => Outcome::Denied,
                });
                self.carry_out(&verdict, ex)
            }
            Err(reason) => self.unanswered(ex, reason),
        }
    }

    fn question(&self, ex: &Exchange<'_>, body: Bytes) -> Result<Question, Reason> {
        Ok(match &self.protocol {
            Compiled::Http(http) => Question::Http(Box::new(http.question(&ex.request, body)?)),
            Compiled::Grpc(grpc) => Question::Grpc(Box::new(grpc.question(ex, body))),
        })
    }

    async fn ask(&self, ex: &Exchange<'_>, question: Question) -> Result<Said, Reason> {
        let Some(_turn) = Turn::take(&self.state.asking) else { return Err(Reason::Overloaded) };
        let principal = self.principal.as_ref();
        match (&self.protocol, question) {
            (Compiled::Http(http), Question::Http(request)) => {
                let answer = ex.lent.call(self.service, *request, self.limits).await?;
                http.read(&ex.request, answer, principal)
            }
            (Compiled::Grpc(_), Question::Grpc(check)) => {
                grpc::ask(ex.lent, self.service, &check, self.limits, principal).await
            }
            _ => Err(Reason::Internal),
        }
    }

    fn carry_out(&self, verdict: &Verdict, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        match verdict {
            Verdict::Denied(refusal) => ControlFlow::Break(refusal.reply()),
            Verdict::Allowed(changes) => {
                self.strip(ex);
                changes.apply(ex);
                ControlFlow::Continue(())
            }
        }
    }

    /// Removes what only the service may say of the client.
    fn strip(&self, ex: &mut Exchange<'_>) {
        if let Compiled::Http(http) = &self.protocol {
            http.strip(&mut ex.request.headers);
        }
    }

    /// There is no usable answer.
    fn unanswered(&self, ex: &mut Exchange<'_>, reason: Reason) -> ControlFlow<Reply> {
        tracing::debug!(%reason, "an external authorization service gave no answer");
        if !self.fail_open {
            COUNTS.count(Outcome::Unavailable);
            let reason = match reason {
                Reason::Overloaded => Reason::Overloaded,
                _ => Reason::AuthUnavailable,
            };
            return ControlFlow::Break(Reply::of(reason));
        }
        COUNTS.count(Outcome::FailedOpen);
        let last = self.state.logged_at.load(Relaxed);
        let is_due = ex.now_ms.saturating_sub(last) >= LOG_PAUSE_MS;
        let set = || self.state.logged_at.compare_exchange(last, ex.now_ms, Relaxed, Relaxed);
        if is_due && set().is_ok() {
            tracing::warn!(
                %reason,
                "requests go on although their authorization service gives no answer (failOpen)"
            );
        }
        self.strip(ex);
        ControlFlow::Continue(())
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
