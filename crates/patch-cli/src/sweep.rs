//! `patch-cli sweep`: patch one activation after the other and draw the heatmap.

use crate::computation::{Computation, differences};
use crate::figure::FigureArgs;
use crate::page::{PageArgs, Recorder};
use crate::processing::{ProcessArgs, Studied};
use crate::study::{Outputs, PICTURE, Work};
use gpt2::{Gpt2, Pretrained};
use report::{Candidate, Prompt, Report, quoted, top, top_tables};
use std::path::PathBuf;
use std::time::Instant;

use gpt2::generate::check_logits;
use patching::{Axis, Direction, Endpoints, Outcome, Scale, SiteKind, Sweep};
use serde::Serialize;

use crate::common::ModelArgs;
use crate::export::{ExportArgs, Exports, Grid, Highlight, Provenance, Study, read_study};
use crate::failure::Failure;
use crate::given::{self, Given};
use crate::metric::MetricArgs;
use crate::output::{MAKER, Output};
use crate::pairs::{PairArgs, Pairs, ReadyPair, SetArgs, missing_in_words, unpatched_in_words};
use crate::running::{EngineArgs, Interrupt, progress_bar};
use crate::selection::{SelectionArgs, axis_labels, sites_in_words};
use figures::page::render_page;

/// Arguments of `sweep`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pair: PairArgs,

    #[command(flatten)]
    metric: MetricArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Edits that apply to the base run and to every patched run: SITE and layer, then optionally .HEAD, @POSITION,
    /// and =source (the default), =zero or =mean; for example z9.9=zero,mlp_out8@-1
    #[arg(long, value_name = "EDIT,…", value_delimiter = ',')]
    given: Vec<Given>,

    #[command(flatten)]
    engine: EngineArgs,

    /// Continue a stopped sweep from its export
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,

    /// Number of most likely tokens to list
    #[arg(long, value_name = "K", default_value_t = 20)]
    top: usize,

    /// File of the picture (.png or .svg)
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
    let gpt2 = &model.model;
    let pairs = args.pairs(model)?;
    let kinds = args.selection.kinds();
    let exports = args.export.prepare(pairs.n_grids(kinds.len()))?;
    args.model.warn_of_unknown_tokens(model, &pairs.ids());
    let mut sweeps: Vec<Vec<Sweep<'_>>> = Vec::new();
    for pair in &pairs.list {
        sweeps.push(args.selection.sweeps(gpt2, &model.tokenizer, pair.experiment())?);
    }
    let computation = args.computation(model, &pairs)?;
    let known = match &known {
        Some(known) => Some(Known::of(known, &pairs.provenance(&studied, computation.clone())?)?),
        None => None,
    };
    let load = start.elapsed().as_secs_f64();

    let n_cells = sweeps.iter().flatten().map(|sweep| sweep.patches(gpt2).len()).sum();
    let before = Instant::now();
    let interrupt = Interrupt::listen()?;
    let (bar, progress) = progress_bar(sweeps.iter().map(Vec::len).sum(), n_cells);
    let recorder = match (&page, &pairs.list[..]) {
        (Some(_), [pair]) => {
            Some(Recorder::new(model, pair.experiment(), &pair.metric, args.engine.engine(), &interrupt))
        }
        _ => None,
    };
    let sweeper = Sweeper { args, pairs: &pairs, model: gpt2, known, recorder: recorder.as_ref() };
    let mut done: Vec<Vec<Done>> = Vec::new();
    for (pair, sweeps) in pairs.list.iter().zip(sweeps) {
        let done_with = |sweep: Sweep<'_>| sweeper.run(pair, sweep.stopped_by(interrupt.flag()), &progress);
        done.push(sweeps.into_iter().map(done_with).collect::<Result<_, _>>()?);
    }
    bar.finish_and_clear();
    let sweep_seconds = before.elapsed().as_secs_f64();
    let complete = done.iter().flatten().all(|done| done.outcome.complete);

    // Before anything is written: the tables cannot be made of logits that are not finite.
    let tables = match complete {
        true => args.tables(model, &pairs, &done)?,
        false => None,
    };
    let provenance = pairs.provenance(&studied, computation)?;
    let (drawn, study) = args.study(&pairs, &done, provenance, complete)?;
    if !complete {
        exports.write(&study)?;
        return Err(interrupt.stopped(stopped_in_words(&done, &exports, n_cells)));
    }
    let mut report = studied.report()?;
    report.fact("image", output.path().display().to_string())?;
    args.say(&mut report, &studied, &pairs, tables.as_ref())?;
    let first_sweeps = done.iter().flat_map(|done| done.first());
    let ends: Vec<Endpoints> = first_sweeps.map(|done| done.ends).collect();
    pairs.say_ends(&mut report, &ends, args.engine.engine)?;
    report.study = Some(study);
    report.draw(PICTURE, &drawn.iter().map(String::as_str).collect::<Vec<_>>());
    report.show(PICTURE);
    let outputs = Outputs { options, pictures: vec![(PICTURE, output)], exports, page, ..Outputs::default() };
    outputs.write(&report)?;
    if let (Some(page), Some(recorder), Some(study)) = (&outputs.page, &recorder, &report.study) {
        let explored = recorder.page(&args.page.sites(&kinds), &study.provenance)?;
        page.write(render_page(&explored, MAKER)?.as_bytes())?;
    }
    report.fact("seconds", Seconds { load, sweep: sweep_seconds, total: start.elapsed().as_secs_f64() })?;
    let work = Work { done: format!("{n_cells} patched runs"), seconds: sweep_seconds, start };
    outputs.print(&report, args.model.json, Some(work))
}

impl Args {
    /// The pairs with the edits that stay.
    fn pairs(&self, model: &Pretrained) -> Result<Pairs, Failure> {
        let mut pairs = self.pair.ready(&self.set, &self.metric, (&self.model, Scale::Value), model)?;
        for pair in &mut pairs.list {
            let experiment = pair.pair.experiment.clone();
            pair.pair.experiment = given::given(experiment, &self.given, &model.model)?;
        }
        Ok(pairs)
    }

    /// What determines the numbers, beside the model.
    fn computation(&self, model: &Pretrained, pairs: &Pairs) -> Result<Computation, Failure> {
        let given = (!self.given.is_empty()).then(|| ("given", given::in_words(&self.given)));
        let site = ("site", sites_in_words(&self.selection.kinds()));
        let bos = self.model.bos(model)?;
        Ok(pairs.computation(bos, self.engine.engine, &self.set, [site].into_iter().chain(given)))
    }

    /// The most likely tokens after the clean and the corrupted run of one pair.
    fn tables(
        &self,
        model: &Pretrained,
        pairs: &Pairs,
        done: &[Vec<Done>],
    ) -> Result<Option<[Vec<Candidate>; 2]>, Failure> {
        let ([pair], [of_pair]) = (&pairs.list[..], done) else { return Ok(None) };
        let Some(unpatched) = of_pair.first().and_then(|done| done.outcome.unpatched.as_ref()) else {
            return Ok(None);
        };
        if self.top == 0 || self.model.json {
            return Ok(None);
        }
        let logits = unpatched.logits(&model.model);
        logits.iter().try_for_each(|logits| check_logits(logits, pair.experiment().n_tokens()))?;
        Ok(Some(logits.map(|logits| top(model, &logits, self.top))))
    }

    /// Says what is patched into what.
    fn say(
        &self,
        report: &mut Report,
        studied: &Studied,
        pairs: &Pairs,
        tables: Option<&[Vec<Candidate>; 2]>,
    ) -> Result<(), Failure> {
        let model = &studied.pretrained;
        let bos = self.model.bos(model)?;
        report.fact("bos", bos.is_some())?;
        report.fact("direction", self.pair.direction.to_string())?;
        if !self.given.is_empty() {
            report.fact("given", self.given.iter().map(Given::to_string).collect::<Vec<_>>())?;
        }
        // Whether every cell was reached.
        report.fact("complete", true)?;
        let one = pairs.list.len() == 1;
        if !one {
            report.line(format!("{} pairs, the first of which is", pairs.list.len()));
        }
        report.line(prompts_in_words(pairs.first()));
        report.line(self.model.bos_in_words(model, bos));
        match pairs.answers_in_words() {
            Some(answers) if !one => report.line(answers),
            _ => {}
        }
        if let Some(tables) = tables {
            let titles =
                ["clean", "corrupted"].map(|run| format!("top {} after the {run} run", tables[0].len()));
            let tables: Vec<(&str, &[Candidate])> =
                titles.iter().zip(tables).map(|(title, table)| (&**title, &**table)).collect();
            report.line(format!("\n{}", top_tables(&tables).trim_end_matches('\n')));
        }
        report.line(format!("\nmodel      {}", studied.label()));
        let label = if one { pairs.first().metric.label() } else { pairs.label.clone() };
        report.line(format!("metric     {label}"));
        if !one {
            report.line(format!("           {}", pairs.mean_in_words()));
        }
        if !self.given.is_empty() {
            report.line(format!("given      {}", given::in_words(&self.given)));
        }
        Ok(())
    }
}

/// What all sweeps of a run share.
struct Sweeper<'a> {
    args: &'a Args,
    pairs: &'a Pairs,
    model: &'a Gpt2,
    known: Option<Known<'a>>,
    recorder: Option<&'a Recorder<'a>>,
}

impl Sweeper<'_> {
    /// Runs one sweep of one pair.
    fn run(
        &self,
        pair: &ReadyPair,
        sweep: Sweep<'_>,
        progress: &(dyn Fn(f64) + Sync),
    ) -> Result<Done, Failure> {
        let Self { args, pairs, model, .. } = *self;
        let blank = blank_grid(pairs, pair, &sweep, model);
        let known = self.known.as_ref().map(|known| known.values(&blank)).transpose()?.flatten();
        let sweep = match &known {
            Some(known) => sweep.knowing(known.clone()),
            None => sweep,
        };
        let metric = pairs.metric_of_pair(pair);
        let outcome = match self.recorder {
            Some(recorder) if known.is_none() => recorder.run(&sweep, progress),
            _ => sweep.run(model, metric.metric(), args.engine.engine(), progress),
        };
        let ends = outcome.ends(pairs.direction);
        let mut values = vec![f32::NAN; outcome.grid.values.len()];
        let mut unpatched_base = f32::NAN;
        let mut legend = Vec::new();
        // A sweep that was stopped before its unpatched runs has nothing to compare with.
        if outcome.unpatched.is_some() {
            pairs.check_ends(pair, model, ends)?;
            let (shown, unpatched) = metric.shown(&outcome, pairs.direction)?;
            values = shown;
            unpatched_base = match pairs.direction {
                Direction::Denoising => unpatched[1],
                Direction::Noising => unpatched[0],
            };
            legend.push(Some(unpatched_in_words(unpatched)));
        }
        legend.push(missing_in_words(outcome.missing));
        for (value, known) in values.iter_mut().zip(known.iter().flatten()) {
            if !known.is_nan() {
                *value = *known; // as it was shown
            }
        }
        let (center, colors) = metric.middle(&values, unpatched_base, args.pair.base_name());
        legend.insert(0, colors);
        let legend = legend.into_iter().flatten().collect();
        Ok(Done {
            shown: Grid { center, values: values.clone(), legend, ..blank },
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
    /// The names of the grids that are drawn, and the study.
    fn study(
        &self,
        pairs: &Pairs,
        done: &[Vec<Done>],
        provenance: Provenance,
        complete: bool,
    ) -> Result<(Vec<String>, Study), Failure> {
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
        Some(path) => {
            format!("they are in {}; continue with the same flags and --resume {0}", path.display())
        }
        None => "nothing was written; a sweep that is exported (--safetensors FILE, say) can be stopped \
                 and resumed"
            .to_owned(),
    };
    format!("stopped after {reached} of {n_cells} cells: {what_next}")
}

fn prompts_in_words(pair: &ReadyPair) -> String {
    const SHOWN: usize = 6;
    let ReadyPair { clean, corrupted, .. } = pair;
    let prompt = |label: &str, prompt: &Prompt| {
        format!("{label:<9}  {}\n           {}\n", prompt.row(), prompt.id_row())
    };
    let differing = pair.experiment().differing_positions();
    let place = |&pos: &usize| {
        format!("{pos} ({} against {})", quoted(&clean.tokens[pos]), quoted(&corrupted.tokens[pos]))
    };
    let mut places: Vec<String> = differing.iter().take(SHOWN).map(place).collect();
    if differing.len() > SHOWN {
        places.push(format!("and {} more", differing.len() - SHOWN));
    }
    let s = if differing.len() == 1 { "" } else { "s" };
    format!(
        "{}{}{} tokens each; they differ at position{s} {}",
        prompt("clean", clean),
        prompt("corrupted", corrupted),
        clean.ids.len(),
        places.join(", ")
    )
}
