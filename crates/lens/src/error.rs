//! Errors in what a user asks to look at.

/// What is wrong with a request, in words for the person who made it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A prompt that the model cannot read, or an answer that is not a single token.
    #[error(transparent)]
    Gpt2(#[from] gpt2::Error),

    /// A head that the model does not have.
    #[error(
        "there is no head {layer}.{head}: this model has the layers 0 to {} with the heads 0 to {}",
        n_layer.saturating_sub(1),
        n_head.saturating_sub(1)
    )]
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

    /// A position beyond the end of the prompt.
    #[error(
        "there is no position {pos}: the prompt has {count} tokens, at the positions 0 to {}",
        count.saturating_sub(1)
    )]
    NoSuchPosition {
        /// The position that was asked for.
        pos: usize,
        /// How many tokens the prompt has.
        count: usize,
    },

    /// Two heads whose order does not let the first feed the second.
    #[error(
        "a head of layer {first} cannot feed a head of layer {second}: the first must be in an earlier layer"
    )]
    NotInOrder {
        /// The layer of the head that should write.
        first: usize,
        /// The layer of the head that should read.
        second: usize,
    },

    /// A repeated sequence of no tokens, or one too long for the model.
    #[error("{seq_len} tokens cannot be repeated: this model takes sequences of 1 to {limit} tokens, twice")]
    SeqLen {
        /// The length that was asked for.
        seq_len: usize,
        /// The largest that fits twice into the model.
        limit: usize,
    },

    /// No tokens to draw from, or to compare.
    #[error("no tokens were given: give at least one")]
    NoTokens,

    /// A study that averages over prompts was given none, or prompts of different lengths.
    #[error("prompts of {counts:?} tokens cannot be averaged: give at least one, all equally long")]
    UnevenBatch {
        /// How many tokens each prompt has.
        counts: Vec<usize>,
    },

    /// A prompt too short for its tokens to look at each other.
    #[error("the prompt has {count} tokens; heads can be told apart only where there are 2 or more")]
    TooShort {
        /// How many tokens it has.
        count: usize,
    },
}
