//! Tokens that a study asks about.

use gpt2::Gpt2;

use crate::Error;

/// Whether the model knows these tokens.
pub(crate) fn check(model: &Gpt2, answers: &[u32]) -> Result<(), Error> {
    let vocab_size = model.config.vocab_size;
    match answers.iter().find(|&&id| id as usize >= vocab_size) {
        Some(&id) => Err(gpt2::Error::NoSuchToken { id, vocab_size }.into()),
        None => Ok(()),
    }
}
