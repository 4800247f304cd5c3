//! The logit lens (nostalgebraist 2020): read the residual stream after every block as if it were the
//! last one.
//!
//! ```sh
//! cargo run --release -p gpt2 --example logit_lens
//! ```

use std::error::Error;

use gpt2::generate::log_prob;
use gpt2::{Pretrained, Site, SiteKind};
use tensor::{Tensor, argmax, matmul_transposed};

fn main() -> Result<(), Box<dyn Error>> {
    let model = Pretrained::load(&std::env::args().nth(1).unwrap_or_else(|| "tiny".to_owned()))?;
    let ids = model.tokenizer.encode("Famous computer scientist Alan")?;
    let last = ids.len() - 1;

    // The last position's residual stream, before block 0 and after every block.
    let mut stream: Vec<(Site, Vec<f32>)> = Vec::new();
    model.model.forward(&ids, &mut |site, x| {
        if site == SiteKind::ResidPre.at(0) || site.kind == SiteKind::ResidPost {
            stream.push((site, x.row(last).to_vec()));
        }
    });
    for (site, row) in stream {
        let x = Tensor::new(&[1, row.len()], row);
        let normalized = model.model.ln_f.forward_rows(&x); // (1, C)
        let logits = matmul_transposed(&normalized, model.model.unembedding()).into_data(); // (V)
        let best = argmax(&logits);
        let p = log_prob(&logits, best as u32).exp();
        println!("{:<28} {:>12} {p:.3}", site.to_string(), model.tokenizer.token(best as u32));
    }
    Ok(())
}
