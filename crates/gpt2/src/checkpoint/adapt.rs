//! Checkpoints of GPT-2 in other layouts than GPT-2's own.
//!
//! | what other programs write | how it is read |
//! |---|---|
//! | weights as `nn.Linear` has them, `(out, in)` (nanoGPT) | they are transposed |
//! | no biases at all (nanoGPT's `bias=False`) | they are 0 |
//! | `lm_head.weight` without `wte.weight`, tied | it is both |
//! | `lm_head.weight` beside `wte.weight`, the same bytes | one of them |
//! | heads for other tasks (`score`, `multiple_choice_head`, …) | they are passed over |
//!
//! And of other families that are computed alike: [`families`](super::families).

use tensor::Tensor;

use super::Checkpoint;
use super::families::own_name;
use super::file::is_buffer;
use crate::{Config, Error};

/// How the layout of a checkpoint differs from that of GPT-2's own.
#[derive(Clone, Copy, Default)]
pub(super) struct Layout {
    /// Linear layers' weights are `(out, in)`.
    transposed: bool,
    /// There is not a single bias.
    without_biases: bool,
    /// Queries, keys and values are parameters of their own; and whether they have biases.
    apart: Option<bool>,
    /// Rows of `wpe` in front that no position has.
    unused_positions: usize,
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
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        let renamed = tensors.map(|(name, tensor)| (own_name(&name), tensor));
        self.tensors = renamed.filter(|(name, _)| !is_buffer(name)).collect();
        let mut notes = Vec::from_iter(self.pass_over_other_heads());
        let c = config.n_embd;
        let c_attn = self.tensors.get("h.0.attn.c_attn.weight");
        let wpe = self.tensors.get("wpe.weight");
        let apart = self.contains("h.0.attn.q_proj.weight").then(|| self.contains("h.0.attn.q_proj.bias"));
        self.layout = Layout {
            transposed: apart.is_some() || c_attn.is_some_and(|(_, entry)| entry.shape == [3 * c, c]),
            without_biases: !self.tensors.keys().any(|name| name.ends_with(".bias")),
            apart,
            // OPT's first positions are 2 and up.
            unused_positions: match wpe {
                Some((_, entry)) if apart == Some(true) && entry.shape == [config.block_size + 2, c] => 2,
                _ => 0,
            },
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
        if let (Some(biased), Some((layer, part))) = (self.layout.apart, name.split_once("c_attn.")) {
            return self.joined(layer, part, shape, biased);
        }
        match *shape {
            [n, c] if name == "wpe.weight" && self.layout.unused_positions > 0 => {
                let unused = self.layout.unused_positions;
                let all = self.take(name, &[n + unused, c])?;
                Ok(Tensor::new(shape, all.data()[unused * c..].to_vec()))
            }
            _ if name.ends_with(".bias") && self.layout.without_biases => Ok(Tensor::zeros(shape)),
            [n_in, n_out] if name.starts_with("h.") && self.layout.transposed => {
                let columns = self.take(name, &[n_out, n_in])?.view().t().to_rows();
                Ok(Tensor::new(shape, columns.concat()))
            }
            _ => self.take(name, shape),
        }
    }

    /// `c_attn` of `h.N.attn.` out of its three parts: a weight, `(C, 3C)`, or a bias, `(3C)`.
    fn joined(&mut self, layer: &str, part: &str, shape: &[usize], biased: bool) -> Result<Tensor, Error> {
        let name = |of: &str| format!("{layer}{of}_proj.{part}");
        match *shape {
            [c, _] => {
                let [q, k, v] = ["q", "k", "v"].map(|of| self.take_parameter(&name(of), &[c, c]));
                Ok(Tensor::join_columns([&q?, &k?, &v?]))
            }
            [width] if biased => {
                let parts = ["q", "k", "v"].map(|of| self.take(&name(of), &[width / 3]));
                let mut joined = Vec::with_capacity(width);
                for part in parts {
                    joined.extend_from_slice(part?.data());
                }
                Ok(Tensor::new(shape, joined))
            }
            _ => Ok(Tensor::zeros(shape)),
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
