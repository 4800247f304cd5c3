//! What every engine takes and returns.
//!
//! An engine that is stopped leaves the run under way by unwinding from wherever it is, so a stop takes
//! effect within one step of one block, whatever the size of the model and the number of runs. What was measured
//! before is kept.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};

use gpt2::Gpt2;
use tensor::Tensor;

/// Called from several threads with the share of all work that was done since the last call. The shares add
/// up to at most 1.
pub type Progress<'a> = &'a (dyn Fn(f64) + Sync);

/// How the caller of an engine observes and stops it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called with the work that was done.
    pub progress: Progress<'a>,
    /// Once it is set, the engine stops soon.
    pub stop: &'a AtomicBool,
}

impl Watch<'_> {
    /// No progress is reported, and the engine is never stopped.
    pub const NOBODY: Watch<'static> = Watch { progress: &|_| {}, stop: &NEVER };

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// If the engine is to stop, unwinds up to [`Watch::unless_stopped`].
    pub(crate) fn leave_if_stopped(&self) {
        if self.stopped() {
            // No panic: nothing is printed.
            panic::resume_unwind(Box::new(Stopped));
        }
    }

    /// The result of `work`, or none if it was stopped.
    pub(crate) fn unless_stopped<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        if self.stopped() {
            return None;
        }
        // Whatever the work has changed is dropped, or is complete before the work can be stopped.
        match panic::catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<Stopped>() => None,
            Err(panic) => panic::resume_unwind(panic),
        }
    }
}

/// What is thrown when an engine is stopped.
struct Stopped;

static NEVER: AtomicBool = AtomicBool::new(false);

/// The ends of the two unpatched runs: the residual stream of the last position after the last layer norm,
/// from which logits are made.
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

/// The result of an engine.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The metric of every patched run, in the order of the patches; none for those that were not
    /// reached before the engine was stopped.
    pub values: Vec<Option<f32>>,
    /// The metric of the clean run, unpatched; NaN if the engine was stopped before it had any.
    pub clean: f32,
    /// The metric of the corrupted run, unpatched; likewise.
    pub corrupted: f32,
    /// The ends of the two unpatched runs; none if the engine was stopped before it had them.
    pub unpatched: Option<Unpatched>,
    /// Multiplications and additions of floats that were done, each counted as one.
    pub flops: u64,
}

impl Measured {
    /// The result of an engine that was stopped before it had measured any of `n` patches.
    pub(crate) fn nothing(n: usize) -> Self {
        let values = vec![None; n];
        Self { values, clean: f32::NAN, corrupted: f32::NAN, unpatched: None, flops: 0 }
    }
}
