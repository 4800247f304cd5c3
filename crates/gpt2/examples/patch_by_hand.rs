//! Patch one activation by hand: a closure that copies, and a closure that overwrites.
//!
//! ```sh
//! cargo run --release -p gpt2 --example patch_by_hand
//! ```

use std::error::Error;

use gpt2::generate::log_prob;
use gpt2::{Pretrained, SiteKind, no_hook};

fn main() -> Result<(), Box<dyn Error>> {
    let model = Pretrained::load(&std::env::args().nth(1).unwrap_or_else(|| "tiny".to_owned()))?;
    let tokenizer = &model.tokenizer;
    let clean = tokenizer.encode("Michelle Jones was a top-notch student. Michelle")?;
    let corrupted = tokenizer.encode("Michelle Smith was a top-notch student. Michelle")?;
    let (jones, smith) =
        (tokenizer.to_single_token(" Jones")? as usize, tokenizer.to_single_token(" Smith")? as usize);
    let show = |what: &str, logits: &[f32]| {
        let p = |token: usize| log_prob(logits, token as u32).exp();
        println!("{what:<44} p( Jones) {:.3}  p( Smith) {:.3}", p(jones), p(smith));
    };

    // 1. Run the clean prompt, and keep one activation: what leaves block 0 at the surname's position.
    let (layer, pos) = (0, 1);
    let mut kept = Vec::new();
    let logits = model.model.next_token_logits(&clean, &mut |site, x| {
        if site == SiteKind::ResidPost.at(layer) {
            kept = x.row(pos).to_vec();
        }
    });
    show("Michelle Jones …", &logits);

    // 2. Run the corrupted prompt as it is.
    show("Michelle Smith …", &model.model.next_token_logits(&corrupted, &mut no_hook));

    // 3. Run it again, and put that one activation in its place.
    let logits = model.model.next_token_logits(&corrupted, &mut |site, x| {
        if site == SiteKind::ResidPost.at(layer) {
            x.row_mut(pos).copy_from_slice(&kept);
        }
    });
    show("Michelle Smith …, one activation of Jones", &logits);

    // 4. The same activation at another position does not say the name.
    let logits = model.model.next_token_logits(&corrupted, &mut |site, x| {
        if site == SiteKind::ResidPost.at(layer) {
            x.row_mut(5).copy_from_slice(&kept);
        }
    });
    show("Michelle Smith …, the same at position 5", &logits);
    Ok(())
}
