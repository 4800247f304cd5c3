//! Training GPT-2 on the CPU.
//!
//! [`trainer`] is laid out like minGPT's `trainer.py`: the loss of a batch and its gradient by
//! [`gpt2::backward`], clipping, AdamW, a learning rate that warms up and falls. [`checkpoint`] writes a model as
//! Hugging Face's files, and a training that is to go on.
//!
//! The tiny model that ships is made by [`recipe`] from the text of [`corpus`]; [`scores`] says what it has learned.
//!
//! ```
//! use gpt2::{Config, Gpt2};
//! use training::{Trainer, TrainerConfig};
//!
//! let sizes = Config { vocab_size: 5, block_size: 4, n_layer: 1, n_head: 2, n_embd: 8, ..Config::default() };
//! let model = Gpt2::random(sizes, 1);
//! let mut trainer = Trainer::new(model, TrainerConfig { max_steps: 20, ..TrainerConfig::default() });
//! let batch = [vec![0, 1, 2, 3].into(), vec![1, 2, 3, 4].into()];
//! let first = trainer.step(&batch);
//! let last = (1..20).map(|_| trainer.step(&batch)).last();
//! assert!(last.is_some_and(|last| last.loss < first.loss));
//! ```

pub mod checkpoint;
pub mod corpus;
pub mod curve;
pub mod recipe;
pub mod scores;
pub mod trainer;
pub mod vocabulary;

pub use corpus::{Corpus, Dice};
pub use recipe::Recipe;
pub use trainer::{AdamW, Decay, Example, Step, Trainer, TrainerConfig, loss_and_gradient};
pub use vocabulary::Vocabulary;
