//! `patch-cli sweep`: patch one activation after the other and draw the heatmap.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use patching::prompts::{Average, Part, average};
use patching::{Axis, Direction, Outcome, SiteKind, Sweep};
use serde::Serialize;

use crate::common::{ModelArgs, terminal_style};
use crate::explore::{self, Exploration, PageArgs};
use crate::export::{
    AxisLabels, Draw, ExportArgs, Grid, Highlight, MadeHere, Provenance, Study, read_study,
};
use crate::failure::Failure;
use crate::figure::{FigureArgs, write_picture};
use crate::html;
use crate::metric::{MetricArgs, MetricReport};
use crate::output::Output;
use crate::pairs::{PairArgs, PairReport, ReadyPair, SetArgs};
use crate::render::write_figure;
use crate::report::{self, quoted};
use crate::running::{EngineArgs, EngineKind, Interrupt, progress_bar};
use crate::selection::{SelectionArgs, axis_labels};

/// Arguments of `sweep`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pair: PairArgs,

    #[command(flatten)]
    metric: MetricArgs,

    #[command(flatten)]
    selection: SelectionArgs,

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
}

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    bos: bool,
    direction: String,
    metric: MetricReport,
    engine: EngineKind,
    /// Of one pair its own; of many the mean.
    clean_metric: f32,
    corrupted_metric: f32,
    pairs: Vec<PairReport<'a>>,
    /// False if Ctrl-C came before the end: the cells that are missing are null.
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
    site: SiteKind,
    /// The values as they are shown.
    grid: patching::Grid,
    /// The metric of the clean and of the corrupted run, as it is shown.
    unpatched: [f32; 2],
    outcome: Outcome,
}

/// Runs the sweeps, prints what came out and draws the picture.
pub fn run(args: &Args, start: Instant) -> Result<(), Failure> {
    let output = Output::picture(&args.out)?;
    let page = args.page.prepare()?;
    let options = args.figure.options()?;
    let known = args.resume.as_deref().map(read_study).transpose()?;
    let many = args.set.is_asked_for();
    let model = args.model.load()?;
    let (gpt2, tokenizer) = (&model.model, &model.tokenizer);
    let pairs = args
        .pair
        .ready(Some(&args.set), &args.metric, &args.model, &model)?;
    let n_grids = match many {
        false => args.selection.kinds().len(),
        true => args.selection.kinds().len() * (3 + pairs.len()), // mean, low, high and each pair
    };
    let exports = args.export.prepare(n_grids)?;
    let all_ids: Vec<u32> = pairs.iter().flat_map(ReadyPair::ids).collect();
    args.model.warn_of_unknown_tokens(&model, &all_ids);
    let mut sweeps: Vec<Vec<Sweep<'_>>> = Vec::new();
    for pair in &pairs {
        sweeps.push(args.selection.sweeps(gpt2, tokenizer, pair.experiment())?);
    }
    let load = start.elapsed().as_secs_f64();

    // What is known from an earlier run must be of the same sweep.
    let names = Names { many };
    let provenance = args.provenance(&model, &pairs)?;
    let known = match &known {
        Some(known) => Some(Known::of(known, &provenance)?),
        None => None,
    };
    let cells = |sweep: &Sweep<'_>| sweep.patches(gpt2).len();
    let n_sweeps = sweeps.iter().map(Vec::len).sum();
    let n_cells = sweeps.iter().flatten().map(cells).sum();

    let before = Instant::now();
    let interrupt = Interrupt::listen()?;
    let (bar, progress) = progress_bar(n_sweeps, n_cells);
    let mut done: Vec<Vec<Done>> = Vec::new();
    for (pair, sweeps) in pairs.iter().zip(sweeps) {
        let mut of_pair = Vec::new();
        for sweep in sweeps {
            let blank = names.grid(pair, &sweep, sweep.places(gpt2));
            let known = known
                .as_ref()
                .map(|known| known.values(&blank))
                .transpose()?
                .flatten();
            let sweep = sweep.stopped_by(interrupt.flag());
            let sweep = match &known {
                Some(known) => sweep.knowing(known.clone()),
                None => sweep,
            };
            let outcome = sweep.run(gpt2, pair.metric.metric, args.engine.engine(), &progress);
            let (mut values, unpatched) = pair.metric.shown(&outcome)?;
            for (value, known) in values.iter_mut().zip(known.iter().flatten()) {
                if !known.is_nan() {
                    *value = *known; // as it was shown
                }
            }
            of_pair.push(Done {
                site: sweep.site(),
                grid: patching::Grid {
                    values,
                    ..outcome.grid.clone()
                },
                unpatched,
                outcome,
            });
        }
        done.push(of_pair);
    }
    bar.finish_and_clear();
    let sweep_seconds = before.elapsed().as_secs_f64();
    let complete = done.iter().flatten().all(|done| done.outcome.complete);

    let (shown, exported) = args.studies(&pairs, &done, &names, provenance)?;
    exports.write(&exported)?;
    if !complete {
        return Err(args.stopped(&exported, &exports.paths(), n_cells)?);
    }
    let figure = shown.figure()?;
    write_picture(&figure, &options, &output, &shown.provenance)?;
    if let (Some(page), [pair], [done]) = (&page, &pairs[..], &done[..]) {
        let asked = Exploration {
            model: &model,
            experiment: pair.experiment(),
            sites: args.page.sites(&args.selection.kinds()),
            metric: &pair.metric,
            engine: args.engine.engine(),
            unpatched: &done[0].outcome.unpatched,
            stop: interrupt.flag(),
        };
        let explored = explore::page(&asked, &shown.provenance)?;
        page.write(html::render(&explored)?.as_bytes())?;
    }

    let mean = |i: usize| {
        let of_pair = done.iter().flat_map(|done| done.first());
        of_pair.map(|done| done.unpatched[i]).sum::<f32>() / pairs.len() as f32
    };
    let (clean_metric, corrupted_metric) = (mean(0), mean(1));
    if args.model.json {
        let report = Report {
            model: &model.name,
            bos: args.model.bos,
            direction: args.pair.direction.to_string(),
            metric: pairs[0].metric.report(),
            engine: args.engine.engine,
            clean_metric,
            corrupted_metric,
            pairs: pairs
                .iter()
                .zip(&done)
                .map(|(pair, done)| pair_report(pair, done))
                .collect(),
            complete,
            seconds: Seconds {
                load,
                sweep: sweep_seconds,
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
    match (&pairs[..], &done[..]) {
        ([pair], [done]) => {
            write_prompts(&mut out, pair)?;
            if args.top > 0 {
                let unpatched = &done[0].outcome.unpatched;
                let tables = unpatched
                    .logits(gpt2)
                    .map(|logits| report::top(&model, &logits, args.top));
                let titles = ["clean", "corrupted"]
                    .map(|run| format!("top {} after the {run} run", tables[0].len()));
                writeln!(out)?;
                let tables: Vec<(&str, &[report::Candidate])> = titles
                    .iter()
                    .zip(&tables)
                    .map(|(title, table)| (&**title, &**table))
                    .collect();
                report::write_top_tables(&mut out, &tables)?;
            }
            writeln!(out, "\nmetric     {}", pair.metric.label())?;
        }
        _ => {
            writeln!(out, "{} pairs, the first of which is", pairs.len())?;
            write_prompts(&mut out, &pairs[0])?;
            writeln!(
                out,
                "\nmetric     {}, mean over the pairs",
                shown.grids[0].value_label
            )?;
        }
    }
    writeln!(out, "clean      {clean_metric:+.4}")?;
    writeln!(out, "corrupted  {corrupted_metric:+.4}\n")?;
    let in_terminal = options.applied(&figure.without_subtitle());
    write_figure(&mut out, &in_terminal, terminal_style())?;
    writeln!(
        out,
        "\n{n_cells} patched runs in {sweep_seconds:.2} s; {:.2} s from start to end\nwrote {}",
        start.elapsed().as_secs_f64(),
        output.path().display()
    )?;
    for path in exports
        .paths()
        .into_iter()
        .chain(page.iter().map(Output::path))
    {
        writeln!(out, "wrote {}", path.display())?;
    }
    Ok(())
}

fn pair_report<'a>(pair: &'a ReadyPair, done: &[Done]) -> PairReport<'a> {
    let [clean_metric, corrupted_metric] =
        done.first().map_or([f32::NAN; 2], |done| done.unpatched);
    PairReport {
        line: pair.pair.line,
        clean: &pair.clean,
        corrupted: &pair.corrupted,
        a: pair.metric.a.as_deref(),
        b: pair.metric.b.as_deref(),
        clean_metric,
        corrupted_metric,
    }
}

/// How the grids are called.
struct Names {
    many: bool,
}

impl Names {
    /// The grid of one sweep of one pair, without its values.
    fn grid(&self, pair: &ReadyPair, sweep: &Sweep<'_>, places: Vec<Vec<usize>>) -> Grid {
        self.labelled(pair, sweep.site(), sweep.axes(), &places)
    }

    fn labelled(
        &self,
        pair: &ReadyPair,
        site: SiteKind,
        axes: &[Axis],
        places: &[Vec<usize>],
    ) -> Grid {
        let differing = pair.experiment().differing_positions();
        let pos = axes.iter().position(|axis| *axis == Axis::Pos);
        let highlight = pos.map(|pos| Highlight {
            axis: Axis::Pos.to_string(),
            indices: (0..places[pos].len())
                .filter(|&i| differing.contains(&places[pos][i]))
                .collect(),
            label: "the prompts differ here".to_owned(),
        });
        Grid {
            name: match self.many {
                true => format!("{site}, pair {}", pair.pair.line),
                false => site.to_string(),
            },
            axes: axis_labels(axes, places, &pair.base().tokens),
            value_label: pair.metric.label(),
            center: pair.metric.center(),
            highlight,
            ..Grid::default()
        }
    }
}

/// What is known from an earlier run.
struct Known<'a>(&'a Study);

impl<'a> Known<'a> {
    /// Refuses an export of other prompts or of another model.
    fn of(study: &'a Study, provenance: &Provenance) -> Result<Self, Failure> {
        let (then, now) = (&study.provenance, provenance);
        if then.model != now.model {
            return Err(Failure::Input(format!(
                "--resume: the file is of the model {} and this run of {}",
                quoted(&then.model),
                quoted(&now.model)
            )));
        }
        if then.prompts != now.prompts {
            return Err(Failure::Input(
                "--resume: the file is of other prompts, or of another direction; give the flags of the \
                 run that was stopped"
                    .to_owned(),
            ));
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
    let axes = grid
        .axes
        .iter()
        .map(|axis| format!("{} {}", axis.labels.len(), axis.name));
    axes.collect::<Vec<_>>().join(" × ")
}

impl Args {
    fn provenance(
        &self,
        model: &gpt2::Pretrained,
        pairs: &[ReadyPair],
    ) -> Result<Provenance, Failure> {
        let direction = self.pair.direction.to_string();
        let mut prompts = vec![("direction".to_owned(), direction.as_str())];
        for pair in pairs {
            let line = match pairs.len() {
                1 => String::new(),
                _ => format!(" {}", pair.pair.line),
            };
            prompts.push((format!("clean{line}"), &pair.clean.text));
            prompts.push((format!("corrupted{line}"), &pair.corrupted.text));
        }
        let prompts: Vec<(&str, &str)> = prompts
            .iter()
            .map(|(name, text)| (&**name, *text))
            .collect();
        Provenance::new(
            model,
            &prompts,
            self.export.is_wanted() || self.page.is_wanted(),
        )
    }

    /// What is drawn, and what is exported: of one pair the same, of many pairs the mean, and with it
    /// its interval and every pair.
    fn studies(
        &self,
        pairs: &[ReadyPair],
        done: &[Vec<Done>],
        names: &Names,
        provenance: Provenance,
    ) -> Result<(Study, Study), Failure> {
        let (source, base) = match self.pair.direction {
            Direction::Denoising => ("clean", "corrupted"),
            Direction::Noising => ("corrupted", "clean"),
        };
        let sites: Vec<String> = self
            .selection
            .kinds()
            .iter()
            .map(SiteKind::to_string)
            .collect();
        let title = format!(
            "Patching {} from the {source} into the {base} run",
            sites.join(", ")
        );
        let model = format!("model: {}, {}", provenance.model, self.pair.direction);
        let first = &pairs[0];
        let study = |subtitle: Vec<String>, grids: Vec<Grid>| Study {
            provenance: provenance.clone(),
            title: title.clone(),
            subtitle,
            grids,
        };
        let grid_of = |pair: &ReadyPair, done: &Done| {
            let legend = [pair.metric.colors(), Some(unpatched(done.unpatched))];
            Grid {
                values: done.grid.values.clone(),
                legend: legend.into_iter().flatten().collect(),
                ..names.labelled(pair, done.site, &done.grid.axes, &done.grid.places)
            }
        };
        let by_pair: Vec<Grid> = pairs
            .iter()
            .zip(done)
            .flat_map(|(pair, done)| done.iter().map(move |done| (pair, done)))
            .map(|(pair, done)| grid_of(pair, done))
            .collect();
        if !names.many {
            let subtitle = vec![
                format!("clean: {}", first.clean.text),
                format!("corrupted: {}", first.corrupted.text),
                model,
            ];
            let shown = study(subtitle, by_pair);
            return Ok((shown.clone(), shown));
        }
        let subtitle = vec![
            format!(
                "mean over {} pairs, the first: {}",
                pairs.len(),
                first.clean.text
            ),
            model,
        ];
        let mut means = Vec::new();
        let mut intervals = Vec::new();
        for (i, site) in sites.iter().enumerate() {
            let parts: Vec<Part<'_>> = pairs
                .iter()
                .zip(done)
                .map(|(pair, done)| Part::new(&pair.pair, &done[i].grid))
                .collect();
            let average = average(&parts, self.set.align(), self.set.bootstrap())?;
            let named = |suffix: &str, grid: &patching::Grid| Grid {
                name: format!("{site}{suffix}"),
                axes: axes_of(&average),
                values: grid.values.clone(),
                value_label: match self.metric.logit_diff {
                    Some(_) => first.metric.label(),
                    None => first.metric.general_label(),
                },
                center: first.metric.center(),
                legend: vec![format!("Mean over {} pairs.", pairs.len())],
                ..Grid::default()
            };
            means.push(named("", &average.mean));
            intervals.push(named(", low", &average.low));
            intervals.push(named(", high", &average.high));
        }
        let all = [means.clone(), intervals, by_pair].concat();
        Ok((study(subtitle.clone(), means), study(subtitle, all)))
    }

    /// What is said when Ctrl-C has stopped the sweep.
    fn stopped(
        &self,
        study: &Study,
        paths: &[&std::path::Path],
        n_cells: usize,
    ) -> Result<Failure, Failure> {
        let reached = study
            .grids
            .iter()
            .flat_map(|grid| &grid.values)
            .filter(|value| !value.is_nan());
        let reached = match self.set.is_asked_for() {
            true => "some".to_owned(),
            false => reached.count().to_string(),
        };
        let what_next = match paths.first() {
            Some(path) => format!(
                "they are in {}; go on with the same flags and --resume {0}",
                path.display()
            ),
            None => {
                "nothing was written; a sweep that is exported (--safetensors FILE, say) can be \
                     stopped and resumed"
                    .to_owned()
            }
        };
        Ok(Failure::Stopped(format!(
            "stopped after {reached} of {n_cells} cells: {what_next}"
        )))
    }
}

fn axes_of(average: &Average) -> Vec<AxisLabels> {
    let axes = average.mean.axes.iter().enumerate();
    let labelled = |(i, axis): (usize, &Axis)| {
        let places = average.mean.places[i].clone();
        AxisLabels::at(&axis.to_string(), places, average.labels(i))
    };
    axes.map(labelled).collect()
}

/// Where the unpatched runs lie.
fn unpatched([clean, corrupted]: [f32; 2]) -> String {
    let signed = |value: f32| format!("{value:+.2}").replace('-', "−");
    format!(
        "Unpatched: clean {}, corrupted {}.",
        signed(clean),
        signed(corrupted)
    )
}

fn write_prompts(out: &mut impl Write, pair: &ReadyPair) -> io::Result<()> {
    let ReadyPair {
        clean, corrupted, ..
    } = pair;
    for (label, prompt) in [("clean", clean), ("corrupted", corrupted)] {
        writeln!(
            out,
            "{label:<9}  {}\n           {}",
            prompt.row(),
            prompt.id_row()
        )?;
    }
    let differing = pair.experiment().differing_positions();
    const SHOWN: usize = 6;
    let mut places: Vec<String> = differing
        .iter()
        .take(SHOWN)
        .map(|&pos| {
            format!(
                "{pos} ({} against {})",
                quoted(&clean.tokens[pos]),
                quoted(&corrupted.tokens[pos])
            )
        })
        .collect();
    if differing.len() > SHOWN {
        places.push(format!("and {} more", differing.len() - SHOWN));
    }
    let s = if differing.len() == 1 { "" } else { "s" };
    writeln!(
        out,
        "{} tokens each; they differ at position{s} {}",
        clean.ids.len(),
        places.join(", ")
    )
}
