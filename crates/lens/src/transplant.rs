//! The MLP transplant: does it matter which of two equal tokens an MLP's output comes from?
//!
//! In a repeated sequence, position p of the second copy and p − seq_len of the first have the same token
//! in different places. Replace `mlp_out` of one layer at p by its value at p − seq_len of the same run,
//! and see how much worse the second copy is predicted:
//!
//! ```text
//! change = mean −log p(second copy), transplanted − mean −log p(second copy)
//! ```
//!
//! If the change is small, that MLP works on the token alone; if it is large, it had used that the token
//! occurred before (the project's induction article).
//!
//! # How it is computed
//!
//! Each cell of the grid is a run of its own, a fork of the unchanged run with one row of one MLP's output
//! replaced. All of them step through the layers together ([`gpt2::walk`]), so every weight is read once a
//! layer for thousands of rows. A row's result depends on that row alone, so the grid has the same bits
//! however the runs are cut into chunks.

use gpt2::walk::{BASE, Edit, Ends, Fork, Plan, Reader, SOURCE, Value, Walk};
use gpt2::{Gpt2, Patch, SiteKind};
use rayon::prelude::*;
use tensor::{Tensor, all_finite, log_sum_exp, matmul_into};

use crate::Error;
use crate::heads::RepeatedTokens;

/// Rows that walk together: of GPT-2's width about 110 MB of activations.
const ROWS: usize = 4096;
/// Tokens whose logits are held at once, for all rows: 32 MB.
const TOKENS: usize = 2048;

/// The change of the second copy's mean loss for every layer and position p of the second copy,
/// `(n_layer, seq_len)`: column i is token i of the second copy. `progress` is called with each share of
/// the work when it is done; the shares add up to 1.
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
    model.check_prompt(ids)?;
    let readers: Vec<Reader> =
        (0..n_layer).map(|layer| Reader { site: SiteKind::MlpOut, layer, head: None }).collect();
    let mut base = Walk::new(model, Plan { readers: &readers, first_read: 0, ..Plan::of(ids) });
    base.run(|_| {});
    let written = base.into_reads(); // of each layer's MLP, (T, C)

    // The last position predicts nothing, so a transplant there changes nothing.
    let cells: Vec<(usize, usize)> =
        (0..n_layer).flat_map(|layer| (t - seq_len..t - 1).map(move |pos| (layer, pos))).collect();
    let mut grid = Tensor::zeros(&[n_layer, *seq_len]);
    let mut left = &cells[..];
    while !left.is_empty() {
        let mut rows = 0;
        let fits = |cell: &&(usize, usize)| {
            rows += t - cell.1;
            rows <= limit
        };
        let n = left.iter().take_while(fits).count().max(1);
        let (chunk, rest) = left.split_at(n);
        left = rest;
        let fork = |&(layer, pos): &(usize, usize)| {
            let row = written[layer].rows.row(pos - seq_len).to_vec();
            let rows = Tensor::new(&[1, row.len()], row);
            let value = Value::Rows { first: pos, rows };
            Fork { edits: vec![Edit { patch: Patch::whole(SiteKind::MlpOut, layer), value }] }
        };
        let forks: Vec<Fork<'_>> = chunk.iter().map(fork).collect();
        let mut walk = Walk::new(model, Plan { forks: &forks, first_read: t - seq_len, ..Plan::of(ids) });
        walk.run(|_| {});
        for (fork, lost) in losses(model, ids, &walk.ends()) {
            let (layer, pos) = chunk[fork];
            grid.row_mut(layer)[pos - (t - seq_len)] = (lost / *seq_len as f64) as f32;
        }
        progress(n as f64 / cells.len() as f64);
    }
    if cells.is_empty() {
        progress(1.0);
    }
    Ok(grid)
}

/// How much less likely all tokens together become in each fork that differs from the unchanged run.
fn losses(model: &Gpt2, ids: &[u32], ends: &Ends) -> Vec<(usize, f64)> {
    let rows = &ends.rows;
    let predicts = |(_, pos): &(usize, usize)| pos + 1 < ids.len();
    let index: Vec<(usize, usize)> = rows.index().into_iter().filter(predicts).collect();
    let data = index.iter().flat_map(|&(run, pos)| rows.row(run, pos)).copied().collect();
    let next: Vec<u32> = index.iter().map(|(_, pos)| ids[pos + 1]).collect();
    let all = log_probs(model, &Tensor::new(&[index.len(), model.config.n_embd], data), &next);
    let first = ends.read.start;
    // The unchanged run's rows come first, one for each position.
    let base = |pos: usize| all[pos - first];
    let mut lost = vec![0.0; rows.runs.len()];
    for ((run, pos), log_prob) in index.iter().zip(&all) {
        // In f64: a small difference of sums.
        lost[*run] += f64::from(base(*pos) - log_prob);
    }
    debug_assert!(lost[BASE] == 0.0 && lost[SOURCE] == 0.0);
    let of_fork = |(run, lost): (&gpt2::walk::Run, f64)| Some((run.fork?, lost));
    rows.runs.iter().zip(lost).filter_map(of_fork).collect()
}

/// The log probability of `next[i]` after each normalised row i, for as many as there are. All rows are
/// multiplied with some thousand tokens at a time, so that the unembedding is read once and no whole row of
/// logits is held: log Σ e^logit is combined from the parts.
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
            let part = if all_finite(row) { log_sum_exp(row) } else { f64::NAN };
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
    fn cutting_the_grid_changes_no_bit_and_all_work_is_reported() {
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
