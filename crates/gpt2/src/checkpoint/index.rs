//! `model.safetensors.index.json`: which file of a checkpoint in several files holds which tensor.
//!
//! The index is untrusted: it may only name files that stand beside it, and every file must hold
//! exactly the tensors that the index says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::file::{is_buffer, short_name};
use crate::Error;
use crate::files::is_plain_name;

/// For each file by its name, the tensors in it under their names without `transformer.`.
pub(super) type Files = BTreeMap<String, BTreeSet<String>>;

#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// Reads the text of an index; `path` is only for messages.
///
/// # Errors
/// If it is not an index, names no file, or names anything but a file beside it.
pub(super) fn read(path: &Path, text: &str) -> Result<Files, Error> {
    let fail = |reason: String| Error::index(path, reason);
    let index: Index = serde_json::from_str(text).map_err(|error| {
        fail(format!("a JSON object with a `weight_map` from tensors to files is expected: {error}"))
    })?;
    let mut files = Files::new();
    for (tensor, file) in index.weight_map {
        if !is_plain_name(&file) {
            return Err(fail(format!(
                "the file of tensor `{tensor}` is {file:?}; only the name of a file beside the index \
                 is taken"
            )));
        }
        let names = files.entry(file).or_default();
        let name = short_name(&tensor);
        if !is_buffer(&name) {
            names.insert(name);
        }
    }
    if files.is_empty() {
        return Err(fail("its `weight_map` is empty".to_owned()));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_map(text: &str) -> Result<Files, String> {
        read(Path::new("x.index.json"), &format!("{{\"weight_map\": {text}}}"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn tensors_are_sorted_by_file_without_prefix_and_buffers() {
        let files =
            read_map(r#"{"transformer.wte.weight": "b", "h.0.attn.bias": "a", "wpe.weight": "b"}"#).unwrap();
        let names: Vec<(&str, Vec<&str>)> = files
            .iter()
            .map(|(file, names)| (file.as_str(), names.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(names, [("a", vec![]), ("b", vec!["wpe.weight", "wte.weight"])]);
    }

    #[test]
    fn a_file_outside_of_the_folder_is_refused() {
        for file in ["../../etc/passwd", "/etc/passwd", "..", "", "a\\b", "C:a"] {
            let text = serde_json::json!({ "wte.weight": file }).to_string();
            let error = read_map(&text).unwrap_err();
            assert!(error.starts_with("x.index.json: the file of tensor `wte.weight` is "), "{error}");
            assert!(error.ends_with("only the name of a file beside the index is taken"), "{error}");
        }
    }

    #[test]
    fn what_is_no_index_is_refused() {
        for (text, message) in [
            ("{}", "its `weight_map` is empty"),
            ("[]", "a JSON object with a `weight_map`"),
            (r#"{"wte.weight": 1}"#, "invalid type: integer `1`"),
        ] {
            let error = read_map(text).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        let error = read(Path::new("x"), "{}").unwrap_err().to_string();
        assert!(error.contains("missing field `weight_map`"), "{error}");
    }
}
