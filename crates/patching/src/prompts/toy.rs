//! A model for tests that need its tokens only.

use std::collections::HashSet;

use gpt2::{Config, Gpt2, Pretrained, Tokenizer};

/// A model that only knows these tokens.
pub fn model_that_knows(known_tokens: Option<HashSet<u32>>) -> Pretrained {
    let config = Config {
        vocab_size: gpt2::tokenizer::N_TOKENS,
        block_size: 32,
        n_layer: 1,
        n_head: 1,
        n_embd: 1,
        ..Config::default()
    };
    Pretrained {
        name: "toy".to_owned(),
        path: None,
        model: Gpt2::random(config, 1),
        tokenizer: Tokenizer::gpt2(),
        bos: None,
        eos: None,
        known_tokens,
        notes: Vec::new(),
    }
}
