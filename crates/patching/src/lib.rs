//! Activation patching: which activation of GPT-2 carries an answer?
//!
//! # The method
//!
//! Run two prompts of equally many tokens that differ in the fact of interest:
//!
//! - *clean*: "Michelle **Jones** was a top-notch student. Michelle"
//! - *corrupted*: "Michelle **Smith** was a top-notch student. Michelle"
//!
//! After the clean prompt the model says " Jones", after the corrupted one " Smith". The number
//! `logit(" Smith") − logit(" Jones")` at the last position, the [`Metric`], separates the two.
//!
//! Now run one prompt (the *base*) once more, but at one place (a layer's output at one position,
//! say) put in what the other run (the *source*) had there. Everything after that place is computed
//! anew. If the metric moves to its value in the source run, that one activation carried the surname; if it
//! does not move, the surname was not there, or the model did not use it. Doing this for every layer
//! and position gives a map of how the surname travels through the model: the heatmap.
//!
//! The two [`Direction`]s ask different questions:
//!
//! - *denoising* puts a clean activation into the corrupted run: is it **enough** to restore the
//!   answer?
//! - *noising* puts a corrupted activation into the clean run: is it **needed** to keep the answer?
//!
//! *Ablation* is patching without a second prompt: an activation is replaced by zeros, by its mean, or
//! by what it is elsewhere ([`Experiment::ablation`]).
//!
//! # In this crate
//!
//! | type | what it says |
//! |---|---|
//! | [`Experiment`] | the two prompts and the direction |
//! | [`Metric`] | the number that is read off the last logits |
//! | [`SiteKind`], [`Patch`] | what is put into the other run: kind, layer, position, head |
//! | [`Sweep`], [`Subset`] | many patches of one experiment, over axes such as layer × position |
//! | [`plain`] | the engine to read first: a whole forward pass for every patch |
//! | [`incremental`] | the engine that is used: only what can change, and why that is exact |
//! | [`attribution`] | what a sweep would give, predicted from one backward pass |
//! | [`path`] | path patching: which head talks to which |
//! | [`circuit`] | which edges carry an answer: scores, exact effects, ACDC, and what a circuit is worth |
//! | [`observe`](mod@observe) | one run, with all its activations |
//! | [`Scale`] | how the numbers are given: values, changes, normalised |
//! | [`prompts`] | many pairs of prompts, from a file or from templates, and the mean over them |
//!
//! ```
//! use gpt2::Pretrained;
//! use patching::{Direction, Engine, Experiment, Metric, SiteKind, Sweep};
//!
//! let tiny = Pretrained::tiny()?;
//! let ids = |text| tiny.tokenizer.encode(text);
//! let experiment = Experiment::new(
//!     &tiny.model,
//!     ids("Michelle Jones was a top-notch student. Michelle")?,
//!     ids("Michelle Smith was a top-notch student. Michelle")?,
//!     Direction::Denoising,
//! )?;
//! let metric = Metric::LogitDiff {
//!     a: &[tiny.tokenizer.to_single_token(" Smith")?],
//!     b: &[tiny.tokenizer.to_single_token(" Jones")?],
//! };
//! let sweep = Sweep::over(&experiment, SiteKind::ResidPost); // every layer × position
//! let outcome = sweep.run(&tiny.model, metric, Engine::default(), &|_| {});
//! assert_eq!(outcome.grid.shape(), [12, 11]);
//! assert_eq!(outcome.grid.at(&[2, 0]), outcome.corrupted_metric); // the prompts agree up to there
//! assert!(outcome.grid.at(&[0, 1]) < -10.0); // the surname itself restores the clean answer
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ablation;
pub mod attribution;
pub mod circuit;
mod engine;
mod experiment;
pub mod incremental;
mod metric;
pub mod observe;
pub mod path;
pub mod plain;
pub mod prompts;
mod scale;
mod sweep;

pub use ablation::Ablation;
pub use attribution::{Agreement, Attributed, Method, attribute};
pub use engine::{Measured, Progress, Unpatched, Watch};
pub use experiment::{Direction, Error, Experiment, Lasting, LastingValue};
pub use gpt2::{Axis, Head, Patch, SiteKind};
pub use metric::{Metric, Which};
pub use scale::{Endpoints, Means, Scale, normalized_unit};
pub use sweep::{Engine, Grid, Outcome, Subset, Sweep};
