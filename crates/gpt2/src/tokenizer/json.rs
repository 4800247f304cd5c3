//! `tokenizer.json`, the file of Hugging Face's tokenizers.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use super::added::AddedToken;
use super::bpe::{Bpe, Unknown};
use super::words::{Words, kind, name};

/// What a `tokenizer.json` says.
pub(super) struct TokenizerJson {
    /// The vocabulary: text in the alphabet of [`super::alphabet`] → id.
    pub(super) vocabulary: HashMap<String, u32>,
    pub(super) bpe: Bpe,
    pub(super) words: Words,
    pub(super) nfc: bool,
    /// Added tokens with the ids that the file gives them.
    pub(super) added: Vec<(Option<u32>, AddedToken)>,
    /// The token that the post-processor puts in front of a text.
    pub(super) opens_with: Option<u32>,
}

impl TokenizerJson {
    /// Reads the text of a file; `prefix_space` as in [`Words::from_json`].
    ///
    /// # Errors
    /// If it is broken, or holds a part that is not read exactly: which one.
    pub(super) fn read(text: &str, prefix_space: Option<bool>) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| other_model(text, error))?;
        check_decoder(&file.decoder)?;
        let added = file.added_tokens.into_iter();
        let added = added.map(|token| (Some(token.id), token.token)).collect();
        let model = file.model;
        model.check()?;
        let unknown = match model.unk_token {
            None => Unknown::Dropped,
            Some(token) => match model.vocab.get(&token) {
                Some(&id) => Unknown::Token { id, fused: model.fuse_unk.unwrap_or(false) },
                None => Unknown::Missing(token),
            },
        };
        let merges: Vec<(String, String)> = model.merges.into_iter().filter_map(|m| m.0).collect();
        let bpe = Bpe::new(&model.vocab, &merges, unknown)?;
        let whole_words = model.ignore_merges.unwrap_or(false);
        let vocabulary = whole_words.then(|| model.vocab.clone());
        Ok(Self {
            bpe: match vocabulary {
                Some(vocabulary) => bpe.with_whole_words(vocabulary),
                None => bpe,
            },
            vocabulary: model.vocab,
            words: Words::from_json(&file.pre_tokenizer, prefix_space)?,
            nfc: is_nfc(&file.normalizer)?,
            added,
            opens_with: opening_token(&file.post_processor)?,
        })
    }
}

#[derive(serde::Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Listed>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(serde::Deserialize)]
struct Listed {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(serde::Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<MergeEntry>,
    unk_token: Option<String>,
    fuse_unk: Option<bool>,
    ignore_merges: Option<bool>,
    byte_fallback: Option<bool>,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

impl Model {
    /// Checks that there is nothing in it but byte-level merges.
    fn check(&self) -> Result<(), String> {
        let kind = self.kind.as_deref().unwrap_or("BPE");
        let is_set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let other = [
            (kind != "BPE", "a model other than BPE"),
            (self.byte_fallback == Some(true), "byte_fallback"),
            (self.dropout.is_some_and(|share| share != 0.0), "dropout"),
            (is_set(&self.continuing_subword_prefix), "continuing_subword_prefix"),
            (is_set(&self.end_of_word_suffix), "end_of_word_suffix"),
        ];
        match other.into_iter().find(|(found, _)| *found) {
            Some((_, what)) => Err(format!("{what} is not read, only byte-level BPE is")),
            None => Ok(()),
        }
    }
}

/// A merge: `["a", "b"]`, or `"a b"` in files of older versions; none for a `#version` line.
struct MergeEntry(Option<(String, String)>);

impl<'de> Deserialize<'de> for MergeEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = MergeEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: two tokens")
            }

            fn visit_str<E: de::Error>(self, line: &str) -> Result<MergeEntry, E> {
                merge_line(line).map(MergeEntry).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<MergeEntry, A::Error> {
                let mut next = || pair.next_element::<String>();
                let [left, right, more] = [next()?, next()?, next()?];
                match (left, right, more) {
                    (Some(left), Some(right), None) => Ok(MergeEntry(Some((left, right)))),
                    _ => Err(de::Error::custom("a merge must have two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

/// A merge out of a line of `merges.txt`; none for its head, `#version: 0.2`.
///
/// # Errors
/// If the line is not two tokens with a space between them.
pub(super) fn merge_line(line: &str) -> Result<Option<(String, String)>, String> {
    if line.starts_with("#version") {
        return Ok(None);
    }
    match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok(Some((left.to_owned(), right.to_owned()))),
        _ => Err(format!("{line:?} is not a merge: two tokens with a space between them")),
    }
}

/// The message for a file that is not read: another model by name, or what is broken.
fn other_model(text: &str, error: serde_json::Error) -> String {
    #[derive(serde::Deserialize)]
    struct Kind {
        model: Type,
    }
    #[derive(serde::Deserialize)]
    struct Type {
        #[serde(rename = "type")]
        kind: String,
    }
    match serde_json::from_str(text) {
        Ok(Kind { model: Type { kind } }) if kind != "BPE" => {
            format!("a tokenizer of the kind {kind} is not read, only byte-level BPE is")
        }
        _ => format!("not a whole tokenizer: {error}"),
    }
}

/// Whether texts are normalized to NFC.
fn is_nfc(normalizer: &Value) -> Result<bool, String> {
    let steps = match kind(normalizer) {
        "Sequence" => normalizer["normalizers"].as_array().map_or(&[][..], |s| &s[..]),
        _ => std::slice::from_ref(normalizer),
    };
    let mut nfc = false;
    for step in steps.iter().filter(|step| !step.is_null()) {
        if kind(step) != "NFC" {
            return Err(format!("the normalizer {} is not read, only NFC is", name(step)));
        }
        nfc = true;
    }
    Ok(nfc)
}

/// Checks that tokens are turned into text byte by byte, or that nothing is said of it.
fn check_decoder(decoder: &Value) -> Result<(), String> {
    let steps = match kind(decoder) {
        "Sequence" => decoder["decoders"].as_array().map_or(&[][..], |s| &s[..]),
        _ => std::slice::from_ref(decoder),
    };
    let other = steps.iter().find(|step| !step.is_null() && kind(step) != "ByteLevel");
    match other {
        Some(step) => Err(format!("the decoder {} is not read, only ByteLevel is", name(step))),
        None => Ok(()),
    }
}

/// The token that a post-processor puts in front of a text.
fn opening_token(processor: &Value) -> Result<Option<u32>, String> {
    let steps = match kind(processor) {
        "Sequence" => processor["processors"].as_array().map_or(&[][..], |s| &s[..]),
        _ => std::slice::from_ref(processor),
    };
    let mut opening = None;
    for step in steps {
        match kind(step) {
            "ByteLevel" => {}
            "" if step.is_null() => {}
            "TemplateProcessing" => match (template_token(step)?, opening) {
                (None, _) => {}
                (Some(id), None) => opening = Some(id),
                (Some(_), Some(_)) => {
                    return Err("a post-processor puts two tokens in front of a text".to_owned());
                }
            },
            _ => return Err(format!("the post-processor {} is not read", name(step))),
        }
    }
    Ok(opening)
}

/// The token in front of the text in a `TemplateProcessing`.
fn template_token(template: &Value) -> Result<Option<u32>, String> {
    let refuse = || {
        "the post-processor TemplateProcessing puts more than one token in front of a text, and no \
         other is read"
            .to_owned()
    };
    let pieces = template["single"].as_array().ok_or_else(refuse)?;
    let is_text = |piece: &Value| piece["Sequence"]["id"] == "A";
    match &pieces[..] {
        [text] if is_text(text) => Ok(None),
        [token, text] if is_text(text) => {
            let token = token["SpecialToken"]["id"].as_str().ok_or_else(refuse)?;
            let ids = template["special_tokens"][token]["ids"].as_array();
            match ids.map(|ids| &ids[..]) {
                Some([id]) => {
                    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    Ok(Some(id.ok_or_else(refuse)?))
                }
                _ => Err(refuse()),
            }
        }
        _ => Err(refuse()),
    }
}
