//! Runs, and their rows in one tall matrix.

use std::ops::Range;

use tensor::Tensor;

/// One run of the walk: the positions whose rows stand in the tall matrix, and where there. The rows to
/// the right of them are the base's.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which value it is for; none for the base and the source.
    pub cell: Option<usize>,
    /// The run, [`BASE`] or [`SOURCE`], whose rows are its own to the left of them.
    pub left: usize,
    /// Positions.
    pub rows: Range<usize>,
    /// The first one's row in the tall matrix.
    pub at: usize,
}

impl Run {
    /// Where a position's row stands in the tall matrix, if it stands there.
    pub fn find(&self, pos: usize) -> Option<usize> {
        self.rows.contains(&pos).then(|| self.at + pos - self.rows.start)
    }
}

/// The base's and the source's place among the runs.
pub const BASE: usize = 0;
pub const SOURCE: usize = 1;

/// Where the row of a run at a position stands: its own, or that of the run whose it is.
pub fn find(runs: &[Run], run: usize, pos: usize) -> usize {
    let Run { left, rows, .. } = &runs[run];
    let whose = if pos < rows.start { *left } else { BASE };
    let of = |run: usize| runs[run].find(pos);
    let at = of(run).or_else(|| of(whose)).or_else(|| of(BASE));
    at.unwrap_or_else(|| unreachable!("the base has every position that is asked for"))
}

/// Runs whose rows stand one after the other in a matrix `(R, C)`.
pub struct Rows {
    pub runs: Vec<Run>,
    pub data: Vec<f32>,
    pub c: usize,
}

impl Rows {
    /// [`find`] among these runs.
    pub fn find(&self, run: usize, pos: usize) -> usize {
        find(&self.runs, run, pos)
    }

    /// The row of a run at a position, wherever it stands.
    pub fn row(&self, run: usize, pos: usize) -> &[f32] {
        &self.data[self.find(run, pos) * self.c..][..self.c]
    }

    /// Where the rows at positions from `from` on stand.
    pub fn rows_from(&self, from: usize) -> impl Iterator<Item = usize> {
        let of_run = move |run: &Run| {
            let start = run.rows.start.max(from);
            (start..run.rows.end.max(start)).map(|pos| run.at + pos - run.rows.start).collect::<Vec<_>>()
        };
        self.runs.iter().flat_map(of_run)
    }

    /// The runs with only those rows, one after the other.
    pub fn runs_from(&self, from: usize) -> Vec<Run> {
        let mut at = 0;
        let cut = |run: &Run| {
            let start = run.rows.start.max(from);
            let cut = Run { cell: run.cell, left: run.left, rows: start..run.rows.end.max(start), at };
            at += cut.rows.len();
            cut
        };
        self.runs.iter().map(cut).collect()
    }

    /// Run and position of every row, in their order.
    pub fn index(&self) -> Vec<(usize, usize)> {
        let of_run = |(i, run): (usize, &Run)| run.rows.clone().map(move |pos| (i, pos)).collect::<Vec<_>>();
        self.runs.iter().enumerate().flat_map(of_run).collect()
    }

    /// Takes in runs that have branched off.
    pub fn adopt(&mut self, born: Vec<Born>) {
        for Born { cell, left, rows, data } in born {
            self.runs.push(Run { cell: Some(cell), left, rows, at: self.data.len() / self.c });
            self.data.extend(data);
        }
    }

    /// A copy of all rows of one run.
    pub fn rows_of(&self, run: usize) -> Vec<f32> {
        let Run { rows, at, .. } = &self.runs[run];
        self.data[at * self.c..(at + rows.len()) * self.c].to_vec()
    }

    /// Takes the numbers out, as a matrix.
    pub fn take(&mut self) -> Tensor {
        let data = std::mem::take(&mut self.data);
        Tensor::new(&[data.len() / self.c, self.c], data)
    }
}

/// A run that has just branched off the base: the rows in which it differs.
pub struct Born {
    pub cell: usize,
    pub left: usize,
    pub rows: Range<usize>,
    pub data: Vec<f32>,
}

/// Adds a row to another.
pub fn add(row: &mut [f32], other: &[f32]) {
    for (x, y) in row.iter_mut().zip(other) {
        *x += y;
    }
}

/// Whether two rows are the same, bit for bit.
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}
