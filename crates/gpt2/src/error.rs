//! Everything that can go wrong with what a user or a file gives.

use std::io;
use std::path::{Path, PathBuf};

use crate::visible::visible_line;

/// What is wrong with a model file, a model's name or a text, in words for the person who gave it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A file that is not a safetensors file, or whose header does not describe its data.
    #[error("{}: not a whole safetensors file: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },

    /// A tensor that is missing, left over, of the wrong shape or type, or not finite.
    #[error("{}: tensor `{tensor}`: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What was found and what was expected.
        reason: String,
    },

    /// Sizes that are missing, contradictory or not those of a GPT-2.
    #[error("{}: {reason}", path.display())]
    Config {
        /// `config.json`, or the weights whose shapes were read.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },

    /// No model of that name where models are looked for.
    #[error("no weights for `{name}` found; looked in {}\n{help}", list(looked))]
    ModelNotFound {
        /// The name as it was given.
        name: String,
        /// Every folder that was tried.
        looked: Vec<PathBuf>,
        /// What to do next.
        help: String,
    },

    /// A text longer than the tokenizer takes.
    #[error(
        "the text has {bytes} bytes; at most {limit} are taken, which is far more than any GPT-2 \
         can read at once"
    )]
    TextTooLong {
        /// The text's length.
        bytes: usize,
        /// The largest length that is taken.
        limit: usize,
    },

    /// A text of no tokens.
    #[error("the prompt is empty: give at least one token (from 1 to {limit} fit into the model)")]
    EmptyPrompt {
        /// The model's `block_size`.
        limit: usize,
    },

    /// More tokens than the model has positions.
    #[error("the prompt has {count} tokens; this model reads at most {limit} (its block_size)")]
    PromptTooLong {
        /// How many tokens the text has.
        count: usize,
        /// The model's `block_size`.
        limit: usize,
    },

    /// A token id that the model has no embedding for.
    #[error("there is no token {id}: this model knows the ids 0 to {}", vocab_size.saturating_sub(1))]
    NoSuchToken {
        /// The id.
        id: u32,
        /// The model's `vocab_size`.
        vocab_size: usize,
    },

    /// A text that had to be exactly one token, and is none or several.
    #[error("{}", not_one_token(text, pieces, suggestion.as_deref()))]
    NotOneToken {
        /// The text as it was given.
        text: String,
        /// The tokens that it consists of.
        pieces: Vec<String>,
        /// A spelling of the same word that is one token, if there is one.
        suggestion: Option<String>,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn format(path: &Path, reason: impl Into<String>) -> Self {
        Self::Format {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor {
            path: path.to_owned(),
            tensor: tensor.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn config(path: &Path, reason: impl Into<String>) -> Self {
        Self::Config {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

fn not_one_token(text: &str, pieces: &[String], suggestion: Option<&str>) -> String {
    if pieces.is_empty() {
        return "the answer is empty: give a text that is exactly one token".to_owned();
    }
    let quoted: Vec<String> = pieces
        .iter()
        .map(|piece| format!("\"{}\"", visible_line(piece)))
        .collect();
    let mut message = format!(
        "\"{}\" is {} tokens ({}), and exactly one is needed",
        visible_line(text),
        pieces.len(),
        quoted.join(", ")
    );
    if let Some(suggestion) = suggestion {
        message += &format!("; \"{}\" is a single token", visible_line(suggestion));
    }
    message
}
