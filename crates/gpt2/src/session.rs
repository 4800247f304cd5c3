//! A text that grows: the keys and values of the tokens read so far are kept (a *KV cache*).
//!
//! A token sees only what stands to its left, so the keys and values of a prefix stay as they are whatever
//! follows. Each further token then costs one row through the blocks, where [`Gpt2::next_token_logits`]
//! computes the rows of the whole text again, and gives the same logits to within rounding.

use std::iter::zip;

use tensor::Tensor;

use crate::walk::{BASE, Known, Plan, Walk};
use crate::{Error, Gpt2};

/// A text that a model reads piece by piece.
#[derive(Clone, Debug)]
pub struct Session<'m> {
    model: &'m Gpt2,
    /// The tokens read so far.
    ids: Vec<u32>,
    /// Their keys and values in each layer.
    layers: Vec<Known>,
}

impl<'m> Session<'m> {
    /// Nothing has been read yet.
    pub fn new(model: &'m Gpt2) -> Self {
        Self { model, ids: Vec::new(), layers: vec![Known::default(); model.config.n_layer] }
    }

    /// The logits of the token after the last one of `ids`, `(V)`. Of the text that was given before, the
    /// tokens at its beginning that are the same are not read again; the result has the same bits.
    ///
    /// # Errors
    /// If there is no token, more than `block_size`, or one that the model does not know.
    pub fn next_token_logits(&mut self, ids: &[u32]) -> Result<Vec<f32>, Error> {
        let model = self.model;
        model.check_prompt(ids)?;
        let same = zip(&self.ids, ids).take_while(|(old, new)| old == new);
        // The last row is computed in any case: the logits are made from it.
        let known = same.count().min(ids.len() - 1);
        self.ids.truncate(known);
        self.ids.extend_from_slice(&ids[known..]);

        let mut walk = Walk::after(model, Plan::of(ids), known);
        for (layer, seen) in self.layers.iter_mut().enumerate() {
            seen.keys.truncate(known * model.config.n_embd);
            seen.values.truncate(known * model.config.n_embd);
            walk.block(layer, Some(seen));
        }
        let last: Tensor = walk.ends().of_run(BASE); // (1, C)
        Ok(model.unembed_rows(&last).into_data()) // (V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, no_hook};

    fn model() -> Gpt2 {
        let sizes = Config {
            vocab_size: 23,
            block_size: 20,
            n_layer: 3,
            n_head: 2,
            n_embd: 2 * 21,
            ..Config::default()
        };
        Gpt2::random(sizes, 5)
    }

    #[test]
    fn each_token_gets_the_logits_of_the_plain_way() {
        let model = model();
        let ids: Vec<u32> = (0..20).map(|i| i * i % 23).collect();
        let mut session = Session::new(&model);
        for end in 1..=20 {
            let got = session.next_token_logits(&ids[..end]).unwrap();
            let expected = model.next_token_logits(&ids[..end], &mut no_hook);
            for (got, expected) in zip(&got, &expected) {
                assert!((got - expected).abs() < 1e-4, "{got}, not {expected}");
            }
        }
    }

    #[test]
    fn what_was_read_before_changes_no_bit() {
        let model = model();
        let ids: Vec<u32> = (0..20).map(|i| i * i % 23).collect();
        let fresh = |ids: &[u32]| Session::new(&model).next_token_logits(ids).unwrap();
        let mut session = Session::new(&model);
        // Longer, the same again, shorter, one that differs from the middle on, a wholly different one.
        let mut other = ids.clone();
        other[9] += 1;
        for text in [&ids[..7], &ids[..13], &ids[..13], &ids[..4], &ids, &other, &ids[1..]] {
            let got = session.next_token_logits(text).unwrap();
            assert_eq!(got, fresh(text));
        }
    }

    #[test]
    fn a_text_that_cannot_be_read_is_an_error_and_no_harm() {
        let model = model();
        let mut session = Session::new(&model);
        let before = session.next_token_logits(&[1, 2]).unwrap();
        assert!(session.next_token_logits(&[]).is_err());
        assert!(session.next_token_logits(&[1, 23]).is_err());
        assert!(session.next_token_logits(&[1; 21]).is_err());
        assert_eq!(session.next_token_logits(&[1, 2]).unwrap(), before);
    }
}
