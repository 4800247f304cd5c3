//! A small vocabulary for training: the tokens that the text has, and one row that all others share.
//!
//! Of GPT-2's 50,257 tokens the tiny model's corpus has 1,145. A model in training has a row of the embedding for each
//! of these, and one for all of the rest; when it is written, every other token gets a copy of that row. So that the
//! softmax over the small vocabulary is the one over the large, the logit of the shared row, x, stands for n equal
//! ones: n eˣ = e^(x + ln n), and the model in training has the constant bias ln n there.

use gpt2::tokenizer::N_TOKENS;
use gpt2::{Config, Gpt2};
use tensor::Tensor;

/// Which tokens have rows of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// In ascending order.
    known: Vec<u32>,
    /// The row of each of GPT-2's tokens.
    rows: Vec<u32>,
}

impl Vocabulary {
    /// A vocabulary of these tokens and a row for all others.
    ///
    /// # Panics
    /// If GPT-2 does not have one of them.
    pub fn new(mut known: Vec<u32>) -> Self {
        known.sort_unstable();
        known.dedup();
        let mut rows = vec![known.len() as u32; N_TOKENS];
        for (row, &token) in (0..).zip(&known) {
            rows[token as usize] = row;
        }
        Self { known, rows }
    }

    /// The tokens that have rows of their own, in ascending order.
    pub fn known(&self) -> &[u32] {
        &self.known
    }

    /// How many rows there are: that of the unknown tokens is the last.
    pub fn n_rows(&self) -> usize {
        self.known.len() + 1
    }

    /// The rows of tokens, by which the model in training knows them.
    pub fn rows(&self, tokens: &[u32]) -> Vec<u32> {
        tokens.iter().map(|&token| self.rows[token as usize]).collect()
    }

    /// What is added to the logits of the rows, so that the last counts for all tokens that share it.
    pub fn bias(&self) -> Tensor {
        let mut bias = vec![0.0; self.n_rows()];
        bias[self.known.len()] = ((N_TOKENS - self.known.len()) as f32).ln();
        Tensor::new(&[self.n_rows()], bias)
    }

    /// The model with all of GPT-2's tokens, of one with these rows.
    ///
    /// # Panics
    /// If the model has another number of rows, or an unembedding of its own.
    pub fn expand(&self, model: &Gpt2) -> Gpt2 {
        assert!(model.lm_head.is_none(), "rows are not shared by an unembedding of its own");
        assert_eq!(model.wte.n_rows(), self.n_rows(), "rows of the token embedding");
        let rows: Vec<&[f32]> = self.rows.iter().map(|&row| model.wte.row(row as usize)).collect();
        Gpt2 {
            config: Config { vocab_size: N_TOKENS, ..model.config },
            wte: Tensor::new(&[N_TOKENS, model.config.n_embd], rows.concat()),
            lm_head_bias: None,
            ..model.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use gpt2::generate::log_prob;
    use gpt2::no_hook;

    use super::*;

    #[test]
    fn the_expanded_model_predicts_what_the_small_one_does() {
        let vocabulary = Vocabulary::new(vec![50256, 11, 700, 13, 11]);
        assert_eq!(vocabulary.known(), [11, 13, 700, 50256]);
        let sizes =
            Config { vocab_size: 5, block_size: 6, n_layer: 2, n_head: 2, n_embd: 8, ..Config::default() };
        let mut small = Gpt2::random(sizes, 3);
        small.lm_head_bias = Some(vocabulary.bias());
        let large = vocabulary.expand(&small);
        let ids = [11, 5000, 50256, 700];
        assert_eq!(vocabulary.rows(&ids), [0, 4, 3, 2]);
        let small = small.forward(&vocabulary.rows(&ids), &mut no_hook);
        let large = large.forward(&ids, &mut no_hook);
        for pos in 0..ids.len() {
            for (row, token) in [(0, 11), (1, 13), (2, 700), (3, 50256)] {
                let [small, large] = [log_prob(small.row(pos), row), log_prob(large.row(pos), token)];
                assert!((small - large).abs() < 1e-5, "{small} {large}");
            }
            // All unknown tokens together have the probability of their row.
            let one = log_prob(large.row(pos), 0) + f64::from((N_TOKENS - 4) as f32).ln();
            assert!((log_prob(small.row(pos), 4) - one).abs() < 1e-5);
        }
    }
}
