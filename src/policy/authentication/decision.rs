//! What the outcomes of all methods come to.
//!
//! With AnyOf, one that accepts is enough, whatever the others found. With AllOf every one must
//! accept, and where they know Consumers it must be the same one: credentials of two Consumers
//! together are a stolen pair, not a stronger proof.

use std::sync::Arc;

use super::Require;
use super::method::Outcome;
use crate::policy::external_auth::{self, Changes};
use crate::policy::identity::Identity;
use crate::policy::jwt::{self, Verified};
use crate::reason::Reason;

/// What a method found.
#[derive(Debug)]
pub struct Found {
    /// The place of the method in the policy.
    pub at: usize,
    pub outcome: Outcome,
}

/// See the module's documentation.
#[derive(Debug)]
pub enum Decision {
    Accepted {
        identity: Arc<Identity>,
        tokens: Tokens,
        /// What a service wants changed.
        changes: Option<Arc<Changes>>,
    },
    /// No method found any credentials.
    Nobody,
    /// Credentials are wrong, or some are missing.
    Refused(Refused),
    /// Nobody can say.
    Unavailable(Reason),
}

/// Why nobody was recognised.
#[derive(Debug, Default)]
pub struct Refused {
    /// What is wrong with tokens, by method.
    pub wrong: Vec<(usize, jwt::Refusal)>,
    /// The answer of a service that said no.
    pub said: Option<Arc<external_auth::Refusal>>,
}

/// The tokens that were accepted: hardly ever more than one.
pub type Tokens = Vec<Arc<Verified>>;

/// Of all methods that were asked, at least one.
pub fn of(require: Require, found: impl IntoIterator<Item = Found>) -> Decision {
    let mut sum = Sum::default();
    found.into_iter().for_each(|found| sum.add(found));
    let all = sum.absent == 0 && sum.refused == 0 && sum.unavailable.is_none();
    let enough = match require {
        Require::AnyOf => !sum.identities.is_empty(),
        Require::AllOf => all,
    };
    let shown = sum.refused > 0 || sum.unavailable.is_some() || !sum.identities.is_empty();
    match sum.unavailable {
        _ if enough => match merge(sum.identities) {
            Some(identity) => {
                Decision::Accepted { identity, tokens: sum.tokens, changes: sum.changes }
            }
            None => Decision::Refused(Refused::default()),
        },
        _ if !shown => Decision::Nobody,
        // Whatever the others say, all of them would have to accept.
        _ if require == Require::AllOf && (sum.refused > 0 || sum.absent > 0) => {
            Decision::Refused(sum.why)
        }
        Some(reason) => Decision::Unavailable(reason),
        None => Decision::Refused(sum.why),
    }
}

#[derive(Default)]
struct Sum {
    identities: Vec<Arc<Identity>>,
    tokens: Tokens,
    changes: Option<Arc<Changes>>,
    absent: usize,
    refused: usize,
    why: Refused,
    unavailable: Option<Reason>,
}

impl Sum {
    fn add(&mut self, found: Found) {
        match found.outcome {
            Outcome::Absent => self.absent += 1,
            Outcome::Accepted(identity) => self.identities.push(identity),
            Outcome::Token(token) => {
                self.identities.push(Arc::clone(&token.identity));
                self.tokens.push(token);
            }
            Outcome::Vouched(identity, changes) => {
                self.identities.push(identity);
                self.changes = Some(changes);
            }
            Outcome::Refused(wrong) => {
                self.refused += 1;
                self.why.wrong.extend(wrong.map(|wrong| (found.at, wrong)));
            }
            Outcome::Denied(said) => {
                self.refused += 1;
                self.why.said = Some(said);
            }
            Outcome::Expired => self.refused += 1,
            Outcome::Unavailable(reason) => {
                self.unavailable.get_or_insert(reason);
            }
        }
    }
}

/// One identity of all: of the first that is a Consumer's, or of the first; with the groups,
/// scopes and claims of the others. None, if they are of different Consumers.
fn merge(all: Vec<Arc<Identity>>) -> Option<Arc<Identity>> {
    let first = all.iter().find(|one| one.consumer.is_some()).or(all.first())?;
    let same = |one: &Arc<Identity>| one.consumer.is_none() || one.consumer == first.consumer;
    if !all.iter().all(same) {
        return None;
    }
    let others = || all.iter().filter(|one| !Arc::ptr_eq(one, first));
    let says_more = |one: &Arc<Identity>| {
        !one.groups.is_empty() || !one.scopes.is_empty() || !one.claims.is_empty()
    };
    if !others().any(says_more) {
        return Some(Arc::clone(first));
    }
    let mut merged = Identity::clone(first);
    for other in others() {
        for (to, from) in [(&mut merged.groups, &other.groups), (&mut merged.scopes, &other.scopes)]
        {
            let mut list = std::mem::take(to).into_vec();
            let more = from.iter().filter(|one| !list.contains(one)).cloned();
            let more: Vec<_> = more.collect();
            list.extend(more);
            *to = list.into();
        }
        for (name, value) in &other.claims {
            merged.claims.entry(name).or_insert_with(|| value.clone());
        }
    }
    Some(Arc::new(merged))
}
