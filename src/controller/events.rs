//! Notes about objects as Events of `events.k8s.io/v1`.
//!
//! Each note is told once while it stands. An Event is named by what it says: one that is still
//! there is not written again, whoever led when it was, so that a new leader repeats nothing. A pace
//! protects the cluster from whoever breaks a thousand objects at once: what exceeds it is not
//! queued but comes with a later pass. An Event that is refused is dropped; it is only news.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{self, Api, Failure, Written};
use super::{Pass, Work};
use crate::health::Health;
use crate::translate::{Key, Note};

/// Events at once after quiet, and then the time for each further one.
const BURST: u32 = 50;
const EACH: Duration = Duration::from_millis(500);
/// A note that went away and comes back sooner than this is not told again.
const FORGET: Duration = Duration::from_secs(300);
/// Longest message that `events.k8s.io` takes, in bytes.
const LONGEST_NOTE: usize = 1024;

pub(super) struct Events {
    api: Api,
    /// `reportingInstance`.
    identity: String,
    health: Arc<Health>,
    told: HashMap<Note, Instant>,
    pace: Pace,
}

impl Events {
    pub fn new(api: Api, identity: String, health: Arc<Health>) -> Self {
        Events { api, identity, health, told: HashMap::new(), pace: Pace::new() }
    }

    async fn write(&self, note: &Note, uid: &str) -> Result<(), Failure> {
        let body = event(note, uid, &self.identity);
        let key = Key::new(namespace(note), "");
        let path = api::path_of("events.k8s.io/v1", "events", &key);
        let _: Written = self.api.send(Method::POST, &path, "application/json", &body).await?;
        Ok(())
    }
}

impl Work for Events {
    async fn perform(&mut self, pass: &Pass) -> bool {
        let now = Instant::now();
        for note in &pass.notes {
            if let Some(told) = self.told.get_mut(note) {
                *told = now;
            }
        }
        self.told.retain(|_, told| told.elapsed() < FORGET);
        for note in &pass.notes {
            let Some(uid) = note.uid.as_deref().filter(|_| !self.told.contains_key(note)) else {
                continue;
            };
            if !self.pace.allows(Instant::now()) {
                // The rest comes when the pause of a failed pass is over.
                return false;
            }
            match self.write(note, uid).await {
                Ok(()) => self.health.events_written.add(1),
                Err(Failure::NotLeader) => return false,
                // A leader before us told it.
                Err(Failure::Conflict) => {}
                Err(failure) => {
                    self.health.events_dropped.add(1);
                    tracing::debug!(object = %note.key, %failure, "event not written");
                }
            }
            self.told.insert(note.clone(), now);
        }
        true
    }
}

/// A token bucket.
struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    fn new() -> Self {
        Pace { left: BURST, since: Instant::now() }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.since).as_millis() / EACH.as_millis();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(BURST);
            self.since = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

/// Events about objects without a namespace live in `default`.
fn namespace(note: &Note) -> &str {
    match note.key.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    }
}

fn event(note: &Note, uid: &str, identity: &str) -> Value {
    let (api_version, kind, _) = note.kind.names();
    let mut message = match note.field.as_str() {
        "" => note.message.clone(),
        field => format!("{field}: {}", note.message),
    };
    if message.len() > LONGEST_NOTE {
        message.truncate(message.floor_char_boundary(LONGEST_NOTE - 3));
        message.push('…');
    }
    let number = digest(&[uid, kind, &note.reason, &message]);
    let object: String = note.key.name.chars().take(230).collect();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": format!("{object}.{number:x}"), "namespace": namespace(note) },
        "eventTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        "type": if note.warning { "Warning" } else { "Normal" },
        "reason": note.reason,
        "action": "Translate",
        "note": message,
        "regarding": {
            "apiVersion": api_version,
            "kind": kind,
            "name": note.key.name,
            "namespace": note.key.namespace,
            "uid": uid,
        },
        "reportingController": "tidegate.dev/controller",
        "reportingInstance": identity,
    })
}

/// FNV-1a: the same in every replica and every version, because names are made of it.
fn digest(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::ObjectKind;

    fn note(key: Key, message: &str) -> Note {
        Note {
            kind: ObjectKind::HttpRoute,
            key,
            uid: Some("u".into()),
            warning: true,
            reason: "BackendNotFound".into(),
            field: "spec.rules[0]".into(),
            message: message.into(),
        }
    }

    #[test]
    fn an_event_names_the_object_the_field_and_the_cause() {
        let event = event(&note(Key::new("ns", "r"), "no such Service"), "u", "pod_1");
        assert_eq!(event["note"], "spec.rules[0]: no such Service");
        assert_eq!(event["regarding"]["kind"], "HTTPRoute");
        assert_eq!(event["metadata"]["namespace"], "ns");
        assert_eq!(event["type"], "Warning");
    }

    #[test]
    fn an_event_is_named_by_what_it_says_and_by_nobody() {
        let name = |message: &str, uid, identity| {
            event(&note(Key::new("ns", "r"), message), uid, identity)["metadata"]["name"].clone()
        };
        assert_eq!(name("a", "u", "pod_1"), name("a", "u", "pod_2"));
        assert_ne!(name("a", "u", "pod_1"), name("b", "u", "pod_1"));
        assert_ne!(name("a", "u", "pod_1"), name("a", "v", "pod_1"), "made anew");
    }

    #[test]
    fn events_about_cluster_scoped_objects_live_in_default() {
        let event = event(&note(Key::new("", "class"), ""), "u", "pod_1");
        assert_eq!(event["metadata"]["namespace"], "default");
    }

    #[test]
    fn a_long_message_fits() {
        let event = event(&note(Key::new("ns", "r"), &"ü".repeat(2000)), "u", "pod_1");
        let note = event["note"].as_str().unwrap();
        assert!(note.len() <= LONGEST_NOTE && note.ends_with('…'));
    }

    #[test]
    fn a_flood_is_paced() {
        let mut pace = Pace::new();
        let now = pace.since;
        let allowed = (0..1000).filter(|_| pace.allows(now)).count();
        assert_eq!(allowed, BURST as usize);
        assert!(pace.allows(now + EACH));
        assert!(!pace.allows(now + EACH));
    }
}
