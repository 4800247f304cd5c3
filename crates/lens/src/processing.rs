//! Weight processing: other weights that make the same predictions.
//!
//! Some of what GPT-2's weights contain makes no difference to its predictions, and hides what does.
//! TransformerLens removes it when it loads a model (`process_weights_`); here each step is a
//! function from model to model. The log probabilities stay the same, up to rounding; the activations
//! change.
//!
//! | step | what it does | why nothing changes |
//! |---|---|---|
//! | [`fold_ln`] | a layer norm's weight and bias move into the matrices that read it, and these are centred | `(x̂ w + b) W = x̂ (w W) + b W`, and x̂ has mean 0 |
//! | [`center_writing_weights`] | what is written to the residual stream gets mean 0 | every reader subtracts the mean |
//! | [`center_unembed`] | W_U's mean over the vocabulary becomes 0 | softmax does not see a number that all logits share |
//! | [`fold_value_biases`] | values' biases move to the output's bias: `b_O + b_V W_O` | a pattern's rows add up to 1 |
//! | [`refactor_factored_attn_matrices`] | W_Q, W_K and W_V, W_O become orthogonal factors of the same products | only the products count |
//!
//! A folded `ln_f` needs a bias on the logits: [`Gpt2::lm_head_bias`]. Embedding and unembedding become two
//! tables, because they are processed differently. Layer norms stay where they are, with weights of 1 and
//! biases of 0: TransformerLens's `LayerNormPre`.

use std::str::FromStr;

use gpt2::Gpt2;
use gpt2::model::{LayerNorm, Linear};
use rayon::prelude::*;
use tensor::Tensor;

use crate::weights::{copy, heads_of_layer};
use crate::{FactoredMatrix, Svd};

/// Which steps [`process`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// [`fold_ln`]
    pub fold_ln: bool,
    /// [`center_writing_weights`]
    pub center_writing_weights: bool,
    /// [`center_unembed`]
    pub center_unembed: bool,
    /// [`fold_value_biases`]
    pub fold_value_biases: bool,
    /// [`refactor_factored_attn_matrices`]
    pub refactor_factored_attn_matrices: bool,
}

impl Flags {
    /// No step.
    pub const NONE: Self = Self {
        fold_ln: false,
        center_writing_weights: false,
        center_unembed: false,
        fold_value_biases: false,
        refactor_factored_attn_matrices: false,
    };

    /// All but the last: what TransformerLens's `from_pretrained` does by itself.
    pub const DEFAULT: Self = Self { refactor_factored_attn_matrices: false, ..Self::ALL };

    /// Every step.
    pub const ALL: Self = Self {
        fold_ln: true,
        center_writing_weights: true,
        center_unembed: true,
        fold_value_biases: true,
        refactor_factored_attn_matrices: true,
    };
}

impl FromStr for Flags {
    type Err = String;

    /// `all` or `default`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::ALL),
            "default" => Ok(Self::DEFAULT),
            _ => Err(format!("there is no processing \"{text}\"; give all or default")),
        }
    }
}

/// Takes the chosen steps, in TransformerLens's order.
pub fn process(model: &Gpt2, flags: Flags) -> Gpt2 {
    type Step = fn(Gpt2) -> Gpt2;
    let steps: [(bool, Step); 5] = [
        (flags.fold_ln, fold_ln),
        (flags.center_writing_weights, center_writing_weights),
        (flags.center_unembed, center_unembed),
        (flags.fold_value_biases, fold_value_biases),
        (flags.refactor_factored_attn_matrices, refactor_factored_attn_matrices),
    ];
    (steps.into_iter().filter(|(chosen, _)| *chosen)).fold(model.clone(), |model, (_, step)| step(model))
}

/// W_U, `(V, C)`, and b_U, `(V)`, apart from the token embeddings.
fn unembedding(model: &mut Gpt2) -> (&mut Tensor, &mut Tensor) {
    let vocab_size = model.config.vocab_size;
    let wte = &model.wte;
    let w_u = model.lm_head.get_or_insert_with(|| wte.clone());
    let zeros = || Tensor::zeros(&[vocab_size]);
    (w_u, model.lm_head_bias.get_or_insert_with(zeros))
}

/// Moves every layer norm's weight w and bias b into what reads it, `W ← w W` and `bias ← bias +
/// b W`, and takes from each column of W its mean: what is normalised has mean 0, so that part of W
/// reads nothing.
pub fn fold_ln(mut model: Gpt2) -> Gpt2 {
    model.h.par_iter_mut().for_each(|block| {
        fold_into(&mut block.ln_1, &mut block.attn.c_attn);
        fold_into(&mut block.ln_2, &mut block.mlp.c_fc);
    });
    let ln_f = model.ln_f.clone();
    let (w_u, b_u) = unembedding(&mut model);
    // W_U lies (V, C), the other way round from the weights of the blocks.
    let c = w_u.row_len();
    (w_u.data_mut().par_chunks_exact_mut(c).zip(b_u.data_mut())).for_each(|(row, b_u)| {
        *b_u += product(row, ln_f.bias.data());
        let weighted = row.iter_mut().zip(ln_f.weight.data());
        weighted.for_each(|(x, w)| *x *= w);
        center(row);
    });
    make_plain(&mut model.ln_f);
    model
}

/// Moves one layer norm into the linear layer `(C, N)` that reads it.
fn fold_into(ln: &mut LayerNorm, linear: &mut Linear) {
    let [c, n] = linear.weight.dims();
    let mut bias: Vec<f64> = linear.bias.data().iter().map(|x| f64::from(*x)).collect();
    let mut mean = vec![0.0; n];
    for i in 0..c {
        let (w, b) = (ln.weight.data()[i], ln.bias.data()[i]);
        let row = linear.weight.row_mut(i);
        for ((x, bias), mean) in row.iter_mut().zip(&mut bias).zip(&mut mean) {
            *bias += f64::from(b) * f64::from(*x);
            *x *= w;
            *mean += f64::from(*x) / c as f64;
        }
    }
    for i in 0..c {
        let row = linear.weight.row_mut(i).iter_mut();
        row.zip(&mean).for_each(|(x, mean)| *x -= *mean as f32);
    }
    linear.bias = Tensor::new(&[n], bias.into_iter().map(|x| x as f32).collect());
    make_plain(ln);
}

/// A layer norm that only centres and scales.
fn make_plain(ln: &mut LayerNorm) {
    ln.weight.data_mut().fill(1.0);
    ln.bias.data_mut().fill(0.0);
}

/// Takes from everything that is written to the residual stream its mean: from each row of the
/// embeddings and of every `c_proj`, and from their biases.
pub fn center_writing_weights(mut model: Gpt2) -> Gpt2 {
    unembedding(&mut model); // which stays as it is
    let gpt2 = &mut model;
    for table in [&mut gpt2.wte, &mut gpt2.wpe] {
        center_rows(table);
    }
    gpt2.h.par_iter_mut().for_each(|block| {
        for linear in [&mut block.attn.c_proj, &mut block.mlp.c_proj] {
            center_rows(&mut linear.weight);
            center(linear.bias.data_mut());
        }
    });
    model
}

/// Takes from W_U and b_U their means over the vocabulary.
pub fn center_unembed(mut model: Gpt2) -> Gpt2 {
    let (w_u, b_u) = unembedding(&mut model);
    let [v, c] = w_u.dims();
    let mut mean = vec![0.0; c];
    for i in 0..v {
        let row = mean.iter_mut().zip(w_u.row(i));
        row.for_each(|(mean, x)| *mean += f64::from(*x) / v as f64);
    }
    for row in w_u.data_mut().chunks_exact_mut(c) {
        let row = row.iter_mut().zip(&mean);
        row.for_each(|(x, mean)| *x = (f64::from(*x) - mean) as f32);
    }
    center(b_u.data_mut());
    model
}

/// Moves the values' biases to the attention's output: `b_O ← b_O + b_V W_O`, `b_V ← 0`. Each head then
/// writes only what depends on the prompt.
pub fn fold_value_biases(mut model: Gpt2) -> Gpt2 {
    for block in &mut model.h {
        let (c_attn, c_proj) = (&mut block.attn.c_attn, &mut block.attn.c_proj);
        let c = c_proj.weight.row_len();
        let b_v = &mut c_attn.bias.data_mut()[2 * c..];
        let mut b_o: Vec<f64> = c_proj.bias.data().iter().map(|x| f64::from(*x)).collect();
        for (i, b_v) in b_v.iter().enumerate() {
            let row = b_o.iter_mut().zip(c_proj.weight.row(i));
            row.for_each(|(b_o, w)| *b_o += f64::from(*b_v) * f64::from(*w));
        }
        c_proj.bias = Tensor::new(&[c], b_o.into_iter().map(|x| x as f32).collect());
        b_v.fill(0.0);
    }
    model
}

/// Takes other factors of each head's two products, from their singular value decompositions:
///
/// - W_V W_O = U S Vᵀ becomes `W_V = U S`, `W_O = Vᵀ`, so z has the norm of what the head writes;
/// - `W_Q W_Kᵀ`, with the biases as one more row of each, becomes `W_Q = U √S`, `W_K = V √S`.
///
/// The values' biases are folded first. The signs of singular vectors are arbitrary, and so are
/// those of q, k, v and z; patterns and results are not.
pub fn refactor_factored_attn_matrices(model: Gpt2) -> Gpt2 {
    let mut model = fold_value_biases(model);
    let gpt2 = &model;
    let (c, head_size) = (gpt2.config.n_embd, gpt2.config.head_size());
    let factors: Vec<Vec<(FactoredMatrix, Svd)>> = (0..gpt2.config.n_layer)
        .into_par_iter()
        .map(|layer| {
            let bias = gpt2.h[layer].attn.c_attn.bias.data();
            let heads = heads_of_layer(gpt2, layer).into_par_iter().enumerate();
            heads
                .map(|(head, weights)| {
                    let with_bias = |w, part: usize| {
                        let start = part * c + head * head_size;
                        let bias = &bias[start..start + head_size];
                        let data = [copy(w).data(), bias].concat();
                        Tensor::new(&[c + 1, head_size], data)
                    };
                    let w_k = with_bias(weights.w_k, 1);
                    let qk = FactoredMatrix::new(with_bias(weights.w_q, 0), copy(w_k.view().t()));
                    (qk.make_even(), weights.ov().svd())
                })
                .collect()
        })
        .collect();
    for (block, heads) in model.h.iter_mut().zip(factors) {
        let Linear { weight, bias } = &mut block.attn.c_attn; // (C, 3C), (3C)
        let w_o = &mut block.attn.c_proj.weight; // (C, C)
        for (head, (qk, ov)) in heads.into_iter().enumerate() {
            let start = head * head_size;
            let (w_q, w_k) = (qk.a(), qk.t()); // (C + 1, head_size)
            for i in 0..c {
                let row = weight.row_mut(i);
                row[start..][..head_size].copy_from_slice(w_q.row(i));
                row[c + start..][..head_size].copy_from_slice(w_k.a().row(i));
                for (j, s) in ov.s.iter().enumerate() {
                    row[2 * c + start + j] = ov.u.row(i)[j] * *s as f32;
                    w_o.row_mut(start + j)[i] = ov.v.row(i)[j];
                }
            }
            bias.data_mut()[start..][..head_size].copy_from_slice(w_q.row(c));
            bias.data_mut()[c + start..][..head_size].copy_from_slice(w_k.a().row(c));
        }
    }
    model
}

/// Takes from each row its mean.
fn center_rows(x: &mut Tensor) {
    let n = x.row_len();
    x.data_mut().par_chunks_exact_mut(n).for_each(center);
}

/// Takes from a row its mean.
fn center(row: &mut [f32]) {
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len() as f64;
    row.iter_mut().for_each(|x| *x = (f64::from(*x) - mean) as f32);
}

/// Σ x y
fn product(x: &[f32], y: &[f32]) -> f32 {
    let products = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y));
    products.sum::<f64>() as f32
}

#[cfg(test)]
mod tests {
    use gpt2::{Pretrained, SiteKind, no_hook};

    use super::*;
    use crate::run_with_cache;

    const IDS: [u32; 5] = [48736, 5437, 373, 257, 1353];

    fn tiny() -> Gpt2 {
        Pretrained::tiny().unwrap().model
    }

    /// The largest difference between the log probabilities of two models' logits.
    fn log_prob_change(x: &Tensor, y: &Tensor) -> f64 {
        let mut largest = 0.0_f64;
        for i in 0..x.n_rows() {
            let [a, b] = [x.row(i), y.row(i)].map(|row| (row, tensor::log_sum_exp(row)));
            for (x, y) in a.0.iter().zip(b.0) {
                let [x, y] = [f64::from(*x) - a.1, f64::from(*y) - b.1];
                largest = largest.max((x - y).abs());
            }
        }
        largest
    }

    #[test]
    fn no_set_of_steps_moves_a_log_probability() {
        let tiny = tiny();
        let expected = tiny.forward(&IDS, &mut no_hook);
        for set in 0..32 {
            let step = |i: usize| set >> i & 1 == 1;
            let flags = Flags {
                fold_ln: step(0),
                center_writing_weights: step(1),
                center_unembed: step(2),
                fold_value_biases: step(3),
                refactor_factored_attn_matrices: step(4),
            };
            let change = log_prob_change(&process(&tiny, flags).forward(&IDS, &mut no_hook), &expected);
            assert!(change < 1e-4, "{flags:?}: {change:e}");
        }
    }

    #[test]
    fn every_step_taken_twice_is_taken_once() {
        let once = process(&tiny(), Flags::DEFAULT);
        let twice = fold_value_biases(center_unembed(center_writing_weights(fold_ln(once.clone()))));
        let x = once.forward(&IDS, &mut no_hook);
        let y = twice.forward(&IDS, &mut no_hook);
        for (x, y) in x.data().iter().zip(y.data()) {
            assert!((x - y).abs() < 1e-4);
        }
    }

    #[test]
    fn the_residual_stream_and_the_logits_are_centred() {
        let processed = process(&tiny(), Flags::DEFAULT);
        let cache = run_with_cache(&processed, &IDS).unwrap();
        for layer in 0..12 {
            for pos in 0..5 {
                let sum: f32 = cache[SiteKind::ResidPost.at(layer)].row(pos).iter().sum();
                assert!(sum.abs() < 1e-3, "{sum}");
            }
        }
        let logits = processed.forward(&IDS, &mut no_hook);
        let mean: f64 = logits.row(4).iter().map(|x| f64::from(*x)).sum::<f64>() / 50257.0;
        assert!(mean.abs() < 1e-5, "{mean}");
        assert!((processed.h.iter()).all(|block| block.attn.c_attn.bias.data()[128..] == [0.0; 64]));
    }

    #[test]
    fn refactored_heads_have_orthogonal_factors_and_equal_results() {
        let before = process(&tiny(), Flags::DEFAULT);
        let after = process(&tiny(), Flags::ALL);
        let [old, new] = [&before, &after].map(|model| run_with_cache(model, &IDS).unwrap());
        for layer in 0..12 {
            for site in
                [SiteKind::Pattern.at(layer), SiteKind::Result.at(layer), SiteKind::ResidPost.at(layer)]
            {
                for (x, y) in old[site].data().iter().zip(new[site].data()) {
                    assert!((x - y).abs() < 1e-4, "{site}: {y} instead of {x}");
                }
            }
            let (z, result) = (&new[SiteKind::Z.at(layer)], &new[SiteKind::Result.at(layer)]);
            for row in 0..20 {
                let norm = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
                assert!((norm(z.row(row)) - norm(result.row(row))).abs() < 1e-4);
            }
            for head in heads_of_layer(&after, layer) {
                let gram = tensor::matmul(head.w_o, head.w_o.t());
                for i in 0..16 {
                    for j in 0..16 {
                        let expected = f32::from(u8::from(i == j));
                        assert!((gram.row(i)[j] - expected).abs() < 1e-5);
                    }
                }
            }
        }
    }
}
