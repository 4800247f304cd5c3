//! Noising, with `<|endoftext|>` in front and 13 rows: from the residual stream that enters block 0
//! (`resid_pre 0`) to the one that leaves the last block (`resid_post 11`). Three corruptions of one
//! prompt say which part of a name is carried where.
//!
//! ```sh
//! cargo run --release -p patching --example alex_hart          # the tiny model
//! cargo run --release -p patching --example alex_hart gpt2     # GPT-2 small, if it was downloaded
//! ```

use std::error::Error;

use gpt2::Pretrained;
use gpt2::tokenizer::END_OF_TEXT;
use patching::{Direction, Engine, Experiment, Grid, Metric, SiteKind, Subset, Sweep};

const CLEAN: &str = "Her name was Alex Hart. When Alex";
const CORRUPTIONS: [(&str, &str); 3] = [
    ("another surname", "Her name was Alex Smith. When Alex"),
    ("another first name", "Her name was Sarah Hart. When Alex"),
    ("another first name, twice", "Her name was Sarah Hart. When Sarah"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "tiny".to_owned());
    let model = Pretrained::load(&model)?;
    let encode = |text: &str| -> Result<Vec<u32>, gpt2::Error> {
        Ok([vec![END_OF_TEXT], model.tokenizer.encode(text)?].concat())
    };
    let metric = Metric::LogProb { tokens: &[model.tokenizer.to_single_token(" Hart")?] };
    let clean = encode(CLEAN)?;
    println!("ln p( Hart) after \"{CLEAN}\", with one activation of the corrupted run");
    for (what, text) in CORRUPTIONS {
        let corrupted = encode(text)?;
        let experiment = Experiment::new(&model.model, clean.clone(), corrupted, Direction::Noising)?;
        let run = |sweep: Sweep<'_>| sweep.run(&model.model, metric, Engine::default(), &|_| {});

        // What enters block 0, and then what leaves each block.
        let first = Subset { layers: Some(vec![0]), ..Subset::default() };
        let enters = Sweep::over(&experiment, SiteKind::ResidPre).only(&model.model, first)?;
        let enters = run(enters).grid;
        let outcome = run(Sweep::over(&experiment, SiteKind::ResidPost));

        println!(
            "\n{what}: {text}\nclean {:.2}, corrupted {:.2}",
            outcome.clean_metric, outcome.corrupted_metric
        );
        print!("{:>13}", "");
        for token in model.tokenizer.tokens(&clean) {
            print!("{:>9}", token.trim().trim_matches(['<', '|', '>']).get(..8).unwrap_or(token.trim()));
        }
        println!();
        row("resid_pre 0", &enters, 0);
        for layer in 0..model.model.config.n_layer {
            row(&format!("resid_post {layer}"), &outcome.grid, layer);
        }
    }
    Ok(())
}

fn row(label: &str, grid: &Grid, layer: usize) {
    print!("{label:>13}");
    for &pos in &grid.places[1] {
        print!("{:>9.2}", grid.at(&[layer, pos]));
    }
    println!();
}
