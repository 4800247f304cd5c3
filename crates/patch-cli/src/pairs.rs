//! The arguments that say which prompts are patched into which: one pair, or a set of pairs.

use std::path::PathBuf;

use clap::ValueEnum;
use gpt2::Pretrained;
use patching::prompts::{Align, Bootstrap, Corruption, Ioi, Pair, PromptSet};
use patching::{Direction, Experiment};
use serde::Serialize;

use crate::common::{ModelArgs, terminal_width};
use crate::failure::Failure;
use crate::metric::{MetricArgs, NamedMetric};
use crate::names;
use crate::report::{self, Prompt};

pub const CLEAN: &str = "Michelle Jones was a top-notch student. Michelle";
const CORRUPTED: &str = "Michelle Smith was a top-notch student. Michelle";
pub const ANSWERS: [&str; 2] = [" Smith", " Jones"];

/// Arguments of every subcommand that patches one prompt into another.
#[derive(Clone, clap::Args)]
pub struct PairArgs {
    /// Prompt whose answer is the right one [default: the pair of Michelle Jones and Michelle Smith]
    #[arg(long, value_name = "TEXT", requires = "corrupted")]
    pub clean: Option<String>,

    /// The same prompt with the fact of interest changed; it must have as many tokens
    #[arg(long, value_name = "TEXT", requires = "clean")]
    pub corrupted: Option<String>,

    /// denoising: clean into corrupted; noising: corrupted into clean
    #[arg(long, default_value_t, value_parser = names::direction())]
    pub direction: Direction,
}

/// The heading of [`SetArgs`] in the help. (`next_help_heading` would also take what follows.)
const HEADING: &str = "Many prompts";

/// Arguments of every subcommand that takes the mean over many pairs.
#[derive(Clone, clap::Args)]
pub struct SetArgs {
    /// Mean over the pairs of a file: JSON lines or CSV with clean, corrupted, a and b, the answers to
    /// compare
    #[arg(long, help_heading = HEADING, value_name = "FILE", conflicts_with_all = ["clean", "prompt_set"])]
    pub prompts: Option<PathBuf>,

    /// Mean over the pairs of a set that comes with the program: indirect objects, drawn at random, or
    /// the eight of TransformerLens's tutorial
    #[arg(long, help_heading = HEADING, value_name = "NAME", conflicts_with = "clean")]
    pub prompt_set: Option<SetName>,

    /// How many pairs of --prompt-set ioi
    #[arg(long, help_heading = HEADING, value_name = "N", default_value_t = Ioi::default().count)]
    pub count: usize,

    /// Seed of the pairs and of the interval
    #[arg(long, help_heading = HEADING, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// How the corrupted prompts of --prompt-set ioi are made: the second name swapped, or three other
    /// names
    #[arg(long, help_heading = HEADING, value_enum, value_name = "HOW", default_value_t)]
    pub corruption: CorruptionName,

    /// From where the positions of prompts of different lengths are counted
    #[arg(long, help_heading = HEADING, value_enum, value_name = "ORIGIN")]
    pub align: Option<AlignName>,

    /// How many times pairs are drawn for the confidence interval of 95 %
    #[arg(long, help_heading = HEADING, value_name = "N", default_value_t = Bootstrap::default().resamples)]
    pub resamples: usize,
}

/// Sets of pairs that come with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SetName {
    Ioi,
    IoiTutorial,
}

/// Names of the corruptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CorruptionName {
    #[default]
    Swap,
    Abc,
}

/// Names of the origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AlignName {
    FirstDifference,
    End,
}

impl SetArgs {
    /// Whether there are many pairs.
    pub fn is_asked_for(&self) -> bool {
        self.prompts.is_some() || self.prompt_set.is_some()
    }

    /// What positions are counted from.
    pub fn align(&self) -> Option<Align> {
        self.align.map(|align| match align {
            AlignName::FirstDifference => Align::FirstDifference,
            AlignName::End => Align::End,
        })
    }

    /// How the interval is found.
    pub fn bootstrap(&self) -> Bootstrap {
        Bootstrap {
            resamples: self.resamples,
            seed: self.seed,
            ..Bootstrap::default()
        }
    }

    /// The pairs as text, if many are asked for.
    fn set(&self, model: &Pretrained) -> Result<Option<PromptSet>, Failure> {
        if let Some(path) = &self.prompts {
            return Ok(Some(PromptSet::open(path)?));
        }
        let ioi = Ioi {
            count: self.count,
            seed: self.seed,
            corruption: match self.corruption {
                CorruptionName::Swap => Corruption::SwappedSubject,
                CorruptionName::Abc => Corruption::Abc,
            },
        };
        match self.prompt_set {
            Some(SetName::Ioi) => Ok(Some(ioi.prompts(model)?)),
            Some(SetName::IoiTutorial) => Ok(Some(PromptSet::ioi_tutorial())),
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

/// How JSON shows a pair.
#[derive(Serialize)]
pub struct PairReport<'a> {
    /// Its line in the file, or its number.
    pub line: usize,
    pub clean: &'a Prompt,
    pub corrupted: &'a Prompt,
    pub a: Option<&'a str>,
    pub b: Option<&'a str>,
    pub clean_metric: f32,
    pub corrupted_metric: f32,
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
    pub fn ids(&self) -> Vec<u32> {
        [
            &self.clean.ids[..],
            &self.corrupted.ids,
            &self.metric.tokens(),
        ]
        .concat()
    }
}

impl PairArgs {
    /// All pairs, checked before any work is done.
    pub fn ready(
        &self,
        set: Option<&SetArgs>,
        metric: &MetricArgs,
        model_args: &ModelArgs,
        model: &Pretrained,
    ) -> Result<Vec<ReadyPair>, Failure> {
        let set = match set {
            Some(set) => set.set(model)?,
            None => None,
        };
        let Some(set) = set else {
            return Ok(vec![self.one(metric, model_args, model)?]);
        };
        let pairs = set.tokenize(model, model_args.bos, self.direction)?;
        let ready = |(pair, texts): (Pair, &patching::prompts::PromptPair)| {
            let answers = Some([texts.a.as_str(), texts.b.as_str()]);
            let named = metric.named(model, pair.experiment.n_tokens(), answers);
            let in_line =
                |failure: Failure| failure.at(&format!("{}, line {}", set.name, pair.line));
            let prompt = |text: &str, ids: &[u32]| Prompt::new(&model.tokenizer, text, ids);
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
        model_args: &ModelArgs,
        model: &Pretrained,
    ) -> Result<ReadyPair, Failure> {
        let answers = self.clean.is_none().then_some(ANSWERS);
        let (clean, corrupted) = self.prompts(model_args, model)?;
        let metric = metric.named(model, clean.ids.len(), answers)?;
        let [clean_ids, corrupted_ids] = [&clean, &corrupted].map(|prompt| prompt.ids.clone());
        let experiment = Experiment::new(&model.model, clean_ids, corrupted_ids, self.direction)?;
        // The average only needs to know which pair it is.
        let [a, b] = match metric.tokens()[..] {
            [a, b] => [a, b],
            _ => [0, 0],
        };
        Ok(ReadyPair {
            clean,
            corrupted,
            pair: Pair {
                line: 1,
                experiment,
                a,
                b,
            },
            metric,
        })
    }

    /// The two prompts, which must have equally many tokens: shown side by side if they do not.
    fn prompts(
        &self,
        model_args: &ModelArgs,
        model: &Pretrained,
    ) -> Result<(Prompt, Prompt), Failure> {
        let prompt = |which: &str, text: &str| {
            let prompt = model_args.prompt(model, text);
            prompt.map_err(|failure| failure.at(&format!("the {which} prompt")))
        };
        let clean = prompt("clean", self.clean.as_deref().unwrap_or(CLEAN))?;
        let corrupted = prompt("corrupted", self.corrupted.as_deref().unwrap_or(CORRUPTED))?;
        if clean.ids.len() != corrupted.ids.len() {
            let mut rows = Vec::new();
            let labelled = [("clean", &clean), ("corrupted", &corrupted)];
            report::write_aligned(&mut rows, &labelled, terminal_width())?;
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
