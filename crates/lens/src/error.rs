//! Everything that can go wrong with what a user asks to look at.

use std::fmt;

/// What is wrong with a question to a model, in words for the person who asked it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A prompt that the model cannot read, or an answer that is no single token.
    Gpt2(gpt2::Error),

    /// A head that the model does not have.
    NoSuchHead {
        /// The layer that was asked for.
        layer: usize,
        /// The head that was asked for.
        head: usize,
        /// How many layers there are.
        n_layer: usize,
        /// How many heads each has.
        n_head: usize,
    },

    /// A position beyond the prompt's end.
    NoSuchPosition {
        /// The position that was asked for.
        pos: usize,
        /// How many tokens the prompt has.
        count: usize,
    },

    /// Two heads whose order does not let the first feed the second.
    NotInOrder {
        /// The layer of the head that should write.
        first: usize,
        /// The layer of the head that should read.
        second: usize,
    },

    /// A repeated sequence of no tokens, or one too long for the model.
    SeqLen {
        /// The length that was asked for.
        seq_len: usize,
        /// The largest that fits twice into the model.
        limit: usize,
    },

    /// No tokens to draw from, or to compare.
    NoTokens,

    /// A study that averages over prompts was given none, or prompts of different lengths.
    UnevenBatch {
        /// How many tokens each prompt has.
        counts: Vec<usize>,
    },

    /// A prompt too short for its tokens to look at each other.
    TooShort {
        /// How many tokens it has.
        count: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt2(error) => error.fmt(f),
            Self::NoSuchHead { layer, head, n_layer, n_head } => write!(
                f,
                "there is no head {layer}.{head}: this model has the layers 0 to {} with the heads 0 to {}",
                n_layer.saturating_sub(1),
                n_head.saturating_sub(1)
            ),
            Self::NoSuchPosition { pos, count } => write!(
                f,
                "there is no position {pos}: the prompt has {count} tokens, at the positions 0 to {}",
                count.saturating_sub(1)
            ),
            Self::NotInOrder { first, second } => write!(
                f,
                "a head of layer {first} cannot feed a head of layer {second}: the first must be in an \
                 earlier layer"
            ),
            Self::SeqLen { seq_len, limit } => write!(
                f,
                "{seq_len} tokens cannot be repeated: this model takes sequences of 1 to {limit} tokens, \
                 twice"
            ),
            Self::NoTokens => f.write_str("no tokens were given: give at least one"),
            Self::UnevenBatch { counts } => write!(
                f,
                "prompts of {counts:?} tokens cannot be averaged: give at least one, all equally long"
            ),
            Self::TooShort { count } => write!(
                f,
                "the prompt has {count} tokens; heads can be told apart only where there are 2 or more"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Gpt2(error) => error.source(),
            _ => None,
        }
    }
}

impl From<gpt2::Error> for Error {
    fn from(error: gpt2::Error) -> Self {
        Self::Gpt2(error)
    }
}
