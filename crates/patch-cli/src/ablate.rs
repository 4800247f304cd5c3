//! `patch-cli ablate`: replace one activation after the other, and see what is lost.

use crate::figure::FigureArgs;
use crate::study::{Outputs, PICTURE, Work};
use report::{Prompt, signed};
use std::path::{Path, PathBuf};
use std::time::Instant;

use gpt2::Pretrained;
use patching::prompts::{Ioi, PromptPair, PromptSet, Prompts, Written};
use patching::{Ablation, Direction, Experiment, Outcome, Scale, SiteKind, Sweep};

use crate::common::ModelArgs;
use crate::computation::{Computation, checksum_of_tokens, computation};
use crate::export::{ExportArgs, Grid, Study, named};
use crate::failure::Failure;
use crate::metric::{Answers, MetricArgs, NamedMetric};
use crate::output::Output;
use crate::pairs::{CLEAN, default_answers, missing_in_words};
use crate::place::Place;
use crate::processing::ProcessArgs;
use crate::running::{EngineArgs, Interrupt, progress_bar};
use crate::screen;
use crate::selection::{SelectionArgs, axis_labels, sites_in_words};

const EXAMPLES: &str = "\
Examples:
  patch-cli ablate --site z --with mean
  patch-cli ablate 'When Mary and John went to the shops, John gave the bag to' \\
            --logit-diff ' Mary' ' John' --with zero --out zero.png
  patch-cli ablate --site mlp_out --with mean --others ioi --count 20";

/// Arguments of `ablate`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The prompt [default: "Michelle Jones was a top-notch student. Michelle"]
    #[arg(value_name = "TEXT")]
    text: Option<String>,

    /// Replacement of the activation: zero; mean (over the prompt's positions, or over all positions of --others);
    /// other-position N (the prompt's own activation at position N; -1 is the last); resample (the activations of
    /// each prompt of --others in turn; the result is the mean)
    #[arg(long = "with", value_names = ["HOW", "N"], num_args = 1..=2, allow_negative_numbers = true, default_value = "zero")]
    with: Vec<String>,

    /// The other prompts: a file with one prompt per line, a file of pairs as for sweep --prompts (its clean
    /// prompts are used; no other column is needed), or ioi for prompts of the indirect-object task
    #[arg(long, value_name = "FILE|ioi")]
    others: Option<PathBuf>,

    /// Number of prompts of --others ioi
    #[arg(long, value_name = "N", default_value_t = Ioi::default().count)]
    count: usize,

    /// Seed of --others ioi
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    metric: MetricArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    #[command(flatten)]
    engine: EngineArgs,

    /// File of the picture (.png or .svg)
    #[arg(long, value_name = "FILE", default_value = "ablation.png")]
    out: PathBuf,

    #[command(flatten)]
    figure: FigureArgs,

    #[command(flatten)]
    export: ExportArgs,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

/// What is put in the activation's place.
enum Replacement {
    By(Ablation),
    Resampled(Vec<Vec<u32>>),
}

/// Runs the ablations, prints what came out and draws the picture.
pub fn run(args: &Args, start: Instant) -> Result<(), Failure> {
    let output = Output::picture(&args.out)?;
    let options = args.figure.options()?;
    let kinds = args.kinds();
    let exports = args.export.prepare(kinds.len())?;
    let (how, text) = args.how_and_text()?;
    let studied = (args.process).load_for_study(&args.model, args.export.is_wanted())?;
    let model = &studied.pretrained;
    let ablations = Ablations::new(args, model, how, &text)?;
    let before = Instant::now();
    let (outcomes, n_cells) = ablations.run(args, model)?;
    let seconds = before.elapsed().as_secs_f64();

    let Ablations { how, prompt, metric, .. } = &ablations;
    let unablated = outcomes.first().map_or(f32::NAN, |outcome| outcome.clean_metric);
    let mut report = studied.report()?;
    report.study = Some(Study {
        provenance: studied.provenance(named(&[("prompt", &text)]), ablations.computation(args, model)?)?,
        numbers_sha256: None,
        title: format!("Ablating {}: {how} ({})", sites_in_words(&kinds), metric.scale_in_words()),
        subtitle: vec![format!("prompt: {text}"), format!("model: {}", studied.label())],
        grids: ablations.grids(&kinds, outcomes)?,
    });
    let bos = args.model.bos(model)?;
    report.fact("bos", bos.is_some())?;
    report.fact("prompt", prompt)?;
    report.fact("with", how)?;
    report.fact("metric", metric.report())?;
    report.fact("engine", args.engine.engine.to_string())?;
    report.fact("unablated", unablated)?;
    report.fact("image", output.path().display().to_string())?;
    let of_bos = args.model.bos_in_words(model, bos);
    report.line(format!("prompt     {}\n           {}\n           {of_bos}", prompt.row(), prompt.id_row()));
    report.line(format!("model      {}", studied.label()));
    report.line(format!("with       {how}"));
    report.line(format!("metric     {}", metric.label()));
    report.line(format!("unablated  {unablated:+.4}"));
    report.draw(PICTURE, &[]);
    report.show(PICTURE);
    let outputs = Outputs { options, pictures: vec![(PICTURE, output)], exports, ..Outputs::default() };
    outputs.write(&report)?;
    let work = Work { done: format!("{n_cells} ablated runs"), seconds, start };
    outputs.print(&report, args.model.json, Some(work))
}

/// The ablations of one prompt.
struct Ablations {
    /// What is put in the activation's place, as it is typed.
    how: String,
    prompt: Prompt,
    metric: NamedMetric,
    /// To resample is to patch from the other prompts, and to take the mean of what that does: an experiment for each.
    experiments: Vec<Experiment>,
}

impl Ablations {
    fn new(args: &Args, model: &Pretrained, how: String, text: &str) -> Result<Self, Failure> {
        let prompt = args.model.prompt(model, text)?;
        let ids = &prompt.ids;
        let answers = match text == CLEAN && !args.metric.has_answers() {
            true => default_answers(model)?,
            false => [Answers::default(), Answers::default()],
        };
        let metric = args.metric.named(model, ids.len(), answers.each_ref(), Scale::Value)?;
        let replacement = args.replacement(model, &how, &prompt)?;
        args.model.warn_of_unknown_tokens(model, &[&ids[..], &metric.tokens()].concat());
        if args.kinds().iter().any(|kind| kind.is_of_pairs())
            && matches!(&replacement, Replacement::By(ablation) if *ablation != Ablation::Zero)
        {
            return Err(Failure::Input(format!(
                "--with {how}: the rows of a pattern attend to different numbers of positions, so neither one \
                 of them nor their mean can stand for another; use --with zero or resample, or other sites"
            )));
        }
        let experiments = match replacement {
            Replacement::By(ablation) => {
                vec![Experiment::ablation(&model.model, ids.clone(), ablation)?]
            }
            Replacement::Resampled(others) => {
                let patched_from =
                    |other| Experiment::new(&model.model, ids.clone(), other, Direction::Noising);
                others.into_iter().map(patched_from).collect::<Result<_, _>>()?
            }
        };
        Ok(Self { how, prompt, metric, experiments })
    }

    /// Runs all sweeps: for each kind of site the mean over the experiments, and the number of runs.
    fn run(&self, args: &Args, model: &Pretrained) -> Result<(Vec<Outcome>, usize), Failure> {
        let selection = args.selection.with_default(SiteKind::Z);
        let mut sweeps: Vec<Vec<Sweep<'_>>> = Vec::new();
        for experiment in &self.experiments {
            sweeps.push(selection.sweeps(&model.model, &model.tokenizer, experiment)?);
        }
        let interrupt = Interrupt::listen()?;
        let n_cells = sweeps.iter().flatten().map(|sweep| sweep.patches(&model.model).len()).sum();
        let (bar, progress) = progress_bar(sweeps.iter().map(Vec::len).sum(), n_cells);
        let mut by_kind: Vec<Vec<Outcome>> = vec![Vec::new(); args.kinds().len()];
        for (experiment, of_experiment) in self.experiments.iter().zip(sweeps) {
            for (sweep, outcomes) in of_experiment.into_iter().zip(&mut by_kind) {
                let sweep = sweep.stopped_by(interrupt.flag());
                let outcome = sweep.run(&model.model, self.metric.metric(), args.engine.engine(), &progress);
                if !outcome.complete {
                    return Err(interrupt.stopped("stopped: nothing was written".to_owned()));
                }
                experiment.check_ends(&model.model, outcome.ends(Direction::Noising))?;
                outcomes.push(outcome);
            }
        }
        bar.finish_and_clear();
        Ok((by_kind.iter().filter_map(|outcomes| Outcome::mean(outcomes)).collect(), n_cells))
    }

    /// The grids of the outcomes, one for each kind of site. The colours show what has changed.
    fn grids(&self, kinds: &[SiteKind], outcomes: Vec<Outcome>) -> Result<Vec<Grid>, Failure> {
        let grid = |(kind, outcome): (&SiteKind, Outcome)| {
            let ends = outcome.ends(Direction::Noising);
            let mut values = outcome.grid.values;
            self.metric.scale.apply(&mut values, ends)?;
            let middle = match self.metric.scale {
                Scale::Value => ends.base,
                Scale::Normalized => 1.0,
                Scale::Change | Scale::NormalizedChange => 0.0,
            };
            let words = format!("Without ablation: {}, the middle colour.", signed(middle));
            Ok(Grid {
                name: kind.to_string(),
                axes: axis_labels(&outcome.grid.axes, &outcome.grid.places, &self.prompt.tokens),
                values,
                value_label: self.metric.label(),
                center: Some(middle),
                legend: [Some(words), missing_in_words(outcome.missing)].into_iter().flatten().collect(),
                ..Grid::default()
            })
        };
        kinds.iter().zip(outcomes).map(grid).collect()
    }

    /// What determines the numbers, beside the model.
    fn computation(&self, args: &Args, model: &Pretrained) -> Result<Computation, Failure> {
        let tokens = self.experiments.iter().flat_map(|it| {
            let others: &[Vec<u32>] = match it.replaced_by() {
                Some(Ablation::MeanOf(prompts)) => prompts,
                _ => &[],
            };
            [it.clean(), it.corrupted()].into_iter().chain(others.iter().map(Vec::as_slice))
        });
        let bos = args.model.bos(model)?;
        let metric = &self.metric;
        Ok(computation([
            ("bos", bos.map_or_else(|| "none".to_owned(), |id| id.to_string())),
            ("tokens", checksum_of_tokens(tokens)),
            ("ablation", self.how.clone()),
            ("site", sites_in_words(&args.kinds())),
            ("metric", metric.computation()),
            ("answers", checksum_of_tokens([&metric.a.ids[..], &metric.b.ids])),
            ("engine", args.engine.engine.to_string()),
        ]))
    }
}

impl Args {
    fn kinds(&self) -> Vec<SiteKind> {
        self.selection.with_default(SiteKind::Z).kinds()
    }

    /// How to ablate, in one word or two, and the prompt.
    fn how_and_text(&self) -> Result<(String, String), Failure> {
        let text = |given: Option<&String>| given.map_or(CLEAN, String::as_str).to_owned();
        match (self.with.as_slice(), &self.text) {
            ([how, position], given) if how == "other-position" => {
                Ok((format!("{how} {position}"), text(given.as_ref())))
            }
            // `--with zero TEXT`: what stands behind the word is the prompt.
            ([how, prompt], None) => Ok((how.clone(), prompt.clone())),
            ([how, more], Some(_)) => Err(Failure::Input(format!("--with {how} takes no \"{more}\""))),
            ([how], given) => Ok((how.clone(), text(given.as_ref()))),
            (_, given) => Ok(("zero".to_owned(), text(given.as_ref()))),
        }
    }

    fn replacement(&self, model: &Pretrained, how: &str, prompt: &Prompt) -> Result<Replacement, Failure> {
        if self.others.is_some() && !["mean", "resample"].contains(&how) {
            return Err(Failure::Input(format!("--others is for --with mean and resample, not for {how}")));
        }
        match how.split_once(' ') {
            None if how == "zero" => Ok(Replacement::By(Ablation::Zero)),
            None if how == "mean" => Ok(Replacement::By(match self.other_prompts(model)? {
                Some(prompts) => Ablation::MeanOf(prompts),
                None => Ablation::Mean,
            })),
            None if how == "resample" => {
                let Some(others) = self.other_prompts(model)? else {
                    return Err(Failure::Input(
                        "--with resample needs the prompts to take activations from: --others FILE or \
                         --others ioi"
                            .to_owned(),
                    ));
                };
                let n = prompt.ids.len();
                if let Some(other) = others.iter().find(|other| other.len() != n) {
                    let tokens = Prompt::new(&model.tokenizer, "", other);
                    return Err(Failure::Input(format!(
                        "--with resample: the prompt has {n} tokens and {} has {}; resampling needs \
                         equally many",
                        tokens.row(),
                        other.len()
                    )));
                }
                let others: Vec<Vec<u32>> = others.into_iter().filter(|other| *other != prompt.ids).collect();
                match others.is_empty() {
                    true => Err(Failure::Input(
                        "--others holds no prompt but this one: there is nothing to resample".to_owned(),
                    )),
                    false => Ok(Replacement::Resampled(others)),
                }
            }
            Some(("other-position", position)) => {
                let at = |failure: Failure| failure.at("--with other-position");
                let place = position.parse::<Place>().map_err(Failure::Input);
                let position = place.and_then(|place| place.of(prompt.ids.len(), "position"));
                Ok(Replacement::By(Ablation::Position(position.map_err(at)?)))
            }
            _ if how == "other-position" => Err(Failure::Input(
                "--with other-position needs the position: --with other-position 0".to_owned(),
            )),
            _ => Err(Failure::Input(format!(
                "unknown ablation \"{how}\": expected zero, mean, other-position N or resample"
            ))),
        }
    }

    /// The prompts of `--others`.
    fn other_prompts(&self, model: &Pretrained) -> Result<Option<Vec<Vec<u32>>>, Failure> {
        let Some(path) = &self.others else {
            return Ok(None);
        };
        let ioi = Ioi { count: self.count, seed: self.seed, ..Ioi::default() };
        let others = match path {
            _ if path == Path::new("ioi") => {
                let PromptSet { name, pairs, numbering, notes } = ioi.prompts(model)?;
                let clean = |pair: PromptPair| (pair.line, pair.clean);
                Prompts { name, prompts: pairs.into_iter().map(clean).collect(), numbering, notes }
            }
            _ => Prompts::open(path, self.model.ids)?,
        };
        screen::notes(&others.notes);
        let encode = |(number, prompt): &(usize, Written)| {
            let ids = match prompt {
                Written::Text(text) => model.tokenizer.encode(text).map_err(Failure::from),
                Written::Ids(ids) => Ok(ids.clone()),
            };
            let ids = ids.and_then(|ids| self.model.with_bos(model, ids));
            let place = others.numbering.place(*number);
            ids.map_err(|failure| failure.at(&format!("{}, {place}", others.name)))
        };
        others.prompts.iter().map(encode).collect::<Result<_, _>>().map(Some)
    }
}
