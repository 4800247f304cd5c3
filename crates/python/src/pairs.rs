//! Pairs of prompts: one, or a set of which the mean is taken.

use std::path::PathBuf;

use gpt2::Pretrained;
use grids::{AxisLabels, Grid, NamedText};
use patching::prompts::{
    Align, Answer, Bootstrap, Corruption, Ioi, Numbering, Pair, Part, PromptPair, PromptSet as Set,
    TaskPrompts, Written, average_on,
};
use patching::{Direction, Endpoints, Experiment, Means, Scale};
use pyo3::prelude::*;
use report::metric::NamedMetric;
use report::{Prompt, aligned, write_columns};

use crate::failure::Failure;
use crate::metric::{Metric, Ready};
use crate::model::Model;

/// A prompt as it is given.
#[derive(FromPyObject)]
enum GivenPrompt {
    Text(String),
    Ids(Vec<u32>),
}

/// An answer as it is given.
#[derive(FromPyObject)]
enum GivenAnswer {
    Text(String),
    Id(u32),
}

impl From<GivenPrompt> for Written {
    fn from(prompt: GivenPrompt) -> Self {
        match prompt {
            GivenPrompt::Text(text) => Self::Text(text),
            GivenPrompt::Ids(ids) => Self::Ids(ids),
        }
    }
}

impl From<GivenAnswer> for Answer {
    fn from(answer: GivenAnswer) -> Self {
        match answer {
            GivenAnswer::Text(text) => Self::Text(text),
            GivenAnswer::Id(id) => Self::Id(id),
        }
    }
}

/// A set of pairs of prompts with their answers.
#[pyclass(frozen, module = "gpt2_patching._native")]
pub struct PromptSet(Set);

#[pymethods]
impl PromptSet {
    /// The pairs of a file.
    #[staticmethod]
    fn open(path: PathBuf, ids: bool) -> Result<Self, Failure> {
        Ok(Self(Set::open(&path, ids)?))
    }

    /// Pairs that are given: of each the clean prompt, the corrupted prompt, and the answers on both sides.
    #[staticmethod]
    fn of_pairs(
        pairs: Vec<(GivenPrompt, GivenPrompt, Vec<GivenAnswer>, Vec<GivenAnswer>)>,
    ) -> Result<Self, Failure> {
        if pairs.is_empty() {
            return Err(Failure::value("a set of no pairs: give at least one"));
        }
        let answers = |given: Vec<GivenAnswer>| given.into_iter().map(Answer::from).collect();
        let pair = |(i, (clean, corrupted, a, b))| PromptPair {
            line: i + 1,
            clean: Written::from(clean),
            corrupted: Written::from(corrupted),
            a: answers(a),
            b: answers(b),
        };
        Ok(Self(Set {
            name: "the pairs".to_owned(),
            pairs: pairs.into_iter().enumerate().map(pair).collect(),
            numbering: Numbering::Pairs,
            notes: Vec::new(),
        }))
    }

    /// Pairs that are made from templates, by the name of the set.
    #[staticmethod]
    fn built_in(
        model: &Model,
        name: &str,
        count: usize,
        seed: u64,
        corruption: &str,
    ) -> Result<Self, Failure> {
        let corruption = match corruption {
            "swap" => Corruption::SwappedSubject,
            "abc" => Corruption::Abc,
            _ => {
                return Err(Failure::value(format!(
                    "there is no corruption \"{corruption}\"; give swap or abc"
                )));
            }
        };
        Ok(Self(match name {
            "ioi" => Ioi { count, seed, corruption }.prompts(&model.pretrained)?,
            "ioi-tutorial" => Set::ioi_tutorial(),
            task => TaskPrompts { task: task.parse()?, count, seed }.prompts(&model.pretrained)?,
        }))
    }

    /// The clean prompt, the corrupted prompt and the answers of each pair.
    #[getter]
    fn pairs(&self) -> Vec<(String, String, Vec<String>, Vec<String>)> {
        let words = |answers: &[Answer]| answers.iter().map(|it| it.words()).collect();
        let pair =
            |pair: &PromptPair| (pair.clean.words(), pair.corrupted.words(), words(&pair.a), words(&pair.b));
        self.0.pairs.iter().map(pair).collect()
    }

    /// What its file or its template is called.
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    /// What a user should know of the file.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.0.notes.clone()
    }
}

/// A pair with its tokens.
pub struct ReadyPair {
    /// The clean prompt.
    pub clean: Prompt,
    /// The corrupted prompt.
    pub corrupted: Prompt,
    /// What is run.
    pub pair: Pair,
}

/// Pairs that can be run: there is at least one.
#[pyclass(frozen, module = "gpt2_patching._native")]
pub struct Pairs {
    /// The pairs.
    pub list: Vec<ReadyPair>,
    /// Whether they are a set, even if it is of one pair.
    pub many: bool,
    /// Which is patched into which.
    pub direction: Direction,
    bootstrap: Bootstrap,
    align: Option<Align>,
}

#[pymethods]
impl Pairs {
    /// One pair: each prompt as a text and its ids, and the ids of the answers.
    #[staticmethod]
    fn one(
        model: &Model,
        clean: (String, Vec<u32>),
        corrupted: (String, Vec<u32>),
        answers: [Vec<u32>; 2],
        direction: &str,
    ) -> Result<Self, Failure> {
        let [a, b] = answers;
        let Pretrained { model, tokenizer, .. } = &model.pretrained;
        let direction: Direction = direction.parse()?;
        let [clean, corrupted] = [&clean, &corrupted].map(|(text, ids)| Prompt::new(tokenizer, text, ids));
        let experiment = Experiment::new(model, clean.ids.clone(), corrupted.ids.clone(), direction);
        let experiment = experiment.map_err(|error| side_by_side(&error, &clean, &corrupted))?;
        let list = vec![ReadyPair { clean, corrupted, pair: Pair { line: 1, experiment, a, b } }];
        Ok(Self { list, many: false, direction, bootstrap: Bootstrap::default(), align: None })
    }

    /// The pairs of a set, with `bos` in front of each prompt if there is one.
    #[staticmethod]
    #[pyo3(signature = (model, set, bos, direction, sampling))]
    fn of_set(
        model: &Model,
        set: &PromptSet,
        bos: Option<u32>,
        direction: &str,
        sampling: (usize, u64, Option<String>),
    ) -> Result<Self, Failure> {
        let (resamples, seed, align) = sampling;
        let direction: Direction = direction.parse()?;
        let tokenizer = &model.pretrained.tokenizer;
        let prompt = |text: &Written, ids: &[u32]| Prompt::new(tokenizer, &text.words(), ids);
        let pairs = set.0.tokenize(&model.pretrained, bos, direction)?;
        let ready = |(pair, texts): (Pair, &PromptPair)| ReadyPair {
            clean: prompt(&texts.clean, pair.experiment.clean()),
            corrupted: prompt(&texts.corrupted, pair.experiment.corrupted()),
            pair,
        };
        let align = match align.as_deref() {
            None => None,
            Some("first-difference") => Some(Align::FirstDifference),
            Some("end") => Some(Align::End),
            Some(other) => {
                return Err(Failure::value(format!(
                    "there is no origin \"{other}\"; give first-difference or end"
                )));
            }
        };
        Ok(Self {
            list: pairs.into_iter().zip(&set.0.pairs).map(ready).collect(),
            many: true,
            direction,
            bootstrap: Bootstrap { resamples, seed, ..Bootstrap::default() },
            align,
        })
    }

    /// How many tokens the prompts of the first pair have.
    #[getter]
    fn n_tokens(&self) -> usize {
        self.first().pair.experiment.n_tokens()
    }

    fn __len__(&self) -> usize {
        self.list.len()
    }
}

/// The words of an error about two prompts, with both side by side if they are of different lengths.
fn side_by_side(error: &patching::Error, clean: &Prompt, corrupted: &Prompt) -> Failure {
    const WIDTH: usize = 110;
    let mut rows = Vec::new();
    let is_shown = matches!(error, patching::Error::DifferentLengths { .. });
    let labelled = aligned([("clean", clean), ("corrupted", corrupted)]);
    match is_shown && write_columns(&mut rows, &labelled, WIDTH).is_ok() {
        true => Failure::value(format!(
            "{error}\n\n{}\nChange a word for one of as many tokens (model.to_str_tokens shows them).",
            String::from_utf8_lossy(&rows)
        )),
        false => Failure::value(error.to_string()),
    }
}

impl ReadyPair {
    /// The prompt that is run again and again.
    pub fn base(&self) -> &Prompt {
        match self.pair.experiment.direction() {
            Direction::Denoising => &self.corrupted,
            Direction::Noising => &self.clean,
        }
    }
}

impl Pairs {
    /// The first pair, which stands for the others where there is room for one only.
    pub fn first(&self) -> &ReadyPair {
        &self.list[0]
    }

    /// The metric of each pair.
    pub fn metrics<'m>(
        &self,
        model: &Model,
        metric: &'m Metric,
        default: Scale,
    ) -> Result<Vec<Ready<'m>>, Failure> {
        self.list.iter().map(|pair| metric.of(&model.pretrained, &pair.pair, default)).collect()
    }

    /// The run that activations are taken from, and the one that is patched.
    pub fn source_and_base(&self) -> [&'static str; 2] {
        match self.direction {
            Direction::Denoising => ["clean", "corrupted"],
            Direction::Noising => ["corrupted", "clean"],
        }
    }

    /// The texts by what they are, as provenance has them.
    pub fn prompts(&self) -> Vec<NamedText> {
        let named = |name: String, text: &str| NamedText { name, text: text.to_owned() };
        let mut prompts = vec![named("direction".to_owned(), &self.direction.to_string())];
        for pair in &self.list {
            let line = if self.list.len() == 1 { String::new() } else { format!(" {}", pair.pair.line) };
            prompts.push(named(format!("clean{line}"), &pair.clean.text));
            prompts.push(named(format!("corrupted{line}"), &pair.corrupted.text));
        }
        prompts
    }

    /// What a pair's grid is called.
    pub fn name_of_grid(&self, name: &str, pair: &ReadyPair) -> String {
        if self.many { format!("{name}, pair {}", pair.pair.line) } else { name.to_owned() }
    }

    /// The scale on which each pair is shown by itself: of many pairs whose means are put on one scale, no scale.
    pub fn shown(&self, metric: &NamedMetric) -> NamedMetric {
        match self.many && metric.scale.is_normalized() && metric.means == Means::OnOneScale {
            true => metric.on_scale(Scale::Value),
            false => metric.clone(),
        }
    }

    /// The mean of the pairs' grids, which are as [`Pairs::shown`] has them, and the ends of its interval. `words` is
    /// what they are called and how they are drawn.
    pub fn average<'a>(
        &self,
        metric: &NamedMetric,
        grids: impl Iterator<Item = (&'a patching::Grid, Endpoints)>,
        mut words: Grid,
    ) -> Result<[Grid; 3], Failure> {
        let pairs = self.list.iter().zip(grids);
        let parts: Vec<Part<'_>> =
            pairs.map(|(pair, (grid, ends))| Part::new(&pair.pair, grid).with_ends(ends)).collect();
        let scale = if self.shown(metric).scale == metric.scale { Scale::Value } else { metric.scale };
        let average = average_on(scale, &parts, self.align, self.bootstrap)?;
        let axes = average.mean.axes.iter().enumerate();
        let labelled = |(i, axis): (usize, &patching::Axis)| {
            AxisLabels::at(&axis.to_string(), average.mean.places[i].clone(), average.labels(i))
        };
        words.axes = axes.map(labelled).collect();
        words.legend.push(format!("Mean over {} pairs.", self.list.len()));
        let grid = |suffix: &str, grid: &patching::Grid| Grid {
            name: format!("{}{suffix}", words.name),
            values: grid.values.clone(),
            ..words.clone()
        };
        Ok([grid("", &average.mean), grid(", low", &average.low), grid(", high", &average.high)])
    }

    /// Whether there is something to compare the patched runs of a pair with.
    pub fn check_ends(&self, pair: &ReadyPair, model: &Model, ends: Endpoints) -> Result<(), Failure> {
        let checked = pair.pair.experiment.check_ends(&model.pretrained.model, ends);
        checked.map_err(|error| match self.many {
            true => Failure::value(format!("pair {}: {error}", pair.pair.line)),
            false => error.into(),
        })
    }
}
