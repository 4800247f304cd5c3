//! The description of a heatmap, free of any notion of how it is drawn.

use super::color::ColorMap;

/// A heatmap: a grid of numbers and the words that explain it.
///
/// The fields are plain data; `Heatmap { values, rows, columns, ..Heatmap::default() }` is a
/// complete figure. Texts are shown as they are, except that characters which cannot be seen are
/// made visible (see [`gpt2::visible`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Heatmap {
    /// The heading. Wrapped if it is long; empty for none.
    pub title: String,
    /// Short lines under the title, for example the prompts and the model.
    pub subtitle: Vec<String>,
    /// The values, row after row: `rows.len() * columns.len()` of them. A value that is not finite
    /// is drawn as a hatched cell and has no influence on the colours of the others.
    pub values: Vec<f32>,
    /// The label of each row from top to bottom, for example layer numbers.
    pub rows: Vec<String>,
    /// The raw text of each column's token, spaces and all, from left to right.
    pub columns: Vec<String>,
    /// What the rows are, for example `layer`.
    pub row_axis: String,
    /// What the columns are, for example `position, token`.
    pub column_axis: String,
    /// What a value is, for example `logit( Smith) − logit( Jones)`. Put at the colour bar.
    pub value_label: String,
    /// The colours.
    pub color_map: ColorMap,
    /// The value that gets the middle colour; the range is then symmetric about it. Without it the
    /// colours span the smallest to the largest value.
    pub center: Option<f32>,
    /// The indices of the columns to mark, for example where two prompts differ. Indices beyond
    /// the last column are ignored.
    pub highlight_columns: Vec<usize>,
    /// What a marked column means, for example `the prompts differ here`. Empty for no explanation.
    pub highlight_label: String,
    /// A line or two under the picture that say which way is which.
    pub legend: Vec<String>,
    /// Whether the position number of each column is shown, counting from 0.
    pub column_numbers: bool,
    /// Whether the rounded values are written in the cells where they fit.
    pub cell_numbers: bool,
}

impl Default for Heatmap {
    fn default() -> Self {
        Self {
            title: String::new(),
            subtitle: Vec::new(),
            values: Vec::new(),
            rows: Vec::new(),
            columns: Vec::new(),
            row_axis: String::new(),
            column_axis: String::new(),
            value_label: String::new(),
            color_map: ColorMap::RdBu,
            center: None,
            highlight_columns: Vec::new(),
            highlight_label: String::new(),
            legend: Vec::new(),
            column_numbers: true,
            cell_numbers: true,
        }
    }
}

impl Heatmap {
    /// Panics unless there is one value for each pair of row and column: anything else is a mistake
    /// in the program, and a figure of it would be a wrong figure.
    pub fn check_shape(&self) {
        let cells = self.rows.len() * self.columns.len();
        assert!(
            self.values.len() == cells,
            "a heatmap of {} rows and {} columns needs {cells} values but was given {}",
            self.rows.len(),
            self.columns.len(),
            self.values.len(),
        );
    }

    /// The value at `row` and `column`, both counted from 0.
    pub fn value(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.columns.len() + column]
    }

    /// Whether `column` (from 0) is one of the marked ones.
    pub fn is_highlighted(&self, column: usize) -> bool {
        self.highlight_columns.contains(&column)
    }

    /// Whether there are marked columns in this figure at all.
    pub fn has_highlights(&self) -> bool {
        (0..self.columns.len()).any(|column| self.is_highlighted(column))
    }

    /// The range of values that the colours span, from the finite values alone.
    ///
    /// With a [`center`](Self::center) the range is symmetric about it. The range is never empty:
    /// if all values are the same (or there are none), it is widened so that they get the middle
    /// colour.
    pub fn range(&self) -> ValueRange {
        self.check_shape();
        let finite = || {
            self.values
                .iter()
                .copied()
                .filter(|value| value.is_finite())
                .map(f64::from)
        };
        let smallest = finite().reduce(f64::min);
        let largest = finite().reduce(f64::max);
        let center = self
            .center
            .filter(|center| center.is_finite())
            .map(f64::from);
        let (low, high) = match (center, smallest.zip(largest)) {
            (Some(center), Some((smallest, largest))) => {
                let reach = (largest - center).abs().max((center - smallest).abs());
                around(center, reach)
            }
            (Some(center), None) => around(center, 0.0),
            (None, Some((smallest, largest))) if smallest < largest => (smallest, largest),
            (None, Some((only, _))) => around(only, 0.0),
            (None, None) => (0.0, 1.0),
        };
        ValueRange {
            low: saturate(low),
            high: saturate(high),
        }
    }
}

/// The values at the two ends of the colours; `low < high`, both finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueRange {
    /// The value that gets the first colour.
    pub low: f32,
    /// The value that gets the last colour.
    pub high: f32,
}

impl ValueRange {
    /// Where `value` lies between `low` (0) and `high` (1), clamped to these; NaN if `value` is not
    /// finite.
    pub fn fraction(self, value: f32) -> f32 {
        if !value.is_finite() {
            return f32::NAN;
        }
        // In f64, because high − low may be more than an f32 can hold.
        let low = f64::from(self.low);
        let span = f64::from(self.high) - low;
        ((f64::from(value) - low) / span).clamp(0.0, 1.0) as f32
    }
}

/// The range that reaches equally far to both sides; some visible distance if `reach` is zero.
fn around(center: f64, reach: f64) -> (f64, f64) {
    let reach = if reach > 0.0 {
        reach
    } else {
        (center.abs() * 0.5).max(0.5)
    };
    (center - reach, center + reach)
}

fn saturate(value: f64) -> f32 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(values: &[f32], center: Option<f32>) -> Heatmap {
        Heatmap {
            values: values.to_vec(),
            rows: vec!["0".into()],
            columns: values.iter().map(|_| " a".into()).collect(),
            center,
            ..Heatmap::default()
        }
    }

    fn range_of(values: &[f32], center: Option<f32>) -> (f32, f32) {
        let range = row_of(values, center).range();
        (range.low, range.high)
    }

    #[test]
    fn a_centred_range_is_symmetric() {
        assert_eq!(range_of(&[-1.0, 3.0], Some(0.0)), (-3.0, 3.0));
        assert_eq!(range_of(&[2.0, 3.0], Some(1.0)), (-1.0, 3.0));
    }

    #[test]
    fn a_range_without_a_centre_spans_the_values() {
        assert_eq!(range_of(&[-1.0, 0.5, 3.0], None), (-1.0, 3.0));
    }

    #[test]
    fn values_that_are_not_finite_do_not_widen_the_range() {
        let values = [f32::NAN, -1.0, f32::INFINITY, 2.0, f32::NEG_INFINITY];
        assert_eq!(range_of(&values, None), (-1.0, 2.0));
        assert_eq!(range_of(&values, Some(0.0)), (-2.0, 2.0));
    }

    #[test]
    fn equal_values_get_the_middle_colour() {
        for value in [0.0, 0.25, -7.0, 1e30, 1e-30] {
            let range = row_of(&[value, value], None).range();
            assert!(range.low < range.high);
            assert!(
                (range.fraction(value) - 0.5).abs() < 1e-3,
                "{value}: {range:?}"
            );
        }
        assert_eq!(row_of(&[0.0, 0.0], Some(0.0)).range().fraction(0.0), 0.5);
    }

    #[test]
    fn a_grid_without_a_single_number_still_has_a_range() {
        assert_eq!(range_of(&[f32::NAN], None), (0.0, 1.0));
        assert_eq!(range_of(&[f32::NAN], Some(2.0)), (1.0, 3.0));
        assert_eq!(range_of(&[], None), (0.0, 1.0));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let range = row_of(&[f32::MIN, f32::MAX], Some(0.0)).range();
        assert_eq!((range.low, range.high), (f32::MIN, f32::MAX));
        assert_eq!(range.fraction(f32::MAX), 1.0);
        assert_eq!(range.fraction(0.0), 0.5);
    }

    #[test]
    fn the_fraction_of_a_value_that_is_not_finite_is_nan() {
        let range = ValueRange {
            low: 0.0,
            high: 1.0,
        };
        assert!(range.fraction(f32::NAN).is_nan());
        assert!(range.fraction(f32::INFINITY).is_nan());
        assert_eq!(range.fraction(7.0), 1.0);
    }

    #[test]
    #[should_panic(expected = "needs 2 values but was given 1")]
    fn a_wrong_number_of_values_is_a_programming_error() {
        let mut figure = row_of(&[1.0, 2.0], None);
        figure.values.pop();
        figure.range();
    }
}
