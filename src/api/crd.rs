//! The CustomResourceDefinitions of our own kinds, generated from their types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use super::consumer::Consumer;
use super::middleware::Middleware;
use super::rate_limit::RateLimit;

/// One CRD, as it is installed.
#[derive(Clone, Debug)]
pub struct Crd {
    /// `middlewares.tidegate.dev`
    pub name: String,
    pub definition: Value,
}

/// All of them, by name.
pub fn all() -> Vec<Crd> {
    let mut crds: Vec<Crd> =
        [Consumer::crd(), Middleware::crd(), RateLimit::crd()].into_iter().map(finish).collect();
    crds.sort_by(|a, b| a.name.cmp(&b.name));
    crds
}

fn finish(crd: CustomResourceDefinition) -> Crd {
    let name = crd.metadata.name.clone().unwrap_or_default();
    let mut definition = serde_json::to_value(crd).expect("a CRD is JSON");
    tidy(&mut definition["spec"]["versions"]);
    Crd { name, definition }
}

/// Leaves out what the API server warns about or does not need: formats of unsigned numbers,
/// which it does not know, and `nullable`, because a field that is not set is left out.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let unknown = fields
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint"));
            if unknown {
                fields.remove("format");
            }
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every list, string and map has a bound of its own (a CEL rule's cost is estimated from
    /// them, and so is what one tenant can make us hold).
    fn unbounded(path: &str, schema: &Value, found: &mut Vec<String>) {
        let has = |name: &str| schema.get(name).is_some();
        match schema["type"].as_str() {
            Some("string") if !has("maxLength") && !has("enum") => found.push(path.to_owned()),
            Some("array") if !has("maxItems") => found.push(path.to_owned()),
            Some("object") if has("additionalProperties") && !has("maxProperties") => {
                found.push(path.to_owned());
            }
            Some("object") if !has("properties") && !has("additionalProperties") => {
                found.push(format!("{path} (open)"));
            }
            None => found.push(format!("{path} (no type)")),
            _ => {}
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            unbounded(&format!("{path}.{name}"), field, found);
        }
        if has("items") {
            unbounded(&format!("{path}[]"), &schema["items"], found);
        }
        if schema["additionalProperties"].is_object() {
            unbounded(&format!("{path}{{}}"), &schema["additionalProperties"], found);
        }
    }

    fn schema(crd: &Crd) -> &Value {
        &crd.definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }

    #[test]
    fn every_list_string_and_map_is_bounded() {
        for crd in all() {
            let mut found = Vec::new();
            for part in ["spec", "status"] {
                unbounded(part, &schema(&crd)["properties"][part], &mut found);
            }
            assert!(found.is_empty(), "{}: {found:#?}", crd.name);
        }
    }

    #[test]
    fn the_linter_sees_what_is_unbounded() {
        let schema = serde_json::json!({"type": "object", "properties": {
            "a": {"type": "string"},
            "b": {"type": "array", "items": {"type": "string", "maxLength": 1}},
            "c": {"type": "object", "additionalProperties": {"type": "string"}},
            "d": {"type": "string", "enum": ["x"]},
        }});
        let mut found = Vec::new();
        unbounded("spec", &schema, &mut found);
        assert_eq!(found, ["spec.a", "spec.b", "spec.c", "spec.c{}"]);
    }

    #[test]
    fn no_format_is_unknown_to_the_api_server() {
        for crd in all() {
            let text = crd.definition.to_string();
            assert!(!text.contains("\"uint"), "{}", crd.name);
            assert!(!text.contains("nullable"), "{}", crd.name);
        }
    }

    #[test]
    fn each_kind_is_namespaced_and_has_a_status_and_a_category() {
        for crd in all() {
            let spec = &crd.definition["spec"];
            assert_eq!(spec["scope"], "Namespaced");
            assert_eq!(spec["names"]["categories"][0], "tidegate");
            assert!(spec["names"]["shortNames"][0].is_string());
            let version = &spec["versions"][0];
            assert!(version["subresources"]["status"].is_object());
            assert!(version["additionalPrinterColumns"].is_array());
        }
    }

    #[test]
    fn the_rules_are_in_the_schema() {
        let crds = all();
        let rules = |index: usize| {
            schema(&crds[index])["properties"]["spec"]["x-kubernetes-validations"].to_string()
        };
        assert!(rules(1).contains("set at least one policy"));
        assert!(rules(2).contains("set redis with type Redis"));
    }

    #[test]
    fn a_crd_fits_into_an_annotation_of_kubectl() {
        for crd in all() {
            assert!(crd.definition.to_string().len() < 64 * 1024, "{}", crd.name);
        }
    }
}
