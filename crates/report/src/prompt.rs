//! A prompt with its tokens.

use gpt2::Tokenizer;
use serde::Serialize;
use visible::visible_line;

/// A prompt with its tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prompt {
    /// The text as it was given.
    pub text: String,
    /// Its token ids.
    pub ids: Vec<u32>,
    /// Each token as text.
    pub tokens: Vec<String>,
}

impl Prompt {
    /// A prompt of these tokens.
    pub fn new(tokenizer: &Tokenizer, text: &str, ids: &[u32]) -> Self {
        Self { text: text.to_owned(), ids: ids.to_vec(), tokens: tokenizer.tokens(ids) }
    }

    /// The tokens in a row with slashes between them.
    pub fn row(&self) -> String {
        let tokens: Vec<String> = self.tokens.iter().map(|token| visible_line(token)).collect();
        tokens.join("/")
    }

    /// The ids in a row.
    pub fn id_row(&self) -> String {
        let ids: Vec<String> = self.ids.iter().map(u32::to_string).collect();
        ids.join(" ")
    }
}
