//! One head's share of the parameters.
//!
//! A head reads the residual stream through W_Q, W_K and W_V, each `(C, head_size)`, and writes to
//! it through W_O, `(head_size, C)`. They are columns of `c_attn` and rows of `c_proj`. Two products
//! of them are all that a head does (Elhage et al. 2021, "A Mathematical Framework for Transformer
//! Circuits"): W_Q W_Kᵀ, the *QK circuit*, says where it looks; W_V W_O, the *OV circuit*, what it
//! moves from there.

use gpt2::Gpt2;
use tensor::{Tensor, View};

use crate::{Error, FactoredMatrix};

/// The four matrices of one head, where they lie.
#[derive(Clone, Copy)]
pub struct HeadWeights<'a> {
    /// To its query, `(C, head_size)`.
    pub w_q: View<'a>,
    /// To its key, `(C, head_size)`.
    pub w_k: View<'a>,
    /// To its value, `(C, head_size)`.
    pub w_v: View<'a>,
    /// From what it gathered back to the residual stream, `(head_size, C)`.
    pub w_o: View<'a>,
}

/// The matrices of one head.
///
/// # Errors
/// If the model does not have this head.
pub fn head_weights(model: &Gpt2, layer: usize, head: usize) -> Result<HeadWeights<'_>, Error> {
    let config = &model.config;
    if layer >= config.n_layer || head >= config.n_head {
        return Err(Error::NoSuchHead { layer, head, n_layer: config.n_layer, n_head: config.n_head });
    }
    Ok(heads_of_layer(model, layer).swap_remove(head))
}

/// The matrices of all heads of one layer.
///
/// # Panics
/// If the model does not have this layer.
#[track_caller]
pub fn heads_of_layer(model: &Gpt2, layer: usize) -> Vec<HeadWeights<'_>> {
    let (c, head_size) = (model.config.n_embd, model.config.head_size());
    let attn = &model.h[layer].attn;
    (0..model.config.n_head)
        .map(|head| {
            let range = |start: usize| start + head * head_size..start + (head + 1) * head_size;
            let [w_q, w_k, w_v] = [0, c, 2 * c].map(|part| attn.c_attn.weight.view().columns(range(part)));
            let w_o = attn.c_proj.weight.view().rows(range(0));
            HeadWeights { w_q, w_k, w_v, w_o }
        })
        .collect()
}

impl HeadWeights<'_> {
    /// W_Q W_Kᵀ, `(C, C)`: how well a query from one row of the stream fits the key of another.
    pub fn qk(&self) -> FactoredMatrix {
        FactoredMatrix::new(copy(self.w_q), copy(self.w_k.t()))
    }

    /// W_V W_O, `(C, C)`: what reading a row of the stream writes to it elsewhere.
    pub fn ov(&self) -> FactoredMatrix {
        FactoredMatrix::new(copy(self.w_v), copy(self.w_o))
    }
}

/// A view's numbers as a tensor of its own.
pub(crate) fn copy(view: View<'_>) -> Tensor {
    let [rows, cols] = view.shape();
    let entry = |i: usize| view.get(i / cols, i % cols);
    Tensor::new(&[rows, cols], (0..rows * cols).map(entry).collect())
}

#[cfg(test)]
mod tests {
    use gpt2::{Pretrained, SiteKind};
    use tensor::matmul;

    use super::*;
    use crate::run_with_cache;

    #[test]
    fn a_heads_weights_make_its_query_and_its_result() {
        let tiny = Pretrained::tiny().unwrap().model;
        let cache = run_with_cache(&tiny, &[48736, 5437, 373]).unwrap();
        let head = head_weights(&tiny, 3, 2).unwrap();
        let q = matmul(&cache[SiteKind::Ln1Normalized.at(3)], head.w_q);
        let result = matmul(cache[SiteKind::Z.at(3)].at_middle(2), head.w_o);
        for pos in 0..3 {
            for i in 0..16 {
                let bias = tiny.h[3].attn.c_attn.bias.data()[2 * 16 + i];
                let expected = cache[SiteKind::Q.at(3)].at_middle(2).get(pos, i);
                assert!((q.row(pos)[i] + bias - expected).abs() < 1e-5);
            }
            let expected = cache[SiteKind::Result.at(3)].at_middle(2).to_rows();
            assert_eq!(result.row(pos), expected[pos]);
        }
    }

    #[test]
    fn a_head_that_is_not_there_is_refused_with_the_range() {
        let tiny = Pretrained::tiny().unwrap().model;
        let error = head_weights(&tiny, 12, 0).err().unwrap().to_string();
        assert_eq!(error, "there is no head 12.0: this model has the layers 0 to 11 with the heads 0 to 3");
    }
}
