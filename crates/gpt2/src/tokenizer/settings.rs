//! `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`: what is laid over a
//! vocabulary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::added::AddedToken;
use super::files::{MAX_BYTES, is_there};
use crate::{Error, files};

const CONFIG: &str = "tokenizer_config.json";
const ROLES_MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";

/// The roles that a token can have.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The lists of further special tokens, in older and in newer files.
const FURTHER: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// The tokenizer classes of transformers that read `vocab.json` and `merges.txt` in a way that is
/// known here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Class {
    /// GPT-2's words.
    Gpt2,
    /// NFC, then GPT-2's words.
    GptNeoX,
    /// NFC, then Qwen2's words.
    Qwen2,
}

/// What the files beside a vocabulary say.
pub(super) struct Settings {
    /// The first of the files that is there.
    pub(super) path: Option<PathBuf>,
    values: Map<String, Value>,
    /// Added tokens with the ids that the files give them, in the order of the ids.
    pub(super) added: Vec<(u32, AddedToken)>,
    /// Whether `added` overrules what `tokenizer.json` says of the same tokens.
    pub(super) overrules: bool,
}

impl Settings {
    /// Reads those of the files that are in the folder.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let names = [CONFIG, ROLES_MAP, ADDED];
        let path = names.into_iter().find(|name| is_there(folder, name));
        let mut values = object(folder, CONFIG)?;
        let listed = values.remove("added_tokens_decoder");
        let overrules = listed.is_some();
        let added = match listed {
            // Files that list the added tokens are newer than the other two, which then only repeat
            // it; transformers does not read them.
            Some(listed) => listed_tokens(&listed).map_err(|reason| fail(folder, CONFIG, reason))?,
            None => {
                values.extend(object(folder, ROLES_MAP)?);
                let ids = object(folder, ADDED)?;
                legacy_tokens(&ids, &values).map_err(|reason| fail(folder, ADDED, reason))?
            }
        };
        Ok(Self { path: path.map(|name| folder.join(name)), values, added, overrules })
    }

    /// A setting that is true or false.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.values.get(key)?.as_bool()
    }

    /// The text of the token with a role.
    pub(super) fn role(&self, key: &str) -> Option<&str> {
        text(self.values.get(key)?)
    }

    /// Whether a role is given to a token, or to none by name (`null`).
    pub(super) fn names(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The tokens that have a role, and further special tokens.
    pub(super) fn special_tokens(&self) -> Vec<AddedToken> {
        let roles = ROLES.iter().filter_map(|role| self.values.get(*role));
        let lists = FURTHER.iter().filter_map(|key| self.values.get(*key));
        let further = lists.filter_map(Value::as_array).flatten();
        roles.chain(further).filter_map(special_token).collect()
    }

    /// The class whose way of reading `vocab.json` and `merges.txt` is meant: the `tokenizer_class` of
    /// `tokenizer_config.json`, else that of the model's kind in `config.json`, else GPT-2's.
    ///
    /// # Errors
    /// If it is another one.
    pub(super) fn class(&self, folder: &Path) -> Result<Class, Error> {
        let config = object(folder, "config.json")?;
        let (file, name) = match (self.values.get("tokenizer_class"), config.get("model_type")) {
            (Some(Value::String(class)), _) => (CONFIG, class.as_str()),
            (_, Some(Value::String(kind))) => ("config.json", kind.as_str()),
            _ => return Ok(Class::Gpt2),
        };
        match name.strip_suffix("Fast").unwrap_or(name) {
            "GPT2Tokenizer" | "gpt2" | "gpt_neo" | "gptj" | "opt" => Ok(Class::Gpt2),
            "GPTNeoXTokenizer" | "gpt_neox" => Ok(Class::GptNeoX),
            "Qwen2Tokenizer" | "qwen2" => Ok(Class::Qwen2),
            _ => {
                let reason = format!(
                    "how {name} cuts a text with vocab.json and merges.txt is not known; a \
                     tokenizer.json beside them would say it (save_pretrained of transformers writes one)"
                );
                Err(fail(folder, file, reason))
            }
        }
    }
}

fn fail(folder: &Path, file: &str, reason: String) -> Error {
    Error::tokenizer(&folder.join(file), reason)
}

/// The JSON object in a file; an empty one if there is no such file.
fn object(folder: &Path, file: &str) -> Result<Map<String, Value>, Error> {
    if !is_there(folder, file) {
        return Ok(Map::new());
    }
    let text = files::read_text_up_to(&folder.join(file), MAX_BYTES)?;
    serde_json::from_str(&text).map_err(|e| fail(folder, file, format!("not a JSON object: {e}")))
}

/// The text of a token that is written as a string or as an object.
fn text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// A token with a role, as an added token.
fn special_token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(text) => Some(AddedToken::new(text, true)),
        _ => AddedToken::deserialize(value).ok().map(|token| token.as_special()),
    }
}

/// The tokens of `added_tokens_decoder`: id → token.
fn listed_tokens(listed: &Value) -> Result<Vec<(u32, AddedToken)>, String> {
    let tokens = BTreeMap::<u32, AddedToken>::deserialize(listed)
        .map_err(|error| format!("added_tokens_decoder: {error}"))?;
    Ok(tokens.into_iter().collect())
}

/// The tokens of `added_tokens.json`: text → id. Those that have a role are special.
fn legacy_tokens(
    ids: &Map<String, Value>,
    values: &Map<String, Value>,
) -> Result<Vec<(u32, AddedToken)>, String> {
    let roles = ROLES.iter().chain(&FURTHER);
    let with_a_role: Vec<&str> = roles
        .filter_map(|role| values.get(*role))
        .flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), |list| list))
        .filter_map(text)
        .collect();
    let mut tokens = Vec::new();
    for (text, id) in ids {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = number.ok_or_else(|| format!("{id} is not the id of a token"))?;
        tokens.push((id, AddedToken::new(text, with_a_role.contains(&text.as_str()))));
    }
    tokens.sort_by_key(|(id, _)| *id);
    Ok(tokens)
}
