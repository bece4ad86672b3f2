//! The corpus of the fuzz targets (`fuzz/`), held against the same checks without a fuzzer.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]

#[path = "../fuzz/src/checks.rs"]
mod checks;

use std::fs;
use std::path::Path;

use tidegate::proxy::http1;

fn replay(corpus: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let data = fs::read(&path).unwrap();
        let failed = std::panic::catch_unwind(|| check(&data)).is_err();
        assert!(!failed, "{} breaks what must hold", path.display());
        count += 1;
    }
    assert!(count >= 20, "the corpus {corpus} is nearly empty: {count}");
}

#[test]
fn requests() {
    replay("request", checks::request);
    replay("request", checks::round_trip);
}

#[test]
fn responses() {
    replay("response", checks::response);
    replay("response", checks::round_trip);
}

#[test]
fn chunked_bodies() {
    replay("chunked", checks::chunked);
}

#[test]
fn round_trips() {
    replay("round_trip", checks::round_trip);
}
