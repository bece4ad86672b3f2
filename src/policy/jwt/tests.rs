//! What needs the inside. What tokens are accepted is tested from outside, in
//! `tests/hostile_tokens.rs`.

#[path = "../../../fuzz/src/jwt/check.rs"]
mod check;

use std::fs;
use std::path::Path;

use super::*;

#[test]
fn every_refusal_has_a_word_of_its_own() {
    let mut words: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Refusal::ALL.len());
}

#[test]
fn nothing_in_a_description_ends_a_quoted_string() {
    for refusal in Refusal::ALL {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == ' ';
        assert!(refusal.description().chars().all(plain), "{refusal:?}");
    }
}

/// The corpus of the fuzz target, held against the same check without a fuzzer.
#[test]
fn the_corpus_of_tokens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/token");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let data = fs::read(&path).unwrap();
        let failed = std::panic::catch_unwind(|| check::token(&data)).is_err();
        assert!(!failed, "{} breaks what must hold", path.display());
        count += 1;
    }
    assert!(count >= 20, "the corpus is nearly empty: {count}");
}
