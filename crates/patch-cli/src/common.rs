//! What every subcommand that runs a model shares: its arguments, and getting the model ready.

use std::io::Write;
use std::num::NonZero;

use gpt2::tokenizer::parse_ids;
use gpt2::{Pretrained, locate};

use crate::failure::Failure;
use crate::names;
use crate::screen;
use report::{Prompt, quoted};

/// Arguments of every subcommand that runs a model.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// Model: a name, folder or file [default: gpt2 if installed, else tiny]
    #[arg(long, value_name = "NAME|DIR|FILE")]
    pub model: Option<String>,

    /// Put the beginning-of-text token in front of every prompt (<|endoftext|>, or the token that the model's files
    /// name) [default: as the model's tokenizer does; ioi and repeat always do]
    #[arg(long, conflicts_with = "no_bos")]
    pub bos: bool,

    /// Do not put that token in front
    #[arg(long)]
    pub no_bos: bool,

    /// Read prompts as token ids instead of text: '464 3290' or 464,3290. (A single token can be written as #464
    /// anywhere.)
    #[arg(long)]
    pub ids: bool,

    /// Number of threads [default: RAYON_NUM_THREADS, or one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,

    /// Print one JSON object on stdout, and nothing else there
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub color: colorchoice_clap::Color,
}

/// More threads than this are refused where there are fewer cores: they only wait for each other, and from
/// a thousand on starting them takes longer than the work.
const MOST_THREADS: usize = 64;

/// Starts as many threads as are asked for.
fn start_threads(asked: Option<u16>) -> Result<(), Failure> {
    let variable = || std::env::var("RAYON_NUM_THREADS").ok()?.parse::<usize>().ok();
    let (threads, origin) = match (asked, variable()) {
        (Some(threads), _) => (usize::from(threads), "--threads"),
        (None, Some(threads)) => (threads, "RAYON_NUM_THREADS"),
        (None, None) => return Ok(()),
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let most = cores.max(MOST_THREADS);
    if threads > most {
        return Err(Failure::Input(format!(
            "{origin} asks for {threads} threads, and this machine has {cores} cores: give at most {most}"
        )));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().map_err(|e| Failure::Other(format!("cannot start {threads} threads: {e}")))
}

impl ModelArgs {
    /// Sets colours and threads, and loads the model.
    pub fn load(&self) -> Result<Pretrained, Failure> {
        self.color.write_global();
        start_threads(self.threads)?;
        // The tokenizer's tables are built beside the reading of the weights.
        let (model, _) = rayon::join(
            || match &self.model {
                Some(model) if self.ids => Pretrained::load_for_ids(model),
                Some(model) => Pretrained::load(model),
                None => Pretrained::default_model(),
            },
            gpt2::Tokenizer::gpt2,
        );
        let model = model.map_err(with_suggestion)?;
        screen::notes(&model.notes);
        if self.model.is_none() && model.name == locate::TINY {
            let note = format!(
                "no weights of GPT-2 small found: running the tiny model that ships with patch-cli \
                 (fetch GPT-2 small with: cargo xtask download-weights {})",
                locate::DEFAULT
            );
            if self.json {
                screen::note(&note);
            } else {
                writeln!(screen::stdout(), "note: {note}\n")?;
            }
        }
        Ok(model)
    }

    /// The token in front of every prompt, if there is one.
    ///
    /// # Errors
    /// [`Failure::Input`] if one is asked for, and the model's files name none.
    pub fn bos(&self, model: &Pretrained) -> Result<Option<u32>, Failure> {
        self.bos_by_default(model, model.tokenizer.opens_texts())
    }

    /// The same for a study that decides by itself whether there is one.
    ///
    /// # Errors
    /// As [`ModelArgs::bos`].
    pub fn bos_by_default(&self, model: &Pretrained, default: bool) -> Result<Option<u32>, Failure> {
        match model.bos {
            _ if self.no_bos => Ok(None),
            bos if !self.bos => Ok(bos.filter(|_| default)),
            Some(bos) => Ok(Some(bos)),
            None => Err(Failure::Input(format!(
                "there is no beginning-of-text token: neither the tokenizer files of {} nor its config.json name one; \
                 leave it out with --no-bos, or put it into the prompt",
                model.name
            ))),
        }
    }

    /// Says whether a token stands in front of every prompt.
    pub fn bos_in_words(&self, model: &Pretrained, bos: Option<u32>) -> String {
        let name = |id: u32| model.tokenizer.token(id);
        match (bos, model.bos) {
            (Some(id), _) => format!("with {} in front", name(id)),
            (None, Some(id)) => format!("without {} in front", name(id)),
            (None, None) => "without a beginning-of-text token in front".to_owned(),
        }
    }

    /// The token ids of a prompt, which the model must be able to read.
    pub fn encode(&self, model: &Pretrained, text: &str) -> Result<Vec<u32>, Failure> {
        match self.ids {
            true => self.with_bos(model, parse_ids(text).map_err(Failure::Input)?),
            false => self.with_bos(model, model.tokenizer.encode(text)?),
        }
    }

    /// A prompt of these tokens, with what stands in front of every prompt. Behind that even an empty text
    /// is a prompt of one token.
    pub fn with_bos(&self, model: &Pretrained, ids: Vec<u32>) -> Result<Vec<u32>, Failure> {
        let mut all = Vec::from_iter(self.bos(model)?);
        all.extend(ids);
        model.model.check_prompt(&all)?;
        Ok(all)
    }

    /// A prompt with its tokens, which the model must be able to read.
    pub fn prompt(&self, model: &Pretrained, text: &str) -> Result<Prompt, Failure> {
        let ids = self.encode(model, text)?;
        Ok(Prompt::new(&model.tokenizer, text, &ids))
    }

    /// Warns once of tokens that the model was not trained on.
    pub fn warn_of_unknown_tokens(&self, model: &Pretrained, ids: &[u32]) {
        const SHOWN: usize = 8;
        let unknown = model.unknown_tokens(ids);
        if unknown.is_empty() {
            return;
        }
        let mut names: Vec<String> =
            unknown.iter().take(SHOWN).map(|&id| quoted(&model.tokenizer.token(id))).collect();
        if unknown.len() > SHOWN {
            names.push(format!("and {} more", unknown.len() - SHOWN));
        }
        screen::warn(&format!(
            "the model {} was not trained on {}: it reads a blank in their place",
            model.name,
            names.join(", ")
        ));
    }
}

/// An error; that a model is not there is said with the name that was probably meant.
fn with_suggestion(error: gpt2::Error) -> Failure {
    let gpt2::Error::ModelNotFound { name, .. } = &error else {
        return error.into();
    };
    let others = locate::Places::from_env().other_names();
    let known = locate::KNOWN.iter().map(|known| known.name);
    let names: Vec<&str> = known.chain(others.iter().map(String::as_str)).collect();
    match names::nearest(name, names.iter().copied()) {
        Some(nearest) if nearest != name => Failure::Input(format!("{error}\ndid you mean {nearest}?")),
        _ => error.into(),
    }
}
