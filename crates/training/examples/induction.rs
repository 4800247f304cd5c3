//! Induction heads from nothing: a model of two layers learns to continue what it has read before.
//!
//! Each sequence is a random piece, read twice from a random place on: [A B C …] [A B C …]. What follows the second
//! A can only be known from what followed the first. With two layers of attention a model learns it (Olsson et al.
//! 2022, *In-context Learning and Induction Heads*): a head of the first layer writes down which token stands
//! before, and a head of the second, the *induction head*, attends from the second A to the token behind the
//! first. The loss on the second piece falls as that head appears.
//!
//! cargo run --release -p training --example induction

#![allow(clippy::disallowed_macros, reason = "an example prints")]

use gpt2::{Config, Gpt2, SiteKind};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use training::{AdamW, Example, Trainer, TrainerConfig, trainer};

/// Two layers whose MLPs have one neuron: as good as attention alone.
const SIZES: Config = Config {
    vocab_size: 64,
    block_size: 48,
    n_layer: 2,
    n_head: 4,
    n_embd: 64,
    n_inner: Some(1),
    ..Config::GPT2
};
const BATCH: usize = 32;
const STEPS: usize = 5000;
const STEPS_A_ROW: usize = 250;

/// A row of the table.
struct Row {
    /// Steps done.
    step: usize,
    /// The mean loss at the first reading, in nats a token: nobody can know it, so it is ln 64 = 4.16 at best.
    first_loss: f64,
    /// The mean loss at the second reading.
    second_loss: f64,
    /// How much the best head of the second layer attends to the token behind the last occurrence, from 0 to 1.
    induction: f64,
}

fn main() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let test: Vec<Repeated> = (0..32).map(|_| Repeated::random(&mut rng)).collect();
    let config = TrainerConfig {
        optimizer: AdamW { learning_rate: 4e-3, betas: [0.9, 0.99], weight_decay: 0.01, ..AdamW::default() },
        warmup_steps: 50,
        max_steps: STEPS,
        final_learning_rate: 2e-4,
        ..TrainerConfig::default()
    };
    let mut trainer = Trainer::new(trainer::initial_model(SIZES, 1), config);
    let mut rows = Vec::new();
    println!(" step   loss, first reading   loss, second reading   induction score");
    for step in 0..=STEPS {
        if step % STEPS_A_ROW == 0 {
            let row = measure(&trainer.model, &test, step);
            let Row { step, first_loss, second_loss, induction } = row;
            println!("{step:5}   {first_loss:19.3}   {second_loss:20.3}   {induction:15.3}");
            rows.push(row);
        }
        let batch: Vec<Example> = (0..BATCH).map(|_| Repeated::random(&mut rng).ids.into()).collect();
        trainer.step(&batch);
    }
    let [first, last] = [&rows[0], &rows[rows.len() - 1]];
    assert!(last.second_loss < first.second_loss && last.first_loss > last.second_loss);
}

/// A sequence in which a piece is read twice.
struct Repeated {
    ids: Vec<u32>,
    /// How long the piece is.
    period: usize,
}

impl Repeated {
    /// A piece of 12 to 24 random tokens, over and over: the length differs, so that no fixed distance can be
    /// learned.
    fn random(rng: &mut Xoshiro256PlusPlus) -> Self {
        let period = rng.random_range(8..=24);
        let piece: Vec<u32> = (0..period).map(|_| rng.random_range(0..64)).collect();
        let ids = piece.iter().cycle().take(SIZES.block_size).copied().collect();
        Self { ids, period }
    }
}

fn measure(model: &Gpt2, test: &[Repeated], step: usize) -> Row {
    let mut losses = [Vec::new(), Vec::new()];
    let mut attention = vec![0.0; SIZES.n_head];
    let mut n = 0;
    for Repeated { ids, period } in test {
        let logits = model.forward(ids, &mut |site, x| {
            if site == SiteKind::Pattern.at(1) {
                for dest in *period..ids.len() {
                    for (head, sum) in attention.iter_mut().enumerate() {
                        // (n_head, T, T): head, destination, source
                        *sum += f64::from(x.row(head * ids.len() + dest)[dest + 1 - period]);
                    }
                    n += 1;
                }
            }
        });
        for pos in 0..ids.len() - 1 {
            let loss = -gpt2::generate::log_prob(logits.row(pos), ids[pos + 1]);
            // From the last token of the piece on, what follows has been read before.
            losses[usize::from(pos + 1 > *period)].push(loss);
        }
    }
    let mean = |losses: &Vec<f64>| losses.iter().sum::<f64>() / losses.len() as f64;
    let best = attention.iter().copied().fold(0.0, f64::max);
    Row { step, first_loss: mean(&losses[0]), second_loss: mean(&losses[1]), induction: best / f64::from(n) }
}
