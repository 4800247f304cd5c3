//! `patch-cli tokens`: how texts are cut into tokens.

use std::io::{self, Write};

use gpt2::Tokenizer;

use crate::failure::Failure;
use crate::report::{self, Prompt};

const EXAMPLES: &str = "\
Examples:
  patch-cli tokens 'Michelle Jones' ' Jones'
  patch-cli tokens --json 'Michelle Jones'";

/// Arguments of `tokens`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Texts to cut into tokens
    #[arg(required = true)]
    text: Vec<String>,

    /// Print one JSON array on stdout, and nothing else there
    #[arg(long)]
    json: bool,
}

/// Prints each text's tokens, ids and their number.
pub fn run(args: &Args) -> Result<(), Failure> {
    let tokenizer = Tokenizer::gpt2();
    let mut prompts = Vec::new();
    for text in &args.text {
        prompts.push(Prompt::new(&tokenizer, text, &tokenizer.encode(text)?));
    }
    if args.json {
        return report::print_json(&prompts);
    }
    let mut out = io::stdout().lock();
    for prompt in &prompts {
        let s = if prompt.ids.len() == 1 { "" } else { "s" };
        writeln!(
            out,
            "{}\n{}\n{} token{s}",
            prompt.row(),
            prompt.id_row(),
            prompt.ids.len()
        )?;
    }
    Ok(())
}
