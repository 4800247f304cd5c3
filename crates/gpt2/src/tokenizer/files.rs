//! The tokenizer files of a folder, and what they say together.
//!
//! As transformers reads them: `tokenizer.json` alone says how a text is cut; without it `vocab.json`
//! and `merges.txt` do, in the way of the tokenizer's class. The added tokens of
//! `tokenizer_config.json`, or of `added_tokens.json` where that lists none, are laid over the
//! vocabulary, and tokens with a role (`bos_token`, `pad_token`, …) are added if they are not there.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::added::{Added, AddedToken};
use super::bpe::{Bpe, Unknown};
use super::ids::{Ids, Vocabulary};
use super::json::{TokenizerJson, merge_line};
use super::settings::{Class, Settings};
use super::words::Words;
use super::{END_OF_TEXT_NAME, Engine, Tables};
use crate::{Error, files};

/// The longest tokenizer file that is read. Llama-3's `tokenizer.json` has 17 MB.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// Tokenizers in other formats. Such a file says that r50k is not meant.
const OTHER_FILES: [&str; 8] = [
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "encoder.json",
    "vocab.bpe",
    "qwen.tiktoken",
    "tekken.json",
];

/// Reads the tokenizer of a folder; none if the folder has no file of one.
pub(super) fn read(folder: &Path) -> Result<Option<Tables>, Error> {
    let settings = Settings::read(folder)?;
    if is_there(folder, "tokenizer.json") {
        return from_json(&folder.join("tokenizer.json"), &settings).map(Some);
    }
    match ["vocab.json", "merges.txt"].map(|file| is_there(folder, file)) {
        [true, true] => return from_pair(folder, &settings).map(Some),
        [true, false] => return Err(half_a_pair(folder, "merges.txt", "vocab.json")),
        [false, true] => return Err(half_a_pair(folder, "vocab.json", "merges.txt")),
        [false, false] => {}
    }
    if let Some(file) = OTHER_FILES.iter().find(|file| is_there(folder, file)) {
        let reason = "this kind of tokenizer is not read: write a tokenizer.json beside it \
                      (AutoTokenizer.from_pretrained and save_pretrained of transformers do), or give \
                      token ids with --ids";
        return Err(Error::tokenizer(&folder.join(file), reason));
    }
    match &settings.path {
        Some(path) => r50k_with(folder, path, &settings).map(Some),
        None => Ok(None),
    }
}

/// Whether a folder has a file. A link that leads nowhere counts: to open it says what is wrong.
pub(super) fn is_there(folder: &Path, file: &str) -> bool {
    fs::symlink_metadata(folder.join(file)).is_ok()
}

fn half_a_pair(folder: &Path, missing: &str, found: &str) -> Error {
    let reason = format!("no such file, and {found} without it does not say how a text is cut into tokens");
    Error::tokenizer(&folder.join(missing), reason)
}

/// The tokenizer of a `tokenizer.json`.
fn from_json(path: &Path, settings: &Settings) -> Result<Tables, Error> {
    let fail = |reason: String| Error::tokenizer(path, reason);
    let text = files::read_text_up_to(path, MAX_BYTES)?;
    let json = TokenizerJson::read(&text, settings.flag("add_prefix_space")).map_err(fail)?;
    let mut ids = Ids::new(Vocabulary::File(json.vocabulary));
    ids.add(&json.added).map_err(fail)?;
    ids.add_settings(settings).map_err(fail)?;
    let engine = Engine::Files { words: Box::new(json.words), bpe: Box::new(json.bpe) };
    let tables = tables(path, &ids, engine, json.nfc)?;
    let bos = || settings.role("bos_token").and_then(|token| ids.id(token));
    Ok(Tables {
        bos: json.opens_with.or_else(bos),
        eos: settings.role("eos_token").and_then(|token| ids.id(token)),
        opens_texts: json.opens_with.is_some(),
        ..tables
    })
}

/// The tokenizer of a `vocab.json` and a `merges.txt`.
fn from_pair(folder: &Path, settings: &Settings) -> Result<Tables, Error> {
    let path = folder.join("vocab.json");
    let fail = |reason: String| Error::tokenizer(&path, reason);
    let class = settings.class(folder)?;
    let text = files::read_text_up_to(&path, MAX_BYTES)?;
    let vocabulary: HashMap<String, u32> = serde_json::from_str(&text)
        .map_err(|error| fail(format!("not a JSON object of tokens and ids: {error}")))?;
    let merges_path = folder.join("merges.txt");
    let merges = read_merges(&merges_path)?;
    let bpe = Bpe::new(&vocabulary, &merges, Unknown::Dropped)
        .map_err(|reason| Error::tokenizer(&merges_path, reason))?;
    let prefix_space = settings.flag("add_prefix_space").unwrap_or(false);
    let words = match class {
        Class::Gpt2 | Class::GptNeoX => Words::gpt2(prefix_space),
        Class::Qwen2 => Words::qwen2(prefix_space),
    };
    let engine = Engine::Files { words: Box::new(words), bpe: Box::new(bpe) };
    let mut ids = Ids::new(Vocabulary::File(vocabulary));
    ids.add_settings(settings).map_err(fail)?;
    add_defaults(&mut ids, class).map_err(fail)?;
    let tables = tables(&path, &ids, engine, class != Class::Gpt2)?;
    with_roles(tables, folder, &ids, (settings, class))
}

/// The merges of a `merges.txt`, one a line.
fn read_merges(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let text = files::read_text_up_to(path, MAX_BYTES)?;
    let mut merges = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
        let merge =
            merge_line(line).map_err(|reason| Error::tokenizer(path, format!("line {number}: {reason}")))?;
        merges.extend(merge);
    }
    Ok(merges)
}

/// Adds the special tokens that a class has whatever the files say. Those that are not in the
/// vocabulary are left out: the model has no embedding for them.
fn add_defaults(ids: &mut Ids, class: Class) -> Result<(), String> {
    let names: &[&str] = match class {
        Class::Gpt2 | Class::Qwen2 => &[END_OF_TEXT_NAME],
        Class::GptNeoX => &[END_OF_TEXT_NAME, "<|padding|>"],
    };
    let known = names.iter().filter(|name| ids.id(name).is_some());
    let tokens = known.map(|name| AddedToken::new(name, true)).collect();
    ids.add_new(tokens)
}

/// r50k with what the other files lay over it.
fn r50k_with(folder: &Path, path: &Path, settings: &Settings) -> Result<Tables, Error> {
    let class = settings.class(folder)?;
    if class != Class::Gpt2 {
        let reason = "there is no tokenizer.json beside it, and no vocab.json: the tokens are not known";
        return Err(Error::tokenizer(path, reason));
    }
    let fail = |reason: String| Error::tokenizer(path, reason);
    let bpe = tiktoken_rs::r50k_base_singleton();
    let mut ids = Ids::new(Vocabulary::R50k(bpe));
    add_defaults(&mut ids, class).map_err(fail)?;
    ids.add_settings(settings).map_err(fail)?;
    let engine = Engine::R50k { bpe, prefix_space: settings.flag("add_prefix_space").unwrap_or(false) };
    let tables = tables(path, &ids, engine, false)?;
    with_roles(tables, folder, &ids, (settings, class))
}

/// The tables of an engine and its ids; no token has a role yet.
fn tables(path: &Path, ids: &Ids, engine: Engine, nfc: bool) -> Result<Tables, Error> {
    let fail = |reason: String| Error::tokenizer(path, reason);
    let bytes = ids.bytes().map_err(fail)?;
    let n_vocabulary = ids.n_vocabulary();
    let largest = bytes.keys().max().map_or(0, |&id| id as usize + 1);
    Ok(Tables {
        path: path.to_owned(),
        engine,
        added: Added::new(ids.added(), nfc).map_err(fail)?,
        bytes,
        bos: None,
        eos: None,
        opens_texts: false,
        n_tokens: n_vocabulary.max(largest),
        n_vocabulary,
    })
}

/// Tables of files without a post-processor, with the tokens' roles: `add_bos_token` says whether one
/// opens texts, and where no token is named for it, it is the default of the class.
fn with_roles(
    tables: Tables,
    folder: &Path,
    ids: &Ids,
    (settings, class): (&Settings, Class),
) -> Result<Tables, Error> {
    if settings.flag("add_eos_token") == Some(true) {
        let reason = "add_eos_token puts a token behind every text, which is not read";
        return Err(Error::tokenizer(&folder.join("tokenizer_config.json"), reason));
    }
    let role = |key: &str| settings.role(key).and_then(|token| ids.id(token));
    let wants_bos = settings.flag("add_bos_token") == Some(true);
    let has_default = wants_bos && class != Class::Qwen2 && !settings.names("bos_token");
    let default = ids.id(END_OF_TEXT_NAME).filter(|_| has_default);
    let bos = role("bos_token").or(default);
    Ok(Tables { bos, eos: role("eos_token"), opens_texts: wants_bos && bos.is_some(), ..tables })
}
