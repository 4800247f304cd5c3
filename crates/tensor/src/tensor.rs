//! The tensor: a shape and its numbers.

use std::fmt;
use std::sync::Arc;

use crate::view::{View, ViewMut};

/// Numbers of type `f32` with a shape, row-major: the last axis is contiguous.
///
/// The numbers belong to the tensor, or are shared with whoever lent them ([`Tensor::shared`]: a
/// weight that stays where it lies in a memory-mapped file). The first change to shared numbers
/// copies them, so a tensor always behaves as if it owned its own.
#[derive(Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Owned(Vec<f32>),
    Shared(Arc<dyn AsRef<[f32]> + Send + Sync>),
}

impl Tensor {
    /// A tensor of `shape` over `data`.
    ///
    /// # Panics
    /// If `data` does not hold exactly the product of `shape`.
    #[track_caller]
    pub fn new(shape: &[usize], data: Vec<f32>) -> Self {
        check_len(shape, data.len());
        Self { shape: shape.to_vec(), data: Data::Owned(data) }
    }

    /// A tensor of `shape` over numbers that something else owns and keeps unchanged.
    ///
    /// # Panics
    /// If the numbers are not exactly as many as the product of `shape`.
    #[track_caller]
    pub fn shared(shape: &[usize], data: Arc<dyn AsRef<[f32]> + Send + Sync>) -> Self {
        check_len(shape, (*data).as_ref().len());
        Self { shape: shape.to_vec(), data: Data::Shared(data) }
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self::new(shape, vec![0.0; shape.iter().product()])
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// All numbers, row after row.
    pub fn data(&self) -> &[f32] {
        match &self.data {
            Data::Owned(data) => data,
            Data::Shared(data) => (**data).as_ref(),
        }
    }

    /// All numbers, row after row, to be changed. Shared numbers are copied first.
    pub fn data_mut(&mut self) -> &mut [f32] {
        if let Data::Shared(data) = &self.data {
            self.data = Data::Owned((**data).as_ref().to_vec());
        }
        match &mut self.data {
            Data::Owned(data) => data,
            Data::Shared(_) => unreachable!("shared data was copied above"),
        }
    }

    /// All numbers, row after row, without the tensor. Shared numbers are copied.
    pub fn into_data(self) -> Vec<f32> {
        match self.data {
            Data::Owned(data) => data,
            Data::Shared(data) => (*data).as_ref().to_vec(),
        }
    }

    /// The length of the last axis: how many numbers a row holds.
    pub fn row_len(&self) -> usize {
        *self.shape.last().unwrap_or(&1)
    }

    /// The number of rows, all axes but the last taken together: `(n_head, T, T)` has
    /// `n_head · T` rows.
    pub fn n_rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// Row `i`, counted over all axes but the last.
    #[track_caller]
    pub fn row(&self, i: usize) -> &[f32] {
        let n = self.row_len();
        assert!(i < self.n_rows(), "row {i} of a tensor of shape {:?}", self.shape);
        &self.data()[i * n..(i + 1) * n]
    }

    /// Row `i`, counted over all axes but the last, to be changed.
    #[track_caller]
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        let n = self.row_len();
        assert!(i < self.n_rows(), "row {i} of a tensor of shape {:?}", self.shape);
        &mut self.data_mut()[i * n..(i + 1) * n]
    }

    /// The same numbers under another shape.
    ///
    /// # Panics
    /// If the two shapes do not hold equally many numbers.
    #[track_caller]
    pub fn reshape(mut self, shape: &[usize]) -> Self {
        check_len(shape, self.data().len());
        self.shape = shape.to_vec();
        self
    }

    /// The whole of a two-axis tensor as a matrix.
    ///
    /// # Panics
    /// If the tensor does not have two axes.
    #[track_caller]
    pub fn view(&self) -> View<'_> {
        let [rows, cols] = self.dims();
        View::new(self.data(), rows, cols, cols, 1)
    }

    /// The whole of a two-axis tensor as a matrix to write to.
    ///
    /// # Panics
    /// If the tensor does not have two axes.
    #[track_caller]
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        let [rows, cols] = self.dims();
        ViewMut::new(self.data_mut(), rows, cols, cols)
    }

    /// `self[i]` of a three-axis tensor `(A, B, C)`: the `(B, C)` matrix at `i`.
    ///
    /// # Panics
    /// If the tensor does not have three axes, or `i` is not below `A`.
    #[track_caller]
    pub fn at(&self, i: usize) -> View<'_> {
        let [a, b, c] = self.dims();
        assert!(i < a, "index {i} of axis 0 of a tensor of shape {:?}", self.shape);
        View::new(&self.data()[i * b * c..(i + 1) * b * c], b, c, c, 1)
    }

    /// `self[i]` of a three-axis tensor `(A, B, C)`, to write to.
    ///
    /// # Panics
    /// As [`Tensor::at`].
    #[track_caller]
    pub fn at_mut(&mut self, i: usize) -> ViewMut<'_> {
        let [a, b, c] = self.dims();
        assert!(i < a, "index {i} of axis 0 of a tensor of shape {:?}", self.shape);
        ViewMut::new(&mut self.data_mut()[i * b * c..(i + 1) * b * c], b, c, c)
    }

    /// `self[:, i]` of a three-axis tensor `(A, B, C)`: the `(A, C)` matrix at `i` of the middle
    /// axis. Head `i` of a `(T, n_head, head_size)` tensor.
    ///
    /// # Panics
    /// If the tensor does not have three axes, or `i` is not below `B`.
    #[track_caller]
    pub fn at_middle(&self, i: usize) -> View<'_> {
        let [a, b, c] = self.dims();
        assert!(i < b, "index {i} of axis 1 of a tensor of shape {:?}", self.shape);
        let data = if a == 0 { &[] } else { &self.data()[i * c..] };
        View::new(data, a, c, b * c, 1)
    }

    /// `self[:, i]` of a three-axis tensor `(A, B, C)`, to write to.
    ///
    /// # Panics
    /// As [`Tensor::at_middle`].
    #[track_caller]
    pub fn at_middle_mut(&mut self, i: usize) -> ViewMut<'_> {
        let [a, b, c] = self.dims();
        assert!(i < b, "index {i} of axis 1 of a tensor of shape {:?}", self.shape);
        let data = if a == 0 { &mut [] } else { &mut self.data_mut()[i * c..] };
        ViewMut::new(data, a, c, b * c)
    }

    /// The matrix cut into `N` equally wide matrices, left to right: `(T, 3C)` into q, k and v.
    ///
    /// # Panics
    /// If the tensor does not have two axes, or `N` does not divide its columns.
    #[track_caller]
    pub fn split_columns<const N: usize>(&self) -> [Tensor; N] {
        let [rows, cols] = self.dims();
        assert!(cols % N == 0, "{cols} columns of shape {:?} into {N} equal parts", self.shape);
        let width = cols / N;
        std::array::from_fn(|part| {
            let columns = part * width..(part + 1) * width;
            let mut data = Vec::with_capacity(rows * width);
            (0..rows).for_each(|i| data.extend_from_slice(&self.row(i)[columns.clone()]));
            Tensor::new(&[rows, width], data)
        })
    }

    /// Matrices of equally many rows side by side: the inverse of [`Tensor::split_columns`].
    ///
    /// # Panics
    /// If one does not have two axes, or they have different numbers of rows.
    #[track_caller]
    pub fn join_columns<const N: usize>(parts: [&Tensor; N]) -> Tensor {
        let rows = parts[0].n_rows();
        for part in parts {
            let [own, _] = part.dims();
            assert!(own == rows, "{:?} beside {:?}", part.shape, parts[0].shape);
        }
        let width = parts.iter().map(|part| part.row_len()).sum();
        let mut data = Vec::with_capacity(rows * width);
        for i in 0..rows {
            parts.iter().for_each(|part| data.extend_from_slice(part.row(i)));
        }
        Tensor::new(&[rows, width], data)
    }

    /// Adds the rows up, in their order, to `sum`, `(C)`: the backward pass of [`Tensor::add_to_rows`].
    ///
    /// # Panics
    /// If `sum` is not one row long.
    #[track_caller]
    pub fn add_rows_to(&self, sum: &mut Tensor) {
        let n = self.row_len();
        assert!(sum.shape == [n], "cannot add the rows of {:?} to {:?}", self.shape, sum.shape);
        let sum = sum.data_mut();
        for row in self.data().chunks_exact(n.max(1)) {
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    }

    /// Adds `other`, number by number.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn add_assign(&mut self, other: &Tensor) {
        assert!(self.shape == other.shape, "cannot add {:?} to {:?}", other.shape, self.shape);
        for (x, y) in self.data_mut().iter_mut().zip(other.data()) {
            *x += y;
        }
    }

    /// Adds `bias` to every row.
    ///
    /// # Panics
    /// If `bias` is not one row long.
    #[track_caller]
    pub fn add_to_rows(&mut self, bias: &Tensor) {
        let n = self.row_len();
        assert!(bias.shape == [n], "cannot add {:?} to the rows of {:?}", bias.shape, self.shape);
        for row in self.data_mut().chunks_exact_mut(n.max(1)) {
            for (x, b) in row.iter_mut().zip(bias.data()) {
                *x += b;
            }
        }
    }

    /// Multiplies every number by `factor`.
    pub fn scale(&mut self, factor: f32) {
        for x in self.data_mut() {
            *x *= factor;
        }
    }

    /// The axes as an array.
    ///
    /// # Panics
    /// If the tensor does not have exactly `N` axes.
    #[track_caller]
    pub fn dims<const N: usize>(&self) -> [usize; N] {
        self.shape
            .as_slice()
            .try_into()
            .unwrap_or_else(|_| panic!("shape {:?} where {N} axes are needed", self.shape))
    }
}

#[track_caller]
fn check_len(shape: &[usize], len: usize) {
    // Checked, so that no absurd shape can wrap around to the length it lies about.
    let product = shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n));
    assert!(product == Some(len), "shape {shape:?} does not hold {len} numbers");
}

impl fmt::Debug for Tensor {
    /// The shape and the first numbers: whole tensors drown a message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.data();
        let dots = if data.len() > 8 { ", …" } else { "" };
        let shown: Vec<String> = data.iter().take(8).map(f32::to_string).collect();
        write!(f, "Tensor{:?}[{}{dots}]", self.shape, shown.join(", "))
    }
}

impl PartialEq for Tensor {
    /// Equal shapes and, number by number, equal floats (so a NaN is unequal to itself).
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.data() == other.data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::new(shape, (0..n).map(|i| i as f32).collect())
    }

    #[test]
    fn views_of_a_three_axis_tensor_pick_the_right_numbers() {
        let x = counting(&[2, 3, 4]);
        assert_eq!(x.at(1).to_rows(), [[12., 13., 14., 15.], [16., 17., 18., 19.], [20., 21., 22., 23.]]);
        assert_eq!(x.at_middle(2).to_rows(), [[8., 9., 10., 11.], [20., 21., 22., 23.]]);
    }

    #[test]
    fn splitting_columns_keeps_their_order() {
        let [q, k, v] = counting(&[2, 6]).split_columns();
        assert_eq!(q.data(), [0., 1., 6., 7.]);
        assert_eq!(k.data(), [2., 3., 8., 9.]);
        assert_eq!(v.data(), [4., 5., 10., 11.]);
        assert_eq!(Tensor::join_columns([&q, &k, &v]), counting(&[2, 6]));
    }

    #[test]
    fn changing_shared_numbers_leaves_the_owner_untouched() {
        let owner: Arc<Vec<f32>> = Arc::new(vec![1.0, 2.0]);
        let mut x = Tensor::shared(&[2], owner.clone());
        let y = x.clone();
        x.data_mut()[0] = 9.0;
        assert_eq!((x.data(), y.data(), owner.as_slice()), (&[9., 2.][..], &[1., 2.][..], &[1., 2.][..]));
    }

    #[test]
    #[should_panic(expected = "cannot add [3, 2] to [2, 3]")]
    fn adding_another_shape_panics_with_both_shapes() {
        counting(&[2, 3]).add_assign(&counting(&[3, 2]));
    }

    #[test]
    #[should_panic(expected = "shape [2, 2] does not hold 3 numbers")]
    fn a_shape_that_does_not_fit_its_numbers_panics() {
        Tensor::new(&[2, 2], vec![0.0; 3]);
    }

    #[test]
    #[should_panic(expected = "does not hold 4 numbers")]
    fn a_shape_whose_product_overflows_panics() {
        Tensor::new(&[usize::MAX, 4], vec![0.0; 4]);
    }
}
