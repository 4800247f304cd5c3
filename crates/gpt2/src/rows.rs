//! The model for the rows of many runs at once, and without hooks: the layers that work on each row by
//! itself, and attention for one row, which may see rows that lie anywhere.
//!
//! They compute what [`crate::model`]'s forward passes compute, to within rounding; the layers on
//! [`tensor::linear`]: the more rows, the faster each. A row has the same bits whatever rows are beside it.

use std::ops::Range;

use multiversion::multiversion;
use tensor::{Tensor, View, dot, layer_norm, linear, softmax_row};

use crate::graph::Reader;
use crate::model::{CausalSelfAttention, LayerNorm, Linear, Mlp};
use crate::{Gpt2, Head};

impl LayerNorm {
    /// Normalises each row of `x`, `(R, C)`.
    pub fn forward_rows(&self, x: &Tensor) -> Tensor {
        layer_norm(x, &self.weight, &self.bias, self.epsilon)
    }
}

impl Linear {
    /// `(R, in)` to `(R, out)`.
    pub fn forward_rows<'a>(&self, x: impl Into<View<'a>>) -> Tensor {
        linear(x, &self.weight, self.bias.data())
    }
}

impl Mlp {
    /// As many rows have a hidden layer at a time, as it is four times as wide as all else.
    pub const ROWS_TOGETHER: usize = 1024;

    /// What the MLP adds to the residual stream, `(R, C)`, from its normalised rows `x`, `(R, C)`.
    pub fn forward_rows(&self, x: &Tensor) -> Tensor {
        let mut out = Vec::new();
        for start in (0..x.n_rows()).step_by(Self::ROWS_TOGETHER) {
            let rows = start..x.n_rows().min(start + Self::ROWS_TOGETHER);
            let mut hidden = self.c_fc.forward_rows(x.view().rows(rows)); // (rows, 4C)
            self.activation.apply(&mut hidden);
            let some = self.c_proj.forward_rows(&hidden).into_data(); // (rows, C)
            if out.is_empty() {
                out = some;
            } else {
                out.extend(some);
            }
        }
        Tensor::new(x.shape(), out)
    }
}

impl Gpt2 {
    /// What a reader makes of rows of the residual stream, `(R, C)`: queries, keys or values of a head,
    /// `(R, head_size)`; what an MLP writes, `(R, C)`; or the normalised rows of which logits are made, `(R, C)`.
    pub fn read_rows(&self, reader: Reader, x: &Tensor) -> Tensor {
        match reader {
            Reader::Head(Head { layer, .. }, _) => {
                let (weight, bias) = self.head_input(reader);
                linear(&self.h[layer].ln_1.forward_rows(x), weight, bias)
            }
            Reader::Mlp(layer) => self.h[layer].mlp.forward_rows(&self.h[layer].ln_2.forward_rows(x)),
            Reader::Logits => self.ln_f.forward_rows(x),
        }
    }

    /// The columns of `c_attn` that make one input of one head: `(C, head_size)`, `(head_size)`.
    ///
    /// # Panics
    /// If the reader is not a head's.
    #[track_caller]
    pub(crate) fn head_input(&self, reader: Reader) -> (View<'_>, &[f32]) {
        let Reader::Head(Head { layer, head }, input) = reader else {
            panic!("{reader} is not the input of a head");
        };
        let (c_attn, width) = (&self.h[layer].attn.c_attn, self.config.head_size());
        let first = input as usize * self.config.n_embd + head * width;
        (c_attn.weight.view().columns(first..first + width), &c_attn.bias.data()[first..first + width])
    }

    /// The logits, `(R, V)`, of a few rows that `ln_f` has normalised, `(R, C)`: those of
    /// [`Gpt2::unembed`], to within rounding.
    ///
    /// # Panics
    /// If the rows are not `n_embd` long.
    #[track_caller]
    pub fn unembed_rows<'a>(&self, x: impl Into<View<'a>>) -> Tensor {
        let zeros;
        let bias = match &self.lm_head_bias {
            Some(bias) => bias.data(),
            None => {
                zeros = vec![0.0; self.config.vocab_size];
                &zeros
            }
        };
        linear(x, self.unembedding().view().t(), bias)
    }

    /// The logits of some tokens, of one row `(C)`: the same bits as among those of all tokens in
    /// [`Gpt2::unembed_rows`].
    ///
    /// # Panics
    /// If a token is beyond the vocabulary, or the row is not `n_embd` long.
    #[track_caller]
    pub fn unembed_tokens(&self, row: &[f32], tokens: &[u32]) -> Vec<f32> {
        let weights = |&token: &u32| self.unembedding().row(token as usize);
        let weights = tokens.iter().flat_map(weights).copied().collect();
        let weights = Tensor::new(&[tokens.len(), self.config.n_embd], weights);
        let bias = |&token: &u32| match &self.lm_head_bias {
            Some(bias) => bias.data()[token as usize],
            None => 0.0,
        };
        let bias: Vec<f32> = tokens.iter().map(bias).collect();
        let row = View::new(row, 1, row.len(), row.len(), 1);
        linear(row, weights.view().t(), &bias).into_data()
    }
}

impl CausalSelfAttention {
    /// What one head writes to the residual stream, without the bias, `(R, C)`, from rows of z, `(R, C)`: z W_O.
    pub fn written_by_head(&self, head: usize, z: &Tensor) -> Tensor {
        let (c, head_size) = (z.row_len(), z.row_len() / self.n_head);
        let own = head * head_size..(head + 1) * head_size;
        let weight = self.c_proj.weight.view().rows(own.clone()); // (head_size, C)
        linear(z.view().columns(own), weight, &vec![0.0; c])
    }

    /// What all heads gather for one position, `z` `(C)`, from its query `q` `(C)` and the keys and values,
    /// `(C)` each, of all positions up to it.
    ///
    /// # Panics
    /// If there are none.
    pub fn attend(&self, q: &[f32], keys: &[&[f32]], values: &[&[f32]], z: &mut [f32]) {
        let first = self.first_seen(keys.len() - 1);
        attend((self.n_head, self.scale, first), q, keys, values, z);
    }

    /// How well a query matches each key in these columns, before softmax; −∞ where it is not seen.
    pub(crate) fn scores(&self, columns: Range<usize>, q: &[f32], keys: &[&[f32]]) -> Vec<f32> {
        let mut scores = scores(self.scale, columns, q, keys);
        scores[..self.first_seen(keys.len() - 1)].fill(f32::NEG_INFINITY);
        scores
    }

    /// How much a position attends to each up to it, in the head that has these columns. `q` is its
    /// query and `keys` are theirs, of all heads, `(C)` each.
    ///
    /// # Panics
    /// If a row does not have these columns.
    pub fn pattern(&self, columns: Range<usize>, q: &[f32], keys: &[&[f32]]) -> Vec<f32> {
        let mut pattern = self.scores(columns, q, keys);
        softmax_row(&mut pattern);
        pattern
    }
}

#[multiversion(targets = "simd")]
fn attend(
    (n_head, scale, first): (usize, f32, usize),
    q: &[f32],
    keys: &[&[f32]],
    values: &[&[f32]],
    z: &mut [f32],
) {
    let (n, head_size) = (keys.len(), z.len() / n_head);
    // All heads of a key, and of a value, together: their numbers lie in one piece.
    let mut patterns = vec![0.0; n_head * n]; // (n_head, n)
    for (src, key) in keys.iter().enumerate() {
        let heads = q.chunks_exact(head_size).zip(key.chunks_exact(head_size));
        for (pattern, (q, key)) in patterns.chunks_exact_mut(n).zip(heads) {
            pattern[src] = dot(q, key) * scale;
        }
    }
    for pattern in patterns.chunks_exact_mut(n) {
        pattern[..first].fill(f32::NEG_INFINITY);
        softmax_row(pattern);
    }
    z.fill(0.0);
    for (src, value) in values.iter().enumerate() {
        let heads = z.chunks_exact_mut(head_size).zip(value.chunks_exact(head_size));
        for (pattern, (z, value)) in patterns.chunks_exact(n).zip(heads) {
            add_times(z, pattern[src], value);
        }
    }
}

/// How well the query matches each key in these columns, before softmax.
#[multiversion(targets = "simd")]
fn scores(scale: f32, columns: Range<usize>, q: &[f32], keys: &[&[f32]]) -> Vec<f32> {
    let mut scores = Vec::with_capacity(keys.len());
    for key in keys {
        let score = dot(&q[columns.clone()], &key[columns.clone()]);
        scores.push(score * scale);
    }
    scores
}

/// What the head that has these columns gathers, `z` `(head_size)`: the values in the proportions of its
/// pattern. `values` are those of all heads, `(C)` each.
///
/// # Panics
/// If a row does not have these columns.
#[multiversion(targets = "simd")]
pub fn gather(columns: Range<usize>, values: &[&[f32]], pattern: &[f32], z: &mut [f32]) {
    z.fill(0.0);
    for (weight, value) in pattern.iter().zip(values) {
        add_times(z, *weight, &value[columns.clone()]);
    }
}

/// z + weight · value
#[inline(always)]
fn add_times(z: &mut [f32], weight: f32, value: &[f32]) {
    for (z, v) in z.iter_mut().zip(value) {
        *z += weight * v;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Hooks, Kernel, no_hook};
    use crate::{Config, Gpt2, Site, SiteKind};

    #[test]
    fn rows_come_out_as_in_the_model_and_have_the_same_bits_in_any_company() {
        let sizes =
            Config { vocab_size: 7, block_size: 4, n_layer: 1, n_head: 2, n_embd: 6, ..Config::default() };
        let model = Gpt2::random(sizes, 3);
        let block = &model.h[0];
        // More rows than have a hidden layer together.
        let n = Mlp::ROWS_TOGETHER + 3;
        let numbers = (0..n * 6).map(|i| (i * i % 101) as f32 / 50.0 - 1.0);
        let x = Tensor::new(&[n, 6], numbers.collect());

        let normalized = block.ln_2.forward_rows(&x);
        assert_eq!(normalized, block.ln_2.forward(&x, &block.ln_2.scale(&x)));
        let out = block.mlp.forward_rows(&normalized);
        let expected = block
            .mlp
            .forward(&normalized, &mut Hooks { hook: &mut no_hook, layer: 0, kernel: Kernel::Plain });
        for (got, expected) in out.data().iter().zip(expected.data()) {
            assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
        }
        let last = Tensor::new(&[1, 6], normalized.row(n - 1).to_vec());
        assert_eq!(block.mlp.forward_rows(&last).row(0), out.row(n - 1));
        let none = Tensor::zeros(&[0, 6]);
        assert_eq!(block.mlp.forward_rows(&none), none);
    }

    #[test]
    fn a_row_of_attention_comes_out_as_in_the_model() {
        let sizes = Config {
            vocab_size: 7,
            block_size: 30,
            n_layer: 1,
            n_head: 2,
            n_embd: 2 * 37,
            ..Config::default()
        };
        let model = Gpt2::random(sizes, 4);
        let ids: Vec<u32> = (0..30).map(|i| i * i % 7).collect();
        let mut kept = std::collections::HashMap::new();
        let mut keep = |site: Site, x: &mut Tensor| drop(kept.insert(site, x.clone()));
        model.forward(&ids, &mut keep);
        let rows = |site: Site| -> Vec<&[f32]> { kept[&site].data().chunks(74).collect() };
        let attn = &model.h[0].attn;
        let [q, k, v, z] =
            [SiteKind::Q.at(0), SiteKind::K.at(0), SiteKind::V.at(0), SiteKind::Z.at(0)].map(rows);
        for pos in 0..30 {
            let (keys, values) = (&k[..=pos], &v[..=pos]);
            let mut row = [0.0; 74];
            attn.attend(q[pos], keys, values, &mut row);
            for (got, expected) in row.iter().zip(z[pos]) {
                assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
            }
            // One head alone has the same bits.
            let mut second = [0.0; 37];
            gather(37..74, values, &attn.pattern(37..74, q[pos], keys), &mut second);
            assert_eq!(second, row[37..]);
        }
    }
}
