//! `patch-cli path`: path patching, to see which head talks to which.

use crate::figure::FigureArgs;
use crate::study::{Outputs, PICTURE, Work};
use report::{Report, pad_left};
use std::path::PathBuf;
use std::time::Instant;

use patching::attribution::farthest;
use patching::path::{HeadInput, PathPatching, Reader, Receivers, Senders};
use patching::{Endpoints, Scale, Watch};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::common::ModelArgs;
use crate::export::{ExportArgs, Grid, Provenance, Study, place_in_words};
use crate::failure::Failure;
use crate::metric::{MetricArgs, NamedMetric};
use crate::names;
use crate::output::Output;
use crate::pairs::{PairArgs, Pairs, ReadyPair, SetArgs, missing_in_words, unpatched_in_words};
use crate::place::Place;
use crate::processing::ProcessArgs;
use crate::running::{EngineArgs, Interrupt, progress_bar};
use crate::selection::axis_labels;

const EXAMPLES: &str = "\
Examples:
  patch-cli path --to logits
  patch-cli path --to v --receivers 8.1,9.1 --pos end --out values.svg
  patch-cli path --prompt-set ioi --count 20 --freeze-mlps";

/// Arguments of `path`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Sender: which activation of each head, MLP or position is taken from the other run
    #[arg(long, ignore_case = true, default_value_t, value_parser = names::senders())]
    from: Senders,

    /// Receiver: the logits; the queries, keys or values of the heads in --receivers; or the MLPs of the layers
    /// in --receivers
    #[arg(long, ignore_case = true, default_value_t, value_parser = names::readers())]
    to: Reader,

    /// The receiving heads, such as 8.6,8.10, or the layers of the receiving MLPs, such as 8,9
    #[arg(long, value_name = "LAYER.HEAD,…", value_delimiter = ',')]
    receivers: Vec<String>,

    /// Patch each sender at this position only: a number from 0, or from the end (-1 or `end` is the last)
    /// [default: all]
    #[arg(long, value_name = "N|end", allow_hyphen_values = true)]
    pos: Option<Place>,

    /// Freeze the MLPs along the path, so that only the direct path through the residual stream is left, instead
    /// of recomputing them as the paper does
    #[arg(long)]
    freeze_mlps: bool,

    #[command(flatten)]
    pair: PairArgs,

    #[command(flatten)]
    metric: MetricArgs,

    #[command(flatten)]
    engine: EngineArgs,

    /// How many of the strongest senders to list
    #[arg(long, value_name = "K", default_value_t = 10)]
    top: usize,

    /// File of the picture (.png or .svg)
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

    #[command(flatten)]
    process: ProcessArgs,
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
    /// The numbers of all senders, as they are shown.
    grid: patching::Grid,
    /// The metric of the unpatched runs.
    ends: Endpoints,
    /// How many senders have no finite metric.
    missing: usize,
}

impl Done {
    fn of(pairs: &Pairs, pair: &ReadyPair, outcome: patching::path::Outcome) -> Result<Self, Failure> {
        let ends = outcome.ends(pairs.direction);
        let missing = outcome.missing();
        let mut grid = outcome.grid;
        let scale = pairs.metric_of_pair(pair).scale;
        scale.apply(&mut grid.values, ends)?;
        Ok(Self { grid, ends, missing })
    }
}

/// Patches the paths, prints what came out and draws the picture.
pub fn run(args: &Args, start: Instant) -> Result<(), Failure> {
    let output = Output::picture(&args.out)?;
    let options = args.figure.options()?;
    let receivers = args.receivers()?;
    let studied = (args.process).load_for_study(&args.model, args.export.is_wanted())?;
    let model = &studied.pretrained;
    let asked = (&args.model, Scale::Change);
    let pairs = args.pair.ready(&args.set, &args.metric, asked, model)?;
    let exports = args.export.prepare(pairs.n_grids(1))?;
    args.model.warn_of_unknown_tokens(model, &pairs.ids());
    let mut paths = Vec::new();
    for pair in &pairs.list {
        let of_pair = PathPatching {
            senders: args.from,
            receivers: receivers.clone(),
            pos: args.position(pair)?,
            through_mlps: !args.freeze_mlps,
        };
        of_pair.check(&model.model, pair.experiment())?;
        paths.push(of_pair);
    }
    let load = start.elapsed().as_secs_f64();

    let before = Instant::now();
    let interrupt = Interrupt::listen()?;
    let n_pairs = pairs.list.len();
    let (n_layer, n_head) = (model.model.config.n_layer, model.model.config.n_head);
    let n_senders = match args.from {
        Senders::Heads => n_layer * n_head,
        Senders::Mlps => n_layer,
        Senders::Embeddings => pairs.first().experiment().n_tokens(),
    };
    let (bar, progress) = progress_bar(n_pairs, n_pairs * n_senders);
    let watch = Watch { progress: &progress, stop: interrupt.flag() };
    let mut done = Vec::new();
    for (pair, paths) in pairs.list.iter().zip(&paths) {
        let (metric, engine) = (pair.metric.metric(), args.engine.engine());
        let outcome = paths.run(&model.model, pair.experiment(), metric, engine, watch)?;
        if !outcome.complete {
            return Err(interrupt.stopped("stopped: nothing was written".to_owned()));
        }
        pairs.check_ends(pair, &model.model, outcome.ends(pairs.direction))?;
        done.push(Done::of(&pairs, pair, outcome)?);
    }
    bar.finish_and_clear();
    let bos = args.model.bos(model)?;
    let computation = pairs.computation(bos, args.engine.engine, &args.set, [("path", args.path())]);
    let path_seconds = before.elapsed().as_secs_f64();

    let (drawn, study) = args.studies(&pairs, &done, pairs.provenance(&studied, computation)?)?;
    let ends: Vec<Endpoints> = done.iter().map(|done| done.ends).collect();
    let mut report = studied.report()?;
    report.fact("bos", bos.is_some())?;
    report.fact("direction", args.pair.direction.to_string())?;
    args.path_facts(&mut report)?;
    report.fact("image", output.path().display().to_string())?;
    if pairs.many {
        report.line(format!("{n_pairs} pairs, the first of which is"));
    }
    let (clean, corrupted) = (pairs.first().clean.row(), pairs.first().corrupted.row());
    report.line(format!("clean      {clean}\ncorrupted  {corrupted}"));
    report.line(args.model.bos_in_words(model, bos));
    if let Some(answers) = pairs.answers_in_words() {
        report.line(answers);
    }
    report.line(format!("\nmodel      {}", studied.label()));
    report.line(format!("path       {}, {}", args.path(), args.pair.direction));
    report.line(format!("metric     {}", pairs.label));
    if pairs.many {
        report.line(format!("           {}", pairs.mean_in_words()));
    }
    pairs.say_ends(&mut report, &ends, args.engine.engine)?;
    report.draw(PICTURE, &drawn.iter().map(String::as_str).collect::<Vec<_>>());
    report.show(PICTURE);
    let intervals = match &study.grids[..] {
        [_, low, high, ..] if pairs.many => Some([&low.values[..], &high.values]),
        _ => None,
    };
    let strongest = Strongest {
        grid: &study.grids[0],
        unmoved: unmoved(&pairs, &ends),
        intervals,
        scale: pairs.first().metric.scale.to_string(),
    };
    if let Some(table) = strongest.table(args.top) {
        report.line(table);
    }
    report.study = Some(study);
    let outputs = Outputs { options, pictures: vec![(PICTURE, output)], exports, ..Outputs::default() };
    outputs.write(&report)?;
    let total = start.elapsed().as_secs_f64();
    report.fact("seconds", Seconds { load, path: path_seconds, total })?;
    let each = match pairs.many {
        true => format!(" for each of {n_pairs} pairs"),
        false => String::new(),
    };
    let work = Work { done: format!("{n_senders} senders{each}"), seconds: path_seconds, start };
    outputs.print(&report, args.model.json, Some(work))
}

impl Args {
    fn receivers(&self) -> Result<Receivers, Failure> {
        let input = match self.to {
            Reader::Logits if self.receivers.is_empty() => return Ok(Receivers::Logits),
            Reader::Logits => {
                return Err(Failure::Input(
                    "--receivers names heads or MLPs, which --to logits does not use: leave one of the two out, or give \
                     --to q, k, v or mlp"
                        .to_owned(),
                ));
            }
            Reader::Head(input) => input,
            Reader::Mlp => {
                let layer = |text: &String| {
                    let digits = text.trim_start_matches(['m', 'M']);
                    digits.parse().map_err(|_| {
                        Failure::Input(format!("invalid MLP \"{text}\": expected its layer, such as 8 or m8"))
                    })
                };
                let layers: Vec<usize> = self.receivers.iter().map(layer).collect::<Result<_, _>>()?;
                return match layers.is_empty() {
                    true => Err(Failure::Input("--to mlp needs the MLPs: --receivers 8,9".to_owned())),
                    false => Ok(Receivers::Mlps(layers)),
                };
            }
        };
        if self.receivers.is_empty() {
            return Err(Failure::Input(format!(
                "--to {input} needs the heads that it is the input of: --receivers 8.6,8.10"
            )));
        }
        let heads = self.receivers.iter().map(|head| head.parse().map_err(Failure::Input));
        Ok(Receivers::Heads(input, heads.collect::<Result<_, _>>()?))
    }

    /// The one position of the senders in the prompts of a pair.
    fn position(&self, pair: &ReadyPair) -> Result<Option<usize>, Failure> {
        let of_pair = |pos: Place| pos.of(pair.experiment().n_tokens(), "position");
        let position = self.pos.map(of_pair).transpose();
        position.map_err(|failure| failure.at("--pos"))
    }

    /// What JSON says of the path.
    fn path_facts(&self, report: &mut Report) -> Result<(), Failure> {
        report.fact("from", self.from.to_string())?;
        report.fact("to", self.to.to_string())?;
        report.fact("receivers", &self.receivers)?;
        // A number, "end", "-2" and so on from the end, or null for all.
        let pos = self.pos.map(|pos| match pos {
            Place::END => serde_json::Value::from("end"),
            Place::FromStart(pos) => pos.into(),
            Place::FromEnd(_) => pos.to_string().into(),
        });
        report.fact("pos", pos)?;
        report.fact("through_mlps", !self.freeze_mlps)?;
        Ok(())
    }

    /// From where to where, and how.
    fn path(&self) -> String {
        let at = match self.pos {
            Some(Place::END) => " at the last position".to_owned(),
            Some(pos) => format!(" at position {pos}"),
            None => String::new(),
        };
        let receivers = self.receivers.join(", ");
        let to = match self.to {
            Reader::Logits => "the logits".to_owned(),
            Reader::Head(HeadInput::Q) => format!("the queries of {receivers}"),
            Reader::Head(HeadInput::K) => format!("the keys of {receivers}"),
            Reader::Head(HeadInput::V) => format!("the values of {receivers}"),
            Reader::Mlp => format!("the MLPs {receivers}"),
        };
        let from = match self.from {
            Senders::Heads => "z of each head",
            Senders::Mlps => "the output of each MLP",
            Senders::Embeddings => "each token embedding",
        };
        let through = match self.freeze_mlps {
            true => "MLPs frozen",
            false => "through MLPs",
        };
        format!("{from}{at} to {to}, {through}")
    }

    /// The names of the grids that are drawn, and the study.
    fn studies(
        &self,
        pairs: &Pairs,
        done: &[Done],
        provenance: Provenance,
    ) -> Result<(Vec<String>, Study), Failure> {
        let base = self.pair.base_name();
        let name = &format!("{}_to_{}", self.from, self.to);
        let along = |metric: &NamedMetric| match metric.scale {
            Scale::Change | Scale::NormalizedChange => {
                Some(format!("Blue: along this path the {base} run's metric rises; red: it falls."))
            }
            _ => metric.colors(base),
        };
        let words = |name: String, label: String, metric: &NamedMetric| Grid {
            name,
            value_label: label,
            center: metric.center(),
            legend: along(metric).into_iter().collect(),
            ..Grid::default()
        };
        let of_pair = |(pair, done): (&ReadyPair, &Done)| {
            let places = &done.grid.places;
            let metric = pairs.metric_of_pair(pair);
            let unpatched = unpatched_in_words(metric.shown_unpatched(done.ends));
            let words = words(pairs.name_of_grid(name, pair), metric.label(), &metric);
            Grid {
                axes: axis_labels(&done.grid.axes, places, &pair.base().tokens),
                values: done.grid.values.clone(),
                legend: (words.legend.into_iter())
                    .chain([unpatched])
                    .chain(missing_in_words(done.missing))
                    .collect(),
                ..words
            }
        };
        let by_pair = pairs.list.iter().zip(done).map(of_pair).collect();
        let mut averages = Vec::new();
        if pairs.many {
            let grids = done.iter().map(|done| (&done.grid, done.ends));
            let metric = &pairs.first().metric;
            let words = words(name.to_owned(), pairs.label.clone(), metric);
            let words = pairs.with_missing(words, done.iter().map(|done| done.missing));
            averages.push(pairs.average(&self.set, grids, words)?);
        }
        let title = format!("Path patching: {}", self.path());
        Ok(pairs.studies(&title, provenance, by_pair, averages))
    }
}

/// What a sender that changes nothing comes to, on the scale of the means.
fn unmoved(pairs: &Pairs, ends: &[Endpoints]) -> f32 {
    let base = Endpoints::mean(ends, |ends| ends.base);
    pairs.first().metric.scale.unmoved(pairs.direction, base)
}

/// The senders that move the metric most.
struct Strongest<'a> {
    /// The numbers of all senders.
    grid: &'a Grid,
    /// That of a sender that changes nothing.
    unmoved: f32,
    /// Of many pairs the ends of the interval of 95 %.
    intervals: Option<[&'a [f32]; 2]>,
    scale: String,
}

impl Strongest<'_> {
    /// The table; none if no sender moves the metric.
    fn table(&self, top: usize) -> Option<String> {
        let values = &self.grid.values;
        let mut order = farthest(values, self.unmoved, top);
        order.retain(|&i| values[i] != self.unmoved);
        if order.is_empty() {
            return None;
        }
        // A head as 5.1, all else in words.
        let name = |i: usize| match (&self.grid.axes[..], &self.grid.index_of(i)[..]) {
            ([layer, head], [l, h]) if head.name == "head" => {
                format!("{}.{}", layer.labels[*l], head.labels[*h])
            }
            _ => place_in_words(self.grid, i),
        };
        let width = order.iter().map(|&i| name(i).width()).max().unwrap_or(0).max(6);
        let column = if self.grid.axes.len() == 2 { "head" } else { "sender" };
        let columns = match self.intervals {
            Some(_) => format!("{column:>width$}  {:>9}   95 % interval", self.scale),
            None => format!("{column:>width$}  {:>9}", self.scale),
        };
        let row = |i: usize| {
            let interval = self.intervals.map(|[low, high]| format!("   {:+.4} to {:+.4}", low[i], high[i]));
            format!("\n{}  {:>+9.4}{}", pad_left(&name(i), width), values[i], interval.unwrap_or_default())
        };
        let rows: String = order.into_iter().map(row).collect();
        Some(format!("\nstrongest senders\n{columns}{rows}"))
    }
}
