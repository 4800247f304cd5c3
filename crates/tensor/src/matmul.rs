//! The matrix product, once as a textbook has it and once fast.

#![allow(unsafe_code, reason = "matrixmultiply takes pointers")]

use std::ops::Range;

use rayon::prelude::*;

use crate::{Tensor, View, ViewMut};

/// The matrix product as a textbook has it: `C[i,j] = Σ_k A[i,k] B[k,j]`, summed in order of k.
///
/// It is the reference that the tests hold [`matmul()`] to. It is some hundred times slower.
///
/// # Panics
/// If A's columns are not as many as B's rows.
#[track_caller]
pub fn matmul_reference<'a, 'b>(a: impl Into<View<'a>>, b: impl Into<View<'b>>) -> Tensor {
    let (a, b) = (a.into(), b.into());
    let [m, k, n] = check_shapes(a, b);
    let mut c = Tensor::zeros(&[m, n]);
    for i in 0..m {
        for j in 0..n {
            c.row_mut(i)[j] = (0..k).map(|p| a.get(i, p) * b.get(p, j)).sum();
        }
    }
    c
}

/// The matrix product C = A B of an `(M, K)` and a `(K, N)` matrix: `(M, N)`.
///
/// # Panics
/// If A's columns are not as many as B's rows.
#[track_caller]
pub fn matmul<'a, 'b>(a: impl Into<View<'a>>, b: impl Into<View<'b>>) -> Tensor {
    let (a, b) = (a.into(), b.into());
    let mut c = Tensor::zeros(&[a.rows, b.cols]);
    matmul_into(a, b, c.view_mut());
    c
}

/// C ← A B, for an `(M, K)` and a `(K, N)` matrix, written to the `(M, N)` matrix `c`.
///
/// Large products are split over rayon's threads by *columns*: each thread packs its own slice of
/// B, and no number of the result depends on where the cuts fall.
///
/// # Panics
/// If the three shapes do not fit each other.
#[track_caller]
pub fn matmul_into<'a, 'b>(a: impl Into<View<'a>>, b: impl Into<View<'b>>, c: ViewMut<'_>) {
    multiply(a.into(), b.into(), c, 0.0);
}

/// C ← C + A B, as [`matmul_into`]: the gradient of a weight, dW += Xᵀ dY.
///
/// # Panics
/// If the three shapes do not fit each other.
#[track_caller]
pub fn matmul_add_into<'a, 'b>(a: impl Into<View<'a>>, b: impl Into<View<'b>>, c: ViewMut<'_>) {
    multiply(a.into(), b.into(), c, 1.0);
}

/// C ← β C + A B.
#[track_caller]
fn multiply(a: View<'_>, b: View<'_>, c: ViewMut<'_>, beta: f32) {
    let [m, k, n] = check_shapes(a, b);
    assert!(c.shape() == [m, n], "a {m} × {n} product does not fit into a {:?} matrix", c.shape());

    // Below this many multiplications a second thread costs more than it brings.
    const WORTH_SPLITTING: usize = 1 << 20;
    let threads = if m * k * n < WORTH_SPLITTING { 1 } else { rayon::current_num_threads() };
    // Multiples of 16 columns keep every slice on whole vectors of the kernel.
    let width = n.div_ceil(threads).next_multiple_of(16);
    let output = Output { data: c.data.as_mut_ptr(), row_stride: c.row_stride };
    if threads == 1 || width >= n {
        // SAFETY: `c` is borrowed mutably and holds all columns of the result.
        unsafe { multiply_columns(a, b, output, 0..n, beta) };
    } else {
        (0..n).into_par_iter().step_by(width).for_each(|start| {
            // SAFETY: `c` is borrowed mutably until all slices are done, and no two slices share a
            // column.
            unsafe { multiply_columns(a, b, output, start..n.min(start + width), beta) };
        });
    }
}

/// Where the result is written: entry `(i, j)` at `data + i · row_stride + j`.
///
/// Threads that write different columns share it.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) data: *mut f32,
    pub(crate) row_stride: usize,
}

// SAFETY: the pointer is only followed in unsafe functions that write some columns of a product, here
// and in `linear`, whose callers answer for it.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// Writes some columns of β C + A B.
///
/// # Safety
/// `output` must hold A's rows and at least `columns.end` columns, and nobody else may read or
/// write these columns of it meanwhile. A and B must fit each other.
unsafe fn multiply_columns(a: View<'_>, b: View<'_>, output: Output, columns: Range<usize>, beta: f32) {
    let b = b.columns(columns.clone());
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    // SAFETY: a view's entries all lie within its data (`View::new` checks it, and strides of a
    // slice fit isize because the slice does); the caller answers for the output.
    unsafe {
        matrixmultiply::sgemm(
            a.rows,
            a.cols,
            b.cols,
            1.0,
            a.data.as_ptr(),
            a.row_stride as isize,
            a.col_stride as isize,
            b.data.as_ptr(),
            b.row_stride as isize,
            b.col_stride as isize,
            beta,
            output.data.add(columns.start),
            output.row_stride as isize,
            1,
        );
    }
}

#[track_caller]
fn check_shapes(a: View<'_>, b: View<'_>) -> [usize; 3] {
    assert!(
        a.cols == b.rows,
        "cannot multiply {:?} by {:?}: {} columns against {} rows",
        a.shape(),
        b.shape(),
        a.cols,
        b.rows
    );
    [a.rows, a.cols, b.cols]
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers between −1 and 1 that look random and are the same everywhere.
    pub(crate) fn noise(shape: &[usize], seed: u32) -> Tensor {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let n: usize = shape.iter().product();
        let data = (0..n).map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / (u32::MAX / 2) as f32 - 1.0
        });
        Tensor::new(shape, data.collect())
    }

    /// The sum of K products of numbers below 1, in another order, may differ by this much.
    pub(crate) fn assert_close(fast: &Tensor, slow: &Tensor, k: usize) {
        assert_eq!(fast.shape(), slow.shape());
        let tolerance = 4.0 * f32::EPSILON * (k as f32).max(1.0);
        for (i, (x, y)) in fast.data().iter().zip(slow.data()).enumerate() {
            assert!((x - y).abs() <= tolerance, "number {i}: {x} instead of {y} ({:?})", fast.shape());
        }
    }

    #[test]
    fn every_small_product_equals_the_reference() {
        for m in 0..=9 {
            for k in 0..=9 {
                for n in 0..=18 {
                    let (a, b) = (noise(&[m, k], 1), noise(&[k, n], 2));
                    assert_close(&matmul(&a, &b), &matmul_reference(&a, &b), k);
                }
            }
        }
    }

    #[test]
    fn awkward_large_products_equal_the_reference() {
        for [m, k, n] in [[1, 768, 2304], [11, 771, 515], [13, 64, 1031], [67, 129, 130], [257, 513, 31]] {
            let (a, b) = (noise(&[m, k], 3), noise(&[k, n], 4));
            assert_close(&matmul(&a, &b), &matmul_reference(&a, &b), k);
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_every_batch_and_for_every_number_of_threads() {
        let (a, b) = (noise(&[65, 300], 5), noise(&[300, 700], 6));
        let whole = matmul(&a, &b);
        for rows in [0..1, 3..14, 60..65] {
            let part = matmul(a.view().rows(rows.clone()), &b);
            for (i, row) in rows.enumerate() {
                assert_eq!(part.row(i), whole.row(row), "row {row}");
            }
        }
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| matmul(&a, &b)), whole, "{threads} threads");
        }
    }

    #[test]
    fn a_product_can_be_added_to_what_is_there() {
        let (a, b, start) = (noise(&[70, 130], 1), noise(&[130, 140], 2), noise(&[70, 140], 3));
        let mut sum = start.clone();
        matmul_add_into(&a, &b, sum.view_mut());
        let mut expected = matmul_reference(&a, &b);
        expected.add_assign(&start);
        assert_close(&sum, &expected, 131);
    }

    #[test]
    fn an_empty_inner_axis_gives_zeros() {
        let mut c = Tensor::new(&[2, 3], vec![7.0; 6]);
        matmul_into(&Tensor::zeros(&[2, 0]), &Tensor::zeros(&[0, 3]), c.view_mut());
        assert_eq!(c.data(), [0.0; 6]);
    }

    #[test]
    #[should_panic(expected = "cannot multiply [2, 3] by [4, 5]: 3 columns against 4 rows")]
    fn shapes_that_do_not_fit_panic_with_both_shapes() {
        matmul(&Tensor::zeros(&[2, 3]), &Tensor::zeros(&[4, 5]));
    }

    #[test]
    #[should_panic(expected = "a 2 × 5 product does not fit into a [2, 4] matrix")]
    fn an_output_that_does_not_fit_panics() {
        matmul_into(&Tensor::zeros(&[2, 3]), &Tensor::zeros(&[3, 5]), Tensor::zeros(&[2, 4]).view_mut());
    }

    proptest! {
        #[test]
        fn products_through_strided_views_equal_the_reference(
            m in 1_usize..20, k in 1_usize..20, n in 1_usize..40, heads in 1_usize..4, seed: u32,
        ) {
            let a = noise(&[m, heads, k], seed);
            let b = noise(&[n, heads, k], seed ^ 1);
            let mut c = noise(&[m, heads, n], seed ^ 2);
            let untouched = c.clone();
            let head = seed as usize % heads;
            let (a, b) = (a.at_middle(head), b.at_middle(head).t());
            matmul_into(a, b, c.at_middle_mut(head));
            let slow = matmul_reference(a, b);
            for i in 0..m {
                for j in 0..n {
                    let error = (c.at_middle(head).get(i, j) - slow.view().get(i, j)).abs();
                    prop_assert!(error <= 4.0 * f32::EPSILON * k as f32);
                }
            }
            for other in (0..heads).filter(|&other| other != head) {
                prop_assert_eq!(c.at_middle(other).to_rows(), untouched.at_middle(other).to_rows());
            }
        }
    }
}
