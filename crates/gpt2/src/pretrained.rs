//! Where models are found, and the small one that is always there.

use std::collections::HashSet;
use std::env;
use std::path::{Path, PathBuf};

use crate::{Checkpoint, Config, Error, Gpt2, Tokenizer};

/// A model with what belongs to it.
pub struct Pretrained {
    /// What the user calls it: `tiny`, `gpt2`, or the path that was given.
    pub name: String,
    /// The model.
    pub model: Gpt2,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The tokens that it was trained on, where it was not all of them.
    pub known_tokens: Option<HashSet<u32>>,
}

/// The name of the model that ships with the project.
pub const TINY: &str = "tiny";

/// The model that is used when none is named and its weights are there.
pub const DEFAULT: &str = "gpt2";

/// The names of the models that can be downloaded.
pub const DOWNLOADABLE: [&str; 5] = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"];

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
            model: Gpt2::from_checkpoint(config, checkpoint)?,
            tokenizer: Tokenizer::new(),
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
        match find(DEFAULT) {
            Some(folder) => Self::from_path(DEFAULT, &folder),
            None => Self::tiny(),
        }
    }

    /// The model that a user names: `tiny`, the name of a model whose weights are looked for in the
    /// known folders, a folder with `model.safetensors` (and `config.json`), or such a file.
    ///
    /// # Errors
    /// If there is no such model, with the places that were searched, or if its files are broken.
    pub fn load(model: &str) -> Result<Self, Error> {
        if model == TINY {
            return Self::tiny();
        }
        if let Some(folder) = find(model) {
            return Self::from_path(model, &folder);
        }
        let path = Path::new(model);
        if path.exists() && !DOWNLOADABLE.contains(&model) {
            return Self::from_path(model, path);
        }
        let mut looked: Vec<PathBuf> = folders().iter().map(|folder| folder.join(model)).collect();
        let help = if DOWNLOADABLE.contains(&model) {
            format!("fetch them with: cargo xtask download-weights {model}")
        } else {
            looked.push(path.to_owned());
            format!(
                "give a folder or a file of weights, or one of these names: {TINY}, {}",
                DOWNLOADABLE.join(", ")
            )
        };
        Err(Error::ModelNotFound {
            name: model.to_owned(),
            looked,
            help,
        })
    }

    /// A model out of a folder with `model.safetensors`, or out of a safetensors file. `config.json`
    /// beside the weights gives the sizes; without one they are read off the shapes.
    ///
    /// # Errors
    /// If a file cannot be read or is broken.
    pub fn from_path(name: &str, path: &Path) -> Result<Self, Error> {
        let weights = if path.is_dir() {
            path.join("model.safetensors")
        } else {
            path.to_owned()
        };
        let beside = |file: &str| Some(weights.with_file_name(file)).filter(|path| path.exists());
        let checkpoint = Checkpoint::open(&weights)?;
        let config = match beside("config.json") {
            Some(path) => Config::from_file(&path)?,
            None => Config::from_shapes(&checkpoint)?,
        };
        let known_tokens = match beside("known_tokens.json") {
            Some(path) => {
                let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
                Some(read_known_tokens(&text, &path)?)
            }
            None => None,
        };
        let model = Gpt2::from_checkpoint(config, checkpoint)?;
        Ok(Self {
            name: name.to_owned(),
            model,
            tokenizer: Tokenizer::new(),
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

/// The folders that may hold a folder of weights by name, in the order in which they are searched.
fn folders() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../weights")
        .canonicalize()
        .ok();
    let current = env::current_dir().ok().map(|folder| folder.join("weights"));
    let variable = env::var_os("PATCH_WEIGHTS").map(PathBuf::from);
    let mut folders: Vec<PathBuf> = [workspace, current, variable]
        .into_iter()
        .flatten()
        .collect();
    folders.dedup();
    folders
}

/// The folder of a model's weights, if they are there. Only names are looked up, never paths.
fn find(name: &str) -> Option<PathBuf> {
    let is_name = !name.is_empty() && name != ".." && name != "." && !name.contains(['/', '\\']);
    let holds_weights = |folder: &PathBuf| folder.join("model.safetensors").is_file();
    is_name.then(|| {
        folders()
            .into_iter()
            .map(|folder| folder.join(name))
            .find(holds_weights)
    })?
}

fn read_known_tokens(text: &str, path: &Path) -> Result<HashSet<u32>, Error> {
    serde_json::from_str(text)
        .map_err(|e| Error::config(path, format!("not a JSON array of token ids: {e}")))
}
