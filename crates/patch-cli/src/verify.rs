//! `patch-cli verify`: whether a model's numbers are what they must be.
//!
//! Some things hold for every model: they are checked on the one that is given. Of GPT-2 small much
//! is published, and [`published`] lists it: with the real weights, each line shows that this program
//! computes the published number.
//!
//! Which weights are GPT-2 small's? A fine-tuned model has the same sizes, and a program that knew
//! the file's checksum would refuse the same weights saved anew. So the name decides: the model is
//! called gpt2, or `--as gpt2` says that it is; and the sizes must then be GPT-2 small's.

mod blocks;
mod published;

use std::collections::HashMap;
use std::io::{self, Write};

use gpt2::generate::{check_logits, rank};
use gpt2::locate::DEFAULT;
use gpt2::tokenizer::END_OF_TEXT;
use gpt2::{Config, Gpt2, Pretrained, Sampling, Site, no_hook};
use lens::composition::{k_composition_circuit, top1_accuracy};
use lens::heads::{RepeatedTokens, repeat_study};
use lens::ioi;
use lens::processing::{Flags, process};
use patching::{Direction, Experiment, Metric, Patch, SiteKind, Sweep, Watch, incremental, plain};
use serde::Serialize;
use tensor::Tensor;
use unicode_width::UnicodeWidthStr;
use visible::visible_line;

use self::blocks::check_blocks;
use self::published::{Figure, NextToken, RepeatFigure, Repeated};
use crate::common::ModelArgs;
use crate::failure::Failure;
use crate::screen;
use crate::study::Vocab;
use report::{pad, quoted};

const EXAMPLES: &str = "\
Examples:
  patch-cli verify
  patch-cli verify --model my-weights/ --as gpt2";

/// Arguments of `verify`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Check these weights against what is published of this model, whatever they are called
    #[arg(long = "as", value_name = "NAME", value_parser = [DEFAULT])]
    published: Option<String>,

    #[command(flatten)]
    model: ModelArgs,
}

/// The names under which GPT-2 small is asked for.
const GPT2_NAMES: [&str; 2] = [DEFAULT, "openai-community/gpt2"];

/// The sizes of GPT-2 small.
const GPT2_SIZES: Config = Config::GPT2;

/// One thing that was checked.
#[derive(Debug, Serialize)]
struct Line {
    /// What it belongs to: a prompt, or "every model".
    group: String,
    check: String,
    expected: String,
    got: String,
    /// `got` minus `expected`, of numbers.
    difference: Option<f64>,
    /// The largest difference that passes.
    tolerance: Option<f64>,
    pass: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    /// Whether the published numbers of GPT-2 small were checked.
    published: bool,
    pass: bool,
    lines: &'a [Line],
}

/// Checks the model, and prints a line for each check.
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.model.bos || args.model.ids {
        let message =
            "verify puts <|endoftext|> in front where the published runs had it: leave out --bos and --ids";
        return Err(Failure::Input(message.to_owned()));
    }
    let model = args.model.load()?;
    let published = is_gpt2(&model, args.published.is_some())?;
    let mut lines = Lines::new(!args.model.json);
    lines.start(&model)?;
    check_any_model(&model, &mut lines)?;
    if published {
        check_gpt2(&model, &mut lines)?;
    }
    let lines = lines.done;
    let failed = lines.iter().filter(|line| !line.pass).count();

    if args.model.json {
        let report = Report { model: &model.name, published, pass: failed == 0, lines: &lines };
        screen::print_json(&report)?;
    } else {
        let mut out = screen::stdout();
        writeln!(out, "\n{} of {} pass", lines.len() - failed, lines.len())?;
        if !published && has_gpt2_sizes(&model) {
            writeln!(
                out,
                "These weights have GPT-2 small's sizes. If they are GPT-2 small's, --as gpt2 checks its \
                 published numbers too."
            )?;
        }
    }
    verdict(failed, lines.len(), published)
}

/// The run fails if a line does.
fn verdict(failed: usize, total: usize, published: bool) -> Result<(), Failure> {
    if failed == 0 {
        return Ok(());
    }
    let reason = if published {
        "the weights are not those of GPT-2 small, or this program computes something else"
    } else {
        "this program computes something else than it should, or the weights are out of all measure"
    };
    Err(Failure::Other(format!("{failed} of {total} checks failed: {reason}")))
}

/// Whether what is published of GPT-2 small is to hold for this model.
fn is_gpt2(model: &Pretrained, said_so: bool) -> Result<bool, Failure> {
    if !said_so && !GPT2_NAMES.contains(&model.name.as_str()) {
        return Ok(false);
    }
    if has_gpt2_sizes(model) {
        return Ok(true);
    }
    let sizes = |config: &Config| {
        let Config { vocab_size, block_size, n_layer, n_head, n_embd, .. } = config;
        format!(
            "{n_layer} layers, {n_head} heads, width {n_embd}, {block_size} positions, {vocab_size} tokens"
        )
    };
    Err(Failure::Input(format!(
        "{} has {}, and GPT-2 small has {}: what is published of GPT-2 small cannot hold for it. Give it \
         by its path and without --as to check the rest",
        place(model),
        sizes(&model.model.config),
        sizes(&GPT2_SIZES)
    )))
}

fn has_gpt2_sizes(model: &Pretrained) -> bool {
    let config = model.model.config;
    // What may be written out or left out.
    let written_out = Config {
        n_inner: config.n_inner.filter(|n| *n != 4 * config.n_embd),
        tie_word_embeddings: None,
        ..config
    };
    written_out == GPT2_SIZES
}

/// Where the weights are from.
fn place(model: &Pretrained) -> String {
    match &model.path {
        Some(path) => path.display().to_string(),
        None => format!("{}, which is built in", model.name),
    }
}

/// The main job's clean prompt; for a model without a tokenizer some tokens that differ.
fn some_prompt(model: &Pretrained) -> Result<Vec<u32>, Failure> {
    if model.tokenizer.n_tokens() > 0 {
        return Ok(model.tokenizer.encode(published::MAIN_PROMPT)?);
    }
    let vocab_size = model.model.config.vocab_size as u32;
    Ok((0..11).map(|i| (7 * i + 1) % vocab_size).collect())
}

/// What holds for every model, on the main job's clean prompt.
fn check_any_model(model: &Pretrained, lines: &mut Lines) -> Result<(), Failure> {
    let mut ids = some_prompt(model)?;
    ids.truncate(model.model.config.block_size);
    // Of anything else no difference can be told.
    check_logits(&model.model.next_token_logits(&ids, &mut no_hook), ids.len())?;
    lines.group("every model")?;
    let sum = attention_sum_farthest_from_1(model, &ids);
    lines.add("attention rows sum to", Check::number("1", sum, 1e-5))?;
    let gap = residual_gap(model, &ids);
    lines.add("residual stream − sum of all writes", Check::number("0", gap, 1e-5))?;
    let changed = logits_changed_by_itself(model, &ids);
    lines.add("logits changed by patching with itself", Check::text("0", changed.to_string()))?;
    if let Some(difference) = difference_of_engines(model, &ids) {
        lines.add("incremental engine − plain engine", Check::number("0", difference, 2e-3))?;
    }
    Ok(())
}

/// The largest difference of a logit difference between the two engines, over some patches of every
/// site. None for a model so small that no two prompts differ.
fn difference_of_engines(model: &Pretrained, ids: &[u32]) -> Option<f64> {
    const OF_EACH_SITE: usize = 3;
    let mut other = ids.to_vec();
    let changed = other.get_mut(1)?;
    *changed = if *changed == 0 { 1 } else { 0 };
    let direction = Direction::Denoising;
    let experiment = Experiment::new(&model.model, ids.to_vec(), other, direction).ok()?;
    let patches: Vec<Patch> = SiteKind::PATCHABLE
        .into_iter()
        .flat_map(|site| {
            let patches = Sweep::over(&experiment, site).patches(&model.model);
            // From the front, the middle and the end of the sweep.
            let step = patches.len().div_ceil(OF_EACH_SITE).max(1);
            patches.into_iter().skip(1).step_by(step)
        })
        .collect();
    let metric = Metric::LogitDiff { a: &ids[..1], b: &ids[1..2] };
    let quiet = Watch::NOBODY;
    let plain = plain::run(&model.model, &experiment, &patches, metric, quiet).values;
    let memory = 1 << 30;
    let fast = incremental::run(&model.model, &experiment, &patches, metric, memory, quiet).values;
    let difference = |(x, y): (&f32, &f32)| f64::from((x - y).abs());
    Some(fast.iter().flatten().zip(plain.iter().flatten()).map(difference).fold(0.0, larger))
}

/// The larger of two numbers; NaN, if one of them is NaN.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b <= a { a } else { b }
}

/// Of all rows of all attention patterns, the sum that is farthest from 1.
fn attention_sum_farthest_from_1(model: &Pretrained, ids: &[u32]) -> f64 {
    let mut farthest = 1.0_f64;
    model.model.next_token_logits(ids, &mut |site, x| {
        if matches!(site.kind, SiteKind::Pattern) {
            for row in 0..x.n_rows() {
                let sum: f64 = x.row(row).iter().copied().map(f64::from).sum();
                // NaN is the farthest of all.
                if (sum - 1.0).abs() <= (farthest - 1.0).abs() || farthest.is_nan() {
                    continue;
                }
                farthest = sum;
            }
        }
    });
    farthest
}

/// The largest difference between the residual stream and the sum of what was written into it until
/// then (embeddings, every head, the biases of attention, every MLP), over all layers and positions,
/// as a share of the stream's largest number.
fn residual_gap(model: &Pretrained, ids: &[u32]) -> f64 {
    let width = model.model.config.n_embd;
    let mut sum = vec![0.0_f64; ids.len() * width];
    let mut gap = 0.0_f64;
    model.model.next_token_logits(ids, &mut |site, x| match site.kind {
        SiteKind::Embed | SiteKind::PosEmbed | SiteKind::MlpOut => {
            for (sum, x) in sum.iter_mut().zip(x.data()) {
                *sum += f64::from(*x);
            }
        }
        // (T, n_head, C): what each head writes, without the bias.
        SiteKind::Result => {
            let [_, n_head, _] = x.dims();
            let bias = model.model.h[site.layer].attn.c_proj.bias.data();
            for (pos, sum) in sum.chunks_exact_mut(width).enumerate() {
                for (i, sum) in sum.iter_mut().enumerate() {
                    let heads = (0..n_head).map(|head| f64::from(x.row(pos * n_head + head)[i]));
                    *sum += heads.sum::<f64>() + f64::from(bias[i]);
                }
            }
        }
        SiteKind::ResidMid | SiteKind::ResidPost => {
            let largest = |values: &mut dyn Iterator<Item = f64>| values.map(f64::abs).fold(0.0, larger);
            let scale = largest(&mut x.data().iter().copied().map(f64::from));
            let pairs = sum.iter().zip(x.data());
            let here = largest(&mut pairs.map(|(sum, x)| f64::from(*x) - sum));
            let share = here / scale.max(f64::MIN_POSITIVE);
            gap = larger(gap, share);
        }
        _ => {}
    });
    gap
}

/// How many logits change a bit when every activation of a kind is overwritten with itself, over
/// all kinds.
fn logits_changed_by_itself(model: &Pretrained, ids: &[u32]) -> usize {
    let mut cache: HashMap<Site, Tensor> = HashMap::new();
    let logits = model.model.next_token_logits(ids, &mut |site, x| drop(cache.insert(site, x.clone())));
    let layers = 0..model.model.config.n_layer;
    let changed_by = |kind: SiteKind| {
        let patches: HashMap<Site, Patch> =
            layers.clone().map(|layer| (kind.at(layer), Patch::whole(kind, layer))).collect();
        let patched = model.model.next_token_logits(ids, &mut |site, x| {
            if let (Some(patch), Some(own)) = (patches.get(&site), cache.get(&site)) {
                patch.apply(own, x);
            }
        });
        let pairs = logits.iter().zip(&patched);
        pairs.filter(|(a, b)| a.to_bits() != b.to_bits()).count()
    };
    SiteKind::PATCHABLE.into_iter().map(changed_by).sum()
}

/// What is published of GPT-2 small.
fn check_gpt2(model: &Pretrained, lines: &mut Lines) -> Result<(), Failure> {
    for case in &published::NEXT_TOKEN {
        check_next_token(model, case, lines)?;
    }
    let mut mean = 0.0;
    for case in &published::INDIRECT_OBJECTS {
        let differences = check_next_token(model, case, lines)?;
        mean += differences / published::INDIRECT_OBJECTS.len() as f64;
    }
    lines.group("these eight prompts")?;
    let check = Check::figure(published::INDIRECT_OBJECTS_MEAN, mean);
    lines.add("mean logit difference", check)?;

    let [start, expected] = published::GREEDY_TEXT;
    let length = model.tokenizer.encode(expected)?.len();
    let written = write_on(model, &model.tokenizer.encode(start)?, length)?;
    let got = model.tokenizer.decode(&written);
    lines.group(&format!("{} goes on, greedily", quoted(start)))?;
    lines.add("text", Check::text(expected, got))?;

    let (start, expected) = published::GREEDY_IDS;
    let written = write_on(model, start, expected.len())?;
    lines.group(&format!("the tokens {} go on, greedily", row(start)))?;
    lines.add("ids", Check::text(&row(expected), row(&written)))?;

    for case in &published::REPEATED {
        check_repeated(model, case, lines)?;
    }
    let processed = process(&model.model, Flags::DEFAULT);
    let (previous, induction, figure) = published::INDUCTION_CIRCUIT;
    check_circuit(&processed, previous, induction, figure, lines)?;
    check_head_shares(model, &processed, &published::HEAD_SHARES, lines)?;
    check_blocks(model, &processed, &published::BLOCKS, lines)
}

/// Checks what is published of random tokens twice over.
fn check_repeated(model: &Pretrained, case: &Repeated, lines: &mut Lines) -> Result<(), Failure> {
    let Repeated { seq_len, bos, batch, figures } = case;
    let (tokens, _) = Vocab::tokens(None, model)?;
    let prompts =
        RepeatedTokens::draw(&model.model, &tokens, *seq_len, bos.then_some(END_OF_TEXT), *batch, 0)?;
    let study = repeat_study(&model.model, &prompts)?;
    let in_front = if *bos { "<|endoftext|> and " } else { "" };
    lines.group(&format!("{in_front}{seq_len} random tokens twice over"))?;
    let copies = ["first", "second"];
    for figure in *figures {
        let (name, figure, got, spread) = match *figure {
            RepeatFigure::Score { name, head: (layer, head), figure, spread } => {
                let grids = study.scores.all();
                let grid = grids.into_iter().find(|(found, _)| *found == name);
                // A name that is not there passes with nothing.
                let got = grid.map_or(f32::NAN, |(_, grid)| grid.row(layer)[head]);
                let name = format!("{name} score of head {layer}.{head}");
                (name, figure, got, spread)
            }
            RepeatFigure::LogProb(copy, figure, spread) => {
                let name = format!("mean log probability, {} copy", copies[copy]);
                (name, figure, study.mean_log_prob[copy], spread)
            }
            RepeatFigure::Accuracy(copy, figure, spread) => {
                let name = format!("accuracy, {} copy", copies[copy]);
                (name, figure, study.accuracy[copy], spread)
            }
        };
        let check = Check::number(figure, f64::from(got), spread);
        lines.add(&name, check)?;
    }
    Ok(())
}

/// Checks what is published of an induction circuit.
fn check_circuit(
    model: &Gpt2,
    previous: (usize, usize),
    induction: (usize, usize),
    figure: &str,
    lines: &mut Lines,
) -> Result<(), Failure> {
    let circuit = k_composition_circuit(model, previous, induction, None)?;
    let name = |(layer, head): (usize, usize)| format!("{layer}.{head}");
    lines.group(&format!("induction circuit of {} and {}", name(previous), name(induction)))?;
    let check = Check::figure(figure, f64::from(top1_accuracy(&circuit)));
    lines.add("tokens that find their own copy", check)
}

/// Checks which share of the indirect objects' mean logit difference is published of heads.
fn check_head_shares(
    model: &Pretrained,
    processed: &Gpt2,
    shares: &[((usize, usize), &str)],
    lines: &mut Lines,
) -> Result<(), Failure> {
    let table = ioi::table(processed, &model.tokenizer, Some(END_OF_TEXT))?;
    let mean = ioi::mean_attribution(processed, &table)?;
    lines.group("heads' shares in the mean of the eight logit differences")?;
    for ((layer, head), figure) in shares {
        // Sums of hundreds of terms of both signs: rounding reaches the fourth decimal.
        let got = f64::from(mean.heads.row(*layer)[*head]);
        lines.add(&format!("head {layer}.{head}"), Check::number(figure, got, 1e-3))?;
    }
    Ok(())
}

/// Checks what is published of a prompt's next token. Gives the sum of the logit differences.
fn check_next_token(model: &Pretrained, case: &NextToken, lines: &mut Lines) -> Result<f64, Failure> {
    let NextToken { prompt, bos, figures } = case;
    let end_of_text = bos.then_some(END_OF_TEXT).into_iter();
    let ids: Vec<u32> = end_of_text.chain(model.tokenizer.encode(prompt)?).collect();
    let logits = model.model.next_token_logits(&ids, &mut no_hook);
    let next = Next::new(&logits);
    let in_front = if *bos { "<|endoftext|>" } else { "" };
    lines.group(&format!("after {}", quoted(&format!("{in_front}{prompt}"))))?;
    let id = |token: &str| model.tokenizer.to_single_token(token);
    let mut differences = 0.0;
    for figure in *figures {
        match *figure {
            Figure::Logit(token, figure) => {
                let check = Check::figure(figure, next.centred(id(token)?));
                lines.add(&format!("logit {} − mean", quoted(token)), check)?;
            }
            Figure::Percent(token, figure) => {
                let check = Check::figure(figure, 100.0 * next.prob(id(token)?));
                lines.add(&format!("probability {} in %", quoted(token)), check)?;
            }
            Figure::Prob(token, figure) => {
                let check = Check::figure(figure, next.prob(id(token)?));
                lines.add(&format!("probability {}", quoted(token)), check)?;
            }
            Figure::LogitDiff([a, b], figure) => {
                let difference = next.centred(id(a)?) - next.centred(id(b)?);
                differences += difference;
                let name = format!("logit {} − logit {}", quoted(a), quoted(b));
                lines.add(&name, Check::figure(figure, difference))?;
            }
            Figure::MostLikely(token) => {
                let got: Vec<String> =
                    rank(&logits, 1).into_iter().map(|id| quoted(&model.tokenizer.token(id))).collect();
                lines.add("most likely", Check::text(&quoted(token), got.concat()))?;
            }
            Figure::NoOtherAmong(count) => {
                let mut named = Vec::new();
                for figure in *figures {
                    if let Figure::Prob(token, _) = figure {
                        named.push(id(token)?);
                    }
                }
                let others: Vec<String> = rank(&logits, count)
                    .into_iter()
                    .filter(|id| !named.contains(id))
                    .map(|id| quoted(&model.tokenizer.token(id)))
                    .collect();
                let got = match others.is_empty() {
                    true => "none".to_owned(),
                    false => others.join(" "),
                };
                let name = format!("others among the {count} most likely");
                lines.add(&name, Check::text("none", got))?;
            }
        }
    }
    Ok(differences)
}

/// The logits of the next token, for looking up one.
struct Next<'a> {
    logits: &'a [f32],
    mean: f64,
    log_sum_exp: f64,
}

impl<'a> Next<'a> {
    fn new(logits: &'a [f32]) -> Self {
        let sum: f64 = logits.iter().copied().map(f64::from).sum();
        Self { logits, mean: sum / logits.len() as f64, log_sum_exp: tensor::log_sum_exp(logits) }
    }

    /// The logit above the mean of all: what TransformerLens has after centring the unembedding.
    fn centred(&self, id: u32) -> f64 {
        f64::from(self.logits[id as usize]) - self.mean
    }

    fn prob(&self, id: u32) -> f64 {
        (f64::from(self.logits[id as usize]) - self.log_sum_exp).exp()
    }
}

/// What greedy sampling writes after the ids.
fn write_on(model: &Pretrained, ids: &[u32], count: usize) -> Result<Vec<u32>, Failure> {
    let end = Some(END_OF_TEXT);
    let mut all = model.model.generate(ids, count, Sampling::GREEDY, end)?;
    Ok(all.split_off(ids.len()))
}

fn row(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(" ")
}

/// What was expected, what came, and whether that passes.
struct Check {
    expected: String,
    got: String,
    difference: Option<f64>,
    tolerance: Option<f64>,
    pass: bool,
}

impl Check {
    /// A number as it was published, which holds to 0.6 of its last digit.
    fn figure(expected: &str, got: f64) -> Self {
        let decimals = expected.split_once('.').map_or(0, |(_, digits)| digits.len());
        let tolerance = 0.6 * 10_f64.powi(-(decimals as i32));
        let mut check = Self::number(expected, got, tolerance);
        check.got = format!("{got:.*}", decimals + 2);
        check
    }

    /// A number with the largest difference that passes.
    fn number(expected: &str, got: f64, tolerance: f64) -> Self {
        // A published figure that is not a number never passes.
        let difference = got - expected.parse().unwrap_or(f64::NAN);
        Self {
            expected: expected.to_owned(),
            got: match got {
                small if small != 0.0 && small.abs() < 1e-3 => format!("{small:.1e}"),
                other => format!("{other:.7}"),
            },
            difference: Some(difference),
            tolerance: Some(tolerance),
            pass: difference.abs() <= tolerance,
        }
    }

    /// Words or ids, which must be the same.
    fn text(expected: &str, got: String) -> Self {
        Self { expected: expected.to_owned(), pass: expected == got, got, difference: None, tolerance: None }
    }
}

/// The lines so far; each is printed as soon as it is known, unless all come as JSON in the end.
struct Lines {
    print: bool,
    group: String,
    done: Vec<Line>,
}

/// The width of the first column, and of the numbers' columns.
const COLUMNS: [usize; 2] = [42, 10];

impl Lines {
    fn new(print: bool) -> Self {
        Self { print, group: String::new(), done: Vec::new() }
    }

    fn start(&self, model: &Pretrained) -> io::Result<()> {
        if !self.print {
            return Ok(());
        }
        let [width, column] = COLUMNS;
        let mut out = screen::stdout();
        writeln!(out, "model {} ({})\n", model.name, place(model))?;
        writeln!(out, "{:width$}  {:>column$}  {:>column$}  {:>column$}", "", "expected", "got", "difference")
    }

    fn group(&mut self, name: &str) -> io::Result<()> {
        self.group = name.to_owned();
        if !self.print {
            return Ok(());
        }
        writeln!(screen::stdout(), "{name}")
    }

    fn add(&mut self, name: &str, check: Check) -> Result<(), Failure> {
        let Check { expected, got, difference, tolerance, pass } = check;
        let line = Line {
            group: self.group.clone(),
            check: name.to_owned(),
            expected,
            got,
            difference,
            tolerance,
            pass,
        };
        if self.print {
            write_line(screen::stdout().as_it_is(), &line)?;
        }
        self.done.push(line);
        Ok(())
    }
}

fn write_line(out: &mut impl Write, line: &Line) -> io::Result<()> {
    let [width, column] = COLUMNS;
    let verdict = verdict_word(line.pass);
    let name = pad(&format!("  {}", line.check), width);
    let [expected, got] = [&line.expected, &line.got].map(|text| visible_line(text));
    if expected.width().max(got.width()) > column {
        let blank = " ".repeat(3 * (column + 2));
        writeln!(out, "{name}{blank}  {verdict}")?;
        return writeln!(out, "    expected  {expected}\n    got       {got}");
    }
    let difference = match line.difference {
        Some(0.0) => "0".to_owned(),
        Some(difference) if difference.abs() < 1e-3 => format!("{difference:+.1e}"),
        Some(difference) => format!("{difference:+.4}"),
        None => String::new(),
    };
    writeln!(out, "{name}  {expected:>column$}  {got:>column$}  {difference:>column$}  {verdict}")
}

fn verdict_word(pass: bool) -> String {
    let (word, color) = match pass {
        true => ("pass", anstyle::AnsiColor::Green),
        false => ("FAIL", anstyle::AnsiColor::Red),
    };
    let style = anstyle::Style::new().bold().fg_color(Some(color.into()));
    format!("{style}{word}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Pretrained {
        Pretrained::tiny().unwrap()
    }

    /// Checks one prompt on the tiny model.
    fn lines_of(figures: &'static [Figure]) -> Vec<Line> {
        let case = NextToken { prompt: published::MAIN_PROMPT, bos: false, figures };
        let mut lines = Lines::new(false);
        check_next_token(&tiny(), &case, &mut lines).unwrap();
        lines.done
    }

    #[test]
    fn a_figure_holds_to_its_last_printed_digit() {
        for (figure, got, pass) in [
            ("16.23", 16.2355, true),
            ("16.23", 16.2245, true),
            ("16.23", 16.2365, false),
            ("27.03", 27.02, false),
            ("3.5519", 3.55194, true),
            ("3.5519", 3.552, false),
            ("18.09", f64::NAN, false),
            ("0.1634", f64::INFINITY, false),
        ] {
            assert_eq!(Check::figure(figure, got).pass, pass, "{figure} {got}");
        }
    }

    #[test]
    fn a_right_expectation_passes_and_a_wrong_one_fails_with_exit_code_1() {
        let right = lines_of(&[
            Figure::Prob(" Jones", "0.6118"),
            Figure::Percent(" Jones", "61.18"),
            Figure::MostLikely(" Jones"),
            Figure::NoOtherAmong(1),
        ]);
        assert!(right.iter().all(|line| line.pass), "{right:?}");
        let wrong = lines_of(&[
            Figure::Prob(" Jones", "0.6120"),
            Figure::Logit(" Jones", "0.00"),
            Figure::LogitDiff([" Jones", " Smith"], "0.00"),
            Figure::MostLikely(" Smith"),
            Figure::NoOtherAmong(2),
        ]);
        assert!(wrong.iter().all(|line| !line.pass), "{wrong:?}");
        let failure = verdict(4, 7, true).unwrap_err();
        assert!(
            matches!(&failure, Failure::Other(message) if message.starts_with("4 of 7 checks failed")),
            "{failure:?}"
        );
        assert!(verdict(0, 7, true).is_ok());
    }

    #[test]
    fn a_logit_above_the_mean_is_what_transformer_lens_has_with_a_centred_unembedding() {
        // From TransformerLens with its processed weights, on the tiny model.
        let lines = lines_of(&[
            Figure::Logit(",", "28.387"),
            Figure::Logit("-", "15.218"),
            Figure::Logit(".", "21.987"),
        ]);
        assert!(lines.iter().all(|line| line.pass), "{lines:?}");
    }

    #[test]
    fn every_published_prompt_and_token_is_one_that_gpt2_can_be_asked() {
        let tiny = tiny();
        for case in published::NEXT_TOKEN.iter().chain(&published::INDIRECT_OBJECTS) {
            assert!(check_next_token(&tiny, case, &mut Lines::new(false)).is_ok());
        }
        let main = &published::NEXT_TOKEN[0];
        let id = |figure: &Figure| match figure {
            Figure::Prob(token, _) => tiny.tokenizer.to_single_token(token).unwrap(),
            _ => 0,
        };
        assert_eq!(
            main.figures.iter().map(id).collect::<Vec<_>>(),
            [
                373, 5437, 338, 550, 318, 290, 11, 531, 468, 635, 1625, 1297, 1422, 2993, 1816, 561, 3111,
                750, 2486, 2492, 0, 0
            ]
        );
    }

    #[test]
    fn figures_of_the_studies_pass_and_fail_as_they_should() {
        let tiny = tiny();
        let case = |log_prob, score, name| Repeated {
            seq_len: 20,
            bos: true,
            batch: 2,
            figures: Box::leak(Box::new([
                RepeatFigure::LogProb(1, log_prob, 0.1),
                RepeatFigure::Accuracy(1, "1.0", 0.05),
                RepeatFigure::Score { name, head: (8, 3), figure: score, spread: 0.1 },
            ])),
        };
        let processed = process(&tiny.model, Flags::DEFAULT);
        let passed = |case: Repeated, circuit: &str, share: &str| -> Vec<bool> {
            let mut lines = Lines::new(false);
            check_repeated(&tiny, &case, &mut lines).unwrap();
            check_circuit(&processed, (6, 2), (7, 1), circuit, &mut lines).unwrap();
            check_head_shares(&tiny, &processed, &[((8, 1), share)], &mut lines).unwrap();
            lines.done.iter().map(|line| line.pass).collect()
        };
        // The share is golden/studies.json's; the circuit is nothing over tokens without embedding.
        let right = passed(case("0.0", "0.93", "induction"), "0.000", "6.1314");
        assert_eq!(right, [true; 5]);
        let wrong = passed(case("-1.0", "0.5", "nonsense"), "0.2283", "6.2");
        assert_eq!(wrong, [false, true, false, false, false]);
    }

    #[test]
    fn blocks_are_checked_cell_by_cell_and_by_their_correlations() {
        let tiny = tiny();
        let set = patching::prompts::PromptSet::ioi_tutorial();
        let pairs = set.tokenize(&tiny, Some(END_OF_TEXT), Direction::Denoising).unwrap();
        let means = blocks::means(&tiny.model, &pairs, SiteKind::MlpOut).unwrap();
        // By hand, with hooked forward passes: the mean of the patched runs on the scale of the means of the unpatched.
        let (layer, pos) = (5, 10);
        let mut sums = [0.0; 3];
        for pair in &pairs {
            let metric = Metric::LogitDiff { a: &pair.a, b: &pair.b };
            let patch = [Patch { pos: Some(pos), ..Patch::whole(SiteKind::MlpOut, layer) }];
            let run = plain::run(&tiny.model, &pair.experiment, &patch, metric, Watch::NOBODY);
            let diff = |ids: &[u32]| {
                let logits = tiny.model.next_token_logits(ids, &mut no_hook);
                logits[pair.a[0] as usize] - logits[pair.b[0] as usize]
            };
            sums[0] += run.values[0].unwrap();
            sums[1] += diff(pair.experiment.clean());
            sums[2] += diff(pair.experiment.corrupted());
        }
        let by_hand = (sums[0] - sums[2]) / (sums[1] - sums[2]);
        assert!((means[0].at(&[layer, pos]) - by_hand).abs() < 1e-4);

        let figure = |value: f32| -> &'static str { Box::leak(value.to_string().into_boxed_str()) };
        let figures = [0, 1, 2].map(|i| figure(means[i].at(&[layer, pos])));
        let agreement = |i: usize| patching::Agreement::of(&means[0].values, &means[i].values).pearson as f32;
        let case = published::Blocks {
            site: SiteKind::MlpOut,
            cells: [((layer, pos), figures), ((0, 1), figures), ((layer, pos), figures)],
            pearson: [figure(agreement(1)), "-1"],
        };
        let mut lines = Lines::new(false);
        check_blocks(&tiny, &tiny.model, &[case], &mut lines).unwrap();
        let passed: Vec<bool> = lines.done.iter().map(|line| line.pass).collect();
        let (yes, no) = ([true; 3], [false; 3]);
        assert_eq!(passed, [&yes[..], &no, &yes, &[true, false]].concat());
        assert_eq!(lines.done[9].check, "Pearson's correlation, atp");
        assert_eq!(lines.done[10].check, "Pearson's correlation, relp");
    }

    #[test]
    fn a_model_that_is_called_gpt2_and_has_other_sizes_is_refused() {
        let mut model = tiny();
        assert!(matches!(is_gpt2(&model, false), Ok(false)));
        model.name = "gpt2".to_owned();
        for said_so in [false, true] {
            let Err(Failure::Input(message)) = is_gpt2(&model, said_so) else {
                panic!("accepted");
            };
            assert!(message.contains("GPT-2 small has 12 layers, 12 heads, width 768"), "{message}");
        }
    }

    #[test]
    fn what_holds_for_every_model_fails_where_it_does_not_hold() {
        let mut model = tiny();
        let ids = model.tokenizer.encode("Her name was Alex").unwrap();
        assert!(residual_gap(&model, &ids) < 1e-6);
        model.model.wpe.data_mut()[0] = f32::NAN;
        assert!(residual_gap(&model, &ids).is_nan());
        assert!(attention_sum_farthest_from_1(&model, &ids).is_nan());
    }
}
