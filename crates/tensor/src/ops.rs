//! Operations on the rows of a tensor.
//!
//! Programs are compiled for the oldest processor of their kind, whose vectors are short. So the loops here
//! are compiled several times (`#[multiversion]`), each time for wider vectors, and the best version that the
//! processor can run is chosen when they are called. All versions compute the same bits: wider vectors only
//! do more of the same operations at a time (Rust never fuses or reorders them by itself). What such a loop
//! calls is compiled for its vectors only where it is inlined into it: hence `#[inline(always)]`.

use std::array::from_fn;

use multiversion::multiversion;
use rayon::prelude::*;

use crate::{Tensor, View, linear};

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
    let scales = x
        .data()
        .par_chunks_exact(n.max(1))
        .with_min_len(rows_worth_a_thread(n))
        .map(|row| row_scale(row, epsilon));
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = 1;
    }
    Tensor::new(&shape, scales.collect())
}

#[multiversion(targets = "simd")]
fn row_scale(row: &[f32], epsilon: f32) -> f32 {
    let mean = mean(row);
    let variance = sum(row, |x| (x - mean) * (x - mean)) / row.len() as f32;
    if variance < f32::INFINITY {
        return (variance + epsilon).sqrt();
    }
    // Divided by ∞ every finite number would be 0.
    scale_of_large_numbers(row, mean)
}

/// √var of numbers whose squares overflow; NaN if they are not finite themselves. (ε is far below rounding.)
#[cold]
fn scale_of_large_numbers(row: &[f32], mean: f32) -> f32 {
    let squares = row.iter().map(|x| (f64::from(*x) - f64::from(mean)).powi(2));
    let scale = (squares.sum::<f64>() / row.len() as f64).sqrt() as f32;
    if scale.is_finite() { scale } else { f32::NAN }
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
    let mut out = Tensor::zeros(x.shape());
    let rows = out
        .data_mut()
        .par_chunks_exact_mut(n.max(1))
        .zip(x.data().par_chunks_exact(n.max(1)))
        .zip(scale.data());
    rows.with_min_len(rows_worth_a_thread(n)).for_each(|((out, row), scale)| {
        scale_and_shift_row(row, *scale, weight.data(), bias.data(), out);
    });
    out
}

#[multiversion(targets = "simd")]
fn scale_and_shift_row(row: &[f32], scale: f32, weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let mean = mean(row);
    let parameters = weight.iter().zip(bias);
    for ((out, x), (w, b)) in out.iter_mut().zip(row).zip(parameters) {
        *out = (x - mean) / scale * w + b;
    }
}

/// The backward pass of [`scale_and_shift`], y = (x − mean) / s · w + b, given dy, the gradient with respect to
/// y, `(…, C)`:
///
/// - with respect to x, the scale s held constant: dx = (d − mean(d)) / s, where d = w dy, `(…, C)`;
/// - with respect to s: ds = −Σ d (x − mean) / s², `(…, 1)`.
///
/// # Panics
/// If the shapes do not fit each other.
#[track_caller]
pub fn scale_and_shift_backward(dy: &Tensor, x: &Tensor, scale: &Tensor, weight: &Tensor) -> [Tensor; 2] {
    let n = x.row_len();
    assert!(
        dy.shape() == x.shape() && weight.shape() == [n] && scale.data().len() == x.n_rows(),
        "a gradient of {:?} for the layer norm of {:?} with a weight of {:?} and scales of {:?}",
        dy.shape(),
        x.shape(),
        weight.shape(),
        scale.shape()
    );
    let (mut dx, mut dscale) = (dy.clone(), scale.clone());
    let rows = dx.data_mut().chunks_exact_mut(n.max(1)).zip(x.data().chunks_exact(n.max(1)));
    for ((dx, x), scale) in rows.zip(dscale.data_mut()) {
        *scale = scale_and_shift_backward_row(dx, x, *scale, weight.data());
    }
    [dx, dscale]
}

/// Makes dx of dy in a row, and gives ds.
#[multiversion(targets = "simd")]
fn scale_and_shift_backward_row(dy: &mut [f32], x: &[f32], scale: f32, weight: &[f32]) -> f32 {
    let mean_x = mean(x);
    dy.iter_mut().zip(weight).for_each(|(dy, w)| *dy *= w);
    let mean_d = mean(dy);
    // Σ d (x − mean) / s: the division first, so that large rows do not overflow.
    let mut along = [0.0_f32; 16];
    for (dy, x) in dy.chunks(16).zip(x.chunks(16)) {
        for ((along, dy), x) in along.iter_mut().zip(dy).zip(x) {
            *along += dy * ((x - mean_x) / scale);
        }
    }
    dy.iter_mut().for_each(|dy| *dy = (*dy - mean_d) / scale);
    -total(along) / scale
}

/// The gradients of layer norm's weight and bias, added to `dweight` and `dbias`, `(C)`:
/// dw += Σ dy (x − mean) / s and db += Σ dy over the rows.
///
/// # Panics
/// If the rows are not as long as the weight.
#[track_caller]
pub fn scale_and_shift_backward_parameters(
    dy: &Tensor,
    x: &Tensor,
    scale: &Tensor,
    [dweight, dbias]: [&mut Tensor; 2],
) {
    let n = dweight.row_len();
    assert!(dy.shape() == x.shape() && x.row_len() == n, "a gradient of {:?} for {n} weights", dy.shape());
    let [dweight, dbias] = [dweight.data_mut(), dbias.data_mut()];
    for (i, scale) in scale.data().iter().enumerate() {
        add_row_to_parameters(dy.row(i), x.row(i), *scale, [&mut *dweight, &mut *dbias]);
    }
}

#[multiversion(targets = "simd")]
fn add_row_to_parameters(dy: &[f32], x: &[f32], scale: f32, [dweight, dbias]: [&mut [f32]; 2]) {
    let mean = mean(x);
    for (((dw, db), dy), x) in dweight.iter_mut().zip(dbias).zip(dy).zip(x) {
        *dw += dy * ((x - mean) / scale);
        *db += dy;
    }
}

/// The backward pass of [`layer_norm_scale`], s = √(var + ε), added to `dx`, `(…, C)`:
/// dx += ds (x − mean) / (C s), with ds, the gradient with respect to s, `(…, 1)`.
///
/// # Panics
/// If the shapes do not fit each other.
#[track_caller]
pub fn layer_norm_scale_backward(dscale: &Tensor, x: &Tensor, scale: &Tensor, dx: &mut Tensor) {
    let n = x.row_len();
    assert!(
        dx.shape() == x.shape() && dscale.shape() == scale.shape() && scale.data().len() == x.n_rows(),
        "a gradient of {:?} for scales of {:?} of {:?}",
        dscale.shape(),
        scale.shape(),
        x.shape()
    );
    let rows = dx.data_mut().chunks_exact_mut(n.max(1)).zip(x.data().chunks_exact(n.max(1)));
    for ((dx, x), (ds, s)) in rows.zip(dscale.data().iter().zip(scale.data())) {
        let (mean, slope) = (sum(x, |x| x) / n as f32, ds / n as f32);
        dx.iter_mut().zip(x).for_each(|(dx, x)| *dx += slope * ((x - mean) / s));
    }
}

/// Softmax of every row, in place: e^(x − max) / Σ e^(x − max). An entry of −∞ becomes 0. A row of
/// nothing but −∞ has no softmax: it becomes NaN.
#[multiversion(targets = "simd")]
pub fn softmax(x: &mut Tensor) {
    let n = x.row_len();
    for row in x.data_mut().chunks_exact_mut(n.max(1)) {
        softmax_row(row);
    }
}

/// [`softmax`] of one row.
#[inline(always)]
pub fn softmax_row(row: &mut [f32]) {
    // What a causal mask leaves is at the front; of the rest, e^−∞ need not be computed.
    let end = row.iter().rposition(|x| *x != f32::NEG_INFINITY).map_or(row.len(), |last| last + 1);
    let (row, masked) = row.split_at_mut(end);
    masked.fill(0.0);
    let max = max(row);
    for x in row.iter_mut() {
        *x = exp(*x - max);
    }
    let total = exact_sum(row, |x| x) as f32;
    for x in row.iter_mut() {
        *x /= total;
    }
}

/// The backward pass of [`softmax`], in place: `dp`, the gradient with respect to the softmax p of each row,
/// becomes that with respect to its input, dxⱼ = pⱼ (dpⱼ − Σᵢ pᵢ dpᵢ). Where p is 0 it is 0.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn softmax_backward(p: &Tensor, dp: &mut Tensor) {
    assert!(p.shape() == dp.shape(), "a gradient of {:?} for a softmax of {:?}", dp.shape(), p.shape());
    let n = p.row_len().max(1);
    for (dp, p) in dp.data_mut().chunks_exact_mut(n).zip(p.data().chunks_exact(n)) {
        softmax_backward_row(p, dp);
    }
}

#[multiversion(targets = "simd")]
fn softmax_backward_row(p: &[f32], dp: &mut [f32]) {
    let mean = dot(p, dp);
    for (dp, p) in dp.iter_mut().zip(p) {
        *dp = p * (*dp - mean);
    }
}

/// log Σ e^x of one row, without overflow, to within 10⁻⁶ of Σ e^x. A logit minus this is the token's log
/// probability. It is NaN if a number of the row is NaN or ∞.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let [max, log_sum] = log_sum_exp_parts(row);
    max + log_sum
}

/// [`log_sum_exp`] in two parts: the largest number, and log Σ e^(x − max). Beside numbers of 10¹⁵ and more
/// nothing would be left of the second.
#[multiversion(targets = "simd")]
pub fn log_sum_exp_parts(row: &[f32]) -> [f64; 2] {
    let max = max(row);
    [max.into(), exact_sum(row, |x| exp(x - max)).ln()]
}

/// Whether every number of a row is finite.
#[multiversion(targets = "simd")]
pub fn all_finite(row: &[f32]) -> bool {
    // Within a block without a branch, so that it becomes vector instructions.
    let of_block = |block: &[f32]| block.iter().fold(true, |all, x| all & x.is_finite());
    row.chunks(BLOCK).all(of_block)
}

/// The index of the largest number of a row, the first of equal ones; 0 for an empty row. Of a row with NaN
/// it is no answer: see [`all_finite`].
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best
}

/// X Wᵀ for rows `(M, K)` and a tall matrix `(N, K)`: `(M, N)`. A row has the same bits whatever rows are
/// beside it, as in [`linear`].
///
/// # Panics
/// If the rows of X and W are not equally long.
#[track_caller]
pub fn matmul_transposed<'a>(x: impl Into<View<'a>>, w: &Tensor) -> Tensor {
    let x = x.into();
    let [n, w_cols] = w.dims();
    assert!(x.cols == w_cols, "cannot multiply {:?} by the transpose of [{n}, {w_cols}]", x.shape());
    linear(x, w.view().t(), &vec![0.0; n])
}

/// The dot product Σ xᵢ yᵢ, in sixteen running sums that are added up last.
///
/// # Panics
/// In debug builds, if the two are not equally long.
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    debug_assert_eq!(x.len(), y.len(), "dot product");
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
    total(sums)
}

/// e^x to within 2 units in the last place, for x from −∞ to +∞, in operations that the compiler can
/// turn into vector instructions and that round alike on every machine (`f32::exp` does neither).
///
/// x = n ln 2 + r with |r| ≤ ½ ln 2; e^r is a polynomial, and 2ⁿ is put into the exponent's bits (the
/// scheme and the coefficients are those of Cephes' `expf`).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// ln 2 in two parts, the first of which is exact in few bits.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
    /// Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³

    // Beyond these e^x is 0 or ∞. (A comparison with NaN is false: NaN stays.)
    let inside = if x < -104.0 { -104.0 } else { x };
    let inside = if inside > 89.0 { 89.0 } else { inside };
    let rounded = inside * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = inside - n * LN_2[0] - n * LN_2[1];
    let mut polynomial = COEFFICIENTS[0];
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = polynomial * r + coefficient;
    }
    let power = polynomial * (r * r) + r + 1.0;
    // In two steps, since 2ⁿ alone may be too small or too large for a float.
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    // (Wrapping, so that a debug build has no checks that would keep it from vectors.)
    let two_to = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    power * two_to(half) * two_to(n.wrapping_sub(half))
}

/// Fewer numbers than this are not worth a second thread.
pub(crate) const NUMBERS_WORTH_A_THREAD: usize = 1 << 14;

/// How many rows of `n` numbers are worth a second thread.
fn rows_worth_a_thread(n: usize) -> usize {
    NUMBERS_WORTH_A_THREAD.div_ceil(n.max(1))
}

/// The largest number of a row, −∞ for an empty one, in sixteen running maxima. NaN is passed over.
#[inline(always)]
pub fn max(row: &[f32]) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (max, x) in maxima.iter_mut().zip(chunk) {
            *max = if *x > *max { *x } else { *max };
        }
    }
    maxima.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The sum of the running sums, halving them again and again: four steps instead of sixteen.
#[inline(always)]
fn total(sums: [f32; 16]) -> f32 {
    let eight: [f32; 8] = from_fn(|i| sums[i] + sums[i + 8]);
    let four: [f32; 4] = from_fn(|i| eight[i] + eight[i + 4]);
    let two: [f32; 2] = from_fn(|i| four[i] + four[i + 2]);
    two[0] + two[1]
}

#[inline(always)]
fn mean(row: &[f32]) -> f32 {
    sum(row, |x| x) / row.len() as f32
}

/// How many numbers of a long row are added up in `f32` before their sum is taken into one in `f64`: so few
/// that rounding stays within 2⁻²⁰ of a sum of positive numbers, however many there are.
const BLOCK: usize = 256;

/// Σ f(x), in sixteen running sums that are added up last: a fixed order that the compiler can
/// turn into vector instructions, and that rounds less than one long sum. For rows of a few thousand numbers
/// at most: [`exact_sum`] is for a vocabulary.
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
    total(sums)
}

/// Σ f(x) of any number of numbers: [`sum`] of each block, and of the blocks in `f64`, one after the other.
/// The order of additions depends on the length alone.
#[inline(always)]
fn exact_sum(row: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0.0;
    for block in row.chunks(BLOCK) {
        total += f64::from(sum(block, &f));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(got.len(), expected.len());
        for (x, y) in got.iter().zip(expected) {
            assert!((x - y).abs() <= tolerance, "{got:?} instead of {expected:?}");
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

    /// Σ f(x) g for a fixed g, and the finite difference of it along each number of x.
    fn slopes(x: &Tensor, f: impl Fn(&Tensor) -> f64) -> Vec<f32> {
        let h = 1e-2;
        let moved = |i: usize, h: f32| {
            let mut x = x.clone();
            x.data_mut()[i] += h;
            f(&x)
        };
        (0..x.data().len()).map(|i| ((moved(i, h) - moved(i, -h)) / f64::from(2.0 * h)) as f32).collect()
    }

    fn weighted(y: &Tensor, g: &Tensor) -> f64 {
        y.data().iter().zip(g.data()).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum()
    }

    #[test]
    fn the_backward_pass_of_layer_norm_is_its_slope() {
        let [x, g] = [1, 2].map(|seed| crate::matmul::tests::noise(&[3, 21], seed));
        let [w, b] = [3, 4].map(|seed| crate::matmul::tests::noise(&[21], seed));
        let scale = layer_norm_scale(&x, 0.1);
        let [mut dx, dscale] = scale_and_shift_backward(&g, &x, &scale, &w);
        let of_scale = slopes(&scale, |scale| weighted(&scale_and_shift(&x, scale, &w, &b), &g));
        assert_close(dscale.data(), &of_scale, 2e-3);
        let frozen = slopes(&x, |x| weighted(&scale_and_shift(x, &scale, &w, &b), &g));
        assert_close(dx.data(), &frozen, 2e-3);
        layer_norm_scale_backward(&dscale, &x, &scale, &mut dx);
        let whole = slopes(&x, |x| weighted(&layer_norm(x, &w, &b, 0.1), &g));
        assert_close(dx.data(), &whole, 2e-3);

        let (mut dw, mut db) = (Tensor::zeros(&[21]), Tensor::zeros(&[21]));
        scale_and_shift_backward_parameters(&g, &x, &scale, [&mut dw, &mut db]);
        assert_close(dw.data(), &slopes(&w, |w| weighted(&layer_norm(&x, w, &b, 0.1), &g)), 2e-3);
        assert_close(db.data(), &slopes(&b, |b| weighted(&layer_norm(&x, &w, b, 0.1), &g)), 2e-3);
    }

    #[test]
    fn the_backward_pass_of_softmax_is_its_slope() {
        let [mut x, g] = [5, 6].map(|seed| crate::matmul::tests::noise(&[3, 19], seed));
        x.row_mut(1)[7] = f32::NEG_INFINITY;
        let of = |x: &Tensor| {
            let mut p = x.clone();
            softmax(&mut p);
            p
        };
        let mut dx = g.clone();
        softmax_backward(&of(&x), &mut dx);
        assert_close(dx.data(), &slopes(&x, |x| weighted(&of(x), &g)), 1e-3);
        assert_eq!(dx.row(1)[7], 0.0);
    }

    #[test]
    fn normalised_rows_of_any_length_have_mean_zero_and_variance_one() {
        for n in 2..70 {
            let data: Vec<f32> = (0..n).map(|i| ((i * i * 7 + 3) % 11) as f32 + 100.0).collect();
            let out = layer_norm(
                &Tensor::new(&[1, n], data),
                &Tensor::new(&[n], vec![1.0; n]),
                &Tensor::zeros(&[n]),
                0.0,
            );
            let mean: f32 = out.data().iter().sum::<f32>() / n as f32;
            let variance: f32 = out.data().iter().map(|x| x * x).sum::<f32>() / n as f32;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "{n}: {mean} {variance}");
        }
    }

    #[test]
    fn softmax_rows_sum_to_one_and_pass_over_minus_infinity() {
        let mut x = Tensor::new(&[2, 3], vec![1.0, 2.0, f32::NEG_INFINITY, 1000.0, 1000.0, 999.0]);
        softmax(&mut x);
        assert_close(x.row(0), &[0.268_941_43, 0.731_058_6, 0.0], 1e-6);
        assert_close(x.row(1), &[0.422_318_8, 0.422_318_8, 0.155_362_4], 1e-6);
    }

    #[test]
    fn log_sum_exp_does_not_overflow() {
        let expected = 1000.0 + 2.0_f64.ln();
        assert!((log_sum_exp(&[1000.0, 1000.0]) - expected).abs() < 1e-6);
    }

    /// As many logits as GPT-2 has, at most `spread` apart.
    fn nearly_equal_logits(level: f32, spread: f32) -> Vec<f32> {
        let waves = (0..50_257).map(|i| (i as f32 * 0.7).sin());
        waves.map(|wave| level + spread * wave).collect()
    }

    #[test]
    fn sums_over_a_whole_vocabulary_are_exact_to_one_in_a_million() {
        for (level, spread) in [(0.0, 0.0), (-33.3, 0.0), (0.0, 1e-3), (7.0, 0.01), (-90.0, 1.0)] {
            let logits = nearly_equal_logits(level, spread);
            let weights = logits.iter().map(|x| (f64::from(*x) - f64::from(level)).exp());
            let total: f64 = weights.clone().sum();
            let expected = f64::from(level) + total.ln();
            // An absolute error of a logarithm is a relative one of what it is the logarithm of.
            let error = (log_sum_exp(&logits) - expected).abs();
            assert!(error <= 1e-6, "{level} ± {spread}: {error:e}");
            let mut probs = Tensor::new(&[1, logits.len()], logits.clone());
            softmax(&mut probs);
            for (got, weight) in probs.data().iter().zip(weights) {
                let error = (f64::from(*got) / (weight / total) - 1.0).abs();
                assert!(error <= 1e-6, "{level} ± {spread}: {error:e}");
            }
        }
    }

    #[test]
    fn layer_norm_of_numbers_whose_squares_overflow_is_right() {
        let row = |size: f32| Tensor::new(&[1, 4], [1.0, 2.0, 3.0, 6.0].map(|x| x * size).to_vec());
        let norm = |x: &Tensor| layer_norm(x, &Tensor::new(&[4], vec![1.0; 4]), &Tensor::zeros(&[4]), 1e-5);
        let expected = norm(&row(1000.0));
        for size in [1e15, 1e19, 1e25, 1e37] {
            assert_close(norm(&row(size)).data(), expected.data(), 1e-6);
        }
    }

    #[test]
    fn what_is_not_finite_makes_its_row_nan_and_no_other() {
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for n in [3, 70, 300] {
                let mut data = vec![1.0; 2 * n];
                data[n - 1] = x;
                let rows = Tensor::new(&[2, n], data);
                let (w, b) = (Tensor::new(&[n], vec![1.0; n]), Tensor::zeros(&[n]));
                let normalized = layer_norm(&rows, &w, &b, 1e-5);
                assert!(normalized.row(0).iter().all(|x| x.is_nan()), "{x} of {n}");
                assert!(all_finite(normalized.row(1)) && all_finite(rows.row(1)));
                assert!(!all_finite(rows.row(0)));
                assert!(log_sum_exp(rows.row(1)).is_finite());
                assert_eq!(log_sum_exp(rows.row(0)).is_nan(), x != f32::NEG_INFINITY);
            }
        }
        assert!(log_sum_exp(&[f32::NEG_INFINITY; 3]).is_nan());
    }

    #[test]
    fn exp_is_exact_to_two_units_in_the_last_place() {
        let mut worst = 0.0_f64;
        // Every 997th float from −88 to 88.
        for bits in (0..88.0_f32.to_bits()).step_by(997) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                let exact = f64::from(x).exp();
                let unit = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
                worst = worst.max((f64::from(exp(x)) - exact).abs() / unit);
            }
        }
        assert!(worst <= 2.0, "{worst} units");
        assert_eq!([exp(0.0), exp(f32::NEG_INFINITY), exp(-200.0)], [1.0, 0.0, 0.0]);
        assert_eq!([exp(f32::INFINITY), exp(89.0)], [f32::INFINITY; 2]);
        assert!(exp(f32::NAN).is_nan() && exp(-100.0) > 0.0);
    }

    #[test]
    fn products_with_a_transpose_equal_the_reference_for_every_length() {
        let whole = |n: usize, k: usize| {
            Tensor::new(&[n, k], (0..n * k).map(|i| (i * i % 13) as f32 - 6.0).collect())
        };
        for k in 0..70 {
            for m in 0..4 {
                let (x, w) = (whole(m, k), whole(5, k));
                let expected = crate::matmul_reference(&x, w.view().t());
                assert_eq!(matmul_transposed(&x, &w), expected, "whole numbers of length {k}");
            }
        }
    }

    #[test]
    fn probabilities_of_a_whole_vocabulary_are_exact_to_a_millionth() {
        let flat = |spread: f32| -> Vec<f32> {
            let number = |i: usize| 17.3 + spread * ((i * 7919) % 1009) as f32 / 1009.0;
            (0..50_257).map(number).collect()
        };
        for spread in [0.0, 1e-3, 0.1, 1.0, 20.0] {
            let row = flat(spread);
            let max = row.iter().fold(f32::MIN, |x, y| x.max(*y));
            let total: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
            let exact = f64::from(max) + total.ln();
            let got = log_sum_exp(&row);
            assert!((got - exact).abs() <= 1e-6, "{spread}: {got}, not {exact}");
            let mut probs = row.clone();
            softmax_row(&mut probs);
            for (x, p) in row.iter().zip(&probs).step_by(501) {
                let exact = f64::from(x - max).exp() / total;
                let error = (f64::from(*p) / exact - 1.0).abs();
                assert!(error <= 1e-6, "{spread}: {p}, not {exact}");
            }
        }
    }

    #[test]
    fn argmax_takes_the_first_of_equal_numbers() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[]), 0);
    }
}
