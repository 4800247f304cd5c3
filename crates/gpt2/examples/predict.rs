//! Run a prompt: what does the model expect next, and what does it write?
//!
//! ```sh
//! cargo run --release -p gpt2 --example predict
//! cargo run --release -p gpt2 --example predict "The cat chased the mouse. The mouse was chased by the" gpt2
//! ```

use std::error::Error;

use gpt2::{Pretrained, Sampling, generate, no_hook};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let prompt = args.next().unwrap_or_else(|| "Famous computer scientist Alan".to_owned());
    let model = Pretrained::load(&args.next().unwrap_or_else(|| "tiny".to_owned()))?;

    // Text becomes tokens, tokens become logits: one number for each of the 50,257 tokens.
    let ids = model.tokenizer.encode(&prompt)?;
    println!("{ids:?} {:?}", model.tokenizer.tokens(&ids));
    let logits = model.model.next_token_logits(&ids, &mut no_hook);

    // Probabilities are e^logit over the sum of all of them.
    for id in generate::rank(&logits, 5) {
        let logit = logits[id as usize];
        let token = model.tokenizer.token(id);
        println!("{token:>12} logit {logit:6.2} probability {:.4}", generate::log_prob(&logits, id).exp());
    }

    // To write is to take the likeliest token, put it at the end, and ask again.
    let end = model.eos;
    let written = model.model.generate(&ids, 8, Sampling::GREEDY, end)?;
    println!("{}", model.tokenizer.decode(&written));
    Ok(())
}
