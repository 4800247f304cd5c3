//! `patch-cli attribute`: what a sweep would give, predicted from one backward pass ([`patching::attribution`]).

mod results;
mod words;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use gpt2::{Gpt2, Pretrained};
use patching::{Attributed, Method, Outcome, Scale, Sweep, attribute};
use serde::Serialize;

use self::results::Results;
use crate::common::ModelArgs;
use crate::export::{ExportArgs, Exports};
use crate::failure::Failure;
use crate::figure::FigureArgs;
use crate::given::{self, Given};
use crate::metric::MetricArgs;
use crate::names;
use crate::output::Output;
use crate::pairs::{PairArgs, Pairs, SetArgs};
use crate::processing::ProcessArgs;
use crate::running::{EngineArgs, Interrupt, progress_bar};
use crate::selection::SelectionArgs;
use crate::study::{Outputs, PICTURE, Work, pictures};

const HELP: &str = "\
To first order, patching an activation changes the metric by Σ (a_source − a_base) · ∂M/∂a, with
the gradient in the base run: one backward pass predicts a whole sweep. --exact shows how good the
prediction is.

Examples:
  patch-cli attribute
  patch-cli attribute --site z --method relp --exact
  patch-cli attribute --prompt-set ioi --count 20 --site z --csv attribution.csv";

/// Arguments of `attribute`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// atp: the gradient in the base run; relp: with constant layer norms and activation functions; atp-star:
    /// magnitudes, with the QK fix and GradDrop; ig: the gradient averaged over --steps runs between the prompts
    #[arg(long, default_value_t, value_parser = names::methods())]
    method: Method,

    /// Number of runs of --method ig [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Option<u32>,

    /// Also run the sweep, and compare
    #[arg(long)]
    exact: bool,

    /// Run only the N cells with the largest predictions exactly
    #[arg(long, value_name = "N", conflicts_with = "exact")]
    verify_top: Option<usize>,

    #[command(flatten)]
    pair: PairArgs,

    #[command(flatten)]
    metric: MetricArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Edits that apply to the base run and to every patched run, as in `sweep --given`
    #[arg(long, value_name = "EDIT,…", value_delimiter = ',')]
    given: Vec<Given>,

    #[command(flatten)]
    engine: EngineArgs,

    /// Number of cells to list
    #[arg(long, value_name = "K", default_value_t = 10)]
    top: usize,

    /// File of the picture (.png or .svg)
    #[arg(long, value_name = "FILE", default_value = "attribution.png")]
    out: PathBuf,

    /// File of the predictions plotted against the exact numbers [default: attribution-scatter.png with --exact]
    #[arg(long, value_name = "FILE")]
    scatter: Option<PathBuf>,

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

/// The name of the picture of the predictions against the exact numbers.
const SCATTER: &str = "scatter";

/// How long each part took, in seconds; `total` counts from the start of the process.
#[derive(Serialize)]
struct Seconds {
    load: f64,
    attribution: f64,
    exact: Option<f64>,
    total: f64,
}

/// Predicts the sweeps, prints what came out and draws the pictures.
pub fn run(args: &Args, start: Instant) -> Result<(), Failure> {
    let method = args.method()?;
    let pictures = args.pictures()?;
    let options = args.figure.options()?;
    let studied = args.process.load_for_study(&args.model, args.export.is_wanted())?;
    let model = &studied.pretrained;
    let pairs = args.pairs(model)?;
    let exports = args.exports(&pairs)?;
    args.model.warn_of_unknown_tokens(model, &pairs.ids());
    let interrupt = Interrupt::listen()?;
    let sweeps = args.sweeps(&pairs, model, interrupt.flag())?;
    let load = start.elapsed().as_secs_f64();

    let stopped = || interrupt.stopped("stopped: nothing was written".to_owned());
    let before = Instant::now();
    let predicted = predict(method, &pairs, &sweeps, &model.model)?.ok_or_else(stopped)?;
    let attribution = before.elapsed().as_secs_f64();
    let before = Instant::now();
    let exact = match args.is_measured() {
        true => Some(args.measure(&model.model, &pairs, sweeps, &predicted)?.ok_or_else(stopped)?),
        false => None,
    };
    let exact_seconds = args.is_measured().then(|| before.elapsed().as_secs_f64());

    let results = Results::new(args, method, &pairs, (&predicted, exact))?;
    let mut report = results.report(&studied, &pictures)?;
    let outputs = Outputs { options, pictures, exports, ..Outputs::default() };
    outputs.write(&report)?;
    let total = start.elapsed().as_secs_f64();
    report.fact("seconds", Seconds { load, attribution, exact: exact_seconds, total })?;
    let n_cells: usize = predicted.iter().flatten().map(|it| it.changes.values.len()).sum();
    let done = format!("{n_cells} effects predicted");
    outputs.print(&report, args.model.json, Some(Work { done, seconds: attribution, start }))
}

/// The predictions for the sweeps of each pair; none if it was stopped.
fn predict(
    method: Method,
    pairs: &Pairs,
    sweeps: &[Vec<Sweep<'_>>],
    model: &Gpt2,
) -> Result<Option<Vec<Vec<Attributed>>>, Failure> {
    let mut predicted = Vec::new();
    for (pair, sweeps) in pairs.list.iter().zip(sweeps) {
        let of_pair = attribute(model, sweeps, pair.metric.metric(), method, &|_| {})?;
        if of_pair.iter().any(|attributed| !attributed.complete) {
            return Ok(None);
        }
        if let Some(first) = of_pair.first() {
            pairs.check_ends(pair, model, first.ends())?;
        }
        predicted.push(of_pair);
    }
    Ok(Some(predicted))
}

impl Args {
    fn method(&self) -> Result<Method, Failure> {
        match (self.method, self.steps) {
            (Method::Ig { .. }, Some(steps)) => Ok(Method::Ig { steps: steps as usize }),
            (method, None) => Ok(method),
            (method, Some(_)) => {
                Err(Failure::Input(format!("--steps is for --method ig, not for --method {method}")))
            }
        }
    }

    /// Whether sweeps, or some of their cells, are run as well.
    fn is_measured(&self) -> bool {
        self.exact || self.verify_top.is_some()
    }

    /// Where the pictures go, by their names.
    fn pictures(&self) -> Result<Vec<(&'static str, Output)>, Failure> {
        let scatter = match &self.scatter {
            Some(_) if !self.is_measured() => {
                return Err(Failure::Input(
                    "--scatter needs exact numbers: give --exact or --verify-top N as well".to_owned(),
                ));
            }
            Some(path) => Some(path.as_path()),
            None => self.exact.then_some(Path::new("attribution-scatter.png")),
        };
        let scatter = scatter.map(|path| (SCATTER, path));
        pictures([(PICTURE, &*self.out)].into_iter().chain(scatter))
    }

    /// The pairs, with the edits that apply to their runs.
    fn pairs(&self, model: &Pretrained) -> Result<Pairs, Failure> {
        let mut pairs = self.pair.ready(&self.set, &self.metric, (&self.model, Scale::Change), model)?;
        for pair in &mut pairs.list {
            let experiment = pair.pair.experiment.clone();
            pair.pair.experiment = given::given(experiment, &self.given, &model.model)?;
        }
        Ok(pairs)
    }

    /// Where the exports go: a grid for each site of the predictions and of the exact numbers, and over many pairs
    /// those of the magnitudes.
    fn exports(&self, pairs: &Pairs) -> Result<Exports, Failure> {
        let n_sites = self.selection.kinds().len();
        let magnitudes = if pairs.many { 3 * n_sites } else { 0 };
        self.export.prepare(pairs.n_grids(n_sites * (1 + usize::from(self.is_measured()))) + magnitudes)
    }

    /// The sweeps of each pair.
    fn sweeps<'a>(
        &self,
        pairs: &'a Pairs,
        model: &Pretrained,
        stop: &'a AtomicBool,
    ) -> Result<Vec<Vec<Sweep<'a>>>, Failure> {
        let of_pair = |experiment: &'a _| {
            let sweeps = self.selection.sweeps(&model.model, &model.tokenizer, experiment)?;
            Ok(sweeps.into_iter().map(|sweep| sweep.stopped_by(stop)).collect())
        };
        pairs.list.iter().map(|pair| of_pair(pair.experiment())).collect()
    }

    /// Runs the sweeps, or the cells with the largest predictions; none if it was stopped.
    fn measure(
        &self,
        model: &Gpt2,
        pairs: &Pairs,
        sweeps: Vec<Vec<Sweep<'_>>>,
        predicted: &[Vec<Attributed>],
    ) -> Result<Option<Vec<Vec<Outcome>>>, Failure> {
        let n_cells = sweeps.iter().flatten().map(|sweep| sweep.patches(model).len()).sum();
        let (bar, progress) = progress_bar(sweeps.iter().map(Vec::len).sum(), n_cells);
        let mut all = Vec::new();
        for ((pair, sweeps), predicted) in pairs.list.iter().zip(sweeps).zip(predicted) {
            let run =
                |sweep: Sweep<'_>| sweep.run(model, pair.metric.metric(), self.engine.engine(), &progress);
            let mut of_pair = Vec::new();
            for (sweep, predicted) in sweeps.into_iter().zip(predicted) {
                let outcome = match self.verify_top {
                    Some(top) => predicted.verify_top(top, sweep, run),
                    None => run(sweep),
                };
                if !outcome.complete {
                    return Ok(None);
                }
                of_pair.push(outcome);
            }
            all.push(of_pair);
        }
        bar.finish_and_clear();
        Ok(Some(all))
    }
}
