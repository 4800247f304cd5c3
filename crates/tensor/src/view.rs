//! Matrices that borrow their numbers through strides.

use std::ops::Range;

use crate::Tensor;

/// A matrix that borrows its numbers: entry `(i, j)` is `data[i · row_stride + j · col_stride]`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a> View<'a> {
    /// A matrix over `data` with the given strides.
    ///
    /// # Panics
    /// If the last entry would lie beyond the end of `data`.
    #[track_caller]
    pub fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        check_bounds(data.len(), [rows, cols], [row_stride, col_stride]);
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// Entry `(i, j)`.
    #[track_caller]
    pub fn get(&self, i: usize, j: usize) -> f32 {
        assert!(i < self.rows && j < self.cols, "entry ({i}, {j}) of a {:?} matrix", self.shape());
        self.data[i * self.row_stride + j * self.col_stride]
    }

    /// The transpose: rows become columns, no number moves.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// If the range leaves the matrix.
    #[track_caller]
    pub fn rows(self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.rows,
            "rows {range:?} of a {:?} matrix",
            self.shape()
        );
        let start = (range.start * self.row_stride).min(self.data.len());
        Self { data: &self.data[start..], rows: range.len(), ..self }
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// If the range leaves the matrix.
    #[track_caller]
    pub fn columns(self, range: Range<usize>) -> Self {
        self.t().rows(range).t()
    }

    /// The numbers as nested vectors, for tests and for printing.
    pub fn to_rows(self) -> Vec<Vec<f32>> {
        (0..self.rows).map(|i| (0..self.cols).map(|j| self.get(i, j)).collect()).collect()
    }
}

impl<'a> From<&'a Tensor> for View<'a> {
    #[track_caller]
    fn from(tensor: &'a Tensor) -> Self {
        tensor.view()
    }
}

/// A matrix to write to: entry `(i, j)` is `data[i · row_stride + j]`.
pub struct ViewMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_stride: usize,
}

impl<'a> ViewMut<'a> {
    /// A matrix over `data` whose rows lie `row_stride` numbers apart.
    ///
    /// # Panics
    /// If the last entry would lie beyond the end of `data`, or if rows would overlap.
    #[track_caller]
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check_bounds(data.len(), [rows, cols], [row_stride, 1]);
        assert!(rows < 2 || row_stride >= cols, "rows of {cols} numbers only {row_stride} apart overlap");
        Self { data, rows, cols, row_stride }
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }
}

#[track_caller]
fn check_bounds(len: usize, shape: [usize; 2], strides: [usize; 2]) {
    if shape.contains(&0) {
        return;
    }
    let last = |axis: usize| (shape[axis] - 1).checked_mul(strides[axis]);
    let end = last(0).zip(last(1)).and_then(|(i, j)| i.checked_add(j));
    assert!(
        end.is_some_and(|end| end < len),
        "a {shape:?} matrix with strides {strides:?} does not fit into {len} numbers"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_of_some_rows_is_those_columns_of_the_transpose() {
        let x = Tensor::new(&[3, 2], vec![1., 2., 3., 4., 5., 6.]);
        assert_eq!(x.view().rows(1..3).t().to_rows(), x.view().t().columns(1..3).to_rows());
        assert_eq!(x.view().columns(1..2).to_rows(), [[2.], [4.], [6.]]);
    }

    #[test]
    fn an_empty_range_at_the_end_is_an_empty_matrix() {
        let x = Tensor::new(&[3, 2], vec![0.0; 6]);
        assert_eq!(x.view().rows(3..3).shape(), [0, 2]);
        assert_eq!(x.view().columns(2..2).shape(), [3, 0]);
    }

    #[test]
    #[should_panic(expected = "a [3, 2] matrix with strides [2, 1] does not fit into 5 numbers")]
    fn a_view_beyond_the_end_panics() {
        View::new(&[0.0; 5], 3, 2, 2, 1);
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn strides_that_overflow_panic() {
        View::new(&[0.0; 5], 3, 2, usize::MAX / 2 + 1, 1);
    }
}
