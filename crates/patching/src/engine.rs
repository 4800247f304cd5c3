//! What every engine is told while it runs, and what it gives back.

use std::sync::atomic::{AtomicBool, Ordering};

use gpt2::Gpt2;
use tensor::Tensor;

/// Told, from several threads, which share of all work has been done since the last time. The shares
/// add up to at most 1.
pub type Progress<'a> = &'a (dyn Fn(f64) + Sync);

/// How the caller of an engine follows it, and stops it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Told what has been done.
    pub progress: Progress<'a>,
    /// Once it is set, the engine comes to an end soon.
    pub stop: &'a AtomicBool,
}

impl Watch<'_> {
    /// Nobody follows and nobody stops.
    pub const NOBODY: Watch<'static> = Watch { progress: &|_| {}, stop: &NEVER };

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

static NEVER: AtomicBool = AtomicBool::new(false);

/// What the two unpatched runs end in: the last position's residual stream after the last layer norm, of
/// which logits are made.
#[derive(Clone, Debug)]
pub struct Unpatched {
    /// Of the clean run, `(C)`.
    pub clean: Vec<f32>,
    /// Of the corrupted run, `(C)`.
    pub corrupted: Vec<f32>,
}

impl Unpatched {
    /// The logits of the next token after the clean and after the corrupted run, `(vocab_size)` each.
    pub fn logits(&self, model: &Gpt2) -> [Vec<f32>; 2] {
        let rows = Tensor::new(&[2, self.clean.len()], [&self.clean[..], &self.corrupted].concat());
        let logits = model.unembed_rows(&rows); // (2, V)
        [0, 1].map(|run| logits.row(run).to_vec())
    }
}

/// What an engine gives back.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The metric of every patched run, in the order of the patches; NaN for those that were not
    /// reached before the engine was stopped.
    pub values: Vec<f32>,
    /// The metric of the clean run, unpatched.
    pub clean: f32,
    /// The metric of the corrupted run, unpatched.
    pub corrupted: f32,
    /// What the two unpatched runs end in.
    pub unpatched: Unpatched,
    /// Multiplications and additions of floats that were done, each counted as one.
    pub flops: u64,
}
