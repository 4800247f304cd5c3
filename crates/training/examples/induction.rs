//! Induction heads from nothing: a model of two layers learns to continue what it has read before.
//!
//! Each sequence is a random piece, read again and again behind some random tokens: [… A B C …] [A B C …]. What
//! follows the second A can only be known from what followed the first. No layer can do that alone (Olsson et al. 2022,
//! *In-context Learning and Induction Heads*): heads of the first layer write down which tokens have stood before,
//! and a head of the second, the *induction head*, attends from the second A to the token behind the first. The loss
//! of what has been read before falls as that head appears.
//!
//! cargo run --release -p training --example induction
//!
//! prints the losses and scores, and draws them (`induction.png`, or the file that is given).

#![allow(clippy::disallowed_macros, reason = "an example prints")]

use std::error::Error;

use figures::{Draw as _, FigureOptions, render_png, scene};
use gpt2::{Config, Gpt2, SiteKind};
use grids::{AxisLabels, Form, Grid, Study};
use training::{AdamW, Dice, Example, Trainer, TrainerConfig, trainer};

/// Two layers whose MLPs have one neuron: as good as attention alone.
const SIZES: Config = Config {
    vocab_size: 64,
    block_size: 64,
    n_layer: 2,
    n_head: 4,
    n_embd: 64,
    n_inner: Some(1),
    ..Config::GPT2
};
/// How long a piece is, and how many random tokens stand before it: they differ, so that no distance and no position
/// can be learned.
const PERIODS: [usize; 2] = [6, 16];
const FILLERS: [usize; 2] = [0, 8];
const BATCH: u64 = 32;
const STEPS: usize = 600;
const STEPS_A_ROW: usize = 10;
const SEED: u64 = 1;

/// A row of the table.
struct Row {
    /// Steps done.
    step: usize,
    /// The mean loss of what is read for the first time, in nats a token: nobody can know it, so it is ln 64 = 4.16
    /// at best.
    first_loss: f64,
    /// The mean loss of what has been read before.
    again_loss: f64,
    /// How much the best head of the first layer attends to the token before, from 0 to 1.
    previous: f64,
    /// How much the best head of the second layer attends to tokens behind an earlier occurrence, from 0 to 1.
    induction: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let sequence = |step: u64, row| Repeated::random(&mut Dice::new(SEED, step, row));
    let test: Vec<Repeated> = (0..32).map(|row| sequence(u64::MAX, row)).collect();
    let config = TrainerConfig {
        optimizer: AdamW { learning_rate: 3e-3, betas: [0.9, 0.98], weight_decay: 0.01, ..AdamW::default() },
        warmup_steps: 50,
        max_steps: STEPS,
        final_learning_rate: 1e-4,
        ..TrainerConfig::default()
    };
    let mut trainer = Trainer::new(first_model(), config);
    let mut rows = Vec::new();
    println!(" step   loss, read first   loss, read again   attention to the token before   induction");
    for step in 0..=STEPS {
        if step % STEPS_A_ROW == 0 {
            let row = measure(&trainer.model, &test, step);
            let Row { step, first_loss, again_loss, previous, induction } = row;
            println!("{step:5}   {first_loss:16.3}   {again_loss:16.3}   {previous:29.3}   {induction:9.3}");
            rows.push(row);
        }
        let batch: Vec<Example> = (0..BATCH).map(|row| sequence(step as u64, row).ids.into()).collect();
        trainer.step(&batch);
    }
    let path = std::env::args().nth(1).unwrap_or_else(|| "induction.png".to_owned());
    let (figure, options) = (study(&rows).figure()?, FigureOptions::default());
    std::fs::write(&path, render_png(&scene(&figure, &options), &options.fonts, options.scale, &[])?)?;
    println!("{path} shows it");
    Ok(())
}

/// With an unembedding of its own: were it tied to the token embeddings, the model would first have to learn not to
/// predict the token that it has just read, and that alone takes longer than all the rest.
fn first_model() -> Gpt2 {
    let mut model = trainer::initial_narrow_model(SIZES, SEED);
    model.lm_head = Some(trainer::initial_narrow_model(SIZES, SEED + 1).wte);
    model
}

/// A sequence in which a piece is read again and again.
struct Repeated {
    ids: Vec<u32>,
    /// Where the piece is read for the first time.
    start: usize,
    /// How long the piece is.
    period: usize,
}

impl Repeated {
    /// A token stands in a piece once at most: what follows it is certain.
    fn random(dice: &mut Dice) -> Self {
        let ([least, most], [fewest, longest]) = (PERIODS, FILLERS);
        let (period, start) = (dice.between(least, most), dice.between(fewest, longest));
        let mut tokens: Vec<u32> = (0..SIZES.vocab_size as u32).collect();
        let filler: Vec<u32> = (0..start).map(|_| dice.one_of(&tokens)).collect();
        for i in 0..period {
            let other = dice.between(i, tokens.len() - 1);
            tokens.swap(i, other);
        }
        let ids =
            filler.iter().chain(tokens[..period].iter().cycle()).take(SIZES.block_size).copied().collect();
        Self { ids, start, period }
    }

    /// The positions whose tokens have been read before: from there on the next one can be known.
    fn read_again(&self) -> std::ops::Range<usize> {
        self.start + self.period..self.ids.len()
    }

    /// The positions behind earlier occurrences of the token at `dest`.
    fn behind_earlier(&self, dest: usize) -> impl Iterator<Item = usize> {
        (self.start..dest - self.period + 1).rev().step_by(self.period).map(|src| src + 1)
    }
}

fn measure(model: &Gpt2, test: &[Repeated], step: usize) -> Row {
    let mut losses = [Vec::new(), Vec::new()];
    let mut scores = [[0.0; SIZES.n_head]; SIZES.n_layer];
    for sequence in test {
        let ids = &sequence.ids;
        let logits = model.forward(ids, &mut |site, pattern| {
            if site.kind == SiteKind::Pattern {
                for (head, score) in scores[site.layer].iter_mut().enumerate() {
                    for dest in sequence.read_again() {
                        let attention = pattern.row(head * ids.len() + dest); // (n_head, T, T)
                        *score += match site.layer {
                            0 => attention[dest - 1],
                            _ => sequence.behind_earlier(dest).map(|src| attention[src]).sum(),
                        };
                    }
                }
            }
        });
        for pos in 0..ids.len() - 1 {
            let loss = -gpt2::generate::log_prob(logits.row(pos), ids[pos + 1]);
            losses[usize::from(sequence.read_again().contains(&pos))].push(loss);
        }
    }
    let [first_loss, again_loss] = losses.map(|losses| losses.iter().sum::<f64>() / losses.len() as f64);
    let n: usize = test.iter().map(|sequence| sequence.read_again().len()).sum();
    let [previous, induction] =
        scores.map(|heads| f64::from(heads.into_iter().fold(0.0, f32::max)) / n as f64);
    Row { step, first_loss, again_loss, previous, induction }
}

/// The table as lines. Losses are divided by ln 64, that of a model that knows nothing.
fn study(rows: &[Row]) -> Study {
    let nothing_known = (SIZES.vocab_size as f64).ln();
    let lines: [(&str, Vec<f64>); 4] = [
        ("loss, read first ÷ ln 64", rows.iter().map(|row| row.first_loss / nothing_known).collect()),
        ("loss, read again ÷ ln 64", rows.iter().map(|row| row.again_loss / nothing_known).collect()),
        ("layer 0: the token before", rows.iter().map(|row| row.previous).collect()),
        ("layer 1: induction", rows.iter().map(|row| row.induction).collect()),
    ];
    let steps: Vec<usize> = rows.iter().map(|row| row.step).collect();
    let grid = Grid {
        name: "induction".to_owned(),
        form: Form::Lines,
        axes: vec![
            AxisLabels::new("", lines.iter().map(|(name, _)| (*name).to_owned())),
            AxisLabels::at("step", steps.clone(), steps.iter().map(usize::to_string)),
        ],
        values: lines.iter().flat_map(|(_, values)| values).map(|value| *value as f32).collect(),
        value_label: "loss, and share of attention".to_owned(),
        center: Some(0.0),
        ..Grid::default()
    };
    Study {
        title: "An induction head appears".to_owned(),
        subtitle: vec!["A model of two layers is trained on repeated tokens.".to_owned()],
        grids: vec![grid],
        ..Study::default()
    }
}
