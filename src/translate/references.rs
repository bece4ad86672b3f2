//! Who may refer to what in another namespace: ReferenceGrants, indexed once a pass.

use std::collections::HashMap;

use super::Snapshot;

/// The kind and namespace that a reference comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct From<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
}

/// The object that a reference goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct To<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

/// Every grant of the snapshot.
#[derive(Debug, Default)]
pub(super) struct Grants<'s> {
    /// By whom it is given (a namespace) and to whom; what may be referred to.
    by: HashMap<(&'s str, From<'s>), Vec<Target<'s>>>,
}

/// Group and kind, and a name or all.
type Target<'s> = (&'s str, &'s str, Option<&'s str>);

impl<'s> Grants<'s> {
    pub fn new(snapshot: &'s Snapshot) -> Self {
        let mut grants = Grants::default();
        for (key, grant) in snapshot.reference_grants.iter() {
            for from in &grant.spec.from {
                let from =
                    From { group: &from.group, kind: &from.kind, namespace: &from.namespace };
                let to = grants.by.entry((&key.namespace, from)).or_default();
                to.extend(grant.spec.to.iter().map(|to| {
                    // An empty name is what a YAML writer means by none.
                    let name = to.name.as_deref().filter(|name| !name.is_empty());
                    (to.group.as_str(), to.kind.as_str(), name)
                }));
            }
        }
        grants
    }

    /// Whether the reference may be followed: in one namespace always, else only by a grant.
    pub fn permit(&self, from: From<'_>, to: To<'_>) -> bool {
        if from.namespace == to.namespace {
            return true;
        }
        self.by.get(&(to.namespace, from)).is_some_and(|targets| {
            targets.iter().any(|(group, kind, name)| {
                *group == to.group && *kind == to.kind && name.is_none_or(|name| name == to.name)
            })
        })
    }
}
