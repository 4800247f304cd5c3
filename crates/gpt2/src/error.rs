//! Everything that can go wrong with what a user or a file gives.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use visible::{visible_line, visible_path};

/// What is wrong with a model file, a model's name or a text, in words for the person who gave it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A file that is not a safetensors file, or whose header does not describe its data.
    Format {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },

    /// An index of a checkpoint in several files that cannot be used.
    Index {
        /// The index.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },

    /// A tensor that is missing, left over, of the wrong shape or type, or not finite.
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What was found and what was expected.
        reason: String,
    },

    /// Sizes that are missing, contradictory or not those of a GPT-2.
    Config {
        /// `config.json`, or the weights whose shapes were read.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },

    /// No model of that name where models are looked for.
    ModelNotFound {
        /// The name as it was given.
        name: String,
        /// Every folder that was tried.
        looked: Vec<PathBuf>,
        /// What to do next.
        help: String,
    },

    /// Tokenizer files that are broken, or that are not read exactly.
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is not read, and what to do.
        reason: String,
    },

    /// A text for a model that has no tokenizer.
    NoTokenizer,

    /// A text longer than the tokenizer takes.
    TextTooLong {
        /// The text's length.
        bytes: usize,
        /// The largest length that is taken.
        limit: usize,
    },

    /// A text of no tokens.
    EmptyPrompt {
        /// The model's `block_size`.
        limit: usize,
    },

    /// More tokens than the model has positions.
    PromptTooLong {
        /// How many tokens the text has.
        count: usize,
        /// The model's `block_size`.
        limit: usize,
    },

    /// A token id that the model has no embedding for.
    NoSuchToken {
        /// The id.
        id: u32,
        /// The model's `vocab_size`.
        vocab_size: usize,
    },

    /// A setting of sampling with which no token can be drawn.
    Sampling {
        /// `temperature`, `top-k` or `top-p`.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The values that it can have.
        expected: &'static str,
    },

    /// A logit that is infinite or not a number.
    NotFinite {
        /// How many tokens stand before it.
        count: usize,
        /// The token that has this logit.
        id: u32,
        /// The logit.
        logit: f32,
    },

    /// A text that had to be exactly one token, and is none or several.
    NotOneToken {
        /// The text as it was given.
        text: String,
        /// The tokens that it consists of.
        pieces: Vec<String>,
        /// A spelling of the same word that is one token, if there is one.
        suggestion: Option<String>,
    },

    /// A text that is not one token, but the printed form of several.
    AmbiguousToken {
        /// The text as it was given.
        text: String,
        /// The tokens that are printed like that.
        ids: Vec<u32>,
    },

    /// A `#` with a number behind it that cannot be the id of a token.
    NotAnId {
        /// The text as it was given.
        text: String,
    },

    /// A token that was looked for in a prompt and does not stand there.
    TokenNotInPrompt {
        /// The token as it was given.
        token: String,
        /// The prompt's tokens.
        tokens: Vec<String>,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "cannot read {}: {source}", visible_path(path)),
            Self::Format { path, reason } => {
                write!(f, "{}: not a whole safetensors file: {reason}", visible_path(path))
            }
            Self::Tensor { path, tensor, reason } => {
                write!(
                    f,
                    "{}: tensor `{}`: {}",
                    visible_path(path),
                    visible_line(tensor),
                    visible_line(reason)
                )
            }
            Self::Index { path, reason } | Self::Config { path, reason } => {
                write!(f, "{}: {}", visible_path(path), visible_line(reason))
            }
            Self::Tokenizer { path, reason } => {
                write!(
                    f,
                    "{}: {} (prompts can be given as token ids: --ids)",
                    visible_path(path),
                    visible_line(reason)
                )
            }
            Self::NoTokenizer => f.write_str(
                "this model has no tokenizer: give token ids instead of text (`--ids '464 3290'`, and \
                 `#11` for a single token)",
            ),
            Self::AmbiguousToken { text, ids } => write!(
                f,
                "several tokens are printed as \"{}\": give one of them by its id ({})",
                visible_line(text),
                first_ids(ids)
            ),
            Self::NotAnId { text } => {
                write!(f, "\"{}\" is not the id of a token: ids are below 4294967296", visible_line(text))
            }
            Self::ModelNotFound { name, looked, help } => {
                let looked: Vec<String> = looked.iter().map(|path| visible_path(path)).collect();
                write!(
                    f,
                    "no weights for `{}` found; looked in {}\n{help}",
                    visible_line(name),
                    looked.join(", ")
                )
            }
            Self::TextTooLong { bytes, limit } => write!(
                f,
                "the text has {bytes} bytes; at most {limit} are taken, which is far more than any GPT-2 \
                 can read at once"
            ),
            Self::EmptyPrompt { limit } => write!(
                f,
                "the prompt is empty: give at least one token (from 1 to {limit} fit into the model)"
            ),
            Self::PromptTooLong { count, limit } => {
                write!(f, "the prompt has {count} tokens; this model reads at most {limit} (its block_size)")
            }
            Self::NoSuchToken { id, vocab_size } => write!(
                f,
                "there is no token {id}: this model knows the ids 0 to {}",
                vocab_size.saturating_sub(1)
            ),
            Self::Sampling { setting, value, expected } => {
                write!(f, "the {setting} cannot be {value}: give {expected}")
            }
            Self::NotFinite { count, id, logit } => {
                let s = if *count == 1 { "" } else { "s" };
                write!(
                    f,
                    "after {count} token{s} the logit of token {id} is {logit}, not a finite number: the \
                     weights are too large for f32, so no probability can be computed"
                )
            }
            Self::TokenNotInPrompt { token, tokens } => {
                const SHOWN: usize = 12;
                let quoted = |text: &str| format!("\"{}\"", visible_line(text));
                let list: Vec<String> = tokens.iter().take(SHOWN).map(|t| quoted(t)).collect();
                let dots = if tokens.len() > SHOWN { ", …" } else { "" };
                write!(
                    f,
                    "{} is not among the {} tokens {}{dots}: give one of them, with its space",
                    quoted(token),
                    tokens.len(),
                    list.join(", ")
                )
            }
            Self::NotOneToken { pieces, .. } if pieces.is_empty() => {
                f.write_str("the answer is empty: give a text that is exactly one token")
            }
            Self::NotOneToken { text, pieces, suggestion } => {
                let quoted = |text: &str| format!("\"{}\"", visible_line(text));
                let list: Vec<String> = pieces.iter().map(|piece| quoted(piece)).collect();
                let count = pieces.len();
                write!(
                    f,
                    "{} is {count} tokens ({}), and exactly one is needed",
                    quoted(text),
                    list.join(", ")
                )?;
                match suggestion {
                    Some(suggestion) => write!(f, "; {} is a single token", quoted(suggestion)),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Some of the ids, as a user can give them.
fn first_ids(ids: &[u32]) -> String {
    const SHOWN: usize = 12;
    let list: Vec<String> = ids.iter().take(SHOWN).map(|id| format!("#{id}")).collect();
    let dots = if ids.len() > SHOWN { ", …" } else { "" };
    format!("{}{dots}", list.join(", "))
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
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
