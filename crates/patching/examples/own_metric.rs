//! Your own metric: a closure over all logits of every run. Here: how surprised the model is (the entropy
//! of what it expects next), and what it would say, cell by cell.
//!
//! ```sh
//! cargo run --release -p patching --example own_metric          # the tiny model
//! cargo run --release -p patching --example own_metric gpt2     # GPT-2 small, if it was downloaded
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;

use gpt2::Pretrained;
use patching::{Direction, Engine, Experiment, Metric, SiteKind, Sweep, Which};

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "tiny".to_owned());
    let model = Pretrained::load(&model)?;
    let encode = |text| model.tokenizer.encode(text);
    let clean = encode("Michelle Jones was a top-notch student. Michelle")?;
    let corrupted = encode("Michelle Smith was a top-notch student. Michelle")?;
    let experiment = Experiment::new(&model.model, clean, corrupted, Direction::Denoising)?;

    // The engines ask it once for every run, from several threads.
    let said: Mutex<BTreeMap<usize, u32>> = Mutex::default();
    let entropy = |run: Which, logits: &[f32]| {
        if let (Which::Patched(cell), Ok(mut said)) = (run, said.lock()) {
            said.insert(cell, tensor::argmax(logits) as u32);
        }
        let total = tensor::log_sum_exp(logits);
        let log_probs = logits.iter().map(|logit| f64::from(*logit) - total);
        -log_probs.map(|p| p.exp() * p).sum::<f64>() as f32
    };
    let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
    let outcome = sweep.run(&model.model, Metric::Custom(&entropy), Engine::default(), &|_| {});

    println!("entropy in nats: clean {:.2}, corrupted {:.2}", outcome.clean_metric, outcome.corrupted_metric);
    let said = said.into_inner().unwrap_or_default();
    let n_columns = outcome.grid.places[1].len();
    for (layer, row) in outcome.grid.values.chunks(n_columns).enumerate() {
        print!("{layer:>5}");
        for (pos, entropy) in row.iter().enumerate() {
            let token = said.get(&(layer * n_columns + pos));
            let token = token.map(|&id| model.tokenizer.token(id)).unwrap_or_default();
            print!("{:>8} {entropy:.1}", token.trim());
        }
        println!();
    }
    Ok(())
}
