//! The small trained GPT-2 that ships with the project, as bytes in the program.
//!
//! This package only holds the three files beside it, so that every program and test of the
//! workspace has a real model at hand from any folder and with no network. `README.md` says what
//! the model is, how it was trained and what it knows; `gpt2::Gpt2` reads it like any other
//! checkpoint.

/// `config.json` in Hugging Face's form.
pub const CONFIG: &str = include_str!("config.json");

/// `known_tokens.json`: the ids of the tokens that the model was trained on, as a JSON array. All
/// other tokens share one row of the embedding.
pub const KNOWN_TOKENS: &str = include_str!("known_tokens.json");

/// `model.safetensors`: the parameters as F16, under Hugging Face's names.
pub const WEIGHTS: &[u8] = include_bytes!("model.safetensors");

/// The SHA-256 of [`WEIGHTS`] in hexadecimal digits.
pub const SHA256: &str = "f2614804c070440ec632366b8becff8c5d6c1a3003ac09721da74eb25c3e7f3c";
