//! Statuses into the cluster.
//!
//! A write is a JSON patch that replaces `status` as a whole at the resourceVersion that the
//! pass saw. Not a PUT, because that would take the labels and annotations of built-in kinds
//! with it; not server-side apply, because `HTTPRoute.status.parents` is an atomic list that
//! other controllers share. A conflict is no error: the newer object causes the next pass.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{self, Api, Failure, Written};
use super::{Pass, Passes, Work};
use crate::health::Health;
use crate::source::Echoes;
use crate::translate::{Key, ObjectKind, StatusWrite};

/// Calls at once.
const CONCURRENT: usize = 16;
/// How long a write is remembered: until the watch has brought it by far.
const MEMORY: Duration = Duration::from_secs(60);

pub(super) struct Statuses {
    api: Api,
    echoes: Echoes,
    passes: Passes,
    health: Arc<Health>,
    done: HashMap<(ObjectKind, Key), Done>,
}

/// A status that was written, so that a pass over the object as it was before does not write it
/// once more.
#[derive(Clone, Debug)]
struct Done {
    based_on: String,
    digest: u64,
    /// The resourceVersion that our write made.
    now: String,
    at: Instant,
}

/// What is to be done about one wanted status.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Nothing,
    WriteAt(&'a str),
}

impl Statuses {
    pub fn new(api: Api, echoes: Echoes, passes: Passes, health: Arc<Health>) -> Self {
        Statuses { api, echoes, passes, health, done: HashMap::new() }
    }

    async fn write(&self, wanted: &StatusWrite, version: &str) -> Result<String, Failure> {
        let object = &wanted.object;
        // Replacing the resourceVersion by itself is how a JSON patch asks for a conflict.
        let patch = json!([
            { "op": "replace", "path": "/metadata/resourceVersion", "value": version },
            { "op": "add", "path": "/status", "value": wanted.status },
        ]);
        // An older Gateway API serves the kind in an older version only.
        for path in api::paths(object.kind, &object.key) {
            let path = format!("{path}/status");
            let sent = self.api.send(Method::PATCH, &path, "application/json-patch+json", &patch);
            match sent.await {
                Err(Failure::Gone) => {}
                Err(failure) => return Err(failure),
                Ok(Written { metadata }) => return Ok(metadata.resource_version),
            }
        }
        Err(Failure::Gone)
    }

    /// Keeps what was written in mind, and its event from causing a pass.
    fn succeeded(&mut self, pass: &Pass, wanted: &StatusWrite, now: String) {
        self.health.status_writes.add(1);
        let object = &wanted.object;
        // If a newer pass has come meanwhile, what we wrote may be out of date already: then its
        // event must cause one more.
        if std::ptr::eq(&**self.passes.borrow(), pass) {
            self.echoes.expect(object.kind, &object.key, &now);
        }
        let done = Done {
            based_on: object.resource_version.clone(),
            digest: digest(&wanted.status),
            now,
            at: Instant::now(),
        };
        self.done.insert((object.kind, object.key.clone()), done);
    }
}

impl Work for Statuses {
    async fn perform(&mut self, pass: &Pass) -> bool {
        self.done.retain(|_, done| done.at.elapsed() < MEMORY);
        let this = &*self;
        let due: Vec<(usize, String)> = pass
            .statuses
            .iter()
            .enumerate()
            .filter_map(|(at, wanted)| {
                let object = &wanted.object;
                let done = this.done.get(&(object.kind, object.key.clone()));
                match step(wanted, done) {
                    Step::Nothing => None,
                    Step::WriteAt(version) => Some((at, version.to_owned())),
                }
            })
            .collect();
        let calls = due.into_iter().map(|(at, version)| async move {
            (at, this.write(&pass.statuses[at], &version).await)
        });
        let outcomes: Vec<_> =
            futures_util::stream::iter(calls).buffer_unordered(CONCURRENT).collect().await;
        let mut complete = true;
        for (at, outcome) in outcomes {
            let wanted = &pass.statuses[at];
            match outcome {
                Ok(version) => self.succeeded(pass, wanted, version),
                Err(Failure::Conflict | Failure::Gone) => {}
                Err(failure) => {
                    complete = false;
                    self.health.status_write_errors.add(1);
                    tracing::warn!(
                        kind = wanted.object.kind.kind(),
                        object = %wanted.object.key,
                        %failure,
                        "status not written; trying again"
                    );
                }
            }
        }
        complete
    }
}

fn step<'a>(wanted: &'a StatusWrite, done: Option<&'a Done>) -> Step<'a> {
    match done {
        Some(done) if done.based_on == wanted.object.resource_version => {
            if done.digest == digest(&wanted.status) {
                Step::Nothing
            } else {
                // The pass has not seen our own write, and nobody else wrote between.
                Step::WriteAt(&done.now)
            }
        }
        _ => Step::WriteAt(&wanted.object.resource_version),
    }
}

fn digest(status: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    status.to_string().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::ObjectRef;

    fn wanted(version: &str, status: &str) -> StatusWrite {
        StatusWrite {
            object: ObjectRef {
                kind: ObjectKind::HttpRoute,
                key: Key::new("ns", "r"),
                uid: String::new(),
                resource_version: version.into(),
            },
            status: json!({ "is": status }),
        }
    }

    fn done(based_on: &str, status: &str, now: &str) -> Done {
        Done {
            based_on: based_on.into(),
            digest: digest(&json!({ "is": status })),
            now: now.into(),
            at: Instant::now(),
        }
    }

    #[test]
    fn a_pass_over_the_object_before_our_write_writes_nothing() {
        let done = done("5", "good", "6");
        assert_eq!(step(&wanted("5", "good"), Some(&done)), Step::Nothing);
    }

    #[test]
    fn a_change_of_mind_is_written_onto_our_own_write() {
        let done = done("5", "good", "6");
        assert_eq!(step(&wanted("5", "bad"), Some(&done)), Step::WriteAt("6"));
    }

    #[test]
    fn a_newer_object_is_written_at_its_own_version() {
        let done = done("5", "good", "6");
        assert_eq!(step(&wanted("9", "good"), Some(&done)), Step::WriteAt("9"));
        assert_eq!(step(&wanted("5", "good"), None), Step::WriteAt("5"));
    }
}
