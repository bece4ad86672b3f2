//! Echoes: the watch events of our own status writes, which must not cause another pass.
//!
//! The answer to a write and its watch event race. So an event that changed nothing but the
//! status waits a moment for the controller to claim it, and only then marks the world dirty.

use std::collections::HashMap;
use std::time::Duration;

use super::Handle;
use crate::translate::{Key, ObjectKind};

/// How long a change of status only may wait to be claimed.
pub(super) const CLAIM: Duration = Duration::from_millis(100);

/// Tells the source what the controller wrote.
#[derive(Clone, Debug)]
pub struct Echoes {
    pub(super) world: Handle,
}

impl Echoes {
    /// The watch event that brings `resource_version` of this object is the echo of our own
    /// write: it marks nothing dirty, whether it came already or is still to come.
    pub fn expect(&self, kind: ObjectKind, key: &Key, resource_version: &str) {
        self.world.expect_echo(kind, key, resource_version);
    }
}

/// What has been written and not seen, and what has been seen and not claimed. At most one
/// entry an object in each.
#[derive(Debug, Default)]
pub(super) struct Pending {
    expected: HashMap<(ObjectKind, Key), String>,
    unclaimed: HashMap<(ObjectKind, Key), String>,
}

impl Pending {
    /// An event arrived: is it an echo?
    pub fn arrived(&mut self, kind: ObjectKind, key: &Key, resource_version: &str) -> bool {
        let id = (kind, key.clone());
        self.unclaimed.remove(&id);
        let echo = self.expected.get(&id).is_some_and(|v| v == resource_version);
        if echo {
            self.expected.remove(&id);
        }
        echo
    }

    /// An event that changed only the status waits to be claimed.
    pub fn wait(&mut self, kind: ObjectKind, key: &Key, resource_version: &str) {
        self.unclaimed.insert((kind, key.clone()), resource_version.to_owned());
    }

    /// The time is over: was the event left unclaimed?
    pub fn expire(&mut self, kind: ObjectKind, key: &Key, resource_version: &str) -> bool {
        let id = (kind, key.clone());
        let left = self.unclaimed.get(&id).is_some_and(|v| v == resource_version);
        if left {
            self.unclaimed.remove(&id);
        }
        left
    }

    /// The controller wrote `resource_version`. Returns whether its event had come already.
    pub fn expect(&mut self, kind: ObjectKind, key: &Key, resource_version: &str) -> bool {
        let claimed = self.expire(kind, key, resource_version);
        if !claimed {
            self.expected.insert((kind, key.clone()), resource_version.to_owned());
        }
        claimed
    }

    pub fn forget(&mut self, kind: ObjectKind, key: &Key) {
        let id = (kind, key.clone());
        self.expected.remove(&id);
        self.unclaimed.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ObjectKind = ObjectKind::HttpRoute;

    fn key() -> Key {
        Key::new("a", "r")
    }

    #[test]
    fn an_event_that_was_announced_is_an_echo_once() {
        let mut pending = Pending::default();
        assert!(!pending.expect(KIND, &key(), "5"));
        assert!(pending.arrived(KIND, &key(), "5"));
        assert!(!pending.arrived(KIND, &key(), "5"));
    }

    #[test]
    fn the_event_of_another_write_is_no_echo() {
        let mut pending = Pending::default();
        pending.expect(KIND, &key(), "5");
        assert!(!pending.arrived(KIND, &key(), "4"));
        assert!(!pending.arrived(KIND, &Key::new("a", "other"), "5"));
        assert!(pending.arrived(KIND, &key(), "5"));
    }

    #[test]
    fn an_event_that_came_before_its_announcement_can_be_claimed() {
        let mut pending = Pending::default();
        pending.wait(KIND, &key(), "5");
        assert!(pending.expect(KIND, &key(), "5"));
        assert!(!pending.expire(KIND, &key(), "5"), "nothing is left to act upon");
    }

    #[test]
    fn an_event_that_nobody_claims_is_acted_upon() {
        let mut pending = Pending::default();
        pending.wait(KIND, &key(), "5");
        assert!(!pending.expire(KIND, &key(), "4"));
        assert!(pending.expire(KIND, &key(), "5"));
    }

    #[test]
    fn a_newer_event_takes_the_place_of_one_that_waits() {
        let mut pending = Pending::default();
        pending.wait(KIND, &key(), "5");
        assert!(!pending.arrived(KIND, &key(), "6"));
        assert!(!pending.expire(KIND, &key(), "5"));
    }
}
