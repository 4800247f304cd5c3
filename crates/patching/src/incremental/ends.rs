//! The metric of every run at its end.

use std::collections::HashSet;

use gpt2::Gpt2;
use gpt2::walk::{self, SOURCE};
use rayon::prelude::*;
use tensor::Tensor;

use crate::metric::{End, LOGIT_ROWS, Which, loss, mean};
use crate::{Metric, Watch};

/// The ends of a chunk's runs.
pub struct Ends<'a> {
    pub ends: &'a walk::Ends,
    /// The cell of each fork.
    pub cells: &'a [usize],
    /// The base prompt.
    pub prompt: &'a [u32],
}

impl Ends<'_> {
    /// The cells whose runs differ from the base.
    pub fn cells(&self) -> HashSet<usize> {
        self.ends.rows.runs.iter().filter_map(|run| run.fork).map(|fork| self.cells[fork]).collect()
    }

    /// Writes the metric of every patched run to its cell, as far as they are reached before a stop.
    pub fn measure(
        &self,
        model: &Gpt2,
        metric: Metric<'_>,
        clean: &End<'_>,
        values: &mut [Option<f32>],
        watch: Watch<'_>,
    ) {
        let rows = &self.ends.rows;
        let patched: Vec<usize> = (SOURCE + 1..rows.runs.len()).collect();
        let which = |run: usize| {
            let fork = rows.runs[run].fork;
            self.cells[fork.unwrap_or_else(|| unreachable!("every run behind the source is a fork"))]
        };
        let measured = watch.unless_stopped(|| match metric {
            Metric::Loss { from, to } => {
                let losses = self.losses(model, to, watch);
                let of_run = |&run: &usize| {
                    let loss = |pos: usize| losses[rows.find(run, pos)];
                    let end = End::Loss(mean((from..to).map(loss)));
                    metric.of(Which::Patched(which(run)), &end, clean)
                };
                patched.iter().map(of_run).collect()
            }
            _ => {
                let last = self.ends.read.end - 1;
                let row = |&run: &usize| (which(run), rows.row(run, last));
                let rows: Vec<(usize, &[f32])> = patched.iter().map(row).collect();
                metric.of_rows(model, &rows, clean, watch)
            }
        });
        for (run, measured) in patched.into_iter().zip(measured.into_iter().flatten()) {
            values[which(run)] = Some(measured);
        }
    }

    /// The loss at every row, NaN at positions from `to` on.
    fn losses(&self, model: &Gpt2, to: usize, watch: Watch<'_>) -> Vec<f32> {
        let rows = &self.ends.rows;
        let index = rows.index();
        let mut losses = vec![f32::NAN; index.len()];
        let wanted: Vec<usize> = (0..index.len()).filter(|&row| index[row].1 < to).collect();
        for some in wanted.chunks(LOGIT_ROWS) {
            watch.leave_if_stopped();
            let of_some = some.iter().flat_map(|&row| rows.row(index[row].0, index[row].1)).copied();
            let logits =
                model.unembed_rows(&Tensor::new(&[some.len(), model.config.n_embd], of_some.collect()));
            let of_row = |(i, row): (usize, &usize)| loss(logits.row(i), self.prompt[index[*row].1 + 1]);
            let computed: Vec<f32> = some.par_iter().enumerate().map(of_row).collect();
            for (row, loss) in some.iter().zip(computed) {
                losses[*row] = loss;
            }
        }
        losses
    }
}
