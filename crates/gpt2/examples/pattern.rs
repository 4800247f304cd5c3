//! Print one head's pattern: how much each token attends to each token before it.
//!
//! ```sh
//! cargo run --release -p gpt2 --example pattern           # head 7.1 of the tiny model
//! cargo run --release -p gpt2 --example pattern 5 5 gpt2  # head 5.5 of GPT-2 small
//! ```

use std::error::Error;

use gpt2::{Pretrained, SiteKind};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |text| text.parse());
    let (layer, head) = (number(0, 7)?, number(1, 1)?);
    let model = Pretrained::load(args.get(2).map_or("tiny", String::as_str))?;
    let config = &model.model.config;
    if layer >= config.n_layer || head >= config.n_head {
        let (layers, heads) = (config.n_layer, config.n_head);
        return Err(format!("{} has {layers} layers of {heads} heads", model.name).into());
    }

    // A sentence twice: an induction head finds, at each token of the second half, the token that stood
    // behind it the first time.
    let half = model.tokenizer.encode(" Michelle Jones was a student.")?;
    let ids = [&half[..], &half].concat();
    let tokens = model.tokenizer.tokens(&ids);

    // A hook sees every activation on its way. This one keeps a copy of the pattern, (n_head, T, T).
    let mut pattern = None;
    model.model.forward(&ids, &mut |site, x| {
        if site == SiteKind::Pattern.at(layer) {
            pattern = Some(x.clone());
        }
    });
    let pattern = pattern.ok_or("the forward pass has a pattern in every layer")?;

    println!("head {layer}.{head}, in percent: each row attends to the columns\n");
    print!("{:>10}", "");
    tokens.iter().for_each(|token| print!("{:>10}", token.trim()));
    println!();
    for (dest, token) in tokens.iter().enumerate() {
        print!("{:>10}", token.trim());
        for weight in &pattern.row(head * tokens.len() + dest)[..=dest] {
            print!("{:>10.0}", 100.0 * weight);
        }
        println!();
    }
    Ok(())
}
