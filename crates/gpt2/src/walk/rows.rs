//! Runs, and their rows in one tall matrix.

use std::ops::Range;

use tensor::Tensor;

/// One run of a walk: the positions whose rows stand in the tall matrix, and where there. The rows to the
/// right of them are the base run's.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which fork it is; none for the base and the source run.
    pub fork: Option<usize>,
    /// The run, [`BASE`] or [`SOURCE`], that has the rows to the left of them.
    pub(super) left: usize,
    /// Positions.
    pub(super) rows: Range<usize>,
    /// The first one's row in the tall matrix.
    pub(super) at: usize,
}

impl Run {
    /// Where a position's row stands in the tall matrix, if it stands there.
    pub(super) fn find(&self, pos: usize) -> Option<usize> {
        self.rows.contains(&pos).then(|| self.at + pos - self.rows.start)
    }
}

/// The base run's place among the runs.
pub const BASE: usize = 0;
/// The source run's.
pub const SOURCE: usize = 1;

/// Where the row of a run at a position stands: its own, or the one of the run that it has it from.
pub(super) fn find(runs: &[Run], run: usize, pos: usize) -> usize {
    let Run { left, rows, .. } = &runs[run];
    let other = if pos < rows.start { *left } else { BASE };
    let of = |run: usize| runs[run].find(pos);
    let at = of(run).or_else(|| of(other)).or_else(|| of(BASE));
    at.unwrap_or_else(|| unreachable!("the base run has every position that is asked for"))
}

/// Runs with these positions each, one after the other in a matrix.
pub(super) fn laid_out(runs: &[Run], mut rows: impl FnMut(&Run) -> Range<usize>) -> Vec<Run> {
    let mut at = 0;
    let place = |run: &Run| {
        let rows = rows(run);
        let placed = Run { at, rows, ..run.clone() };
        at += placed.rows.len();
        placed
    };
    runs.iter().map(place).collect()
}

/// Runs whose rows stand one after the other in a matrix `(R, C)`.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The base run, the source run, and the forks in the order in which they left the base run.
    pub runs: Vec<Run>,
    /// All rows.
    pub(super) data: Vec<f32>,
    /// C.
    pub(super) c: usize,
}

impl Rows {
    /// [`find`] among these runs.
    pub fn find(&self, run: usize, pos: usize) -> usize {
        find(&self.runs, run, pos)
    }

    /// The row of a run at a position, wherever it stands, `(C)`.
    pub fn row(&self, run: usize, pos: usize) -> &[f32] {
        &self.data[self.find(run, pos) * self.c..][..self.c]
    }

    /// The rows at positions from `from` on, one after the other, `(R', C)`.
    pub(super) fn tail(&self, from: usize) -> Vec<f32> {
        let tail = |run: &Run| {
            let skipped = from.saturating_sub(run.rows.start).min(run.rows.len());
            &self.data[(run.at + skipped) * self.c..(run.at + run.rows.len()) * self.c]
        };
        self.runs.iter().flat_map(tail).copied().collect()
    }

    /// The runs with only those rows.
    pub(super) fn runs_from(&self, from: usize) -> Vec<Run> {
        laid_out(&self.runs, |run| {
            run.rows.start.max(from).min(run.rows.end.max(from))..run.rows.end.max(from)
        })
    }

    /// Run and position of every row, in their order.
    pub fn index(&self) -> Vec<(usize, usize)> {
        let of_run = |(i, run): (usize, &Run)| run.rows.clone().map(move |pos| (i, pos)).collect::<Vec<_>>();
        self.runs.iter().enumerate().flat_map(of_run).collect()
    }

    /// Appends runs that have left the base run.
    pub(super) fn append(&mut self, forks: Vec<NewFork>) {
        for NewFork { fork, left, rows, data } in forks {
            self.runs.push(Run { fork: Some(fork), left, rows, at: self.data.len() / self.c });
            self.data.extend(data);
        }
    }

    /// A copy of all rows of one run.
    pub(super) fn rows_of(&self, run: usize) -> Vec<f32> {
        let Run { rows, at, .. } = &self.runs[run];
        self.data[at * self.c..(at + rows.len()) * self.c].to_vec()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.data.len() / self.c
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Takes the numbers out, as a matrix `(R, C)`.
    pub(super) fn take(&mut self) -> Tensor {
        let data = std::mem::take(&mut self.data);
        Tensor::new(&[data.len() / self.c, self.c], data)
    }

    /// All rows as a matrix `(R, C)`.
    pub fn into_tensor(mut self) -> Tensor {
        self.take()
    }
}

/// A run that has just left the base run: the rows in which it differs.
pub(super) struct NewFork {
    pub fork: usize,
    pub left: usize,
    pub rows: Range<usize>,
    pub data: Vec<f32>,
}

/// Adds a row to another.
pub(super) fn add(row: &mut [f32], other: &[f32]) {
    for (x, y) in row.iter_mut().zip(other) {
        *x += y;
    }
}

/// Whether two rows are the same, bit for bit.
pub(super) fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}
