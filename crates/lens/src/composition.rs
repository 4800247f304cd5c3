//! Composition: which head reads the output of which other head?
//!
//! A head writes through its OV circuit, W_V W_O, into the residual stream; a head of a later layer
//! reads it through its queries, its keys or its values. How well the two fit is a score, which is small
//! for random matrices and larger for heads that work together,
//!
//! ```text
//! score = ‖OV₁ R₂‖ / (‖OV₁‖ ‖R₂‖)        (Frobenius norms)
//! ```
//!
//! with R = W_Q W_Kᵀ for Q-composition, its transpose W_K W_Qᵀ for K-composition and W_V W_O for
//! V-composition (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits";
//! TransformerLens's `all_composition_scores`). In this crate a row of the stream is multiplied from
//! the right, x W. Raw weights, no biases.
//!
//! # Circuits
//!
//! Between tokens a head's circuits are `(V, V)`: [`full_qk_circuit`] says which token attends to
//! which, [`full_ov_circuit`] which token's logits rise where one is attended to. The two heads of
//! *induction*, one that copies each token to the position after it and one that looks for the copy,
//! make [`k_composition_circuit`]: W_E W_Q against W_E W_V W_O W_K. It does its work if every token's
//! best key is the token itself: [`top1_accuracy`] (ARENA 1.2, `find_K_comp_full_circuit`). A head
//! copies if attending to a token raises the logit of that token: [`copying_score`].

use std::fmt;
use std::str::FromStr;

use gpt2::Gpt2;
use multiversion::multiversion;
use rayon::prelude::*;
use tensor::{Tensor, View, all_finite, matmul, matmul_into};

use crate::factored::columns;
use crate::linalg::qr;
use crate::weights::{HeadWeights, copy, head_weights, heads_of_layer};
use crate::{Error, FactoredMatrix};

/// Through what the second head reads the first one's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Composition {
    /// Its queries: R = W_Q W_Kᵀ.
    Q,
    /// Its keys: R = W_K W_Qᵀ.
    K,
    /// Its values: R = W_V W_O.
    V,
}

impl Composition {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Q, Self::K, Self::V];

    /// What the reading head multiplies the stream with, `(C, C)`.
    pub fn reader(self, head: &HeadWeights<'_>) -> FactoredMatrix {
        match self {
            Self::Q => head.qk(),
            Self::K => head.qk().t(),
            Self::V => head.ov(),
        }
    }
}

impl fmt::Display for Composition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
        })
    }
}

impl FromStr for Composition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(|kind| kind.to_string() == name);
        found.ok_or_else(|| format!("there is no composition \"{text}\"; give q, k or v"))
    }
}

/// The score of two matrices that are known as products, `‖A B‖ / (‖A‖ ‖B‖)`; NaN if one is
/// zero, which fits nothing, or too large.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn composition_score(first: &FactoredMatrix, second: &FactoredMatrix) -> f64 {
    finite_or_nan(first.then(second).norm() / (first.norm() * second.norm()))
}

/// The scores of all pairs of heads, `(n_layer, n_head, n_layer, n_head)`: `[l1, h1, l2, h2]` is how
/// well head l2.h2 reads head l1.h1; 0 unless l1 < l2; NaN as in [`composition_score`].
///
/// Neither circuit is multiplied out. With W_V = Q R (Q orthonormal, R `(head_size, head_size)`) the
/// norm of `W_V W_O X` is that of `(R W_O) X`, and likewise on the right, so one `(C, C)` product per pair
/// of layers gives every pair of heads: each is one `head_size × head_size` block of it.
pub fn all_composition_scores(model: &Gpt2, kind: Composition) -> Tensor {
    let (n_layer, n_head) = (model.config.n_layer, model.config.n_head);
    let head_size = model.config.head_size();
    // Every head's (R W_O), (head_size, C), and its reader with the orthonormal side left out,
    // turned over, (head_size, C); below each other, these are (C, C) a layer.
    let sides: Vec<(Tensor, Tensor)> = (0..n_layer)
        .into_par_iter()
        .map(|layer| {
            let heads = heads_of_layer(model, layer);
            let stack = |side: &dyn Fn(&HeadWeights<'_>) -> Tensor| {
                let data = heads.iter().flat_map(|head| side(head).data().to_vec());
                Tensor::new(&[n_head * head_size, model.config.n_embd], data.collect())
            };
            let writers = stack(&|head| matmul(&r_of(head.w_v), head.w_o));
            let readers = stack(&|head| match kind {
                Composition::Q => matmul(&r_of(head.w_k), head.w_q.t()),
                Composition::K => matmul(&r_of(head.w_q), head.w_k.t()),
                Composition::V => matmul(&r_of(head.w_o.t()), head.w_v.t()),
            });
            (writers, readers)
        })
        .collect();
    let norms = |side: &Tensor| -> Vec<f64> {
        let heads = (0..n_head).map(|h| h * head_size..(h + 1) * head_size);
        heads.map(|rows| rows.map(|i| square(side.row(i))).sum::<f64>().sqrt()).collect()
    };

    let mut scores = Tensor::zeros(&[n_layer, n_head, n_layer, n_head]);
    for l1 in 0..n_layer {
        let written = norms(&sides[l1].0);
        for l2 in l1 + 1..n_layer {
            let read = norms(&sides[l2].1);
            let product = matmul(&sides[l1].0, sides[l2].1.view().t()); // (C, C)
            for (h1, written) in written.iter().enumerate() {
                let mut squares = vec![0.0; n_head];
                for row in h1 * head_size..(h1 + 1) * head_size {
                    let heads = product.row(row).chunks_exact(head_size);
                    squares.iter_mut().zip(heads).for_each(|(s, x)| *s += square(x));
                }
                let scores = scores.row_mut((l1 * n_head + h1) * n_layer + l2);
                for (h2, score) in scores.iter_mut().enumerate() {
                    // As in composition_score, 0 / 0 has no value.
                    *score = finite_or_nan(squares[h2].sqrt() / (written * read[h2])) as f32;
                }
            }
        }
    }
    scores
}

/// A score is a share, so ∞ is not a score either: it comes from a product that overflows.
fn finite_or_nan(score: f64) -> f64 {
    if score.is_finite() { score } else { f64::NAN }
}

/// R, `(n, n)`, of a matrix `(m, n)` = Q R.
fn r_of(matrix: View<'_>) -> Tensor {
    let r = qr(columns(matrix)).r;
    let n = r.len();
    let data = (0..n * n).map(|i| r[i % n][i / n] as f32);
    Tensor::new(&[n, n], data.collect())
}

/// Σ x²
fn square(row: &[f32]) -> f64 {
    row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum()
}

/// One pair of heads and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Layer and head of the one that writes.
    pub first: (usize, usize),
    /// Layer and head of the one that reads.
    pub second: (usize, usize),
    /// How well they fit.
    pub score: f32,
}

/// The `count` pairs with the highest scores, the highest first, of a grid
/// `(n_layer, n_head, n_layer, n_head)`.
pub fn strongest_pairs(scores: &Tensor, count: usize) -> Vec<Pair> {
    let [_, n_head, n_layer, _] = scores.dims();
    let mut pairs: Vec<Pair> = (scores.data().iter().enumerate())
        .map(|(i, score)| {
            let (writer, reader) = (i / (n_layer * n_head), i % (n_layer * n_head));
            Pair {
                first: (writer / n_head, writer % n_head),
                second: (reader / n_head, reader % n_head),
                score: *score,
            }
        })
        .filter(|pair| pair.first.0 < pair.second.0 && !pair.score.is_nan())
        .collect();
    pairs.sort_by(|x, y| y.score.total_cmp(&x.score));
    pairs.truncate(count);
    pairs
}

/// W_E W_Q W_Kᵀ W_Eᵀ of a head, `(N, N)` as query and key: how much a token attends to another, by
/// their embeddings alone. Over the given tokens, or all.
///
/// # Errors
/// If the model does not have the head or a token.
pub fn full_qk_circuit(
    model: &Gpt2,
    (layer, head): (usize, usize),
    tokens: Option<&[u32]>,
) -> Result<FactoredMatrix, Error> {
    let head = head_weights(model, layer, head)?;
    let w_e = Rows::of(&model.wte, tokens)?;
    let keys = matmul(w_e.tensor(), head.w_k); // (N, head_size)
    let queries = matmul(w_e.tensor(), head.w_q);
    Ok(FactoredMatrix::new(queries, copy(keys.view().t())))
}

/// W_E W_V W_O W_U of a head, `(N, N)` as token attended to and token to come: how much attending to
/// a token raises the logit of another. Over the given tokens, or all.
///
/// # Errors
/// If the model does not have the head or a token.
pub fn full_ov_circuit(
    model: &Gpt2,
    (layer, head): (usize, usize),
    tokens: Option<&[u32]>,
) -> Result<FactoredMatrix, Error> {
    let head = head_weights(model, layer, head)?;
    let values = matmul(Rows::of(&model.wte, tokens)?.tensor(), head.w_v); // (N, head_size)
    let w_u = Rows::of(model.unembedding(), tokens)?;
    Ok(FactoredMatrix::new(values, matmul(head.w_o, w_u.tensor().view().t())))
}

/// W_E W_Q (W_E W_V W_O W_K)ᵀ, `(N, N)` as query and key: how much `induction`, a head of a later
/// layer, attends from a token to the position to which `previous` has moved another token. Over
/// the given tokens, or all.
///
/// # Errors
/// If the model does not have the heads or a token, or they are not in this order.
pub fn k_composition_circuit(
    model: &Gpt2,
    previous: (usize, usize),
    induction: (usize, usize),
    tokens: Option<&[u32]>,
) -> Result<FactoredMatrix, Error> {
    let writer = head_weights(model, previous.0, previous.1)?;
    let reader = head_weights(model, induction.0, induction.1)?;
    if previous.0 >= induction.0 {
        return Err(Error::NotInOrder { first: previous.0, second: induction.0 });
    }
    let w_e = Rows::of(&model.wte, tokens)?;
    let queries = matmul(w_e.tensor(), reader.w_q); // (N, head_size)
    let moved = matmul(writer.w_o, reader.w_k); // (head_size, head_size)
    let keys = matmul(&matmul(w_e.tensor(), writer.w_v), &moved);
    Ok(FactoredMatrix::new(queries, copy(keys.view().t())))
}

/// The share of the rows of a square matrix whose largest number stands on the diagonal (of equal ones the
/// first counts); NaN if any number is not finite. Blocks of some hundred rows and some thousand columns
/// are multiplied out at a time, so that they stay in the cache.
///
/// # Panics
/// If the matrix is not square.
#[track_caller]
pub fn top1_accuracy(matrix: &FactoredMatrix) -> f32 {
    const ROWS: usize = 256;
    /// A block is 2 MB.
    const COLUMNS: usize = 2048;
    let [m, n] = matrix.shape();
    assert!(m == n, "the diagonal of a {m} × {n} matrix");
    let (a, b) = (matrix.a().view(), matrix.b().view());
    let hits_in = |block: &mut Tensor, start: usize| {
        let rows = start..n.min(start + ROWS);
        let mut best = vec![(f32::NEG_INFINITY, 0); rows.len()];
        for left in (0..n).step_by(COLUMNS) {
            let columns = left..n.min(left + COLUMNS);
            let shape = [rows.len(), columns.len()];
            if block.shape() != shape {
                *block = Tensor::zeros(&shape);
            }
            matmul_into(a.rows(rows.clone()), b.columns(columns), block.view_mut());
            for (i, best) in best.iter_mut().enumerate() {
                let row = block.row(i);
                if !all_finite(row) {
                    return f64::NAN;
                }
                // The column is looked up only for the few numbers that are candidates.
                let max = largest(row);
                if max > best.0
                    && let Some(at) = row.iter().position(|x| *x == max)
                {
                    *best = (max, left + at);
                }
            }
        }
        let diagonal = best.iter().zip(rows);
        diagonal.filter(|((_, at), row)| at == row).count() as f64
    };
    let starts = (0..n).into_par_iter().step_by(ROWS);
    let hits: f64 = starts.map_init(|| Tensor::zeros(&[0, 0]), hits_in).sum();
    (hits / n as f64) as f32
}

/// [`tensor::max()`] with the widest vectors of this machine.
#[multiversion(targets = "simd")]
fn largest(row: &[f32]) -> f32 {
    tensor::max(row)
}

/// How much an OV circuit between tokens copies: `Σ λ / Σ |λ|` of its eigenvalues, 1 if all are
/// positive (every token raises its own logit), −1 if all are negative (Elhage et al. 2021,
/// "Summarizing OV/QK Matrices"); NaN if all are 0.
///
/// # Panics
/// If the matrix is not square.
#[track_caller]
pub fn copying_score(matrix: &FactoredMatrix) -> f64 {
    let values = matrix.eigenvalues();
    let size: f64 = values.iter().map(|value| value.abs()).sum();
    values.iter().map(|value| value.re).sum::<f64>() / size
}

/// Some rows of a table, or all of it where it lies.
enum Rows<'a> {
    All(&'a Tensor),
    Some(Tensor),
}

impl<'a> Rows<'a> {
    fn of(table: &'a Tensor, ids: Option<&[u32]>) -> Result<Self, Error> {
        let Some(ids) = ids else {
            return Ok(Self::All(table));
        };
        if ids.is_empty() {
            return Err(Error::NoTokens);
        }
        let vocab_size = table.n_rows();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(gpt2::Error::NoSuchToken { id, vocab_size }.into());
        }
        let data = ids.iter().flat_map(|&id| table.row(id as usize)).copied();
        let shape = [ids.len(), table.row_len()];
        Ok(Self::Some(Tensor::new(&shape, data.collect())))
    }

    fn tensor(&self) -> &Tensor {
        match self {
            Self::All(table) => table,
            Self::Some(rows) => rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use gpt2::Pretrained;

    use super::*;

    fn tiny() -> Gpt2 {
        Pretrained::tiny().unwrap().model
    }

    #[test]
    fn each_score_is_that_of_the_circuits_multiplied_out() {
        let tiny = tiny();
        let norm = |x: &Tensor| square(x.data()).sqrt();
        for kind in Composition::ALL {
            let scores = all_composition_scores(&tiny, kind);
            for (l1, h1, l2, h2) in [(0, 0, 1, 3), (4, 1, 6, 0), (10, 2, 11, 1), (0, 3, 11, 0)] {
                let [first, second] =
                    [(l1, h1), (l2, h2)].map(|(layer, head)| head_weights(&tiny, layer, head).unwrap());
                let (ov, reader) = (first.ov(), kind.reader(&second));
                let [a, b] = [ov.product(), reader.product()];
                let expected = norm(&matmul(&a, &b)) / (norm(&a) * norm(&b));
                let got = f64::from(scores.row((l1 * 4 + h1) * 12 + l2)[h2]);
                assert!((got - expected).abs() < 1e-5, "{kind}: {got}, not {expected}");
                assert!((composition_score(&ov, &reader) - expected).abs() < 1e-5);
            }
            // A head reads only what earlier layers have written.
            for l1 in 0..12 {
                for l2 in 0..=l1 {
                    assert_eq!(scores.row(l1 * 4 * 12 + l2), [0.0; 4]);
                }
            }
        }
    }

    #[test]
    fn scores_of_weights_that_are_zero_or_overflow_are_nan() {
        let scores = |factor: f32, kind| {
            let mut tiny = tiny();
            let weight = tiny.h[3].attn.c_attn.weight.data_mut();
            weight.iter_mut().for_each(|x| *x *= factor);
            all_composition_scores(&tiny, kind)
        };
        let is_nan =
            |scores: &Tensor, l1: usize, l2: usize| scores.row(l1 * 4 * 12 + l2).iter().all(|x| x.is_nan());
        for kind in Composition::ALL {
            let zero = scores(0.0, kind);
            assert!(is_nan(&zero, 3, 5) && is_nan(&zero, 2, 3));
            let strongest = strongest_pairs(&zero, usize::MAX);
            assert_eq!(strongest.len(), 55 * 16); // the pairs of the other 11 layers
            assert!(strongest.iter().all(|pair| pair.score.is_finite()));
        }
        for kind in Composition::ALL {
            let huge = scores(1e37, kind);
            let all = huge.data().iter();
            assert!(all.clone().all(|x| x.is_nan() || (0.0..=1.001).contains(x)));
            // Values are read by one matrix; queries and keys by a product of two, which overflows.
            let overflows = kind != Composition::V;
            assert_eq!(all.clone().any(|x| x.is_nan()), overflows, "{kind}");
            assert!(!is_nan(&huge, 2, 5), "{kind}");
        }
    }

    #[test]
    fn accuracy_of_numbers_that_overflow_is_nan() {
        let ones = |size: f32| Tensor::new(&[2, 2], vec![size; 4]);
        let accuracy = |size| top1_accuracy(&FactoredMatrix::new(ones(size), ones(size)));
        assert_eq!(accuracy(1.0), 0.5);
        assert!(accuracy(1e30).is_nan());
    }

    #[test]
    fn the_strongest_pair_comes_first() {
        let mut scores = Tensor::zeros(&[2, 2, 2, 2]);
        scores.data_mut()[1] = 9.0; // 0.0 → 0.1: of one layer, so no pair
        scores.data_mut()[4 + 2] = 0.3; // 0.1 → 1.0
        let pairs = strongest_pairs(&scores, 1);
        assert_eq!((pairs[0].first, pairs[0].second, pairs[0].score), ((0, 1), (1, 0), 0.3));
    }

    #[test]
    fn circuits_over_some_tokens_are_the_products_of_their_matrices() {
        let tiny = tiny();
        let tokens = [373, 5437, 257];
        let [w_e, w_u] = [&tiny.wte, tiny.unembedding()].map(|table| {
            let data = tokens.iter().flat_map(|&id| table.row(id as usize)).copied();
            Tensor::new(&[3, 64], data.collect())
        });
        let [first, second] = [(6, 2), (7, 1)].map(|(l, h)| head_weights(&tiny, l, h).unwrap());
        let between = |x: &Tensor, m: &FactoredMatrix, y: &Tensor| m.left(x).right(y.view().t());
        let close = |got: FactoredMatrix, expected: FactoredMatrix| {
            let (got, expected) = (got.product(), expected.product());
            for (x, y) in got.data().iter().zip(expected.data()) {
                assert!((x - y).abs() < 1e-4, "{got:?} instead of {expected:?}");
            }
        };
        close(full_qk_circuit(&tiny, (7, 1), Some(&tokens)).unwrap(), between(&w_e, &second.qk(), &w_e));
        close(full_ov_circuit(&tiny, (7, 1), Some(&tokens)).unwrap(), between(&w_e, &second.ov(), &w_u));
        close(
            k_composition_circuit(&tiny, (6, 2), (7, 1), Some(&tokens)).unwrap(),
            between(&w_e, &second.qk().then(&first.ov().t()), &w_e),
        );
    }

    #[test]
    fn a_matrix_that_copies_scores_one_and_its_opposite_minus_one() {
        let x = Tensor::new(&[2, 1], vec![1.0, 2.0]);
        let copies = FactoredMatrix::new(x.clone(), copy(x.view().t()));
        assert!((copying_score(&copies) - 1.0).abs() < 1e-12);
        let opposite = FactoredMatrix::new(x.clone(), Tensor::new(&[1, 2], vec![-1.0, -2.0]));
        assert!((copying_score(&opposite) + 1.0).abs() < 1e-12);
        // A rotation by a right angle has the eigenvalues ±i, which add up to nothing.
        let turn = Tensor::new(&[2, 2], vec![0.0, -1.0, 1.0, 0.0]);
        let identity = Tensor::new(&[2, 2], vec![1.0, 0.0, 0.0, 1.0]);
        assert!(copying_score(&FactoredMatrix::new(turn, identity)).abs() < 1e-12);
        let nothing = FactoredMatrix::new(x, Tensor::zeros(&[1, 2]));
        assert!(copying_score(&nothing).is_nan());
        assert!(composition_score(&nothing, &copies).is_nan());
    }

    #[test]
    fn accuracy_counts_rows_whose_largest_number_is_on_the_diagonal() {
        let identity = |n: usize| {
            let data = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 });
            Tensor::new(&[n, n], data.collect())
        };
        // More rows than one block has, and the last one wrong.
        let mut b = identity(300);
        b.row_mut(299)[0] = 2.0;
        assert_eq!(top1_accuracy(&FactoredMatrix::new(identity(300), b)), 299.0 / 300.0);
        // More columns than one block has: each row's best is to the left of its diagonal, at it, or
        // to its right, in another block.
        let (n, k) = (4500, 3);
        let a = Tensor::new(&[n, k], (0..n * k).map(|i| f32::from(u8::from(i % k == i / k % k))).collect());
        let mut b = Tensor::zeros(&[k, n]);
        for (row, column) in [100, 2300, 4400].into_iter().enumerate() {
            b.row_mut(row)[column] = 1.0;
        }
        // Row i asks for column 100, 2300 or 4400 by i modulo 3.
        let right = [100, 2300, 4400].into_iter().enumerate();
        let right = right.filter(|(row, column)| column % k == *row).count();
        assert_eq!(right, 1);
        assert_eq!(top1_accuracy(&FactoredMatrix::new(a, b)), 1.0 / 4500.0);
    }

    #[test]
    fn what_the_model_does_not_have_is_refused() {
        let tiny = tiny();
        let message = |result: Result<FactoredMatrix, Error>| result.unwrap_err().to_string();
        let error = message(k_composition_circuit(&tiny, (7, 1), (7, 0), None));
        assert!(error.contains("layer 7 cannot feed a head of layer 7"), "{error}");
        assert!(message(full_qk_circuit(&tiny, (0, 4), None)).contains("no head 0.4"));
        assert!(message(full_ov_circuit(&tiny, (0, 0), Some(&[]))).contains("no tokens"));
        let error = message(full_ov_circuit(&tiny, (0, 0), Some(&[50257])));
        assert!(error.contains("no token 50257"), "{error}");
    }
}
