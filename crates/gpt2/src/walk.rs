//! Many runs at once, and only what can change.
//!
//! # Why it is exact
//!
//! A *fork* differs from the base run in some rows of one activation. Call a row of the residual
//! stream (one position in one run) *changed* if it may differ from the base run's. Then:
//!
//! 1. **Before the edit nothing changes.** Up to the edited site both runs do the same arithmetic on
//!    the same numbers.
//! 2. **A block changes no row to the left of the first changed one.** Layer norms, the MLP and all
//!    linear layers work on each row by itself; attention at a position reads keys and values of that
//!    position and those to its left, and no others. So if `first` is the first changed position, the
//!    rows `first…` are the changed ones after any number of blocks.
//! 3. **Unchanged rows are the base run's.** Queries, keys and values of unchanged rows, to the left or
//!    (in the first block after the edit) to the right, are those of the base run, bit for bit,
//!    because every operation computes a row alike whatever else is computed beside it.
//! 4. **What is the source run's stays so.** At the first position in which the prompts differ, a
//!    residual stream that is patched there has the source run's row, and to the left of it both runs are
//!    the same: so it has the source run's row in all layers that follow.
//!
//! So it suffices to compute the changed rows of every block, and to read everything else off the base
//! run. In the last block only the positions matter whose end is read.
//!
//! # How it goes
//!
//! All runs step through the layers together: the base run, the source run, and every fork from the layer
//! on in which it leaves the base run. Their changed rows stand in one tall matrix, so each weight is read
//! once a layer, by hundreds of rows at a time:
//!
//! ```text
//! base      0 1 2 3 4 5      the base run has every row
//! source      1 2 3 4 5      the source run from the first difference of the prompts on
//! fork 0          3 4 5      a fork from its first changed position on
//! fork 1            4 5
//! ```
//!
//! At each site of a layer its forks leave: a run is appended, with the few rows in which it differs.
//! That is all that a site has to say; from there on every run is treated alike. What sweeps, ablations,
//! path patching and a growing text differ in is data: the edits of each fork ([`Fork`]), the edits that
//! all runs share ([`Plan::lasting`]), what is frozen ([`Frozen`]), what is read on the way ([`Reader`]) and
//! the keys and values that are known already ([`Known`]).
//!
//! [`crate::model`] is the twin that is read: tests hold every kind of walk to hooked forward passes.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the way through a block, and where forks leave |
//! | `edit` | what makes a run differ |
//! | `rows` | runs and their rows in one tall matrix |
//! | `attention` | the heads, for rows of many runs |
//! | `wiring` | runs in which each reader hears its own edges |

mod attention;
mod edit;
mod rows;
mod wiring;

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;
use tensor::{Tensor, View, linear};

use self::attention::Attention;
pub use self::edit::{Edit, Fork, Frozen, Read, Reader, Value};
pub use self::rows::{BASE, Rows, Run, SOURCE};
use self::rows::{NewFork, add, laid_out, same_bits};
use self::wiring::Wires;
pub use self::wiring::Wiring;
use crate::SiteKind::{
    AttnOut, AttnScores, Embed, K, MlpOut, MlpPost, MlpPre, Pattern, PosEmbed, Q, ResidMid, ResidPost,
    ResidPre, V, Z,
};
use crate::model::{Linear, Mlp};
use crate::{Gpt2, SiteKind, graph};

/// What is to be run.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// The base prompt.
    pub base: &'a [u32],
    /// The prompt that edits take activations from, of as many tokens.
    pub source: Option<&'a [u32]>,
    /// The runs that leave the base run.
    pub forks: &'a [Fork<'a>],
    /// Edits of the base run and of every fork, which stand before the fork's own.
    pub lasting: &'a [Edit<'a>],
    /// What forks have from the base run.
    pub frozen: Frozen,
    /// What is read on the way.
    pub readers: &'a [Reader],
    /// The circuits of the runs, where readers hear different edges; there are no forks by edits then.
    pub wiring: Option<Wiring<'a>>,
    /// The first position whose end is read.
    pub first_read: usize,
    /// Called between two steps: it may unwind, to stop the walk.
    pub between: &'a (dyn Fn() + Sync),
}

impl<'a> Plan<'a> {
    /// The base run alone, to its last position.
    pub fn of(base: &'a [u32]) -> Self {
        Self {
            base,
            source: None,
            forks: &[],
            lasting: &[],
            frozen: Frozen::default(),
            readers: &[],
            wiring: None,
            first_read: base.len().saturating_sub(1),
            between: &|| {},
        }
    }

    fn first_difference(&self) -> Option<usize> {
        let source = self.source?;
        (0..self.base.len()).find(|&pos| self.base[pos] != source[pos])
    }
}

/// The keys and values of the positions that a base run begins with, in each layer, `(n, C)` each. A walk
/// adds those of its own base run.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Keys, `(n, C)`.
    pub keys: Vec<f32>,
    /// Values, `(n, C)`.
    pub values: Vec<f32>,
}

/// All runs on their way through the layers.
pub struct Walk<'a> {
    model: &'a Gpt2,
    plan: Plan<'a>,
    /// How many tokens a prompt has.
    t: usize,
    /// The fork and the place among its edits of every edit of a layer.
    edits: Vec<Vec<(usize, usize)>>,
    /// The first position in which the source run differs from the base run.
    first_difference: usize,
    /// The residual stream.
    x: Rows,
    /// What the readers have read.
    reads: Vec<Read>,
    wires: Option<Wires<'a>>,
    flops: u64,
}

impl<'a> Walk<'a> {
    /// The base run, and the source run from the first difference on, before the first block.
    ///
    /// # Panics
    /// If the model cannot read a prompt, the source prompt has another length, or what heads write
    /// (`result`) is edited: edit `z`.
    pub fn new(model: &'a Gpt2, plan: Plan<'a>) -> Self {
        Self::after(model, plan, 0)
    }

    /// The same behind `known` positions of the base run, whose keys and values are given to every block.
    ///
    /// # Panics
    /// As [`Walk::new`].
    pub fn after(model: &'a Gpt2, plan: Plan<'a>, known: usize) -> Self {
        let t = plan.base.len();
        for ids in [Some(plan.base), plan.source].into_iter().flatten() {
            if let Err(error) = model.check_prompt(ids) {
                panic!("{error}");
            }
            assert!(ids.len() == t, "a base of {t} tokens and a source of {}", ids.len());
        }
        let mut edits = vec![Vec::new(); model.config.n_layer];
        for (i, fork) in plan.forks.iter().enumerate() {
            for (k, edit) in fork.edits.iter().enumerate() {
                assert!(edit.patch.site != SiteKind::Result, "result is edited as z");
                edits[edit.patch.layer].push((i, k));
            }
        }
        // (With lasting edits the source run differs from the base run everywhere.)
        let first_difference = match (plan.lasting.is_empty(), plan.source) {
            (_, None) => t,
            (true, _) => plan.first_difference().unwrap_or(t),
            (false, _) => 0,
        };
        let runs = vec![
            Run { fork: None, left: BASE, rows: known..t, at: 0 },
            Run { fork: None, left: BASE, rows: first_difference..t, at: t - known },
        ];
        let c = model.config.n_embd;
        let x = Rows { runs, data: Vec::new(), c };
        let wires = plan.wiring.map(|wiring| Wires::new(model, wiring));
        let mut walk =
            Self { model, plan, t, edits, first_difference, x, reads: Vec::new(), wires, flops: 0 };
        walk.embed();
        walk
    }

    /// The rows of the base and of the source run before the first block, and the forks by embeddings.
    fn embed(&mut self) {
        let model = self.model;
        let row = |ids: &[u32], pos: usize, edits: &[&Edit<'_>]| -> Vec<f32> {
            let mut token = model.wte.row(ids[pos] as usize);
            let mut position = model.wpe.row(pos);
            for edit in edits.iter().filter(|edit| edit.positions(self.t).contains(&pos)) {
                let source = self.plan.source.map_or(token, |ids| model.wte.row(ids[pos] as usize));
                match edit.patch.site {
                    Embed => token = edit.piece(pos, 0..token.len(), source),
                    _ => position = edit.piece(pos, 0..position.len(), model.wpe.row(pos)),
                }
            }
            token.iter().zip(position).map(|(token, position)| token + position).collect()
        };
        let is_embedding = |edit: &&Edit<'_>| matches!(edit.patch.site, Embed | PosEmbed);
        let lasting: Vec<&Edit<'_>> = self.plan.lasting.iter().filter(is_embedding).collect();
        let base = self.x.runs[BASE].rows.clone().flat_map(|pos| row(self.plan.base, pos, &lasting));
        let source = self.plan.source.unwrap_or(self.plan.base);
        let source = self.x.runs[SOURCE].rows.clone().flat_map(|pos| row(source, pos, &[]));
        let data: Vec<f32> = base.chain(source).collect();
        let x = Rows { runs: self.x.runs.clone(), data, c: self.x.c };
        if let Some(wires) = &mut self.wires {
            let tokens =
                x.index().into_iter().flat_map(|(_, pos)| model.wte.row(self.plan.base[pos] as usize));
            let tokens = Tensor::new(&[x.len(), x.c], tokens.copied().collect());
            wires.wrote(&x, &tokens);
        }
        let forks = self.forks_at(0, &[Embed, PosEmbed], 0, &x, |edits, pos, own| {
            let edits: Vec<&Edit<'_>> = lasting.iter().chain(edits).copied().collect();
            own.copy_from_slice(&row(self.plan.base, pos, &edits));
        });
        self.x = x;
        self.x.append(forks);
    }

    /// Steps through all blocks; `done` is told of each.
    pub fn run(&mut self, mut done: impl FnMut(usize)) {
        for layer in 0..self.model.config.n_layer {
            self.block(layer, None);
            done(layer);
        }
    }

    /// Takes all runs through one block; the forks whose first edit is in it leave on the way. `known` are
    /// the keys and values in front of the base run.
    pub fn block(&mut self, layer: usize, known: Option<&mut Known>) {
        let model = self.model;
        let block = &model.h[layer];
        // Of the last block only the positions are needed whose end is read.
        let from = if layer + 1 == model.config.n_layer { self.plan.first_read } else { 0 };
        let c = self.x.c;
        let mut x = self.widened(layer);
        self.edit_rows(layer, ResidPre, &mut x);
        let forks = self.forks_at(layer, &[ResidPre], 0, &x, |edits, pos, row| {
            edits.iter().for_each(|edit| row.copy_from_slice(edit.piece(pos, 0..c, x.row(SOURCE, pos))));
        });
        let forks = self.left_to_source(forks, 0, &x);
        x.append(forks);
        let forks = self.wires.as_ref().map(|wires| wires.forks_of(layer, &x, self.t));
        x.append(forks.unwrap_or_default());

        // What attention writes, added to the residual stream.
        let mut z = self.heads(layer, &mut x, from, known);
        if let Some(wires) = &mut self.wires {
            wires.heads_wrote(model, layer, &mut z);
        }
        let written = self.forward_linear(&z.take(), &block.attn.c_proj); // (R, C)
        let attn_out = Rows { data: written.into_data(), ..z };
        let mut mid = self.add_to(&x, attn_out, layer, [AttnOut, ResidMid], from);

        // What the MLP writes, added to the residual stream.
        (self.plan.between)();
        let mlp_out = self.mlp(layer, &mut mid, from);
        self.x = self.add_to(&mid, mlp_out, layer, [MlpOut, ResidPost], from);
    }

    /// What the heads gather, `(R, C)`.
    fn heads(&mut self, layer: usize, x: &mut Rows, from: usize, known: Option<&mut Known>) -> Rows {
        let (t, c, plan) = (self.t, x.c, self.plan);
        let attn = &self.model.h[layer].attn;
        let rows = x.take();
        self.read_heads(layer, &x.runs, &rows);
        // Forks that attention is frozen for have no part in it.
        let n_active = if plan.frozen.attention { 2 } else { x.runs.len() };
        let active = x.runs[..n_active].to_vec();
        x.data = rows.into_data();
        let asking = laid_out(&active, |run| {
            run.rows.start.max(from).min(run.rows.end.max(from))..run.rows.end.max(from)
        });
        let Made { q: own_q, kv, keys } = self.queries_keys_values(layer, x, [&active, &asking], from);
        let nothing = Known::default();
        let seen = known.as_deref().unwrap_or(&nothing);

        (plan.between)();
        let attention = Attention {
            attn,
            runs: &active,
            asking: &asking,
            q: own_q.as_ref().unwrap_or(&kv),
            kv: &kv,
            keys,
            known: [&seen.keys, &seen.values],
        };
        let pairs = |run: usize| {
            [AttnScores, Pattern].iter().flat_map(|kind| self.edits_of(&active, run, layer, *kind)).collect()
        };
        let mut z = attention.forward(from, t, &pairs);
        // (Runs without a part in it keep their places.)
        z.runs.extend(x.runs[n_active..].iter().map(|run| Run { rows: t..t, at: 0, ..run.clone() }));
        let lasting: Vec<&Edit<'_>> = pairs(BASE);
        let forks = self.forks_at(layer, &[Q, K, V, AttnScores, Pattern], from, &z, |edits, dest, row| {
            let edits: Vec<&Edit<'_>> = lasting.iter().chain(edits).copied().collect();
            attention.forked_row(&edits, dest, t, row);
        });
        z.append(forks);
        self.edit_rows(layer, Z, &mut z);
        let forks = self.forks_at(layer, &[Z], from, &z, |edits, pos, row| {
            row.copy_from_slice(z.row(BASE, pos));
            for edit in edits {
                let columns = edit.columns(attn.n_head, c);
                row[columns.clone()].copy_from_slice(edit.piece(pos, columns, z.row(SOURCE, pos)));
            }
        });
        z.append(forks);
        let of_row = |(_, dest): (usize, usize)| 4 * c as u64 * (dest as u64 + 1);
        let flops: u64 = z.index().into_iter().map(of_row).sum();
        if let Some(known) = known {
            for pos in active[BASE].rows.clone() {
                let row = kv.row(pos - active[BASE].rows.start);
                known.keys.extend_from_slice(&row[keys..keys + c]);
                known.values.extend_from_slice(&row[keys + c..keys + 2 * c]);
            }
        }
        self.flops += flops;
        z
    }

    /// Queries, keys and values of the rows of the active runs, with their edits; queries from the position `from` on,
    /// where the rows of `asking` begin.
    fn queries_keys_values(
        &mut self,
        layer: usize,
        x: &Rows,
        [active, asking]: [&[Run]; 2],
        from: usize,
    ) -> Made {
        let c = x.c;
        let (weight, bias) = {
            let c_attn = &self.model.h[layer].attn.c_attn;
            (c_attn.weight.view(), c_attn.bias.data())
        };
        let n_rows: usize = active.iter().map(|run| run.rows.len()).sum();
        let normalized = || {
            let rows = Tensor::new(&[n_rows, c], x.data[..n_rows * c].to_vec());
            self.model.h[layer].ln_1.forward_rows(&rows) // (R, C)
        };
        let mut made = if let Some(wires) = &self.wires {
            let [q, kv] = wires.read_heads(self.model, layer, x, from);
            self.flops += 6 * (n_rows * c * c) as u64;
            Made { q: Some(q), kv, keys: 0 }
        } else if from == 0 {
            let normalized = normalized();
            Made { q: None, kv: self.linear(normalized.view(), weight, bias), keys: c } // (R, 3C)
        } else {
            let normalized = Rows { runs: active.to_vec(), data: normalized().into_data(), c };
            let tail = normalized.tail(from);
            let tail = Tensor::new(&[tail.len() / c, c], tail);
            let q = self.linear(tail.view(), weight.columns(0..c), &bias[..c]); // (R', C)
            let all = normalized.into_tensor();
            Made { q: Some(q), kv: self.linear(all.view(), weight.columns(c..3 * c), &bias[c..]), keys: 0 } // (R, 2C)
        };
        let Made { q, kv, keys } = &mut made;
        match q {
            Some(q) => self.edit_columns(layer, Q, asking, q, 0..c),
            None => self.edit_columns(layer, Q, active, kv, 0..c),
        }
        self.edit_columns(layer, K, active, kv, *keys..*keys + c);
        self.edit_columns(layer, V, active, kv, *keys + c..*keys + 2 * c);
        made
    }

    /// What the MLP writes, `(R, C)`.
    fn mlp(&mut self, layer: usize, mid: &mut Rows, from: usize) -> Rows {
        let block = &self.model.h[layer];
        let c = mid.c;
        let rows = mid.take();
        self.read_mlp(layer, &mid.runs, &rows);
        let n_active = if self.plan.frozen.mlps { 2 } else { mid.runs.len() };
        let n_rows: usize = mid.runs[..n_active].iter().map(|run| run.rows.len()).sum();
        let mut normalized = match self.wires {
            Some(_) => Tensor::zeros(&[0, c]),
            None => block.ln_2.forward_rows(&front(&rows, n_rows)), // (R, C)
        };
        mid.data = rows.into_data();
        if let Some(wires) = &self.wires {
            normalized = block.ln_2.forward_rows(&wires.read(graph::Reader::Mlp(layer), mid, 0));
        }
        let mut runs = mid.runs.clone();
        runs[n_active..].iter_mut().for_each(|run| run.rows = self.t..self.t);
        self.flops += 4 * (n_rows * c * self.model.config.inner_size()) as u64;
        let out = block.mlp.forward_rows(&normalized); // (R, C)
        if let Some(wires) = &mut self.wires {
            wires.wrote(mid, &out);
        }
        let mut written = Rows { runs, data: out.into_data(), c };
        let is_hidden = |site| matches!(site, MlpPre | MlpPost);
        let mut edits = self
            .plan
            .lasting
            .iter()
            .chain(self.edits[layer].iter().map(|&(i, k)| &self.plan.forks[i].edits[k]));
        if edits.any(|edit| edit.patch.layer == layer && is_hidden(edit.patch.site)) {
            self.hidden(layer, &normalized, &mut written, from);
        }
        written
    }

    /// Applies the edits of the MLP's hidden layer to what it writes; forks by them leave.
    fn hidden(&self, layer: usize, normalized: &Tensor, written: &mut Rows, from: usize) {
        let Mlp { c_fc, c_proj, activation } = &self.model.h[layer].mlp;
        let pre = c_fc.forward_rows(normalized); // (R, 4C)
        // What the MLP writes at a row, with these edits of its hidden layer.
        let runs = written.runs.clone();
        let edited = |edits: &[&Edit<'_>], run: usize, pos: usize| -> Vec<f32> {
            let source = pre.row(rows::find(&runs, SOURCE, pos));
            let mut hidden = Tensor::new(&[1, source.len()], pre.row(rows::find(&runs, run, pos)).to_vec());
            let mut of_source = Tensor::new(&[1, source.len()], source.to_vec());
            for kind in [MlpPre, MlpPost] {
                if kind == MlpPost {
                    activation.apply(&mut hidden);
                    activation.apply(&mut of_source);
                }
                let here =
                    |edit: &&&Edit<'_>| edit.patch.site == kind && edit.positions(self.t).contains(&pos);
                for edit in edits.iter().filter(here) {
                    let columns = edit.columns(1, source.len());
                    let piece = edit.piece(pos, columns.clone(), of_source.data());
                    hidden.row_mut(0)[columns].copy_from_slice(piece);
                }
            }
            c_proj.forward_rows(&hidden).into_data()
        };
        let hidden_edits = |run: usize| -> Vec<&Edit<'_>> {
            [MlpPre, MlpPost].iter().flat_map(|kind| self.edits_of(&runs, run, layer, *kind)).collect()
        };
        let of_runs: Vec<Vec<&Edit<'_>>> = (0..runs.len()).map(hidden_edits).collect();
        let is_edited =
            |run: usize, pos: usize| of_runs[run].iter().any(|edit| edit.positions(self.t).contains(&pos));
        let index = written.index();
        let changed: Vec<(usize, Vec<f32>)> = (index.par_iter().enumerate())
            .filter(|(_, (run, pos))| is_edited(*run, *pos))
            .map(|(at, (run, pos))| (at, edited(&of_runs[*run], *run, *pos)))
            .collect();
        let c = written.c;
        for (at, row) in changed {
            written.data[at * c..][..c].copy_from_slice(&row);
        }
        let lasting = of_runs[BASE].clone();
        let forks = self.forks_at(layer, &[MlpPre, MlpPost], from, written, |edits, pos, row| {
            let edits: Vec<&Edit<'_>> = lasting.iter().chain(edits).copied().collect();
            row.copy_from_slice(&edited(&edits, BASE, pos));
        });
        written.append(forks);
    }

    /// Adds what attention or the MLP has written to the residual stream `x` before it. Edits of what
    /// was written, and of the sum, are made, and forks by them leave.
    fn add_to(&self, x: &Rows, written: Rows, layer: usize, kinds: [SiteKind; 2], from: usize) -> Rows {
        let [written_kind, sum_kind] = kinds;
        let c = x.c;
        let mut written = self.with_frozen(x, written, from);
        self.edit_rows(layer, written_kind, &mut written);
        let source_from = written.runs[SOURCE].rows.start;
        let source_written = written.rows_of(SOURCE);
        let base_written = written.runs[SOURCE].rows.is_empty().then(|| written.rows_of(BASE));
        let index = written.index();
        let rows = written.data.par_chunks_exact_mut(c).zip(index);
        rows.for_each(|(row, (run, pos))| {
            // The runs that have just left stand behind the others, and were the base run so far.
            let run = if run < x.runs.len() { run } else { BASE };
            add(row, x.row(run, pos));
        });
        let mut sum = written;
        let base_from = sum.runs[BASE].rows.start;
        let of_source = |pos: usize| match &base_written {
            Some(rows) => &rows[(pos - base_from) * c..][..c],
            None => &source_written[(pos - source_from) * c..][..c],
        };
        // Edits of the sum hold for all runs, but a fork by what was written leaves before them.
        let forks = self.forks_at(layer, &[written_kind], from, &sum, |edits, pos, row| {
            edits.iter().for_each(|edit| row.copy_from_slice(edit.piece(pos, 0..c, of_source(pos))));
            add(row, x.row(BASE, pos));
        });
        let forks = self.left_to_source(forks, from, &sum);
        sum.append(forks);
        self.edit_rows(layer, sum_kind, &mut sum);
        let forks = self.forks_at(layer, &[sum_kind], from, &sum, |edits, pos, row| {
            edits.iter().for_each(|edit| row.copy_from_slice(edit.piece(pos, 0..c, sum.row(SOURCE, pos))));
        });
        let forks = self.left_to_source(forks, from, &sum);
        sum.append(forks);
        sum
    }

    /// What attention or MLPs write, with the base run's rows for the forks that have them frozen.
    fn with_frozen(&self, x: &Rows, written: Rows, from: usize) -> Rows {
        let is_frozen = |i: usize| (2..x.runs.len()).contains(&i) && written.runs[i].rows.is_empty();
        if self.plan.frozen == Frozen::default() || !(0..written.runs.len()).any(is_frozen) {
            return written;
        }
        let mut i = 0;
        let runs = laid_out(&written.runs, |run| {
            i += 1;
            match is_frozen(i - 1) {
                true => {
                    let Range { start, end } = x.runs[i - 1].rows.clone();
                    start.max(from).min(end.max(from))..end.max(from)
                }
                false => run.rows.clone(),
            }
        });
        let mut rows = Rows { runs, data: Vec::new(), c: written.c };
        let data = rows.index().into_iter().flat_map(|(run, pos)| {
            let run = if is_frozen(run) { BASE } else { run };
            written.row(run, pos)
        });
        rows.data = data.copied().collect();
        rows
    }

    /// The residual stream before a block, in which the runs that are edited in it have all rows that their
    /// edits are about.
    fn widened(&mut self, layer: usize) -> Rows {
        let c = self.x.c;
        let x = std::mem::replace(&mut self.x, Rows { runs: Vec::new(), data: Vec::new(), c });
        let wanted = |run: &Run| {
            let edits = self.own_edits(run);
            let here =
                edits.iter().filter(|edit| edit.patch.layer == layer).map(|edit| edit.positions(self.t));
            here.fold(run.rows.clone(), |all, one| all.start.min(one.start)..all.end.max(one.end))
        };
        if x.runs.iter().all(|run| wanted(run) == run.rows) {
            return x;
        }
        let mut wide = Rows { runs: laid_out(&x.runs, wanted), data: Vec::new(), c };
        wide.data = wide.index().into_iter().flat_map(|(run, pos)| x.row(run, pos)).copied().collect();
        wide
    }

    /// The edits of a fork behind the one with which it has left the base run.
    fn own_edits(&self, run: &Run) -> &'a [Edit<'a>] {
        let fork = run.fork.and_then(|fork| self.plan.forks.get(fork));
        fork.map_or(&[][..], |fork| &fork.edits[1..])
    }

    /// The edits of a run, which is under way, at the sites of a kind in a layer.
    fn edits_of(&self, runs: &[Run], run: usize, layer: usize, kind: SiteKind) -> Vec<&'a Edit<'a>> {
        let lasting = if run == SOURCE { &[][..] } else { self.plan.lasting };
        // With its first edit a fork has left the base run.
        let own = self.own_edits(&runs[run]);
        let here = |edit: &&Edit<'_>| edit.patch.layer == layer && edit.patch.site == kind;
        lasting.iter().chain(own).filter(here).collect()
    }

    /// Makes the edits of all runs that are under way in a matrix of whole rows.
    fn edit_rows(&self, layer: usize, kind: SiteKind, rows: &mut Rows) {
        let c = rows.c;
        let mut matrix = rows.take();
        self.edit_columns(layer, kind, &rows.runs, &mut matrix, 0..c);
        rows.data = matrix.into_data();
    }

    /// Makes the edits of all runs that are under way in some columns of a matrix.
    fn edit_columns(
        &self,
        layer: usize,
        kind: SiteKind,
        runs: &[Run],
        matrix: &mut Tensor,
        columns: Range<usize>,
    ) {
        let n_head =
            if kind == K || kind == Q || kind == V || kind == Z { self.model.config.n_head } else { 1 };
        for run in 0..runs.len() {
            for edit in self.edits_of(runs, run, layer, kind) {
                let all = edit.positions(self.t);
                for pos in all.start.max(runs[run].rows.start)..all.end.min(runs[run].rows.end) {
                    let source = matrix.row(rows::find(runs, SOURCE, pos))[columns.clone()].to_vec();
                    let own = &mut matrix.row_mut(rows::find(runs, run, pos))[columns.clone()];
                    let piece = edit.columns(n_head, own.len());
                    own[piece.clone()].copy_from_slice(edit.piece(pos, piece, &source));
                }
            }
        }
    }

    /// The runs that leave the base run at some sites of this layer. `edited` is given a fork's edits there
    /// that are about a position, and writes its row, which holds the base run's; rows at either end that come out equal to
    /// the base run's, bit for bit, are left to it, and a fork of which nothing is left stays the base run.
    fn forks_at(
        &self,
        layer: usize,
        kinds: &[SiteKind],
        from: usize,
        base: &Rows,
        edited: impl Fn(&[&'a Edit<'a>], usize, &mut [f32]) + Sync,
    ) -> Vec<NewFork> {
        let c = base.c;
        // With attention frozen no position hears of another.
        let from = match self.plan.frozen.attention && self.plan.readers.is_empty() {
            true => from.max(self.plan.first_read),
            false => from,
        };
        let present: Vec<usize> = match self.is_simple() {
            true => Vec::new(),
            false => base.runs.iter().filter_map(|run| run.fork).collect(),
        };
        let here = |&&(fork, k): &&(usize, usize)| {
            kinds.contains(&self.plan.forks[fork].edits[k].patch.site) && !present.contains(&fork)
        };
        let mut leaving: Vec<usize> = self.edits[layer].iter().filter(here).map(|(fork, _)| *fork).collect();
        leaving.dedup();
        let new_fork = |&fork: &usize| {
            let of_layer =
                |edit: &&'a Edit<'a>| edit.patch.layer == layer && kinds.contains(&edit.patch.site);
            let edits: Vec<&Edit<'_>> = self.plan.forks[fork].edits.iter().filter(of_layer).collect();
            let dests = edits.iter().map(|edit| {
                let dests = edit.dests(self.t);
                let first = if edit.is_of_source() { self.first_difference } else { 0 };
                dests.start.max(from).max(first).max(base.runs[BASE].rows.start)..dests.end
            });
            let dests = dests.filter(|dests| !dests.is_empty());
            let dests = dests.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))?;
            let mut data = vec![0.0; dests.len() * c];
            for (pos, row) in dests.clone().zip(data.chunks_exact_mut(c)) {
                row.copy_from_slice(base.row(BASE, pos));
                let about: Vec<&Edit<'_>> =
                    edits.iter().copied().filter(|edit| edit.dests(self.t).contains(&pos)).collect();
                edited(&about, pos, row);
            }
            let row = |pos: usize| &data[(pos - dests.start) * c..][..c];
            let differs = |pos: &usize| !same_bits(row(*pos), base.row(BASE, *pos));
            let first = dests.clone().find(differs)?;
            let last = dests.clone().rfind(differs)?;
            let data = data[(first - dests.start) * c..(last + 1 - dests.start) * c].to_vec();
            Some(NewFork { fork, left: BASE, rows: first..last + 1, data })
        };
        leaving.par_iter().filter_map(new_fork).collect()
    }

    /// Whether every fork has one edit.
    fn is_simple(&self) -> bool {
        self.plan.forks.iter().all(|fork| fork.edits.len() == 1)
    }

    /// Leaves to the source run what it has in common with residual streams that have just left, and
    /// will have: its rows from the first difference of the prompts on, as long as none is the base run's.
    /// (To the left of `from` no row is asked for any more.)
    fn left_to_source(&self, forks: Vec<NewFork>, from: usize, stream: &Rows) -> Vec<NewFork> {
        if !self.plan.lasting.is_empty() || self.plan.frozen != Frozen::default() || !self.is_simple() {
            return forks;
        }
        let first = self.first_difference.max(from);
        let left = |fork: NewFork| {
            let rows = fork.rows.clone().zip(fork.data.chunks_exact(stream.c));
            let of_source = rows.take_while(|(pos, row)| same_bits(row, stream.row(SOURCE, *pos)));
            match of_source.count() {
                n if n > 0 && fork.rows.start == first => NewFork {
                    left: SOURCE,
                    rows: first + n..fork.rows.end,
                    data: fork.data[n * stream.c..].to_vec(),
                    ..fork
                },
                _ => fork,
            }
        };
        forks.into_iter().map(left).collect()
    }

    /// Keeps what the heads that read in this layer would read in each fork.
    fn read_heads(&mut self, layer: usize, runs: &[Run], x: &Tensor) {
        let block = &self.model.h[layer];
        let (c, head_size) = (x.row_len(), self.model.config.head_size());
        for (reader, Reader { site, head, .. }) in self.readers_of(layer, &[Q, K, V]) {
            let third = [Q, K, V].iter().position(|kind| *kind == site).unwrap_or_default();
            let columns = head.map_or(0..c, |head| head * head_size..(head + 1) * head_size);
            let columns = third * c + columns.start..third * c + columns.end;
            let weight = block.attn.c_attn.weight.view().columns(columns.clone());
            let bias = &block.attn.c_attn.bias.data()[columns];
            self.read(reader, runs, x, |rows| linear(&block.ln_1.forward_rows(rows), weight, bias));
        }
    }

    /// Keeps what the MLPs that read in this layer would write in each fork.
    fn read_mlp(&mut self, layer: usize, runs: &[Run], x: &Tensor) {
        let block = &self.model.h[layer];
        for (reader, _) in self.readers_of(layer, &[MlpOut]) {
            self.read(reader, runs, x, |rows| block.mlp.forward_rows(&block.ln_2.forward_rows(rows)));
        }
    }

    fn readers_of(&self, layer: usize, kinds: &[SiteKind]) -> Vec<(usize, Reader)> {
        let here = |(_, reader): &(usize, Reader)| reader.layer == layer && kinds.contains(&reader.site);
        self.plan.readers.iter().copied().enumerate().filter(here).collect()
    }

    /// Keeps what a reader makes of the rows of the base run and of each fork.
    fn read(&mut self, reader: usize, runs: &[Run], x: &Tensor, made_of: impl Fn(&Tensor) -> Tensor) {
        let made = made_of(x);
        let width = made.row_len();
        for run in runs[..1].iter().chain(&runs[2..]) {
            let data = made.data()[run.at * width..(run.at + run.rows.len()) * width].to_vec();
            let rows = Tensor::new(&[run.rows.len(), width], data);
            self.reads.push(Read { reader, fork: run.fork, first: run.rows.start, rows });
        }
    }

    /// What was read on the way.
    pub fn into_reads(self) -> Vec<Read> {
        self.reads
    }

    fn forward_linear(&mut self, x: &Tensor, layer: &Linear) -> Tensor {
        self.linear(x.view(), layer.weight.view(), layer.bias.data())
    }

    fn linear(&mut self, x: View<'_>, weight: View<'_>, bias: &[f32]) -> Tensor {
        (self.plan.between)();
        let [rows, n_in] = x.shape();
        self.flops += 2 * (rows * n_in * bias.len()) as u64;
        linear(x, weight, bias)
    }

    /// The rows after all blocks whose end is read, normalised.
    pub fn ends(self) -> Ends {
        let from = self.plan.first_read;
        let rows = match &self.wires {
            Some(wires) => wires.read(graph::Reader::Logits, &self.x, from).into_data(),
            None => self.x.tail(from),
        };
        let c = self.x.c;
        let normalized = self.model.ln_f.forward_rows(&Tensor::new(&[rows.len() / c, c], rows));
        let runs = self.x.runs_from(from);
        Ends { rows: Rows { runs, data: normalized.into_data(), c }, read: from..self.t, flops: self.flops }
    }
}

/// Queries, keys and values of a layer.
struct Made {
    /// The queries, `(R', C)`, if they do not stand at the front of the keys and values.
    q: Option<Tensor>,
    /// Keys and then values in each row, from the column `keys` on.
    kv: Tensor,
    keys: usize,
}

/// The first `n` rows of a matrix.
fn front(x: &Tensor, n: usize) -> Cow<'_, Tensor> {
    match n == x.n_rows() {
        true => Cow::Borrowed(x),
        false => Cow::Owned(Tensor::new(&[n, x.row_len()], x.data()[..n * x.row_len()].to_vec())),
    }
}

/// The rows of all runs after the last layer norm, at the positions whose end is read.
#[derive(Clone, Debug)]
pub struct Ends {
    /// The rows, of which logits are made.
    pub rows: Rows,
    /// The positions.
    pub read: Range<usize>,
    /// Multiplications and additions on the way.
    pub flops: u64,
}

impl Ends {
    /// The rows of one run, `(n, C)`.
    pub fn of_run(&self, run: usize) -> Tensor {
        let rows: Vec<f32> = self.read.clone().flat_map(|pos| self.rows.row(run, pos)).copied().collect();
        Tensor::new(&[self.read.len(), self.rows.c], rows)
    }
}
