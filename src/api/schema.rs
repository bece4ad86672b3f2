//! What the API server would say about an object's form: fields that it does not know, values
//! that are out of bounds.
//!
//! By the CRDs that are shipped (Gateway API with its experimental channel, and our own) and by
//! the schemas of core kinds. Structure only: rules in CEL are the API server's alone, and what
//! fields mean together is `translate`'s work.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use regex::Regex;
use serde_json::{Map, Value};

use super::crd;

/// Gateway API, both channels: what is not in the standard one is marked by nothing.
const GATEWAY_API: &str = include_str!("../../charts/tidegate/files/gateway-api/experimental.yaml");
/// Findings of one object: more say nothing new.
const MOST: usize = 100;
/// Objects in objects: as deep as the schemas are, and more.
const DEEPEST: usize = 64;
/// Edits that make one word of another, to be taken for a slip.
const SLIP: usize = 2;

/// Something that the API server would refuse or drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The path of the field, such as `spec.rules[0].matches`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// The schemas, by `apiVersion` and kind.
type Schemas = BTreeMap<(String, String), Value>;

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(all);
static METADATA: LazyLock<Value> = LazyLock::new(core::<ObjectMeta>);
/// Compiled once; None: not a pattern that can be checked here.
static PATTERNS: LazyLock<Mutex<BTreeMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);

/// The schema of a kind in a version; None for kinds that are not known here.
pub fn of(api_version: &str, kind: &str) -> Option<&'static Value> {
    SCHEMAS.get(&(api_version.to_owned(), kind.to_owned()))
}

/// The kind of this `apiVersion` that was probably meant by one that does not exist. None if it
/// exists, or if the group is not known here at all.
pub fn meant(api_version: &str, kind: &str) -> Option<String> {
    let group = group_of(api_version);
    let known = || SCHEMAS.keys().filter(|(version, _)| group_of(version) == group);
    if group.is_empty() || known().next().is_none() || of(api_version, kind).is_some() {
        return None;
    }
    let versions: Vec<&str> =
        known().filter(|(_, k)| k == kind).map(|(version, _)| version.as_str()).collect();
    if !versions.is_empty() {
        return Some(format!("{kind} is not in {api_version}; use {}", versions.join(" or ")));
    }
    let names = known().map(|(_, kind)| kind.as_str());
    let meant = nearest(kind, names).map(|kind| format!("; did you mean {kind}?"));
    Some(format!("{group} has no kind {kind:?}{}", meant.unwrap_or_default()))
}

/// What is wrong with the form of an object. Nothing is said about kinds that are not known
/// here, and about `status`, which users do not write.
pub fn check(object: &Value) -> Vec<Finding> {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    let Some(schema) = of(text("apiVersion"), text("kind")) else { return Vec::new() };
    let mut check = Check { root: schema, findings: Vec::new() };
    for (name, value) in object.as_object().into_iter().flatten() {
        match name.as_str() {
            "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                let mut inner = Check { root: &METADATA, findings: Vec::new() };
                inner.value(&METADATA, value, name, 0);
                check.findings.extend(inner.findings);
            }
            _ => check.field(schema, name, value, "", 0),
        }
    }
    check.required(schema, object.as_object().unwrap_or(&Map::new()), "");
    check.findings.truncate(MOST);
    check.findings
}

fn all() -> Schemas {
    let mut schemas = Schemas::new();
    let own = crd::all().into_iter().map(|crd| crd.definition);
    let gateway: Vec<Value> =
        serde_saphyr::from_multiple(GATEWAY_API).expect("the CRDs that are compiled in are YAML");
    for crd in gateway.into_iter().chain(own) {
        let spec = &crd["spec"];
        let (group, kind) = (&spec["group"], &spec["names"]["kind"]);
        for version in spec["versions"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let key = (format!("{}/{}", text(group), text(&version["name"])), text(kind));
            schemas.insert(key, version["schema"]["openAPIV3Schema"].clone());
        }
    }
    let mut add = |api_version: &str, kind: &str, schema: Value| {
        schemas.insert((api_version.to_owned(), kind.to_owned()), schema);
    };
    add("v1", "Service", core::<Service>());
    add("v1", "Secret", core::<Secret>());
    add("v1", "ConfigMap", core::<ConfigMap>());
    add("v1", "Namespace", core::<Namespace>());
    add("discovery.k8s.io/v1", "EndpointSlice", core::<EndpointSlice>());
    add("networking.k8s.io/v1", "Ingress", core::<Ingress>());
    add("networking.k8s.io/v1", "IngressClass", core::<IngressClass>());
    schemas
}

fn core<T: schemars::JsonSchema>() -> Value {
    schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value()
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// One object that is being looked at.
struct Check<'a> {
    /// What `$ref` begins at.
    root: &'a Value,
    findings: Vec<Finding>,
}

impl<'a> Check<'a> {
    fn say(&mut self, field: &str, message: String) {
        if self.findings.len() <= MOST {
            self.findings.push(Finding { field: field.to_owned(), message });
        }
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let target = schema["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
        target.and_then(|path| self.root.pointer(path)).unwrap_or(schema)
    }

    /// One field of an object of this schema.
    fn field(&mut self, schema: &'a Value, name: &str, value: &Value, path: &str, depth: usize) {
        let at = join(path, name);
        if let Some(field) = schema["properties"].get(name) {
            return self.value(field, value, &at, depth);
        }
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        match (&schema["additionalProperties"], schema["properties"].as_object()) {
            (Value::Object(_), _) => {
                self.value(&schema["additionalProperties"], value, &at, depth);
            }
            (Value::Null | Value::Bool(false), Some(known)) if !open => {
                let meant = nearest(name, known.keys().map(String::as_str));
                let meant = meant.map(|name| format!("; did you mean {name}?"));
                let message = format!("there is no such field{}", meant.unwrap_or_default());
                self.say(&at, message);
            }
            _ => {}
        }
    }

    fn value(&mut self, schema: &'a Value, value: &Value, path: &str, depth: usize) {
        let schema = self.resolve(schema);
        // Null is as good as absent.
        if value.is_null() || depth > DEEPEST {
            return;
        }
        if let Some(expected) = schema["type"].as_str().filter(|name| !is_a(value, name)) {
            return self.say(path, format!("must be of type {expected}"));
        }
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.field(schema, name, field, path, depth + 1);
                }
                self.required(schema, fields, path);
                self.count(schema, fields.len(), ["minProperties", "maxProperties"], path);
            }
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &format!("{path}[{i}]"), depth + 1);
                }
                self.count(schema, items.len(), ["minItems", "maxItems"], path);
            }
            Value::String(text) => self.text(schema, text, path),
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or_default();
                if schema["minimum"].as_f64().is_some_and(|least| number < least) {
                    self.say(path, format!("must be at least {}", schema["minimum"]));
                }
                if schema["maximum"].as_f64().is_some_and(|most| number > most) {
                    self.say(path, format!("must be at most {}", schema["maximum"]));
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, schema: &Value, text: &str, path: &str) {
        if let Some(values) = schema["enum"].as_array()
            && !values.iter().any(|value| value == text)
        {
            let known = values.iter().filter_map(Value::as_str).collect::<Vec<_>>();
            return self.say(path, format!("must be one of {}", known.join(", ")));
        }
        self.count(schema, text.chars().count(), ["minLength", "maxLength"], path);
        if let Some(pattern) = schema["pattern"].as_str().filter(|p| !matches(p, text)) {
            self.say(path, format!("{text:?} does not match {pattern}"));
        }
    }

    /// The API server fills in defaults before it looks at what is required.
    fn required(&mut self, schema: &Value, fields: &Map<String, Value>, path: &str) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let has_default = schema["properties"][name].get("default").is_some();
            if !has_default && fields.get(name).is_none_or(Value::is_null) {
                self.say(&join(path, name), "is required".to_owned());
            }
        }
    }

    fn count(&mut self, schema: &Value, count: usize, bounds: [&str; 2], path: &str) {
        let [least, most] = bounds.map(|bound| schema[bound].as_u64());
        let count = count as u64;
        if let Some(least) = least.filter(|least| count < *least) {
            self.say(path, format!("is too short: at least {least} are needed"));
        }
        if let Some(most) = most.filter(|most| count > *most) {
            self.say(path, format!("is too long: at most {most} are allowed"));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    match (path, name.contains(['.', '/', '['])) {
        ("", _) => name.to_owned(),
        (path, true) => format!("{path}[\"{name}\"]"),
        (path, false) => format!("{path}.{name}"),
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut patterns = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
    compiled.as_ref().is_none_or(|pattern| pattern.is_match(text))
}

/// The known word that differs by case or by a slip.
fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let lower = word.to_lowercase();
    known
        .map(|name| (distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= SLIP && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's: how many letters are added, left out or replaced. Long words are not compared.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > SLIP || a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, one) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(one != other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
