//! `patch-cli attribute`: what a sweep would give, predicted from one backward pass ([`patching::attribution`]).

use std::path::PathBuf;
use std::time::Instant;

use gpt2::Gpt2;
use patching::{Agreement, Attributed, Endpoints, Method, Scale, SiteKind, Sweep, attribute};
use report::Report;
use serde::Serialize;

use crate::common::ModelArgs;
use crate::export::{ExportArgs, Grid, place_in_words};
use crate::failure::Failure;
use crate::figure::FigureArgs;
use crate::given::{self, Given};
use crate::metric::{MetricArgs, NamedMetric};
use crate::names;
use crate::output::Output;
use crate::pairs::{PairArgs, Pairs, ReadyPair, SetArgs, missing_in_words, unpatched_in_words};
use crate::processing::ProcessArgs;
use crate::running::{EngineArgs, Interrupt, progress_bar};
use crate::selection::{SelectionArgs, axis_labels, sites_in_words};
use crate::study::{Outputs, PICTURE, Work};

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
    attribution: f64,
    exact: Option<f64>,
    total: f64,
}

/// One of the grids of a pair, by what it is.
struct Done {
    grid: patching::Grid,
    ends: Endpoints,
    missing: usize,
}

/// What is shown of each site.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Attribution,
    Exact,
    /// The mean of the absolute predictions, over many pairs.
    Magnitude,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Attribution => "attribution",
            Self::Exact => "exact",
            Self::Magnitude => "magnitude",
        }
    }
}

/// Predicts the sweeps, prints what came out and draws the picture.
pub fn run(args: &Args, start: Instant) -> Result<(), Failure> {
    let method = args.method()?;
    let output = Output::picture(&args.out)?;
    let options = args.figure.options()?;
    let studied = args.process.load_for_study(&args.model, args.export.is_wanted())?;
    let model = &studied.pretrained;
    let gpt2 = &model.model;
    let mut pairs = args.pair.ready(&args.set, &args.metric, (&args.model, Scale::Change), model)?;
    for pair in &mut pairs.list {
        let experiment = pair.pair.experiment.clone();
        pair.pair.experiment = given::given(experiment, &args.given, gpt2)?;
    }
    let sites = args.selection.kinds();
    let measured = args.exact || args.verify_top.is_some();
    let magnitudes = if pairs.many { 3 * sites.len() } else { 0 };
    let exports =
        args.export.prepare(pairs.n_grids(sites.len() * (1 + usize::from(measured))) + magnitudes)?;
    args.model.warn_of_unknown_tokens(model, &pairs.ids());
    let mut sweeps: Vec<Vec<Sweep<'_>>> = Vec::new();
    for pair in &pairs.list {
        sweeps.push(args.selection.sweeps(gpt2, &model.tokenizer, pair.experiment())?);
    }
    let load = start.elapsed().as_secs_f64();

    let interrupt = Interrupt::listen()?;
    let sweeps: Vec<Vec<Sweep<'_>>> = (sweeps.into_iter())
        .map(|of_pair| of_pair.into_iter().map(|sweep| sweep.stopped_by(interrupt.flag())).collect())
        .collect();
    let stopped = || interrupt.stopped("stopped: nothing was written".to_owned());
    let before = Instant::now();
    let mut predicted: Vec<Vec<Attributed>> = Vec::new();
    for (pair, sweeps) in pairs.list.iter().zip(&sweeps) {
        let of_pair = attribute(gpt2, sweeps, pair.metric.metric(), method, &|_| {})?;
        if of_pair.iter().any(|attributed| !attributed.complete) {
            return Err(stopped());
        }
        if let Some(first) = of_pair.first() {
            pairs.check_ends(pair, gpt2, first.ends())?;
        }
        predicted.push(of_pair);
    }
    let attribution_seconds = before.elapsed().as_secs_f64();
    let before = Instant::now();
    let exact = match measured {
        true => Some(args.measure(gpt2, &pairs, sweeps, &predicted)?.ok_or_else(stopped)?),
        false => None,
    };
    let exact_seconds = measured.then(|| before.elapsed().as_secs_f64());

    let ends: Vec<Endpoints> = predicted.iter().flat_map(|of| of.first()).map(Attributed::ends).collect();
    let mut grids = vec![(Kind::Attribution, args.scaled(&pairs, &predicted)?)];
    grids.extend(exact.map(|exact| (Kind::Exact, exact)));
    let bos = args.model.bos(model)?;
    let facts = [
        ("site", sites_in_words(&sites)),
        ("method", format!("{method:?}")),
        ("given", given::in_words(&args.given)),
    ];
    let computation = pairs.computation(bos, args.engine.engine, &args.set, facts);
    let (by_pair, averages, names) = args.grids(&pairs, &sites, &grids, &predicted)?;
    let base = args.pair.base_name();
    let title = format!("Attribution ({method}) of {} patched into the {base} run", sites_in_words(&sites));
    let provenance = pairs.provenance(&studied, computation)?;
    let (_, study) = pairs.studies(&title, provenance, by_pair, averages);

    let mut report = studied.report()?;
    report.fact("bos", bos.is_some())?;
    report.fact("direction", args.pair.direction.to_string())?;
    report.fact("method", method.to_string())?;
    if let Method::Ig { steps } = method {
        report.fact("steps", steps)?;
    }
    report.fact("image", output.path().display().to_string())?;
    if pairs.many {
        report.line(format!("{} pairs, the first of which is", pairs.list.len()));
    }
    let (clean, corrupted) = (pairs.first().clean.row(), pairs.first().corrupted.row());
    report.line(format!("clean      {clean}\ncorrupted  {corrupted}"));
    report.line(args.model.bos_in_words(model, bos));
    report.line(format!("\nmodel      {}", studied.label()));
    report.line(format!("method     {method}, {}", args.pair.direction));
    report.line(format!("metric     {}", pairs.label));
    if pairs.many {
        report.line(format!("           {}", pairs.mean_in_words()));
    }
    pairs.say_ends(&mut report, &ends, args.engine.engine)?;
    let mean = |of: &dyn Fn(&Endpoints) -> f32| ends.iter().map(of).sum::<f32>() / ends.len() as f32;
    report.fact("base_metric", mean(&|ends| ends.base))?;
    report.fact("source_metric", mean(&|ends| ends.clean + ends.corrupted - ends.base))?;
    report.study = Some(study);
    report.draw(PICTURE, &names.iter().map(String::as_str).collect::<Vec<_>>());
    report.show(PICTURE);
    args.say_agreement(&mut report, &sites)?;
    let outputs = Outputs { options, pictures: vec![(PICTURE, output)], exports, page: None };
    outputs.write(&report)?;
    let total = start.elapsed().as_secs_f64();
    report
        .fact("seconds", Seconds { load, attribution: attribution_seconds, exact: exact_seconds, total })?;
    let n_cells: usize = predicted.iter().flatten().map(|it| it.changes.values.len()).sum();
    let done = format!("{n_cells} effects predicted");
    outputs.print(&report, args.model.json, Some(Work { done, seconds: attribution_seconds, start }))
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

    /// Runs the sweeps, or the cells with the largest predictions; none if it was stopped.
    fn measure(
        &self,
        model: &Gpt2,
        pairs: &Pairs,
        sweeps: Vec<Vec<Sweep<'_>>>,
        predicted: &[Vec<Attributed>],
    ) -> Result<Option<Vec<Vec<Done>>>, Failure> {
        let n_cells = sweeps.iter().flatten().map(|sweep| sweep.patches(model).len()).sum();
        let (bar, progress) = progress_bar(sweeps.iter().map(Vec::len).sum(), n_cells);
        let mut all = Vec::new();
        for ((pair, sweeps), predicted) in pairs.list.iter().zip(sweeps).zip(predicted) {
            let mut of_pair = Vec::new();
            for (sweep, predicted) in sweeps.into_iter().zip(predicted) {
                let chosen = self.verify_top.map(|top| largest(&predicted.changes.values, top));
                let sweep = match &chosen {
                    // (What is known is not run; it is taken out again below.)
                    Some(chosen) => sweep.knowing(
                        (0..predicted.changes.values.len())
                            .map(|cell| if chosen.contains(&cell) { f32::NAN } else { 0.0 })
                            .collect(),
                    ),
                    None => sweep,
                };
                let outcome = sweep.run(model, pair.metric.metric(), self.engine.engine(), &progress);
                if !outcome.complete {
                    return Ok(None);
                }
                let ends = outcome.ends(pairs.direction);
                let mut grid = outcome.grid;
                for (cell, value) in grid.values.iter_mut().enumerate() {
                    if chosen.as_ref().is_some_and(|chosen| !chosen.contains(&cell)) {
                        *value = f32::NAN;
                    }
                }
                pairs.metric_of_pair(pair).scale.apply(&mut grid.values, ends)?;
                of_pair.push(Done { grid, ends, missing: outcome.missing });
            }
            all.push(of_pair);
        }
        bar.finish_and_clear();
        Ok(Some(all))
    }

    /// The predictions of each pair on its scale.
    fn scaled(&self, pairs: &Pairs, predicted: &[Vec<Attributed>]) -> Result<Vec<Vec<Done>>, Failure> {
        let of_pair = |(pair, predicted): (&ReadyPair, &Vec<Attributed>)| {
            let scale = pairs.metric_of_pair(pair).scale;
            let done = |attributed: &Attributed| {
                let grid = attributed.on(scale)?;
                Ok(Done { grid, ends: attributed.ends(), missing: attributed.missing })
            };
            predicted.iter().map(done).collect()
        };
        pairs.list.iter().zip(predicted).map(of_pair).collect()
    }

    /// What a grid is called: by its kind, and where there are several sites by its site.
    fn name(&self, kind: Kind, site: SiteKind) -> String {
        match self.selection.kinds().len() {
            1 => kind.name().to_owned(),
            _ => format!("{}_{site}", kind.name()),
        }
    }

    /// The grids of each pair, the means, and the names of those that are drawn.
    fn grids(
        &self,
        pairs: &Pairs,
        sites: &[SiteKind],
        grids: &[(Kind, Vec<Vec<Done>>)],
        predicted: &[Vec<Attributed>],
    ) -> Result<(Vec<Grid>, Vec<[Grid; 3]>, Vec<String>), Failure> {
        let base = self.pair.base_name();
        let words = |kind: Kind, site: SiteKind, label: String, metric: &NamedMetric| Grid {
            name: self.name(kind, site),
            title: format!("{}, {site}", kind.name()),
            value_label: match kind {
                Kind::Attribution => format!("predicted {label}"),
                Kind::Exact => label,
                Kind::Magnitude => format!("magnitude of the predicted {label}"),
            },
            center: metric.center(),
            legend: metric.colors(base).into_iter().collect(),
            ..Grid::default()
        };
        let (mut by_pair, mut averages, mut names) = (Vec::new(), Vec::new(), Vec::new());
        let mut kinds: Vec<(Kind, &Vec<Vec<Done>>)> =
            grids.iter().map(|(kind, done)| (*kind, done)).collect();
        let magnitudes: Vec<Vec<Done>> = predicted
            .iter()
            .map(|of_pair| {
                let done =
                    |it: &Attributed| Done { grid: it.magnitudes(), ends: it.ends(), missing: it.missing };
                of_pair.iter().map(done).collect()
            })
            .collect();
        if pairs.many {
            kinds.push((Kind::Magnitude, &magnitudes));
        }
        for (i, &site) in sites.iter().enumerate() {
            for &(kind, done) in &kinds {
                names.push(self.name(kind, site));
                if pairs.many {
                    let words = words(kind, site, pairs.label.clone(), &pairs.first().metric);
                    let words = pairs.with_missing(words, done.iter().map(|done| done[i].missing));
                    let of_pairs = done.iter().map(|done| (&done[i].grid, done[i].ends));
                    averages.push(pairs.average(&self.set, of_pairs, words)?);
                }
                if kind == Kind::Magnitude {
                    continue; // of one pair, the absolute value of its attribution
                }
                for (pair, done) in pairs.list.iter().zip(done) {
                    let metric = pairs.metric_of_pair(pair);
                    let Done { grid, ends, missing } = &done[i];
                    let words = words(kind, site, metric.label(), &metric);
                    let unpatched = unpatched_in_words(metric.shown_unpatched(*ends));
                    by_pair.push(Grid {
                        name: pairs.name_of_grid(&self.name(kind, site), pair),
                        axes: axis_labels(&grid.axes, &grid.places, &pair.base().tokens),
                        values: grid.values.clone(),
                        legend: (words.legend.into_iter())
                            .chain([unpatched])
                            .chain(missing_in_words(*missing))
                            .collect(),
                        ..words
                    });
                }
            }
        }
        Ok((by_pair, averages, names))
    }

    /// The largest predictions, beside the exact numbers if there are any, and how well they agree.
    fn say_agreement(&self, report: &mut Report, sites: &[SiteKind]) -> Result<(), Failure> {
        let Some(study) = report.study.take() else {
            return Ok(());
        };
        let mut agreements = Vec::new();
        for &site in sites {
            let Some(predicted) = study.grid(&self.name(Kind::Attribution, site)) else { continue };
            let exact = study.grid(&self.name(Kind::Exact, site));
            let Some(exact) = exact else {
                report.line(format!("\nlargest predicted effects, {site}"));
                for cell in largest(&predicted.values, self.top) {
                    report.line(format!(
                        "{:>+9.4}  {}",
                        predicted.values[cell],
                        place_in_words(predicted, cell)
                    ));
                }
                continue;
            };
            let agreement = Agreement::of(&exact.values, &predicted.values);
            report.line(format!(
                "\n{site}: Pearson {:.4}, Spearman {:.4}, largest error {:.4}, over {} cells",
                agreement.pearson, agreement.spearman, agreement.largest_error, agreement.n
            ));
            let errors: Vec<f32> = predicted
                .values
                .iter()
                .zip(&exact.values)
                .map(|(predicted, exact)| predicted - exact)
                .collect();
            report.line("predicted     exact  where they disagree most");
            for cell in largest(&errors, self.top) {
                let (predicted_value, exact_value) = (predicted.values[cell], exact.values[cell]);
                let place = place_in_words(predicted, cell);
                report.line(format!("{predicted_value:>+9.4} {exact_value:>+9.4}  {place}"));
            }
            agreements.push(agreement);
        }
        if let ([agreement], [_]) = (&agreements[..], sites) {
            report.fact("pearson", agreement.pearson)?;
            report.fact("spearman", agreement.spearman)?;
            report.fact("largest_error", agreement.largest_error)?;
        } else if !agreements.is_empty() {
            let by_site =
                |of: &dyn Fn(&Agreement) -> f64| -> Vec<f64> { agreements.iter().map(of).collect() };
            report.fact("pearson", by_site(&|agreement| agreement.pearson))?;
            report.fact("spearman", by_site(&|agreement| agreement.spearman))?;
            report.fact("largest_error", by_site(&|agreement| agreement.largest_error))?;
        }
        report.study = Some(study);
        Ok(())
    }
}

/// The places of the numbers farthest from 0, the farthest first.
fn largest(values: &[f32], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).filter(|&place| !values[place].is_nan()).collect();
    places.sort_by(|&i, &j| values[j].abs().total_cmp(&values[i].abs()));
    places.truncate(count);
    places
}
