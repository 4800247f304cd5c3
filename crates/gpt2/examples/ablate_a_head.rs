//! Ablate a head: what is left of a prediction when one head is silent?
//!
//! ```sh
//! cargo run --release -p gpt2 --example ablate_a_head
//! ```

use std::error::Error;

use gpt2::generate::log_prob;
use gpt2::{Pretrained, SiteKind, no_hook};

fn main() -> Result<(), Box<dyn Error>> {
    let model = Pretrained::load(&std::env::args().nth(1).unwrap_or_else(|| "tiny".to_owned()))?;
    let prompt = "When John and Mary went to the shops, John gave the bag to";
    let ids = model.tokenizer.encode(prompt)?;
    let mary = model.tokenizer.to_single_token(" Mary")?;
    let p = |logits: &[f32]| log_prob(logits, mary).exp();
    println!("{prompt} …");
    println!("p( Mary) with all heads: {:.3}", p(&model.model.next_token_logits(&ids, &mut no_hook)));

    println!("without one of them (row: layer, column: head):");
    let config = model.model.config;
    for layer in 0..config.n_layer {
        print!("{layer:>4}");
        for head in 0..config.n_head {
            let logits = model.model.next_token_logits(&ids, &mut |site, z| {
                if site == SiteKind::Z.at(layer) {
                    // z is (T, n_head, head_size): one row for each head at each position.
                    for pos in 0..ids.len() {
                        z.row_mut(pos * config.n_head + head).fill(0.0);
                    }
                }
            });
            print!("{:>8.3}", p(&logits));
        }
        println!();
    }
    Ok(())
}
