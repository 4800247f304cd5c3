//! The input is a `config.json`.

#![no_main]

use std::path::Path;

use gpt2::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::from_json(text, Path::new("config.json")) {
        Ok(config) => {
            assert_eq!(config.head_size() * config.n_head, config.n_embd);
            assert!(config.vocab_size > 0 && config.block_size > 0 && config.n_layer > 0);
            assert!(config.layer_norm_epsilon > 0.0);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
