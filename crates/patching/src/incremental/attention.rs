//! The heads, for rows of many runs at once.

use gpt2::model::CausalSelfAttention;
use gpt2::rows::gather;
use rayon::prelude::*;
use tensor::Tensor;

use super::rows::{BASE, Rows, Run, SOURCE, find};
use crate::{Patch, SiteKind};

/// Queries, keys and values of one layer, and whose they are.
pub struct Attention<'a> {
    pub attn: &'a CausalSelfAttention,
    pub runs: &'a [Run],
    /// The same runs with those of their rows that have a query.
    pub asking: &'a [Run],
    /// Queries, at the front of each row.
    pub q: &'a Tensor,
    /// Keys and then values in each row, from the column `keys` on.
    pub kv: &'a Tensor,
    pub keys: usize,
}

impl Attention<'_> {
    /// What the heads gather, for every run from its first changed row (or from the position `from`)
    /// to the end.
    pub fn forward(&self, from: usize, t: usize, c: usize) -> Rows {
        let mut at = 0;
        let widened = |run: &Run| {
            let rows = run.rows.start.max(from)..t;
            let widened = Run { cell: run.cell, left: run.left, rows, at };
            at += widened.rows.len();
            widened
        };
        let runs: Vec<Run> = self.runs.iter().map(widened).collect();
        let mut z = Rows { runs, data: vec![0.0; at * c], c };
        let index = z.index();
        let rows = z.data.par_chunks_exact_mut(c).zip(index);
        rows.for_each(|(row, (run, dest))| {
            let seen = (0..=dest).map(|src| self.kv(run, src));
            let (keys, values): (Vec<_>, Vec<_>) = seen.unzip();
            self.attn.attend(self.q(run, dest), &keys, &values, row);
        });
        z
    }

    /// The row of z at a position of the base run in which one piece is the source's, or is taken from
    /// `given`, an activation of the patched kind.
    pub fn patched_row(&self, patch: &Patch, dest: usize, z: &Rows, given: Option<&Tensor>, row: &mut [f32]) {
        let (c, head_size) = (row.len(), row.len() / self.attn.n_head);
        row.copy_from_slice(z.row(BASE, dest));
        let given_row = |pos: usize| given.map(|given| &given.data()[pos * c..][..c]);
        // Where this kind is patched at this position the source's, else the base's.
        let is_patched =
            |kind: SiteKind, pos: usize| patch.site == kind && patch.pos.is_none_or(|patched| patched == pos);
        let q = match is_patched(SiteKind::Q, dest) {
            true => given_row(dest).unwrap_or_else(|| self.q(SOURCE, dest)),
            false => self.q(BASE, dest),
        };
        let key = |src: usize| match is_patched(SiteKind::K, src) {
            true => given_row(src).unwrap_or_else(|| self.kv(SOURCE, src).0),
            false => self.kv(BASE, src).0,
        };
        let value = |src: usize| match is_patched(SiteKind::V, src) {
            true => given_row(src).unwrap_or_else(|| self.kv(SOURCE, src).1),
            false => self.kv(BASE, src).1,
        };
        let keys: Vec<&[f32]> = (0..=dest).map(key).collect();
        let values: Vec<&[f32]> = (0..=dest).map(value).collect();
        for head in patch.heads(self.attn.n_head) {
            let piece = head * head_size..(head + 1) * head_size;
            if patch.site == SiteKind::Z {
                let source = given_row(dest).unwrap_or_else(|| z.row(SOURCE, dest));
                row[piece.clone()].copy_from_slice(&source[piece]);
                continue;
            }
            let mut weights = self.attn.pattern(piece.clone(), q, &keys);
            if patch.site == SiteKind::Pattern {
                let source_weights = match given {
                    // (n_head, T, T): head, dest, src
                    Some(given) => given.row(head * given.shape()[1] + dest).to_vec(),
                    None => {
                        let keys = (0..=dest).map(|src| self.kv(SOURCE, src).0);
                        self.attn.pattern(piece.clone(), self.q(SOURCE, dest), &keys.collect::<Vec<_>>())
                    }
                };
                let is_patched = |src: &usize| patch.src.is_none_or(|patched| patched == *src);
                for src in (0..=dest).filter(is_patched) {
                    weights[src] = source_weights[src];
                }
            }
            gather(piece.clone(), &values, &weights, &mut row[piece]);
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
        self.kv.row(find(self.runs, run, pos))[self.keys..].split_at(self.width())
    }
}
