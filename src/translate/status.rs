//! Statuses: what is ours in them is replaced, what belongs to others stays as it is.
//!
//! The time of a condition's last transition is kept while its status stays the same, so that
//! a status that says the same is the same, and nothing is written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::pass::Pass;
use super::{Key, ObjectKind, ObjectRef, StatusWrite};
use crate::api::gateway::Condition;

/// Longest message of a condition (`metav1.Condition.message`), in bytes.
const MAX_MESSAGE: usize = 32_768;

/// What we say by one condition.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub r#type: &'static str,
    pub holds: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Said {
    /// The condition is `True`.
    pub fn yes(r#type: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Said { r#type, holds: true, reason, message: message.into() }
    }

    /// The condition is `False`.
    pub fn no(r#type: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Said { r#type, holds: false, reason, message: message.into() }
    }

    /// `True` with `reason` and no message, or `False` as the problem says.
    pub fn of(r#type: &'static str, reason: &'static str, problem: Option<&Problem>) -> Self {
        match problem {
            None => Said::yes(r#type, reason, ""),
            Some(problem) => Said::no(r#type, problem.reason, problem.to_string()),
        }
    }
}

/// Something wrong with an object, as its owner should be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// A condition's reason.
    pub reason: &'static str,
    /// The path of the field, such as `spec.rules[0].filters[1]`; empty for the whole.
    pub field: String,
    /// The cause and the remedy.
    pub message: String,
}

impl Problem {
    pub fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { reason, field: field.into(), message: message.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

/// The conditions that stand after we said `said`. Of the types in `owned`, which are ours,
/// those that are not said any more go; all others stay untouched.
pub(super) fn conditions(
    old: &[Condition],
    owned: &[&str],
    said: &[Said],
    generation: Option<i64>,
    now: &str,
) -> Vec<Condition> {
    let mut all: Vec<Condition> =
        old.iter().filter(|c| !owned.contains(&c.r#type.as_str())).cloned().collect();
    for said in said {
        let before = old.iter().find(|c| c.r#type == said.r#type);
        let status = if said.holds { "True" } else { "False" };
        let since = before
            .filter(|c| c.status == status && !c.last_transition_time.is_empty())
            .map_or(now, |c| &c.last_transition_time);
        let mut message = said.message.clone();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        all.push(Condition {
            r#type: said.r#type.to_owned(),
            status: status.to_owned(),
            observed_generation: generation,
            last_transition_time: since.to_owned(),
            reason: said.reason.to_owned(),
            message,
            other: before.map(|c| c.other.clone()).unwrap_or_default(),
        });
    }
    // In the order that they stood in, so that equal conditions are equal lists.
    let place = |c: &Condition| {
        old.iter().position(|before| before.r#type == c.r#type).unwrap_or(old.len())
    };
    all.sort_by_key(place);
    all
}

/// The entries of a list that several controllers share, ours and theirs, each where it stood;
/// new ones come last. Two controllers that each put their own first would write for ever.
pub(super) fn in_place<T>(mut new: Vec<T>, old: &[T], same: impl Fn(&T, &T) -> bool) -> Vec<T> {
    new.sort_by_key(|entry| old.iter().position(|o| same(o, entry)).unwrap_or(old.len()));
    new
}

/// The object that a status is for, or a note is about.
pub(super) fn object_ref(kind: ObjectKind, key: &Key, meta: &ObjectMeta) -> ObjectRef {
    ObjectRef {
        kind,
        key: key.clone(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
    }
}

impl Pass<'_> {
    /// Writes `new` if it differs from the status that stands there.
    pub fn status<S: Serialize + PartialEq + Default>(
        &mut self,
        kind: ObjectKind,
        key: &Key,
        meta: &ObjectMeta,
        old: Option<&S>,
        new: S,
    ) {
        let stands = old.map_or_else(|| new == S::default(), |old| *old == new);
        if stands || !self.snapshot.settings.statuses {
            return;
        }
        let status = serde_json::to_value(new).expect("a status has only string keys");
        self.write_status(StatusWrite { object: object_ref(kind, key, meta), status });
    }
}
