//! The way of all runs through the blocks.

use gpt2::Gpt2;
use gpt2::model::Linear;
use rayon::prelude::*;
use tensor::{Tensor, View, linear};

use super::Pending;
use super::attention::Attention;
use super::ends::Ends;
use super::rows::{BASE, Born, Rows, Run, SOURCE, add, same_bits};
use crate::ablation::Given;
use crate::{Experiment, Patch, SiteKind, Watch};

/// All runs on their way through the layers.
pub struct Walk<'a> {
    model: &'a Gpt2,
    /// The patches, sorted by layer.
    pending: &'a [Pending],
    /// What an ablation puts in; else it is the source run's.
    given: Option<&'a Given>,
    /// How many tokens a prompt has.
    t: usize,
    /// The first position at which a patch can change anything.
    first_change: usize,
    /// The first position whose end is read.
    first_read: usize,
    /// The residual stream.
    x: Rows,
    flops: u64,
    watch: Watch<'a>,
}

impl<'a> Walk<'a> {
    /// The base, and the source from the first difference on, before the first block. (An ablation has
    /// no source: its run has no rows of its own, and is the base.)
    pub fn new(
        model: &'a Gpt2,
        experiment: &Experiment,
        pending: &'a [Pending],
        given: Option<&'a Given>,
        first_read: usize,
        watch: Watch<'a>,
    ) -> Self {
        let (t, c) = (experiment.n_tokens(), model.config.n_embd);
        let first_difference = experiment.differing_positions().first().copied();
        let runs = vec![
            Run { cell: None, left: BASE, rows: 0..t, at: 0 },
            Run { cell: None, left: BASE, rows: first_difference.unwrap_or(t)..t, at: t },
        ];
        let mut data = Vec::new();
        for (run, ids) in runs.iter().zip([experiment.base(), experiment.source()]) {
            for pos in run.rows.clone() {
                let token = model.wte.row(ids[pos] as usize);
                let pair = token.iter().zip(model.wpe.row(pos));
                data.extend(pair.map(|(token, position)| token + position));
            }
        }
        Self {
            model,
            pending,
            given,
            t,
            first_change: first_difference.unwrap_or(0),
            first_read,
            x: Rows { runs, data, c },
            flops: 0,
            watch,
        }
    }

    /// Takes all runs through one block; those that are patched in it branch off on the way.
    pub fn block(&mut self, layer: usize) {
        let Self { model, t, .. } = *self;
        let block = &model.h[layer];
        let c = model.config.n_embd;
        // Of the last block only the positions are needed whose end is read.
        let from = if layer + 1 == model.config.n_layer { self.first_read } else { 0 };

        // Patches of the residual stream before the block.
        let born = {
            let x = &self.x;
            let copy = |patch: &Patch, pos: usize, row: &mut [f32]| {
                row.copy_from_slice(self.given(patch, pos).unwrap_or_else(|| x.row(SOURCE, pos)));
            };
            let born = self.branch(layer, &[SiteKind::ResidPre], 0, x, copy);
            self.left_to_source(born, 0, x)
        };
        self.x.adopt(born);

        // Queries, keys and values of the changed rows.
        let x = self.x.take();
        let normalized = block.ln_1.forward_rows(&x); // (R, C)
        self.x.data = x.into_data();
        let asking = self.x.runs_from(from);
        let (weight, bias) = (block.attn.c_attn.weight.view(), block.attn.c_attn.bias.data());
        let (q, kv);
        let attention = if from == 0 {
            kv = self.linear(normalized.view(), weight, bias); // (R, 3C): queries, keys, values
            Attention { attn: &block.attn, runs: &self.x.runs, asking: &asking, q: &kv, kv: &kv, keys: c }
        } else {
            let asked = self.x.rows_from(from).flat_map(|row| normalized.row(row));
            let asked: Vec<f32> = asked.copied().collect();
            let asked = Tensor::new(&[asked.len() / c, c], asked);
            q = self.linear(asked.view(), weight.columns(0..c), &bias[..c]); // (asking rows, C)
            kv = self.linear(normalized.view(), weight.columns(c..3 * c), &bias[c..]); // (R, 2C)
            Attention { attn: &block.attn, runs: &self.x.runs, asking: &asking, q: &q, kv: &kv, keys: 0 }
        };
        drop(normalized);

        self.watch.leave_if_stopped();
        // What each head gathers. From the first changed row on, all rows change.
        let mut z = attention.forward(from, t, c);
        let of_row = |(_, dest): (usize, usize)| 4 * c as u64 * (dest as u64 + 1);
        self.flops += z.index().into_iter().map(of_row).sum::<u64>();
        let patched = |patch: &Patch, dest: usize, row: &mut [f32]| {
            let given = self.given.map(|given| &given[&patch.site()]);
            attention.patched_row(patch, dest, &z, given, row);
        };
        let of_heads = [SiteKind::Q, SiteKind::K, SiteKind::V, SiteKind::Pattern, SiteKind::Z];
        let born = self.branch(layer, &of_heads, from, &z, patched);
        z.adopt(born);

        // Attention's output, added to the residual stream.
        let attn_out = {
            let z = z.take();
            self.forward_linear(z.view(), &block.attn.c_proj) // (R', C)
        };
        let attn_out = Rows { runs: z.runs, data: attn_out.into_data(), c };
        let kinds = [SiteKind::AttnOut, SiteKind::ResidMid];
        let mut mid = self.add_to(&self.x, attn_out, layer, kinds, from);

        // The MLP's output, added to the residual stream.
        let x = mid.take();
        let normalized = block.ln_2.forward_rows(&x);
        mid.data = x.into_data();
        self.watch.leave_if_stopped();
        let mlp_out = Rows {
            runs: mid.runs.clone(),
            data: block.mlp.forward_rows(&normalized).into_data(), // (R', C)
            c,
        };
        self.flops += 4 * (normalized.n_rows() * c * model.config.inner_size()) as u64;
        drop(normalized);
        let kinds = [SiteKind::MlpOut, SiteKind::ResidPost];
        self.x = self.add_to(&mid, mlp_out, layer, kinds, from);
    }

    /// Adds what attention or the MLP has written to the residual stream `x` before it. Patches of what
    /// was written, and of the sum, branch off.
    fn add_to(
        &self,
        x: &Rows,
        mut written: Rows,
        layer: usize,
        [written_kind, sum_kind]: [SiteKind; 2],
        from: usize,
    ) -> Rows {
        let c = x.c;
        let source_from = written.runs[SOURCE].rows.start;
        let source_written = written.rows_of(SOURCE);
        let index = written.index();
        let rows = written.data.par_chunks_exact_mut(c).zip(index);
        rows.for_each(|(row, (run, pos))| {
            // The runs that have just branched off stand behind the others, and were the base's so far.
            let run = if run < x.runs.len() { run } else { BASE };
            add(row, x.row(run, pos));
        });
        let sum = written;
        let patched = |patch: &Patch, pos: usize, row: &mut [f32]| {
            let source = self.given(patch, pos);
            if patch.site == written_kind {
                let own = || &source_written[(pos - source_from) * c..][..c];
                row.copy_from_slice(source.unwrap_or_else(own));
                add(row, x.row(BASE, pos));
            } else {
                row.copy_from_slice(source.unwrap_or_else(|| sum.row(SOURCE, pos)));
            }
        };
        let born = self.branch(layer, &[written_kind, sum_kind], from, &sum, patched);
        let born = self.left_to_source(born, from, &sum);
        let mut sum = sum;
        sum.adopt(born);
        sum
    }

    /// What an ablation puts in at a position, `(C)`.
    fn given(&self, patch: &Patch, pos: usize) -> Option<&'a [f32]> {
        let c = self.model.config.n_embd;
        let given = self.given?;
        Some(&given[&patch.site()].data()[pos * c..][..c])
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
            let dests = dests.start.max(from).max(self.first_change)..dests.end;
            let mut data = vec![0.0; dests.len() * c];
            for (pos, row) in dests.clone().zip(data.chunks_exact_mut(c)) {
                patched(patch, pos, row);
            }
            let row = |pos: usize| &data[(pos - dests.start) * c..][..c];
            let differs = |pos: &usize| !same_bits(row(*pos), unpatched.row(BASE, *pos));
            let first = dests.clone().find(differs)?;
            let last = dests.clone().rfind(differs)?;
            let data = data[(first - dests.start) * c..(last + 1 - dests.start) * c].to_vec();
            Some(Born { cell: *cell, left: BASE, rows: first..last + 1, data })
        };
        let of_these_sites = self.pending[here].par_iter().filter(|p| sites.contains(&p.patch.site));
        of_these_sites.filter_map(born).collect()
    }

    /// Leaves to the source what is the source's in residual streams that have just branched off, and
    /// remains so: its rows from the first difference of the prompts on, as long as none is the base's.
    /// (To the left of `from` no row is asked for any more.)
    fn left_to_source(&self, born: Vec<Born>, from: usize, stream: &Rows) -> Vec<Born> {
        let first = self.first_change.max(from);
        let left = |born: Born| {
            let rows = born.rows.clone().zip(born.data.chunks_exact(stream.c));
            let of_source = rows.take_while(|(pos, row)| same_bits(row, stream.row(SOURCE, *pos)));
            match of_source.count() {
                n if n > 0 && born.rows.start == first => Born {
                    left: SOURCE,
                    rows: first + n..born.rows.end,
                    data: born.data[n * stream.c..].to_vec(),
                    ..born
                },
                _ => born,
            }
        };
        born.into_iter().map(left).collect()
    }

    fn forward_linear(&mut self, x: View<'_>, layer: &Linear) -> Tensor {
        self.linear(x, layer.weight.view(), layer.bias.data())
    }

    fn linear(&mut self, x: View<'_>, weight: View<'_>, bias: &[f32]) -> Tensor {
        self.watch.leave_if_stopped();
        let [rows, n_in] = x.shape();
        self.flops += 2 * (rows * n_in * bias.len()) as u64;
        linear(x, weight, bias)
    }

    /// The rows after all blocks whose end is read, normalised.
    pub fn ends(self) -> Ends {
        let c = self.x.c;
        let rows = self.x.rows_from(self.first_read);
        let rows: Vec<f32> = rows.flat_map(|row| &self.x.data[row * c..][..c]).copied().collect();
        let rows = Tensor::new(&[rows.len() / c, c], rows);
        let normalized = self.model.ln_f.forward_rows(&rows);
        Ends {
            rows: Rows { runs: self.x.runs_from(self.first_read), data: normalized.into_data(), c },
            read: self.first_read..self.t,
            flops: self.flops,
        }
    }
}
