//! Tokenizers of many kinds against the ids that Hugging Face gives (`tests/tokenizers/make.py`).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Tokenizer;

#[derive(Deserialize)]
struct Expected {
    bos: Option<u32>,
    eos: Option<u32>,
    opens_texts: bool,
    ids: Vec<Vec<u32>>,
    /// By the text's index; the others decode to the text.
    decoded: HashMap<usize, String>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tokenizers").join(name)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Holds a tokenizer to the ids of every text, and to what they decode to.
fn check(name: &str) {
    let texts: Vec<String> = read(&folder("texts.json"));
    let expected: Expected = read(&folder(name).join("expected.json"));
    let tokenizer = Tokenizer::in_folder(&folder(name)).unwrap().unwrap();
    assert!(texts.len() >= 500);
    assert_eq!(texts.len(), expected.ids.len());
    for (i, (text, ids)) in texts.iter().zip(&expected.ids).enumerate() {
        assert_eq!(&tokenizer.encode(text).unwrap(), ids, "text {i}: {text:?}");
        let decoded = expected.decoded.get(&i).unwrap_or(text);
        assert_eq!(&tokenizer.decode(ids), decoded, "text {i}: {text:?}");
    }
    assert_eq!(tokenizer.bos(), expected.bos);
    assert_eq!(tokenizer.eos(), expected.eos);
    assert_eq!(tokenizer.opens_texts(), expected.opens_texts);
}

#[test]
fn a_german_gpt2_has_the_ids_of_hugging_face() {
    check("german");
}

#[test]
fn a_pythia_has_the_ids_of_hugging_face() {
    check("pythia");
}

#[test]
fn a_llama3_has_the_ids_of_hugging_face() {
    check("llama3");
}

#[test]
fn a_qwen2_has_the_ids_of_hugging_face() {
    check("qwen2");
}

#[test]
fn an_opt_has_the_ids_of_hugging_face() {
    check("opt");
}

#[test]
fn bytes_without_tokens_are_what_hugging_face_makes_of_them() {
    check("gaps");
}
