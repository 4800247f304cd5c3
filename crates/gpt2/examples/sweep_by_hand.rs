//! The 132-run sweep in thirty lines, without the patching crate: what `patch-cli` does, one whole forward
//! pass for every layer and position.
//!
//! ```sh
//! cargo run --release -p gpt2 --example sweep_by_hand
//! ```

use std::collections::HashMap;
use std::error::Error;

use gpt2::{Pretrained, SiteKind};

fn main() -> Result<(), Box<dyn Error>> {
    let model = Pretrained::load(&std::env::args().nth(1).unwrap_or_else(|| "tiny".to_owned()))?;
    let clean = model.tokenizer.encode("Michelle Jones was a top-notch student. Michelle")?;
    let corrupted = model.tokenizer.encode("Michelle Smith was a top-notch student. Michelle")?;
    let a = model.tokenizer.to_single_token(" Smith")? as usize;
    let b = model.tokenizer.to_single_token(" Jones")? as usize;

    // Keep what leaves every block in the clean run.
    let mut kept = HashMap::new();
    model.model.next_token_logits(&clean, &mut |site, x| {
        kept.insert(site, x.clone());
    });

    for layer in 0..model.model.config.n_layer {
        for pos in 0..corrupted.len() {
            // The corrupted run, with one row of the clean one.
            let logits = model.model.next_token_logits(&corrupted, &mut |site, x| {
                if site == SiteKind::ResidPost.at(layer) {
                    x.row_mut(pos).copy_from_slice(kept[&site].row(pos));
                }
            });
            print!("{:>8.2}", logits[a] - logits[b]);
        }
        println!();
    }
    Ok(())
}
