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

use gpt2::generate::check_logits;
use gpt2::{Gpt2, Site};
use rayon::prelude::*;
use tensor::{Tensor, argmax, log_sum_exp};

use crate::cache::run_with_cache_of;
use crate::{ActivationCache, Error, answers};

/// What every point of the residual stream says at every position. `P` is the number of points,
/// `2 n_layer + 1`; `A` that of the answers.
#[derive(Clone, Debug)]
pub struct LogitLens {
    /// The points' names, `0_pre` to `final_post`: `P`.
    pub labels: Vec<String>,
    /// The most likely next token at each point and position: P × T, row after row.
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
        let difference = |i| self.answer_logits.row(i)[a] - self.answer_logits.row(i)[b];
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
        .flat_map(|layer| [Site::ResidPre(layer), Site::ResidMid(layer)])
        .chain([Site::ResidPost(n_layer - 1)])
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
                check_logits(row, (start + i) % t + 1)?;
                let total = log_sum_exp(row);
                let prob = |id: u32| (f64::from(row[id as usize]) - total).exp() as f32;
                let best = argmax(row) as u32;
                let of_answers = answers.iter().map(|&id| prob(id)).collect();
                Ok((best, prob(best), of_answers))
            })
            .collect::<Result<Vec<(u32, f32, Vec<f32>)>, Error>>()?;
        for (i, (token, prob, probs)) in read.into_iter().enumerate() {
            top.push((token, prob));
            logits_of.extend(answers.iter().map(|&id| logits.row(i)[id as usize]));
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

#[cfg(test)]
mod tests {
    use gpt2::{Pretrained, no_hook};

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
    fn an_answer_beyond_the_vocabulary_is_an_error() {
        let tiny = Pretrained::tiny().unwrap();
        let error = logit_lens(&tiny.model, &[373], &[60_000]).unwrap_err();
        assert!(
            error.to_string().contains("there is no token 60000"),
            "{error}"
        );
    }
}
