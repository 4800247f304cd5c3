//! Looking into GPT-2: studies that read activations and weights and change nothing.
//!
//! Patching asks what happens if an activation were another one. This crate asks what the
//! activations and the weights say as they are. One module a study, each of which opens with what it
//! is, its formula and its source:
//!
//! | module | the question |
//! |---|---|
//! | [`cache`] | what are all the activations of a run? |
//! | [`text`] | how well is each token of a text predicted? |
//! | [`logit_lens`](mod@logit_lens) | what would the model say if it stopped here? |
//! | [`attribution`] | which component wrote the answer into the residual stream? |
//! | [`heads`] | which heads look at the previous token, at a duplicate, at what came after one? |
//! | [`transplant`] | does it matter which of two equal tokens an MLP's output comes from? |
//! | [`composition`] | which head reads the output of which other head? |
//! | [`processing`] | which weights can be changed without changing what the model says? |
//! | [`ioi`] | how surely does the model name the indirect object? |
//!
//! Around them: [`FactoredMatrix`], a product that is never
//! multiplied out; [`weights`], one head's share of the parameters; [`linalg`], its singular values
//! and eigenvalues.
//!
//! A study takes a `&Gpt2` (also one whose weights were processed) and returns plain numbers: grids
//! are tensors `(n_layer, n_head)`, everything else is named.
//!
//! ```
//! use gpt2::Pretrained;
//! use lens::attribution::direct_logit_attribution;
//!
//! let tiny = Pretrained::tiny()?;
//! let ids = tiny.tokenizer.encode("Michelle Jones was a top-notch student. Michelle")?;
//! let [jones, smith] = [5437, 4176]; // " Jones", " Smith"
//! let parts = direct_logit_attribution(&tiny.model, &ids, ids.len() - 1, jones, smith)?;
//! // The parts add up to logit(" Jones") − logit(" Smith").
//! assert!((parts.sum() - parts.logit_diff).abs() < 1e-3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answers;
pub mod attribution;
pub mod cache;
pub mod composition;
mod error;
mod factored;
pub mod heads;
pub mod ioi;
pub mod linalg;
pub mod logit_lens;
pub mod processing;
pub mod text;
pub mod transplant;
pub mod weights;

pub use cache::{ActivationCache, run_with_cache};
pub use error::Error;
pub use factored::{FactoredMatrix, Svd};
