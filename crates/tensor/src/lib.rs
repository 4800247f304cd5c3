//! A minimal CPU tensor, and the handful of operations that GPT-2 is made of.
//!
//! A [`Tensor`] is a shape and its `f32` numbers, row after row (*row-major*): the last axis is
//! contiguous. That is all. There is no device and no other number type, so that
//! nothing stands between a reader and the arithmetic.
//!
//! | what | formula | where |
//! |---|---|---|
//! | matrix product | C = A B | [`matmul()`], [`matmul_into`] |
//! | the same, as a textbook has it | `C[i,j] = Σ_k A[i,k] B[k,j]` | [`matmul_reference`] |
//! | linear layer | Y = X W + b, fast for many rows | [`linear()`] |
//! | product with a transpose | Y = X Wᵀ, for a few rows and a tall W | [`matmul_transposed`] |
//! | layer norm | (x − mean) / √(var + ε) · weight + bias | [`layer_norm`] |
//! | softmax | e^(x − max) / Σ e^(x − max) | [`softmax`] |
//! | GELU and its kin | ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))) | [`Activation`] |
//!
//! Beside each stands its *backward pass*, which turns the gradient of a number with respect to the result into
//! that with respect to the input (`dy` and `dx`): [`linear_backward`], [`scale_and_shift_backward`],
//! [`softmax_backward`], [`Activation::backward`]. There is no tape: a model calls them itself, in reverse.
//!
//! A [`View`] is a matrix that borrows its numbers from a tensor through strides: one head of a
//! `(T, n_head, head_size)` tensor, some columns of a weight, a transpose. Taking a view copies
//! nothing, and [`matmul()`] takes views, so the model never moves numbers only to multiply them.
//!
//! **Shapes are checked.** A shape that does not fit is a bug in the calling code: the operation
//! panics and names both shapes. Nothing here fails for any other reason.
//!
//! **Rows are independent.** Every operation computes a row of its result from that row of its
//! input alone, in the same order of additions whatever other rows are there and however many
//! threads there are. So a row has the same bits in every batch, which is what lets the patching
//! engine reuse rows and promise equal results for every number of threads.
//!
//! ```
//! use tensor::{Tensor, matmul};
//!
//! let x = Tensor::new(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
//! let w = Tensor::new(&[3, 1], vec![1.0, 0.0, -1.0]);
//! assert_eq!(matmul(&x, &w).data(), [-2.0, -2.0]);
//! ```

mod activation;
mod linear;
mod matmul;
mod ops;
mod tensor;
mod view;

pub use crate::activation::Activation;
pub use crate::linear::{linear, linear_backward, linear_backward_parameters};
pub use crate::matmul::{matmul, matmul_add_into, matmul_into, matmul_reference};
pub use crate::ops::{
    all_finite, argmax, dot, exp, layer_norm, layer_norm_scale, layer_norm_scale_backward, log_sum_exp,
    log_sum_exp_parts, matmul_transposed, max, scale_and_shift, scale_and_shift_backward,
    scale_and_shift_backward_parameters, softmax, softmax_backward, softmax_row,
};
pub use crate::tensor::Tensor;
pub use crate::view::{View, ViewMut};
