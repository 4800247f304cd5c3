//! The arguments that say which prompts are patched into which: one pair, or a set of pairs.

use std::path::PathBuf;
use std::str::FromStr;

use gpt2::{Gpt2, Pretrained};
use patching::prompts::{
    Align, Average, Bootstrap, Corruption, Ioi, Pair, Part, PromptPair, PromptSet, Task, TaskPrompts,
    Written, average_on,
};
use patching::{Axis, Direction, Endpoints, Engine, Experiment, Means, Scale};
use serde::Serialize;

use crate::common::ModelArgs;
use crate::computation::{Computation, checksum_of_tokens, computation};
use crate::export::{AxisLabels, Grid, NamedText, Provenance, Study};
use crate::failure::Failure;
use crate::metric::{Answers, AnswersReport, MetricArgs, MetricReport, NamedMetric};
use crate::names;
use crate::processing::Studied;
use crate::screen::{self, terminal_width};
use report::{Prompt, Report, aligned, write_columns};

pub use report::{missing_in_words, unpatched_in_words};

pub const CLEAN: &str = "Michelle Jones was a top-notch student. Michelle";
const CORRUPTED: &str = "Michelle Smith was a top-notch student. Michelle";
const ANSWERS: [&str; 2] = [" Smith", " Jones"];

/// Arguments of every subcommand that patches one prompt into another.
#[derive(Clone, clap::Args)]
pub struct PairArgs {
    /// Prompt with the right answer [default: the pair of Michelle Jones and Michelle Smith]
    #[arg(long, value_name = "TEXT", requires = "corrupted", allow_hyphen_values = true)]
    pub clean: Option<String>,

    /// The same prompt with another fact, of as many tokens
    #[arg(long, value_name = "TEXT", requires = "clean", allow_hyphen_values = true)]
    pub corrupted: Option<String>,

    /// denoising patches clean activations into the corrupted run, noising the other way round
    #[arg(long, default_value_t, value_parser = names::direction())]
    pub direction: Direction,
}

/// The heading of [`SetArgs`] in the help. (`next_help_heading` would also take what follows.)
const HEADING: &str = "Many prompts";

/// Arguments of every subcommand that takes the mean over many pairs.
#[derive(Clone, clap::Args)]
pub struct SetArgs {
    /// Mean over the pairs of a file: JSON, JSON lines, CSV or TSV with clean, corrupted, and the answers a
    /// and b (several are a set); the files of EAP-IG, MIB and auto-circuit are read as well
    #[arg(long, help_heading = HEADING, value_name = "FILE", conflicts_with_all = ["clean", "prompt_set"])]
    pub prompts: Option<PathBuf>,

    /// Mean over the pairs of a built-in set: random ones from templates, or the eight prompts of
    /// TransformerLens's tutorial (ioi-tutorial)
    #[arg(long, help_heading = HEADING, value_name = "NAME", conflicts_with = "clean")]
    #[arg(value_parser = names::prompt_sets())]
    pub prompt_set: Option<SetName>,

    /// How many pairs of a --prompt-set from templates
    #[arg(long, help_heading = HEADING, value_name = "N", default_value_t = Ioi::default().count)]
    pub count: usize,

    /// Seed of the pairs and of the interval
    #[arg(long, help_heading = HEADING, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// How the corrupted prompts of --prompt-set ioi are made: the second name swapped (swap), or three other
    /// names (abc) [default: swap]
    #[arg(long, help_heading = HEADING, value_name = "HOW", value_parser = names::corruptions())]
    pub corruption: Option<Corruption>,

    /// Where positions are counted from if the prompts have different lengths
    #[arg(long, help_heading = HEADING, value_name = "ORIGIN", value_parser = names::aligns())]
    pub align: Option<Align>,

    /// Number of bootstrap resamples for the 95 % confidence interval
    #[arg(long, help_heading = HEADING, value_name = "N", default_value_t = Bootstrap::default().resamples)]
    pub resamples: usize,
}

/// Sets of pairs that come with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetName {
    Ioi,
    IoiTutorial,
    Task(Task),
}

impl FromStr for SetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ioi" => Ok(Self::Ioi),
            "ioi-tutorial" => Ok(Self::IoiTutorial),
            task => Ok(Self::Task(task.parse()?)),
        }
    }
}

impl SetArgs {
    /// How the interval is found.
    fn bootstrap(&self) -> Bootstrap {
        Bootstrap { resamples: self.resamples, seed: self.seed, ..Bootstrap::default() }
    }

    /// The pairs as text, if many are asked for.
    fn set(&self, model: &Pretrained, ids: bool) -> Result<Option<PromptSet>, Failure> {
        if self.corruption.is_some() && self.prompt_set != Some(SetName::Ioi) {
            return Err(Failure::Input("--corruption is for --prompt-set ioi".to_owned()));
        }
        if let Some(path) = &self.prompts {
            let set = PromptSet::open(path, ids)?;
            screen::notes(&set.notes);
            return Ok(Some(set));
        }
        let ioi = Ioi { count: self.count, seed: self.seed, corruption: self.corruption.unwrap_or_default() };
        match self.prompt_set {
            Some(SetName::Ioi) => Ok(Some(ioi.prompts(model)?)),
            Some(SetName::IoiTutorial) => Ok(Some(PromptSet::ioi_tutorial())),
            Some(SetName::Task(task)) => {
                let made = TaskPrompts { task, count: self.count, seed: self.seed };
                Ok(Some(made.prompts(model)?))
            }
            None => Ok(None),
        }
    }
}

/// One pair, ready to run.
pub struct ReadyPair {
    pub clean: Prompt,
    pub corrupted: Prompt,
    pub pair: Pair,
    pub metric: NamedMetric,
}

/// The pairs that a subcommand patches: one, or a set of which it shows the mean. There is at least one.
pub struct Pairs {
    pub list: Vec<ReadyPair>,
    /// Whether they are a set, even if it is of one pair.
    pub many: bool,
    /// The metric in words; of a set, where each pair has its own answers, with their columns' names.
    pub label: String,
    pub direction: Direction,
}

/// How JSON shows pairs.
struct PairsReport<'a> {
    metric: MetricReport,
    /// Of one pair its own; of many the mean.
    clean_metric: f32,
    corrupted_metric: f32,
    pairs: Vec<PairReport<'a>>,
}

/// How JSON shows a pair.
#[derive(Serialize)]
struct PairReport<'a> {
    /// Its line in the file, or its number.
    line: usize,
    clean: &'a Prompt,
    corrupted: &'a Prompt,
    a: Option<AnswersReport>,
    b: Option<AnswersReport>,
    clean_metric: f32,
    corrupted_metric: f32,
}

impl ReadyPair {
    /// The experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.pair.experiment
    }

    /// The prompt that is run again and again.
    pub fn base(&self) -> &Prompt {
        match self.experiment().direction() {
            Direction::Denoising => &self.corrupted,
            Direction::Noising => &self.clean,
        }
    }

    /// All tokens that it is about.
    fn ids(&self) -> Vec<u32> {
        [&self.clean.ids[..], &self.corrupted.ids, &self.metric.tokens()].concat()
    }
}

impl Pairs {
    /// The first pair, which stands for the others where there is room for one only.
    pub fn first(&self) -> &ReadyPair {
        &self.list[0]
    }

    /// All tokens that they are about.
    pub fn ids(&self) -> Vec<u32> {
        self.list.iter().flat_map(ReadyPair::ids).collect()
    }

    /// How many grids are exported of so many kinds.
    pub fn n_grids(&self, kinds: usize) -> usize {
        match self.many {
            false => kinds,
            true => kinds * (3 + self.list.len()), // mean, low, high and each pair
        }
    }

    /// What a pair's grid is called.
    pub fn name_of_grid(&self, name: &str, pair: &ReadyPair) -> String {
        match self.many {
            true => format!("{name}, pair {}", pair.pair.line),
            false => name.to_owned(),
        }
    }

    /// The provenance of what is computed of them.
    ///
    /// # Errors
    /// As [`Studied::provenance`].
    pub fn provenance(&self, studied: &Studied, computation: Computation) -> Result<Provenance, Failure> {
        studied.provenance(self.prompts(), computation)
    }

    /// What determines the numbers of a study of these pairs, with what it adds.
    pub fn computation<'a>(
        &self,
        bos: Option<u32>,
        engine: Engine,
        set: &SetArgs,
        more: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Computation {
        let experiments = || self.list.iter().map(ReadyPair::experiment);
        let metric = &self.first().metric;
        let answers = self.list.iter().flat_map(|pair| [&pair.metric.a.ids[..], &pair.metric.b.ids]);
        let mut facts = vec![
            ("bos", bos.map_or_else(|| "none".to_owned(), |id| id.to_string())),
            ("tokens", checksum_of_tokens(experiments().flat_map(|it| [it.clean(), it.corrupted()]))),
            ("direction", self.direction.to_string()),
            ("metric", metric.computation()),
            ("answers", checksum_of_tokens(answers)),
            ("engine", engine.to_string()),
        ];
        if self.many {
            let Bootstrap { resamples, level, seed } = set.bootstrap();
            let align = set.align.map_or_else(|| "the first token".to_owned(), |align| format!("{align:?}"));
            let interval = format!("{resamples} draws, level {level}, seed {seed}, positions from {align}");
            facts.push(("mean", interval));
        }
        computation(facts.into_iter().chain(more))
    }

    /// The texts by what they are, of several pairs with their lines, as provenance has them.
    pub fn prompts(&self) -> Vec<NamedText> {
        let named = |name: String, text: String| NamedText { name, text };
        let mut prompts = vec![named("direction".to_owned(), self.direction.to_string())];
        for pair in &self.list {
            let line = match self.list.len() {
                1 => String::new(),
                _ => format!(" {}", pair.pair.line),
            };
            prompts.push(named(format!("clean{line}"), pair.clean.text.clone()));
            prompts.push(named(format!("corrupted{line}"), pair.corrupted.text.clone()));
        }
        prompts
    }

    /// How JSON shows them. `ends` are each pair's unpatched runs; of many pairs whose means are on one
    /// scale, each pair has its values, and the means have the scale.
    fn report(&self, ends: &[Endpoints]) -> PairsReport<'_> {
        let of_pair = |(pair, ends): (&ReadyPair, &Endpoints)| {
            let metric = self.metric_of_pair(pair);
            metric.shown_unpatched(*ends)
        };
        let unpatched: Vec<[f32; 2]> = self.list.iter().zip(ends).map(of_pair).collect();
        let mean = |run: usize| match self.first().metric.scale.is_normalized() {
            true => [1.0, 0.0][run],
            false => unpatched.iter().map(|pair| pair[run]).sum::<f32>() / unpatched.len() as f32,
        };
        let pairs = self.list.iter().zip(&unpatched);
        PairsReport {
            metric: self.first().metric.report(),
            clean_metric: mean(0),
            corrupted_metric: mean(1),
            pairs: pairs
                .map(|(pair, &[clean_metric, corrupted_metric])| PairReport {
                    line: pair.pair.line,
                    clean: &pair.clean,
                    corrupted: &pair.corrupted,
                    a: pair.metric.a.report(),
                    b: pair.metric.b.report(),
                    clean_metric,
                    corrupted_metric,
                })
                .collect(),
        }
    }

    /// The scale on which each pair is shown by itself: its own, but of many pairs whose means are put on
    /// one scale no scale at all.
    pub fn metric_of_pair(&self, pair: &ReadyPair) -> NamedMetric {
        let metric = &pair.metric;
        match self.many && metric.scale.is_normalized() && metric.means == Means::OnOneScale {
            true => metric.on_scale(Scale::Value),
            false => metric.clone(),
        }
    }

    /// The mean of the pairs' grids, as [`Pairs::metric_of_pair`] has them, and the lower and the upper end
    /// of its interval. `words` is what they are called and how they are drawn.
    ///
    /// # Errors
    /// As [`average_on`].
    pub fn average<'a>(
        &self,
        set: &SetArgs,
        grids: impl Iterator<Item = (&'a patching::Grid, Endpoints)>,
        mut words: Grid,
    ) -> Result<[Grid; 3], Failure> {
        let pairs = self.list.iter().zip(grids);
        let parts: Vec<Part<'_>> =
            pairs.map(|(pair, (grid, ends))| Part::new(&pair.pair, grid).with_ends(ends)).collect();
        let first = self.first();
        let scale = match self.metric_of_pair(first).scale == first.metric.scale {
            true => Scale::Value, // every pair is on its scale already
            false => first.metric.scale,
        };
        let average = average_on(scale, &parts, set.align, set.bootstrap())?;
        words.axes = axes_of(&average);
        words.legend.push(self.mean_in_words());
        let grid = |suffix: &str, grid: &patching::Grid| Grid {
            name: format!("{}{suffix}", words.name),
            values: grid.values.clone(),
            ..words.clone()
        };
        Ok([grid("", &average.mean), grid(", low", &average.low), grid(", high", &average.high)])
    }

    /// The answers of the first of many pairs; those of one pair stand in its metric.
    pub fn answers_in_words(&self) -> Option<String> {
        let NamedMetric { a, b, .. } = &self.first().metric;
        match (self.many, a.ids.is_empty(), b.ids.is_empty()) {
            (false, ..) | (_, true, _) => None,
            (true, false, true) => Some(format!("answer a: {}", a.in_words())),
            (true, false, false) => Some(format!("answers a: {}, b: {}", a.in_words(), b.in_words())),
        }
    }

    /// Whether there is something to compare the patched runs of a pair with.
    ///
    /// # Errors
    /// As [`Experiment::check_ends`], with the number of the pair if there are many.
    pub fn check_ends(&self, pair: &ReadyPair, model: &Gpt2, ends: Endpoints) -> Result<(), Failure> {
        let checked = pair.experiment().check_ends(model, ends);
        checked.map_err(|error| match self.many {
            true => Failure::from(error).at(&format!("pair {}", pair.pair.line)),
            false => error.into(),
        })
    }

    /// The words for a mean, with the pairs that leave cells of it without a number. `missing` is how many
    /// patched runs of each pair have no finite metric.
    pub fn with_missing(&self, mut words: Grid, missing: impl Iterator<Item = usize>) -> Grid {
        const SHOWN: usize = 8;
        let pairs = self.list.iter().zip(missing);
        let pairs = pairs.filter(|(_, missing)| *missing > 0);
        let mut names: Vec<String> = pairs.map(|(pair, _)| pair.pair.line.to_string()).collect();
        if names.is_empty() {
            return words;
        }
        let more = names.len().saturating_sub(SHOWN);
        names.truncate(SHOWN);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        words
            .legend
            .push(format!("Missing: cells in which a pair has no finite metric (of {}).", names.join(", ")));
        words
    }

    /// Over how many pairs the mean is, and how it is normalised.
    pub fn mean_in_words(&self) -> String {
        let n = self.list.len();
        let metric = &self.first().metric;
        match (metric.scale.is_normalized(), metric.means) {
            (false, _) => format!("Mean over {n} pairs."),
            (true, Means::OnOneScale) => format!("Means over {n} pairs, on one scale."),
            (true, Means::OfScaled) => format!("Mean over {n} pairs, each on its own scale."),
        }
    }

    /// Says where the unpatched runs lie, in JSON with the pairs that they are of. `ends` are those of each pair.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn say_ends(&self, report: &mut Report, ends: &[Endpoints], engine: Engine) -> Result<(), Failure> {
        let PairsReport { metric, clean_metric, corrupted_metric, pairs } = self.report(ends);
        report.fact("metric", metric)?;
        report.fact("engine", engine.to_string())?;
        report.fact("clean_metric", clean_metric)?;
        report.fact("corrupted_metric", corrupted_metric)?;
        report.fact("pairs", pairs)?;
        report.line(format!("clean      {clean_metric:+.4}"));
        report.line(format!("corrupted  {corrupted_metric:+.4}"));
        Ok(())
    }

    /// The names of the grids that are drawn, and the study: of a set the means, and with them their intervals and
    /// every pair.
    pub fn studies(
        &self,
        title: &str,
        provenance: Provenance,
        by_pair: Vec<Grid>,
        averages: Vec<[Grid; 3]>,
    ) -> (Vec<String>, Study) {
        let first = self.first();
        let mut subtitle = match self.many {
            true => vec![format!("mean over {} pairs, the first: {}", self.list.len(), first.clean.text)],
            false => {
                vec![format!("clean: {}", first.clean.text), format!("corrupted: {}", first.corrupted.text)]
            }
        };
        let model = [&[provenance.model.clone()][..], &provenance.processing].concat();
        subtitle.push(format!("model: {}, {}", model.join(", "), self.direction));
        let means: Vec<Grid> = averages.iter().map(|[mean, ..]| mean.clone()).collect();
        let drawn = if self.many { &means } else { &by_pair };
        let drawn = drawn.iter().map(|grid| grid.name.clone()).collect();
        let intervals = averages.into_iter().flat_map(|[_, low, high]| [low, high]);
        let study = Study {
            provenance,
            numbers_sha256: None,
            title: format!("{title} ({})", first.metric.scale_in_words()),
            subtitle,
            grids: means.into_iter().chain(intervals).chain(by_pair).collect(),
        };
        (drawn, study)
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

/// The two answers of the main job.
///
/// # Errors
/// If the model's tokenizer does not have them as one token each.
pub fn default_answers(model: &Pretrained) -> Result<[Answers; 2], Failure> {
    let id = |text: &str| model.tokenizer.to_single_token(text);
    let [a, b] = [id(ANSWERS[0])?, id(ANSWERS[1])?];
    Ok([a, b].map(|id| Answers::of_ids(&model.tokenizer, &[id])))
}

impl PairArgs {
    /// The run that activations are taken from.
    pub fn source_name(&self) -> &'static str {
        match self.direction {
            Direction::Denoising => "clean",
            Direction::Noising => "corrupted",
        }
    }

    /// The run that is patched.
    pub fn base_name(&self) -> &'static str {
        match self.direction {
            Direction::Denoising => "corrupted",
            Direction::Noising => "clean",
        }
    }

    /// All pairs, checked before any work is done. Numbers are on the scale `default` if no other is asked
    /// for.
    pub fn ready(
        &self,
        set: &SetArgs,
        metric: &MetricArgs,
        (model_args, default): (&ModelArgs, Scale),
        model: &Pretrained,
    ) -> Result<Pairs, Failure> {
        let set = set.set(model, model_args.ids)?;
        let list = match &set {
            Some(set) => self.of_set(set, metric, (model_args, default), model)?,
            None => vec![self.one(metric, (model_args, default), model)?],
        };
        let many = set.is_some();
        let first = &list[0].metric;
        Ok(Pairs {
            label: match many && !metric.has_answers() {
                true => first.general_label(),
                false => first.label(),
            },
            list,
            many,
            direction: self.direction,
        })
    }

    fn of_set(
        &self,
        set: &PromptSet,
        metric: &MetricArgs,
        (model_args, default): (&ModelArgs, Scale),
        model: &Pretrained,
    ) -> Result<Vec<ReadyPair>, Failure> {
        let pairs = set.tokenize(model, model_args.bos(model)?, self.direction)?;
        let ready = |(pair, texts): (Pair, &PromptPair)| {
            let answers = [&pair.a, &pair.b].map(|ids| Answers::of_ids(&model.tokenizer, ids));
            let n_tokens = pair.experiment.n_tokens();
            let named = metric.named(model, n_tokens, answers.each_ref(), default);
            let in_line = |failure: Failure| {
                let place = set.numbering.place(pair.line);
                failure.at(&format!("{}, {place}", set.name))
            };
            let prompt = |text: &Written, ids: &[u32]| Prompt::new(&model.tokenizer, &text.words(), ids);
            Ok(ReadyPair {
                clean: prompt(&texts.clean, pair.experiment.clean()),
                corrupted: prompt(&texts.corrupted, pair.experiment.corrupted()),
                metric: named.map_err(in_line)?,
                pair,
            })
        };
        pairs.into_iter().zip(&set.pairs).map(ready).collect()
    }

    fn one(
        &self,
        metric: &MetricArgs,
        (model_args, default): (&ModelArgs, Scale),
        model: &Pretrained,
    ) -> Result<ReadyPair, Failure> {
        // The answers of the main job are those of its prompts.
        let answers = match self.clean.is_none() && !metric.has_answers() {
            true => default_answers(model)?,
            false => [Answers::default(), Answers::default()],
        };
        let (clean, corrupted) = self.prompts(model_args, model)?;
        let metric = metric.named(model, clean.ids.len(), answers.each_ref(), default)?;
        let [clean_ids, corrupted_ids] = [&clean, &corrupted].map(|prompt| prompt.ids.clone());
        let experiment = Experiment::new(&model.model, clean_ids, corrupted_ids, self.direction)?;
        Ok(ReadyPair {
            clean,
            corrupted,
            pair: Pair { line: 1, experiment, a: metric.a.ids.clone(), b: metric.b.ids.clone() },
            metric,
        })
    }

    /// The two prompts, which must have equally many tokens: shown side by side if they do not.
    fn prompts(&self, model_args: &ModelArgs, model: &Pretrained) -> Result<(Prompt, Prompt), Failure> {
        let prompt = |which: &str, text: &str| {
            let prompt = model_args.prompt(model, text);
            prompt.map_err(|failure| failure.at(&format!("the {which} prompt")))
        };
        if model_args.ids && self.clean.is_none() {
            return Err(Failure::Input(
                "--ids: give both prompts as token ids, --clean '464 3290' --corrupted '464 3797'".to_owned(),
            ));
        }
        let clean = prompt("clean", self.clean.as_deref().unwrap_or(CLEAN))?;
        let corrupted = prompt("corrupted", self.corrupted.as_deref().unwrap_or(CORRUPTED))?;
        if clean.ids.len() != corrupted.ids.len() {
            let mut rows = Vec::new();
            let labelled = aligned([("clean", &clean), ("corrupted", &corrupted)]);
            write_columns(&mut rows, &labelled, terminal_width())?;
            return Err(Failure::Input(format!(
                "the clean prompt has {} tokens and the corrupted one {}; patching needs equally many\n\n\
                 {}\nChange a word for one of as many tokens (patch-cli tokens TEXT … counts them).",
                clean.ids.len(),
                corrupted.ids.len(),
                String::from_utf8_lossy(&rows)
            )));
        }
        Ok((clean, corrupted))
    }
}
