//! The incremental engine: every patched run at once, and only what can change.
//!
//! # Why it is exact
//!
//! A patched run differs from the base run in some rows of one activation. Call a row of the residual
//! stream (one position in one run) *changed* if it may differ from the base's. Then:
//!
//! 1. **Before the patch nothing changes.** Up to the patched site both runs do the same arithmetic on
//!    the same numbers.
//! 2. **A block changes no row to the left of the first changed one.** Layer norms, the MLP and all
//!    linear layers work on each row by itself; attention at a position reads keys and values of that
//!    position and those to its left, and no others. So if `first` is the first changed position, the
//!    rows `first…` are the changed ones after any number of blocks.
//! 3. **What is not changed is the base's.** Queries, keys and values of unchanged rows, to the left or
//!    (in the first block after the patch) to the right, are those of the base run, bit for bit,
//!    because every operation computes a row alike whatever else is computed beside it.
//!
//! So it suffices to compute the changed rows of every block, and to read everything else off the base
//! run. In the last block only the last position matters for the next token, so only its query,
//! attention and MLP are computed, and of the logits only those that the metric reads. Where a source
//! row equals the base's (to the left of the first token that differs), nothing changes at all: the
//! answer is the base's.
//!
//! # How it goes
//!
//! All runs *walk* through the layers together: the base, the source, and every patched run from the
//! layer on in which it branches off the base. Their changed rows stand in one tall matrix, so each
//! weight is read once a layer, by hundreds of rows at a time. At each site of a layer, the patches of
//! that site *branch off*: a run is born, with the few rows in which it differs from the base. That is
//! all that a site has to say; from there on every run is treated alike.

use std::ops::Range;

use gpt2::Gpt2;
use gpt2::model::Linear;
use rayon::prelude::*;
use tensor::{Tensor, View, dot, gelu, layer_norm, linear, matmul_transposed, softmax_row, widest};

use crate::{
    Direction, Experiment, Logits, Measured, Metric, Patch, Progress, SiteKind, Unpatched,
};

/// Rows that go through the MLP together: its hidden layer is four times as wide as all else.
const MLP_ROWS: usize = 1024;
/// Rows whose logits of all tokens are held together.
const LOGIT_ROWS: usize = 64;
/// How many rows of width C are held for each row of the walk, at the most: the residual stream before
/// and after attention, its normalised form, q, k, v, z, attention's output, and a packed copy.
const HELD: usize = 9;

/// The metric of each patched run, in the order of `patches`, and what the unpatched runs end in. The
/// patches are worked off in chunks, so that about `memory` bytes are held beyond the weights (but
/// never less than one patched run takes).
pub fn run(
    model: &Gpt2,
    experiment: &Experiment,
    patches: &[Patch],
    metric: Metric,
    memory: usize,
    progress: Progress<'_>,
) -> Measured {
    let (t, c) = (experiment.n_tokens(), model.config.n_embd);
    let first_difference = experiment.differing_positions()[0];
    let mut pending: Vec<Pending> = patches
        .iter()
        .enumerate()
        .map(|(cell, &patch)| Pending { cell, patch })
        .collect();
    // To the left of the first difference source and base are the same run.
    pending.retain(|p| {
        p.patch
            .pos
            .or(p.patch.dest)
            .is_none_or(|pos| pos >= first_difference)
    });
    pending.sort_by_key(|p| p.patch.layer);

    let rows_of = |p: &Pending| t - p.patch.dests(t).start.max(first_difference);
    let floats = memory / size_of::<f32>();
    let fixed = MLP_ROWS * 14 * c + LOGIT_ROWS * model.config.vocab_size + 2 * t * HELD * c;
    let chunks = cut(&pending, floats.saturating_sub(fixed) / (HELD * c), rows_of);
    let work_of = |p: &Pending| (rows_of(p) * (model.config.n_layer - p.patch.layer)) as f64;
    let all_work: f64 = pending.iter().map(work_of).sum();

    let (mut values, mut unpatched, mut flops) = (Vec::new(), None, 0);
    for chunk in chunks {
        let mut walk = Walk::new(model, experiment, chunk);
        for layer in 0..model.config.n_layer {
            walk.block(layer);
            let under_way = chunk.iter().take_while(|p| p.patch.layer <= layer);
            progress(under_way.map(rows_of).sum::<usize>() as f64 / all_work.max(1.0));
        }
        let ends = walk.ends();
        flops += ends.flops;
        let clean = {
            let unpatched = unpatched.get_or_insert_with(|| ends.unpatched(experiment.direction()));
            Logits::for_metric(metric, model, &unpatched.clean)
        };
        if values.is_empty() {
            let base = Logits::for_metric(metric, model, ends.rows.row(BASE));
            values = vec![metric.of(&base, &clean); patches.len()];
        }
        ends.measure(model, metric, &clean, &mut values);
    }
    let unpatched = unpatched.unwrap_or_else(|| unreachable!("there is at least one chunk"));
    Measured {
        values,
        unpatched,
        flops,
    }
}

/// A patch, and which value it is for.
struct Pending {
    cell: usize,
    patch: Patch,
}

/// Cuts the patches into chunks of at most `limit` rows, but of at least one patch. The last may be
/// empty: the two unpatched runs are wanted all the same.
fn cut(pending: &[Pending], limit: usize, rows_of: impl Fn(&Pending) -> usize) -> Vec<&[Pending]> {
    let mut chunks = Vec::new();
    let mut left = pending;
    loop {
        let mut rows = 0;
        let fits = |p: &&Pending| {
            rows += rows_of(p);
            rows <= limit
        };
        let n = left.iter().take_while(fits).count().max(1).min(left.len());
        let (chunk, rest) = left.split_at(n);
        chunks.push(chunk);
        left = rest;
        if left.is_empty() {
            return chunks;
        }
    }
}

/// One run of the walk: the positions whose rows stand in the tall matrix, and where there. All its
/// other rows are the base's.
#[derive(Clone, Debug)]
struct Run {
    /// Which value it is for; none for the base and the source.
    cell: Option<usize>,
    /// Positions.
    rows: Range<usize>,
    /// The first one's row in the tall matrix.
    at: usize,
}

impl Run {
    /// Where a position's row stands in the tall matrix, if it stands there.
    fn find(&self, pos: usize) -> Option<usize> {
        self.rows
            .contains(&pos)
            .then(|| self.at + pos - self.rows.start)
    }
}

/// The base's and the source's place among the runs.
const BASE: usize = 0;
const SOURCE: usize = 1;

/// Runs whose rows stand one after the other in a matrix `(R, C)`.
struct Rows {
    runs: Vec<Run>,
    data: Vec<f32>,
    c: usize,
}

impl Rows {
    /// The row of a run at a position: its own, or the base's.
    fn row(&self, run: usize, pos: usize) -> &[f32] {
        let at = self.runs[run]
            .find(pos)
            .or_else(|| self.runs[BASE].find(pos));
        let at =
            at.unwrap_or_else(|| unreachable!("the base has every position that is asked for"));
        &self.data[at * self.c..][..self.c]
    }

    /// Run and position of every row, in their order.
    fn index(&self) -> Vec<(usize, usize)> {
        let of_run = |(i, run): (usize, &Run)| {
            run.rows
                .clone()
                .map(move |pos| (i, pos))
                .collect::<Vec<_>>()
        };
        self.runs.iter().enumerate().flat_map(of_run).collect()
    }

    /// Takes in runs that have branched off.
    fn adopt(&mut self, born: Vec<Born>) {
        for Born { cell, rows, data } in born {
            self.runs.push(Run {
                cell: Some(cell),
                rows,
                at: self.data.len() / self.c,
            });
            self.data.extend(data);
        }
    }

    /// A copy of all rows of one run.
    fn rows_of(&self, run: usize) -> Vec<f32> {
        let Run { rows, at, .. } = &self.runs[run];
        self.data[at * self.c..(at + rows.len()) * self.c].to_vec()
    }

    /// Takes the numbers out, as a matrix.
    fn take(&mut self) -> Tensor {
        let data = std::mem::take(&mut self.data);
        Tensor::new(&[data.len() / self.c, self.c], data)
    }
}

/// A run that has just branched off the base: the rows in which it differs.
struct Born {
    cell: usize,
    rows: Range<usize>,
    data: Vec<f32>,
}

/// All runs on their way through the layers.
struct Walk<'a> {
    model: &'a Gpt2,
    /// The patches, sorted by layer.
    pending: &'a [Pending],
    /// How many tokens a prompt has.
    t: usize,
    /// The first position at which the prompts differ.
    first_difference: usize,
    /// The residual stream.
    x: Rows,
    flops: u64,
}

impl<'a> Walk<'a> {
    /// The base, and the source from the first difference on, before the first block.
    fn new(model: &'a Gpt2, experiment: &Experiment, pending: &'a [Pending]) -> Self {
        let (t, c) = (experiment.n_tokens(), model.config.n_embd);
        let first_difference = experiment.differing_positions()[0];
        let runs = vec![
            Run {
                cell: None,
                rows: 0..t,
                at: 0,
            },
            Run {
                cell: None,
                rows: first_difference..t,
                at: t,
            },
        ];
        let mut data = Vec::new();
        for (run, ids) in runs.iter().zip([experiment.base(), experiment.source()]) {
            for pos in run.rows.clone() {
                let pair = model
                    .wte
                    .row(ids[pos] as usize)
                    .iter()
                    .zip(model.wpe.row(pos));
                data.extend(pair.map(|(token, position)| token + position));
            }
        }
        Self {
            model,
            pending,
            t,
            first_difference,
            x: Rows { runs, data, c },
            flops: 0,
        }
    }

    /// Takes all runs through one block; those that are patched in it branch off on the way.
    fn block(&mut self, layer: usize) {
        let Self { model, t, .. } = *self;
        let block = &model.h[layer];
        let c = model.config.n_embd;
        // Of the last block only the last position is read.
        let from = if layer + 1 == model.config.n_layer {
            t - 1
        } else {
            0
        };

        // Patches of the residual stream before the block.
        let born = {
            let x = &self.x;
            let copy =
                |_: &Patch, pos: usize, row: &mut [f32]| row.copy_from_slice(x.row(SOURCE, pos));
            self.branch(layer, &[SiteKind::ResidPre], 0, x, copy)
        };
        self.x.adopt(born);

        // Queries, keys and values of the changed rows.
        let x = self.x.take();
        let normalized = layer_norm(&x, &block.ln_1.weight, &block.ln_1.bias, block.ln_1.epsilon); // (R, C)
        self.x.data = x.into_data();
        let asking = self.rows_from(from);
        let (weight, bias) = (
            block.attn.c_attn.weight.view(),
            block.attn.c_attn.bias.data(),
        );
        let (q, kv);
        let attention = if from == 0 {
            kv = self.linear(normalized.view(), weight, bias); // (R, 3C): queries, keys, values
            Attention {
                n_head: block.attn.n_head,
                runs: &self.x.runs,
                asking: &asking,
                q: &kv,
                kv: &kv,
                keys: c,
            }
        } else {
            let last = self.x.runs.iter().filter_map(|run| run.find(t - 1));
            let last: Vec<f32> = last.flat_map(|row| normalized.row(row)).copied().collect();
            let last = Tensor::new(&[last.len() / c, c], last);
            q = self.linear(last.view(), weight.columns(0..c), &bias[..c]); // (asking runs, C)
            kv = self.linear(normalized.view(), weight.columns(c..3 * c), &bias[c..]); // (R, 2C)
            Attention {
                n_head: block.attn.n_head,
                runs: &self.x.runs,
                asking: &asking,
                q: &q,
                kv: &kv,
                keys: 0,
            }
        };
        drop(normalized);

        // What each head gathers. From the first changed row on, all rows change.
        let mut z = attention.forward(from, t, c);
        self.flops += z
            .index()
            .iter()
            .map(|(_, dest)| 4 * c as u64 * (*dest as u64 + 1))
            .sum::<u64>();
        let of_heads = [
            SiteKind::Q,
            SiteKind::K,
            SiteKind::V,
            SiteKind::Pattern,
            SiteKind::Z,
        ];
        let patched = |patch: &Patch, dest: usize, row: &mut [f32]| {
            attention.patched_row(patch, dest, &z, row);
        };
        let born = self.branch(layer, &of_heads, from, &z, patched);
        z.adopt(born);

        // Attention's output, added to the residual stream.
        let attn_out = {
            let z = z.take();
            self.forward_linear(z.view(), &block.attn.c_proj) // (R', C)
        };
        let mut mid = Rows {
            runs: z.runs,
            data: attn_out.into_data(),
            c,
        };
        let source_from = mid.runs[SOURCE].rows.start;
        let source_out = mid.rows_of(SOURCE);
        let before = &self.x;
        let index = mid.index();
        mid.data
            .par_chunks_exact_mut(c)
            .zip(index)
            .for_each(|(row, (run, pos))| {
                // The runs that have just branched off stand behind the others, and were the base's so far.
                let run = if run < before.runs.len() { run } else { BASE };
                add(row, before.row(run, pos));
            });
        let patched = |patch: &Patch, pos: usize, row: &mut [f32]| {
            if patch.site == SiteKind::AttnOut {
                row.copy_from_slice(&source_out[(pos - source_from) * c..][..c]);
                add(row, before.row(BASE, pos));
            } else {
                row.copy_from_slice(mid.row(SOURCE, pos));
            }
        };
        let born = self.branch(
            layer,
            &[SiteKind::AttnOut, SiteKind::ResidMid],
            from,
            &mid,
            patched,
        );
        mid.adopt(born);

        // The MLP's output, added to the residual stream.
        let x = mid.take();
        let normalized = layer_norm(&x, &block.ln_2.weight, &block.ln_2.bias, block.ln_2.epsilon);
        mid.data = x.into_data();
        let mut after = Rows {
            runs: mid.runs.clone(),
            data: Vec::new(),
            c,
        };
        for start in (0..normalized.n_rows()).step_by(MLP_ROWS) {
            let rows = normalized
                .view()
                .rows(start..normalized.n_rows().min(start + MLP_ROWS));
            let mut hidden = self.forward_linear(rows, &block.mlp.c_fc); // (rows, 4C)
            gelu(&mut hidden);
            let mlp_out = self
                .forward_linear(hidden.view(), &block.mlp.c_proj)
                .into_data(); // (rows, C)
            if after.data.is_empty() {
                after.data = mlp_out;
            } else {
                after.data.extend(mlp_out);
            }
        }
        drop(normalized);
        let source_out = after.rows_of(SOURCE);
        after
            .data
            .par_chunks_exact_mut(c)
            .zip(mid.data.par_chunks_exact(c))
            .for_each(|(row, mid)| add(row, mid));
        let patched = |patch: &Patch, pos: usize, row: &mut [f32]| {
            if patch.site == SiteKind::MlpOut {
                row.copy_from_slice(&source_out[(pos - source_from) * c..][..c]);
                add(row, mid.row(BASE, pos));
            } else {
                row.copy_from_slice(after.row(SOURCE, pos));
            }
        };
        let born = self.branch(
            layer,
            &[SiteKind::MlpOut, SiteKind::ResidPost],
            from,
            &after,
            patched,
        );
        after.adopt(born);
        self.x = after;
    }

    /// The runs that branch off at some sites of this layer. `patched` writes a patched run's row at a
    /// position; rows at either end that come out equal to the base's, bit for bit, are left to the
    /// base, and a run of which nothing is left is not born.
    fn branch(
        &self,
        layer: usize,
        sites: &[SiteKind],
        from: usize,
        unpatched: &Rows,
        patched: impl Fn(&Patch, usize, &mut [f32]) + Sync,
    ) -> Vec<Born> {
        let c = unpatched.c;
        let here = self.pending.partition_point(|p| p.patch.layer < layer)
            ..self.pending.partition_point(|p| p.patch.layer <= layer);
        let born = |pending: &Pending| {
            let Pending { cell, patch } = pending;
            let dests = patch.dests(self.t);
            let dests = dests.start.max(from).max(self.first_difference)..dests.end;
            let mut data = vec![0.0; dests.len() * c];
            for (pos, row) in dests.clone().zip(data.chunks_exact_mut(c)) {
                patched(patch, pos, row);
            }
            let row = |pos: usize| &data[(pos - dests.start) * c..][..c];
            let differs = |pos: &usize| !same_bits(row(*pos), unpatched.row(BASE, *pos));
            let first = dests.clone().find(differs)?;
            let last = dests.clone().rfind(differs)?;
            let data = data[(first - dests.start) * c..(last + 1 - dests.start) * c].to_vec();
            Some(Born {
                cell: *cell,
                rows: first..last + 1,
                data,
            })
        };
        let of_these_sites = self.pending[here]
            .par_iter()
            .filter(|p| sites.contains(&p.patch.site));
        of_these_sites.filter_map(born).collect()
    }

    /// The runs, with only their rows from a position on, one after the other.
    fn rows_from(&self, from: usize) -> Vec<Run> {
        let mut at = 0;
        let cut = |run: &Run| {
            let rows = run.rows.start.max(from)..run.rows.end.max(from);
            let cut = Run {
                cell: run.cell,
                rows,
                at,
            };
            at += cut.rows.len();
            cut
        };
        self.x.runs.iter().map(cut).collect()
    }

    fn forward_linear(&mut self, x: View<'_>, layer: &Linear) -> Tensor {
        self.linear(x, layer.weight.view(), layer.bias.data())
    }

    fn linear(&mut self, x: View<'_>, weight: View<'_>, bias: &[f32]) -> Tensor {
        let [rows, n_in] = x.shape();
        self.flops += 2 * (rows * n_in * bias.len()) as u64;
        linear(x, weight, bias)
    }

    /// The last position's rows after all blocks, normalised.
    fn ends(self) -> Ends {
        let last = self.t - 1;
        let rows: Vec<f32> = (0..self.x.runs.len())
            .flat_map(|run| self.x.row(run, last))
            .copied()
            .collect();
        let rows = Tensor::new(&[self.x.runs.len(), self.x.c], rows);
        let ln_f = &self.model.ln_f;
        Ends {
            cells: self.x.runs.iter().map(|run| run.cell).collect(),
            rows: layer_norm(&rows, &ln_f.weight, &ln_f.bias, ln_f.epsilon),
            flops: self.flops,
        }
    }
}

/// Queries, keys and values of one layer, and whose they are.
struct Attention<'a> {
    n_head: usize,
    runs: &'a [Run],
    /// The same runs with those of their rows that have a query.
    asking: &'a [Run],
    /// Queries, at the front of each row.
    q: &'a Tensor,
    /// Keys and then values in each row, from the column `keys` on.
    kv: &'a Tensor,
    keys: usize,
}

impl Attention<'_> {
    /// What the heads gather, for every run from its first changed row (or from the position `from`)
    /// to the end.
    fn forward(&self, from: usize, t: usize, c: usize) -> Rows {
        let mut at = 0;
        let widened = |run: &Run| {
            let rows = run.rows.start.max(from)..t;
            let widened = Run {
                cell: run.cell,
                rows,
                at,
            };
            at += widened.rows.len();
            widened
        };
        let runs: Vec<Run> = self.runs.iter().map(widened).collect();
        let mut z = Rows {
            runs,
            data: vec![0.0; at * c],
            c,
        };
        let head_size = c / self.n_head;
        let index = z.index();
        let rows = z.data.par_chunks_exact_mut(c).zip(index);
        rows.for_each_init(
            Default::default,
            |(context, pattern), (row, (run, dest))| {
                let context: &mut Vec<&[f32]> = context;
                context.clear();
                context.extend((0..=dest).map(|src| self.kv(run, src)));
                let q = self.q(run, dest);
                widest(|| {
                    for (head, z) in row.chunks_exact_mut(head_size).enumerate() {
                        self.pattern(head, q, context, pattern);
                        self.gather(head, context, pattern, z);
                    }
                });
            },
        );
        z
    }

    /// The row of z at a position of the base run in which one piece is the source's.
    fn patched_row(&self, patch: &Patch, dest: usize, z: &Rows, row: &mut [f32]) {
        let head_size = row.len() / self.n_head;
        row.copy_from_slice(z.row(BASE, dest));
        // The source, where this site is patched at this position; else the base.
        let run_at = |site: SiteKind, pos: usize| {
            let patched = patch.site == site && patch.pos.is_none_or(|patched| patched == pos);
            if patched { SOURCE } else { BASE }
        };
        let context = |run_of: &dyn Fn(usize) -> usize| -> Vec<&[f32]> {
            (0..=dest).map(|src| self.kv(run_of(src), src)).collect()
        };
        let q = self.q(run_at(SiteKind::Q, dest), dest);
        let keys = context(&|src| run_at(SiteKind::K, src));
        let values = context(&|src| run_at(SiteKind::V, src));
        let of_source = context(&|_| SOURCE);
        let (mut pattern, mut source_pattern) = (Vec::new(), Vec::new());
        widest(|| {
            for head in patch.heads(self.n_head) {
                let piece = head * head_size..(head + 1) * head_size;
                if patch.site == SiteKind::Z {
                    row[piece.clone()].copy_from_slice(&z.row(SOURCE, dest)[piece]);
                    continue;
                }
                self.pattern(head, q, &keys, &mut pattern);
                if patch.site == SiteKind::Pattern {
                    self.pattern(head, self.q(SOURCE, dest), &of_source, &mut source_pattern);
                    let is_patched = |src: &usize| patch.src.is_none_or(|patched| patched == *src);
                    for src in (0..=dest).filter(is_patched) {
                        pattern[src] = source_pattern[src];
                    }
                }
                self.gather(head, &values, &pattern, &mut row[piece]);
            }
        });
    }

    /// How much a position attends to each position up to its own: softmax of q·k / √head_size.
    /// `q` is its query, `(C)`, and `context` are keys and values, each `(2C)`.
    #[inline(always)]
    fn pattern(&self, head: usize, q: &[f32], context: &[&[f32]], pattern: &mut Vec<f32>) {
        let head_size = self.width() / self.n_head;
        let slice = head * head_size..(head + 1) * head_size;
        let q = &q[slice.clone()];
        let factor = 1.0 / (head_size as f32).sqrt();
        pattern.clear();
        pattern.extend(context.iter().map(|kv| dot(q, &kv[slice.clone()]) * factor));
        softmax_row(pattern);
    }

    /// The values of a head in the proportions of a pattern.
    #[inline(always)]
    fn gather(&self, head: usize, context: &[&[f32]], pattern: &[f32], z: &mut [f32]) {
        let start = self.width() + head * z.len();
        let slice = start..start + z.len();
        z.fill(0.0);
        for (weight, kv) in pattern.iter().zip(context) {
            for (z, v) in z.iter_mut().zip(&kv[slice.clone()]) {
                *z += weight * v;
            }
        }
    }

    /// The queries of a run at a position, `(C)`: its own, or the base's.
    fn q(&self, run: usize, pos: usize) -> &[f32] {
        let at = self.asking[run]
            .find(pos)
            .or_else(|| self.asking[BASE].find(pos));
        let at = at.unwrap_or_else(|| unreachable!("the base asks at every position"));
        &self.q.row(at)[..self.width()]
    }

    /// C: how wide all heads are together.
    fn width(&self) -> usize {
        (self.kv.row_len() - self.keys) / 2
    }

    /// Keys and then values of a run at a position, `(2C)`: its own, or the base's.
    fn kv(&self, run: usize, pos: usize) -> &[f32] {
        let at = self.runs[run].find(pos).unwrap_or(self.runs[BASE].at + pos);
        &self.kv.row(at)[self.keys..self.keys + 2 * self.width()]
    }
}

/// The last position's normalised rows of all runs that differ from the base there, `(n, C)`, the
/// base's and the source's first.
struct Ends {
    cells: Vec<Option<usize>>,
    rows: Tensor,
    flops: u64,
}

impl Ends {
    /// The rows of the two unpatched runs.
    fn unpatched(&self, direction: Direction) -> Unpatched {
        Unpatched::new(
            direction,
            self.rows.row(SOURCE).to_vec(),
            self.rows.row(BASE).to_vec(),
        )
    }

    /// Writes the metric of every patched run to its cell.
    fn measure(&self, model: &Gpt2, metric: Metric, clean: &Logits, values: &mut [f32]) {
        let first = SOURCE + 1;
        for start in (first..self.cells.len()).step_by(LOGIT_ROWS) {
            let rows = start..self.cells.len().min(start + LOGIT_ROWS);
            let metrics: Vec<f32> = if metric.tokens().is_some() {
                let of_row = |row| {
                    metric.of(
                        &Logits::for_metric(metric, model, self.rows.row(row)),
                        clean,
                    )
                };
                rows.clone().into_par_iter().map(of_row).collect()
            } else {
                // All logits of many rows: the unembedding is read once for all of them.
                let logits =
                    matmul_transposed(self.rows.view().rows(rows.clone()), model.unembedding());
                let of_row = |row| metric.of(&Logits::All(logits.row(row).to_vec()), clean);
                (0..rows.len()).into_par_iter().map(of_row).collect()
            };
            for (cell, value) in self.cells[rows].iter().zip(metrics) {
                if let Some(cell) = cell {
                    values[*cell] = value;
                }
            }
        }
    }
}

fn add(row: &mut [f32], other: &[f32]) {
    for (x, y) in row.iter_mut().zip(other) {
        *x += y;
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

#[cfg(test)]
mod tests {
    use gpt2::Config;
    use proptest::prelude::*;

    use super::*;
    use crate::{Axis, Engine, Sweep, plain};

    /// A random small model, a random pair of prompts and a direction.
    fn random_experiment() -> impl Strategy<Value = (Gpt2, Experiment)> {
        let sizes = (
            1..5_usize,
            1..4_usize,
            1..10_usize,
            2..30_usize,
            any::<u64>(),
        );
        let model = sizes.prop_map(|(n_layer, n_head, head_size, vocab_size, seed)| {
            let n_embd = n_head * head_size;
            let sizes = Config {
                vocab_size,
                block_size: 12,
                n_layer,
                n_head,
                n_embd,
                layer_norm_epsilon: 1e-5,
            };
            Gpt2::random(sizes, seed)
        });
        (model, 1..=12_usize).prop_flat_map(|(model, t)| {
            let token = 0..model.config.vocab_size as u32;
            let prompt = prop::collection::vec(token.clone(), t);
            // Few changes are as likely as many.
            let changes = prop::collection::vec((0..t, token), 1..=t);
            let direction = prop::sample::select(Direction::ALL.to_vec());
            (prompt, changes, direction).prop_filter_map(
                "equal prompts",
                move |(clean, changes, direction)| {
                    let mut corrupted = clean.clone();
                    changes
                        .iter()
                        .for_each(|&(pos, token)| corrupted[pos] = token);
                    let experiment = Experiment::new(&model, clean, corrupted, direction).ok()?;
                    Some((model.clone(), experiment))
                },
            )
        })
    }

    /// Every site over every set of axes that it has.
    fn all_sweeps(experiment: &Experiment) -> Vec<Sweep<'_>> {
        let mut sweeps = Vec::new();
        for site in SiteKind::ALL {
            let (_, rest) = site.axes().split_at(1);
            for subset in 0..1_u32 << rest.len() {
                let chosen = rest
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| subset & (1 << i) != 0);
                let axes: Vec<Axis> = [Axis::Layer]
                    .into_iter()
                    .chain(chosen.map(|(_, axis)| *axis))
                    .collect();
                sweeps.push(Sweep::over(experiment, site).by(&axes));
            }
        }
        sweeps
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn it_equals_the_plain_engine_at_every_site_over_all_axes((model, experiment) in random_experiment()) {
            let mut largest = 0.0_f32;
            for metric in [Metric::LogitDiff { a: 0, b: 1 }, Metric::ProbDiff { a: 1, b: 0 }] {
                for sweep in all_sweeps(&experiment) {
                    let run = |engine| sweep.run(&model, metric, engine, &|_| {});
                    let (fast, slow) = (run(Engine::default()), run(Engine::Plain));
                    for (x, y) in fast.grid.values.iter().zip(&slow.grid.values) {
                        largest = largest.max((x - y).abs());
                    }
                }
            }
            println!("largest difference {largest:e}");
            prop_assert!(largest < 3e-4, "largest difference {largest:e}");
        }

        #[test]
        fn neither_threads_nor_memory_change_a_bit((model, experiment) in random_experiment(), threads in 1..5_usize) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for metric in [Metric::LogitDiff { a: 0, b: 1 }, Metric::ProbDiff { a: 1, b: 0 }] {
                for sweep in all_sweeps(&experiment) {
                    let run = |memory| sweep.run(&model, metric, Engine::Incremental { memory }, &|_| {}).grid;
                    let all_at_once = run(1 << 30);
                    // With no memory at all every patch is a chunk of its own.
                    prop_assert_eq!(&run(0), &all_at_once);
                    prop_assert_eq!(&pool.install(|| run(1 << 30)), &all_at_once);
                }
            }
        }

        #[test]
        fn the_order_of_the_patches_changes_nothing((model, experiment) in random_experiment(), turn in 0..1000_usize) {
            let metric = Metric::LogitDiff { a: 0, b: 1 };
            let mut patches: Vec<Patch> = all_sweeps(&experiment).iter().flat_map(|s| s.patches(&model)).collect();
            let run = |patches: &[Patch]| run(&model, &experiment, patches, metric, 1 << 30, &|_| {}).values;
            let mut values = run(&patches);
            let n = patches.len();
            patches.rotate_left(turn % n);
            patches.reverse();
            values.rotate_left(turn % n);
            values.reverse();
            prop_assert_eq!(run(&patches), values);
        }

        #[test]
        fn patching_the_whole_residual_stream_gives_the_source((model, experiment) in random_experiment()) {
            let metric = Metric::LogitDiff { a: 0, b: 1 };
            let layers = 0..model.config.n_layer;
            let whole = |site: SiteKind| layers.clone().map(move |layer| Patch::whole(site, layer));
            let patches: Vec<Patch> =
                [SiteKind::ResidPre, SiteKind::ResidMid, SiteKind::ResidPost].into_iter().flat_map(whole).collect();
            let Measured { values, unpatched, .. } = run(&model, &experiment, &patches, metric, 0, &|_| {});
            let source = match experiment.direction() {
                Direction::Denoising => &unpatched.clean,
                Direction::Noising => &unpatched.corrupted,
            };
            let [source, clean] = [source, &unpatched.clean].map(|row| Logits::for_metric(metric, &model, row));
            prop_assert!(values.iter().all(|value| *value == metric.of(&source, &clean)));
        }
    }

    #[test]
    fn nothing_is_computed_to_the_left_of_the_first_difference() {
        let sizes = Config {
            vocab_size: 9,
            block_size: 8,
            n_layer: 3,
            n_head: 2,
            n_embd: 8,
            layer_norm_epsilon: 1e-5,
        };
        let model = Gpt2::random(sizes, 1);
        let experiment = Experiment::new(
            &model,
            vec![1, 2, 3, 4, 5],
            vec![1, 2, 3, 4, 6],
            Direction::Denoising,
        )
        .unwrap();
        let metric = Metric::LogitDiff { a: 0, b: 1 };
        let flops =
            |patches: &[Patch]| run(&model, &experiment, patches, metric, 1 << 30, &|_| {}).flops;
        let left: Vec<Patch> = (0..4)
            .map(|pos| Patch::at_pos(SiteKind::ResidPre, 0, pos))
            .collect();
        assert_eq!(flops(&left), flops(&[]));
        assert!(flops(&[Patch::at_pos(SiteKind::ResidPre, 0, 4)]) > flops(&[]));
        // And the whole sweep is far less than a forward pass for every patch.
        let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
        let patches = sweep.patches(&model);
        assert!(
            flops(&patches) < plain::run(&model, &experiment, &patches, metric, &|_| {}).flops / 5
        );
    }

    #[test]
    fn the_shares_of_progress_add_up_to_one() {
        let sizes = Config {
            vocab_size: 9,
            block_size: 8,
            n_layer: 3,
            n_head: 2,
            n_embd: 8,
            layer_norm_epsilon: 1e-5,
        };
        let model = Gpt2::random(sizes, 2);
        let experiment =
            Experiment::new(&model, vec![1, 2, 3], vec![1, 4, 3], Direction::Noising).unwrap();
        for engine in [
            Engine::default(),
            Engine::Incremental { memory: 0 },
            Engine::Plain,
        ] {
            let done = std::sync::Mutex::new(0.0);
            let metric = Metric::LogitDiff { a: 0, b: 1 };
            Sweep::over(&experiment, SiteKind::ResidPre).run(&model, metric, engine, &|share| {
                *done.lock().unwrap() += share;
            });
            assert!(
                (*done.lock().unwrap() - 1.0).abs() < 1e-9,
                "{engine:?}: {done:?}"
            );
        }
    }
}
