//! The MLP transplant: does it matter which of two equal tokens an MLP's output comes from?
//!
//! In a sequence that stands there twice, position p of the second copy and p − seq_len of the first
//! hold the same token in different places. Replace `mlp_out` of one layer at p by its value at
//! p − seq_len of the same run, and see how much worse the second copy is predicted:
//!
//! ```text
//! change = mean −log p(second copy), transplanted − mean −log p(second copy)
//! ```
//!
//! Where the change is small, that MLP works on the token alone; where it is large, it had used that
//! the token was there before (the project's induction article).
//!
//! # How it is computed
//!
//! Each cell of the grid is a run of its own, and it differs from the unchanged run only in the rows
//! p … T − 2 (what the last token predicts is not asked for), and only after the MLP of its layer.
//! So all runs walk through the layers together, each from its own layer on, their changed rows
//! below each other in one tall matrix: every weight is read once a layer for thousands of rows.
//! Keys and values to the left of p are those of the unchanged run. A row's result depends on that
//! row alone, so the grid has the same bits however the runs are cut into chunks.

use std::ops::Range;

use gpt2::model::Block;
use gpt2::{Gpt2, SiteKind};
use rayon::prelude::*;
use tensor::{Tensor, all_finite, log_sum_exp, matmul_into};

use crate::cache::run_with_cache_of;
use crate::heads::RepeatedTokens;
use crate::{ActivationCache, Error};

/// Rows that walk together: of GPT-2's width about 110 MB of activations.
const ROWS: usize = 4096;
/// Tokens whose logits are held at once, for all rows: 32 MB.
const TOKENS: usize = 2048;

/// The change of the second copy's mean loss for every layer and position p of the second copy,
/// `(n_layer, seq_len)`: column i is the second copy's token i. `progress` is told each share of the
/// work when it is done; the shares add up to 1.
///
/// # Errors
/// If the model cannot read the prompt, or nothing is repeated in it.
pub fn mlp_transplant(
    model: &Gpt2,
    prompt: &RepeatedTokens,
    progress: &dyn Fn(f64),
) -> Result<Tensor, Error> {
    in_chunks(model, prompt, ROWS, progress)
}

/// The grid, computed at most `limit` rows at a time (but at least one run).
fn in_chunks(
    model: &Gpt2,
    prompt: &RepeatedTokens,
    limit: usize,
    progress: &dyn Fn(f64),
) -> Result<Tensor, Error> {
    let RepeatedTokens { ids, seq_len } = prompt;
    let (n_layer, t) = (model.config.n_layer, ids.len());
    if *seq_len == 0 || *seq_len > t / 2 {
        return Err(Error::SeqLen { seq_len: *seq_len, limit: t / 2 });
    }
    let base = run_with_cache_of(model, ids, |site| {
        matches!(
            site.kind,
            SiteKind::K
                | SiteKind::V
                | SiteKind::MlpOut
                | SiteKind::ResidMid
                | SiteKind::ResidPost
                | SiteKind::LnFinalNormalized
        )
    })?;
    let base_log_probs = log_probs(model, &base[SiteKind::LnFinalNormalized.at(0)], &ids[1..]);

    // The last position predicts nothing, so a transplant there changes nothing.
    let cells: Vec<(usize, usize)> =
        (0..n_layer).flat_map(|layer| (t - seq_len..t - 1).map(move |pos| (layer, pos))).collect();
    let mut grid = Tensor::zeros(&[n_layer, *seq_len]);
    let mut left = &cells[..];
    while !left.is_empty() {
        let mut rows = 0;
        let fits = |cell: &&(usize, usize)| {
            rows += t - 1 - cell.1;
            rows <= limit
        };
        let n = left.iter().take_while(fits).count().max(1);
        let (chunk, rest) = left.split_at(n);
        left = rest;
        let mut walk = Walk { model, prompt, base: &base, runs: Vec::new(), x: Vec::new() };
        for layer in chunk[0].0..n_layer {
            walk.block(layer);
            walk.branch(layer, chunk);
        }
        for (run, log_probs) in walk.ends() {
            // In f64: a small difference of sums.
            let lost = run.rows.clone().zip(log_probs);
            let lost = lost.map(|(pos, patched)| f64::from(base_log_probs[pos] - patched));
            grid.row_mut(run.layer)[run.rows.start - (t - seq_len)] =
                (lost.sum::<f64>() / *seq_len as f64) as f32;
        }
        progress(n as f64 / cells.len() as f64);
    }
    if cells.is_empty() {
        progress(1.0);
    }
    Ok(grid)
}

/// One cell's run.
struct Run {
    /// The layer whose MLP's output was transplanted.
    layer: usize,
    /// The positions that may differ from the unchanged run: from the transplanted one on.
    rows: Range<usize>,
    /// Where the first one's row stands in the tall matrix.
    at: usize,
}

/// Runs on their way through the layers.
struct Walk<'a> {
    model: &'a Gpt2,
    prompt: &'a RepeatedTokens,
    /// The unchanged run.
    base: &'a ActivationCache,
    runs: Vec<Run>,
    /// The residual stream: the rows of all runs, `(N, C)`.
    x: Vec<f32>,
}

impl Walk<'_> {
    /// Takes the runs that are under way through one block.
    fn block(&mut self, layer: usize) {
        if self.runs.is_empty() {
            return;
        }
        let c = self.model.config.n_embd;
        let Block { ln_1, attn, ln_2, mlp } = &self.model.h[layer];
        let n = self.x.len() / c;
        let x = Tensor::new(&[n, c], std::mem::take(&mut self.x));

        let normalized = ln_1.forward_rows(&x);
        let qkv = attn.c_attn.forward_rows(&normalized); // (N, 3C)
        drop(normalized);
        let z = self.attention(layer, &qkv); // (N, C)
        drop(qkv);
        let mut mid = attn.c_proj.forward_rows(&z);
        mid.add_assign(&x);

        let normalized = ln_2.forward_rows(&mid);
        mid.add_assign(&mlp.forward_rows(&normalized));
        self.x = mid.into_data();
    }

    /// What the heads gather, `(N, C)`, from each row's queries, keys and values, `(N, 3C)`.
    fn attention(&self, layer: usize, qkv: &Tensor) -> Tensor {
        let c = qkv.row_len() / 3;
        let (base_k, base_v) = (&self.base[SiteKind::K.at(layer)], &self.base[SiteKind::V.at(layer)]); // (T, n_head, head_size)
        let attn = &self.model.h[layer].attn;
        let index: Vec<(&Run, usize)> =
            (self.runs.iter()).flat_map(|run| run.rows.clone().map(move |dest| (run, dest))).collect();
        let mut z = Tensor::zeros(&[index.len(), c]);
        let rows = z.data_mut().par_chunks_exact_mut(c).zip(index).enumerate();
        rows.for_each(|(at, (z, (run, dest)))| {
            // Keys and values: the unchanged run's to the left of the transplant, then the run's own.
            let left = (0..run.rows.start).map(|src| {
                let row = src * c..(src + 1) * c;
                (&base_k.data()[row.clone()], &base_v.data()[row])
            });
            let own = (run.at..=run.at + dest - run.rows.start).map(|row| qkv.row(row)[c..].split_at(c));
            let (keys, values): (Vec<_>, Vec<_>) = left.chain(own).unzip();
            attn.attend(&qkv.row(at)[..c], &keys, &values, z);
        });
        z
    }

    /// Starts the runs of this layer: the transplanted row, and those to its right, which are still
    /// the unchanged run's.
    fn branch(&mut self, layer: usize, cells: &[(usize, usize)]) {
        let RepeatedTokens { ids, seq_len } = self.prompt;
        let [mid, mlp_out, post] = [SiteKind::ResidMid, SiteKind::MlpOut, SiteKind::ResidPost]
            .map(|site| &self.base[site.at(layer)]);
        for (_, pos) in cells.iter().filter(|(of, _)| *of == layer) {
            let rows = *pos..ids.len() - 1;
            self.runs.push(Run { layer, at: self.x.len() / post.row_len(), rows: rows.clone() });
            let transplanted = mid.row(*pos).iter().zip(mlp_out.row(pos - seq_len));
            self.x.extend(transplanted.map(|(x, y)| x + y));
            (rows.skip(1)).for_each(|pos| self.x.extend(post.row(pos)));
        }
    }

    /// Each run with the log probability of the token after each of its rows.
    fn ends(self) -> Vec<(Run, Vec<f32>)> {
        let c = self.model.config.n_embd;
        let x = Tensor::new(&[self.x.len() / c, c], self.x);
        let x = self.model.ln_f.forward_rows(&x);
        let next: Vec<u32> = (self.runs.iter())
            .flat_map(|run| &self.prompt.ids[run.rows.start + 1..run.rows.end + 1])
            .copied()
            .collect();
        let all = log_probs(self.model, &x, &next);
        let of_run = |run: Run| {
            let log_probs = all[run.at..run.at + run.rows.len()].to_vec();
            (run, log_probs)
        };
        self.runs.into_iter().map(of_run).collect()
    }
}

/// The log probability of `next[i]` after each normalised row i, for as many as there are. All rows
/// meet some thousand tokens at a time, so that the unembedding is read once and no row of logits is
/// held as a whole: log Σ e^logit is put together from the parts.
fn log_probs(model: &Gpt2, x: &Tensor, next: &[u32]) -> Vec<f32> {
    let unembedding = model.unembedding();
    let x = x.view().rows(0..next.len());
    let mut totals = vec![f64::NEG_INFINITY; next.len()];
    let mut wanted = vec![0.0_f32; next.len()];
    let mut logits = Tensor::zeros(&[0, 0]);
    for start in (0..unembedding.n_rows()).step_by(TOKENS) {
        let tokens = start..unembedding.n_rows().min(start + TOKENS);
        let shape = [next.len(), tokens.len()];
        if logits.shape() != shape {
            logits = Tensor::zeros(&shape);
        }
        let w_u = unembedding.view().rows(tokens.clone());
        matmul_into(x, w_u.t(), logits.view_mut());
        let rows = logits.data_mut().par_chunks_exact_mut(tokens.len());
        let results = totals.par_iter_mut().zip(&mut wanted).zip(next);
        rows.zip(results).for_each(|(row, ((total, wanted), next))| {
            if let Some(b_u) = &model.lm_head_bias {
                let pairs = row.iter_mut().zip(&b_u.data()[tokens.clone()]);
                pairs.for_each(|(logit, b)| *logit += b);
            }
            let part = match all_finite(row) {
                true => log_sum_exp(row),
                false => f64::NAN,
            };
            *total = log_add_exp(*total, part);
            if tokens.contains(&(*next as usize)) {
                *wanted = row[*next as usize - start];
            }
        });
    }
    let pairs = wanted.iter().zip(totals);
    pairs.map(|(logit, total)| (f64::from(*logit) - total) as f32).collect()
}

/// ln(e^a + e^b); NaN if one of them is. (`max` and `min` would pass over it.)
fn log_add_exp(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    high + (low - high).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use gpt2::Pretrained;
    use gpt2::generate::log_prob;

    use super::*;
    use crate::processing::{Flags, process};
    use crate::text::score_text;

    #[test]
    fn each_change_is_that_of_a_whole_run_with_a_hook() {
        let tiny = Pretrained::tiny().unwrap().model;
        for bos in [Some(50256), None] {
            let prompt = RepeatedTokens::new(&[48736, 5437, 373, 257, 1353], bos);
            let (ids, seq_len) = (&prompt.ids, prompt.seq_len);
            let grid = mlp_transplant(&tiny, &prompt, &|_| {}).unwrap();
            assert_eq!(grid.shape(), [12, 5]);
            let base = score_text(&tiny, ids).unwrap();
            for layer in 0..12 {
                for i in 0..seq_len {
                    let p = ids.len() - seq_len + i;
                    let logits = tiny.forward(ids, &mut |site, x| {
                        if site == SiteKind::MlpOut.at(layer) {
                            let row = x.row(p - seq_len).to_vec();
                            x.row_mut(p).copy_from_slice(&row);
                        }
                    });
                    let lost = (prompt.first_half()..ids.len() - 1)
                        .map(|pos| base[pos].log_prob - log_prob(logits.row(pos), ids[pos + 1]));
                    let expected = (lost.sum::<f64>() / seq_len as f64) as f32;
                    let got = grid.row(layer)[i];
                    assert!((got - expected).abs() < 1e-4, "{layer}, {i}: {got}, not {expected}");
                }
            }
            assert!((0..12).all(|layer| grid.row(layer)[4] == 0.0));
        }
    }

    #[test]
    fn the_grid_has_the_same_bits_however_it_is_cut_and_all_of_the_work_is_reported() {
        let tiny = Pretrained::tiny().unwrap().model;
        let prompt = RepeatedTokens::new(&[48736, 5437, 373, 257], Some(50256));
        let whole = mlp_transplant(&tiny, &prompt, &|_| {}).unwrap();
        for limit in [1, 20, 50] {
            let done = std::cell::Cell::new(0.0);
            let progress = |share: f64| done.set(done.get() + share);
            let cut = in_chunks(&tiny, &prompt, limit, &progress).unwrap();
            assert_eq!(cut, whole, "{limit} rows");
            assert!((done.get() - 1.0).abs() < 1e-9, "{}", done.get());
        }
    }

    #[test]
    fn processed_weights_lose_as_much() {
        let tiny = Pretrained::tiny().unwrap().model;
        let prompt = RepeatedTokens::new(&[48736, 5437, 373, 257], Some(50256));
        let raw = mlp_transplant(&tiny, &prompt, &|_| {}).unwrap();
        let processed = process(&tiny, Flags::DEFAULT);
        let other = mlp_transplant(&processed, &prompt, &|_| {}).unwrap();
        for (x, y) in raw.data().iter().zip(other.data()) {
            assert!((x - y).abs() < 1e-3, "{x} and {y}");
        }
    }

    #[test]
    fn what_is_not_repeated_is_refused() {
        let tiny = Pretrained::tiny().unwrap().model;
        let prompt = RepeatedTokens { ids: vec![1, 2, 3], seq_len: 2 };
        assert!(mlp_transplant(&tiny, &prompt, &|_| {}).is_err());
    }
}
