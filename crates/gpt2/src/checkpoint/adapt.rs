//! Checkpoints of GPT-2 in other layouts than GPT-2's own.
//!
//! | what other programs write | how it is read |
//! |---|---|
//! | weights as `nn.Linear` has them, `(out, in)` (nanoGPT) | they are transposed |
//! | no biases at all (nanoGPT's `bias=False`) | they are 0 |
//! | `lm_head.weight` without `wte.weight`, tied | it is both |
//! | `lm_head.weight` beside `wte.weight`, the same bytes | one of them |
//! | heads for other tasks (`score`, `multiple_choice_head`, …) | they are passed over |

use tensor::Tensor;

use super::Checkpoint;
use crate::{Config, Error};

/// How the layout of a checkpoint differs from that of GPT-2's own.
#[derive(Clone, Copy, Default)]
pub(super) struct Layout {
    /// Linear layers' weights are `(out, in)`.
    transposed: bool,
    /// There is not a single bias.
    without_biases: bool,
}

/// What the names of heads for other tasks than the next token begin with, as transformers and trl call
/// them.
const OTHER_HEADS: [&str; 6] =
    ["multiple_choice_head.", "score.", "classifier.", "qa_outputs.", "v_head.", "summary."];

impl Checkpoint {
    /// Gets ready for a model of this config: finds out how the tensors are laid out, which of them are
    /// one, and passes over heads for other tasks. Returns what it had to assume, a line each. Calling it
    /// again changes nothing.
    ///
    /// # Errors
    /// If the head is not what the config says of it.
    pub fn adapt(&mut self, config: &Config) -> Result<Vec<String>, Error> {
        let mut notes = Vec::from_iter(self.pass_over_other_heads());
        let c = config.n_embd;
        let c_attn = self.tensors.get("h.0.attn.c_attn.weight");
        self.layout = Layout {
            transposed: c_attn.is_some_and(|(_, entry)| entry.shape == [3 * c, c]),
            without_biases: !self.tensors.keys().any(|name| name.ends_with(".bias")),
        };
        if self.layout.without_biases && c_attn.is_some() {
            notes.push("the weights hold no biases: all of them are taken to be 0".to_owned());
        }
        notes.extend(self.tie(config)?);
        Ok(notes)
    }

    /// Takes a parameter out of the checkpoint, by GPT-2's own name and shape: a linear layer's weight,
    /// `(in, out)`, may be transposed, and biases are zeros if the checkpoint has none at all.
    ///
    /// # Errors
    /// As [`Checkpoint::take`].
    pub(crate) fn take_parameter(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        match *shape {
            _ if name.ends_with(".bias") && self.layout.without_biases => Ok(Tensor::zeros(shape)),
            [n_in, n_out] if name.starts_with("h.") && self.layout.transposed => {
                let columns = self.take(name, &[n_out, n_in])?.view().t().to_rows();
                Ok(Tensor::new(shape, columns.concat()))
            }
            _ => self.take(name, shape),
        }
    }

    fn pass_over_other_heads(&mut self) -> Option<String> {
        let is_other = |name: &String| OTHER_HEADS.iter().any(|head| name.starts_with(head));
        let others: Vec<String> = self.tensors.keys().filter(|n| is_other(n)).cloned().collect();
        for name in &others {
            self.tensors.remove(name);
        }
        (!others.is_empty()).then(|| {
            let names = others.join(", ");
            format!("passed over, as they are heads for another task: {names}")
        })
    }

    /// Makes one of `wte.weight` and `lm_head.weight` where they are tied.
    fn tie(&mut self, config: &Config) -> Result<Option<String>, Error> {
        const WTE: &str = "wte.weight";
        const HEAD: &str = "lm_head.weight";
        match (self.tensors.get(WTE), self.tensors.get(HEAD)) {
            (Some(_), None) if config.tie_word_embeddings == Some(false) => {
                let reason = "is missing; the config says that logits are not made with the token \
                              embeddings (`tie_word_embeddings` is false), so they need it";
                Err(Error::tensor(&self.path, HEAD, reason))
            }
            (None, Some(_)) if config.tie_word_embeddings != Some(false) => {
                let head = self.tensors.remove(HEAD);
                self.tensors.extend(head.map(|head| (WTE.to_owned(), head)));
                let note = "wte.weight is missing: lm_head.weight is taken for both, as they are tied in \
                            every GPT-2 whose config does not say otherwise";
                Ok((config.tie_word_embeddings.is_none()).then(|| note.to_owned()))
            }
            (Some((wte_file, wte)), Some((head_file, head))) => {
                let same = wte.dtype == head.dtype
                    && wte.shape == head.shape
                    && wte_file.bytes()[wte.range.clone()] == head_file.bytes()[head.range.clone()];
                match (same, config.tie_word_embeddings) {
                    (true, _) => {
                        self.tensors.remove(HEAD);
                        Ok(None)
                    }
                    (false, Some(true)) => {
                        let reason = "is not the same as wte.weight, and the config says that it is \
                                      (`tie_word_embeddings` is true): correct one of the two";
                        Err(Error::tensor(&head_file.path, HEAD, reason))
                    }
                    (false, None) => Ok(Some(
                        "lm_head.weight is not the same as wte.weight: logits are made with lm_head.weight"
                            .to_owned(),
                    )),
                    (false, Some(false)) => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }
}
