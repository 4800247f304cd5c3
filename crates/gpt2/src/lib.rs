//! GPT-2 on the CPU, laid out as minGPT lays it out, with a hook at every activation.
//!
//! Read [`model`] first: one file, from layer norm up to the whole model, with the shape of every
//! value beside it. The rest is what a model needs around it:
//!
//! | module | job |
//! |---|---|
//! | [`model`] | the arithmetic: `LayerNorm`, `CausalSelfAttention`, `Mlp`, `Block`, [`Gpt2`] |
//! | [`backward`] | the same in reverse: the gradient with respect to every activation and parameter |
//! | [`site`] | the names of the activations that the model hands to a hook |
//! | [`config`] | the sizes of a model, as `config.json` has them |
//! | [`checkpoint`] | parameters out of safetensors files, with a clear error for every flaw |
//! | [`locate`] | where a model called `gpt2` is found |
//! | [`pretrained`] | a model with its tokenizer, by name or path, and the small one that is always there |
//! | [`tokenizer`] | text to token ids and back |
//! | [`walk`] | many runs at once, and only what can change |
//! | [`session`] | a text that grows, one row at a time |
//! | [`generate`] | continuing a text: greedy, temperature, top-k, top-p |
//! | [`stream`] | text out of tokens that come one at a time |
//!
//! A *hook* is a closure that the forward pass calls with each activation as it is made. To look,
//! it reads the tensor; to patch, it overwrites it:
//!
//! ```
//! use gpt2::{Pretrained, SiteKind};
//!
//! let tiny = Pretrained::tiny()?;
//! let ids = tiny.tokenizer.encode("Michelle Jones was a top-notch student. Michelle")?;
//! let logits = tiny.model.forward(&ids, &mut |site, x| {
//!     if site == SiteKind::ResidPost.at(3) {
//!         x.row_mut(10).fill(0.0); // wipe out what the last token knows after block 3
//!     }
//! });
//! assert_eq!(logits.shape(), [11, 50257]);
//! # Ok::<(), gpt2::Error>(())
//! ```

pub mod backward;
pub mod checkpoint;
pub mod config;
mod error;
mod files;
pub mod generate;
pub mod graph;
pub mod locate;
pub mod model;
mod parameters;
mod patch;
pub mod pretrained;
pub mod rows;
pub mod session;
pub mod site;
pub mod stream;
pub mod tokenizer;
mod unread;
pub mod walk;

pub use backward::{Activations, GradientHook, Gradients, Rules};
pub use checkpoint::Checkpoint;
pub use config::{Config, LocalAttention};
pub use error::Error;
pub use generate::{Sampling, Writer, Written};
pub use model::{Gpt2, Hook, Kernel, no_hook};
pub use patch::{Axis, Patch};
pub use pretrained::Pretrained;
pub use session::Session;
pub use site::{Head, Site, SiteKind};
pub use stream::TextStream;
pub use tokenizer::{Occurrence, Tokenizer};
