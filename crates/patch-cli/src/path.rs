//! `patch-cli path`: path patching, to see which head talks to which.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use patching::path::{HeadInput, PathPatching, Receivers};
use patching::{Direction, Head, Watch, normalized_unit};
use serde::Serialize;

use crate::common::{ModelArgs, terminal_style};
use crate::export::{AxisLabels, Draw, ExportArgs, Grid, Provenance, Study};
use crate::failure::Failure;
use crate::figure::{FigureArgs, write_picture};
use crate::metric::{MetricArgs, MetricKind};
use crate::output::Output;
use crate::pairs::{PairArgs, Pairs, PairsReport, ReadyPair, SetArgs, unpatched_in_words};
use crate::place::Place;
use crate::render::write_figure;
use crate::report;
use crate::running::{EngineArgs, Interrupt, progress_bar};

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
    #[arg(long, value_enum, ignore_case = true, default_value_t)]
    from: Sent,

    /// Who hears it: the logits, or the queries, keys or values of --receivers
    #[arg(long, value_enum, ignore_case = true, default_value_t)]
    to: Reader,

    /// Heads that hear it, such as 8.6,8.10
    #[arg(long, value_name = "LAYER.HEAD,…", value_delimiter = ',')]
    receivers: Vec<Head>,

    /// The one position at which each head's z is the other run's: a number from 0, or from the end (-1,
    /// or end, is the last) [default: all]
    #[arg(long, value_name = "N|end", allow_hyphen_values = true)]
    pos: Option<Place>,

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

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    bos: bool,
    direction: String,
    from: Sent,
    to: Reader,
    receivers: Vec<String>,
    /// A number, "end", "-2" and so on from the end, or null for all.
    pos: Option<serde_json::Value>,
    through_mlps: bool,
    #[serde(flatten)]
    pairs: PairsReport<'a>,
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
    let model = args.model.load()?;
    let pairs = args
        .pair
        .ready(&args.set, &args.metric, &args.model, &model)?;
    let exports = args.export.prepare(pairs.n_grids(1))?;
    args.model.warn_of_unknown_tokens(&model, &pairs.ids());
    let mut paths = Vec::new();
    for pair in &pairs.list {
        let of_pair = PathPatching {
            receivers: receivers.clone(),
            pos: args.position(pair)?,
            through_mlps: args.through_mlps,
        };
        of_pair.check(&model.model, pair.experiment())?;
        paths.push(of_pair);
    }
    let provenance = pairs.provenance(&model, args.export.is_wanted())?;
    let load = start.elapsed().as_secs_f64();

    let before = Instant::now();
    let interrupt = Interrupt::listen()?;
    let n_senders = model.model.config.n_layer * model.model.config.n_head;
    let n_pairs = pairs.list.len();
    let (bar, progress) = progress_bar(n_pairs, n_pairs * n_senders);
    let watch = Watch {
        progress: &progress,
        stop: interrupt.flag(),
    };
    let mut done = Vec::new();
    for (pair, paths) in pairs.list.iter().zip(&paths) {
        let (metric, engine) = (pair.metric.metric, args.engine.engine());
        let outcome = paths.run(&model.model, pair.experiment(), metric, engine, watch)?;
        if !outcome.complete {
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

    let unpatched: Vec<[f32; 2]> = done.iter().map(|done| done.unpatched).collect();
    let pairs_report = pairs.report(&unpatched, args.engine.engine);
    if args.model.json {
        let report = Report {
            model: &model.name,
            bos: args.model.bos,
            direction: args.pair.direction.to_string(),
            from: args.from,
            to: args.to,
            receivers: args.receivers.iter().map(Head::to_string).collect(),
            pos: args.pos.map(|pos| match pos {
                Place::END => "end".into(),
                Place::FromStart(pos) => pos.into(),
                Place::FromEnd(_) => pos.to_string().into(),
            }),
            through_mlps: args.through_mlps,
            pairs: pairs_report,
            seconds: Seconds {
                load,
                path: path_seconds,
                total: start.elapsed().as_secs_f64(),
            },
            image: output.path().display().to_string(),
            study: &exported,
        };
        return report::print_json(&report);
    }

    let mut out = anstream::AutoStream::auto(io::stdout()).lock();
    if pairs.many {
        writeln!(out, "{n_pairs} pairs, the first of which is")?;
    }
    let (clean, corrupted) = (pairs.first().clean.row(), pairs.first().corrupted.row());
    writeln!(out, "clean      {clean}\ncorrupted  {corrupted}\n")?;
    writeln!(out, "path       {}, {}", args.path(), args.pair.direction)?;
    writeln!(out, "metric     {}", pairs.label)?;
    writeln!(out, "clean      {:+.4}", pairs_report.clean_metric)?;
    writeln!(out, "corrupted  {:+.4}\n", pairs_report.corrupted_metric)?;
    let in_terminal = options.applied(&figure.without_subtitle());
    write_figure(&mut out, &in_terminal, terminal_style())?;
    let intervals = match &exported.grids[..] {
        [_, low, high, ..] if pairs.many => Some([&low.values[..], &high.values]),
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
    let each = match pairs.many {
        true => format!(" for each of {n_pairs} pairs"),
        false => String::new(),
    };
    let work = format!("{n_senders} senders{each}");
    let files = [&[output.path()][..], &exports.paths()].concat();
    report::write_end(&mut out, &work, path_seconds, start, files)?;
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

    /// The one position of the senders in the prompts of a pair.
    fn position(&self, pair: &ReadyPair) -> Result<Option<usize>, Failure> {
        let of_pair = |pos: Place| pos.of(pair.experiment().n_tokens(), "position");
        let position = self.pos.map(of_pair).transpose();
        position.map_err(|failure| failure.at("--pos"))
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
        let unit = normalized_unit(clean, corrupted)?;
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
            Some(Place::END) => " at the last position".to_owned(),
            Some(pos) => format!(" at position {pos}"),
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

    /// What is drawn, and what is exported.
    fn studies(
        &self,
        pairs: &Pairs,
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
        let colors = format!("Blue: along this path the {base} run's metric rises; red: it falls.");
        let words = |name: String, label: &str| Grid {
            name,
            value_label: format!("change of {label}"),
            center: Some(0.0),
            legend: vec![colors.clone()],
            ..Grid::default()
        };
        let of_pair = |(pair, done): (&ReadyPair, &Done)| {
            let places = &done.changes.places;
            let words = words(pairs.name_of_grid(name, pair), &pair.metric.label());
            Grid {
                axes: vec![
                    AxisLabels::indices("layer", places[0].len()),
                    AxisLabels::indices("head", places[1].len()),
                ],
                values: done.changes.values.clone(),
                legend: [words.legend, vec![unpatched_in_words(done.unpatched)]].concat(),
                ..words
            }
        };
        let by_pair = pairs.list.iter().zip(done).map(of_pair).collect();
        let mut averages = Vec::new();
        if pairs.many {
            let changes = done.iter().map(|done| &done.changes);
            let words = words(name.to_owned(), &pairs.label);
            averages.push(pairs.average(&self.set, changes, words)?);
        }
        let title = format!("Path patching: {}", self.path());
        Ok(pairs.studies(title, provenance, by_pair, averages))
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
