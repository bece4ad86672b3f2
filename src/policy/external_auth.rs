//! Asks a service whether a request may go on: by plain HTTP, as HTTPRoute's `ExternalAuth`
//! (GEP-1494) has it or in the form of forward auth, or by gRPC in Envoy's external
//! authorization protocol.
//!
//! It fails closed unless the user wants it otherwise: if the service cannot be asked, is slow
//! or gives no usable answer, the client gets 503 and nothing of what the service said. A
//! refusal is the service's own answer with its status, fields and body, so that it can ask for
//! credentials or send the client to a login. Asking is in [`judge`]; what the protocols send
//! and read in [`http`], [`original`] and [`grpc`], which fields may cross in [`fields`], what
//! becomes of an answer in [`verdict`], and how long it is kept in [`cache`].

mod cache;
mod counts;
mod fields;
mod grpc;
mod http;
mod identity;
mod judge;
mod original;
mod sign_in;
mod spec;
mod verdict;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use self::counts::Outcome;
pub use self::judge::{Judge, NoVerdict, Unlisted};
pub use self::spec::{
    AskMethod, BackendRef, CacheSpec, ForwardBody, GrpcSpec, HttpSpec, IdentitySpec, Protocol,
    SignIn, Spec,
};
pub use self::verdict::{Changes, Refusal, Verdict};
use super::header_edits::remove_with_look_alikes;
use super::{Exchange, Invalid, Policy, Refs, Reply, ResponseHead};
use crate::reason::Reason;

/// The field of a Spec that names the service.
pub const BACKEND_REF: &str = "backendRef";
/// Between two lines of the log that say that requests go on unasked.
const LOG_PAUSE_MS: u64 = 1000;

/// See the module's documentation.
#[derive(Debug)]
pub struct ExternalAuth {
    judge: Judge,
    fail_open: bool,
    /// When it was last logged that a request went on unasked, in milliseconds since the Unix
    /// epoch; it outlives a graph.
    logged_at: Arc<AtomicU64>,
}

impl Policy for ExternalAuth {
    type Spec = Spec;

    fn compile(spec: &Spec, refs: &Refs) -> Result<Self, Invalid> {
        let judge = Judge::compile(spec, refs, Unlisted::Taken)?;
        Ok(ExternalAuth { judge, fail_open: spec.fail_open, logged_at: Arc::default() })
    }

    async fn on_request(&self, ex: &mut Exchange<'_>) -> ControlFlow<Reply> {
        for name in self.judge.identity_headers() {
            remove_with_look_alikes(&mut ex.request.headers, name);
        }
        match self.judge.decide(ex).await {
            Ok(Verdict::Denied(refusal)) => return ControlFlow::Break(refusal.reply()),
            Ok(Verdict::Allowed(changes)) => {
                self.judge.strip(&mut ex.request.headers);
                changes.apply(ex);
            }
            Err(NoVerdict::Unanswered(reason)) if self.fail_open => {
                Outcome::FailedOpen.count(ex);
                self.log(ex, reason);
                self.judge.strip(&mut ex.request.headers);
            }
            Err(none) => {
                none.count(ex);
                return ControlFlow::Break(Reply::of(none.reason()));
            }
        }
        ControlFlow::Continue(())
    }

    fn on_response(&self, ex: &Exchange<'_>, res: &mut ResponseHead) {
        ex.edit_answer(res);
    }

    fn adopt(&mut self, old: &Self) {
        self.judge.adopt(&old.judge);
        self.logged_at = Arc::clone(&old.logged_at);
    }
}

impl ExternalAuth {
    /// Says now and then that requests go on unasked, and why.
    fn log(&self, ex: &Exchange<'_>, reason: Reason) {
        let last = self.logged_at.load(Relaxed);
        let is_due = ex.now_ms.saturating_sub(last) >= LOG_PAUSE_MS;
        let set = || self.logged_at.compare_exchange(last, ex.now_ms, Relaxed, Relaxed);
        if is_due && set().is_ok() {
            tracing::warn!(
                %reason,
                "requests go on although their authorization service gives no answer (failOpen)"
            );
        }
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
