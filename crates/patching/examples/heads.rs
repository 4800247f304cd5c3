//! Heads: which of them moves the name, and is it by what it looks at or by what it carries?
//!
//! ```sh
//! cargo run --release -p patching --example heads          # the tiny model
//! cargo run --release -p patching --example heads gpt2     # GPT-2 small, if it was downloaded
//! ```

use std::error::Error;

use gpt2::Pretrained;
use patching::{Ablation, Direction, Engine, Experiment, Grid, Metric, SiteKind, Sweep};

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "tiny".to_owned());
    let model = Pretrained::load(&model)?;
    let tokenizer = &model.tokenizer;
    let clean = tokenizer.encode("When John and Mary went to the shops, John gave the bag to")?;
    let corrupted = tokenizer.encode("When John and Mary went to the shops, Mary gave the bag to")?;
    let metric = Metric::LogitDiff {
        a: &[tokenizer.to_single_token(" Mary")?],
        b: &[tokenizer.to_single_token(" John")?],
    };

    // A head's output z is a mix of values, in proportions that queries and keys determine. Patching each
    // of them alone separates the two. (1: as good as clean, 0: no better than corrupted.)
    let experiment = Experiment::new(&model.model, clean.clone(), corrupted, Direction::Denoising)?;
    let mut of_z = None;
    for (site, what) in [
        (SiteKind::Z, "all that a head gathers"),
        (SiteKind::Q, "what it asks for"),
        (SiteKind::K, "by what it is found"),
        (SiteKind::V, "what it carries"),
        (SiteKind::Pattern, "where it looks"),
    ] {
        let sweep = Sweep::over(&experiment, site); // layer × head
        let outcome = sweep.run(&model.model, metric, Engine::default(), &|_| {});
        let grid = outcome.normalized()?;
        println!("{site:<8} {what:<24} {}", strongest(&grid));
        of_z = of_z.or(Some(grid));
    }

    // Is a head needed, too? Put its mean over the prompt in its place.
    let ablated = Experiment::ablation(&model.model, clean, Ablation::Mean)?;
    let outcome = Sweep::over(&ablated, SiteKind::Z).run(&model.model, metric, Engine::default(), &|_| {});
    let mut lost = outcome.grid;
    for value in &mut lost.values {
        *value -= outcome.clean_metric;
    }
    println!("\nz        its mean in its place    {}", strongest(&lost));
    println!("         (change of the metric, which is {:+.2})", outcome.clean_metric);
    Ok(())
}

/// The three heads with the largest values, as `layer.head value`.
fn strongest(grid: &Grid) -> String {
    let mut heads: Vec<(usize, usize)> = Vec::new();
    for &layer in &grid.places[0] {
        heads.extend(grid.places[1].iter().map(|&head| (layer, head)));
    }
    let size = |&(layer, head): &(usize, usize)| grid.at(&[layer, head]).abs();
    heads.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let shown = heads
        .iter()
        .take(3)
        .map(|&(layer, head)| format!("{:>6} {:+.2}", format!("{layer}.{head}"), grid.at(&[layer, head])));
    shown.collect::<Vec<_>>().join("  ")
}
