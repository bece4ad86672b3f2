//! What an object asks for that the lists of its kind do not bring: Secrets and ConfigMaps by
//! name, the addresses of host names, and the keys of issuers. Read from the JSON, so that an undecodable object
//! keeps its own. Whether a reference is allowed is `translate`'s to say.

use serde::Deserialize;
use serde_json::Value;

use crate::policy::jwt::Remote;
use crate::translate::{Key, ObjectKind};

/// Names that one object may ask for: more are not looked at.
const MOST: usize = 256;

/// Key sets that one object may ask for: as many methods as a policy may have.
const MOST_KEY_SETS: usize = 8;

/// The fields that name a Secret or a ConfigMap, one or a list.
const REFERENCES: &[&str] = &[
    "secretRef",
    "certificateRefs",
    "clientCertificateRef",
    "caCertificateRefs",
    "caCertificateRef",
];

/// An object that is brought by its name.
pub(super) type Named = (ObjectKind, Key);

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// Secrets of any type, and ConfigMaps.
    pub named: Vec<Named>,
    /// `spec.externalName` of a Service, the external host of an XBackend.
    pub host: Option<String>,
    /// Where keys are that tokens of a Middleware are signed with.
    pub keys: Vec<Remote>,
}

impl Wants {
    /// Every reference of a kind whose fields are known to hold some, every annotation
    /// `tidegate.dev/…-secret` of an Ingress or a Service, the certificates of an Ingress, and a
    /// Service's or an XBackend's external name.
    pub fn of(kind: ObjectKind, key: &Key, object: &Value) -> Self {
        let mut wants = Wants::default();
        let spec = &object["spec"];
        match kind {
            ObjectKind::Middleware
            | ObjectKind::RateLimit
            | ObjectKind::Consumer
            | ObjectKind::BackendTlsPolicy => {
                references(spec, &key.namespace, false, &mut wants);
                if kind == ObjectKind::Middleware {
                    wants.keys = keys(spec);
                }
            }
            // Their references may lead into other namespaces.
            ObjectKind::Gateway | ObjectKind::ListenerSet | ObjectKind::XBackend => {
                references(spec, &key.namespace, true, &mut wants);
                if kind == ObjectKind::XBackend && spec["type"] == "ExternalHostname" {
                    let host = spec["externalHostname"]["hostname"].as_str();
                    // As `translate` asks for it.
                    wants.host = host.map(str::to_ascii_lowercase);
                }
            }
            ObjectKind::Ingress => {
                annotated(object, &key.namespace, &mut wants);
                for name in spec["tls"].as_array().into_iter().flatten() {
                    wants.secret(&key.namespace, name["secretName"].as_str().unwrap_or_default());
                }
            }
            ObjectKind::Service => {
                annotated(object, &key.namespace, &mut wants);
                if spec["type"] == "ExternalName" {
                    wants.host = spec["externalName"].as_str().map(str::to_owned);
                }
            }
            _ => {}
        }
        wants.named.sort();
        wants.named.dedup();
        wants.named.truncate(MOST);
        wants
    }

    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.host.is_none() && self.keys.is_empty()
    }

    fn secret(&mut self, namespace: &str, name: &str) {
        self.name(ObjectKind::Secret, namespace, name);
    }

    /// What is no name would be refused by the API server, or select more than one object.
    fn name(&mut self, kind: ObjectKind, namespace: &str, name: &str) {
        if is_name(namespace) && is_name(name) {
            self.named.push((kind, Key::new(namespace, name)));
        }
    }
}

/// A DNS subdomain, as names of objects are (RFC 1123), as far as it matters here.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty() && text.len() <= 253 && text.bytes().all(plain)
}

fn references(value: &Value, namespace: &str, others: bool, wants: &mut Wants) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Array(list) if REFERENCES.contains(&name.as_str()) => {
                        list.iter().for_each(|one| reference(one, namespace, others, wants));
                    }
                    Value::Object(_) if REFERENCES.contains(&name.as_str()) => {
                        reference(field, namespace, others, wants);
                    }
                    _ => references(field, namespace, others, wants),
                }
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| references(item, namespace, others, wants));
        }
        _ => {}
    }
}

/// Where the methods of an authentication policy have their keys from.
fn keys(spec: &Value) -> Vec<Remote> {
    let methods = spec["authentication"]["methods"].as_array().into_iter().flatten();
    let remotes = methods.map(|method| &method["jwt"]["keys"]["remote"]);
    let read = |remote: &Value| Remote::deserialize(remote).ok();
    let mut keys: Vec<Remote> = remotes.take(MOST_KEY_SETS).filter_map(read).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn reference(value: &Value, namespace: &str, others: bool, wants: &mut Wants) {
    let kind = match (value["group"].as_str().unwrap_or_default(), value["kind"].as_str()) {
        ("", None | Some("Secret")) => ObjectKind::Secret,
        ("", Some("ConfigMap")) => ObjectKind::ConfigMap,
        _ => return,
    };
    let other = value["namespace"].as_str().filter(|_| others);
    wants.name(kind, other.unwrap_or(namespace), value["name"].as_str().unwrap_or_default());
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
                wants.secret(namespace, name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(kind: ObjectKind, object: Value) -> Vec<String> {
        let wants = Wants::of(kind, &Key::new("a", "x"), &object);
        wants.named.iter().map(|(kind, key)| format!("{} {key}", kind.kind())).collect()
    }

    #[test]
    fn every_secret_ref_of_a_middleware_is_wanted() {
        let object = json!({"spec": {"authentication": {"methods": [{"basic": {"secretRef": {"name": "users"}}}]}}});
        assert_eq!(named(ObjectKind::Middleware, object.clone()), ["Secret a/users"]);
        assert!(named(ObjectKind::HttpRoute, object).is_empty());
    }

    /// A value with every field that the schema has. What a `…Ref` names, other than Services and
    /// what policies target, is added to `names`.
    fn whole(field: &str, schema: &Value, names: &mut Vec<String>) -> Value {
        let properties = &schema["properties"];
        let is_elsewhere = ["port", "group"].iter().any(|name| properties.get(name).is_some());
        if field.ends_with("Ref") && properties.get("name").is_some() && !is_elsewhere {
            let name = format!("n{}", names.len());
            names.push(format!("Secret a/{name}"));
            return json!({"name": name});
        }
        if schema["type"] == "array" {
            return json!([whole(field, &schema["items"], names)]);
        }
        let fields = properties.as_object().into_iter().flatten();
        Value::Object(fields.map(|(k, v)| (k.clone(), whole(k, v, names))).collect())
    }

    #[test]
    fn what_our_own_kinds_may_name_is_wanted() {
        for kind in [ObjectKind::Consumer, ObjectKind::Middleware, ObjectKind::RateLimit] {
            let crd = crate::api::crd::all().into_iter().map(|crd| crd.definition);
            let crd = crd.into_iter().find(|crd| crd["spec"]["names"]["kind"] == kind.kind());
            let schema = &crd.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let mut names = Vec::new();
            let spec = whole("spec", &schema["properties"]["spec"], &mut names);
            names.sort();
            assert!(names.len() >= 2, "{kind:?} names {names:?}");
            assert_eq!(named(kind, json!({"spec": spec})), names, "{kind:?}");
        }
    }

    #[test]
    fn the_keys_of_every_method_are_wanted_with_their_certificates() {
        let uri = |uri: &str| {
            let ca = json!({"kind": "ConfigMap", "name": "ca"});
            json!({"jwt": {"keys": {"remote": {"uri": uri, "caCertificateRef": ca}}}})
        };
        let methods = json!([uri("b"), {"apiKey": {}}, uri("a"), uri("b"), {"jwt": {"keys": 1}}]);
        let object = json!({"spec": {"authentication": {"methods": methods}}});
        let wants = Wants::of(ObjectKind::Middleware, &Key::new("a", "x"), &object);
        let uris: Vec<_> = wants.keys.iter().filter_map(|keys| keys.uri.as_deref()).collect();
        assert_eq!(uris, ["a", "b"]);
        assert_eq!(named(ObjectKind::Middleware, object), ["ConfigMap a/ca"]);
    }

    #[test]
    fn every_certificate_of_a_gateway_is_wanted_wherever_it_is() {
        let ca = |kind: &str, name: &str| json!({"group": "", "kind": kind, "name": name});
        let object = json!({"spec": {
            "listeners": [
                {"tls": {"certificateRefs": [{"name": "one"}, {"name": "two", "namespace": "b"}]}},
                {"tls": {"certificateRefs": [{"group": "other.io", "kind": "Secret", "name": "x"}]}},
            ],
            "tls": {
                "backend": {"clientCertificateRef": {"name": "client"}},
                "frontend": {
                    "default": {"validation": {"caCertificateRefs": [ca("ConfigMap", "ca")]}},
                    "perPort": [{"port": 443, "tls": {"validation": {"caCertificateRefs": [
                        ca("Secret", "ca"), ca("ClusterTrustBundle", "x"),
                    ]}}}],
                },
            },
        }});
        let expected =
            ["Secret a/ca", "Secret a/client", "Secret a/one", "Secret b/two", "ConfigMap a/ca"];
        assert_eq!(named(ObjectKind::Gateway, object), expected);
    }

    #[test]
    fn a_policy_names_certificates_of_its_own_namespace_only() {
        let object = json!({"spec": {"validation": {"caCertificateRefs": [
            {"group": "", "kind": "ConfigMap", "name": "ca", "namespace": "b"},
        ]}}});
        assert_eq!(named(ObjectKind::BackendTlsPolicy, object), ["ConfigMap a/ca"]);
    }

    #[test]
    fn certificates_of_an_ingress_are_wanted_whatever_their_type() {
        let object = json!({"spec": {"tls": [{"secretName": "cert"}, {"hosts": ["a.test"]}]}});
        assert_eq!(named(ObjectKind::Ingress, object), ["Secret a/cert"]);
    }

    #[test]
    fn annotations_name_secrets_of_their_own_namespace_only() {
        let object = json!({"metadata": {"annotations": {
            "tidegate.dev/backend-tls-secret": "a/ca",
            "tidegate.dev/other-secret": "b/foreign",
            "example.com/some-secret": "not-ours",
        }}});
        assert_eq!(named(ObjectKind::Ingress, object), ["Secret a/ca"]);
    }

    #[test]
    fn what_is_no_name_is_not_wanted() {
        let secret = |name: &str| json!({"spec": {"x": {"secretRef": {"name": name}}}});
        for bad in ["", "a,metadata.name!=b", "../x", "a b", "Ä"] {
            assert!(named(ObjectKind::Middleware, secret(bad)).is_empty(), "{bad}");
        }
    }

    #[test]
    fn one_object_cannot_want_without_bound() {
        let many: Vec<_> =
            (0..1000).map(|n| json!({"secretRef": {"name": format!("s{n}")}})).collect();
        assert_eq!(named(ObjectKind::Middleware, json!({"spec": many})).len(), MOST);
    }

    #[test]
    fn only_a_service_of_that_type_has_an_external_name() {
        let host = |object| Wants::of(ObjectKind::Service, &Key::new("a", "x"), &object).host;
        let named = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
        assert_eq!(host(named).as_deref(), Some("example.com"));
        assert_eq!(host(json!({"spec": {"externalName": "example.com"}})), None);
    }

    #[test]
    fn the_host_of_a_backend_outside_is_wanted_in_lower_case() {
        let object = json!({"spec": {"type": "ExternalHostname",
            "externalHostname": {"hostname": "API.example.com"}}});
        let wants = Wants::of(ObjectKind::XBackend, &Key::new("a", "x"), &object);
        assert_eq!(wants.host.as_deref(), Some("api.example.com"));
    }
}
