//! What an object asks for that the lists of its kind do not bring: Secrets by name, and the
//! addresses of host names. Read from the JSON, so that an undecodable object keeps its own.

use serde_json::Value;

use crate::translate::{Key, ObjectKind};

/// Names that one object may ask for: more are not looked at.
const MOST: usize = 64;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// Secrets of any type, in the object's own namespace.
    pub secrets: Vec<Key>,
    /// `spec.externalName` of a Service.
    pub host: Option<String>,
}

impl Wants {
    /// Every `secretRef.name` of a Middleware, every annotation `tidegate.dev/…-secret` of an
    /// Ingress or a Service, and a Service's external name.
    pub fn of(kind: ObjectKind, key: &Key, object: &Value) -> Self {
        let mut wants = Wants::default();
        match kind {
            ObjectKind::Middleware => secret_refs(&object["spec"], &key.namespace, &mut wants),
            ObjectKind::Ingress | ObjectKind::Service => {
                annotated(object, &key.namespace, &mut wants);
                let spec = &object["spec"];
                if kind == ObjectKind::Service && spec["type"] == "ExternalName" {
                    wants.host = spec["externalName"].as_str().map(str::to_owned);
                }
            }
            _ => {}
        }
        wants.secrets.sort();
        wants.secrets.dedup();
        wants.secrets.truncate(MOST);
        wants
    }

    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.host.is_none()
    }
}

fn secret_refs(value: &Value, namespace: &str, wants: &mut Wants) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field["name"].as_str() {
                    Some(secret) if name == "secretRef" => {
                        wants.secrets.push(Key::new(namespace, secret));
                    }
                    _ => secret_refs(field, namespace, wants),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| secret_refs(item, namespace, wants)),
        _ => {}
    }
}

fn annotated(object: &Value, namespace: &str, wants: &mut Wants) {
    let Some(annotations) = object["metadata"]["annotations"].as_object() else { return };
    for (name, value) in annotations {
        let names_secret = name.starts_with("tidegate.dev/") && name.ends_with("-secret");
        if let Some(secret) = value.as_str().filter(|_| names_secret) {
            // `namespace/name` may be written, but only for the object's own namespace.
            let own = secret.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/'));
            let name = own.unwrap_or(secret);
            if !name.contains('/') {
                wants.secrets.push(Key::new(namespace, name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets(kind: ObjectKind, object: Value) -> Vec<String> {
        let wants = Wants::of(kind, &Key::new("a", "x"), &object);
        wants.secrets.iter().map(Key::to_string).collect()
    }

    #[test]
    fn every_secret_ref_of_a_middleware_is_wanted() {
        let object = json!({"spec": {"basicAuth": {"secretRef": {"name": "users"}}}});
        assert_eq!(secrets(ObjectKind::Middleware, object.clone()), ["a/users"]);
        assert!(secrets(ObjectKind::HttpRoute, object).is_empty());
    }

    #[test]
    fn annotations_name_secrets_of_their_own_namespace_only() {
        let object = json!({"metadata": {"annotations": {
            "tidegate.dev/backend-tls-secret": "a/ca",
            "tidegate.dev/other-secret": "b/foreign",
            "example.com/some-secret": "not-ours",
        }}});
        assert_eq!(secrets(ObjectKind::Ingress, object), ["a/ca"]);
    }

    #[test]
    fn one_object_cannot_want_without_bound() {
        let many: Vec<_> =
            (0..1000).map(|n| json!({"secretRef": {"name": format!("s{n}")}})).collect();
        assert_eq!(secrets(ObjectKind::Middleware, json!({"spec": many})).len(), MOST);
    }

    #[test]
    fn only_a_service_of_that_type_has_an_external_name() {
        let host = |object| Wants::of(ObjectKind::Service, &Key::new("a", "x"), &object).host;
        let named = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
        assert_eq!(host(named).as_deref(), Some("example.com"));
        assert_eq!(host(json!({"spec": {"externalName": "example.com"}})), None);
    }
}
