//! The logit lens: what would the model say if it stopped here?
//!
//! Every block adds to the residual stream, so the stream has the same axes all the way up, and what
//! the last one is read with can read any of them: logits = `ln_f(x) W_U`. Early points say little;
//! where the answer appears is where it has been found (nostalgebraist 2020, "interpreting GPT: the
//! logit lens"). The points are those of TransformerLens's `accumulated_resid(incl_mid=True)`:
//! `0_pre`, `0_mid`, `1_pre`, … and `final_post`.
//!
//! Each point is normalised by its own mean and variance. [`attribution`](crate::attribution)
//! reads the same points with the scale of the run's last one, which makes them add up.

use gpt2::generate::{LogProbs, check_logits};
use gpt2::{Gpt2, Site, SiteKind};
use rayon::prelude::*;
use tensor::{Tensor, argmax};

use crate::cache::run_with_cache_of;
use crate::{ActivationCache, Error, answers};

/// What every point of the residual stream says at every position. Numbers that cannot be computed from
/// the logits of a point, because these are not finite, are NaN. `P` is the number of points,
/// `2 n_layer + 1`; `A` that of the answers.
#[derive(Clone, Debug)]
pub struct LogitLens {
    /// The points' names, `0_pre` to `final_post`: `P`.
    pub labels: Vec<String>,
    /// The most likely next token at each point and position: P × T, row after row. None where its
    /// probability is NaN: the entry there has no meaning.
    pub top_token: Vec<u32>,
    /// Its probability, `(P, T)`.
    pub top_prob: Tensor,
    /// The tokens that were asked about.
    pub answers: Vec<u32>,
    /// Their logits, `(P, T, A)`.
    pub answer_logits: Tensor,
    /// Their probabilities, `(P, T, A)`.
    pub answer_probs: Tensor,
}

impl LogitLens {
    /// How many tokens the prompt has.
    pub fn n_tokens(&self) -> usize {
        self.top_prob.row_len()
    }

    /// logit(answer a) − logit(answer b), `(P, T)`, by the answers' place in `answers`.
    ///
    /// # Panics
    /// If there are no such answers.
    #[track_caller]
    pub fn logit_diff(&self, a: usize, b: usize) -> Tensor {
        let rows = 0..self.answer_logits.n_rows();
        let of_row = |row: &[f32]| finite_or_nan(row[a] - row[b]);
        let difference = |i| of_row(self.answer_logits.row(i));
        Tensor::new(self.top_prob.shape(), rows.map(difference).collect())
    }
}

/// The names of the points of the residual stream, in order.
pub fn labels(n_layer: usize) -> Vec<String> {
    (0..n_layer)
        .flat_map(|layer| [format!("{layer}_pre"), format!("{layer}_mid")])
        .chain(["final_post".to_owned()])
        .collect()
}

/// The sites of these points, in order.
pub fn points(n_layer: usize) -> Vec<Site> {
    (0..n_layer)
        .flat_map(|layer| [SiteKind::ResidPre.at(layer), SiteKind::ResidMid.at(layer)])
        .chain([SiteKind::ResidPost.at(n_layer - 1)])
        .collect()
}

/// The residual stream at every point, `(P, T, C)` (TransformerLens's `accumulated_resid`).
///
/// # Panics
/// If the cache lacks one of the [`points`].
#[track_caller]
pub fn accumulated_resid(cache: &ActivationCache, n_layer: usize) -> Tensor {
    let points = points(n_layer);
    let [t, c] = cache[points[0]].dims();
    let data = points.iter().flat_map(|site| cache[*site].data()).copied();
    Tensor::new(&[points.len(), t, c], data.collect())
}

/// Reads every point of the residual stream at every position through `ln_f` and the unembedding.
///
/// # Errors
/// If the model cannot read the prompt, does not know an answer, or has logits that are not finite.
pub fn logit_lens(model: &Gpt2, ids: &[u32], answers: &[u32]) -> Result<LogitLens, Error> {
    /// Rows of logits that are held at once: 51 MB of them for GPT-2's vocabulary.
    const BATCH: usize = 256;
    answers::check(model, answers)?;
    let n_layer = model.config.n_layer;
    let wanted = points(n_layer);
    let cache = run_with_cache_of(model, ids, |site| wanted.contains(&site))?;
    let points = accumulated_resid(&cache, n_layer); // (P, T, C)
    let [p, t, c] = points.dims();
    let rows = model.ln_f.forward_rows(&points.reshape(&[p * t, c])); // (P·T, C)

    let mut top = Vec::new();
    let mut logits_of = Vec::new();
    let mut probs_of = Vec::new();
    for start in (0..p * t).step_by(BATCH) {
        let logits = model.unembed(rows.view().rows(start..(start + BATCH).min(p * t)));
        let read = (0..logits.n_rows())
            .into_par_iter()
            .map(|i| {
                let row = logits.row(i);
                let probs = LogProbs::of(row);
                let prob = |id: u32| probs.prob(id) as f32;
                let best = argmax(row) as u32;
                let of_answers = answers.iter().map(|&id| prob(id)).collect();
                Ok((best, prob(best), of_answers))
            })
            .collect::<Result<Vec<(u32, f32, Vec<f32>)>, Error>>()?;
        for (i, (token, prob, probs)) in read.into_iter().enumerate() {
            // The last point is what the model says itself.
            if let Some(pos) = (start + i).checked_sub((p - 1) * t) {
                check_logits(logits.row(i), pos + 1)?;
            }
            top.push((token, prob));
            let of_answer = |&id: &u32| finite_or_nan(logits.row(i)[id as usize]);
            logits_of.extend(answers.iter().map(of_answer));
            probs_of.extend(probs);
        }
    }
    let (top_token, top_prob) = top.into_iter().unzip();
    Ok(LogitLens {
        labels: labels(n_layer),
        top_token,
        top_prob: Tensor::new(&[p, t], top_prob),
        answers: answers.to_vec(),
        answer_logits: Tensor::new(&[p, t, answers.len()], logits_of),
        answer_probs: Tensor::new(&[p, t, answers.len()], probs_of),
    })
}

fn finite_or_nan(x: f32) -> f32 {
    if x.is_finite() { x } else { f32::NAN }
}

#[cfg(test)]
mod tests {
    use gpt2::{Config, Pretrained, no_hook};

    use super::*;

    #[test]
    fn the_last_point_says_what_the_model_says() {
        let tiny = Pretrained::tiny().unwrap();
        let ids = tiny.tokenizer.encode("When John and Mary went to").unwrap();
        let lens = logit_lens(&tiny.model, &ids, &[1757, 5335]).unwrap();
        assert_eq!((lens.labels.len(), lens.n_tokens()), (25, ids.len()));
        let logits = tiny.model.forward(&ids, &mut no_hook);
        let diff = lens.logit_diff(0, 1);
        for pos in 0..ids.len() {
            let row = 24 * ids.len() + pos;
            assert_eq!(lens.top_token[row], argmax(logits.row(pos)) as u32);
            assert!((lens.answer_logits.row(row)[0] - logits.row(pos)[1757]).abs() < 1e-4);
            let expected = logits.row(pos)[1757] - logits.row(pos)[5335];
            assert!((diff.row(24)[pos] - expected).abs() < 1e-4);
        }
    }

    #[test]
    fn a_point_whose_logits_overflow_has_no_numbers() {
        let config =
            Config { vocab_size: 9, block_size: 8, n_layer: 2, n_head: 2, n_embd: 8, ..Config::default() };
        let mut model = Gpt2::random(config, 5);
        // The logit of token 4 overflows where axis 0 is large after ln_f, and it is large at first.
        let mut head = model.wte.clone();
        head.row_mut(4).fill(0.0);
        head.row_mut(4)[0] = f32::MAX;
        model.lm_head = Some(head);
        (0..8).for_each(|pos| model.wpe.row_mut(pos)[0] = 50.0);
        model.ln_f.weight.data_mut()[0] = 2.0;
        model.ln_f.bias.data_mut()[0] = 0.0;
        let ids = [1, 2, 3];
        let error = logit_lens(&model, &ids, &[4, 5]).unwrap_err().to_string();
        assert!(error.starts_with("after 1 token the logit of token 4 is"), "{error}");
        // The last MLP writes another axis, beside which nothing is left of axis 0.
        model.h[1].mlp.c_proj.bias.data_mut()[7] = 1e6;
        let lens = logit_lens(&model, &ids, &[4, 5]).unwrap();
        let diff = lens.logit_diff(0, 1);
        for point in 0..5 {
            let last = point == 4;
            let row = lens.answer_probs.row(3 * point);
            let numbers = [lens.top_prob.row(point), diff.row(point), row].concat();
            assert!(
                numbers.iter().all(|x| x.is_finite() == last && x.is_nan() != last),
                "{point}: {numbers:?}"
            );
        }
    }

    #[test]
    fn an_answer_beyond_the_vocabulary_is_an_error() {
        let tiny = Pretrained::tiny().unwrap();
        let error = logit_lens(&tiny.model, &[373], &[60_000]).unwrap_err();
        assert!(error.to_string().contains("there is no token 60000"), "{error}");
    }
}
