//! Path patching of the indirect-object circuit, as Wang et al. 2022 went about it (arXiv 2211.00593,
//! section 3): which heads write to the logits, and which heads do these read?
//!
//! ```sh
//! cargo run --release -p patching --example ioi_path          # the tiny model
//! cargo run --release -p patching --example ioi_path gpt2     # GPT-2 small, if it was downloaded
//! ```

use std::error::Error;

use gpt2::Pretrained;
use patching::path::{HeadInput, PathPatching, Receivers, Senders};
use patching::prompts::{Average, Bootstrap, Corruption, Ioi, Pair, Part, average};
use patching::{Direction, Engine, Grid, Head, Watch};

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).unwrap_or_else(|| "tiny".to_owned());
    let model = Pretrained::load(&model)?;

    // "When John and Mary … John gave a drink to", against three other names in their places. The
    // corrupted run's heads are put into the clean run: noising.
    let ioi = Ioi { count: 20, corruption: Corruption::Abc, ..Ioi::default() };
    let pairs = ioi.prompts(&model)?.tokenize(&model, None, Direction::Noising)?;
    println!("{}, mean over {} pairs of prompts; in brackets 95 % intervals", model.name, pairs.len());

    // Which heads write to the logits? The name movers do, from the last position.
    let movers = strongest(&model, &pairs, &Receivers::Logits)?;

    // Which heads determine the queries of the name movers?
    let movers: Vec<Head> = movers.into_iter().filter(|head| head.layer > 0).collect();
    if !movers.is_empty() {
        strongest(&model, &pairs, &Receivers::Heads(HeadInput::Q, movers))?;
    }
    Ok(())
}

/// Patches the path from each head at the last position to the receivers, for every pair, and prints the
/// heads whose mean changes are the largest: the first three of them are the answer.
fn strongest(model: &Pretrained, pairs: &[Pair], receivers: &Receivers) -> Result<Vec<Head>, Box<dyn Error>> {
    let mut grids: Vec<Grid> = Vec::new();
    for pair in pairs {
        let paths = PathPatching {
            senders: Senders::Heads,
            receivers: receivers.clone(),
            pos: Some(pair.experiment.n_tokens() - 1),
            through_mlps: true,
        };
        let outcome =
            paths.run(&model.model, &pair.experiment, pair.metric(), Engine::default(), Watch::NOBODY)?;
        // How much of its preference for the right name does the model lose?
        let mut grid = outcome.grid;
        for value in &mut grid.values {
            *value -= outcome.clean_metric;
        }
        grids.push(grid);
    }
    let parts: Vec<Part<'_>> = pairs.iter().zip(&grids).map(|(pair, grid)| Part::new(pair, grid)).collect();
    let Average { mean, low, high, .. } = average(&parts, None, Bootstrap::default())?;

    match receivers {
        Receivers::Mlps(layers) => println!("\nto the MLPs {layers:?}"),
        Receivers::Logits => println!("\nto the logits"),
        Receivers::Heads(input, heads) => {
            let heads: Vec<String> = heads.iter().map(Head::to_string).collect();
            println!("\nto {input} of {}", heads.join(", "));
        }
    }
    let n_head = model.model.config.n_head;
    let mut order: Vec<usize> = (0..mean.values.len()).collect();
    order.sort_by(|&i, &j| mean.values[j].abs().total_cmp(&mean.values[i].abs()));
    let head = |i: usize| Head { layer: i / n_head, head: i % n_head };
    for &i in order.iter().take(6) {
        let (mean, low, high) = (mean.values[i], low.values[i], high.values[i]);
        println!("{:>6}  {mean:+.3}  ({low:+.3} to {high:+.3})", head(i));
    }
    Ok(order.into_iter().take(3).map(head).collect())
}
