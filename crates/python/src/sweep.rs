//! Sweeps: one activation after the other is patched, or ablated.

use std::sync::Mutex;

use grids::{Grid, Highlight};
use numpy::{IxDyn, PyArray1, PyArrayDyn, PyArrayMethods as _};
use patching::{
    Ablation, Axis, Direction, Endpoints, Engine, Experiment, Metric as Reading, Outcome, Scale, SiteKind,
    Subset, Sweep, Which,
};
use pyo3::prelude::*;
use report::{axis_labels, missing_in_words, signed, unpatched_in_words};

use crate::failure::Failure;
use crate::metric::{Metric, Ready};
use crate::model::Model;
use crate::pairs::{Pairs, ReadyPair};
use crate::running::{Job, Observed, run};
use crate::study::{Ends, Study, of_pairs, provenance, report_on, say_ends};

/// Which cells are swept: sites, axes, and the part of them that is wanted.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Selection {
    sites: Vec<String>,
    by: Option<Vec<String>>,
    layers: Option<Vec<usize>>,
    positions: Option<Vec<usize>>,
    heads: Option<Vec<(usize, usize)>>,
    neurons: Option<Vec<usize>>,
    plain: bool,
}

fn axis(name: &str) -> Result<Axis, Failure> {
    const ALL: [Axis; 6] = [Axis::Layer, Axis::Pos, Axis::Head, Axis::Dest, Axis::Src, Axis::Neuron];
    let found = ALL.into_iter().find(|axis| axis.to_string() == name);
    found.ok_or_else(|| {
        Failure::value(format!("there is no axis \"{name}\"; give layer, pos, head, dest, src or neuron"))
    })
}

impl Selection {
    /// The kinds of site.
    pub fn kinds(&self) -> Result<Vec<SiteKind>, Failure> {
        let mut kinds = Vec::new();
        for site in &self.sites {
            let kind: SiteKind = site.parse()?;
            if !SiteKind::PATCHABLE.contains(&kind) {
                let all = SiteKind::PATCHABLE.map(|kind| kind.to_string()).join(", ");
                return Err(Failure::value(format!("{kind} cannot be patched; give one of {all}")));
            }
            kinds.push(kind);
        }
        Ok(kinds)
    }

    /// What runs the sweeps.
    pub fn engine(&self) -> Engine {
        if self.plain { Engine::Plain } else { Engine::default() }
    }

    /// The names of the sites.
    pub fn words(&self) -> String {
        self.sites.join(", ")
    }

    fn axes(&self, kind: SiteKind) -> Result<Vec<Axis>, Failure> {
        let Some(by) = &self.by else { return Ok(kind.default_axes().to_vec()) };
        let asked: Vec<Axis> = by.iter().map(|name| axis(name)).collect::<Result<_, _>>()?;
        let has = |axis: &Axis| *axis == Axis::Layer || asked.contains(axis);
        if let Some(strange) = asked.iter().find(|axis| !kind.axes().contains(axis)) {
            let all: Vec<String> = kind.axes().iter().map(Axis::to_string).collect();
            return Err(Failure::value(format!(
                "a sweep of {kind} cannot run along {strange}: it has the axes {}",
                all.join(", ")
            )));
        }
        // In the order of the site's own axes, from the layer on.
        Ok(kind.axes().iter().copied().filter(has).collect())
    }

    /// The sweeps of one experiment, one for each kind of site.
    pub fn sweeps<'a>(
        &self,
        model: &Model,
        experiment: &'a Experiment,
        job: &'a Job,
    ) -> Result<Vec<Sweep<'a>>, Failure> {
        let heads = self.heads.iter().flatten();
        let subset = Subset {
            layers: self.layers.clone(),
            positions: self.positions.clone(),
            heads: self
                .heads
                .is_some()
                .then(|| heads.map(|&(layer, head)| gpt2::Head { layer, head }).collect()),
            neurons: self.neurons.clone(),
        };
        let of_kind = |kind: SiteKind| {
            let sweep = Sweep::over(experiment, kind).by(&self.axes(kind)?).stopped_by(job.flag());
            match subset == Subset::default() {
                true => Ok(sweep),
                false => Ok(sweep.only(model.gpt2(), subset.clone())?),
            }
        };
        self.kinds()?.into_iter().map(of_kind).collect()
    }
}

/// What one sweep of one pair came to.
struct Done {
    /// As it is shown.
    values: patching::Grid,
    words: Grid,
    ends: Endpoints,
}

/// Patches one activation after the other.
#[pyfunction]
#[pyo3(signature = (model, pairs, metric, selection, progress))]
pub fn sweep(
    py: Python<'_>,
    model: &Model,
    pairs: &Pairs,
    metric: &Metric,
    selection: Selection,
    progress: Option<Bound<'_, PyAny>>,
) -> Result<Study, Failure> {
    let metrics = pairs.metrics(model, metric, Scale::Value)?;
    let kinds = selection.kinds()?;
    let done = run(py, progress.as_ref(), |job| {
        let observed = Observed::part_of(job, pairs.list.len() * kinds.len());
        let mut done: Vec<Vec<Done>> = Vec::new();
        for (pair, metric) in pairs.list.iter().zip(&metrics) {
            let sweeps = selection.sweeps(model, &pair.pair.experiment, job)?;
            let of_pair = sweeps.into_iter().map(|sweep| {
                let progress = observed.watch().progress;
                let outcome = metric
                    .with(job, |reading| sweep.run(model.gpt2(), reading, selection.engine(), progress));
                swept(model, pairs, (pair, metric), &sweep, outcome)
            });
            done.push(of_pair.collect::<Result<_, _>>()?);
        }
        Ok(done)
    })?;
    let ends: Vec<Endpoints> = done.iter().filter_map(|of_pair| of_pair.first()).map(|it| it.ends).collect();
    let mut report = report_on(model)?;
    say_ends(&mut report, pairs, Ends { ends: &ends, metrics: &metrics })?;
    let [source, base] = pairs.source_and_base();
    let title = format!("Patching {} from the {source} into the {base} run", selection.words());
    let mut averages = Vec::new();
    if pairs.many {
        for (i, kind) in kinds.iter().enumerate() {
            let words = Grid {
                name: kind.to_string(),
                value_label: metrics[0].label(),
                center: metrics[0].named.center(),
                ..Grid::default()
            };
            let grids = done.iter().map(|done| (&done[i].values, done[i].ends));
            averages.push(pairs.average(&metrics[0].named, grids, words)?);
        }
    }
    let facts = [
        ("study", "sweep".to_owned()),
        ("site", selection.words()),
        ("metric", format!("{}, {}", metrics[0].label(), metrics[0].named.computation())),
        ("engine", format!("{:?}", selection.engine())),
    ];
    let provenance = provenance(model, pairs.prompts(), &facts);
    let by_pair = done.into_iter().flatten().map(|done| done.words).collect();
    let scale = metrics[0].named.scale_in_words();
    let (drawn, study) = of_pairs(&title, (pairs, provenance), by_pair, averages, scale);
    report.study = Some(study);
    Ok(Study::new(report, drawn))
}

/// The grid of one sweep of one pair with its words.
fn swept(
    model: &Model,
    pairs: &Pairs,
    (pair, metric): (&ReadyPair, &Ready<'_>),
    sweep: &Sweep<'_>,
    outcome: Outcome,
) -> Result<Done, Failure> {
    let ends = outcome.ends(pairs.direction);
    if outcome.unpatched.is_some() {
        pairs.check_ends(pair, model, ends)?;
    }
    let shown = pairs.shown(&metric.named);
    let (values, unpatched) = shown.shown(&outcome, pairs.direction)?;
    let base = match pairs.direction {
        Direction::Denoising => unpatched[1],
        Direction::Noising => unpatched[0],
    };
    let (center, colors) = shown.middle(&values, base, pairs.source_and_base()[1]);
    let differing = pair.pair.experiment.differing_positions();
    let places = &outcome.grid.places;
    let pos = outcome.grid.axes.iter().position(|axis| *axis == Axis::Pos);
    let highlight = pos.map(|pos| Highlight {
        axis: Axis::Pos.to_string(),
        indices: (0..places[pos].len()).filter(|&i| differing.contains(&places[pos][i])).collect(),
        label: "the prompts differ here".to_owned(),
    });
    let legend = [colors, Some(unpatched_in_words(unpatched)), missing_in_words(outcome.missing)];
    let words = Grid {
        name: pairs.name_of_grid(&sweep.site().to_string(), pair),
        axes: axis_labels(&outcome.grid.axes, places, &pair.base().tokens),
        values: values.clone(),
        value_label: metric.label(),
        center,
        highlight,
        legend: legend.into_iter().flatten().collect(),
        ..Grid::default()
    };
    Ok(Done { values: patching::Grid { values, ..outcome.grid }, words, ends })
}

/// What is put in the place of an ablated activation.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Replacement {
    how: String,
    position: Option<usize>,
    others: Option<Vec<Vec<u32>>>,
}

impl Replacement {
    /// The experiments whose mean the result is.
    fn experiments(self, model: &Model, ids: &[u32]) -> Result<Vec<Experiment>, Failure> {
        let ablation = match (self.how.as_str(), self.position, self.others) {
            ("zero", ..) => Ablation::Zero,
            ("mean", _, None) => Ablation::Mean,
            ("mean", _, Some(others)) => Ablation::MeanOf(others),
            ("other-position", Some(position), _) => Ablation::Position(position),
            ("other-position", None, _) => {
                return Err(Failure::value("replacement=\"other-position\" needs position="));
            }
            ("resample", _, Some(others)) => {
                let others: Vec<Vec<u32>> = others.into_iter().filter(|other| other != ids).collect();
                if others.is_empty() {
                    return Err(Failure::value(
                        "others holds no prompt but this one: there is nothing to resample",
                    ));
                }
                let patched =
                    |other| Ok(Experiment::new(model.gpt2(), ids.to_vec(), other, Direction::Noising)?);
                return others.into_iter().map(patched).collect();
            }
            ("resample", _, None) => {
                return Err(Failure::value(
                    "replacement=\"resample\" needs the prompts to take activations from: others=",
                ));
            }
            (how, ..) => {
                return Err(Failure::value(format!(
                    "unknown ablation \"{how}\": expected zero, mean, other-position or resample"
                )));
            }
        };
        Ok(vec![Experiment::ablation(model.gpt2(), ids.to_vec(), ablation)?])
    }
}

/// Replaces one activation of a prompt after the other.
#[pyfunction]
#[pyo3(signature = (model, prompt, replacement, metric, selection, progress))]
pub fn ablate(
    py: Python<'_>,
    model: &Model,
    prompt: (String, Vec<u32>),
    replacement: Replacement,
    metric: &Metric,
    selection: Selection,
    progress: Option<Bound<'_, PyAny>>,
) -> Result<Study, Failure> {
    let (text, ids) = prompt;
    let kinds = selection.kinds()?;
    let how = replacement.how.clone();
    if kinds.iter().any(|kind| kind.is_of_pairs()) && !["zero", "resample"].contains(&how.as_str()) {
        return Err(Failure::value(format!(
            "replacement=\"{how}\": the rows of a pattern attend to different numbers of positions, so neither one of \
             them nor their mean can stand for another; use zero or resample, or other sites"
        )));
    }
    let experiments = replacement.experiments(model, &ids)?;
    let prompt = report::Prompt::new(&model.pretrained.tokenizer, &text, &ids);
    let pair = patching::prompts::Pair { line: 1, experiment: experiments[0].clone(), a: vec![], b: vec![] };
    let ready = metric.of(&model.pretrained, &pair, Scale::Value)?;
    let outcomes = run(py, progress.as_ref(), |job| {
        let observed = Observed::part_of(job, experiments.len() * kinds.len());
        let mut by_kind: Vec<Vec<Outcome>> = vec![Vec::new(); kinds.len()];
        for experiment in &experiments {
            let sweeps = selection.sweeps(model, experiment, job)?;
            for (sweep, outcomes) in sweeps.into_iter().zip(&mut by_kind) {
                let progress = observed.watch().progress;
                let outcome =
                    ready.with(job, |reading| sweep.run(model.gpt2(), reading, selection.engine(), progress));
                if outcome.complete {
                    experiment.check_ends(model.gpt2(), outcome.ends(Direction::Noising))?;
                }
                outcomes.push(outcome);
            }
        }
        Ok(by_kind.iter().filter_map(|outcomes| Outcome::mean(outcomes)).collect::<Vec<Outcome>>())
    })?;
    let mut report = report_on(model)?;
    report.fact("prompt", &prompt)?;
    report.fact("with", &how)?;
    report.fact("metric", ready.report()?)?;
    report.fact("unablated", outcomes[0].clean_metric)?;
    let grids = kinds.iter().zip(outcomes).map(|(kind, outcome)| ablated(&ready, *kind, outcome, &prompt));
    let title = format!("Ablating {}: {how} ({})", selection.words(), ready.named.scale_in_words());
    let grids = grids.collect::<Result<_, Failure>>()?;
    report.study = Some(crate::study::of_model(model, &title, Vec::new(), &[("prompt", &text)], grids));
    Ok(Study::new(report, Vec::new()))
}

/// The grid of an ablated kind of site. The colours show what has changed.
fn ablated(
    ready: &Ready<'_>,
    kind: SiteKind,
    outcome: Outcome,
    prompt: &report::Prompt,
) -> Result<Grid, Failure> {
    let ends = outcome.ends(Direction::Noising);
    let mut values = outcome.grid.values;
    ready.named.scale.apply(&mut values, ends)?;
    let middle = match ready.named.scale {
        Scale::Value => ends.base,
        Scale::Normalized => 1.0,
        Scale::Change | Scale::NormalizedChange => 0.0,
    };
    let words = format!("Without ablation: {}, the middle colour.", signed(middle));
    Ok(Grid {
        name: kind.to_string(),
        axes: axis_labels(&outcome.grid.axes, &outcome.grid.places, &prompt.tokens),
        values,
        value_label: ready.label(),
        center: Some(middle),
        legend: [Some(words), missing_in_words(outcome.missing)].into_iter().flatten().collect(),
        ..Grid::default()
    })
}

/// What every patched run of a sweep of one site ends in: the logits of its last position, cells × pairs × vocabulary.
#[pyfunction]
#[pyo3(signature = (model, pairs, selection, progress))]
pub fn sweep_ends(
    py: Python<'_>,
    model: &Model,
    pairs: &Pairs,
    selection: Selection,
    progress: Option<Bound<'_, PyAny>>,
) -> Result<Py<PyArrayDyn<f32>>, Failure> {
    let (n_pairs, v) = (pairs.list.len(), model.gpt2().config.vocab_size);
    let (shape, ends) = run(py, progress.as_ref(), |job| {
        let mut shape = Vec::new();
        let mut ends: Vec<Mutex<&mut [f32]>> = Vec::new();
        let mut all = Vec::new();
        for (i, pair) in pairs.list.iter().enumerate() {
            for sweep in selection.sweeps(model, &pair.pair.experiment, job)? {
                if i == 0 {
                    shape = sweep.places(model.gpt2()).iter().map(Vec::len).collect();
                    all = vec![f32::NAN; shape.iter().product::<usize>() * n_pairs * v];
                    ends = all.chunks_mut(v).map(Mutex::new).collect();
                }
                let keep = |which: Which, logits: &[f32]| {
                    if let Which::Patched(cell) = which
                        && let Ok(mut end) = ends[cell * n_pairs + i].lock()
                    {
                        end.copy_from_slice(logits);
                    }
                    0.0
                };
                let share = |share: f64| job.advance(share / n_pairs as f64);
                sweep.run(model.gpt2(), Reading::Custom(&keep), selection.engine(), &share);
            }
        }
        drop(ends);
        Ok((shape, all))
    })?;
    let shape: Vec<usize> = shape.into_iter().chain([n_pairs, v]).collect();
    Ok(PyArray1::from_vec(py, ends).reshape(IxDyn(&shape))?.unbind())
}
