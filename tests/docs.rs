//! The pages of `docs/policies/` are made from the CRDs, so that they cannot say anything
//! else. `TIDEGATE_WRITE=1 cargo test --test docs` writes them anew. Samples are valid, and what
//! pages link to is there.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;
use tidegate::api::crd;

const ATTACH: &str = "\
## Where it attaches

- By an `ExtensionRef` filter of an HTTPRoute's or GRPCRoute's rule, or of a listener (experimental channel), in the same namespace:
  `{type: ExtensionRef, extensionRef: {group: tidegate.dev, kind: KIND, name: NAME}}`.
- By its own `targetRefs`: a Gateway or ListenerSet (with `sectionName` one of its listeners), an HTTPRoute or GRPCRoute (with `sectionName` one
  of its rules) or an Ingress of the same namespace.
- By an annotation of an Ingress: `tidegate.dev/ANNOTATION: NAME[,NAME…]`.

Gates of all levels add up: a route cannot weaken what a Gateway's owner asks for, nor say to the policies of another namespace's Gateway who somebody
is ([identity](../identity.md#who-believes-whom)). Of policies that change messages, the most specific of one sort
wins: ExtensionRef, rule, route, listener, ListenerSet, Gateway. The object's status says where it applies, what overrides it, or that nothing uses it.
";

const CONSUMER: &str = "\
## Where it is known

To the [`authentication`](authentication.md) of the Middlewares of its own namespace. A Secret that is missing or broken costs the Consumer that one
credential and nothing else; what two Consumers have is the older one's. Either stands in the status of the Consumer, in condition `Accepted`.

A namespace follows 256 Secrets and ConfigMaps at most, so where there are many Consumers, let them share a Secret, each with a key of its own. Of an
API key only the SHA-256 is kept in memory.
";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `ipAccess` is told on the page `ip-access.md`.
fn kebab(name: &str) -> String {
    let mut page = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !page.is_empty() {
            page.push('-');
        }
        page.extend(c.to_lowercase());
    }
    page
}

fn text(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// The type with its bounds: `list of ≤ 16`, `integer 1–1000000`, `A or B`.
fn kind(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .filter(|v| !v.is_null())
            .map(|v| format!("`{}`", v.to_string().trim_matches('"')))
            .collect();
        return values.join(", ");
    }
    let number = |name: &str| schema[name].as_f64().map(|n| n.to_string());
    match schema["type"].as_str().unwrap_or_default() {
        "array" => {
            let of = schema["items"]["type"].as_str().unwrap_or_default();
            format!("list of {of}, ≤ {}", number("maxItems").unwrap_or_default())
        }
        "string" => match number("maxLength") {
            Some(max) => format!("string, ≤ {max}"),
            None => "string".into(),
        },
        "integer" => match (number("minimum"), number("maximum")) {
            (Some(min), Some(max)) => format!("integer, {min} to {max}"),
            (Some(min), None) => format!("integer, from {min}"),
            _ => "integer".into(),
        },
        other => other.into(),
    }
}

fn rows(path: &str, schema: &Value, page: &mut String) {
    let required = |name: &str| {
        let list = schema["required"].as_array();
        list.is_some_and(|list| list.iter().any(|r| r == name))
    };
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let list = if field["type"] == "array" { "[]" } else { "" };
        let path = format!("{path}.{name}{list}");
        let mark = if required(name) { " **required**" } else { "" };
        writeln!(page, "| `{path}` | {} | {}{mark} |", kind(field), text(field)).unwrap();
        rows(&path, field, page);
        rows(&path, &field["items"], page);
    }
}

/// The samples of this name, and those whose names go on after it.
fn samples_of(name: &str) -> Vec<String> {
    let found = fs::read_dir(root().join("manifests/samples")).unwrap();
    let names = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let more = format!("{name}-");
    let mut found: Vec<String> = names
        .filter(|file| {
            file.strip_suffix(".yaml").is_some_and(|f| f == name || f.starts_with(&more))
        })
        .map(|file| format!("manifests/samples/{file}"))
        .collect();
    // The shortest name is the first to read.
    found.sort_by_key(|file| file.trim_end_matches(".yaml").to_owned());
    found
}

fn page(title: &str, kind: &str, annotation: &str, path: &str, schema: &Value) -> String {
    let mut page = format!(
        "# {title}\n\n<!-- Made from the CRD by tests/docs.rs: do not edit. -->\n\n{}\n\n",
        text(schema)
    );
    page.push_str("| field | type | meaning |\n|---|---|---|\n");
    rows(path, schema, &mut page);
    let samples = match kind {
        "Middleware" => samples_of(&format!("middleware-{title}")),
        "Consumer" => samples_of("consumer"),
        _ => samples_of("ratelimit"),
    };
    assert!(!samples.is_empty(), "each policy has a sample: {title}");
    page.push_str(if samples.len() > 1 { "\n## Samples\n\n" } else { "\n## Sample\n\n" });
    for sample in samples {
        let yaml = fs::read_to_string(root().join(&sample)).unwrap();
        let yaml = yaml.trim();
        write!(page, "[`{sample}`](../../{sample})\n\n```yaml\n{yaml}\n```\n\n").unwrap();
    }
    page.push_str(&match kind {
        "Consumer" => CONSUMER.to_owned(),
        _ => ATTACH.replace("KIND", kind).replace("ANNOTATION", annotation),
    });
    page
}

fn spec(name: &str) -> Value {
    let crd = crd::all().into_iter().find(|c| c.name == name).unwrap();
    crd.definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// All pages by file name.
fn pages() -> Vec<(String, String)> {
    let middleware = spec("middlewares.tidegate.dev");
    let mut pages = Vec::new();
    let mut index = format!(
        "# Middleware\n\n<!-- Made from the CRD by tests/docs.rs: do not edit. -->\n\n{}\n\n",
        text(&middleware)
    );
    for (name, field) in middleware["properties"].as_object().unwrap() {
        if name == "targetRefs" {
            continue;
        }
        let title = kebab(name);
        writeln!(index, "- [`{name}`]({title}.md): {}", text(field)).unwrap();
        let path = format!("spec.{name}");
        pages
            .push((format!("{title}.md"), page(&title, "Middleware", "middlewares", &path, field)));
    }
    index.push_str("\nThe API server refuses:\n\n");
    for rule in middleware["x-kubernetes-validations"].as_array().unwrap() {
        writeln!(index, "- {}", rule["message"].as_str().unwrap()).unwrap();
    }
    index.push('\n');
    index.push_str(&ATTACH.replace("KIND", "Middleware").replace("ANNOTATION", "middlewares"));
    pages.push(("middleware.md".into(), index));
    let consumer = spec("consumers.tidegate.dev");
    pages.push(("consumer.md".into(), page("consumer", "Consumer", "", "spec", &consumer)));
    let limit = spec("ratelimits.tidegate.dev");
    pages.push((
        "rate-limit.md".into(),
        page("rate-limit", "RateLimit", "rate-limits", "spec", &limit),
    ));
    pages
}

#[test]
fn the_pages_of_the_policies_say_what_the_crds_say() {
    let folder = root().join("docs/policies");
    for (name, text) in pages() {
        let file = folder.join(&name);
        if env::var_os("TIDEGATE_WRITE").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, text).unwrap();
        } else {
            let current = fs::read_to_string(&file).unwrap_or_default();
            assert!(
                current == text,
                "docs/policies/{name}: TIDEGATE_WRITE=1 cargo test --test docs"
            );
        }
    }
}

fn samples() -> Vec<PathBuf> {
    let folders = ["manifests/samples", "manifests/samples/experimental"];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap());
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|end| end == "yaml")).collect()
}

/// What `tidegate validate` says of a file or folder, beside a GatewayClass of ours.
fn problems(path: &Path) -> Vec<String> {
    let class = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: \
                tidegate}\nspec: {controllerName: tidegate.dev/gateway-controller}\n";
    fs::write(class.path(), text).unwrap();
    let mut validate = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = validate.arg("validate").arg(class.path()).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn nothing_is_wrong_with_the_samples_but_what_they_leave_out() {
    let left_out = ["does not exist; create it", "see ResolvedRefs", "is in none of the files"];
    for sample in samples() {
        let mut wrong = problems(&sample);
        wrong.retain(|line| !left_out.iter().any(|part| line.contains(part)));
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn nothing_is_wrong_with_the_api_platform_and_it_leaves_nothing_out() {
    let wrong = problems(&root().join("manifests/samples/api-platform"));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_list_of_samples_names_every_one() {
    let list = fs::read_to_string(root().join("manifests/samples/README.md")).unwrap();
    for sample in samples() {
        let name = sample.strip_prefix(root().join("manifests/samples")).unwrap();
        let row = format!("| {} |", name.display());
        assert!(list.contains(&row), "manifests/samples/README.md has no row `{row}`");
    }
}

#[test]
fn what_the_pages_link_to_is_there() {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.chain([root().join("README.md")]);
    for page in pages.filter(|page| page.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap();
            let there = page.parent().unwrap().join(file).exists();
            assert!(there, "{}: nothing is at {link}", page.display());
        }
    }
}
