//! `patch-cli sweep`: patch one activation after the other and draw the heatmap.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use gpt2::Gpt2;
use gpt2::generate::check_logits;
use patching::{Axis, Endpoints, Outcome, Scale, SiteKind, Sweep};
use serde::Serialize;

use crate::common::ModelArgs;
use crate::computation::differences;
use crate::explore::{self, Exploration, PageArgs};
use crate::export::{Draw, ExportArgs, Exports, Grid, Highlight, Provenance, Study, read_study};
use crate::failure::Failure;
use crate::figure::{FigureArgs, write_picture};
use crate::given::{self, Given};
use crate::html;
use crate::metric::MetricArgs;
use crate::output::Output;
use crate::pairs::{PairArgs, Pairs, PairsReport, ReadyPair, SetArgs, missing_in_words, unpatched_in_words};
use crate::processing::ProcessArgs;
use crate::render::write_figure;
use crate::report::{self, quoted};
use crate::running::{EngineArgs, Interrupt, progress_bar};
use crate::screen;
use crate::screen::terminal_style;
use crate::selection::{SelectionArgs, axis_labels, sites_in_words};

/// Arguments of `sweep`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pair: PairArgs,

    #[command(flatten)]
    metric: MetricArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Edits that stay in the base run and in every patched run: SITE, layer and perhaps .HEAD, @POSITION, and
    /// =source (the default), =zero or =mean; z9.9=zero,mlp_out8@-1, say
    #[arg(long, value_name = "EDIT,…", value_delimiter = ',')]
    given: Vec<Given>,

    #[command(flatten)]
    engine: EngineArgs,

    /// Go on with a sweep that was stopped, from its export
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,

    /// How many of the most likely tokens to list
    #[arg(long, value_name = "K", default_value_t = 20)]
    top: usize,

    /// Where to put the picture (.png or .svg)
    #[arg(long, value_name = "FILE", default_value = "heatmap.png")]
    out: PathBuf,

    #[command(flatten)]
    set: SetArgs,

    #[command(flatten)]
    figure: FigureArgs,

    #[command(flatten)]
    export: ExportArgs,

    #[command(flatten)]
    page: PageArgs,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    processing: &'a [&'static str],
    bos: bool,
    direction: String,
    /// The edits that stay, as they were typed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    given: Vec<String>,
    #[serde(flatten)]
    pairs: PairsReport<'a>,
    /// Whether every cell was reached: true in all that is printed.
    complete: bool,
    seconds: Seconds,
    image: String,
    #[serde(flatten)]
    study: &'a Study,
}

/// How long each part took, in seconds; `total` counts from the start of the process.
#[derive(Serialize)]
struct Seconds {
    load: f64,
    sweep: f64,
    total: f64,
}

/// What one sweep of one pair came to.
struct Done {
    /// The values as they are shown.
    grid: patching::Grid,
    /// The same with the words around them.
    shown: Grid,
    /// The metric of the unpatched runs.
    ends: Endpoints,
    outcome: Outcome,
}

/// Runs the sweeps, prints what came out and draws the picture.
pub fn run(args: &Args, start: Instant) -> Result<(), Failure> {
    let output = Output::picture(&args.out)?;
    let page = args.page.prepare()?;
    let options = args.figure.options()?;
    let known = args.resume.as_deref().map(read_study).transpose()?;
    let exported = args.export.is_wanted() || args.page.is_wanted() || known.is_some();
    let studied = args.process.load_for_study(&args.model, exported)?;
    let model = &studied.pretrained;
    let (gpt2, tokenizer) = (&model.model, &model.tokenizer);
    let asked = (&args.model, Scale::Value);
    let mut pairs = args.pair.ready(&args.set, &args.metric, asked, model)?;
    for pair in &mut pairs.list {
        let experiment = pair.pair.experiment.clone();
        pair.pair.experiment = given::given(experiment, &args.given, gpt2)?;
    }
    let kinds = args.selection.kinds();
    let exports = args.export.prepare(pairs.n_grids(kinds.len()))?;
    args.model.warn_of_unknown_tokens(model, &pairs.ids());
    let mut sweeps: Vec<Vec<Sweep<'_>>> = Vec::new();
    for pair in &pairs.list {
        sweeps.push(args.selection.sweeps(gpt2, tokenizer, pair.experiment())?);
    }
    let bos = args.model.bos(model)?;
    let given = (!args.given.is_empty()).then(|| ("given", given::in_words(&args.given)));
    let facts = [("site", sites_in_words(&kinds))].into_iter().chain(given);
    let computation = pairs.computation(bos, args.engine.engine, &args.set, facts);
    let known = match &known {
        Some(known) => Some(Known::of(known, &pairs.provenance(&studied, computation.clone())?)?),
        None => None,
    };
    let load = start.elapsed().as_secs_f64();

    let cells = |sweep: &Sweep<'_>| sweep.patches(gpt2).len();
    let n_sweeps = sweeps.iter().map(Vec::len).sum();
    let n_cells = sweeps.iter().flatten().map(cells).sum();
    let before = Instant::now();
    let interrupt = Interrupt::listen()?;
    let (bar, progress) = progress_bar(n_sweeps, n_cells);
    let mut done: Vec<Vec<Done>> = Vec::new();
    for (pair, sweeps) in pairs.list.iter().zip(sweeps) {
        let done_with = |sweep: Sweep<'_>| {
            let sweep = sweep.stopped_by(interrupt.flag());
            Done::of(args, &pairs, pair, sweep, gpt2, known.as_ref(), &progress)
        };
        done.push(sweeps.into_iter().map(done_with).collect::<Result<_, _>>()?);
    }
    bar.finish_and_clear();
    let sweep_seconds = before.elapsed().as_secs_f64();
    let complete = done.iter().flatten().all(|done| done.outcome.complete);

    // The tables of one pair, before anything is written: they cannot be made of logits that are not finite.
    let tables = match (&pairs.list[..], &done[..]) {
        ([pair], [of_pair]) if complete && args.top > 0 && !args.model.json => {
            let n_tokens = pair.experiment().n_tokens();
            let tables = of_pair[0].outcome.unpatched.iter().map(|unpatched| {
                let logits = unpatched.logits(gpt2);
                logits.iter().try_for_each(|logits| check_logits(logits, n_tokens))?;
                Ok(logits.map(|logits| report::top(model, &logits, args.top)))
            });
            tables.collect::<Result<Vec<_>, Failure>>()?.pop()
        }
        _ => None,
    };
    let provenance = pairs.provenance(&studied, computation)?;
    let (shown, exported) = args.studies(&pairs, &done, provenance, complete)?;
    exports.write(&exported)?;
    if !complete {
        return Err(interrupt.stopped(stopped_in_words(&done, &exports, n_cells)));
    }
    let figure = shown.figure()?;
    write_picture(&figure, &options, &output, &shown.provenance)?;
    if let (Some(page), [pair], [done]) = (&page, &pairs.list[..], &done[..])
        && let Some(unpatched) = &done[0].outcome.unpatched
    {
        let asked = Exploration {
            model,
            experiment: pair.experiment(),
            sites: args.page.sites(&kinds),
            metric: &pair.metric,
            engine: args.engine.engine(),
            unpatched,
            stop: &interrupt,
        };
        let explored = explore::page(&asked, &shown.provenance)?;
        page.write(html::render(&explored)?.as_bytes())?;
    }

    let first_sweeps = done.iter().flat_map(|done| done.first());
    let ends: Vec<Endpoints> = first_sweeps.map(|done| done.ends).collect();
    let pairs_report = pairs.report(&ends, args.engine.engine);
    if args.model.json {
        let report = Report {
            model: &model.name,
            processing: &studied.processing,
            bos: bos.is_some(),
            direction: args.pair.direction.to_string(),
            given: args.given.iter().map(Given::to_string).collect(),
            pairs: pairs_report,
            complete,
            seconds: Seconds { load, sweep: sweep_seconds, total: start.elapsed().as_secs_f64() },
            image: output.path().display().to_string(),
            study: &exported,
        };
        return screen::print_json(&report);
    }

    let mut out = screen::stdout();
    match (&pairs.list[..], &done[..]) {
        ([pair], [_]) => {
            write_prompts(&mut out, pair)?;
            writeln!(out, "{}", args.model.bos_in_words(model, bos))?;
            if let Some(tables) = &tables {
                let titles =
                    ["clean", "corrupted"].map(|run| format!("top {} after the {run} run", tables[0].len()));
                writeln!(out)?;
                let tables: Vec<(&str, &[report::Candidate])> =
                    titles.iter().zip(tables).map(|(title, table)| (&**title, &**table)).collect();
                report::write_top_tables(&mut out, &tables)?;
            }
            writeln!(out, "\nmodel      {}", studied.label())?;
            writeln!(out, "metric     {}", pair.metric.label())?;
        }
        _ => {
            writeln!(out, "{} pairs, the first of which is", pairs.list.len())?;
            write_prompts(&mut out, pairs.first())?;
            writeln!(out, "{}", args.model.bos_in_words(model, bos))?;
            if let Some(answers) = pairs.answers_in_words() {
                writeln!(out, "{answers}")?;
            }
            writeln!(out, "\nmodel      {}", studied.label())?;
            writeln!(out, "metric     {}", pairs.label)?;
            writeln!(out, "           {}", pairs.mean_in_words())?;
        }
    }
    if !args.given.is_empty() {
        writeln!(out, "given      {}", given::in_words(&args.given))?;
    }
    writeln!(out, "clean      {:+.4}", pairs_report.clean_metric)?;
    writeln!(out, "corrupted  {:+.4}\n", pairs_report.corrupted_metric)?;
    let in_terminal = options.applied(&figure.without_subtitle());
    write_figure(out.as_it_is(), &in_terminal, terminal_style())?;
    let files = [&[output.path()][..], &exports.paths()].concat();
    let files = files.into_iter().chain(page.iter().map(Output::path));
    let work = format!("{n_cells} patched runs");
    report::write_end(&mut out, &work, sweep_seconds, start, files)?;
    Ok(())
}

impl Done {
    fn of(
        args: &Args,
        pairs: &Pairs,
        pair: &ReadyPair,
        sweep: Sweep<'_>,
        model: &Gpt2,
        known: Option<&Known<'_>>,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<Self, Failure> {
        let blank = blank_grid(pairs, pair, &sweep, model);
        let known = known.map(|known| known.values(&blank)).transpose()?.flatten();
        let sweep = match &known {
            Some(known) => sweep.knowing(known.clone()),
            None => sweep,
        };
        let metric = pairs.metric_of_pair(pair);
        let outcome = sweep.run(model, metric.metric(), args.engine.engine(), progress);
        let ends = outcome.ends(pairs.direction);
        let mut values = vec![f32::NAN; outcome.grid.values.len()];
        let mut legend = vec![metric.colors(args.pair.base_name())];
        // A sweep that was stopped before its unpatched runs has nothing to compare with.
        if outcome.unpatched.is_some() {
            pairs.check_ends(pair, model, ends)?;
            let (shown, unpatched) = metric.shown(&outcome, pairs.direction)?;
            values = shown;
            legend.push(Some(unpatched_in_words(unpatched)));
        }
        legend.push(missing_in_words(outcome.missing));
        for (value, known) in values.iter_mut().zip(known.iter().flatten()) {
            if !known.is_nan() {
                *value = *known; // as it was shown
            }
        }
        Ok(Self {
            shown: Grid { values: values.clone(), legend: legend.into_iter().flatten().collect(), ..blank },
            grid: patching::Grid { values, ..outcome.grid.clone() },
            ends,
            outcome,
        })
    }
}

/// The grid of one sweep of one pair, without its values.
fn blank_grid(pairs: &Pairs, pair: &ReadyPair, sweep: &Sweep<'_>, model: &Gpt2) -> Grid {
    let (axes, places) = (sweep.axes(), sweep.places(model));
    let differing = pair.experiment().differing_positions();
    let pos = axes.iter().position(|axis| *axis == Axis::Pos);
    let highlight = pos.map(|pos| Highlight {
        axis: Axis::Pos.to_string(),
        indices: (0..places[pos].len()).filter(|&i| differing.contains(&places[pos][i])).collect(),
        label: "the prompts differ here".to_owned(),
    });
    Grid {
        name: pairs.name_of_grid(&sweep.site().to_string(), pair),
        axes: axis_labels(axes, &places, &pair.base().tokens),
        value_label: pairs.metric_of_pair(pair).label(),
        center: pairs.metric_of_pair(pair).center(),
        highlight,
        ..Grid::default()
    }
}

/// What is known from an earlier run.
struct Known<'a>(&'a Study);

impl<'a> Known<'a> {
    /// Refuses an export of another computation.
    fn of(study: &'a Study, now: &Provenance) -> Result<Self, Failure> {
        let then = &study.provenance;
        if then.fingerprint.is_empty() {
            return Err(Failure::Input(
                "--resume: the file does not say what made it; an .npy or .csv file has its \
                 words in a file beside it (run.csv.json), which has to stay there"
                    .to_owned(),
            ));
        }
        if then.fingerprint != now.fingerprint || then.computation != now.computation {
            let differences = differences(&then.computation, &now.computation);
            return Err(Failure::Input(format!(
                "--resume: the file is of another computation ({}); give the flags, the model and the prompts \
                 of the run that was stopped",
                differences.join("; ")
            )));
        }
        Ok(Self(study))
    }

    /// The values of a grid, if it is there: it must be over the same places, with the same metric.
    fn values(&self, blank: &Grid) -> Result<Option<Vec<f32>>, Failure> {
        let Some(grid) = self.0.grids.iter().find(|grid| grid.name == blank.name) else {
            return Ok(None);
        };
        if grid.axes != blank.axes || grid.value_label != blank.value_label {
            return Err(Failure::Input(format!(
                "--resume: the grid {} of the file is of {} over {}, and this run's of {} over {}; give the \
                 flags of the run that was stopped",
                quoted(&grid.name),
                grid.value_label,
                shape_in_words(grid),
                blank.value_label,
                shape_in_words(blank)
            )));
        }
        grid.check()?;
        Ok(Some(grid.values.clone()))
    }
}

fn shape_in_words(grid: &Grid) -> String {
    let axes = grid.axes.iter().map(|axis| format!("{} {}", axis.labels.len(), axis.name));
    axes.collect::<Vec<_>>().join(" × ")
}

impl Args {
    /// What is drawn, and what is exported.
    fn studies(
        &self,
        pairs: &Pairs,
        done: &[Vec<Done>],
        provenance: Provenance,
        complete: bool,
    ) -> Result<(Study, Study), Failure> {
        let (source, base) = (self.pair.source_name(), self.pair.base_name());
        let kinds = self.selection.kinds();
        let sites: Vec<String> = kinds.iter().map(SiteKind::to_string).collect();
        let given = match given::in_words(&self.given) {
            given if given.is_empty() => given,
            given => format!(", given {given}"),
        };
        let title = format!("Patching {} from the {source} into the {base} run{given}", sites.join(", "));
        let mut averages = Vec::new();
        // There is no mean of what was stopped.
        if pairs.many && complete {
            for (i, site) in sites.into_iter().enumerate() {
                let words = Grid {
                    name: site,
                    value_label: pairs.label.clone(),
                    center: pairs.first().metric.center(),
                    ..Grid::default()
                };
                let grids = done.iter().map(|done| (&done[i].grid, done[i].ends));
                let missing = done.iter().map(|done| done[i].outcome.missing);
                let words = pairs.with_missing(words, missing);
                averages.push(pairs.average(&self.set, grids, words)?);
            }
        }
        let by_pair = done.iter().flatten().map(|done| done.shown.clone());
        Ok(pairs.studies(&title, provenance, by_pair.collect(), averages))
    }
}

/// What is said when a signal has stopped the sweep.
fn stopped_in_words(done: &[Vec<Done>], exports: &Exports, n_cells: usize) -> String {
    let values = done.iter().flatten().flat_map(|done| &done.grid.values);
    let reached = values.filter(|value| !value.is_nan()).count();
    let what_next = match exports.paths().first() {
        Some(path) => format!("they are in {}; go on with the same flags and --resume {0}", path.display()),
        None => "nothing was written; a sweep that is exported (--safetensors FILE, say) can be stopped \
                 and resumed"
            .to_owned(),
    };
    format!("stopped after {reached} of {n_cells} cells: {what_next}")
}

fn write_prompts(out: &mut impl Write, pair: &ReadyPair) -> io::Result<()> {
    let ReadyPair { clean, corrupted, .. } = pair;
    for (label, prompt) in [("clean", clean), ("corrupted", corrupted)] {
        writeln!(out, "{label:<9}  {}\n           {}", prompt.row(), prompt.id_row())?;
    }
    let differing = pair.experiment().differing_positions();
    const SHOWN: usize = 6;
    let mut places: Vec<String> = differing
        .iter()
        .take(SHOWN)
        .map(|&pos| {
            format!("{pos} ({} against {})", quoted(&clean.tokens[pos]), quoted(&corrupted.tokens[pos]))
        })
        .collect();
    if differing.len() > SHOWN {
        places.push(format!("and {} more", differing.len() - SHOWN));
    }
    let s = if differing.len() == 1 { "" } else { "s" };
    writeln!(out, "{} tokens each; they differ at position{s} {}", clean.ids.len(), places.join(", "))
}
