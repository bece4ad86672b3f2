//! What answers say of limits: the fields RateLimit and RateLimit-Policy of
//! draft-ietf-httpapi-ratelimit-headers, X-RateLimit-*, and Retry-After (RFC 9110, 10.2.3).
//!
//! RateLimit and RateLimit-Policy have a member for each limit that a request was counted by; the
//! other fields tell of the tightest. Values are written for each answer: a shared one would be
//! counted by all workers in one place.

use std::io::Write as _;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};

use super::Limits;
use super::spec::Headers;
use crate::policy::{Exchange, Quota, Reply, ResponseHead};
use crate::reason::Reason;
use crate::services::store::Verdict;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Bytes of a member of RateLimit: a name of 63, two numbers of 20 digits, and what is between.
const MOST_MEMBER: usize = 128;

impl Limits {
    /// The answer to a request that is refused.
    pub(super) fn refusal(&self, verdict: &Verdict) -> Reply {
        let mut reply = Reply::of(Reason::RateLimited);
        reply.status = self.status;
        let seconds = verdict.retry_after_ms.div_ceil(1000).max(1);
        reply.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        reply
    }

    /// Says in an answer what is left of the limits of this policy.
    pub(in crate::policy) fn describe(&self, ex: &Exchange<'_>, res: &mut ResponseHead) {
        let (standard, legacy) = match self.headers {
            Headers::All => (true, true),
            Headers::Standard => (true, false),
            Headers::Legacy => (false, true),
            Headers::None => return,
        };
        let is_own = |quota: &&Quota| quota.by == self.address();
        if standard {
            // Policies see responses in reverse: the last one writes over what the backend said.
            if ex.quotas.last().is_some_and(|last| is_own(&last)) {
                res.headers.remove(RATELIMIT_POLICY);
                res.headers.remove(RATELIMIT);
            }
            for quota in ex.quotas.iter().filter(is_own) {
                let limit = &self.limits[quota.limit];
                let policy = &limit.numbers[quota.numbers].policy;
                res.headers.append(RATELIMIT_POLICY, text(policy.as_bytes()));
                res.headers.append(RATELIMIT, member(&limit.name, quota));
            }
        }
        let tightest = ex.quotas.iter().min_by_key(|quota| (quota.admitted, quota.remaining));
        if let Some(quota) = tightest.filter(|quota| legacy && is_own(quota)) {
            res.headers.insert(X_LIMIT, HeaderValue::from(quota.most));
            res.headers.insert(X_REMAINING, HeaderValue::from(quota.remaining));
            res.headers.insert(X_RESET, HeaderValue::from(quota.reset_s));
        }
    }

    /// What tells this policy from others of the graph while a request holds the graph.
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// A member of RateLimit.
fn member(name: &str, quota: &Quota) -> HeaderValue {
    let mut bytes = [0; MOST_MEMBER];
    let mut free = &mut bytes[..];
    let Quota { remaining, reset_s, .. } = quota;
    write!(free, "\"{name}\";r={remaining};t={reset_s}").expect("it is long enough");
    let rest = free.len();
    text(&bytes[..MOST_MEMBER - rest])
}

fn text(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).expect("names, digits and punctuation are visible")
}
