//! What the metric says of every run at its end.

use std::collections::HashSet;
use std::ops::Range;

use gpt2::Gpt2;
use rayon::prelude::*;
use tensor::Tensor;

use super::rows::{Rows, SOURCE};
use crate::metric::{End, LOGIT_ROWS, Which, loss, mean};
use crate::{Metric, Watch};

/// The rows of all runs after the last layer norm, at the positions that the metric reads.
pub struct Ends {
    pub rows: Rows,
    /// Those positions.
    pub read: Range<usize>,
    /// Multiplications and additions on the way.
    pub flops: u64,
}

impl Ends {
    /// The rows of one run, `(n, C)`.
    pub fn of_run(&self, run: usize) -> Tensor {
        let rows: Vec<f32> = (self.read.clone()).flat_map(|pos| self.rows.row(run, pos)).copied().collect();
        Tensor::new(&[self.read.len(), self.rows.c], rows)
    }

    /// The cells whose runs have come to differ from the base.
    pub fn cells(&self) -> HashSet<usize> {
        self.rows.runs.iter().filter_map(|run| run.cell).collect()
    }

    /// Writes the metric of every patched run to its cell; of none that is not reached before a stop.
    pub fn measure(
        &self,
        model: &Gpt2,
        metric: Metric<'_>,
        base: &[u32],
        clean: &End<'_>,
        values: &mut [Option<f32>],
        watch: Watch<'_>,
    ) {
        let patched: Vec<usize> = (SOURCE + 1..self.rows.runs.len()).collect();
        let which = |run: usize| {
            let cell = self.rows.runs[run].cell;
            cell.unwrap_or_else(|| unreachable!("every patched run has a cell"))
        };
        let measured = watch.unless_stopped(|| match metric {
            Metric::Loss { from, to } => {
                let losses = self.losses(model, base, to, watch);
                let of_run = |&run: &usize| {
                    let loss = |pos: usize| losses[self.rows.find(run, pos)];
                    let end = End::Loss(mean((from..to).map(loss)));
                    metric.of(Which::Patched(which(run)), &end, clean)
                };
                patched.iter().map(of_run).collect()
            }
            _ => {
                let last = self.read.end - 1;
                let row = |&run: &usize| (which(run), self.rows.row(run, last));
                let rows: Vec<(usize, &[f32])> = patched.iter().map(row).collect();
                metric.of_rows(model, &rows, clean, watch)
            }
        });
        for (run, measured) in patched.into_iter().zip(measured.into_iter().flatten()) {
            values[which(run)] = Some(measured);
        }
    }

    /// The loss at every row, NaN at positions from `to` on.
    fn losses(&self, model: &Gpt2, base: &[u32], to: usize, watch: Watch<'_>) -> Vec<f32> {
        let index = self.rows.index();
        let mut losses = vec![f32::NAN; index.len()];
        let wanted: Vec<usize> = (0..index.len()).filter(|&row| index[row].1 < to).collect();
        for some in wanted.chunks(LOGIT_ROWS) {
            watch.leave_if_stopped();
            let c = self.rows.c;
            let rows = some.iter().flat_map(|row| &self.rows.data[row * c..][..c]);
            let rows = Tensor::new(&[some.len(), c], rows.copied().collect());
            let logits = model.unembed_rows(&rows);
            let of_row = |(i, row): (usize, &usize)| loss(logits.row(i), base[index[*row].1 + 1]);
            let computed: Vec<f32> = some.par_iter().enumerate().map(of_row).collect();
            for (row, loss) in some.iter().zip(computed) {
                losses[*row] = loss;
            }
        }
        losses
    }
}
