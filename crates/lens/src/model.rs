//! What a study looks at: GPT-2 as it is, or with processed weights.

use gpt2::{Gpt2, Hook};
use tensor::{Tensor, View, matmul};

use crate::{Error, ProcessedModel};

/// A model to look into: GPT-2, and the bias of its unembedding, which only
/// [`processing`](crate::processing) gives it.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// The model.
    pub gpt2: &'a Gpt2,
    /// Added to every row of logits, `(V)`; `None` is zero.
    pub b_u: Option<&'a Tensor>,
}

impl<'a> From<&'a Gpt2> for Model<'a> {
    fn from(gpt2: &'a Gpt2) -> Self {
        Self { gpt2, b_u: None }
    }
}

impl<'a> From<&'a ProcessedModel> for Model<'a> {
    fn from(model: &'a ProcessedModel) -> Self {
        Self {
            gpt2: &model.gpt2,
            b_u: Some(&model.b_u),
        }
    }
}

impl Model<'_> {
    /// The logits of the token after each position, `(T, V)`, as [`Gpt2::forward`].
    ///
    /// # Panics
    /// As [`Gpt2::forward`].
    pub fn forward(&self, ids: &[u32], hook: &mut Hook<'_>) -> Tensor {
        self.unembed(&self.gpt2.transformer(ids, hook))
    }

    /// The logits of the token after the last position, `(V)`, as [`Gpt2::next_token_logits`].
    ///
    /// # Panics
    /// As [`Gpt2::forward`].
    pub fn next_token_logits(&self, ids: &[u32], hook: &mut Hook<'_>) -> Vec<f32> {
        let mut logits = self.gpt2.next_token_logits(ids, hook);
        if let Some(b_u) = self.b_u {
            for (logit, b) in logits.iter_mut().zip(b_u.data()) {
                *logit += b;
            }
        }
        logits
    }

    /// The logits, `(N, V)`, of rows that `ln_f` has normalised, `(N, C)`.
    ///
    /// # Panics
    /// If the rows are not `n_embd` long.
    #[track_caller]
    pub fn unembed<'x>(&self, x: impl Into<View<'x>>) -> Tensor {
        let mut logits = matmul(x, self.gpt2.unembedding().view().t()); // (N, V)
        if let Some(b_u) = self.b_u {
            logits.add_to_rows(b_u);
        }
        logits
    }

    /// Whether there is such a token to answer with.
    pub(crate) fn check_answers(&self, answers: &[u32]) -> Result<(), Error> {
        let vocab_size = self.gpt2.config.vocab_size;
        match answers.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(gpt2::Error::NoSuchToken { id, vocab_size }.into()),
            None => Ok(()),
        }
    }
}
