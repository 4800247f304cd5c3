//! Attribution: what a sweep would give, predicted from one backward pass.

use grids::Grid;
use patching::{Agreement, Attributed, Endpoints, Method, Outcome, Scale, SiteKind, attribute as predict};
use pyo3::prelude::*;
use report::{axis_labels, missing_in_words, unpatched_in_words};

use crate::failure::Failure;
use crate::metric::{Metric, Ready};
use crate::model::Model;
use crate::pairs::{Pairs, ReadyPair};
use crate::running::{Job, Observed, run};
use crate::study::{Ends, Study, of_pairs, provenance, report_on, say_ends};
use crate::sweep::Selection;

/// What one site of one pair came to, as it is shown.
struct Done {
    predicted: patching::Grid,
    exact: Option<patching::Grid>,
    ends: Endpoints,
    missing: usize,
}

/// How, and whether the sweep is run as well.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct How {
    method: String,
    steps: Option<usize>,
    exact: bool,
}

impl How {
    fn method(&self) -> Result<Method, Failure> {
        match (self.method.parse()?, self.steps) {
            (Method::Ig { .. }, Some(steps)) if steps > 0 => Ok(Method::Ig { steps }),
            (method, None) => Ok(method),
            (method, Some(steps)) => Err(Failure::value(format!(
                "steps={steps} is for method=\"ig\" and at least 1, not for {method}"
            ))),
        }
    }
}

/// Predicts a sweep.
#[pyfunction]
#[pyo3(signature = (model, pairs, metric, selection, how, progress))]
pub fn attribute(
    py: Python<'_>,
    model: &Model,
    pairs: &Pairs,
    metric: &Metric,
    selection: Selection,
    how: How,
    progress: Option<Bound<'_, PyAny>>,
) -> Result<Study, Failure> {
    let method = how.method()?;
    let metrics = pairs.metrics(model, metric, Scale::Change)?;
    let kinds = selection.kinds()?;
    let done = run(py, progress.as_ref(), |job| {
        let of_pair =
            |it: (&ReadyPair, &Ready<'_>)| attributed(model, pairs, it, (&selection, method, how.exact), job);
        pairs.list.iter().zip(&metrics).map(of_pair).collect::<Result<Vec<Vec<Done>>, Failure>>()
    })?;
    let ends: Vec<Endpoints> = done.iter().map(|of_pair| of_pair[0].ends).collect();
    let mut report = report_on(model)?;
    report.fact("method", method.to_string())?;
    say_ends(&mut report, pairs, Ends { ends: &ends, metrics: &metrics })?;
    let (mut by_pair, mut averages) = (Vec::new(), Vec::new());
    let mut agreements = serde_json::Map::new();
    for (i, &kind) in kinds.iter().enumerate() {
        let of_kind: Vec<&Done> = done.iter().map(|of_pair| &of_pair[i]).collect();
        for is_exact in [false, true] {
            let grids: Vec<&patching::Grid> = of_kind.iter().filter_map(|done| done.grid(is_exact)).collect();
            if grids.is_empty() {
                continue;
            }
            let name = if is_exact { "exact" } else { "attribution" };
            let words = |metric: &Ready<'_>| words(name, kind, kinds.len(), pairs, metric);
            if pairs.many {
                let parts = grids.iter().zip(&of_kind).map(|(grid, done)| (*grid, done.ends));
                averages.push(pairs.average(&metrics[0].named, parts, words(&metrics[0]))?);
            }
            let rows = pairs.list.iter().zip(&metrics).zip(of_kind.iter().zip(grids));
            by_pair.extend(rows.map(|((pair, metric), (done, grid))| {
                of_pair(pairs, (pair, metric), done, grid, words(metric))
            }));
        }
        if let (Some(exact), [done]) = (&of_kind[0].exact, &of_kind[..]) {
            let agreement = Agreement::of(&method.predicts(&exact.values), &done.predicted.values);
            let numbers = serde_json::json!({
                "pearson": agreement.pearson, "spearman": agreement.spearman,
                "largest_error": agreement.largest_error, "n": agreement.n,
            });
            agreements.insert(kind.to_string(), numbers);
        }
    }
    report.fact("agreement", agreements)?;
    let facts = [
        ("study", "attribute".to_owned()),
        ("site", selection.words()),
        ("method", format!("{method:?}")),
        ("metric", metrics[0].named.computation()),
    ];
    let provenance = provenance(model, pairs.prompts(), &facts);
    let base = pairs.source_and_base()[1];
    let title = format!("Attribution ({method}) of {} patched into the {base} run", selection.words());
    let scale = metrics[0].named.scale_in_words();
    let (drawn, study) = of_pairs(&title, (pairs, provenance), by_pair, averages, scale);
    report.study = Some(study);
    Ok(Study::new(report, drawn))
}

impl Done {
    fn grid(&self, is_exact: bool) -> Option<&patching::Grid> {
        if is_exact { self.exact.as_ref() } else { Some(&self.predicted) }
    }
}

/// The predictions for one pair, and the sweeps if they are wanted.
fn attributed(
    model: &Model,
    pairs: &Pairs,
    (pair, metric): (&ReadyPair, &Ready<'_>),
    (selection, method, is_exact): (&Selection, Method, bool),
    job: &Job,
) -> Result<Vec<Done>, Failure> {
    let sweeps = selection.sweeps(model, &pair.pair.experiment, job)?;
    let parts = pairs.list.len() * (1 + if is_exact { sweeps.len() } else { 0 });
    let observed = Observed::part_of(job, parts);
    let progress = observed.watch().progress;
    let predicted: Vec<Attributed> =
        metric.with(job, |reading| predict(model.gpt2(), &sweeps, reading, method, progress))?;
    if let Some(first) = predicted.first().filter(|first| first.complete) {
        pairs.check_ends(pair, model, first.ends())?;
    }
    let scale = pairs.shown(&metric.named).scale;
    let done = |(sweep, attributed): (_, &Attributed)| {
        let sweep: &patching::Sweep<'_> = sweep;
        let run =
            |reading: patching::Metric<'_>| sweep.run(model.gpt2(), reading, selection.engine(), progress);
        let exact = is_exact.then(|| {
            let mut outcome: Outcome = metric.with(job, run);
            let ends = outcome.ends(pairs.direction);
            scale.apply(&mut outcome.grid.values, ends).map(|()| outcome.grid)
        });
        Ok(Done {
            predicted: if attributed.complete { attributed.on(scale)? } else { attributed.changes.clone() },
            exact: exact.transpose()?,
            ends: attributed.ends(),
            missing: attributed.missing,
        })
    };
    sweeps.iter().zip(&predicted).map(done).collect()
}

/// The words around a grid.
fn words(name: &str, kind: SiteKind, n_kinds: usize, pairs: &Pairs, metric: &Ready<'_>) -> Grid {
    let label = metric.label();
    Grid {
        name: if n_kinds == 1 { name.to_owned() } else { format!("{name}_{kind}") },
        title: format!("{name}, {kind}"),
        value_label: if name == "exact" { label } else { format!("predicted {label}") },
        center: metric.named.center(),
        legend: metric.named.colors(pairs.source_and_base()[1]).into_iter().collect(),
        ..Grid::default()
    }
}

/// The grid of one pair.
fn of_pair(
    pairs: &Pairs,
    (pair, metric): (&ReadyPair, &Ready<'_>),
    done: &Done,
    grid: &patching::Grid,
    words: Grid,
) -> Grid {
    let unpatched = unpatched_in_words(pairs.shown(&metric.named).shown_unpatched(done.ends));
    Grid {
        name: pairs.name_of_grid(&words.name, pair),
        axes: axis_labels(&grid.axes, &grid.places, &pair.base().tokens),
        values: grid.values.clone(),
        legend: words.legend.into_iter().chain([unpatched]).chain(missing_in_words(done.missing)).collect(),
        ..words
    }
}
