//! What makes a run differ from the base run.

use std::ops::Range;

use tensor::Tensor;

use crate::{Patch, SiteKind};

/// A run that differs from the base run by its edits.
#[derive(Clone, Debug)]
pub struct Fork<'a> {
    /// The edits in the order of the forward pass: with the first one the run leaves the base run.
    pub edits: Vec<Edit<'a>>,
}

/// A piece of an activation, and what is put in its place.
#[derive(Clone, Debug)]
pub struct Edit<'a> {
    /// The piece.
    pub patch: Patch,
    /// What is put in.
    pub value: Value<'a>,
}

/// What is put in the place of a piece.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// What the source run has there.
    Source,
    /// The same piece of this activation, which has the shape of the site's own.
    Activation(&'a Tensor),
    /// These rows at consecutive positions, `(n, width of the piece)`; the patch names no position.
    Rows {
        /// The first position.
        first: usize,
        /// One row for each position.
        rows: Tensor,
    },
}

impl Edit<'_> {
    /// The positions of the piece in a prompt of `t` tokens.
    pub(super) fn positions(&self, t: usize) -> Range<usize> {
        match (&self.value, self.patch.pos) {
            (Value::Rows { first, rows }, _) => *first..first + rows.n_rows(),
            (_, Some(pos)) => pos..pos + 1,
            (_, None) => 0..t,
        }
    }

    /// The positions at which the edit may change what the residual stream gets from its layer.
    pub(super) fn dests(&self, t: usize) -> Range<usize> {
        match (&self.value, self.patch.site) {
            (Value::Rows { first, .. }, SiteKind::K | SiteKind::V) => *first..t,
            (Value::Rows { .. }, _) => self.positions(t),
            _ => self.patch.dests(t),
        }
    }

    /// The columns of the piece in a row of `c` numbers, of which each of `n_head` heads has its share.
    pub(super) fn columns(&self, n_head: usize, c: usize) -> Range<usize> {
        match (self.patch.head, self.patch.neuron) {
            (Some(head), _) => head * c / n_head..(head + 1) * c / n_head,
            (_, Some(neuron)) => neuron..neuron + 1,
            _ => 0..c,
        }
    }

    /// What is put in at a position, in these columns of a row of `c` numbers; `source` is the source run's
    /// row.
    pub(super) fn piece<'s>(&'s self, pos: usize, columns: Range<usize>, source: &'s [f32]) -> &'s [f32] {
        match &self.value {
            Value::Source => &source[columns],
            Value::Activation(x) => &x.data()[pos * source.len()..][..source.len()][columns],
            Value::Rows { first, rows } => match rows.row(pos - first) {
                row if row.len() == columns.len() => row,
                row => &row[columns],
            },
        }
    }

    /// Whether the piece is taken from the source run.
    pub(super) fn is_of_source(&self) -> bool {
        matches!(self.value, Value::Source)
    }
}

/// What every fork has from the base run whatever happens to it, once it has left the base run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// What attention writes, in every layer behind the one in which it left.
    pub attention: bool,
    /// What MLPs write.
    pub mlps: bool,
}

/// A part of the model that reads the residual stream: the walk keeps what each fork would have it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Queries, keys or values of a head; or what an MLP writes.
    pub site: SiteKind,
    /// The layer.
    pub layer: usize,
    /// The head, unless it is an MLP.
    pub head: Option<usize>,
}

/// What a reader reads in the base run or in a fork.
#[derive(Clone, Debug)]
pub struct Read {
    /// The reader's place among the readers.
    pub reader: usize,
    /// The fork; none for the base run.
    pub fork: Option<usize>,
    /// The first position at which the fork differs; 0 for the base run.
    pub first: usize,
    /// A row for each of its positions.
    pub rows: Tensor,
}
