//! Path patching: which head talks to which.

use grids::Grid;
use patching::path::{HeadInput, PathPatching, Receivers, Senders};
use patching::{Endpoints, Engine, Head, Scale};
use pyo3::prelude::*;
use report::{axis_labels, missing_in_words, unpatched_in_words};

use crate::failure::Failure;
use crate::metric::{Metric, Ready};
use crate::model::Model;
use crate::pairs::{Pairs, ReadyPair};
use crate::running::{Observed, run};
use crate::study::{Ends, Study, of_pairs, provenance, report_on, say_ends};

/// From where to where.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Route {
    from: String,
    to: String,
    heads: Vec<(usize, usize)>,
    layers: Vec<usize>,
    /// From the end if it is negative.
    pos: Option<isize>,
    through_mlps: bool,
    plain: bool,
}

impl Route {
    fn senders(&self) -> Result<Senders, Failure> {
        match self.from.as_str() {
            "z" => Ok(Senders::Heads),
            "mlp_out" => Ok(Senders::Mlps),
            "embed" => Ok(Senders::Embeddings),
            other => Err(Failure::value(format!("there is no sender \"{other}\"; give z, mlp_out or embed"))),
        }
    }

    fn receivers(&self) -> Result<Receivers, Failure> {
        let heads = || self.heads.iter().map(|&(layer, head)| Head { layer, head }).collect();
        match self.to.as_str() {
            "logits" => Ok(Receivers::Logits),
            "q" => Ok(Receivers::Heads(HeadInput::Q, heads())),
            "k" => Ok(Receivers::Heads(HeadInput::K, heads())),
            "v" => Ok(Receivers::Heads(HeadInput::V, heads())),
            "mlp" => Ok(Receivers::Mlps(self.layers.clone())),
            other => {
                Err(Failure::value(format!("there is no receiver \"{other}\"; give logits, q, k, v or mlp")))
            }
        }
    }

    /// The path patching of prompts of `n` tokens.
    fn of(&self, n: usize) -> Result<PathPatching, Failure> {
        let place = |pos: isize| if pos < 0 { n.checked_add_signed(pos) } else { Some(pos.unsigned_abs()) };
        let strange = |pos: isize| format!("there is no position {pos}: the prompts have {n} tokens");
        let pos = self.pos.map(|pos| place(pos).ok_or_else(|| Failure::value(strange(pos)))).transpose()?;
        Ok(PathPatching {
            senders: self.senders()?,
            receivers: self.receivers()?,
            pos,
            through_mlps: self.through_mlps,
        })
    }

    fn words(&self) -> String {
        let heads = self.heads.iter().map(|(layer, head)| format!("{layer}.{head}"));
        let receivers: Vec<String> = heads.chain(self.layers.iter().map(usize::to_string)).collect();
        let receivers = receivers.join(", ");
        let to = match self.to.as_str() {
            "q" => format!("the queries of {receivers}"),
            "k" => format!("the keys of {receivers}"),
            "v" => format!("the values of {receivers}"),
            "mlp" => format!("the MLPs {receivers}"),
            _ => "the logits".to_owned(),
        };
        let from = match self.from.as_str() {
            "mlp_out" => "the output of each MLP",
            "embed" => "each token embedding",
            _ => "z of each head",
        };
        let at = self.pos.map_or_else(String::new, |pos| format!(" at position {pos}"));
        let through = if self.through_mlps { "through MLPs" } else { "MLPs frozen" };
        format!("{from}{at} to {to}, {through}")
    }
}

/// What path patching of one pair came to.
struct Done {
    grid: patching::Grid,
    ends: Endpoints,
    missing: usize,
}

/// Patches the path from every sender to the receivers.
#[pyfunction]
#[pyo3(signature = (model, pairs, metric, route, progress))]
pub fn path_patch(
    py: Python<'_>,
    model: &Model,
    pairs: &Pairs,
    metric: &Metric,
    route: Route,
    progress: Option<Bound<'_, PyAny>>,
) -> Result<Study, Failure> {
    let metrics = pairs.metrics(model, metric, Scale::Change)?;
    let engine = if route.plain { Engine::Plain } else { Engine::default() };
    let done = run(py, progress.as_ref(), |job| {
        let observed = Observed::part_of(job, pairs.list.len());
        let of_pair = |(pair, metric): (&ReadyPair, &Ready<'_>)| {
            let experiment = &pair.pair.experiment;
            let paths = route.of(experiment.n_tokens())?;
            let outcome = metric.with(job, |reading| {
                paths.run(model.gpt2(), experiment, reading, engine, observed.watch())
            })?;
            let ends = outcome.ends(pairs.direction);
            let mut grid = outcome.grid;
            let missing = grid.values.iter().filter(|value| value.is_nan()).count();
            if outcome.complete {
                pairs.check_ends(pair, model, ends)?;
                pairs.shown(&metric.named).scale.apply(&mut grid.values, ends)?;
            }
            Ok(Done { grid, ends, missing })
        };
        pairs.list.iter().zip(&metrics).map(of_pair).collect::<Result<Vec<Done>, Failure>>()
    })?;
    let ends: Vec<Endpoints> = done.iter().map(|done| done.ends).collect();
    let mut report = report_on(model)?;
    report.fact("from", &route.from)?;
    report.fact("to", &route.to)?;
    report.fact("through_mlps", route.through_mlps)?;
    say_ends(&mut report, pairs, Ends { ends: &ends, metrics: &metrics })?;
    let name = format!("{}_to_{}", route.from, route.to);
    let rows = pairs.list.iter().zip(&metrics).zip(&done);
    let by_pair = rows.map(|((pair, metric), done)| grid(&name, pairs, (pair, metric), done)).collect();
    let mut averages = Vec::new();
    if pairs.many {
        let grids = done.iter().map(|done| (&done.grid, done.ends));
        averages.push(pairs.average(&metrics[0].named, grids, words(name, pairs, &metrics[0]))?);
    }
    let facts =
        [("study", "path".to_owned()), ("path", route.words()), ("metric", metrics[0].named.computation())];
    let provenance = provenance(model, pairs.prompts(), &facts);
    let title = format!("Path patching: {}", route.words());
    let scale = metrics[0].named.scale_in_words();
    let (drawn, study) = of_pairs(&title, (pairs, provenance), by_pair, averages, scale);
    report.study = Some(study);
    Ok(Study::new(report, drawn))
}

/// The words around a grid.
fn words(name: String, pairs: &Pairs, metric: &Ready<'_>) -> Grid {
    let base = pairs.source_and_base()[1];
    let legend = match metric.named.scale {
        Scale::Change | Scale::NormalizedChange => {
            Some(format!("Blue: along this path the {base} run's metric rises; red: it falls."))
        }
        _ => metric.named.colors(base),
    };
    Grid {
        name,
        value_label: metric.label(),
        center: metric.named.center(),
        legend: legend.into_iter().collect(),
        ..Grid::default()
    }
}

/// The grid of one pair.
fn grid(name: &str, pairs: &Pairs, (pair, metric): (&ReadyPair, &Ready<'_>), done: &Done) -> Grid {
    let words = words(pairs.name_of_grid(name, pair), pairs, metric);
    let unpatched = unpatched_in_words(pairs.shown(&metric.named).shown_unpatched(done.ends));
    Grid {
        axes: axis_labels(&done.grid.axes, &done.grid.places, &pair.base().tokens),
        values: done.grid.values.clone(),
        legend: words.legend.into_iter().chain([unpatched]).chain(missing_in_words(done.missing)).collect(),
        ..words
    }
}
