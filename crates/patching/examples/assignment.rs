//! The assignment: every layer × position of "Michelle Jones" against "Michelle Smith".
//!
//! ```sh
//! cargo run --release -p patching --example assignment          # the tiny model
//! cargo run --release -p patching --example assignment gpt2     # GPT-2 small, if it was downloaded
//! ```

use std::error::Error;

use gpt2::Pretrained;
use patching::{Direction, Engine, Experiment, Metric, SiteKind, Sweep};

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "tiny".to_owned());
    let model = Pretrained::load(&model)?;
    let tokenizer = &model.tokenizer;

    // Two prompts of equally many tokens, and the two answers that they call for.
    let clean = tokenizer.encode("Michelle Jones was a top-notch student. Michelle")?;
    let corrupted = tokenizer.encode("Michelle Smith was a top-notch student. Michelle")?;
    let metric = Metric::LogitDiff {
        a: &[tokenizer.to_single_token(" Smith")?],
        b: &[tokenizer.to_single_token(" Jones")?],
    };

    // Denoising: each activation of the clean run, put into the corrupted run.
    let tokens = tokenizer.tokens(&corrupted);
    let experiment = Experiment::new(&model.model, clean, corrupted, Direction::Denoising)?;
    let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
    let outcome = sweep.run(&model.model, metric, Engine::default(), &|_| {});

    println!("logit( Smith) − logit( Jones)");
    println!("clean {:+.2}, corrupted {:+.2}\n", outcome.clean_metric, outcome.corrupted_metric);
    print!("layer");
    tokens.iter().for_each(|token| print!("{:>9}", token.trim()));
    println!();
    for layer in 0..model.model.config.n_layer {
        print!("{layer:>5}");
        for pos in 0..tokens.len() {
            print!("{:>9.2}", outcome.grid.at(&[layer, pos]));
        }
        println!();
    }
    // Read it from the top: the surname's own column is negative (the clean answer is restored), until
    // the last token's column takes over. In between, attention has carried the surname across.
    Ok(())
}
