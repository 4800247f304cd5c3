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
//! Only rows p … T − 1 can change, and only in the blocks after the layer: they alone are computed
//! anew, all positions of a layer in one batch, against the run's own keys and values to the left.

use gpt2::model::Block;
use gpt2::{Site, no_hook};
use rayon::prelude::*;
use tensor::{Tensor, layer_norm, matmul, matmul_into, softmax};

use crate::cache::run_with_cache_of;
use crate::heads::RepeatedTokens;
use crate::model::log_prob;
use crate::{ActivationCache, Error, Model};

/// The change of the second copy's mean loss for every layer and position p of the second copy,
/// `(n_layer, seq_len)`: column i is the second copy's token i.
///
/// # Errors
/// If the model cannot read the prompt, or nothing is repeated in it.
pub fn mlp_transplant<'m>(
    model: impl Into<Model<'m>>,
    prompt: &RepeatedTokens,
) -> Result<Tensor, Error> {
    let model = model.into();
    let RepeatedTokens { ids, seq_len } = prompt;
    let n_layer = model.gpt2.config.n_layer;
    let limit = ids.len() / 2;
    if *seq_len == 0 || *seq_len > limit {
        return Err(Error::SeqLen {
            seq_len: *seq_len,
            limit,
        });
    }
    let cache = run_with_cache_of(model, ids, |site| {
        matches!(
            site,
            Site::K(_)
                | Site::V(_)
                | Site::MlpOut(_)
                | Site::ResidMid(_)
                | Site::ResidPost(_)
                | Site::LnFinalNormalized
        )
    })?;
    let base = log_probs(model, &cache[Site::LnFinalNormalized], &ids[1..]);
    let mut changes = Vec::new();
    for layer in 0..n_layer {
        changes.extend(changes_of_layer(model, prompt, &cache, layer, &base));
    }
    Ok(Tensor::new(&[n_layer, *seq_len], changes))
}

/// One row of the grid.
fn changes_of_layer(
    model: Model<'_>,
    prompt: &RepeatedTokens,
    cache: &ActivationCache,
    layer: usize,
    base: &[f32],
) -> Vec<f32> {
    let RepeatedTokens { ids, seq_len } = prompt;
    let t = ids.len();
    // One run for each position p of the second copy: its rows p … T − 1, all runs below each other.
    let starts: Vec<usize> = (t - seq_len..t).collect();
    let mut rows = Vec::new();
    for &p in &starts {
        let transplanted = cache[Site::MlpOut(layer)].row(p - seq_len);
        let row = cache[Site::ResidMid(layer)].row(p).iter();
        rows.extend(row.zip(transplanted).map(|(x, y)| x + y));
        (p + 1..t).for_each(|pos| rows.extend(cache[Site::ResidPost(layer)].row(pos)));
    }
    let c = model.gpt2.config.n_embd;
    let mut x = Tensor::new(&[rows.len() / c, c], rows); // (N, C)
    for later in layer + 1..model.gpt2.config.n_layer {
        let block = &model.gpt2.h[later];
        x = forward_ends(
            block,
            x,
            &starts,
            &cache[Site::K(later)],
            &cache[Site::V(later)],
        );
    }
    let ln_f = &model.gpt2.ln_f;
    let x = layer_norm(&x, &ln_f.weight, &ln_f.bias, ln_f.epsilon);
    // The last row of a run predicts nothing, and is asked for the token that is not there.
    let next: Vec<u32> = (starts.iter())
        .flat_map(|&p| ids[p + 1..].iter().chain([&0]))
        .copied()
        .collect();
    let patched = log_probs(model, &x, &next);

    let mut run = patched.iter();
    starts
        .iter()
        .map(|&p| {
            let lost = (p..t)
                .zip(&mut run)
                .map(|(pos, patched)| base.get(pos).map_or(0.0, |base| f64::from(base - patched)));
            (lost.sum::<f64>() / *seq_len as f64) as f32
        })
        .collect()
}

/// A block's forward pass over the ends of many runs of one prompt: run i is its rows `starts[i]` …
/// T − 1, all runs below each other in `x`, `(N, C)`. To the left each sees the keys and values of
/// the run that they all branch off from, `(T, n_head, head_size)`.
fn forward_ends(block: &Block, mut x: Tensor, starts: &[usize], k: &Tensor, v: &Tensor) -> Tensor {
    let [t, n_head, head_size] = k.dims();
    let [n, c] = x.dims();
    let norm = |x: &Tensor, ln: &gpt2::model::LayerNorm| {
        layer_norm(x, &ln.weight, &ln.bias, ln.epsilon) // (N, C)
    };
    let qkv = block.attn.c_attn.forward(&norm(&x, &block.ln_1)); // (N, 3C)
    let firsts: Vec<usize> = starts
        .iter()
        .scan(0, |row, p| Some(std::mem::replace(row, *row + t - p)))
        .collect();
    let runs: Vec<Tensor> = (starts.par_iter())
        .zip(&firsts)
        .map(|(&p, &first)| {
            // The run's keys and values: the branch's to the left of p, its own from there on.
            let (mut k, mut v) = (k.clone(), v.clone());
            let mut q = Tensor::zeros(&[t - p, n_head, head_size]);
            for pos in p..t {
                let row = qkv.row(first + pos - p);
                q.data_mut()[(pos - p) * c..][..c].copy_from_slice(&row[..c]);
                k.data_mut()[pos * c..][..c].copy_from_slice(&row[c..2 * c]);
                v.data_mut()[pos * c..][..c].copy_from_slice(&row[2 * c..]);
            }
            let mut z = Tensor::zeros(&[t - p, n_head, head_size]);
            for h in 0..n_head {
                let mut att = matmul(q.at_middle(h), k.at_middle(h).t()); // (T − p, T)
                att.scale(1.0 / (head_size as f32).sqrt());
                for dest in p..t {
                    att.row_mut(dest - p)[dest + 1..].fill(f32::NEG_INFINITY);
                }
                softmax(&mut att);
                matmul_into(&att, v.at_middle(h), z.at_middle_mut(h));
            }
            z
        })
        .collect();
    let z: Vec<f32> = runs.iter().flat_map(|z| z.data()).copied().collect();
    x.add_assign(&block.attn.c_proj.forward(&Tensor::new(&[n, c], z)));
    // No hook, so the layer's number is of no interest.
    let mlp_out = block.mlp.forward(0, &norm(&x, &block.ln_2), &mut no_hook);
    x.add_assign(&mlp_out);
    x
}

/// The log probability of `next[i]` after each normalised row i, for as many as there are.
fn log_probs(model: Model<'_>, x: &Tensor, next: &[u32]) -> Vec<f32> {
    /// Rows of logits that are held at once: 51 MB of them for GPT-2's vocabulary.
    const BATCH: usize = 256;
    let mut out = Vec::new();
    for start in (0..next.len()).step_by(BATCH) {
        let end = (start + BATCH).min(next.len());
        let logits = model.unembed(x.view().rows(start..end));
        let rows = (start..end).into_par_iter();
        out.par_extend(rows.map(|i| log_prob(logits.row(i - start), next[i])));
    }
    out
}

#[cfg(test)]
mod tests {
    use gpt2::Pretrained;

    use super::*;
    use crate::heads::token_log_probs;

    #[test]
    fn each_change_is_that_of_a_whole_run_with_a_hook() {
        let tiny = Pretrained::tiny().unwrap().model;
        for bos in [true, false] {
            let prompt = RepeatedTokens::new(&[48736, 5437, 373, 257, 1353], bos);
            let (ids, seq_len) = (&prompt.ids, prompt.seq_len);
            let grid = mlp_transplant(&tiny, &prompt).unwrap();
            assert_eq!(grid.shape(), [12, 5]);
            let base = token_log_probs(&tiny, ids).unwrap();
            for layer in 0..12 {
                for i in 0..seq_len {
                    let p = ids.len() - seq_len + i;
                    let logits = tiny.forward(ids, &mut |site, x| {
                        if site == Site::MlpOut(layer) {
                            let row = x.row(p - seq_len).to_vec();
                            x.row_mut(p).copy_from_slice(&row);
                        }
                    });
                    let lost = (prompt.first_half()..ids.len() - 1)
                        .map(|pos| base[pos] - log_prob(logits.row(pos), ids[pos + 1]));
                    let expected = lost.sum::<f32>() / seq_len as f32;
                    let got = grid.row(layer)[i];
                    assert!(
                        (got - expected).abs() < 1e-4,
                        "{layer}, {i}: {got}, not {expected}"
                    );
                }
            }
            assert!((0..12).all(|layer| grid.row(layer)[4] == 0.0));
        }
    }

    #[test]
    fn what_is_not_repeated_is_refused() {
        let tiny = Pretrained::tiny().unwrap().model;
        let prompt = RepeatedTokens {
            ids: vec![1, 2, 3],
            seq_len: 2,
        };
        assert!(mlp_transplant(&tiny, &prompt).is_err());
    }
}
