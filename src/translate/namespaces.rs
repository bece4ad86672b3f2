//! From which namespaces objects may attach to a Gateway or a listener.

use std::collections::BTreeMap;

use super::pass::map_of;
use super::{Key, Snapshot};
use crate::api::gateway::{FromNamespaces, LabelSelector};

/// The namespaces whose objects may attach.
#[derive(Debug)]
pub(super) enum Namespaces<'s> {
    All,
    Same,
    Selected(&'s LabelSelector),
    None,
}

impl<'s> Namespaces<'s> {
    /// None for a value that is not known.
    pub fn of(from: &FromNamespaces, selector: Option<&'s LabelSelector>) -> Option<Self> {
        Some(match from {
            FromNamespaces::Same => Namespaces::Same,
            FromNamespaces::All => Namespaces::All,
            FromNamespaces::None => Namespaces::None,
            // No selector selects nothing (metav1.LabelSelector).
            FromNamespaces::Selector => selector.map_or(Namespaces::None, Namespaces::Selected),
            FromNamespaces::Other(_) => return None,
        })
    }

    /// Whether objects of `namespace` may attach to one of the namespace `own`.
    pub fn allow(&self, snapshot: &Snapshot, own: &str, namespace: &str) -> bool {
        match self {
            Namespaces::All => true,
            Namespaces::Same => own == namespace,
            Namespaces::Selected(selector) => {
                let object = snapshot.namespaces.get(&Key::new("", namespace));
                object.is_some_and(|o| selects(selector, map_of(o.metadata.labels.as_ref())))
            }
            Namespaces::None => false,
        }
    }
}

/// Whether a selector chooses an object with these labels; what is not understood does not.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            match expression.operator.as_str() {
                "In" => value.is_some_and(|value| expression.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !expression.values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
