//! The heads, for the rows of many runs at once.

use rayon::prelude::*;
use tensor::{Tensor, softmax_row};

use super::edit::{Edit, Value};
use super::rows::{BASE, Rows, Run, SOURCE, find, laid_out};
use crate::SiteKind::{AttnScores, K, Pattern, Q, V};
use crate::model::CausalSelfAttention;
use crate::rows::gather;

/// Queries, keys and values of one layer, and the runs that have them.
pub(super) struct Attention<'a> {
    pub attn: &'a CausalSelfAttention,
    pub runs: &'a [Run],
    /// The same runs with those of their rows that have a query.
    pub asking: &'a [Run],
    /// Queries, at the front of each row.
    pub q: &'a Tensor,
    /// Keys and then values in each row, from the column `keys` on.
    pub kv: &'a Tensor,
    pub keys: usize,
    /// Keys and values of the positions in front of the base run's first row, `(n, C)` each.
    pub known: [&'a [f32]; 2],
}

impl Attention<'_> {
    /// What the heads gather, for every run from its first changed row (or from the position `from`)
    /// to the end. `pairs` are the edits of a run's scores and patterns.
    pub fn forward<'e>(&self, from: usize, t: usize, pairs: &dyn Fn(usize) -> Vec<&'e Edit<'e>>) -> Rows {
        let c = self.width();
        let runs = laid_out(self.runs, |run| run.rows.start.max(from).min(t)..t);
        let n: usize = runs.iter().map(|run| run.rows.len()).sum();
        let mut z = Rows { runs, data: vec![0.0; n * c], c };
        let index = z.index();
        let pairs: Vec<Vec<&Edit<'_>>> = (0..self.runs.len()).map(pairs).collect();
        let rows = z.data.par_chunks_exact_mut(c).zip(index);
        rows.for_each(|(row, (run, dest))| {
            let seen = (0..=dest).map(|src| self.kv(run, src));
            let (keys, values): (Vec<_>, Vec<_>) = seen.unzip();
            if pairs[run].is_empty() {
                self.attn.attend(self.q(run, dest), &keys, &values, row);
                return;
            }
            for (head, z) in row.chunks_exact_mut(c / self.attn.n_head).enumerate() {
                let columns = head * z.len()..(head + 1) * z.len();
                let own = |rows: &[&'_ [f32]]| {
                    rows.iter().map(|row| row[columns.clone()].to_vec()).collect::<Vec<_>>()
                };
                let (keys, values) = (own(&keys), own(&values));
                let keys: Vec<&[f32]> = keys.iter().map(Vec::as_slice).collect();
                let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
                let q = &self.q(run, dest)[columns.clone()];
                self.gather_edited(head, (q, &keys, &values), &pairs[run], dest, z);
            }
        });
        z
    }

    /// Writes the row of z at a position of the base run, with these edits of queries, keys, values, scores
    /// and patterns, over the base run's own.
    pub fn forked_row(&self, edits: &[&Edit<'_>], dest: usize, t: usize, row: &mut [f32]) {
        let (c, n_head) = (self.width(), self.attn.n_head);
        let is_of = |edit: &Edit<'_>, head: usize| edit.patch.heads(n_head).contains(&head);
        for head in (0..n_head).filter(|head| edits.iter().any(|edit| is_of(edit, *head))) {
            let columns = head * c / n_head..(head + 1) * c / n_head;
            // The edit of this kind at a position.
            let edit_at = |kind, pos: usize| {
                let here = |edit: &&&Edit<'_>| {
                    edit.patch.site == kind && is_of(edit, head) && edit.positions(t).contains(&pos)
                };
                edits.iter().rev().find(here)
            };
            let q = match edit_at(Q, dest) {
                Some(edit) => edit.piece(dest, columns.clone(), self.q(SOURCE, dest)),
                None => &self.q(BASE, dest)[columns.clone()],
            };
            let key = |pos: usize| match edit_at(K, pos) {
                Some(edit) => edit.piece(pos, columns.clone(), self.kv(SOURCE, pos).0),
                None => &self.kv(BASE, pos).0[columns.clone()],
            };
            let value = |pos: usize| match edit_at(V, pos) {
                Some(edit) => edit.piece(pos, columns.clone(), self.kv(SOURCE, pos).1),
                None => &self.kv(BASE, pos).1[columns.clone()],
            };
            let keys: Vec<&[f32]> = (0..=dest).map(key).collect();
            let values: Vec<&[f32]> = (0..=dest).map(value).collect();
            self.gather_edited(head, (q, &keys, &values), edits, dest, &mut row[columns.clone()]);
        }
    }

    /// What a head gathers, `z` `(head_size)`, at a position where its scores or pattern may be edited, from
    /// its own columns of queries, keys and values.
    fn gather_edited(
        &self,
        head: usize,
        (q, keys, values): (&[f32], &[&[f32]], &[&[f32]]),
        edits: &[&Edit<'_>],
        dest: usize,
        z: &mut [f32],
    ) {
        let all = 0..z.len();
        let mut weights = self.attn.scores(all.clone(), q, keys);
        for kind in [AttnScores, Pattern] {
            if kind == Pattern {
                softmax_row(&mut weights);
            }
            for edit in edits.iter().filter(|edit| edit.patch.site == kind) {
                self.edit_pairs(edit, head, dest, &mut weights);
            }
        }
        gather(all, values, &weights, z);
    }

    /// Puts an edit's piece into a head's scores or pattern at a position, `(dest + 1)`.
    fn edit_pairs(&self, edit: &Edit<'_>, head: usize, dest: usize, weights: &mut [f32]) {
        let patch = &edit.patch;
        if patch.head.is_some_and(|only| only != head) || patch.dest.is_some_and(|only| only != dest) {
            return;
        }
        let of_source;
        let own = match &edit.value {
            Value::Activation(x) => x.row(head * x.shape()[1] + dest), // (n_head, T, T): head, dest, src
            _ => {
                let head_size = self.width() / self.attn.n_head;
                let keys: Vec<&[f32]> = (0..=dest).map(|src| self.kv(SOURCE, src).0).collect();
                let columns = head * head_size..(head + 1) * head_size;
                let mut own = self.attn.scores(columns, self.q(SOURCE, dest), &keys);
                if patch.site == Pattern {
                    softmax_row(&mut own);
                }
                of_source = own;
                &of_source
            }
        };
        for src in (0..=dest).filter(|src| patch.src.is_none_or(|only| only == *src)) {
            weights[src] = own[src];
        }
    }

    /// The queries of a run at a position, `(C)`.
    fn q(&self, run: usize, pos: usize) -> &[f32] {
        &self.q.row(find(self.asking, run, pos))[..self.width()]
    }

    /// C: how wide all heads are together.
    fn width(&self) -> usize {
        (self.kv.row_len() - self.keys) / 2
    }

    /// Keys and values of a run at a position, `(C)` each.
    fn kv(&self, run: usize, pos: usize) -> (&[f32], &[f32]) {
        let c = self.width();
        match pos < self.known[0].len() / c {
            true => (&self.known[0][pos * c..][..c], &self.known[1][pos * c..][..c]),
            false => self.kv.row(find(self.runs, run, pos))[self.keys..].split_at(c),
        }
    }
}
