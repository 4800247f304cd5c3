//! `patch-cli generate`: what the model writes after a text.

use std::io::{self, Write};

use gpt2::{Pretrained, Sampling, TextStream, Written};
use serde::Serialize;
use visible::visible_text;

use crate::common::ModelArgs;
use crate::failure::Failure;
use crate::screen;
use report::{Prompt, quoted};

/// Arguments of `generate`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Text to continue
    text: String,

    /// How many tokens to write at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,

    /// Draw tokens from the softmax of logits / T; 0 always takes the most likely token (greedy)
    /// [default: 0, or 1 with --top-k, --top-p, --seed or --samples]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,

    /// Draw from the K most likely tokens only
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<usize>,

    /// Draw from the most likely tokens only, as few as have the probability P together
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,

    /// Equal seeds write equal texts [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,

    /// How many texts to write; each has the next seed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,

    /// Stop as soon as the model has written this text; can be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,

    #[command(flatten)]
    model: ModelArgs,
}

const HELP: &str = "\
The model writes until --max-new-tokens is reached, it writes <|endoftext|>, or its text contains a
--stop text (which may begin and end within tokens; the prompt is not searched). The text that is
shown ends before both; \"ids\", \"tokens\" and \"log_probs\" of --json have all tokens that were
written. Log probabilities are those of the model, without temperature, top-k and top-p.

Where several are given, temperature comes first, then top-k, then top-p, as in Hugging Face's
transformers. Once the text is longer than the model can read, its last tokens are read.

Examples:
  patch-cli generate 'Famous computer scientist Alan'
  patch-cli generate 'Her name was' --temperature 0.8 --top-p 0.95 --seed 1 --samples 3
  patch-cli generate 'After John and Mary went to the' --stop . --json";

/// What was written after the prompt.
#[derive(Serialize)]
struct Sample {
    #[serde(skip)]
    sampling: Sampling,
    seed: u64,
    ids: Vec<u32>,
    tokens: Vec<String>,
    /// Without the stop text and what follows it, and without the token that ends a text.
    text: String,
    /// The log probability of each token after all before it.
    log_probs: Vec<f64>,
    finish_reason: FinishReason,
    /// The stop text that was found.
    stop_text: Option<String>,
}

/// Why a text ends.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum FinishReason {
    /// As many tokens were written as were asked for.
    Length,
    /// A stop text was found.
    Stop,
    /// The token that ends a text was written.
    EndOfText,
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    bos: bool,
    prompt: &'a Prompt,
    max_new_tokens: u32,
    temperature: f32,
    top_k: Option<usize>,
    top_p: Option<f32>,
    stop: &'a [String],
    #[serde(flatten)]
    first: &'a Sample,
    /// The same for each further text of --samples.
    more_samples: &'a [Sample],
}

/// Writes on after the text, and prints what is written as it is written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let sampling = args.sampling()?;
    let model = args.model.load()?;
    let prompt = args.model.prompt(&model, &args.text)?;
    args.model.warn_of_unknown_tokens(&model, &prompt.ids);
    let bos = args.model.bos(&model)?;
    let samplings =
        (0..args.samples).map(|i| Sampling { seed: sampling.seed.wrapping_add(i.into()), ..sampling });
    if args.model.json {
        let write = |sampling| args.write(&model, &prompt, sampling, &mut |_| Ok(()));
        let samples = samplings.map(write).collect::<Result<Vec<_>, _>>()?;
        return screen::print_json(&Report {
            model: &model.name,
            bos: bos.is_some(),
            prompt: &prompt,
            max_new_tokens: args.max_new_tokens,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            stop: &args.stop,
            first: &samples[0],
            more_samples: &samples[1..],
        });
    }
    let mut out = screen::stdout();
    let is_terminal = out.is_terminal();
    writeln!(out, "{}\n{}", prompt.row(), prompt.id_row())?;
    writeln!(out, "{}", args.model.bos_in_words(&model, bos))?;
    for (i, sampling) in samplings.enumerate() {
        writeln!(out)?;
        if args.samples > 1 {
            writeln!(out, "sample {} of {}, seed {}", i + 1, args.samples, sampling.seed)?;
        }
        let mut show = |text: &str| {
            out.as_it_is().write_all(visible_text(text).as_bytes())?;
            if is_terminal { out.flush() } else { Ok(()) }
        };
        match args.model.ids {
            true => show(&model.tokenizer.decode(&prompt.ids))?,
            false => show(&prompt.text)?,
        }
        let sample = args.write(&model, &prompt, sampling, &mut show)?;
        writeln!(out, "\n")?;
        if args.model.ids {
            let ids: Vec<String> = sample.ids.iter().map(u32::to_string).collect();
            writeln!(out, "ids written: {}", ids.join(" "))?;
        }
        write_end(&mut out, &model, &prompt, &sample)?;
    }
    Ok(())
}

impl Args {
    fn sampling(&self) -> Result<Sampling, Failure> {
        let is_drawn = self.top_k.is_some() || self.top_p.is_some() || self.seed.is_some();
        let default = if is_drawn || self.samples > 1 { 1.0 } else { 0.0 };
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(default),
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed.unwrap_or(0),
        };
        sampling.check()?;
        if sampling.temperature == 0.0 && self.samples > 1 {
            return Err(Failure::Input(format!(
                "--samples {} with --temperature 0 would write the same text {0} times: give a temperature \
                 above 0",
                self.samples
            )));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Failure::Input(
                "--stop \"\": every text contains the empty text; give the text to stop at".to_owned(),
            ));
        }
        Ok(sampling)
    }

    /// Writes one text. `show` gets each piece of it as soon as it is certain.
    fn write(
        &self,
        model: &Pretrained,
        prompt: &Prompt,
        sampling: Sampling,
        show: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<Sample, Failure> {
        let end = model.eos;
        let mut stream = TextStream::new(&self.stop);
        let (mut ids, mut log_probs) = (Vec::new(), Vec::new());
        let mut finish_reason = FinishReason::Length;
        let writer = model.model.writer(&prompt.ids, sampling)?;
        for written in writer.take(self.max_new_tokens as usize) {
            let Written { id, log_prob } = written?;
            ids.push(id);
            log_probs.push(log_prob);
            if Some(id) == end {
                finish_reason = FinishReason::EndOfText;
                break;
            }
            show(&stream.push(&model.tokenizer.bytes(id)))?;
            if stream.stop().is_some() {
                finish_reason = FinishReason::Stop;
                break;
            }
        }
        show(&stream.finish())?;
        Ok(Sample {
            sampling,
            seed: sampling.seed,
            tokens: model.tokenizer.tokens(&ids),
            ids,
            text: stream.text(),
            log_probs,
            finish_reason,
            stop_text: stream.stop().map(str::to_owned),
        })
    }
}

/// How many tokens were written, how likely they are, and why there are no more.
fn write_end(out: &mut impl Write, model: &Pretrained, prompt: &Prompt, sample: &Sample) -> io::Result<()> {
    let tokens = |count: usize| format!("{count} token{}", if count == 1 { "" } else { "s" });
    let count = sample.ids.len();
    let why = match (sample.finish_reason, &sample.stop_text) {
        (FinishReason::Length, _) => "--max-new-tokens is reached".to_owned(),
        (FinishReason::Stop, stop) => {
            format!("the text contains {}", quoted(stop.as_deref().unwrap_or("")))
        }
        (FinishReason::EndOfText, _) => {
            format!("{} ends the text", quoted(&sample.tokens[count - 1]))
        }
    };
    let (written, how) = (tokens(count), how(sample.sampling));
    writeln!(out, "{written} written by {}, {how}; {why}", model.name)?;
    let log_prob: f64 = sample.log_probs.iter().sum();
    let mean = log_prob / count as f64;
    writeln!(out, "log probability {log_prob:.4}, {mean:.4} a token")?;
    // The last token was not read.
    let (length, limit) = (prompt.ids.len() + count - 1, model.model.config.block_size);
    if length > limit {
        writeln!(
            out,
            "for the last {}, only the {limit} tokens before were read: {} reads no more at once",
            tokens(length - limit),
            model.name
        )?;
    }
    Ok(())
}

/// How the tokens were chosen.
fn how(sampling: Sampling) -> String {
    let Sampling { temperature, top_k, top_p, seed } = sampling;
    if temperature == 0.0 {
        return "always the most likely one".to_owned();
    }
    let settings = [
        Some(format!("drawn at temperature {temperature}")),
        top_k.map(|k| format!("top-k {k}")),
        top_p.map(|p| format!("top-p {p}")),
        Some(format!("seed {seed}")),
    ];
    settings.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
