//! How many tokens a second the tiny model is trained on: 12 layers of width 64, the vocabulary of the corpus, and
//! batches of 32 sequences of 128 tokens.
//!
//! cargo run --release -p training --example throughput

#![allow(clippy::disallowed_macros, reason = "an example prints")]

use std::time::Instant;

use gpt2::Config;
use training::{Example, Trainer, TrainerConfig, trainer};

const SIZES: Config =
    Config { vocab_size: 1146, block_size: 128, n_layer: 12, n_head: 4, n_embd: 64, ..Config::GPT2 };
const BATCH: usize = 32;
const STEPS: usize = 9;

fn main() {
    let mut trainer = Trainer::new(trainer::initial_model(SIZES, 1), TrainerConfig::default());
    // Any tokens will do.
    let token = |i: usize| (i * i * 31 + i * 7) % SIZES.vocab_size;
    let sequence = |row: usize| (0..128).map(|pos| token(row * 128 + pos) as u32).collect::<Vec<u32>>();
    let batch: Vec<Example> = (0..BATCH).map(|row| sequence(row).into()).collect();
    trainer.step(&batch);
    let step = |_| {
        let began = Instant::now();
        trainer.step(&batch);
        began.elapsed().as_secs_f64()
    };
    let mut seconds: Vec<f64> = (0..STEPS).map(step).collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds[STEPS / 2];
    println!("{:.0} ms a step, {:.0} tokens/s", median * 1e3, (BATCH * 128) as f64 / median);
}
