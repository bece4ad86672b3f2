//! From the text of a file to objects: which documents are ours, what the API server would have
//! added to them, and where each stands.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tracing::debug;

use super::cluster::is_namespaced;
use super::object::{Raw, Undecoded};
use super::state::Arrival;
use super::yaml::{self, Document};
use super::{FileProblem, Origin};
use crate::api::schema::{self, Finding};
use crate::translate::{Key, ObjectKind};

/// What one file holds.
#[derive(Default)]
pub(super) struct Manifest {
    pub arrivals: Vec<Arrival>,
    pub problems: Vec<FileProblem>,
    /// A part of the file could not be told to be this or that object: what is missing here
    /// may be in it.
    pub partial: bool,
}

/// Reads all objects of a file that are of a kind we know. If `strict`, fields that the API server
/// would not take are problems as well.
pub(super) fn read(file: &Arc<str>, text: &str, strict: bool) -> Manifest {
    let mut manifest = Manifest::default();
    for document in yaml::documents(&mut text.as_bytes()) {
        match document {
            Ok(document) => {
                let documents = document.flatten().into_iter();
                documents.for_each(|document| manifest.take(file, document, strict));
            }
            // Of a file that is no YAML nothing is taken.
            Err(error) => {
                manifest = Manifest { partial: true, ..Manifest::default() };
                manifest.problem(file, error.line, format!("is no YAML: {}", error.message));
            }
        }
    }
    manifest
}

/// The line of `field` of the object in `text`: for messages.
pub(super) fn line_of(text: &str, kind: ObjectKind, key: &Key, field: &str) -> Option<u32> {
    let mut bytes = text.as_bytes();
    let documents = yaml::documents(&mut bytes).map_while(Result::ok);
    documents.flat_map(Document::flatten).find_map(|document| {
        let found = kind_of(&document.value)? == kind && key_of(kind, &document.value)? == *key;
        found.then(|| document.line_of(field))
    })
}

impl Manifest {
    fn problem(&mut self, file: &Arc<str>, line: u32, message: String) {
        let origin = Origin { file: Arc::clone(file), line };
        self.problems.push(FileProblem { origin, message });
    }

    fn take(&mut self, file: &Arc<str>, mut document: Document, strict: bool) {
        let Some(kind) = kind_of(&document.value) else {
            let api_version = document.value["apiVersion"].as_str().unwrap_or_default();
            match document.value["kind"].as_str() {
                Some(kind) => match schema::meant(api_version, kind) {
                    Some(message) => {
                        self.partial = true;
                        self.problem(file, document.line_of("kind"), message);
                    }
                    None => debug!("{file}:{}: {kind} is not for us", document.line()),
                },
                None => {
                    self.partial = true;
                    let message = "is no Kubernetes object: `kind` is missing".to_owned();
                    self.problem(file, document.line(), message);
                }
            }
            return;
        };
        let Some(key) = key_of(kind, &document.value) else {
            self.partial = true;
            let line = document.line_of("metadata");
            let message = format!("{}: metadata.name: is missing", kind.kind());
            return self.problem(file, line, message);
        };
        let at = Origin { file: Arc::clone(file), line: document.line() };
        let value = document.value.take();
        let findings = if strict { schema::check(&value) } else { Vec::new() };
        match complete(kind, &key, value).and_then(Raw::new) {
            Ok(raw) => {
                let arrival = Arrival::new(kind, raw, Some(at));
                if let Some(error) = arrival.error() {
                    self.problem(file, document.line_of(&error.field), says(kind, &key, error));
                } else {
                    for Finding { field, message } in findings {
                        let message = format!("{} {key}: {field}: {message}", kind.kind());
                        self.problem(file, document.line_of(&field), message);
                    }
                }
                self.arrivals.push(arrival);
            }
            Err(message) => {
                self.partial = true;
                let line = document.line_of("metadata");
                self.problem(file, line, format!("{} {key}: {message}", kind.kind()));
            }
        }
    }
}

fn says(kind: ObjectKind, key: &Key, error: &Undecoded) -> String {
    let is_bare_word =
        error.message.starts_with("invalid type: boolean") && error.message.contains("string");
    let remedy = match is_bare_word {
        true => "; YAML 1.1 reads a bare word such as Off or No as false: write \"Off\" in quotes",
        false => "",
    };
    format!("{} {key}: {error}{remedy}", kind.kind())
}

/// The kind, if it is one of ours: by group and kind, in any version that Kubernetes converts.
fn kind_of(value: &Value) -> Option<ObjectKind> {
    let (api, name) = (value["apiVersion"].as_str()?, value["kind"].as_str()?);
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    ObjectKind::ALL.iter().copied().find(|object| {
        let (ours, kind, _) = object.names();
        let our_group = ours.split_once('/').map_or("", |(group, _)| group);
        kind == name && our_group == group && object.versions().contains(&version)
    })
}

fn key_of(kind: ObjectKind, value: &Value) -> Option<Key> {
    let metadata = &value["metadata"];
    let name = metadata["name"].as_str().filter(|name| !name.is_empty())?;
    let namespace = match is_namespaced(kind) {
        true => metadata["namespace"].as_str().filter(|ns| !ns.is_empty()).unwrap_or("default"),
        false => "",
    };
    Some(Key::new(namespace, name))
}

/// What the API server adds: a namespace, an identity that stays, a generation and a time, the
/// data of a Secret that was written as text.
fn complete(kind: ObjectKind, key: &Key, mut value: Value) -> Result<Value, String> {
    let Some(metadata) = value["metadata"].as_object_mut() else {
        return Err("metadata: is no mapping".into());
    };
    match is_namespaced(kind) {
        true => metadata.insert("namespace".into(), key.namespace.as_str().into()),
        false => metadata.remove("namespace"),
    };
    let mut add = |name: &str, value: Value| {
        let field = metadata.entry(name).or_insert(Value::Null);
        if field.is_null() {
            *field = value;
        }
    };
    add("uid", uid(kind, key).into());
    add("generation", 1.into());
    add("creationTimestamp", "1970-01-01T00:00:00Z".into());
    add("resourceVersion", "1".into());
    if kind == ObjectKind::Namespace {
        add("labels", json!({}));
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.insert("kubernetes.io/metadata.name".into(), key.name.as_str().into());
        }
    }
    if kind == ObjectKind::Secret {
        merge_text(&mut value);
    }
    Ok(value)
}

/// A Namespace that nobody wrote, but objects are in it.
pub(super) fn namespace(name: &str) -> Option<Arrival> {
    let key = Key::new("", name);
    let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let raw = complete(ObjectKind::Namespace, &key, value).and_then(Raw::new).ok()?;
    Some(Arrival::new(ObjectKind::Namespace, raw, None))
}

/// `stringData` is for writing only: it goes into `data`, over what is there.
fn merge_text(secret: &mut Value) {
    let Some(Value::Object(text)) = secret.as_object_mut().and_then(|s| s.remove("stringData"))
    else {
        return;
    };
    if !secret["data"].is_object() {
        secret["data"] = Value::Object(Map::new());
    }
    for (name, value) in text {
        // What is no string stays as it is: decoding says what is wrong with it.
        let encoded = match value.as_str() {
            Some(text) => STANDARD.encode(text).into(),
            None => value,
        };
        secret["data"][name] = encoded;
    }
}

/// The same object has the same identity in every run, in the form of a UUID.
fn uid(kind: ObjectKind, key: &Key) -> String {
    let name = format!("{}/{}/{}", kind.kind(), key.namespace, key.name);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    let hex: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Manifest {
        super::read(&Arc::from("a.yaml"), text, true)
    }

    #[test]
    fn a_decode_error_names_file_line_object_and_field() {
        let manifest = read(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\n\
             spec:\n  rules:\n  - matches: 7\n",
        );
        let said = manifest.problems[0].to_string();
        assert!(
            said.starts_with("a.yaml:7: HTTPRoute default/a: spec.rules[0].matches: "),
            "{said}"
        );
        assert!(!manifest.partial);
        assert_eq!(manifest.arrivals.len(), 1);
    }

    #[test]
    fn of_a_file_that_is_no_yaml_nothing_is_taken() {
        let manifest = read(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\nkind: [\n---\nkind: 1\n",
        );
        assert!(manifest.partial && manifest.arrivals.is_empty());
        assert_eq!(manifest.problems.len(), 1);
    }

    #[test]
    fn other_kinds_are_left_out() {
        let manifest = read(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\n\
             apiVersion: traefik.io/v1alpha1\nkind: Middleware\nmetadata: {name: a}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {name: a}\n",
        );
        assert!(manifest.problems.is_empty());
        assert_eq!(manifest.arrivals.len(), 1);
        assert_eq!(manifest.arrivals[0].key, Key::new("default", "a"));
    }

    #[test]
    fn the_identity_of_an_object_stays() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
        let (a, b) = (read(text), read(text));
        assert_eq!(a.arrivals[0].uid, b.arrivals[0].uid);
        assert_eq!(a.arrivals[0].uid.as_deref().map(str::len), Some(36));
    }

    #[test]
    fn string_data_becomes_data() {
        let mut secret = json!({"data": {"b": "eA=="}, "stringData": {"a": "hi"}});
        merge_text(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "aGk=", "b": "eA=="}}));
    }

    #[test]
    fn an_object_without_a_name_is_a_problem() {
        let manifest = read("apiVersion: v1\nkind: Service\nmetadata:\n  labels: {}\n");
        assert_eq!(
            manifest.problems[0].to_string(),
            "a.yaml:4: Service: metadata.name: is missing"
        );
        assert!(manifest.partial);
    }

    #[test]
    fn the_line_of_a_field_is_found_again() {
        let text = "kind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata:\n    \
                    name: a\n  spec:\n    ports:\n    - port: 80\n";
        let key = Key::new("default", "a");
        let line = line_of(text, ObjectKind::Service, &key, "spec.ports[0].port");
        assert_eq!(line, Some(9));
    }
}
