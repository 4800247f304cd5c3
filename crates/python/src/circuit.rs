//! Circuits: the edges that carry an answer.

use std::path::PathBuf;

use figures::CircuitFigure;
use gpt2::graph::{Circuit as Edges, Edge, Graph, Writer};
use grids::{AxisLabels, Grid};
use patching::circuit::judge::{Point, Subset, Trial, Verdict, Wanted};
use patching::circuit::{By, Found, Method, Runs, Scores, Selection, acdc, file, pruned};
use patching::{Endpoints, Engine, Scale};
use pyo3::prelude::*;
use report::{Report, circuit_figure};

use crate::failure::Failure;
use crate::metric::{Metric, Ready};
use crate::model::Model;
use crate::pairs::{Pairs, ReadyPair};
use crate::running::{Job, Observed, run};
use crate::study::{Ends, Study, of_pairs, provenance, report_on, say_ends};

/// The largest file of a circuit that is read: several times the one of GPT-2 XL.
const MAX_GRAPH_BYTES: u64 = 1 << 30;

/// How a circuit is found.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Search {
    method: String,
    steps: Option<usize>,
    ablation: String,
    edges: Option<usize>,
    threshold: Option<f32>,
    absolute: bool,
    greedy: bool,
    order: String,
    exact: bool,
    plain: bool,
}

impl Search {
    fn method(&self) -> Result<Method, Failure> {
        let method: Method = self.method.parse()?;
        let is_acdc = method == Method::Acdc;
        let refuse = |given: bool, words: &str| if given { Err(Failure::value(words)) } else { Ok(()) };
        refuse(is_acdc && self.edges.is_some(), "edges= is not for method=\"acdc\": give threshold=")?;
        refuse(is_acdc && self.threshold.is_none(), "method=\"acdc\" needs threshold=, for example 0.05")?;
        refuse(is_acdc && self.exact, "exact=True compares scores of edges, and acdc has none")?;
        refuse(self.threshold.is_some_and(f32::is_nan), "threshold= is not a number")?;
        match (method, self.steps) {
            (method, None) => Ok(method),
            (Method::Predict(prediction), Some(steps))
                if steps > 0 && prediction.with_steps(steps).is_some() =>
            {
                Ok(prediction.with_steps(steps).map_or(method, Method::Predict))
            }
            (method, Some(_)) => Err(Failure::value(format!("steps= is not for method=\"{method}\""))),
        }
    }

    fn selection(&self) -> Selection {
        match (self.threshold, self.edges) {
            (Some(least), _) => Selection::Threshold(least),
            (None, n) if self.greedy => Selection::Greedy(n.unwrap_or(50)),
            (None, n) => Selection::Top(n.unwrap_or(50)),
        }
    }

    fn engine(&self) -> Engine {
        if self.plain { Engine::Plain } else { Engine::default() }
    }
}

/// Scores of edges and the circuit that was chosen by them.
#[pyclass(frozen, module = "gpt2_patching._native")]
pub struct Circuit {
    scores: Scores,
    edges: Edges,
    by: By,
    n_embd: usize,
}

#[pymethods]
impl Circuit {
    /// The edges that are kept, with their scores.
    #[getter]
    fn edges(&self) -> Vec<(String, f32)> {
        self.edges.edges().map(|edge| (edge.to_string(), self.scores.at(edge))).collect()
    }

    /// All edges with their scores.
    #[getter]
    fn scores(&self) -> Vec<(String, f32)> {
        self.scores.iter().map(|(edge, score)| (edge.to_string(), score)).collect()
    }

    /// The circuit of other edges, by their names, with the same scores.
    fn of(&self, names: Vec<String>) -> Result<Self, Failure> {
        let graph = self.scores.graph();
        let mut edges = Edges::empty(graph);
        for name in names {
            let edge: Option<Edge> = name.parse().ok().filter(|edge| graph.has(*edge));
            let edge =
                edge.ok_or_else(|| Failure::value(format!("there is no edge \"{name}\" in this model")))?;
            edges.set(edge, true);
        }
        Ok(Self { scores: self.scores.clone(), edges, by: self.by, n_embd: self.n_embd })
    }

    /// In the file form of EAP-IG and MIB.
    fn json(&self) -> Result<String, Failure> {
        Ok(file::to_json(&self.scores, &self.edges, self.n_embd)?)
    }

    /// For Graphviz.
    fn dot(&self) -> String {
        figures::dot(&circuit_figure(&self.edges, &self.scores))
    }
}

/// Reads scores and circuit from a file in the form of EAP-IG and MIB.
#[pyfunction]
pub fn read_circuit(model: &Model, path: PathBuf) -> Result<Circuit, Failure> {
    let config = &model.gpt2().config;
    let at =
        |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let bytes = files::read(&path, MAX_GRAPH_BYTES).map_err(at)?;
    let text = String::from_utf8_lossy(&bytes);
    let read = file::from_json(&text, Graph::of(config));
    let (scores, edges) = read.map_err(|error| Failure::value(format!("{}: {error}", path.display())))?;
    Ok(Circuit { scores, edges, by: By::Magnitude, n_embd: config.n_embd })
}

/// What was found.
struct Results {
    ends: Vec<Endpoints>,
    by: By,
    scores: Scores,
    exact: Option<Scores>,
    chosen: usize,
    circuit: Edges,
    acdc: Option<Found>,
    verdict: Verdict,
}

/// Two runs of each pair, with their metrics read.
struct Task<'a> {
    model: &'a Model,
    pairs: &'a Pairs,
    metrics: &'a [Ready<'a>],
    search: &'a Search,
}

/// Finds a circuit.
#[pyfunction]
#[pyo3(signature = (model, pairs, metric, search, progress))]
pub fn circuit(
    py: Python<'_>,
    model: &Model,
    pairs: &Pairs,
    metric: &Metric,
    search: Search,
    progress: Option<Bound<'_, PyAny>>,
) -> Result<(Study, Circuit), Failure> {
    let method = search.method()?;
    let metrics = pairs.metrics(model, metric, Scale::Change)?;
    if metrics[0].named.scale != Scale::Change {
        return Err(Failure::value(
            "the scores of edges are changes of the metric: leave out scale= and normalised metrics",
        ));
    }
    let task = Task { model, pairs, metrics: &metrics, search: &search };
    let results = run(py, progress.as_ref(), |job| task.find(method, job))?;
    let report = task.report(method, &results)?;
    let figure = task.figure(method, &results);
    let n_embd = model.gpt2().config.n_embd;
    let found = Circuit { scores: results.scores, edges: results.circuit, by: results.by, n_embd };
    Ok((Study::with_figure(report, figure), found))
}

/// Judges a circuit: its verdict as JSON.
#[pyfunction]
#[pyo3(signature = (model, pairs, metric, search, circuit, seed, progress))]
#[expect(clippy::too_many_arguments, reason = "called by judge() alone")]
pub fn judge(
    py: Python<'_>,
    model: &Model,
    pairs: &Pairs,
    metric: &Metric,
    search: Search,
    circuit: &Circuit,
    seed: u64,
    progress: Option<Bound<'_, PyAny>>,
) -> Result<String, Failure> {
    /// With how many random sets of nodes completeness is asked.
    const SUBSETS: usize = 10;
    let metrics = pairs.metrics(model, metric, Scale::Change)?;
    let task = Task { model, pairs, metrics: &metrics, search: &search };
    let wanted = Wanted { curve: Some(circuit.by), subsets: SUBSETS, minimality: true, seed };
    let verdict = run(py, progress.as_ref(), |job| {
        task.verdict(&Trial::of(&circuit.edges, &circuit.scores, wanted), job)
    })?;
    Ok(verdict_of(&verdict).to_string())
}

fn stopped() -> Failure {
    Failure::bug("stopped")
}

impl<'a> Task<'a> {
    /// Calls `each` with the runs of every pair.
    fn each<T>(
        &self,
        job: &Job,
        mut each: impl FnMut(&Runs<'_>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let replacement = self.search.ablation.parse()?;
        let observed = Observed::part_of(job, 3 * self.pairs.list.len());
        let mut of_pair = |(pair, metric): (&ReadyPair, &Ready<'_>)| {
            metric.with(job, |reading| {
                let experiment = &pair.pair.experiment;
                let runs = Runs::new(self.model.gpt2(), experiment, reading, replacement, observed.watch())?;
                let runs = runs.ok_or_else(stopped)?;
                self.pairs.check_ends(pair, self.model, runs.ends())?;
                each(&runs)
            })
        };
        self.pairs.list.iter().zip(self.metrics).map(&mut of_pair).collect()
    }

    fn find(&self, method: Method, job: &Job) -> Result<Results, Failure> {
        let graph = Graph::of(&self.model.gpt2().config);
        let all: Vec<Edge> = graph.edges().collect();
        let engine = self.search.engine();
        let measure = |runs: &Runs<'_>| runs.measure(&all, engine).ok_or_else(stopped);
        let ends = self.each(job, |runs| Ok(runs.ends()))?;
        let by =
            if self.search.absolute { By::Magnitude } else { By::towards_source(Endpoints::means(&ends)) };
        let is_measured = self.search.exact || method == Method::Exact;
        let exact = if is_measured { Some(Scores::mean(&self.each(job, measure)?)) } else { None };
        let mut found = None;
        let (scores, chosen) = match (method, &exact) {
            (Method::Acdc, _) => {
                let (of_acdc, scores) = self.acdc(by, job)?;
                let circuit = of_acdc.circuit.clone();
                found = Some(of_acdc);
                (scores, circuit)
            }
            (Method::Predict(prediction), _) => {
                let by_pair = self.each(job, |runs| runs.predict(prediction)?.ok_or_else(stopped))?;
                let scores = Scores::mean(&by_pair);
                let chosen = self.search.selection().circuit(&scores, by);
                (scores, chosen)
            }
            (Method::Exact, Some(exact)) => (exact.clone(), self.search.selection().circuit(exact, by)),
            (Method::Exact, None) => return Err(stopped()),
        };
        let circuit = pruned(&chosen);
        let verdict = self.verdict(&Trial::of(&circuit, &scores, Wanted::default()), job)?;
        let exact = exact.filter(|_| self.search.exact);
        Ok(Results { ends, by, scores, exact, chosen: chosen.len(), circuit, acdc: found, verdict })
    }

    /// What ACDC leaves of one pair, scored by what each of its edges does by itself.
    fn acdc(&self, by: By, job: &Job) -> Result<(Found, Scores), Failure> {
        let (threshold, engine) = (self.search.threshold.unwrap_or_default(), self.search.engine());
        let order = self.search.order.parse()?;
        if self.pairs.list.len() != 1 {
            return Err(Failure::value(
                "method=\"acdc\" takes one pair of prompts here; the command line takes sets",
            ));
        }
        let mut each = self.each(job, |runs| {
            let found = acdc(std::slice::from_ref(runs), threshold, by, order, engine).ok_or_else(stopped)?;
            let left: Vec<Edge> = found.circuit.edges().collect();
            let scores = runs.measure(&left, engine).ok_or_else(stopped)?;
            Ok((found, Scores::mean([&scores])))
        })?;
        each.pop().ok_or_else(stopped)
    }

    fn verdict(&self, trial: &Trial, job: &Job) -> Result<Verdict, Failure> {
        let engine = self.search.engine();
        let values = self.each(job, |runs| {
            let values = runs.values(trial.circuits(), engine);
            values.into_iter().collect::<Option<Vec<f32>>>().ok_or_else(stopped)
        })?;
        Ok(trial.verdict(&values))
    }

    /// Everything that is said.
    fn report(&self, method: Method, results: &Results) -> Result<Report, Failure> {
        let mut report = report_on(self.model)?;
        report.fact("method", method.to_string())?;
        say_ends(&mut report, self.pairs, Ends { ends: &results.ends, metrics: self.metrics })?;
        report.fact("base_metric", Endpoints::mean(&results.ends, |ends| ends.base))?;
        report.fact("source_metric", Endpoints::mean(&results.ends, Endpoints::source))?;
        report.fact("n_edges", results.scores.graph().edges().count())?;
        report.fact("chosen", results.chosen)?;
        let scored = |edge: Edge| {
            let score = results.scores.at(edge);
            serde_json::json!({"edge": edge.to_string(), "score": score.is_finite().then_some(score)})
        };
        report.fact("circuit", results.circuit.edges().map(scored).collect::<Vec<_>>())?;
        if let Some(found) = &results.acdc {
            report.fact("tests", found.tests)?;
            report.fact("runs", found.runs)?;
        }
        report.fact("verdict", verdict_of(&results.verdict))?;
        let facts = [
            ("study", "circuit".to_owned()),
            ("method", format!("{method:?}")),
            ("ablation", self.search.ablation.clone()),
            ("metric", self.metrics[0].named.computation()),
        ];
        let provenance = provenance(self.model, self.pairs.prompts(), &facts);
        let title = self.title(method, results);
        let (_, mut study) = of_pairs(&title, (self.pairs, provenance), self.grids(results), Vec::new(), "");
        study.title = title;
        report.study = Some(study);
        Ok(report)
    }

    /// The scores as matrices of writers × readers.
    fn grids(&self, results: &Results) -> Vec<Grid> {
        let graph = results.scores.graph();
        let axes = vec![
            AxisLabels::new("writer", graph.writers().map(|it| it.to_string())),
            AxisLabels::new("reader", graph.readers().map(|it| it.to_string())),
        ];
        let grid = |name: &str, scores: &Scores| Grid {
            name: name.to_owned(),
            title: format!("Edges, {name}"),
            axes: axes.clone(),
            values: scores.by_writer(),
            value_label: self.metrics[0].label(),
            center: Some(0.0),
            ..Grid::default()
        };
        let exact = results.exact.as_ref().map(|exact| grid("exact", exact));
        [Some(grid("scores", &results.scores)), exact].into_iter().flatten().collect()
    }

    fn title(&self, method: Method, results: &Results) -> String {
        format!("Circuit of {} edges ({method})", results.circuit.len())
    }

    fn figure(&self, method: Method, results: &Results) -> CircuitFigure {
        let first = self.pairs.first();
        let mut subtitle =
            vec![format!("clean: {}", first.clean.text), format!("corrupted: {}", first.corrupted.text)];
        if self.pairs.many {
            subtitle = vec![format!("{} pairs, the first: {}", self.pairs.list.len(), first.clean.text)];
        }
        subtitle.push(format!(
            "model: {}, {}; faithfulness {:.3}",
            self.model.pretrained.name, self.pairs.direction, results.verdict.faithfulness
        ));
        let predicted = if matches!(method, Method::Predict(_)) { "predicted " } else { "" };
        CircuitFigure {
            title: self.title(method, results),
            subtitle,
            score_label: format!("{predicted}{} if the edge is cut", self.metrics[0].label()),
            ..circuit_figure(&results.circuit, &results.scores)
        }
    }
}

/// A verdict as JSON has it.
fn verdict_of(verdict: &Verdict) -> serde_json::Value {
    let finite = |x: f64| Some(x).filter(|x| x.is_finite());
    let names = |nodes: &[Writer]| nodes.iter().map(Writer::to_string).collect::<Vec<_>>();
    let mut json = serde_json::json!({
        "whole": finite(verdict.whole), "empty": finite(verdict.empty), "circuit": finite(verdict.circuit),
        "complement": finite(verdict.complement), "faithfulness": finite(verdict.faithfulness),
    });
    if let Some(curve) = &verdict.curve {
        let point = |it: &Point| [it.share, it.n_edges as f64, it.faithfulness].map(finite);
        json["cpr"] = finite(curve.cpr).into();
        json["cmd"] = finite(curve.cmd).into();
        json["curve"] = serde_json::json!(curve.points.iter().map(point).collect::<Vec<_>>());
    }
    let subset = |it: &Subset| {
        serde_json::json!({
            "nodes": names(&it.nodes), "circuit": finite(it.circuit), "model": finite(it.model),
        })
    };
    json["completeness"] = verdict.completeness.iter().map(subset).collect();
    let node = |(node, change): &(Writer, f64)| serde_json::json!({"node": node.to_string(), "change": finite(*change)});
    json["minimality"] = verdict.minimality.iter().map(node).collect();
    json
}
