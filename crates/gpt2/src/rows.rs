//! The layers that work on each row by itself, for the rows of many runs at once and without hooks.
//!
//! They compute what [`crate::model`]'s forward passes compute, to within rounding, on
//! [`tensor::linear`]: the more rows, the faster each. A row has the same bits whatever rows are beside it.

use tensor::{Tensor, View, gelu, layer_norm, linear};

use crate::model::{LayerNorm, Linear, Mlp};

impl LayerNorm {
    /// Normalises each row of `x`, `(R, C)`.
    pub fn forward_rows(&self, x: &Tensor) -> Tensor {
        layer_norm(x, &self.weight, &self.bias, self.epsilon)
    }
}

impl Linear {
    /// `(R, in)` to `(R, out)`.
    pub fn forward_rows<'a>(&self, x: impl Into<View<'a>>) -> Tensor {
        linear(x, &self.weight, self.bias.data())
    }
}

impl Mlp {
    /// As many rows have a hidden layer at a time, as it is four times as wide as all else.
    pub const ROWS_TOGETHER: usize = 1024;

    /// What the MLP adds to the residual stream, `(R, C)`, from its normalised rows `x`, `(R, C)`.
    pub fn forward_rows(&self, x: &Tensor) -> Tensor {
        let mut out = Vec::new();
        for start in (0..x.n_rows()).step_by(Self::ROWS_TOGETHER) {
            let rows = start..x.n_rows().min(start + Self::ROWS_TOGETHER);
            let mut hidden = self.c_fc.forward_rows(x.view().rows(rows)); // (rows, 4C)
            gelu(&mut hidden);
            let some = self.c_proj.forward_rows(&hidden).into_data(); // (rows, C)
            if out.is_empty() {
                out = some;
            } else {
                out.extend(some);
            }
        }
        Tensor::new(x.shape(), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::no_hook;
    use crate::{Config, Gpt2, Site};

    #[test]
    fn rows_come_out_as_in_the_model_and_have_the_same_bits_in_any_company() {
        let sizes = Config {
            vocab_size: 7,
            block_size: 4,
            n_layer: 1,
            n_head: 2,
            n_embd: 6,
            layer_norm_epsilon: 1e-5,
        };
        let model = Gpt2::random(sizes, 3);
        let block = &model.h[0];
        // More rows than have a hidden layer together.
        let n = Mlp::ROWS_TOGETHER + 3;
        let numbers = (0..n * 6).map(|i| (i * i % 101) as f32 / 50.0 - 1.0);
        let x = Tensor::new(&[n, 6], numbers.collect());

        let sites = [Site::Ln2Scale(0), Site::Ln2Normalized(0)];
        let normalized = block.ln_2.forward_rows(&x);
        assert_eq!(normalized, block.ln_2.forward(&x, sites, &mut no_hook));
        let out = block.mlp.forward_rows(&normalized);
        let expected = block.mlp.forward(0, &normalized, &mut no_hook);
        for (got, expected) in out.data().iter().zip(expected.data()) {
            assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
        }
        let last = Tensor::new(&[1, 6], normalized.row(n - 1).to_vec());
        assert_eq!(block.mlp.forward_rows(&last).row(0), out.row(n - 1));
        let none = Tensor::zeros(&[0, 6]);
        assert_eq!(block.mlp.forward_rows(&none), none);
    }
}
