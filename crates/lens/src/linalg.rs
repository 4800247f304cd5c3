//! Singular values and eigenvalues of small matrices.
//!
//! Made for the small side of a [`FactoredMatrix`](crate::FactoredMatrix): some tens of rows and columns.
//! Everything is in `f64`, with the stable methods that are the shortest to read, so no linear algebra
//! library has to be built.

use std::ops::{Add, Mul, Sub};

/// A matrix as the list of its columns.
pub type Columns = Vec<Vec<f64>>;

/// A = Q R, for A with `m` rows and `n` columns.
#[derive(Clone, Debug)]
pub struct Qr {
    /// `(m, n)`: orthonormal columns, or zeros where A's column depends on those to its left.
    pub q: Columns,
    /// `(n, n)`: upper triangular.
    pub r: Columns,
}

/// The QR decomposition by modified Gram-Schmidt, each column made orthogonal twice, which is
/// enough (Giraud et al. 2005).
pub fn qr(mut a: Columns) -> Qr {
    let n = a.len();
    let mut r = vec![vec![0.0; n]; n];
    for j in 0..n {
        let before = dot(&a[j], &a[j]).sqrt();
        let (left, right) = a.split_at_mut(j);
        let column = &mut right[0];
        for _ in 0..2 {
            for (i, q) in left.iter().enumerate() {
                let along = dot(q, column);
                r[j][i] += along;
                for (x, q) in column.iter_mut().zip(q) {
                    *x -= along * q;
                }
            }
        }
        let norm = dot(column, column).sqrt();
        // What is left of a dependent column is rounding.
        let scale = if norm > 1e-13 * before { norm } else { 0.0 };
        for x in column.iter_mut() {
            *x = if scale > 0.0 { *x / scale } else { 0.0 };
        }
        r[j][j] = scale;
    }
    Qr { q: a, r }
}

/// A = U diag(s) Vᵀ, for A with `m` rows and `n` columns.
#[derive(Clone, Debug)]
pub struct SmallSvd {
    /// `(m, n)`: orthonormal columns, or zeros beside a singular value of 0.
    pub u: Columns,
    /// The singular values, the largest first: `n`.
    pub s: Vec<f64>,
    /// `(n, n)`: orthonormal columns.
    pub v: Columns,
}

/// The singular value decomposition by one-sided Jacobi rotations: turn pairs of columns until all
/// are orthogonal; their lengths are the singular values (Hestenes 1958).
pub fn svd(mut a: Columns) -> SmallSvd {
    /// Ten rounds are plenty; the bound only guarantees termination.
    const ROUNDS: usize = 60;
    let n = a.len();
    let mut v: Columns = (0..n).map(|j| (0..n).map(|i| f64::from(i == j)).collect()).collect();
    for _ in 0..ROUNDS {
        let mut turned = false;
        for p in 0..n {
            for q in p + 1..n {
                let (alpha, beta) = (dot(&a[p], &a[p]), dot(&a[q], &a[q]));
                let gamma = dot(&a[p], &a[q]);
                if gamma.abs() <= 1e-15 * (alpha * beta).sqrt() {
                    continue;
                }
                turned = true;
                // The angle at which the two columns become orthogonal: t is its tangent.
                let zeta = (beta - alpha) / (2.0 * gamma);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let cos = 1.0 / (1.0 + t * t).sqrt();
                rotate(&mut a, p, q, cos, cos * t);
                rotate(&mut v, p, q, cos, cos * t);
            }
        }
        if !turned {
            break;
        }
    }
    let lengths: Vec<f64> = a.iter().map(|column| dot(column, column).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| lengths[j].total_cmp(&lengths[i]));
    let unit = |j: usize| {
        let divide = |x: &f64| {
            if lengths[j] > 0.0 { x / lengths[j] } else { 0.0 }
        };
        a[j].iter().map(divide).collect()
    };
    SmallSvd {
        u: order.iter().map(|&j| unit(j)).collect(),
        s: order.iter().map(|&j| lengths[j]).collect(),
        v: order.iter().map(|&j| v[j].clone()).collect(),
    }
}

/// Turns columns p and q, p < q, by an angle.
fn rotate(columns: &mut Columns, p: usize, q: usize, cos: f64, sin: f64) {
    let (left, right) = columns.split_at_mut(q);
    for (x, y) in left[p].iter_mut().zip(&mut right[0]) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
}

/// The dot product Σ xᵢ yᵢ, in eight running sums that are added up last.
pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (x, y) in x.iter().zip(y) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    let rest: f64 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

/// A complex number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Complex {
    /// The real part.
    pub re: f64,
    /// The imaginary part.
    pub im: f64,
}

impl Complex {
    fn real(re: f64) -> Self {
        Self { re, im: 0.0 }
    }

    /// |z|
    pub fn abs(self) -> f64 {
        self.re.hypot(self.im)
    }

    fn conj(self) -> Self {
        Self { re: self.re, im: -self.im }
    }

    fn scale(self, factor: f64) -> Self {
        Self { re: self.re * factor, im: self.im * factor }
    }

    /// The root with the real part that is not negative.
    fn sqrt(self) -> Self {
        let re = ((self.abs() + self.re) / 2.0).max(0.0).sqrt();
        let im = ((self.abs() - self.re) / 2.0).max(0.0).sqrt();
        Self { re, im: im.copysign(self.im) }
    }
}

impl Add for Complex {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Sub for Complex {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + other.scale(-1.0)
    }
}

impl Mul for Complex {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }
}

/// The eigenvalues of a square matrix, the largest |λ| first.
///
/// Elimination brings the matrix to Hessenberg form (zeros below the first subdiagonal) without
/// changing its eigenvalues; then QR steps, each shifted by what the last eigenvalue seems to be,
/// shrink the subdiagonal to nothing and leave the eigenvalues on the diagonal (Francis 1961; Golub
/// & Van Loan, ch. 7). In complex numbers a single shift is enough.
///
/// # Panics
/// If the matrix is not square.
#[track_caller]
pub fn eigenvalues(mut a: Columns) -> Vec<Complex> {
    let n = a.len();
    assert!(
        a.iter().all(|column| column.len() == n),
        "eigenvalues of a matrix of {n} columns with other than {n} rows"
    );
    hessenberg(&mut a);
    let mut h: Vec<Vec<Complex>> = (0..n).map(|i| (0..n).map(|j| Complex::real(a[j][i])).collect()).collect(); // by rows
    let mut found = Vec::new();
    let mut steps = 0;
    let mut end = n; // rows end… are done
    while end > 0 {
        let last = end - 1;
        // The block that is still connected to the last row begins where the subdiagonal vanishes.
        let is_zero = |i: &usize| {
            let neighbours = h[*i][*i].abs() + h[i - 1][i - 1].abs();
            h[*i][i - 1].abs() <= f64::EPSILON * neighbours
        };
        let start = (1..end).rev().find(is_zero).unwrap_or(0);
        // QR converges in two or three steps per eigenvalue; the bound only guarantees termination.
        if start == last || steps == 300 {
            found.push(h[last][last]);
            end -= 1;
            steps = 0;
            continue;
        }
        steps += 1;
        let shift = if steps % 10 == 0 {
            // Out of a cycle: a shift that has nothing to do with it.
            Complex::real(h[last][last - 1].abs()) + h[last][last]
        } else {
            wilkinson_shift(&h, last)
        };
        qr_step(&mut h, start, end, shift);
    }
    found.sort_by(|x, y| y.abs().total_cmp(&x.abs()).then(y.im.total_cmp(&x.im)));
    found
}

/// Brings a matrix to Hessenberg form by elimination with pivots: rows are combined, and columns
/// the inverse way.
fn hessenberg(a: &mut Columns) {
    let n = a.len();
    for m in 1..n.saturating_sub(1) {
        let below = &a[m - 1][m..];
        let largest =
            (0..below.len()).fold(0, |best, i| if below[i].abs() > below[best].abs() { i } else { best });
        let pivot = m + largest;
        a.iter_mut().for_each(|column| column.swap(m, pivot));
        a.swap(m, pivot);
        if a[m - 1][m] == 0.0 {
            continue;
        }
        for i in m + 1..n {
            let factor = a[m - 1][i] / a[m - 1][m];
            for column in a.iter_mut() {
                column[i] -= factor * column[m];
            }
            let (left, right) = a.split_at_mut(i);
            let pair = left[m].iter_mut().zip(&right[0]);
            pair.for_each(|(x, y)| *x += factor * y);
        }
    }
}

/// The eigenvalue of the last two rows and columns that is closer to the last number.
fn wilkinson_shift(h: &[Vec<Complex>], last: usize) -> Complex {
    let [a, b] = [h[last - 1][last - 1], h[last - 1][last]];
    let [c, d] = [h[last][last - 1], h[last][last]];
    let half = (a - d).scale(0.5);
    let root = (half * half + b * c).sqrt();
    let [x, y] = [d + half + root, d + half - root];
    if (x - d).abs() < (y - d).abs() { x } else { y }
}

/// H ← R Q + σ, where Q R = H − σ, on the rows and columns `start..end`.
fn qr_step(h: &mut [Vec<Complex>], start: usize, end: usize, shift: Complex) {
    for (i, row) in h.iter_mut().enumerate().take(end).skip(start) {
        row[i] = row[i] - shift;
    }
    // R: a rotation of rows k and k + 1 removes each number of the subdiagonal.
    let mut rotations = Vec::new();
    for k in start..end - 1 {
        let (x, y) = (h[k][k], h[k + 1][k]);
        let norm = x.abs().hypot(y.abs());
        let (cos, sin) = if norm > 0.0 {
            (x.scale(1.0 / norm), y.scale(1.0 / norm))
        } else {
            (Complex::real(1.0), Complex::default())
        };
        let (upper, lower) = h.split_at_mut(k + 1);
        for (x, y) in upper[k][k..end].iter_mut().zip(&mut lower[0][k..end]) {
            (*x, *y) = (cos.conj() * *x + sin.conj() * *y, cos * *y - sin * *x);
        }
        rotations.push((cos, sin));
    }
    // R Q: the same rotations of columns, the inverse way.
    for (k, (cos, sin)) in (start..end - 1).zip(rotations) {
        for row in h.iter_mut().take((k + 2).min(end)).skip(start) {
            let (x, y) = (row[k], row[k + 1]);
            row[k] = x * cos + y * sin;
            row[k + 1] = y * cos.conj() - x * sin.conj();
        }
    }
    for (i, row) in h.iter_mut().enumerate().take(end).skip(start) {
        row[i] = row[i] + shift;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matrix(rows: usize, cols: usize) -> impl Strategy<Value = Columns> {
        proptest::collection::vec(proptest::collection::vec(-1.0..1.0, rows), cols)
    }

    /// A B, by columns.
    fn product(a: &Columns, b: &Columns) -> Columns {
        let combine = |column: &Vec<f64>| {
            let mut out = vec![0.0; a[0].len()];
            for (a, x) in a.iter().zip(column) {
                out.iter_mut().zip(a).for_each(|(out, a)| *out += a * x);
            }
            out
        };
        b.iter().map(combine).collect()
    }

    fn transpose(a: &Columns) -> Columns {
        (0..a[0].len()).map(|i| a.iter().map(|column| column[i]).collect()).collect()
    }

    fn difference(a: &Columns, b: &Columns) -> f64 {
        let pairs = a.iter().flatten().zip(b.iter().flatten());
        pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
    }

    fn identity(n: usize) -> Columns {
        (0..n).map(|j| (0..n).map(|i| f64::from(i == j)).collect()).collect()
    }

    proptest! {
        #[test]
        fn q_times_r_is_the_matrix(a in (1_usize..9).prop_flat_map(|n| matrix(9, n))) {
            let Qr { q, r } = qr(a.clone());
            prop_assert!(difference(&product(&q, &r), &a) < 1e-12);
            prop_assert!(difference(&product(&transpose(&q), &q), &identity(a.len())) < 1e-12);
        }

        #[test]
        fn the_three_parts_of_an_svd_make_the_matrix(
            a in (1_usize..9).prop_flat_map(|n| matrix(9, n))
        ) {
            let SmallSvd { u, s, v } = svd(a.clone());
            let us: Columns = u
                .iter()
                .zip(&s)
                .map(|(u, s)| u.iter().map(|x| x * s).collect())
                .collect();
            prop_assert!(difference(&product(&us, &transpose(&v)), &a) < 1e-12);
            prop_assert!(difference(&product(&transpose(&u), &u), &identity(a.len())) < 1e-9);
            prop_assert!(difference(&product(&transpose(&v), &v), &identity(a.len())) < 1e-12);
            prop_assert!(s.is_sorted_by(|x, y| x >= y));
        }

        #[test]
        fn powers_of_eigenvalues_add_up_to_traces(
            a in (1_usize..12).prop_flat_map(|n| matrix(n, n))
        ) {
            let values = eigenvalues(a.clone());
            prop_assert_eq!(values.len(), a.len());
            let mut power = identity(a.len());
            let mut powers = vec![Complex::real(1.0); a.len()];
            for _ in 0..4 {
                power = product(&power, &a);
                powers.iter_mut().zip(&values).for_each(|(p, x)| *p = *p * *x);
                let trace: f64 = (0..a.len()).map(|i| power[i][i]).sum();
                let sum = powers.iter().fold(Complex::default(), |sum, x| sum + *x);
                prop_assert!((sum - Complex::real(trace)).abs() < 1e-8, "{values:?}");
            }
        }
    }

    #[test]
    fn eigenvalues_are_those_of_numpy() {
        // numpy.linalg.eigvals([[0, 1, 0], [0, 0, 1], [1, 0, 0]]): the third roots of 1.
        let a = vec![vec![0., 0., 1.], vec![1., 0., 0.], vec![0., 1., 0.]];
        let mut values = eigenvalues(a);
        values.sort_by(|x, y| y.re.total_cmp(&x.re).then(y.im.total_cmp(&x.im)));
        let root = 0.75_f64.sqrt();
        for (got, [re, im]) in values.iter().zip([[1.0, 0.0], [-0.5, root], [-0.5, -root]]) {
            assert!((*got - Complex { re, im }).abs() < 1e-12, "{values:?}");
        }
        let defective = vec![vec![2., 0.], vec![1., 2.]];
        assert!(eigenvalues(defective).iter().all(|x| (x.re - 2.0).abs() < 1e-7));
        assert_eq!(eigenvalues(vec![vec![0.0; 3]; 3]), [Complex::default(); 3]);
        assert_eq!(eigenvalues(vec![]), []);
    }

    #[test]
    fn columns_that_depend_on_others_become_zero() {
        let a = vec![vec![1., 2., 2.], vec![2., 4., 4.], vec![0., 0., 0.]];
        let Qr { q, r } = qr(a.clone());
        assert_eq!(q[1..], [[0.0; 3], [0.0; 3]]);
        assert!(difference(&product(&q, &r), &a) < 1e-12);
        let s = svd(a).s;
        assert!((s[0] - 45.0_f64.sqrt()).abs() < 1e-12 && s[1] < 1e-12 && s[2] < 1e-12, "{s:?}");
    }
}
