//! `patch-cli tokens`: how texts are cut into tokens.

use std::io::Write;
use std::path::Path;

use gpt2::tokenizer::parse_ids;
use gpt2::{Pretrained, Tokenizer};

use crate::failure::Failure;
use crate::screen;
use report::Prompt;

const EXAMPLES: &str = "\
Examples:
  patch-cli tokens 'Michelle Jones' ' Jones'
  patch-cli tokens --json 'Michelle Jones'";

/// Arguments of `tokens`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Texts to split into tokens
    #[arg(required = true)]
    text: Vec<String>,

    /// Model whose tokenizer is used: a name, or a folder with tokenizer files [default: GPT-2]
    #[arg(long, value_name = "NAME|DIR")]
    model: Option<String>,

    /// Read the texts as token ids: '464 3290'
    #[arg(long)]
    ids: bool,

    /// Print one JSON array on stdout, and nothing else there
    #[arg(long)]
    json: bool,
}

/// Prints each text's tokens, ids and their number.
pub fn run(args: &Args) -> Result<(), Failure> {
    let tokenizer = args.tokenizer()?;
    let mut prompts = Vec::new();
    for text in &args.text {
        let ids = match args.ids {
            true => parse_ids(text).map_err(Failure::Input)?,
            false => tokenizer.encode(text)?,
        };
        prompts.push(Prompt::new(&tokenizer, text, &ids));
    }
    if args.json {
        return screen::print_json(&prompts);
    }
    let mut out = screen::stdout();
    for prompt in &prompts {
        let s = if prompt.ids.len() == 1 { "" } else { "s" };
        writeln!(out, "{}\n{}\n{} token{s}", prompt.row(), prompt.id_row(), prompt.ids.len())?;
    }
    Ok(())
}

impl Args {
    /// The tokenizer that is meant. A folder needs no weights for it.
    fn tokenizer(&self) -> Result<Tokenizer, Failure> {
        let Some(model) = &self.model else {
            return Ok(Tokenizer::gpt2());
        };
        if let Some(tokenizer) = Tokenizer::in_folder(Path::new(model))? {
            return Ok(tokenizer);
        }
        let model = Pretrained::load(model)?;
        screen::notes(&model.notes);
        Ok(model.tokenizer)
    }
}
