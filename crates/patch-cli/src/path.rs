//! `patch-cli path`: path patching, to see which head talks to which.

use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use clap::ValueEnum;
use patching::path::{HeadInput, PathPatching, Receivers};
use patching::prompts::{Average, Part, average};
use patching::{Direction, Head, Watch};
use serde::Serialize;

use crate::common::{ModelArgs, terminal_style};
use crate::export::{AxisLabels, Draw, ExportArgs, Grid, MadeHere, Provenance, Study};
use crate::failure::Failure;
use crate::figure::{FigureArgs, write_picture};
use crate::metric::{MetricArgs, MetricKind, MetricReport};
use crate::output::Output;
use crate::pairs::{PairArgs, PairReport, ReadyPair, SetArgs};
use crate::render::write_figure;
use crate::running::{EngineArgs, EngineKind, Interrupt, progress_bar};

const EXAMPLES: &str = "\
Examples:
  patch-cli path --to logits
  patch-cli path --to v --receivers 8.1,9.1 --pos end --out values.svg
  patch-cli path --prompt-set ioi --count 20 --through-mlps";

/// Arguments of `path`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What of each head is the other run's
    #[arg(long, value_enum, default_value_t)]
    from: Sent,

    /// Who hears it: the logits, or the queries, keys or values of --receivers
    #[arg(long, value_enum, default_value_t)]
    to: Reader,

    /// Heads that hear it, such as 8.6,8.10
    #[arg(long, value_name = "LAYER.HEAD,…", value_delimiter = ',')]
    receivers: Vec<Head>,

    /// The one position at which each head's z is the other run's: a number, or end for the last
    /// [default: all]
    #[arg(long, value_name = "N|end")]
    pos: Option<Position>,

    /// Let MLPs on the way hear it and pass it on, as the paper has it, instead of freezing them
    #[arg(long)]
    through_mlps: bool,

    #[command(flatten)]
    pair: PairArgs,

    #[command(flatten)]
    metric: MetricArgs,

    #[command(flatten)]
    engine: EngineArgs,

    /// How many of the strongest senders to list
    #[arg(long, value_name = "K", default_value_t = 10)]
    top: usize,

    /// Where to put the picture (.png or .svg)
    #[arg(long, value_name = "FILE", default_value = "path.png")]
    out: PathBuf,

    #[command(flatten)]
    set: SetArgs,

    #[command(flatten)]
    figure: FigureArgs,

    #[command(flatten)]
    export: ExportArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// What a sender's change can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Sent {
    /// What it has gathered, before it is written to the residual stream
    #[default]
    Z,
}

/// Who can hear a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Reader {
    #[default]
    Logits,
    /// Queries of --receivers
    Q,
    /// Keys of --receivers
    K,
    /// Values of --receivers
    V,
}

/// A position in prompts of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    At(usize),
    End,
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("end", _) => Ok(Self::End),
            (_, Ok(pos)) => Ok(Self::At(pos)),
            _ => Err("give the number of a position, from 0, or end".to_owned()),
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    bos: bool,
    direction: String,
    from: Sent,
    to: Reader,
    receivers: Vec<String>,
    /// A number, "end", or null for all.
    pos: Option<serde_json::Value>,
    through_mlps: bool,
    metric: MetricReport,
    engine: EngineKind,
    /// Of one pair its own; of many the mean.
    clean_metric: f32,
    corrupted_metric: f32,
    pairs: Vec<PairReport<'a>>,
    seconds: Seconds,
    image: String,
    #[serde(flatten)]
    study: &'a Study,
}

/// How long each part took, in seconds; `total` counts from the start of the process.
#[derive(Serialize)]
struct Seconds {
    load: f64,
    path: f64,
    total: f64,
}

/// What path patching of one pair came to.
struct Done {
    /// How far each sender moves the metric from the base's.
    changes: patching::Grid,
    /// The metric of the clean and of the corrupted run.
    unpatched: [f32; 2],
}

/// Patches the paths, prints what came out and draws the picture.
pub fn run(args: &Args, start: Instant) -> Result<(), Failure> {
    let output = Output::picture(&args.out)?;
    let options = args.figure.options()?;
    let receivers = args.receivers()?;
    let many = args.set.is_asked_for();
    let model = args.model.load()?;
    let pairs = args
        .pair
        .ready(Some(&args.set), &args.metric, &args.model, &model)?;
    let n_grids = match many {
        false => 1,
        true => 3 + pairs.len(), // mean, low, high and each pair
    };
    let exports = args.export.prepare(n_grids)?;
    let all_ids: Vec<u32> = pairs.iter().flat_map(ReadyPair::ids).collect();
    args.model.warn_of_unknown_tokens(&model, &all_ids);
    let paths = |pair: &ReadyPair| PathPatching {
        receivers: receivers.clone(),
        pos: args.pos.map(|pos| match pos {
            Position::At(pos) => pos,
            Position::End => pair.experiment().n_tokens() - 1,
        }),
        through_mlps: args.through_mlps,
    };
    for pair in &pairs {
        paths(pair).check(&model.model, pair.experiment())?;
    }
    let provenance = args.provenance(&model, &pairs)?;
    let load = start.elapsed().as_secs_f64();

    let before = Instant::now();
    let interrupt = Interrupt::listen()?;
    let n_senders = model.model.config.n_layer * model.model.config.n_head;
    let (bar, progress) = progress_bar(pairs.len(), pairs.len() * n_senders);
    let watch = Watch {
        progress: &progress,
        stop: interrupt.flag(),
    };
    let mut done = Vec::new();
    for pair in &pairs {
        let (metric, engine) = (pair.metric.metric, args.engine.engine());
        let outcome = paths(pair).run(&model.model, pair.experiment(), metric, engine, watch)?;
        if !outcome.complete {
            bar.finish_and_clear();
            return Err(Failure::Stopped("stopped: nothing was written".to_owned()));
        }
        done.push(args.changes(pair, outcome)?);
    }
    bar.finish_and_clear();
    let path_seconds = before.elapsed().as_secs_f64();

    let (shown, exported) = args.studies(&pairs, &done, provenance)?;
    let figure = shown.figure()?;
    exports.write(&exported)?;
    write_picture(&figure, &options, &output, &shown.provenance)?;

    let mean = |i: usize| done.iter().map(|d| d.unpatched[i]).sum::<f32>() / done.len() as f32;
    let (clean_metric, corrupted_metric) = (mean(0), mean(1));
    if args.model.json {
        let report = Report {
            model: &model.name,
            bos: args.model.bos,
            direction: args.pair.direction.to_string(),
            from: args.from,
            to: args.to,
            receivers: args.receivers.iter().map(Head::to_string).collect(),
            pos: args.pos.map(|pos| match pos {
                Position::At(pos) => pos.into(),
                Position::End => "end".into(),
            }),
            through_mlps: args.through_mlps,
            metric: pairs[0].metric.report(),
            engine: args.engine.engine,
            clean_metric,
            corrupted_metric,
            pairs: pairs
                .iter()
                .zip(&done)
                .map(|(pair, done)| PairReport {
                    line: pair.pair.line,
                    clean: &pair.clean,
                    corrupted: &pair.corrupted,
                    a: pair.metric.a.as_deref(),
                    b: pair.metric.b.as_deref(),
                    clean_metric: done.unpatched[0],
                    corrupted_metric: done.unpatched[1],
                })
                .collect(),
            seconds: Seconds {
                load,
                path: path_seconds,
                total: start.elapsed().as_secs_f64(),
            },
            image: output.path().display().to_string(),
            study: &exported,
        };
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
        return Ok(());
    }

    let mut out = anstream::AutoStream::auto(io::stdout()).lock();
    if many {
        writeln!(out, "{} pairs, the first of which is", pairs.len())?;
    }
    let (clean, corrupted) = (pairs[0].clean.row(), pairs[0].corrupted.row());
    writeln!(out, "clean      {clean}\ncorrupted  {corrupted}\n")?;
    writeln!(out, "path       {}, {}", args.path(), args.pair.direction)?;
    writeln!(out, "metric     {}", args.label(&pairs[0]))?;
    writeln!(out, "clean      {clean_metric:+.4}")?;
    writeln!(out, "corrupted  {corrupted_metric:+.4}\n")?;
    let in_terminal = options.applied(&figure.without_subtitle());
    write_figure(&mut out, &in_terminal, terminal_style())?;
    let intervals = match &exported.grids[..] {
        [_, low, high, ..] if many => Some([&low.values[..], &high.values]),
        _ => None,
    };
    let n_head = model.model.config.n_head;
    write_strongest(
        &mut out,
        &shown.grids[0].values,
        intervals,
        n_head,
        args.top,
    )?;
    let each = match many {
        true => format!(" for each of {} pairs", pairs.len()),
        false => String::new(),
    };
    writeln!(
        out,
        "\n{n_senders} senders{each} in {path_seconds:.2} s; {:.2} s from start to end\nwrote {}",
        start.elapsed().as_secs_f64(),
        output.path().display()
    )?;
    for path in exports.paths() {
        writeln!(out, "wrote {}", path.display())?;
    }
    Ok(())
}

impl Args {
    fn receivers(&self) -> Result<Receivers, Failure> {
        let input = match self.to {
            Reader::Logits if self.receivers.is_empty() => return Ok(Receivers::Logits),
            Reader::Logits => {
                return Err(Failure::Input(
                    "--receivers are heads, and --to logits is none of their inputs: leave one of the \
                     two out, or give --to q, k or v"
                        .to_owned(),
                ));
            }
            Reader::Q => HeadInput::Q,
            Reader::K => HeadInput::K,
            Reader::V => HeadInput::V,
        };
        if self.receivers.is_empty() {
            return Err(Failure::Input(format!(
                "--to {input} needs the heads that it is the input of: --receivers 8.6,8.10"
            )));
        }
        Ok(Receivers::Heads(input, self.receivers.clone()))
    }

    /// How far each sender moves the metric of one pair; of the normalised metric, as a share of what
    /// lies between the clean and the corrupted run.
    fn changes(&self, pair: &ReadyPair, outcome: patching::path::Outcome) -> Result<Done, Failure> {
        let (clean, corrupted) = (outcome.clean_metric, outcome.corrupted_metric);
        let base = match self.pair.direction {
            Direction::Denoising => corrupted,
            Direction::Noising => clean,
        };
        let mut changes = outcome.grid;
        for value in &mut changes.values {
            *value -= base;
        }
        if pair.metric.kind != MetricKind::Normalized {
            return Ok(Done {
                changes,
                unpatched: [clean, corrupted],
            });
        }
        let unit = clean - corrupted;
        if !unit.is_finite() || unit.abs() <= 1e-4 * clean.abs().max(corrupted.abs()) {
            return Err(patching::Error::NothingToNormalize { clean, corrupted }.into());
        }
        for value in &mut changes.values {
            *value /= unit;
        }
        Ok(Done {
            changes,
            unpatched: [1.0, 0.0],
        })
    }

    /// From where to where, and how.
    fn path(&self) -> String {
        let at = match self.pos {
            Some(Position::At(pos)) => format!(" at position {pos}"),
            Some(Position::End) => " at the last position".to_owned(),
            None => String::new(),
        };
        let heads: Vec<String> = self.receivers.iter().map(Head::to_string).collect();
        let to = match self.to {
            Reader::Logits => "the logits".to_owned(),
            Reader::Q => format!("the queries of {}", heads.join(", ")),
            Reader::K => format!("the keys of {}", heads.join(", ")),
            Reader::V => format!("the values of {}", heads.join(", ")),
        };
        let through = match self.through_mlps {
            true => "through MLPs",
            false => "MLPs frozen",
        };
        format!("z of each head{at} to {to}, {through}")
    }

    /// The metric in words; of a set, where each pair has its own answers, with their columns' names.
    fn label(&self, first: &ReadyPair) -> String {
        match self.set.is_asked_for() && self.metric.logit_diff.is_none() {
            true => first.metric.general_label(),
            false => first.metric.label(),
        }
    }

    fn provenance(
        &self,
        model: &gpt2::Pretrained,
        pairs: &[ReadyPair],
    ) -> Result<Provenance, Failure> {
        let mut prompts = vec![("direction".to_owned(), self.pair.direction.to_string())];
        for pair in pairs {
            let line = match pairs.len() {
                1 => String::new(),
                _ => format!(" {}", pair.pair.line),
            };
            prompts.push((format!("clean{line}"), pair.clean.text.clone()));
            prompts.push((format!("corrupted{line}"), pair.corrupted.text.clone()));
        }
        let prompts: Vec<(&str, &str)> = prompts.iter().map(|(x, y)| (&**x, &**y)).collect();
        Provenance::new(model, &prompts, self.export.is_wanted())
    }

    /// What is drawn, and what is exported: of one pair the same; of many pairs the mean, and with it
    /// its interval and every pair.
    fn studies(
        &self,
        pairs: &[ReadyPair],
        done: &[Done],
        provenance: Provenance,
    ) -> Result<(Study, Study), Failure> {
        let base = match self.pair.direction {
            Direction::Denoising => "corrupted",
            Direction::Noising => "clean",
        };
        let name = match self.to {
            Reader::Logits => "z_to_logits",
            Reader::Q => "z_to_q",
            Reader::K => "z_to_k",
            Reader::V => "z_to_v",
        };
        let first = &pairs[0];
        let colors = format!("Blue: along this path the {base} run's metric rises; red: it falls.");
        let grid_of = |name: String, grid: &patching::Grid, label: String, more: String| Grid {
            name,
            axes: vec![
                AxisLabels::indices("layer", grid.places[0].len()),
                AxisLabels::indices("head", grid.places[1].len()),
            ],
            values: grid.values.clone(),
            value_label: format!("change of {label}"),
            center: Some(0.0),
            legend: vec![colors.clone(), more],
            ..Grid::default()
        };
        let signed = |value: f32| format!("{value:+.2}").replace('-', "−");
        let of_pair = |(pair, done): (&ReadyPair, &Done)| {
            let name = match self.set.is_asked_for() {
                true => format!("{name}, pair {}", pair.pair.line),
                false => name.to_owned(),
            };
            let [clean, corrupted] = done.unpatched.map(signed);
            let unpatched = format!("Unpatched: clean {clean}, corrupted {corrupted}.");
            grid_of(name, &done.changes, pair.metric.label(), unpatched)
        };
        let by_pair: Vec<Grid> = pairs.iter().zip(done).map(of_pair).collect();
        let model = format!("model: {}, {}", provenance.model, self.pair.direction);
        let study = |subtitle: Vec<String>, grids: Vec<Grid>| Study {
            provenance: provenance.clone(),
            title: format!("Path patching: {}", self.path()),
            subtitle,
            grids,
        };
        if !self.set.is_asked_for() {
            let subtitle = vec![
                format!("clean: {}", first.clean.text),
                format!("corrupted: {}", first.corrupted.text),
                model,
            ];
            let shown = study(subtitle, by_pair);
            return Ok((shown.clone(), shown));
        }
        let parts: Vec<Part<'_>> = pairs
            .iter()
            .zip(done)
            .map(|(pair, done)| Part::new(&pair.pair, &done.changes))
            .collect();
        let Average {
            mean, low, high, ..
        } = average(&parts, self.set.align(), self.set.bootstrap())?;
        let subtitle = vec![
            format!(
                "mean over {} pairs, the first: {}",
                pairs.len(),
                first.clean.text
            ),
            model,
        ];
        let of_mean = |suffix: &str, grid: &patching::Grid| {
            let over = format!("Mean over {} pairs.", pairs.len());
            grid_of(format!("{name}{suffix}"), grid, self.label(first), over)
        };
        let mean = of_mean("", &mean);
        let intervals = vec![of_mean(", low", &low), of_mean(", high", &high)];
        let all = [vec![mean.clone()], intervals, by_pair].concat();
        Ok((study(subtitle.clone(), vec![mean]), study(subtitle, all)))
    }
}

/// The senders with the largest changes, those with none left out; of many pairs with the interval of
/// 95 %.
fn write_strongest(
    out: &mut impl Write,
    changes: &[f32],
    intervals: Option<[&[f32]; 2]>,
    n_head: usize,
    top: usize,
) -> io::Result<()> {
    let mut order: Vec<usize> = (0..changes.len()).filter(|&i| changes[i] != 0.0).collect();
    order.sort_by(|&i, &j| changes[j].abs().total_cmp(&changes[i].abs()));
    order.truncate(top);
    if order.is_empty() {
        return Ok(());
    }
    let columns = match intervals {
        Some(_) => "  head     change   95 % interval",
        None => "  head     change",
    };
    writeln!(out, "\nstrongest senders\n{columns}")?;
    for i in order {
        let head = Head {
            layer: i / n_head,
            head: i % n_head,
        };
        write!(out, "{head:>6}  {:>+9.4}", changes[i])?;
        match intervals {
            Some([low, high]) => writeln!(out, "   {:+.4} to {:+.4}", low[i], high[i])?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}
