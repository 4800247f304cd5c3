//! Errors in what a user or a file gives.

use std::io;
use std::path::{Path, PathBuf};

use visible::{visible_line, visible_path};

/// What is wrong with a model file, a model's name or a text, in words for the person who gave it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}", visible_path(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A file that is not a safetensors file, or whose header does not describe its data.
    #[error("{}: not a whole safetensors file: {reason}", visible_path(path))]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },

    /// An index of a checkpoint in several files that cannot be used.
    #[error("{}: {}", visible_path(path), visible_line(reason))]
    Index {
        /// The index.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },

    /// A tensor that is missing, left over, of the wrong shape or type, or not finite.
    #[error("{}: tensor `{}`: {}", visible_path(path), visible_line(tensor), visible_line(reason))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What was found and what was expected.
        reason: String,
    },

    /// Sizes that are missing, contradictory or not those of a GPT-2.
    #[error("{}: {}", visible_path(path), visible_line(reason))]
    Config {
        /// `config.json`, or the weights whose shapes were read.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },

    /// No model of that name where models are looked for.
    #[error(
        "no weights for `{}` found; looked in {}\n{help}",
        visible_line(name),
        looked.iter().map(|path| visible_path(path)).collect::<Vec<_>>().join(", ")
    )]
    ModelNotFound {
        /// The name as it was given.
        name: String,
        /// Every folder that was tried.
        looked: Vec<PathBuf>,
        /// What to do next.
        help: String,
    },

    /// Tokenizer files that are broken, or that are not read exactly.
    #[error("{}: {} (prompts can be given as token ids: --ids)", visible_path(path), visible_line(reason))]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is not read, and what to do.
        reason: String,
    },

    /// A text for a model that has no tokenizer.
    #[error(
        "this model has no tokenizer: give token ids instead of text (`--ids '464 3290'`, and `#11` for a \
         single token)"
    )]
    NoTokenizer,

    /// A text longer than the tokenizer takes.
    #[error(
        "the text has {bytes} bytes; at most {limit} are taken, which is far more than any GPT-2 can read at \
         once"
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
    #[error(
        "there is no token {id}: this model knows the ids 0 to {}",
        vocab_size.saturating_sub(1)
    )]
    NoSuchToken {
        /// The id.
        id: u32,
        /// The model's `vocab_size`.
        vocab_size: usize,
    },

    /// A setting of sampling with which no token can be drawn.
    #[error("the {setting} cannot be {value}: give {expected}")]
    Sampling {
        /// `temperature`, `top-k` or `top-p`.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The values that it can have.
        expected: &'static str,
    },

    /// A logit that is infinite or not a number.
    #[error(
        "after {count} token{} the logit of token {id} is {logit}, not a finite number: the weights are too \
         large for f32, so no probability can be computed",
        if *count == 1 { "" } else { "s" }
    )]
    NotFinite {
        /// How many tokens stand before it.
        count: usize,
        /// The token that has this logit.
        id: u32,
        /// The logit.
        logit: f32,
    },

    /// A text that had to be exactly one token and is not.
    #[error("{}", not_one_token(text, pieces, suggestion.as_deref()))]
    NotOneToken {
        /// The text as it was given.
        text: String,
        /// The tokens that it consists of.
        pieces: Vec<String>,
        /// A spelling of the same word that is one token, if there is one.
        suggestion: Option<String>,
    },

    /// A text that is not one token, but the printed form of several.
    #[error(
        "several tokens are printed as \"{}\": give one of them by its id ({})",
        visible_line(text),
        first(ids, |id| format!("#{id}"))
    )]
    AmbiguousToken {
        /// The text as it was given.
        text: String,
        /// The tokens that are printed like that.
        ids: Vec<u32>,
    },

    /// A `#` with a number behind it that cannot be the id of a token.
    #[error("\"{}\" is not the id of a token: ids are below 4294967296", visible_line(text))]
    NotAnId {
        /// The text as it was given.
        text: String,
    },

    /// A token that does not occur in a prompt.
    #[error(
        "{} is not among the {} tokens {}: give one of them, with its space",
        quoted(token),
        tokens.len(),
        first(tokens, |token| quoted(token))
    )]
    TokenNotInPrompt {
        /// The token as it was given.
        token: String,
        /// The prompt's tokens.
        tokens: Vec<String>,
    },
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", visible_line(text))
}

/// Some of the items, and an ellipsis if there are more.
fn first<T>(items: &[T], shown: impl Fn(&T) -> String) -> String {
    const SHOWN: usize = 12;
    let list: Vec<String> = items.iter().take(SHOWN).map(shown).collect();
    let dots = if items.len() > SHOWN { ", …" } else { "" };
    format!("{}{dots}", list.join(", "))
}

fn not_one_token(text: &str, pieces: &[String], suggestion: Option<&str>) -> String {
    if pieces.is_empty() {
        return "the answer is empty: give a text that is exactly one token".to_owned();
    }
    let list: Vec<String> = pieces.iter().map(|piece| quoted(piece)).collect();
    let hint = suggestion.map(|suggestion| format!("; {} is a single token", quoted(suggestion)));
    format!(
        "{} is {} tokens ({}), and exactly one is needed{}",
        quoted(text),
        pieces.len(),
        list.join(", "),
        hint.unwrap_or_default()
    )
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn format(path: &Path, reason: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn index(path: &Path, reason: impl Into<String>) -> Self {
        Self::Index { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn tokenizer(path: &Path, reason: impl Into<String>) -> Self {
        Self::Tokenizer { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), reason: reason.into() }
    }

    pub(crate) fn config(path: &Path, reason: impl Into<String>) -> Self {
        Self::Config { path: path.to_owned(), reason: reason.into() }
    }
}
