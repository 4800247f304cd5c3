//! `patch-cli predict`: what the model expects next, and how it does on given answers
//! (TransformerLens's `test_prompt`).
//!
//! The model gives each token of the vocabulary a logit; its probability is e^logit / Σ e^logit, and
//! its rank is the number of tokens with larger logits. Two prompts side by side show what a change
//! of the prompt does to an answer, which is what patching then looks for inside the model.

use std::io::{self, Write};

use gpt2::generate::{check_logits, log_prob};
use gpt2::{Pretrained, SiteKind, no_hook};
use lens::text::{TokenScore, loss, score_rows};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::common::ModelArgs;
use crate::failure::Failure;
use crate::processing::{ProcessArgs, Studied};
use crate::screen;
use crate::screen::terminal_width;
use report::{Candidate, Prompt, candidate, pad, quoted, top, top_tables, write_aligned};

/// Arguments of `predict`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Text to continue
    text: String,

    /// A second text, for comparison
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    compare: Option<String>,

    /// A token to show the rank, logit and probability of (with its space: ' Jones'); can be given
    /// several times
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    answer: Vec<String>,

    /// Let an answer have several tokens, and show each of them given those before it
    #[arg(long, requires = "answer")]
    multi_token: bool,

    /// Also show how well each token of the text is predicted by those before it: log probability,
    /// rank and the most likely token in its place; and the mean loss
    #[arg(long)]
    all_positions: bool,

    /// Number of most likely tokens to show
    #[arg(long, value_name = "K", default_value_t = 20)]
    top: usize,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

const HELP: &str = "\
Examples:
  patch-cli predict 'Famous computer scientist Alan' --answer ' Turing'
  patch-cli predict 'Her name was Alex Hart. When Alex' --bos --answer ' Hart' --answer ' was'
  patch-cli predict 'Michelle Jones was a top-notch student. Michelle' --answer ' Jones' \\
            --compare 'Michelle Smith was a top-notch student. Michelle' --top 5
  patch-cli predict 'The cat chased the' --answer ' mouse. The mouse' --multi-token
  patch-cli predict 'The cat chased the mouse.' --bos --all-positions

The loss of --all-positions is the mean of −log p in nats over all tokens but the first, which has
nothing before it (with --bos, that is <|endoftext|>); perplexity is e^loss.";

/// What is expected after one prompt.
#[derive(Serialize)]
struct Prediction {
    #[serde(flatten)]
    prompt: Prompt,
    /// Only with --all-positions.
    #[serde(flatten)]
    scores: Option<Scores>,
    top: Vec<Candidate>,
    answers: Vec<Answer>,
}

/// How well each token of a prompt is predicted, and all of them together. Each list has an entry for
/// every token; those of the first are empty.
#[derive(Serialize)]
struct Scores {
    log_probs: Vec<Option<f64>>,
    ranks: Vec<Option<usize>>,
    likeliest_ids: Vec<Option<u32>>,
    likeliest_tokens: Vec<Option<String>>,
    likeliest_probs: Vec<Option<f64>>,
    scored_tokens: usize,
    /// The mean negative log probability in nats.
    loss: Option<f64>,
    /// e^loss; none if that is too large for a number.
    perplexity: Option<f64>,
}

impl Scores {
    fn new(model: &Pretrained, scores: &[TokenScore]) -> Self {
        fn each<T>(scores: &[TokenScore], of: impl Fn(&TokenScore) -> T) -> Vec<Option<T>> {
            let scores = scores.iter().map(|score| Some(of(score)));
            [None].into_iter().chain(scores).collect()
        }
        let loss = loss(scores);
        Self {
            log_probs: each(scores, |score| score.log_prob),
            ranks: each(scores, |score| score.rank),
            likeliest_ids: each(scores, |score| score.likeliest),
            likeliest_tokens: each(scores, |score| model.tokenizer.token(score.likeliest)),
            likeliest_probs: each(scores, |score| score.likeliest_log_prob.exp()),
            scored_tokens: scores.len(),
            loss,
            perplexity: loss.map(f64::exp).filter(|x| x.is_finite()),
        }
    }
}

/// An answer and the place of each of its tokens among all tokens.
#[derive(Serialize)]
struct Answer {
    text: String,
    tokens: Vec<Candidate>,
    /// The logarithm of the answer's probability: the sum of its tokens'.
    log_prob: f32,
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    processing: &'a [&'static str],
    bos: bool,
    #[serde(flatten)]
    first: &'a Prediction,
    /// The same for the text to compare with.
    compare: Option<&'a Prediction>,
}

/// Runs the model on the text and prints the most likely next tokens.
pub fn run(args: &Args) -> Result<(), Failure> {
    let studied = args.process.load(&args.model)?;
    let answers = args.answer_ids(&studied)?;
    let texts = [Some(&args.text), args.compare.as_ref()];
    let mut prompts = Vec::new();
    for text in texts.into_iter().flatten() {
        prompts.push(args.model.prompt(&studied.pretrained, text)?);
    }
    let ids = prompts.iter().flat_map(|prompt| &prompt.ids);
    let all: Vec<u32> = ids.chain(answers.iter().flatten()).copied().collect();
    args.model.warn_of_unknown_tokens(&studied.pretrained, &all);

    let mut predictions = Vec::new();
    for prompt in prompts {
        predictions.push(args.predict(&studied, prompt, &answers)?);
    }
    let bos = args.model.bos(&studied.pretrained)?;
    if args.model.json {
        let report = Report {
            model: &studied.pretrained.name,
            processing: &studied.processing,
            bos: bos.is_some(),
            first: &predictions[0],
            compare: predictions.get(1),
        };
        return screen::print_json(&report);
    }
    let mut out = screen::stdout();
    write_prompts(&mut out, &predictions)?;
    let bos = args.model.bos_in_words(&studied.pretrained, bos);
    writeln!(out, "{bos}\n")?;
    for (i, prediction) in predictions.iter().enumerate() {
        let of = match predictions.len() {
            1 => studied.label(),
            _ => format!("prompt {}", i + 1),
        };
        if let Some(scores) = &prediction.scores {
            write_scores(&mut out, &of, &prediction.prompt, scores)?;
        }
    }
    write_answers(&mut out, &predictions)?;
    let titles: Vec<String> = (predictions.iter().enumerate())
        .map(|(i, prediction)| {
            let count = prediction.top.len();
            match predictions.len() {
                1 => format!("top {count} of {}", studied.label()),
                _ => format!("top {count} after prompt {}", i + 1),
            }
        })
        .collect();
    let tables: Vec<(&str, &[Candidate])> = (titles.iter().zip(&predictions))
        .map(|(title, prediction)| (title.as_str(), prediction.top.as_slice()))
        .collect();
    write!(out, "{}", top_tables(&tables))?;
    Ok(())
}

impl Args {
    /// The tokens of each answer: one, unless several are allowed.
    fn answer_ids(&self, studied: &Studied) -> Result<Vec<Vec<u32>>, Failure> {
        let tokenizer = &studied.pretrained.tokenizer;
        let ids = |text: &String| {
            // An empty answer is refused in either way.
            match tokenizer.to_single_token(text) {
                Ok(id) => Ok(vec![id]),
                Err(_) if self.multi_token && !text.is_empty() => Ok(tokenizer.encode(text)?),
                Err(error) => Err(error.into()),
            }
        };
        self.answer.iter().map(ids).collect()
    }

    fn predict(
        &self,
        studied: &Studied,
        prompt: Prompt,
        answers: &[Vec<u32>],
    ) -> Result<Prediction, Failure> {
        let (model, pretrained) = (studied.model(), &studied.pretrained);
        let ids = &prompt.ids;
        let mut normalized = None;
        let next = model.next_token_logits(ids, &mut |site, x| {
            if self.all_positions && site == SiteKind::LnFinalNormalized.at(0) {
                normalized = Some(x.clone());
            }
        });
        check_logits(&next, ids.len())?;
        let scores = match normalized {
            Some(x) => Some(Scores::new(pretrained, &score_rows(model, &x, ids)?)),
            None => None,
        };
        let mut found = Vec::new();
        for (answer, text) in answers.iter().zip(&self.answer) {
            // The prompt with all of the answer but its last token.
            let before = &answer[..answer.len() - 1];
            let all = [&ids[..], before].concat();
            let rows = match before {
                [] => vec![next.clone()],
                _ => {
                    pretrained.model.check_prompt(&all)?;
                    let logits = model.forward(&all, &mut no_hook);
                    let positions = ids.len() - 1..all.len();
                    positions.map(|pos| logits.row(pos).to_vec()).collect()
                }
            };
            for (i, row) in rows.iter().enumerate() {
                check_logits(row, ids.len() + i)?;
            }
            let of = |(row, id): (&Vec<f32>, &u32)| log_prob(row, *id);
            found.push(Answer {
                text: text.clone(),
                log_prob: rows.iter().zip(answer).map(of).sum::<f64>() as f32,
                tokens: (rows.iter().zip(answer)).map(|(row, id)| candidate(pretrained, row, *id)).collect(),
            });
        }
        Ok(Prediction { prompt, scores, top: top(pretrained, &next, self.top), answers: found })
    }
}

/// The tokens of the prompt; of two, position under position.
fn write_prompts(out: &mut impl Write, predictions: &[Prediction]) -> io::Result<()> {
    if let [Prediction { prompt, .. }] = predictions {
        return writeln!(out, "{}\n{}", prompt.row(), prompt.id_row());
    }
    let labels = ["prompt 1", "prompt 2"];
    let rows: Vec<(&str, &Prompt)> =
        (labels.into_iter()).zip(predictions.iter().map(|prediction| &prediction.prompt)).collect();
    write_aligned(out, &rows, terminal_width())
}

/// How well each token of a prompt is predicted, a line each, and the loss.
fn write_scores(out: &mut impl Write, of: &str, prompt: &Prompt, scores: &Scores) -> io::Result<()> {
    let column = |head: &str, tokens: &mut dyn Iterator<Item = &str>| {
        let tokens = tokens.map(|token| if token.is_empty() { String::new() } else { quoted(token) });
        let cells: Vec<String> = [head.to_owned()].into_iter().chain(tokens).collect();
        let width = cells.iter().map(|cell| cell.width()).max().unwrap_or(0);
        cells.iter().map(|cell| pad(cell, width)).collect::<Vec<String>>()
    };
    let tokens = column("token", &mut prompt.tokens.iter().map(String::as_str));
    let likeliest = scores.likeliest_tokens.iter();
    let likeliest = column("most likely", &mut likeliest.map(|it| it.as_deref().unwrap_or("")));
    writeln!(
        out,
        "each token of {of}\n pos     id  {}  log prob     prob  rank  {}     prob",
        tokens[0], likeliest[0]
    )?;
    for (pos, id) in prompt.ids.iter().enumerate() {
        let line = format!("{pos:>4}  {id:>5}  {}", tokens[pos + 1]);
        match (scores.log_probs[pos], scores.ranks[pos], scores.likeliest_probs[pos]) {
            (Some(log_prob), Some(rank), Some(likeliest_prob)) => writeln!(
                out,
                "{line}  {log_prob:>8.4}  {:>7.4}  {rank:>4}  {}  {likeliest_prob:>7.4}",
                log_prob.exp(),
                likeliest[pos + 1]
            )?,
            _ => writeln!(out, "{}", line.trim_end())?,
        }
    }
    write_loss(out, scores)
}

/// The mean loss and the perplexity, or why there are none.
fn write_loss(out: &mut impl Write, scores: &Scores) -> io::Result<()> {
    let Some(loss) = scores.loss else {
        return writeln!(
            out,
            "no loss: the text is one token, which has nothing before it (--bos puts <|endoftext|> there)\n"
        );
    };
    let count = scores.scored_tokens;
    let tokens = if count == 1 { "1 token".to_owned() } else { format!("{count} tokens") };
    let perplexity = match scores.perplexity {
        Some(perplexity) => format!("perplexity {perplexity:.4}"),
        None => "its perplexity is too large for a number".to_owned(),
    };
    writeln!(out, "mean loss {loss:.4} nats over {tokens}, {perplexity}\n")
}

/// How the model does on the answers, and how far apart two of them are.
fn write_answers(out: &mut impl Write, predictions: &[Prediction]) -> io::Result<()> {
    for (i, prediction) in predictions.iter().enumerate() {
        let Some(first) = prediction.answers.first() else {
            return Ok(());
        };
        let of = match predictions.len() {
            1 => String::new(),
            _ => format!(" after prompt {}", i + 1),
        };
        let tokens: Vec<&Candidate> = prediction.answers.iter().flat_map(|a| &a.tokens).collect();
        let s = if tokens.len() == 1 { "" } else { "s" };
        let title = format!("performance on answer token{s}{of}");
        write!(out, "{}", top_tables(&[(&*title, &tokens[..])]))?;
        for answer in prediction.answers.iter().filter(|a| a.tokens.len() > 1) {
            writeln!(
                out,
                "all of {}: probability {:.4}, log probability {:.4}",
                quoted(&answer.text),
                answer.log_prob.exp(),
                answer.log_prob
            )?;
        }
        for other in prediction.answers.iter().skip(1) {
            if let ([a], [b]) = (&first.tokens[..], &other.tokens[..]) {
                writeln!(
                    out,
                    "logit({}) − logit({}) = {:+.4}",
                    quoted(&a.token),
                    quoted(&b.token),
                    a.logit - b.logit
                )?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
