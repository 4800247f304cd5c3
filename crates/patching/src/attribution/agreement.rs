//! How well predictions agree with what they predict.

/// How well predicted numbers agree with exact ones. Pairs of numbers of which one is not finite are left out;
/// what cannot be computed of the others is NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Pearson's correlation: how nearly the one is a linear function of the other. NaN of fewer than two pairs,
    /// or where one of the two does not vary.
    pub pearson: f64,
    /// Spearman's correlation: Pearson's of the ranks, where equal numbers share the mean of theirs.
    pub spearman: f64,
    /// The largest difference; NaN if there are no pairs.
    pub largest_error: f64,
    /// How many pairs there are.
    pub n: usize,
}

impl Agreement {
    /// Of the exact numbers with the predicted ones.
    ///
    /// # Panics
    /// If they are not equally many.
    #[track_caller]
    pub fn of(exact: &[f32], predicted: &[f32]) -> Self {
        let (n_exact, n_predicted) = (exact.len(), predicted.len());
        assert!(n_exact == n_predicted, "{n_exact} exact and {n_predicted} predicted numbers");
        let pairs = exact.iter().zip(predicted).filter(|(x, y)| x.is_finite() && y.is_finite());
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.map(|(x, y)| (f64::from(*x), f64::from(*y))).unzip();
        let errors = x.iter().zip(&y).map(|(x, y)| (x - y).abs());
        Self {
            pearson: correlation(&x, &y),
            spearman: correlation(&ranks(&x), &ranks(&y)),
            // (Every number is finite: `max` passes over the NaN that it starts from.)
            largest_error: errors.fold(f64::NAN, f64::max),
            n: x.len(),
        }
    }
}

/// How far each prediction is from the exact number.
///
/// # Panics
/// If they are not equally many.
#[track_caller]
pub fn errors(exact: &[f32], predicted: &[f32]) -> Vec<f32> {
    let (n_exact, n_predicted) = (exact.len(), predicted.len());
    assert!(n_exact == n_predicted, "{n_exact} exact and {n_predicted} predicted numbers");
    predicted.iter().zip(exact).map(|(predicted, exact)| predicted - exact).collect()
}

/// The places of the `count` numbers farthest from 0, the farthest first. A NaN is none of them.
pub fn largest(values: &[f32], count: usize) -> Vec<usize> {
    farthest(values, 0.0, count)
}

/// The places of the `count` numbers farthest from another, the farthest first. A NaN is none of them.
pub fn farthest(values: &[f32], from: f32, count: usize) -> Vec<usize> {
    let distance = |place: usize| (values[place] - from).abs();
    let mut places: Vec<usize> = (0..values.len()).filter(|&place| !values[place].is_nan()).collect();
    places.sort_by(|&i, &j| distance(j).total_cmp(&distance(i)));
    places.truncate(count);
    places
}

/// Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² Σ (y − ȳ)²)
fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| f(x - mean_x, y - mean_y)).sum()
    };
    let (xy, xx, yy) = (sum(&|x, y| x * y), sum(&|x, _| x * x), sum(&|_, y| y * y));
    // Numbers that are all the same differ from their mean by rounding at the most.
    let varies = |x: &[f64]| x.iter().any(|other| *other != x[0]);
    match x.len() >= 2 && varies(x) && varies(y) {
        true => (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0),
        false => f64::NAN,
    }
}

/// The place of each number among them all, from 1; equal numbers share the mean of their places.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&i, &j| x[i].total_cmp(&x[j]));
    let mut ranks = vec![0.0; x.len()];
    let mut before = 0;
    // (−0 and 0 are equal, and stand beside each other.)
    for equal in order.chunk_by(|&i, &j| x[i] == x[j]) {
        let rank = before as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&i| ranks[i] = rank);
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_what_numpy_and_pandas_say() {
        // numpy.corrcoef of the numbers, and of their ranks by pandas
        let exact = [1.0, 2.0, 2.0, 4.0, -3.0, 0.5];
        let predicted = [0.5, 2.5, 2.0, 1.0, -1.0, 0.5];
        let Agreement { pearson, spearman, largest_error, n } = Agreement::of(&exact, &predicted);
        assert!((pearson - 0.745_173_340_780_591_2).abs() < 1e-12, "{pearson}");
        assert!((spearman - 0.794_117_647_058_823_6).abs() < 1e-12, "{spearman}");
        assert_eq!((largest_error, n), (3.0, 6));
    }

    #[test]
    fn the_largest_numbers_are_the_farthest_from_zero() {
        let values = errors(&[1.0, 0.0, f32::NAN, 2.0, 5.0], &[2.0, -3.0, 1.0, 2.5, 5.0]);
        assert_eq!(largest(&values, 3), [1, 0, 3]);
        assert_eq!(largest(&values, 9), [1, 0, 3, 4]);
    }

    #[test]
    fn what_is_missing_is_left_out_and_what_cannot_be_computed_is_nan() {
        let nan = f32::NAN;
        let agreement = Agreement::of(&[1.0, nan, 2.0, 3.0], &[2.0, 1.0, f32::INFINITY, 6.0]);
        assert_eq!((agreement.n, agreement.largest_error), (2, 3.0));
        assert!((agreement.pearson - 1.0).abs() < 1e-12 && (agreement.spearman - 1.0).abs() < 1e-12);
        let none = Agreement::of(&[nan], &[1.0]);
        assert!(none.n == 0 && none.pearson.is_nan() && none.largest_error.is_nan());
        let constant = Agreement::of(&[0.1; 3], &[1.0, 2.0, 3.0]);
        assert!(constant.pearson.is_nan() && constant.spearman.is_nan());
    }
}
