//! The end-to-end tests: the binary as a user runs it, and the libraries against golden values that
//! PyTorch, Hugging Face transformers and TransformerLens computed for the tiny model.

#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "tests print for their reader")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod abuse;
mod answers;
mod arguments;
mod attribute;
mod browser;
mod circuit;
mod circuit_page;
mod cli;
#[cfg(unix)]
mod explorer;
#[cfg(unix)]
mod explorer_page;
mod figures;
mod golden;
mod kin;
mod lens;
mod models;
mod not_finite;
mod page;
mod path;
mod prompts;
#[cfg(unix)]
mod stopping;
mod studies;
mod sweeps;
#[cfg(unix)]
mod terminal;
mod text;
mod util;
mod verify;
