//! `/problems`: what cannot be read, file by file and object by object.

use serde_json::{Value, json};

use crate::source::Handle;

/// All that is wrong now; empty lists when nothing is.
pub fn problems(source: &Handle) -> Value {
    let files = source.problems();
    let files = files.iter().map(|problem| {
        json!({
            "file": &*problem.origin.file,
            "line": problem.origin.line,
            "message": problem.message,
        })
    });
    let snapshot = source.snapshot();
    let objects = snapshot.undecodable.iter().map(|object| {
        json!({
            "kind": object.kind,
            "namespace": object.key.namespace,
            "name": object.key.name,
            "origin": object.origin,
            "message": object.message,
        })
    });
    json!({
        "files": files.collect::<Vec<_>>(),
        "undecodable": objects.collect::<Vec<_>>(),
    })
}
