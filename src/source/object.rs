//! One object as it arrives (JSON), and as it is kept (typed).
//!
//! Objects travel as JSON until they are decoded here one by one, so that an object that cannot
//! be decoded never hides its neighbours: a typed list fails as a whole at its first bad item.

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{ApiResource, ObjectMeta};
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

use crate::api::cluster_trust_bundle::ClusterTrustBundle;
use crate::api::consumer::Consumer;
use crate::api::gateway::{
    BackendTlsPolicy, Gateway, GatewayClass, GrpcRoute, HttpRoute, ListenerSet, ReferenceGrant,
    TcpRoute, TlsRoute, UdpRoute, XBackend, XBackendTrafficPolicy,
};
use crate::api::middleware::Middleware;
use crate::api::rate_limit::RateLimit;
use crate::translate::{Key, ObjectKind, Snapshot};

/// An annotation that repeats the whole object: nobody here reads it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object whose metadata was understood; the rest is JSON.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub meta: ObjectMeta,
    value: Value,
}

impl Raw {
    /// Fails if `metadata` itself cannot be understood.
    pub fn new(mut value: Value) -> Result<Self, String> {
        let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
            return Err("metadata: is missing".into());
        };
        // Memory: neither is read by anyone here, and they can be larger than the rest.
        meta.remove("managedFields");
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
            if annotations.is_empty() {
                meta.remove("annotations");
            }
        }
        let meta = ObjectMeta::deserialize(&value["metadata"])
            .map_err(|error| format!("metadata: {error}"))?;
        Ok(Raw { meta, value })
    }

    pub fn key(&self) -> Key {
        Key::new(
            self.meta.namespace.as_deref().unwrap_or_default(),
            self.meta.name.as_deref().unwrap_or_default(),
        )
    }

    pub fn value(&self) -> &Value {
        &self.value
    }

    /// What the object says, without what changes by every write.
    pub fn content(&self) -> Content {
        let mut spec = DefaultHasher::new();
        let mut status = DefaultHasher::new();
        if let Some(fields) = self.value.as_object() {
            for (name, field) in fields {
                match name.as_str() {
                    "status" => hash(field, &mut status, &[]),
                    "metadata" => hash(field, &mut spec, &["resourceVersion"]),
                    _ => {
                        spec.write(name.as_bytes());
                        hash(field, &mut spec, &[]);
                    }
                }
            }
        }
        Content { spec: spec.finish(), status: status.finish() }
    }
}

/// Digests of an object, to see what a new version of it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub spec: u64,
    pub status: u64,
}

fn hash(value: &Value, into: &mut DefaultHasher, skip: &[&str]) {
    match value {
        Value::Null => into.write_u8(0),
        Value::Bool(b) => into.write_u8(1 + u8::from(*b)),
        Value::Number(n) => {
            into.write_u8(3);
            into.write(n.to_string().as_bytes());
        }
        Value::String(s) => {
            into.write_u8(4);
            into.write_usize(s.len());
            into.write(s.as_bytes());
        }
        Value::Array(items) => {
            into.write_u8(5);
            into.write_usize(items.len());
            items.iter().for_each(|item| hash(item, into, &[]));
        }
        Value::Object(fields) => {
            into.write_u8(6);
            for (name, field) in fields.iter().filter(|(name, _)| !skip.contains(&name.as_str())) {
                into.write_usize(name.len());
                into.write(name.as_bytes());
                hash(field, into, &[]);
            }
            into.write_u8(7);
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Raw::new(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// As the watcher wants it; the kind is known only at run time.
impl kube::Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// Why an object could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Undecoded {
    /// The path of the field, such as `spec.rules[0].matches`; empty for the whole.
    pub field: String,
    pub message: String,
}

impl fmt::Display for Undecoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.message),
            field => write!(f, "{field}: {}", self.message),
        }
    }
}

macro_rules! objects {
    ($($kind:ident($ty:ty) in $field:ident),* $(,)?) => {
        /// A decoded object of any kind that Tidegate reads.
        #[derive(Clone, Debug)]
        pub(super) enum Object { $($kind(Arc<$ty>),)* }

        impl Object {
            /// Decodes the whole object as `kind`.
            pub fn decode(kind: ObjectKind, raw: Raw) -> Result<Self, Undecoded> {
                let decoded = match kind {
                    $(ObjectKind::$kind => {
                        decode::<$ty>(raw.value).map(|object| Object::$kind(Arc::new(object)))
                    })*
                };
                decoded.map_err(|error| if kind == ObjectKind::Secret { veil(error) } else { error })
            }

            /// Puts the object into the map of its kind.
            pub fn insert(self, key: Key, snapshot: &mut Snapshot) {
                match self {
                    $(Object::$kind(object) => {
                        Arc::make_mut(&mut snapshot.$field).insert(key, object);
                    })*
                }
            }

            /// Takes the object of that kind and key out; returns whether it was there.
            pub fn remove(kind: ObjectKind, key: &Key, snapshot: &mut Snapshot) -> bool {
                match kind {
                    $(ObjectKind::$kind => {
                        snapshot.$field.contains_key(key)
                            && Arc::make_mut(&mut snapshot.$field).remove(key).is_some()
                    })*
                }
            }
        }
    };
}

objects! {
    GatewayClass(GatewayClass) in gateway_classes,
    Gateway(Gateway) in gateways,
    HttpRoute(HttpRoute) in http_routes,
    GrpcRoute(GrpcRoute) in grpc_routes,
    TlsRoute(TlsRoute) in tls_routes,
    TcpRoute(TcpRoute) in tcp_routes,
    UdpRoute(UdpRoute) in udp_routes,
    ListenerSet(ListenerSet) in listener_sets,
    BackendTlsPolicy(BackendTlsPolicy) in backend_tls_policies,
    XBackend(XBackend) in x_backends,
    XBackendTrafficPolicy(XBackendTrafficPolicy) in x_backend_traffic_policies,
    ReferenceGrant(ReferenceGrant) in reference_grants,
    IngressClass(IngressClass) in ingress_classes,
    Ingress(Ingress) in ingresses,
    Service(Service) in services,
    EndpointSlice(EndpointSlice) in endpoint_slices,
    Secret(Secret) in secrets,
    ConfigMap(ConfigMap) in config_maps,
    ClusterTrustBundle(ClusterTrustBundle) in cluster_trust_bundles,
    Namespace(Namespace) in namespaces,
    Middleware(Middleware) in middlewares,
    RateLimit(RateLimit) in rate_limits,
    Consumer(Consumer) in consumers,
}

/// Messages repeat values, and those of Secrets are nobody's business.
fn veil(error: Undecoded) -> Undecoded {
    let message = "is of the wrong type, or no base64 (values of Secrets are not shown)";
    Undecoded { message: message.into(), ..error }
}

fn decode<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Undecoded> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        let field = if field == "." { String::new() } else { field };
        Undecoded { field, message: error.into_inner().to_string() }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(object: Value) -> Raw {
        Raw::new(object).unwrap()
    }

    #[test]
    fn what_every_write_changes_is_no_content() {
        let object = |version: &str, manager: &str| {
            raw(json!({
                "metadata": {
                    "name": "a",
                    "resourceVersion": version,
                    "managedFields": [{"manager": manager}],
                    "annotations": {LAST_APPLIED: manager},
                },
                "spec": {"a": 1},
            }))
        };
        assert_eq!(object("1", "x").content(), object("2", "y").content());
        assert!(!object("1", "x").value().to_string().contains("manager"));
        let without = raw(json!({"metadata": {"name": "a"}, "spec": {"a": 1}}));
        assert_eq!(object("1", "x").content(), without.content());
    }

    #[test]
    fn labels_annotations_and_fields_are_content_and_status_is_apart() {
        let content = |object: Value| raw(object).content();
        let plain = content(json!({"metadata": {"name": "a"}, "spec": {"a": [1, 2]}}));
        let labelled =
            json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"a": [1, 2]}});
        assert_ne!(plain.spec, content(labelled).spec);
        let other = json!({"metadata": {"name": "a"}, "spec": {"a": [1], "b": 2}});
        assert_ne!(plain.spec, content(other).spec);
        let status =
            content(json!({"metadata": {"name": "a"}, "spec": {"a": [1, 2]}, "status": {"x": 1}}));
        assert_eq!(plain.spec, status.spec);
        assert_ne!(plain.status, status.status);
    }

    #[test]
    fn the_error_of_a_secret_does_not_show_its_value() {
        let object = json!({"metadata": {"name": "a"}, "data": "hunter2"});
        let error = Object::decode(ObjectKind::Secret, raw(object.clone())).unwrap_err();
        assert_eq!(error.field, "data");
        assert!(!error.to_string().contains("hunter2"));
        let error = Object::decode(ObjectKind::Service, raw(json!({"metadata": {}, "spec": "x"})));
        assert!(error.unwrap_err().to_string().starts_with("spec: "));
    }

    #[test]
    fn an_object_without_metadata_is_refused() {
        assert!(Raw::new(json!({"spec": {}})).is_err());
        assert!(Raw::new(json!({"metadata": {"labels": 5}})).is_err());
    }
}
