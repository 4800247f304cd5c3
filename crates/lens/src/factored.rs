//! A matrix that is known as a product of two, and never multiplied out.

use tensor::{Tensor, View, matmul};

use crate::linalg::{self, Columns, Complex, Qr, dot, qr};
use crate::weights::copy;

/// The matrix M = A B, `(m, n)`, of rank r or less, kept as A, `(m, r)`, and B, `(r, n)`
/// (TransformerLens's `FactoredMatrix`).
///
/// A head's circuits are such matrices: `(C, C)` or even `(V, V)`, through `head_size` dimensions.
/// Everything of interest follows from the factors: M x = A (B x), the Frobenius norm and the
/// singular values from the `(r, r)` middle of their QR decompositions, the eigenvalues from the
/// `(r, r)` matrix B A, which has the same ones.
#[derive(Clone, Debug)]
pub struct FactoredMatrix {
    a: Tensor,
    b: Tensor,
}

/// M = U diag(s) Vᵀ.
#[derive(Clone, Debug)]
pub struct Svd {
    /// `(m, r)`: orthonormal columns, or zeros beside a singular value of 0.
    pub u: Tensor,
    /// The singular values, the largest first, `(r)`.
    pub s: Vec<f64>,
    /// `(n, r)`: orthonormal columns, or zeros beside a singular value of 0. (Where
    /// TransformerLens's `svd` says Vh, it also means this.)
    pub v: Tensor,
}

impl FactoredMatrix {
    /// A B, of an `(m, r)` and an `(r, n)` matrix.
    ///
    /// # Panics
    /// If A's columns are not as many as B's rows.
    #[track_caller]
    pub fn new(a: Tensor, b: Tensor) -> Self {
        let ([_, inner], [rows, _]) = (a.view().shape(), b.view().shape());
        assert!(
            inner == rows,
            "factors of {:?} and {:?}: {inner} columns against {rows} rows",
            a.shape(),
            b.shape()
        );
        Self { a, b }
    }

    /// The left factor, `(m, r)`.
    pub fn a(&self) -> &Tensor {
        &self.a
    }

    /// The right factor, `(r, n)`.
    pub fn b(&self) -> &Tensor {
        &self.b
    }

    /// `[m, n]`
    pub fn shape(&self) -> [usize; 2] {
        [self.a.n_rows(), self.b.row_len()]
    }

    /// r
    pub fn inner(&self) -> usize {
        self.a.row_len()
    }

    /// The product multiplied out, `(m, n)`. Mind its size.
    pub fn product(&self) -> Tensor {
        matmul(&self.a, &self.b)
    }

    /// Mᵀ = Bᵀ Aᵀ
    pub fn t(&self) -> Self {
        Self::new(copy(self.b.view().t()), copy(self.a.view().t()))
    }

    /// X M, for X `(k, m)`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn left<'x>(&self, x: impl Into<View<'x>>) -> Self {
        Self::new(matmul(x, &self.a), self.b.clone())
    }

    /// M X, for X `(n, k)`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn right<'x>(&self, x: impl Into<View<'x>>) -> Self {
        Self::new(self.a.clone(), matmul(&self.b, x))
    }

    /// M N, through the smaller of the two inner dimensions.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn then(&self, other: &Self) -> Self {
        let middle = matmul(&self.b, &other.a); // (r, other r)
        if self.inner() <= other.inner() {
            Self::new(self.a.clone(), matmul(&middle, &other.b))
        } else {
            Self::new(matmul(&self.a, &middle), other.b.clone())
        }
    }

    /// The Frobenius norm √ Σ M², which is also √ Σ s².
    pub fn norm(&self) -> f64 {
        let (_, middle, _) = self.middle();
        let square: f64 = middle.iter().map(|column| dot(column, column)).sum();
        square.sqrt()
    }

    /// The singular value decomposition.
    pub fn svd(&self) -> Svd {
        let (q_a, middle, q_b) = self.middle();
        let small = linalg::svd(middle);
        Svd {
            u: tensor(&product(&q_a, &small.u), self.a.n_rows()),
            v: tensor(&product(&q_b, &small.v), self.b.row_len()),
            s: small.s,
        }
    }

    /// Those eigenvalues of a square M that need not be zero, r of them, the largest first: the
    /// eigenvalues of B A, for if B A x = λ x then A B (A x) = λ (A x).
    ///
    /// A head whose OV circuit has positive ones copies (Elhage et al. 2021).
    ///
    /// # Panics
    /// If M is not square.
    #[track_caller]
    pub fn eigenvalues(&self) -> Vec<Complex> {
        let [m, n] = self.shape();
        assert!(m == n, "eigenvalues of a {m} × {n} matrix");
        let (a, b) = (columns(self.a.view()), columns(self.b.view().t()));
        let reverse = |a: &Vec<f64>| b.iter().map(|b| dot(b, a)).collect();
        linalg::eigenvalues(a.iter().map(reverse).collect())
    }

    /// The same matrix from more even factors, U √s and √s Vᵀ (TransformerLens's `make_even`).
    pub fn make_even(&self) -> Self {
        let Svd { mut u, s, mut v } = self.svd();
        for side in [&mut u, &mut v] {
            for i in 0..side.n_rows() {
                for (x, s) in side.row_mut(i).iter_mut().zip(&s) {
                    *x *= s.sqrt() as f32;
                }
            }
        }
        Self::new(u, copy(v.view().t()))
    }

    /// M = Q_A (R_A R_Bᵀ) Q_Bᵀ: the two orthonormal sides, `(m, r)` and `(n, r)`, and the middle,
    /// `(r, r)`.
    fn middle(&self) -> (Columns, Columns, Columns) {
        let Qr { q: q_a, r: r_a } = qr(columns(self.a.view()));
        let Qr { q: q_b, r: r_b } = qr(columns(self.b.view().t()));
        // R_A R_Bᵀ; the columns of R_Bᵀ are the rows of R_B.
        let rows_of_b: Columns =
            (0..r_b.len()).map(|i| r_b.iter().map(|column| column[i]).collect()).collect();
        (q_a, product(&r_a, &rows_of_b), q_b)
    }
}

/// A matrix as the list of its columns.
pub(crate) fn columns(view: View<'_>) -> Columns {
    let [rows, cols] = view.shape();
    (0..cols).map(|j| (0..rows).map(|i| f64::from(view.get(i, j))).collect()).collect()
}

/// Columns as a tensor `(rows, columns)`.
fn tensor(columns: &Columns, rows: usize) -> Tensor {
    let data = (0..rows).flat_map(|i| columns.iter().map(move |column| column[i] as f32));
    Tensor::new(&[rows, columns.len()], data.collect())
}

/// A B, by columns.
fn product(a: &Columns, b: &Columns) -> Columns {
    let combine = |weights: &Vec<f64>| {
        let mut out = vec![0.0; a.first().map_or(0, Vec::len)];
        for (column, weight) in a.iter().zip(weights) {
            for (out, x) in out.iter_mut().zip(column) {
                *out += x * weight;
            }
        }
        out
    };
    b.iter().map(combine).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matrix(rows: usize, cols: usize) -> impl Strategy<Value = Tensor> {
        proptest::collection::vec(-1.0_f32..1.0, rows * cols)
            .prop_map(move |data| Tensor::new(&[rows, cols], data))
    }

    fn factored(m: usize, r: usize, n: usize) -> impl Strategy<Value = FactoredMatrix> {
        (matrix(m, r), matrix(r, n)).prop_map(|(a, b)| FactoredMatrix::new(a, b))
    }

    /// Also with more inner dimensions than outer ones.
    fn any_factored() -> impl Strategy<Value = FactoredMatrix> {
        (1_usize..9, 1_usize..6, 1_usize..9).prop_flat_map(|(m, r, n)| factored(m, r, n))
    }

    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.shape(), b.shape());
        let pairs = a.data().iter().zip(b.data());
        pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    }

    proptest! {
        #[test]
        fn the_norm_is_that_of_the_product(m in any_factored()) {
            let square: f64 = m.product().data().iter().map(|x| f64::from(*x).powi(2)).sum();
            prop_assert!((m.norm() - square.sqrt()).abs() < 1e-5);
            let singular: f64 = m.svd().s.iter().map(|s| s * s).sum();
            prop_assert!((m.norm() - singular.sqrt()).abs() < 1e-9);
        }

        #[test]
        fn even_factors_make_the_same_product(m in any_factored()) {
            let even = m.make_even();
            prop_assert!(difference(&even.product(), &m.product()) < 1e-5);
            prop_assert_eq!(even.shape(), m.shape());
        }

        #[test]
        fn products_with_other_matrices_are_those_of_the_product(
            m in factored(5, 3, 4), x in matrix(2, 5), y in matrix(4, 6), n in factored(4, 2, 7),
        ) {
            let product = m.product();
            prop_assert!(difference(&m.left(&x).product(), &matmul(&x, &product)) < 1e-5);
            prop_assert!(difference(&m.right(&y).product(), &matmul(&product, &y)) < 1e-5);
            prop_assert!(difference(&m.then(&n).product(), &matmul(&product, &n.product())) < 1e-5);
            prop_assert!(difference(&m.t().product(), &copy(product.view().t())) < 1e-6);
        }

        #[test]
        fn eigenvalues_add_up_to_the_trace(m in factored(7, 3, 7)) {
            let product = m.product();
            let trace: f32 = (0..7).map(|i| product.row(i)[i]).sum();
            let values = m.eigenvalues();
            prop_assert_eq!(values.len(), 3);
            prop_assert!((values.iter().map(|x| x.re).sum::<f64>() - f64::from(trace)).abs() < 1e-5);
            prop_assert!(values.iter().map(|x| x.im).sum::<f64>().abs() < 1e-6);
        }
    }

    #[test]
    fn the_svd_of_a_product_that_is_known() {
        // [[3], [4]] [[0, 2]]: one direction on each side, and the length 5 · 2.
        let m =
            FactoredMatrix::new(Tensor::new(&[2, 1], vec![3.0, 4.0]), Tensor::new(&[1, 2], vec![0.0, 2.0]));
        let Svd { u, s, v } = m.svd();
        assert!((s[0] - 10.0).abs() < 1e-12);
        assert_eq!(u.data(), [0.6, 0.8]);
        assert_eq!(v.data(), [0.0, 1.0]);
    }

    #[test]
    #[should_panic(expected = "factors of [2, 3] and [4, 2]: 3 columns against 4 rows")]
    fn factors_that_do_not_fit_panic_with_both_shapes() {
        FactoredMatrix::new(Tensor::zeros(&[2, 3]), Tensor::zeros(&[4, 2]));
    }
}
