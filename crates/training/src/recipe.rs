//! How the tiny model is made: its sizes, its first weights, its batches and its learning rate.
//!
//! Everything follows from a seed and the number of steps. Each step has a batch of one of two kinds:
//!
//! - *text* of [`crate::corpus`], in which predictions that need recall count six times: what follows " to", and what
//!   follows a first name that has stood in the row before. The weight depends only on what the model has read, so
//!   it learns true probabilities all the same.
//! - *repeated tokens*: words in random order, read again and again. The pieces are short at first, because
//!   a model finds induction more easily where there is less to look through.
//!
//! Batches are drawn for each step by itself, so a training that was interrupted goes on with the bits that it would
//! have had.

use std::collections::HashSet;
use std::path::Path;

use gpt2::tokenizer::END_OF_TEXT;
use gpt2::{Config, Gpt2};
use rayon::prelude::*;

use crate::checkpoint::{self, Error};
use crate::corpus::repeated;
use crate::trainer::initial_narrow_model;
use crate::{AdamW, Corpus, Dice, Example, Step, Trainer, TrainerConfig, Vocabulary};

/// The sizes of the tiny model.
pub const SIZES: Config = Config { block_size: 128, n_layer: 12, n_head: 4, n_embd: 64, ..Config::GPT2 };

/// How much more a prediction counts that needs recall.
const RECALL: f32 = 5.0;

/// What a batch is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Documents of the corpus.
    Text,
    /// Random words, read again and again.
    Repeated,
}

/// The kinds of batches: how likely each is, how many rows it has, and how many predictions a row has.
const BATCHES: [(f64, Kind, usize, usize); 4] = [
    (0.50, Kind::Text, 48, 64),
    (0.06, Kind::Text, 24, 127),
    (0.36, Kind::Repeated, 48, 63),
    (0.08, Kind::Repeated, 24, 127),
];

/// The longest pieces that are repeated, from which share of the training on.
const LONGEST_PIECES: [(f64, usize); 3] = [(0.0, 10), (0.15, 24), (0.3, 64)];

/// Everything that a training depends on.
pub struct Recipe {
    /// Equal seeds give equal models.
    pub seed: u64,
    /// How many steps the training has.
    pub steps: usize,
    corpus: Corpus,
    vocabulary: Vocabulary,
    /// The tokens of the corpus but for `<|endoftext|>`.
    words: Vec<u32>,
    first_names: HashSet<u32>,
    /// " to"
    to: u32,
}

impl Recipe {
    /// The recipe of a seed and a number of steps.
    pub fn new(seed: u64, steps: usize) -> Self {
        let corpus = Corpus::default();
        let known = corpus.known_tokens();
        Self {
            seed,
            steps,
            words: known.iter().copied().filter(|token| *token != END_OF_TEXT).collect(),
            vocabulary: Vocabulary::new(known),
            first_names: corpus.first_names().into_iter().collect(),
            to: corpus.token(" to"),
            corpus,
        }
    }

    /// AdamW with a learning rate that rises for 200 steps and then falls along half a cosine to a fiftieth.
    fn config(&self) -> TrainerConfig {
        let learning_rate = 3e-3;
        TrainerConfig {
            optimizer: AdamW { learning_rate, betas: [0.9, 0.98], weight_decay: 0.01, ..AdamW::default() },
            grad_norm_clip: Some(1.0),
            warmup_steps: 200.min(self.steps / 10),
            max_steps: self.steps,
            final_learning_rate: learning_rate / 50.0,
        }
    }

    /// The model before its first step.
    fn first_model(&self) -> Gpt2 {
        let sizes = Config { vocab_size: self.vocabulary.n_rows(), ..SIZES };
        let mut model = initial_narrow_model(sizes, self.seed);
        model.lm_head_bias = Some(self.vocabulary.bias());
        model
    }

    /// The batch of a step: rows of the vocabulary, not tokens of GPT-2's.
    pub fn batch(&self, step: usize) -> (Kind, Vec<Example>) {
        let (_, kind, rows, predictions) = self.batch_form(step);
        let row = |row: usize| {
            // (Row 0 of the step chose the form.)
            let dice = &mut Dice::new(self.seed, step as u64, row as u64 + 1);
            let Example { ids, weights } = match kind {
                Kind::Text => self.with_recall_weights(self.corpus.text(predictions + 1, dice)),
                Kind::Repeated => repeated(predictions + 1, &self.words, self.longest_piece(step), dice),
            };
            Example { ids: self.vocabulary.rows(&ids), weights }
        };
        (kind, (0..rows).into_par_iter().map(row).collect())
    }

    /// The kind of a step's batch.
    pub fn kind(&self, step: usize) -> Kind {
        self.batch_form(step).1
    }

    fn batch_form(&self, step: usize) -> (f64, Kind, usize, usize) {
        let mut share = Dice::new(self.seed, step as u64, 0).share();
        let found = BATCHES.iter().find(|(probability, ..)| {
            share -= probability;
            share < 0.0
        });
        *found.unwrap_or(&BATCHES[0])
    }

    fn longest_piece(&self, step: usize) -> usize {
        let done = step as f64 / self.steps as f64;
        let reached = LONGEST_PIECES.iter().rev().find(|(from, _)| *from <= done);
        reached.map_or(LONGEST_PIECES[0].1, |(_, longest)| *longest)
    }

    fn with_recall_weights(&self, ids: Vec<u32>) -> Example {
        let weight = |pos: usize| {
            let is_second_mention = self.first_names.contains(&ids[pos]) && ids[..pos].contains(&ids[pos]);
            match is_second_mention || ids[pos] == self.to {
                true => 1.0 + RECALL,
                false => 1.0,
            }
        };
        Example { weights: (0..ids.len() - 1).map(weight).collect(), ids }
    }
}

/// The making of the tiny model: a recipe, and how far it has come.
pub struct Training {
    /// The recipe.
    pub recipe: Recipe,
    /// The loss of every step that has been done.
    pub losses: Vec<f32>,
    trainer: Trainer,
}

impl Training {
    /// A training before its first step.
    pub fn begin(recipe: Recipe) -> Self {
        let trainer = Trainer::new(recipe.first_model(), recipe.config());
        Self { recipe, losses: Vec::new(), trainer }
    }

    /// How many steps have been done.
    pub fn steps_done(&self) -> usize {
        self.trainer.steps()
    }

    /// Whether all steps have been done.
    pub fn is_done(&self) -> bool {
        self.steps_done() >= self.recipe.steps
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        let (_, batch) = self.recipe.batch(self.trainer.steps());
        let step = self.trainer.step(&batch);
        self.losses.push(step.loss);
        step
    }

    /// Writes how far it has come, to go on later. A file of this name is replaced.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let Recipe { seed, steps, .. } = self.recipe;
        let words = [("seed".to_owned(), seed.to_string()), ("steps".to_owned(), steps.to_string())];
        checkpoint::save_training(&self.trainer, &self.losses, words.into(), path)
    }

    /// Goes on where [`Training::save`] was called.
    ///
    /// # Errors
    /// If the file cannot be read, or is not one of a training of this version of the recipe.
    pub fn resume(path: &Path) -> Result<Self, Error> {
        let file = checkpoint::SavedTraining::open(path)?;
        let recipe = Recipe::new(file.number("seed")?, file.number("steps")? as usize);
        let mut training = Self::begin(recipe);
        training.losses = file.restore(&mut training.trainer)?;
        Ok(training)
    }

    /// The model as it is now, with all tokens of GPT-2.
    pub fn model(&self) -> Gpt2 {
        self.recipe.vocabulary.expand(&self.trainer.model)
    }

    /// The tokens that it knows, in ascending order.
    pub fn known_tokens(&self) -> &[u32] {
        self.recipe.vocabulary.known()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_that_of_its_step_and_seed() {
        let recipe = Recipe::new(1, 100);
        let kinds: Vec<Kind> = (0..100).map(|step| recipe.kind(step)).collect();
        let texts = kinds.iter().filter(|kind| **kind == Kind::Text).count();
        assert!((40..70).contains(&texts), "{texts} of 100 batches are text");
        for (step, expected) in kinds.into_iter().enumerate().take(8) {
            let (kind, batch) = recipe.batch(step);
            assert_eq!((kind, &batch), (expected, &Recipe::new(1, 100).batch(step).1));
            assert_ne!(batch, Recipe::new(2, 100).batch(step).1);
            for Example { ids, weights } in batch {
                assert_eq!(ids.len(), weights.len() + 1);
                let last = recipe.vocabulary.n_rows() as u32 - 1;
                assert!(ids.iter().all(|id| *id < last), "every token is known");
            }
        }
    }

    #[test]
    fn a_short_training_lowers_the_loss_and_resumes_with_the_same_bits() {
        let mut whole = Training::begin(Recipe::new(2, 12));
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        while !whole.is_done() {
            whole.step();
            if whole.steps_done() == 10 {
                whole.save(&state).unwrap();
            }
        }
        // By kind: which batches come first is chance.
        let of_text =
            whole.losses.iter().enumerate().filter(|(step, _)| whole.recipe.kind(*step) == Kind::Text);
        let of_text: Vec<f32> = of_text.map(|(_, loss)| *loss).collect();
        let [first, .., last] = of_text[..] else { panic!("{of_text:?}") };
        assert!(last < first - 1.0, "{of_text:?}");

        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let resumed = one_thread.install(|| {
            let mut resumed = Training::resume(&state).unwrap();
            assert_eq!((resumed.steps_done(), resumed.recipe.steps, resumed.recipe.seed), (10, 12, 2));
            while !resumed.is_done() {
                resumed.step();
            }
            resumed
        });
        assert_eq!(resumed.losses, whole.losses);
        assert_eq!(resumed.model().parameters(), whole.model().parameters());
    }

    #[test]
    fn what_needs_recall_counts_six_times() {
        let recipe = Recipe::new(1, 1);
        let text = "Mary Hart met John at the bar. Mary gave a ring to John. Then Mary left.";
        let ids = gpt2::Tokenizer::gpt2().encode(text).unwrap();
        let tokens = gpt2::Tokenizer::gpt2().tokens(&ids);
        let Example { weights, .. } = recipe.with_recall_weights(ids);
        let heavy = weights.iter().zip(&tokens).filter(|(weight, _)| **weight == 6.0);
        let heavy: Vec<&str> = heavy.map(|(_, token)| token.as_str()).collect();
        // At the beginning of a text, "Mary" is another token than " Mary".
        assert_eq!(heavy, [" to", " John", " Mary"]);
    }
}
