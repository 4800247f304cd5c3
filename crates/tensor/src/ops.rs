//! Operations on the rows of a tensor.

use rayon::prelude::*;

use crate::Tensor;

/// Layer norm of every row: (x − mean) / √(var + ε) · weight + bias (Ba et al. 2016,
/// arXiv 1607.06450). `x` is `(…, C)`, `weight` and `bias` are `(C)`.
///
/// # Panics
/// If `weight` or `bias` is not one row long.
#[track_caller]
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f32) -> Tensor {
    scale_and_shift(x, &layer_norm_scale(x, epsilon), weight, bias)
}

/// What layer norm divides each row by: √(var + ε), one number a row, `(…, 1)`. The variance is
/// that of the row as a whole population (divided by C, not by C − 1).
pub fn layer_norm_scale(x: &Tensor, epsilon: f32) -> Tensor {
    let n = x.row_len();
    let scales = x.data().chunks_exact(n.max(1)).map(|row| {
        let mean = mean(row);
        let variance = sum(row, |x| (x - mean) * (x - mean)) / n as f32;
        (variance + epsilon).sqrt()
    });
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = 1;
    }
    Tensor::new(&shape, scales.collect())
}

/// The rest of layer norm, with the scale given: (x − mean) / scale · weight + bias. `x` is
/// `(…, C)`, `scale` is `(…, 1)`, `weight` and `bias` are `(C)`.
///
/// # Panics
/// If `scale` does not have one number a row, or `weight` or `bias` is not one row long.
#[track_caller]
pub fn scale_and_shift(x: &Tensor, scale: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    let n = x.row_len();
    assert!(
        weight.shape() == [n] && bias.shape() == [n],
        "layer norm of {:?} with a weight of {:?} and a bias of {:?}",
        x.shape(),
        weight.shape(),
        bias.shape()
    );
    assert!(
        scale.data().len() == x.n_rows(),
        "layer norm of {:?} with scales of {:?}",
        x.shape(),
        scale.shape()
    );
    let mut out = x.clone();
    for (row, scale) in out.data_mut().chunks_exact_mut(n.max(1)).zip(scale.data()) {
        let mean = mean(row);
        for ((x, w), b) in row.iter_mut().zip(weight.data()).zip(bias.data()) {
            *x = (*x - mean) / scale * w + b;
        }
    }
    out
}

/// Softmax of every row, in place: e^(x − max) / Σ e^(x − max). An entry of −∞ becomes 0. A row of
/// nothing but −∞ has no softmax: it becomes NaN.
pub fn softmax(x: &mut Tensor) {
    let n = x.row_len();
    for row in x.data_mut().chunks_exact_mut(n.max(1)) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for x in row.iter_mut() {
            *x = (*x - max).exp();
        }
        let total = sum(row, |x| x);
        for x in row.iter_mut() {
            *x /= total;
        }
    }
}

/// log Σ e^x of one row, without overflow. A logit minus this is the token's log probability.
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max + sum(row, |x| (x - max).exp()).ln()
}

/// The index of the largest number of a row, the first of equal ones; 0 for an empty row.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best
}

/// The products of every row of a matrix `(N, K)` with one vector `(K)`: `(N)` dot products, spread
/// over rayon's threads. For a single vector this reads the matrix once, where [`crate::matmul()`]
/// would first repack it.
///
/// # Panics
/// If the vector is not one row long.
#[track_caller]
pub fn matvec(matrix: &Tensor, vector: &[f32]) -> Vec<f32> {
    let [rows, cols] = matrix.dims();
    assert!(
        vector.len() == cols,
        "cannot multiply [{rows}, {cols}] by [{}]",
        vector.len()
    );
    (0..rows)
        .into_par_iter()
        .with_min_len(512)
        .map(|i| dot(matrix.row(i), vector))
        .collect()
}

/// The dot product Σ xᵢ yᵢ, in the order of [`sum`].
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    for (x, y) in x.iter().zip(y) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    for ((sum, x), y) in sums.iter_mut().zip(x_rest).zip(y_rest) {
        *sum += x * y;
    }
    sums.iter().sum()
}

/// GELU of every number, in the tanh form that GPT-2 was trained with:
/// ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))) (Hendrycks & Gimpel 2016, arXiv 1606.08415).
pub fn gelu(x: &Tensor) -> Tensor {
    let mut out = x.clone();
    for x in out.data_mut() {
        *x = gelu_of(*x);
    }
    out
}

fn gelu_of(x: f32) -> f32 {
    /// √(2/π)
    const ROOT: f32 = 0.797_884_6;
    0.5 * x * (1.0 + (ROOT * (x + 0.044715 * x * x * x)).tanh())
}

fn mean(row: &[f32]) -> f32 {
    sum(row, |x| x) / row.len() as f32
}

/// Σ f(x), in sixteen running sums that are added up last: a fixed order that the compiler can
/// turn into vector instructions, and that rounds less than one long sum.
#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += f(*x);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(got.len(), expected.len());
        for (x, y) in got.iter().zip(expected) {
            assert!(
                (x - y).abs() <= tolerance,
                "{got:?} instead of {expected:?}"
            );
        }
    }

    #[test]
    fn layer_norm_of_a_small_row_is_what_pytorch_says() {
        // torch.nn.functional.layer_norm(torch.tensor([1., 2., 3., 6.]), (4,), w, b)
        let x = Tensor::new(&[1, 4], vec![1.0, 2.0, 3.0, 6.0]);
        let w = Tensor::new(&[4], vec![1.0, 1.0, 2.0, 0.5]);
        let b = Tensor::new(&[4], vec![0.0, 0.5, 0.0, -1.0]);
        let expected = [-1.069_044_2, -0.034_522_1, 0.0, -0.198_216_83];
        assert_close(layer_norm(&x, &w, &b, 1e-5).data(), &expected, 1e-6);
    }

    #[test]
    fn normalised_rows_of_any_length_have_mean_zero_and_variance_one() {
        for n in 2..70 {
            let data: Vec<f32> = (0..n)
                .map(|i| ((i * i * 7 + 3) % 11) as f32 + 100.0)
                .collect();
            let out = layer_norm(
                &Tensor::new(&[1, n], data),
                &Tensor::new(&[n], vec![1.0; n]),
                &Tensor::zeros(&[n]),
                0.0,
            );
            let mean: f32 = out.data().iter().sum::<f32>() / n as f32;
            let variance: f32 = out.data().iter().map(|x| x * x).sum::<f32>() / n as f32;
            assert!(
                mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4,
                "{n}: {mean} {variance}"
            );
        }
    }

    #[test]
    fn softmax_rows_sum_to_one_and_pass_over_minus_infinity() {
        let mut x = Tensor::new(
            &[2, 3],
            vec![1.0, 2.0, f32::NEG_INFINITY, 1000.0, 1000.0, 999.0],
        );
        softmax(&mut x);
        assert_close(x.row(0), &[0.268_941_43, 0.731_058_6, 0.0], 1e-6);
        assert_close(x.row(1), &[0.422_318_8, 0.422_318_8, 0.155_362_4], 1e-6);
    }

    #[test]
    fn log_sum_exp_does_not_overflow() {
        assert_close(
            &[log_sum_exp(&[1000.0, 1000.0])],
            &[1000.0 + 2.0_f32.ln()],
            1e-4,
        );
    }

    #[test]
    fn gelu_is_what_pytorch_says() {
        // torch.nn.functional.gelu(x, approximate="tanh")
        let x = Tensor::new(&[7], vec![-10.0, -3.0, -1.0, 0.0, 0.5, 2.0, 10.0]);
        let expected = [
            0.0,
            -0.003_637_39,
            -0.158_808_01,
            0.0,
            0.345_714,
            1.954_597_7,
            10.0,
        ];
        assert_close(gelu(&x).data(), &expected, 1e-6);
    }

    #[test]
    fn matvec_equals_the_reference_product_for_every_length() {
        for k in 0..70 {
            let matrix = Tensor::new(&[3, k], (0..3 * k).map(|i| (i % 13) as f32 - 6.0).collect());
            let vector: Vec<f32> = (0..k).map(|i| (i % 7) as f32 - 3.0).collect();
            let column = Tensor::new(&[k, 1], vector.clone());
            let expected = crate::matmul_reference(&matrix, &column);
            assert_eq!(
                matvec(&matrix, &vector),
                expected.data(),
                "whole numbers of length {k}"
            );
        }
    }

    #[test]
    fn argmax_takes_the_first_of_equal_numbers() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[]), 0);
    }
}
