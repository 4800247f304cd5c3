//! `patch-cli predict`: what the model expects next.

use std::io::{self, Write};

use gpt2::no_hook;
use serde::Serialize;

use crate::common::ModelArgs;
use crate::failure::Failure;
use crate::report::{self, Candidate, Prompt};

/// Arguments of `predict`.
#[derive(clap::Args)]
pub struct Args {
    /// Text to go on from
    text: String,

    /// A token to show the rank, logit and probability of (with its space: ' Jones')
    #[arg(long, value_name = "TOKEN")]
    answer: Option<String>,

    /// How many of the most likely tokens to show
    #[arg(long, value_name = "K", default_value_t = 20)]
    top: usize,

    #[command(flatten)]
    model: ModelArgs,
}

/// The answer's place among all tokens.
#[derive(Serialize)]
struct Answer {
    id: u32,
    rank: usize,
    logit: f32,
    prob: f32,
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    #[serde(flatten)]
    prompt: Prompt,
    bos: bool,
    top: Vec<Candidate>,
    answer: Option<Answer>,
}

/// Runs the model on the text and prints the most likely next tokens.
pub fn run(args: &Args) -> Result<(), Failure> {
    let model = args.model.load()?;
    let ids = args.model.encode(&model, &args.text)?;
    let answer = args
        .answer
        .as_ref()
        .map(|text| model.tokenizer.to_single_token(text))
        .transpose()?;
    let asked: Vec<u32> = ids.iter().copied().chain(answer).collect();
    args.model.warn_of_unknown_tokens(&model, &asked);

    let logits = model.model.next_token_logits(&ids, &mut no_hook);
    let answer = answer.map(|id| {
        let logit = logits[id as usize];
        let before = |(i, x): (usize, &f32)| *x > logit || (*x == logit && i < id as usize);
        Answer {
            id,
            rank: logits
                .iter()
                .enumerate()
                .filter(|entry| before(*entry))
                .count(),
            logit,
            prob: (logit - tensor::log_sum_exp(&logits)).exp(),
        }
    });
    let report = Report {
        model: &model.name,
        prompt: Prompt::new(&model.tokenizer, &args.text, &ids),
        bos: args.model.bos,
        top: report::top(&model, &logits, args.top),
        answer,
    };

    let mut out = io::stdout().lock();
    if args.model.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{}\n{}\n", report.prompt.row(), report.prompt.id_row())?;
    if let (Some(answer), Some(text)) = (&report.answer, &args.answer) {
        let Answer {
            id,
            rank,
            logit,
            prob,
        } = answer;
        let text = report::quoted(text);
        writeln!(
            out,
            "answer {text} ({id}): rank {rank}, logit {logit:.2}, probability {prob:.4}\n"
        )?;
    }
    let title = format!("top {} of {}", report.top.len(), report.model);
    report::write_top_tables(&mut out, &[(&title, &report.top)])?;
    Ok(())
}
