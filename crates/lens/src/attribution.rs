//! Direct logit attribution: which component wrote the answer into the residual stream?
//!
//! The last residual row is a sum: the two embeddings, and what every attention layer and MLP added.
//! Logits are linear in it except for the division by `ln_f`'s scale, and with that scale taken from
//! the run as it was, each part v has its share of the difference of two logits:
//!
//! ```text
//! share(v) = ((v − mean(v)) / scale · ln_f.weight) · (W_U[a] − W_U[b]),    scale = √(var + ε)
//! ```
//!
//! The shares of all parts and `ln_f.bias · (W_U[a] − W_U[b])` add up to logit(a) − logit(b). The share of
//! an attention layer is that of its heads and of its bias. The effect of a part *through* later ones is
//! not in its share: that is what patching is for.
//!
//! Source: Wang et al. 2022 (arXiv 2211.00593); TransformerLens's `decompose_resid`,
//! `accumulated_resid`, `stack_head_results` with `apply_ln_to_stack`, as in its Exploratory
//! Analysis Demo.

use gpt2::{Gpt2, Site, SiteKind};
use tensor::Tensor;

use crate::cache::run_with_cache_of;
use crate::logit_lens;
use crate::{ActivationCache, Error, answers};

/// The share of every component in logit(a) − logit(b) at one position.
#[derive(Clone, Debug)]
pub struct Attribution {
    /// Of the token embedding.
    pub embed: f32,
    /// Of the position embedding.
    pub pos_embed: f32,
    /// Of each attention layer: its heads' and its bias's, `n_layer`.
    pub attn_out: Vec<f32>,
    /// Of each MLP, with its bias, `n_layer`.
    pub mlp_out: Vec<f32>,
    /// Of each head, `(n_layer, n_head)`.
    pub heads: Tensor,
    /// Of each attention layer's bias, `n_layer`.
    pub attn_bias: Vec<f32>,
    /// Of `ln_f.bias`, and of the unembedding's bias where the model has one.
    pub ln_f_bias: f32,
    /// What the share is of the whole residual stream at each point, `0_pre` to `final_post`
    /// ([`logit_lens::labels`]), `ln_f_bias` not counted: `2 n_layer + 1`.
    pub accumulated: Vec<f32>,
    /// logit(a) − logit(b), as the model says it.
    pub logit_diff: f32,
}

impl Attribution {
    /// The components and their shares, in the order in which they write, under TransformerLens's
    /// names; they add up to [`Attribution::sum`].
    pub fn components(&self) -> Vec<(String, f32)> {
        let layers = self.attn_out.iter().zip(&self.mlp_out).enumerate();
        let layers = layers.flat_map(|(layer, (attn, mlp))| {
            [(format!("{layer}_attn_out"), *attn), (format!("{layer}_mlp_out"), *mlp)]
        });
        [("embed".to_owned(), self.embed), ("pos_embed".to_owned(), self.pos_embed)]
            .into_iter()
            .chain(layers)
            .chain([("ln_f_bias".to_owned(), self.ln_f_bias)])
            .collect()
    }

    /// The sum of all shares: `logit_diff`, up to rounding.
    pub fn sum(&self) -> f32 {
        let sum: f64 = self.components().iter().map(|(_, x)| f64::from(*x)).sum();
        sum as f32
    }
}

impl Attribution {
    /// The mean of several, all of one model; `None` if there are none.
    pub fn mean(all: &[Self]) -> Option<Self> {
        let first = all.first()?;
        let n = all.len() as f64;
        let mean = |value: &dyn Fn(&Self) -> f32| -> f32 {
            (all.iter().map(|x| f64::from(value(x))).sum::<f64>() / n) as f32
        };
        let row = |row: &dyn Fn(&Self) -> &[f32]| -> Vec<f32> {
            let indices = 0..row(first).len();
            indices.map(|i| mean(&|x| row(x)[i])).collect()
        };
        Some(Self {
            embed: mean(&|x| x.embed),
            pos_embed: mean(&|x| x.pos_embed),
            attn_out: row(&|x| &x.attn_out),
            mlp_out: row(&|x| &x.mlp_out),
            heads: Tensor::new(first.heads.shape(), row(&|x| x.heads.data())),
            attn_bias: row(&|x| &x.attn_bias),
            ln_f_bias: mean(&|x| x.ln_f_bias),
            accumulated: row(&|x| &x.accumulated),
            logit_diff: mean(&|x| x.logit_diff),
        })
    }
}

/// What the residual stream is the sum of: the token and the position embeddings and the output of
/// every attention layer and MLP, in order (TransformerLens's `decompose_resid`). The names and the
/// rows, `(2 + 2 n_layer, T, C)`.
///
/// # Panics
/// If the cache lacks one of them.
#[track_caller]
pub fn decompose_resid(cache: &ActivationCache, n_layer: usize) -> (Vec<String>, Tensor) {
    let mut labels = vec!["embed".to_owned(), "pos_embed".to_owned()];
    let mut sites = vec![SiteKind::Embed.at(0), SiteKind::PosEmbed.at(0)];
    for layer in 0..n_layer {
        labels.extend([format!("{layer}_attn_out"), format!("{layer}_mlp_out")]);
        sites.extend([SiteKind::AttnOut.at(layer), SiteKind::MlpOut.at(layer)]);
    }
    let [t, c] = cache[SiteKind::Embed.at(0)].dims();
    let data = sites.iter().flat_map(|site| cache[*site].data()).copied();
    let rows = Tensor::new(&[sites.len(), t, c], data.collect());
    (labels, rows)
}

/// The direction d with share(v) = v · d / scale: `ln_f.weight · (W_U[a] − W_U[b])`, made to add up
/// to zero, which does what subtracting v's mean would. `(C)`.
///
/// # Panics
/// If a token is beyond the vocabulary.
#[track_caller]
pub fn logit_diff_direction(model: &Gpt2, a: u32, b: u32) -> Vec<f64> {
    let unembedding = model.unembedding();
    let (a, b) = (unembedding.row(a as usize), unembedding.row(b as usize));
    let weighted = model.ln_f.weight.data().iter().zip(a.iter().zip(b));
    let mut direction: Vec<f64> =
        weighted.map(|(w, (a, b))| f64::from(*w) * (f64::from(*a) - f64::from(*b))).collect();
    let mean = direction.iter().sum::<f64>() / direction.len() as f64;
    direction.iter_mut().for_each(|x| *x -= mean);
    direction
}

/// The share of one row of the residual stream, or of a part of it; NaN if it is not finite.
pub fn share(row: &[f32], direction: &[f64], scale: f32) -> f32 {
    let product = row.iter().zip(direction).map(|(x, d)| f64::from(*x) * d);
    let share = (product.sum::<f64>() / f64::from(scale)) as f32;
    if share.is_finite() { share } else { f32::NAN }
}

/// The share of every component in logit(a) − logit(b) of the token after position `pos`.
///
/// # Errors
/// If the model cannot read the prompt, the prompt has no such position, or the model does not know
/// an answer.
pub fn direct_logit_attribution(
    model: &Gpt2,
    ids: &[u32],
    pos: usize,
    a: u32,
    b: u32,
) -> Result<Attribution, Error> {
    answers::check(model, &[a, b])?;
    let n_layer = model.config.n_layer;
    let points = logit_lens::points(n_layer);
    let cache = run_with_cache_of(model, ids, |site| {
        points.contains(&site)
            || matches!(
                site.kind,
                SiteKind::Embed
                    | SiteKind::PosEmbed
                    | SiteKind::AttnOut
                    | SiteKind::MlpOut
                    | SiteKind::Result
                    | SiteKind::LnFinalScale
                    | SiteKind::LnFinalNormalized
            )
    })?;
    if pos >= ids.len() {
        return Err(Error::NoSuchPosition { pos, count: ids.len() });
    }

    let scale = cache[SiteKind::LnFinalScale.at(0)].row(pos)[0];
    let direction = logit_diff_direction(model, a, b);
    let share = |row: &[f32]| share(row, &direction, scale);
    let at = |site: Site| share(cache[site].row(pos));

    let n_head = model.config.n_head;
    let heads = (0..n_layer * n_head).map(|i| {
        let result = &cache[SiteKind::Result.at(i / n_head)]; // (T, n_head, C)
        share(result.row(pos * n_head + i % n_head))
    });
    let [row_a, row_b] = [a, b].map(|id| model.unembedding().row(id as usize));
    let difference = |row: &[f32]| -> f32 {
        let product = row.iter().zip(row_a.iter().zip(row_b));
        let sum: f64 = product.map(|(x, (a, b))| f64::from(*x) * (f64::from(*a) - f64::from(*b))).sum();
        sum as f32
    };
    let b_u =
        (model.lm_head_bias.as_ref()).map_or(0.0, |b_u| b_u.data()[a as usize] - b_u.data()[b as usize]);
    Ok(Attribution {
        embed: at(SiteKind::Embed.at(0)),
        pos_embed: at(SiteKind::PosEmbed.at(0)),
        attn_out: (0..n_layer).map(|l| at(SiteKind::AttnOut.at(l))).collect(),
        mlp_out: (0..n_layer).map(|l| at(SiteKind::MlpOut.at(l))).collect(),
        heads: Tensor::new(&[n_layer, n_head], heads.collect()),
        attn_bias: (model.h.iter()).map(|block| share(block.attn.c_proj.bias.data())).collect(),
        ln_f_bias: difference(model.ln_f.bias.data()) + b_u,
        accumulated: points.iter().map(|site| at(*site)).collect(),
        logit_diff: difference(cache[SiteKind::LnFinalNormalized.at(0)].row(pos)) + b_u,
    })
}

#[cfg(test)]
mod tests {
    use gpt2::{Config, Gpt2, Pretrained};
    use proptest::prelude::*;

    use super::*;
    use crate::processing::{Flags, process};

    fn assert_adds_up(model: &Gpt2, ids: &[u32], pos: usize, a: u32, b: u32) {
        let parts = direct_logit_attribution(model, ids, pos, a, b).unwrap();
        let logits = model.forward(ids, &mut gpt2::no_hook);
        let expected = logits.row(pos)[a as usize] - logits.row(pos)[b as usize];
        let close = |x: f32, y: f32, what: &str| {
            assert!((x - y).abs() < 2e-4, "{what}: {x} instead of {y}");
        };
        close(parts.logit_diff, expected, "logit difference");
        close(parts.sum(), expected, "sum");
        let n_layer = model.config.n_layer;
        for layer in 0..n_layer {
            let heads: f32 = parts.heads.row(layer).iter().sum();
            close(heads + parts.attn_bias[layer], parts.attn_out[layer], "heads");
        }
        let mut sum = parts.embed + parts.pos_embed;
        for layer in 0..n_layer {
            close(parts.accumulated[2 * layer], sum, "accumulated");
            close(parts.accumulated[2 * layer + 1], sum + parts.attn_out[layer], "accumulated");
            sum += parts.attn_out[layer] + parts.mlp_out[layer];
        }
        close(parts.accumulated[2 * n_layer], sum, "accumulated");
        close(sum + parts.ln_f_bias, expected, "what the last point says");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn the_shares_add_up_for_any_prompt_position_and_answers(
            ids in proptest::collection::vec(0_u32..50257, 1..20),
            at: prop::sample::Index,
            [a, b] in [0_u32..50257, 0_u32..50257],
        ) {
            let tiny = Pretrained::tiny().unwrap();
            assert_adds_up(&tiny.model, &ids, at.index(ids.len()), a, b);
        }

        #[test]
        fn the_shares_add_up_in_any_model(
            [n_layer, n_head, head_size] in [1..5_usize, 1..4_usize, 4..10_usize],
            seed: u64,
            ids in proptest::collection::vec(0_u32..30, 1..12),
            at: prop::sample::Index,
            [a, b] in [0_u32..30, 0_u32..30],
        ) {
            let sizes = Config {
                vocab_size: 30,
                block_size: 12,
                n_layer,
                n_head,
                n_embd: n_head * head_size,
                ..Config::default()
            };
            let model = Gpt2::random(sizes.of_kin(seed), seed);
            assert_adds_up(&model, &ids, at.index(ids.len()), a, b);
            let processed = process(&model, Flags::DEFAULT);
            assert_adds_up(&processed, &ids, at.index(ids.len()), a, b);
        }

        #[test]
        fn a_share_is_linear(
            [x, y] in [proptest::collection::vec(-1.0_f32..1.0, 64),
                proptest::collection::vec(-1.0_f32..1.0, 64)],
            factor in -3.0_f32..3.0,
        ) {
            let tiny = Pretrained::tiny().unwrap();
            let direction = logit_diff_direction(&tiny.model, 5437, 4176);
            let of = |row: &[f32]| share(row, &direction, 1.5);
            let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + factor * y).collect();
            prop_assert!((of(&sum) - of(&x) - factor * of(&y)).abs() < 1e-4);
            let shifted: Vec<f32> = x.iter().map(|x| x + factor).collect();
            prop_assert!((of(&shifted) - of(&x)).abs() < 1e-4);
        }
    }

    #[test]
    fn the_shares_add_up_in_a_processed_model() {
        let tiny = Pretrained::tiny().unwrap();
        let processed = process(&tiny.model, Flags::DEFAULT);
        let ids = tiny.tokenizer.encode("When John and Mary went to").unwrap();
        assert_adds_up(&processed, &ids, 3, 1757, 5335);
    }

    #[test]
    fn the_parts_of_the_stream_add_up_to_it() {
        let tiny = Pretrained::tiny().unwrap().model;
        let cache = crate::run_with_cache(&tiny, &[48736, 5437, 373]).unwrap();
        let (labels, parts) = decompose_resid(&cache, 12);
        assert_eq!((labels.len(), parts.shape()), (26, &[26, 3, 64][..]));
        let last = &cache[SiteKind::ResidPost.at(11)];
        for (i, expected) in last.data().iter().enumerate() {
            let sum: f32 = parts.data().iter().skip(i).step_by(3 * 64).sum();
            assert!((sum - expected).abs() < 1e-4);
        }
    }

    #[test]
    fn a_position_beyond_the_end_is_an_error() {
        let tiny = Pretrained::tiny().unwrap();
        let error = direct_logit_attribution(&tiny.model, &[373, 257], 2, 1, 2).unwrap_err();
        assert!(error.to_string().contains("the positions 0 to 1"), "{error}");
    }
}
