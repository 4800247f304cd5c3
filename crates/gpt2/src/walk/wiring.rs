//! Runs in which each reader hears some writers as they are, and others as they are elsewhere ([`crate::graph`]).

use rayon::prelude::*;
use tensor::{Tensor, linear};

use super::rows::{BASE, NewFork, Rows, add, find};
use crate::graph::{Circuit, HeadInput, Reader};
use crate::{Gpt2, Head};

/// The circuits of the runs of a walk. In a run, a reader reads
///
/// ```text
/// x + Σ (other_u − now_u)     over the writers u that it hears, but not in the run's circuit
/// ```
///
/// where x is the residual stream, now_u what u writes in the run itself, and other_u what is put in its place.
#[derive(Clone, Copy)]
pub struct Wiring<'a> {
    /// What is put in the place of what each writer writes, in the order of the writers, `(T, C)` each.
    pub other: &'a [Tensor],
    /// The first position at which it differs from what they write.
    pub first: usize,
    /// The circuit of the base run.
    pub base: &'a Circuit,
    /// One run for each.
    pub forks: &'a [Circuit],
}

/// A wiring under way.
pub(super) struct Wires<'a> {
    wiring: Wiring<'a>,
    /// The residual stream if every writer writes what is put in its place: as each layer's heads read it, as its
    /// MLP reads it, and in the end, `(T, C)` each.
    streams: Vec<Tensor>,
    /// other_u − now_u of the writers that have written.
    differences: Vec<Rows>,
    /// For each fork the layer in which it leaves the base run.
    layers: Vec<Option<usize>>,
}

impl<'a> Wires<'a> {
    pub fn new(model: &Gpt2, wiring: Wiring<'a>) -> Self {
        let graph = wiring.base.graph();
        assert!(
            graph.n_writers() == wiring.other.len(),
            "{} outputs for {} writers",
            wiring.other.len(),
            graph.n_writers()
        );
        let layers = wiring.forks.iter().map(|fork| fork.first_layer_unlike(wiring.base)).collect();
        Self { wiring, streams: streams(model, wiring.other), differences: Vec::new(), layers }
    }

    /// The forks whose readers hear other edges than the base run's from this layer on: as yet with the base run's
    /// rows.
    pub fn forks_of(&self, layer: usize, x: &Rows, t: usize) -> Vec<NewFork> {
        let here = |fork: &usize| self.layers[*fork] == Some(layer);
        let rows = self.wiring.first..t;
        let data = || rows.clone().flat_map(|pos| x.row(BASE, pos)).copied().collect();
        let fork = |fork| NewFork { fork, left: BASE, rows: rows.clone(), data: data() };
        (0..self.layers.len()).filter(here).map(fork).collect()
    }

    /// What a reader reads in each run, at the positions from `from` on, in the order of the rows of `x`.
    pub fn read(&self, reader: Reader, x: &Rows, from: usize) -> Tensor {
        let stream = &self.streams[match reader {
            Reader::Head(head, _) => 2 * head.layer,
            Reader::Mlp(layer) => 2 * layer + 1,
            Reader::Logits => self.streams.len() - 1,
        }];
        let of_runs: Vec<Terms> = x.runs.iter().map(|run| self.terms(reader, run.fork)).collect();
        let index: Vec<(usize, usize)> = x.index().into_iter().filter(|(_, pos)| *pos >= from).collect();
        let mut rows = Tensor::zeros(&[index.len(), x.c]);
        rows.data_mut().par_chunks_exact_mut(x.c).zip(&index).for_each(|(row, &(run, pos))| {
            let Terms { sign, writers } = &of_runs[run];
            row.copy_from_slice(if *sign > 0.0 { x.row(run, pos) } else { stream.row(pos) });
            if pos < self.wiring.first {
                row.copy_from_slice(x.row(run, pos));
                return;
            }
            for &writer in writers {
                let difference = &self.differences[writer];
                let run = if run < difference.runs.len() { run } else { BASE };
                let other = &difference.data[find(&difference.runs, run, pos) * x.c..][..x.c];
                if *sign > 0.0 {
                    add(row, other);
                } else {
                    row.iter_mut().zip(other).for_each(|(x, y)| *x -= y);
                }
            }
        });
        rows
    }

    /// The terms of what a reader reads: of cut and kept edges those of which there are fewer. (Which, depends on
    /// the circuit alone.)
    fn terms(&self, reader: Reader, fork: Option<usize>) -> Terms {
        let circuit = fork.map_or(self.wiring.base, |fork| &self.wiring.forks[fork]);
        let kept = circuit.into_reader(reader);
        let n_kept = kept.iter().filter(|kept| **kept).count();
        let listed = 2 * n_kept < kept.len();
        let writers = (0..kept.len()).filter(|&writer| kept[writer] == listed).collect();
        Terms { sign: if listed { -1.0 } else { 1.0 }, writers }
    }

    /// Queries `(R', C)` from the position `from` on, and keys and values `(R, 2C)`, each head's from what it reads.
    pub fn read_heads(&self, model: &Gpt2, layer: usize, x: &Rows, from: usize) -> [Tensor; 2] {
        let (c, width) = (x.c, model.config.head_size());
        let made = |input: HeadInput, from: usize| -> Vec<Tensor> {
            let head = |head| {
                let reader = Reader::Head(Head { layer, head }, input);
                let (weight, bias) = model.head_input(reader);
                let normalized = model.h[layer].ln_1.forward_rows(&self.read(reader, x, from));
                linear(&normalized, weight, bias) // (R, head_size)
            };
            (0..model.config.n_head).map(head).collect()
        };
        let side_by_side = |parts: Vec<Tensor>| {
            let n = parts[0].n_rows();
            let mut all = Tensor::zeros(&[n, parts.len() * width]);
            for row in 0..n {
                let pieces = all.row_mut(row).chunks_exact_mut(width).zip(&parts);
                pieces.for_each(|(piece, part)| piece.copy_from_slice(part.row(row)));
            }
            all
        };
        let q = side_by_side(made(HeadInput::Q, from));
        let kv = side_by_side([made(HeadInput::K, 0), made(HeadInput::V, 0)].concat());
        debug_assert!(kv.row_len() == 2 * c, "keys and values of {} numbers", kv.row_len());
        [q, kv]
    }

    /// Keeps what the next writer has written.
    pub fn wrote(&mut self, now: &Rows, written: &Tensor) {
        let other = &self.wiring.other[self.differences.len()];
        let mut data = written.data().to_vec();
        for (row, (_, pos)) in data.chunks_exact_mut(now.c).zip(now.index()) {
            row.iter_mut().zip(other.row(pos)).for_each(|(now, other)| *now = other - *now);
        }
        self.differences.push(Rows { runs: now.runs.clone(), data, c: now.c });
    }

    /// Keeps what the heads of a layer have written, from z.
    pub fn heads_wrote(&mut self, model: &Gpt2, layer: usize, z: &mut Rows) {
        let attn = &model.h[layer].attn;
        let rows = z.take();
        let written: Vec<Tensor> =
            (0..attn.n_head).into_par_iter().map(|head| attn.written_by_head(head, &rows)).collect();
        z.data = rows.into_data();
        written.iter().for_each(|written| self.wrote(z, written));
    }
}

/// What is added to the residual stream (with the sign +) or taken from that of the others' outputs (−).
struct Terms {
    sign: f32,
    writers: Vec<usize>,
}

fn streams(model: &Gpt2, other: &[Tensor]) -> Vec<Tensor> {
    let mut writers = other.iter();
    let Some(input) = writers.next() else {
        return Vec::new();
    };
    let mut x = input.clone();
    for pos in 0..x.n_rows() {
        add(x.row_mut(pos), model.wpe.row(pos));
    }
    let mut streams = vec![x.clone()];
    for block in &model.h {
        writers.by_ref().take(block.attn.n_head).for_each(|head| x.add_assign(head));
        x.add_to_rows(&block.attn.c_proj.bias);
        streams.push(x.clone());
        writers.by_ref().take(1).for_each(|mlp| x.add_assign(mlp));
        streams.push(x.clone());
    }
    streams
}
