//! Models with their tokenizers: by name, by folder, or the small one that is always there.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::ConfigFile;
use crate::locate::{DEFAULT, KNOWN, Known, Places, TINY, weights_in};
use crate::tokenizer::{END_OF_TEXT, N_TOKENS};
use crate::unread::{shard_of, what_is, what_is_in};
use crate::{Checkpoint, Config, Error, Gpt2, Tokenizer, files};
use visible::{visible_line, visible_path};

/// A model with its tokenizer and what else belongs to it.
pub struct Pretrained {
    /// What the user calls it: `tiny`, `gpt2`, or the path that was given.
    pub name: String,
    /// Its weights, or the index of them; none for the model in the program itself.
    pub path: Option<PathBuf>,
    /// The model.
    pub model: Gpt2,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The token that opens a text, where one is known: what the tokenizer's files say, else the config.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// The tokens that it was trained on, where it was not all of them.
    pub known_tokens: Option<HashSet<u32>>,
    /// What was assumed because its files do not say it, a line each.
    pub notes: Vec<String>,
}

impl Pretrained {
    /// The small trained model that ships with the project, out of the program itself.
    ///
    /// # Errors
    /// Never, as long as the files that were built in are whole.
    pub fn tiny() -> Result<Self, Error> {
        let path = |file: &str| Path::new("weights/tiny").join(file);
        let config = Config::from_json(gpt2_tiny::CONFIG, &path("config.json"))?;
        let checkpoint = Checkpoint::from_bytes(&path("model.safetensors"), gpt2_tiny::WEIGHTS)?;
        Ok(Self {
            name: TINY.to_owned(),
            path: None,
            model: Gpt2::from_checkpoint(config, checkpoint)?,
            tokenizer: Tokenizer::gpt2(),
            bos: Some(END_OF_TEXT),
            eos: Some(END_OF_TEXT),
            known_tokens: Some(read_known_tokens(gpt2_tiny::KNOWN_TOKENS, &path("known_tokens.json"))?),
            notes: Vec::new(),
        })
    }

    /// The model if none is named: GPT-2 small where its weights are found, else the
    /// tiny one.
    ///
    /// # Errors
    /// If the weights that were found are broken.
    pub fn default_model() -> Result<Self, Error> {
        match Places::from_env().find(DEFAULT) {
            Some(folder) => Self::from_path(DEFAULT, &folder),
            None => Self::tiny(),
        }
    }

    /// The model that a user names: `tiny`; a name that [`crate::locate`] finds; or a folder or a
    /// file of weights (see [`Pretrained::from_path`]).
    ///
    /// # Errors
    /// If there is no such model, with the places that were searched, or if its files are broken.
    pub fn load(model: &str) -> Result<Self, Error> {
        Self::find(model, Prompts::Texts)
    }

    /// The same for prompts that are token ids: a tokenizer that is not read exactly is not an error then,
    /// because no text has to be tokenized. Its tokens are shown by their ids.
    ///
    /// # Errors
    /// As [`Pretrained::load`], but for the tokenizer's files.
    pub fn load_for_ids(model: &str) -> Result<Self, Error> {
        Self::find(model, Prompts::Ids)
    }

    fn find(model: &str, prompts: Prompts) -> Result<Self, Error> {
        let known = Known::named(model);
        let model = known.map_or(model, |known| known.name);
        if model == TINY {
            return Self::tiny();
        }
        let path = Path::new(model);
        let places = Places::from_env();
        if !files::is_plain_name(model) && path.exists() {
            return Self::read(model, path, prompts);
        }
        if let Some(folder) = places.find(model) {
            return Self::read(model, &folder, prompts);
        }
        if known.is_none() && path.exists() {
            return Self::read(model, path, prompts);
        }
        Err(not_found(model, &places))
    }

    /// A model out of a folder with `model.safetensors` or `model.safetensors.index.json`, out of a
    /// safetensors file, or out of the files of an index. `config.json` beside the weights gives the
    /// sizes; without one they are read off the shapes. Tokens are those of the tokenizer's files beside
    /// them ([`Tokenizer::in_folder`]); without any they are GPT-2's, if the model has as many.
    ///
    /// # Errors
    /// If a file cannot be read or is broken, if the weights are not what the config says, or if the
    /// tokenizer has more tokens than the model.
    pub fn from_path(name: &str, path: &Path) -> Result<Self, Error> {
        Self::read(name, path, Prompts::Texts)
    }

    fn read(name: &str, path: &Path, prompts: Prompts) -> Result<Self, Error> {
        let weights =
            if path.is_dir() { weights_in(path).ok_or_else(|| no_weights(path))? } else { path.to_owned() };
        check_is_whole(&weights)?;
        let beside = |file: &str| Some(weights.with_file_name(file)).filter(|path| path.exists());
        let mut checkpoint = Checkpoint::open(&weights)?;
        let mut notes = Vec::new();
        let file = match beside("config.json") {
            Some(path) => ConfigFile::read(&path)?,
            None => {
                let config = Config::from_shapes(&checkpoint)?;
                notes.push(config.assumed());
                ConfigFile { config, bos_token_id: None, eos_token_id: None }
            }
        };
        notes.extend(checkpoint.adapt(&file.config)?);
        let folder = weights.parent().unwrap_or(Path::new(""));
        let tokens = match (Tokens::of(name, folder, &file), prompts) {
            (Err(error @ Error::Tokenizer { .. }), Prompts::Ids) => Tokens::without_text(&file, &error),
            (tokens, _) => tokens?,
        };
        notes.extend(tokens.note);
        let known_tokens = match beside("known_tokens.json") {
            Some(path) => Some(read_known_tokens(&files::read_text(&path)?, &path)?),
            None => None,
        };
        Ok(Self {
            name: name.to_owned(),
            model: Gpt2::from_checkpoint(file.config, checkpoint)?,
            path: Some(weights),
            tokenizer: tokens.tokenizer,
            bos: tokens.bos,
            eos: tokens.eos,
            known_tokens,
            notes,
        })
    }

    /// The tokens of a prompt that the model was not trained on, each once, in order.
    pub fn unknown_tokens(&self, ids: &[u32]) -> Vec<u32> {
        let Some(known) = &self.known_tokens else {
            return Vec::new();
        };
        let mut seen = HashSet::new();
        ids.iter().copied().filter(|id| !known.contains(id) && seen.insert(*id)).collect()
    }
}

/// What prompts are given as.
#[derive(Clone, Copy)]
enum Prompts {
    Texts,
    Ids,
}

/// What a model's folder says of its tokens.
struct Tokens {
    tokenizer: Tokenizer,
    bos: Option<u32>,
    eos: Option<u32>,
    /// What was assumed, if anything was.
    note: Option<String>,
}

impl Tokens {
    /// Those of a model whose tokenizer is not read.
    fn without_text(config: &ConfigFile, error: &Error) -> Self {
        Self {
            tokenizer: Tokenizer::without_text(),
            bos: config.bos_token_id,
            eos: config.eos_token_id,
            note: Some(format!("tokens have no texts: {error}")),
        }
    }

    fn of(name: &str, folder: &Path, config: &ConfigFile) -> Result<Self, Error> {
        let vocab_size = config.config.vocab_size;
        let (bos, eos) = (config.bos_token_id, config.eos_token_id);
        if let Some(tokenizer) = Tokenizer::in_folder(folder)? {
            if tokenizer.n_vocabulary() > vocab_size {
                let reason = format!(
                    "its tokenizer has {} tokens and the model only {vocab_size}: they do not belong together",
                    tokenizer.n_vocabulary()
                );
                return Err(Error::tokenizer(folder, reason));
            }
            return Ok(Self {
                bos: tokenizer.bos().or(bos),
                eos: tokenizer.eos().or(eos),
                tokenizer,
                note: None,
            });
        }
        if vocab_size < N_TOKENS {
            return Ok(Self {
                tokenizer: Tokenizer::without_text(),
                bos,
                eos,
                note: Some(format!(
                    "no tokenizer files beside the weights, and {vocab_size} tokens are not GPT-2's \
                     {N_TOKENS}: prompts can only be given as token ids (--ids)"
                )),
            });
        }
        // The vocabulary of the models that are known by name is known as well.
        let is_known = KNOWN.iter().any(|known| known.name == name || known.repositories.contains(&name));
        Ok(Self {
            tokenizer: Tokenizer::gpt2(),
            bos: bos.or(Some(END_OF_TEXT)),
            eos: eos.or(Some(END_OF_TEXT)),
            note: (!is_known).then(|| {
                "no tokenizer files beside the weights: texts are cut into GPT-2's own tokens (r50k)"
                    .to_owned()
            }),
        })
    }
}

/// What to say where no model of this name is found.
fn not_found(model: &str, places: &Places) -> Error {
    let mut looked = places.candidates(model);
    let path = Path::new(model);
    let mut help: Vec<String> = Vec::new();
    if path.exists() {
        help.push(format!("./{0} is here: --model ./{0}", visible_line(model)));
    }
    for folder in places.without_weights(model) {
        if let Some(what) = what_is_in(&folder) {
            help.push(format!("in {}: {what}", visible_path(&folder)));
        }
    }
    help.push(match Known::named(model) {
        Some(known) => format!("fetch them with: cargo xtask download-weights {}", known.name),
        None => {
            looked.push(path.to_owned());
            let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
            format!("give a folder or a file of weights, or one of these names: {}", names.join(", "))
        }
    });
    Error::ModelNotFound { name: model.to_owned(), looked, help: help.join("\n") }
}

/// What to say of a folder without weights that can be read.
fn no_weights(folder: &Path) -> Error {
    let what = what_is_in(folder).map_or_else(String::new, |what| format!("; {what}"));
    let reason = format!("No such file, and no model.safetensors.index.json{what}");
    Error::io(&folder.join("model.safetensors"), io::Error::new(io::ErrorKind::NotFound, reason))
}

/// Refuses a file of another form, and one of several files, which has only a part of the tensors.
fn check_is_whole(weights: &Path) -> Result<(), Error> {
    if let Some(what) = what_is(weights).filter(|_| weights.is_file()) {
        return Err(Error::format(weights, what));
    }
    let name = weights.file_name().and_then(|name| name.to_str());
    let Some((number, count)) = name.and_then(shard_of).filter(|(_, count)| *count > 1) else {
        return Ok(());
    };
    let index = weights.with_file_name("model.safetensors.index.json");
    let next = if index.is_file() {
        format!("give its index, {}", visible_path(&index))
    } else {
        "fetch model.safetensors.index.json and all files that it names, and give the folder".to_owned()
    };
    let reason = format!("it is only file {number} of the {count} of a checkpoint: {next}");
    Err(Error::format(weights, reason))
}

fn read_known_tokens(text: &str, path: &Path) -> Result<HashSet<u32>, Error> {
    serde_json::from_str(text).map_err(|e| Error::config(path, format!("not a JSON array of token ids: {e}")))
}
