//! Objects whose parent or class is in none of the files.
//!
//! In a cluster nothing is said about them: their parent may be another controller's, or come
//! later. In files it is a mistake, and one that would leave them unchecked.

use kube::api::ObjectMeta;

use crate::api::gateway::{GROUP, ParentReference};
use crate::translate::{Key, Note, ObjectKind, Snapshot};

/// A note for each of them.
pub(super) fn orphans(snapshot: &Snapshot) -> Vec<Note> {
    let mut found = Vec::new();
    macro_rules! routes {
        ($($kind:ident: $objects:ident),*) => {$(
            for (key, route) in snapshot.$objects.iter() {
                let child = Child { kind: ObjectKind::$kind, key, meta: &route.metadata };
                found.extend(child.of_parents(snapshot, &route.spec.parent_refs));
            }
        )*};
    }
    routes!(
        HttpRoute: http_routes,
        GrpcRoute: grpc_routes,
        TlsRoute: tls_routes,
        TcpRoute: tcp_routes,
        UdpRoute: udp_routes
    );
    for (key, set) in snapshot.listener_sets.iter() {
        let child = Child { kind: ObjectKind::ListenerSet, key, meta: &set.metadata };
        let parent = ParentReference {
            group: set.spec.parent_ref.group.clone(),
            kind: set.spec.parent_ref.kind.clone(),
            namespace: set.spec.parent_ref.namespace.clone(),
            name: set.spec.parent_ref.name.clone(),
            ..ParentReference::default()
        };
        found.extend(child.of_parent(snapshot, "spec.parentRef", &parent));
    }
    for (key, gateway) in snapshot.gateways.iter() {
        let class = &gateway.spec.gateway_class_name;
        if !snapshot.gateway_classes.iter().any(|(key, _)| key.name == *class) {
            let child = Child { kind: ObjectKind::Gateway, key, meta: &gateway.metadata };
            found.push(child.note("spec.gatewayClassName", &format!("GatewayClass {class}")));
        }
    }
    found
}

/// An object that names others.
struct Child<'s> {
    kind: ObjectKind,
    key: &'s Key,
    meta: &'s ObjectMeta,
}

impl Child<'_> {
    fn of_parents(&self, snapshot: &Snapshot, parents: &[ParentReference]) -> Vec<Note> {
        let of_parent = |(i, parent)| {
            let field = format!("spec.parentRefs[{i}]");
            self.of_parent(snapshot, &field, parent)
        };
        parents.iter().enumerate().filter_map(of_parent).collect()
    }

    /// Of parents of other kinds nothing is known.
    fn of_parent(
        &self,
        snapshot: &Snapshot,
        field: &str,
        parent: &ParentReference,
    ) -> Option<Note> {
        if parent.group.as_deref().is_some_and(|group| group != GROUP) {
            return None;
        }
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        let key = Key::new(
            parent.namespace.as_deref().unwrap_or(&self.key.namespace),
            parent.name.as_str(),
        );
        let is_there = match kind {
            "Gateway" => snapshot.gateways.contains_key(&key),
            "ListenerSet" => snapshot.listener_sets.contains_key(&key),
            _ => return None,
        };
        (!is_there).then(|| self.note(field, &format!("{kind} {key}")))
    }

    fn note(&self, field: &str, missing: &str) -> Note {
        Note {
            kind: self.kind,
            key: self.key.clone(),
            uid: self.meta.uid.clone(),
            warning: true,
            reason: "NotFound".to_owned(),
            field: field.to_owned(),
            message: format!(
                "{missing} is in none of the files; correct the name, or validate it together \
                 with this object"
            ),
        }
    }
}
