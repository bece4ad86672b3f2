//! Holds the code against the table of modules in docs/architecture.md, and the dependency
//! tree against the promise of one TLS stack.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which modules of this crate, and which outside crates out of [`WATCHED`], a module may name.
/// A module that is not listed may use everything.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    ("reason", &[], &[]),
    ("lifecycle", &[], &["tokio"]),
    ("health", &[], &["tokio"]),
    ("services", &["reason"], &["hyper", "rustls", "tokio"]),
    ("policy", &["reason", "services"], &["tokio"]),
    ("api", &["policy"], &["kube", "k8s_openapi"]),
    ("graph", &["policy", "reason"], &["rustls", "tokio"]),
    (
        "translate",
        &["api", "graph", "policy", "reason", "services"],
        &["k8s_openapi", "kube", "rustls"],
    ),
    (
        "source",
        &["api", "graph", "policy", "services", "translate", "lifecycle"],
        &["kube", "k8s_openapi", "tokio", "hyper"],
    ),
    (
        "controller",
        &["api", "graph", "translate", "lifecycle", "health", "source"],
        &["kube", "k8s_openapi", "tokio", "hyper"],
    ),
    (
        "proxy",
        &["graph", "policy", "services", "lifecycle", "telemetry", "reason"],
        &["hyper", "tokio", "rustls"],
    ),
    ("telemetry", &["graph", "policy", "reason", "services"], &[]),
];

/// Outside crates whose use says what a module does: I/O, Kubernetes, TLS.
const WATCHED: &[&str] = &["kube", "k8s_openapi", "tokio", "hyper", "rustls"];

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file without comments and without its tests.
fn code(text: &str) -> String {
    let without_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    without_tests
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The identifiers that follow `prefix` in `code`, also inside braces after it.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let ident = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0;
                for part in list.split_inclusive([',', '{', '}']) {
                    if depth == 0 {
                        names.insert(ident(part.trim_start()));
                    }
                    depth += part.matches('{').count() as i32;
                    depth -= part.matches('}').count() as i32;
                    if depth < 0 {
                        break;
                    }
                }
            }
            None => {
                names.insert(ident(rest));
            }
        }
    }
    names.remove("");
    names
}

/// Modules of the crate root with the code of all their files.
fn modules() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut modules: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let is_test = inside.components().any(|c| c.as_os_str() == "tests")
            || inside.file_stem().is_some_and(|s| s == "tests");
        if is_test {
            continue;
        }
        let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        let text = code(&fs::read_to_string(&file).unwrap());
        modules.entry(module).or_default().push((file, text));
    }
    modules
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let modules = modules();
    let mut broken = Vec::new();
    for (module, allowed, crates) in TABLE {
        for (file, code) in modules.get(*module).into_iter().flatten() {
            for name in names_after(code, "crate::") {
                if name != *module && modules.contains_key(&name) && !allowed.contains(&&*name) {
                    broken.push(format!("{}: crate::{name}", file.display()));
                }
            }
            for name in WATCHED.iter().filter(|c| code.contains(&format!("{c}::"))) {
                if !crates.contains(name) && !names_after(code, &format!("{name}::")).is_empty() {
                    broken.push(format!("{}: {name}", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "uses that the table of modules forbids:\n{}", broken.join("\n"));
}

#[test]
fn the_table_in_the_docs_is_this_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = fs::read_to_string(page).unwrap();
    for (module, allowed, _) in TABLE {
        let list = match allowed {
            [] => "—".to_owned(),
            names => names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "),
        };
        let row = format!("| `{module}` | {list} |");
        assert!(page.contains(&row), "docs/architecture.md has no row `{row}`");
    }
}

#[test]
fn there_is_one_tls_stack() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal,build", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<&str> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
    assert!(crates.contains("aws-lc-rs"), "the tree was not read: {tree}");
    for banned in ["ring", "openssl", "openssl-sys", "native-tls", "reqwest", "axum"] {
        assert!(!crates.contains(banned), "the dependency tree holds `{banned}`");
    }
}
