//! Models with what belongs to them: by name, by folder, or the small one that is always there.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::locate::{DEFAULT, KNOWN, Known, Places, TINY, weights_in};
use crate::tokenizer::N_TOKENS;
use crate::{Checkpoint, Config, Error, Gpt2, Tokenizer, files};

/// A model with what belongs to it.
pub struct Pretrained {
    /// What the user calls it: `tiny`, `gpt2`, or the path that was given.
    pub name: String,
    /// Its weights, or the index of them; none for the model in the program itself.
    pub path: Option<PathBuf>,
    /// The model.
    pub model: Gpt2,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The tokens that it was trained on, where it was not all of them.
    pub known_tokens: Option<HashSet<u32>>,
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
            known_tokens: Some(read_known_tokens(
                gpt2_tiny::KNOWN_TOKENS,
                &path("known_tokens.json"),
            )?),
        })
    }

    /// The model that is meant when none is named: GPT-2 small where its weights are found, else the
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
        if model == TINY {
            return Self::tiny();
        }
        let path = Path::new(model);
        let places = Places::from_env();
        let is_plain = files::is_plain_name(model);
        if !is_plain && path.exists() {
            return Self::from_path(model, path);
        }
        if let Some(folder) = places.find(model) {
            return Self::from_path(model, &folder);
        }
        let known = Known::named(model);
        if known.is_none() && path.exists() {
            return Self::from_path(model, path);
        }
        let mut looked = places.candidates(model);
        let help = match known {
            Some(known) => format!(
                "fetch them with: cargo xtask download-weights {}",
                known.name
            ),
            None => {
                looked.push(path.to_owned());
                let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
                format!(
                    "give a folder or a file of weights, or one of these names: {}",
                    names.join(", ")
                )
            }
        };
        Err(Error::ModelNotFound {
            name: model.to_owned(),
            looked,
            help,
        })
    }

    /// A model out of a folder with `model.safetensors` or `model.safetensors.index.json`, out of a
    /// safetensors file, or out of the files of an index. `config.json` beside the weights gives the
    /// sizes; without one they are read off the shapes.
    ///
    /// # Errors
    /// If a file cannot be read or is broken, or the model has fewer tokens than GPT-2's tokenizer.
    pub fn from_path(name: &str, path: &Path) -> Result<Self, Error> {
        let weights = match path.is_dir() {
            true => weights_in(path).ok_or_else(|| no_weights(path))?,
            false => path.to_owned(),
        };
        let beside = |file: &str| Some(weights.with_file_name(file)).filter(|path| path.exists());
        let checkpoint = Checkpoint::open(&weights)?;
        let config_path = beside("config.json");
        let config = match &config_path {
            Some(path) => Config::from_file(path)?,
            None => Config::from_shapes(&checkpoint)?,
        };
        if config.vocab_size < N_TOKENS {
            let reason = format!(
                "a vocabulary of {} tokens is not GPT-2's, which has {N_TOKENS}: prompts cannot be cut \
                 into tokens for this model",
                config.vocab_size
            );
            return Err(Error::config(
                config_path.as_deref().unwrap_or(&weights),
                reason,
            ));
        }
        let known_tokens = match beside("known_tokens.json") {
            Some(path) => Some(read_known_tokens(&files::read_text(&path)?, &path)?),
            None => None,
        };
        let model = Gpt2::from_checkpoint(config, checkpoint)?;
        Ok(Self {
            name: name.to_owned(),
            path: Some(weights),
            model,
            tokenizer: Tokenizer::gpt2(),
            known_tokens,
        })
    }

    /// The tokens of a prompt that the model was not trained on, each once, in order.
    pub fn unknown_tokens(&self, ids: &[u32]) -> Vec<u32> {
        let Some(known) = &self.known_tokens else {
            return Vec::new();
        };
        let mut seen = HashSet::new();
        ids.iter()
            .copied()
            .filter(|id| !known.contains(id) && seen.insert(*id))
            .collect()
    }
}

/// What to say of a folder without weights that can be read.
fn no_weights(folder: &Path) -> Error {
    let other = if folder.join("pytorch_model.bin").is_file() {
        ", only pytorch_model.bin, which this program does not read: save the model as safetensors"
    } else {
        ""
    };
    let reason = format!("No such file, and no model.safetensors.index.json{other}");
    Error::io(
        &folder.join("model.safetensors"),
        io::Error::new(io::ErrorKind::NotFound, reason),
    )
}

fn read_known_tokens(text: &str, path: &Path) -> Result<HashSet<u32>, Error> {
    serde_json::from_str(text)
        .map_err(|e| Error::config(path, format!("not a JSON array of token ids: {e}")))
}
