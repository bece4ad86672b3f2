//! A service that says who asks, by HTTP or gRPC. How it is asked and what its answer means is
//! `external_auth`'s work; this is what the answer means among other methods.
//!
//! Only the service knows what credentials are to it, so a no is not told apart from no
//! credentials but by its status: 401 says that it does not know who asks. Where credentials are
//! optional such a request goes on as nobody; a redirect or 403 is an answer to this very client.

use http::{HeaderMap, HeaderName};

use super::Presence;
use super::method::Outcome;
use crate::policy::external_auth::{Judge, Spec, Unlisted, Verdict};
use crate::policy::{Exchange, Invalid, Refs};

/// See the module's documentation.
#[derive(Debug)]
pub struct External {
    judge: Judge,
    presence: Presence,
}

impl External {
    /// # Errors
    /// A field of the Spec, also one that only the policy `externalAuth` may or need not have.
    pub fn compile(spec: &Spec, presence: Presence, refs: &Refs) -> Result<Self, Invalid> {
        if spec.identity.is_none() {
            let message = "nobody is recognised without it; name the field with the subject, or \
                           use `spec.externalAuth`, which needs none";
            return Err(Invalid::new("identity", message));
        }
        if spec.fail_open {
            let message = "nobody is recognised without an answer; remove it, or put a method \
                           beside this one that needs no service";
            return Err(Invalid::new("failOpen", message));
        }
        let judge = Judge::compile(spec, refs, Unlisted::Left)?;
        if judge.needs_identity() {
            let message = "who asks is not known yet; name what the service goes by, such as a \
                           cookie";
            return Err(Invalid::new("cache.key", message));
        }
        Ok(External { judge, presence })
    }

    pub async fn check(&self, ex: &Exchange<'_>) -> Outcome {
        match self.judge.decide(ex).await {
            Ok(Verdict::Allowed(changes)) => match changes.identity.clone() {
                Some(identity) => Outcome::Vouched(identity, changes),
                None => {
                    tracing::debug!("an external service accepts, but does not say whom");
                    Outcome::Refused(None)
                }
            },
            Ok(Verdict::Denied(said)) if said.knows_nobody && self.presence.is_optional() => {
                Outcome::Absent
            }
            Ok(Verdict::Denied(said)) => Outcome::Denied(said),
            Err(none) => {
                none.count(ex);
                Outcome::Unavailable(none.reason())
            }
        }
    }

    /// The fields in which the service says who it is.
    pub fn identity_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.judge.identity_headers()
    }

    /// Removes what only the service may write in the request.
    pub fn strip(&self, headers: &mut HeaderMap) {
        self.judge.strip(headers);
    }

    /// Takes over what it remembers.
    pub fn adopt(&mut self, old: &Self) {
        self.judge.adopt(&old.judge);
    }
}
