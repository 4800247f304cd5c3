//! The report of `circuit`, and its picture.

use std::collections::BTreeSet;

use figures::{CircuitFigure, Scatter};
use gpt2::graph::{Edge, Writer};
use patching::circuit::judge::{Curve, Stability, Verdict, nodes, stability};
use patching::circuit::ranking::{Known, kendall};
use patching::circuit::{By, Method, Prediction, Scores, Selection};
use patching::{Agreement, Endpoints};
use report::{Report, circuit_figure};
use serde::Serialize;

use super::{Args, Results, SCATTER};
use crate::export::{AxisLabels, Grid, Study};
use crate::failure::Failure;
use crate::output::Output;
use crate::pairs::Pairs;
use crate::processing::Studied;
use crate::study::PICTURE;

/// An edge and its score, as JSON has them.
#[derive(Serialize)]
struct Scored {
    edge: String,
    score: Option<f32>,
    /// In how many of the resamples of the pairs it is chosen, as a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    stability: Option<f64>,
}

/// The choices that decide what a circuit's faithfulness means (Miller et al. 2024, arXiv 2407.08734).
#[derive(Serialize)]
struct Choices {
    granularity: &'static str,
    components: &'static str,
    ablation: String,
    positions: &'static str,
    direction: String,
    cut: &'static str,
}

#[derive(Serialize)]
struct VerdictReport {
    whole: f64,
    empty: f64,
    circuit: f64,
    complement: f64,
    faithfulness: Option<f64>,
    pairs: Vec<OfPair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpr: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    curve: Vec<[f64; 3]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    completeness: Vec<Without>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    minimality: Vec<OfNode>,
}

#[derive(Serialize)]
struct OfPair {
    whole: f64,
    empty: f64,
    circuit: f64,
    faithfulness: Option<f64>,
}

#[derive(Serialize)]
struct Without {
    nodes: Vec<String>,
    circuit: f64,
    model: f64,
}

#[derive(Serialize)]
struct OfNode {
    node: String,
    change: f64,
}

fn finite(x: f64) -> Option<f64> {
    Some(x).filter(|x| x.is_finite())
}

impl VerdictReport {
    fn of(verdict: &Verdict) -> Self {
        let curve = verdict.curve.as_ref();
        let points = |curve: &Curve| {
            curve.points.iter().map(|point| [point.share, point.n_edges as f64, point.faithfulness]).collect()
        };
        let of_pair = |pair: &patching::circuit::judge::OfPair| OfPair {
            whole: pair.whole,
            empty: pair.empty,
            circuit: pair.circuit,
            faithfulness: finite(pair.faithfulness),
        };
        let without = |subset: &patching::circuit::judge::Subset| Without {
            nodes: subset.nodes.iter().map(Writer::to_string).collect(),
            circuit: subset.circuit,
            model: subset.model,
        };
        let of_node = |(node, change): &(Writer, f64)| OfNode { node: node.to_string(), change: *change };
        Self {
            whole: verdict.whole,
            empty: verdict.empty,
            circuit: verdict.circuit,
            complement: verdict.complement,
            faithfulness: finite(verdict.faithfulness),
            pairs: verdict.by_pair.iter().map(of_pair).collect(),
            cpr: curve.map(|curve| curve.cpr),
            cmd: curve.map(|curve| curve.cmd),
            curve: curve.map(points).unwrap_or_default(),
            completeness: verdict.completeness.iter().map(without).collect(),
            minimality: verdict.minimality.iter().map(of_node).collect(),
        }
    }
}

impl Results {
    /// Everything that is said.
    pub fn report(
        &self,
        args: &Args,
        pairs: &Pairs,
        studied: &Studied,
        pictures: &[(&'static str, Output)],
    ) -> Result<Report, Failure> {
        let mut report = studied.report()?;
        self.say_what(&mut report, args, pairs, studied)?;
        for (name, key) in [(PICTURE, "image"), (SCATTER, "scatter")] {
            if let Some((_, output)) = pictures.iter().find(|(picture, _)| *picture == name) {
                report.fact(key, output.path().display().to_string())?;
            }
        }
        let stability = self.stability(args);
        self.say_circuit(&mut report, args, stability.as_ref())?;
        self.say_verdict(&mut report)?;
        report.show(PICTURE);
        self.say_largest(&mut report, args.top);
        self.say_agreement(&mut report, pairs)?;
        self.say_known(&mut report)?;
        report.study = Some(self.study(args, pairs, studied)?);
        Ok(report)
    }

    fn say_what(
        &self,
        report: &mut Report,
        args: &Args,
        pairs: &Pairs,
        studied: &Studied,
    ) -> Result<(), Failure> {
        let direction = args.pair.direction;
        let bos = args.model.bos(&studied.pretrained)?;
        report.fact("bos", bos.is_some())?;
        report.fact("direction", direction.to_string())?;
        let method = match &args.from {
            Some(path) => format!("from {}", path.display()),
            None => self.method.to_string(),
        };
        report.fact("method", &method)?;
        if let Method::Predict(Prediction::EapIg { steps } | Prediction::EapIgActivations { steps }) =
            self.method
        {
            report.fact("steps", steps)?;
        }
        report.fact(
            "choices",
            Choices {
                granularity: "edges",
                components: "token embeddings, heads (q, k and v apart), MLPs, logits",
                ablation: args.ablation.to_string(),
                positions: "all at once",
                direction: direction.to_string(),
                cut: "the complement of the circuit",
            },
        )?;
        if pairs.many {
            report.line(format!("{} pairs, the first of which is", pairs.list.len()));
        }
        report.line(format!(
            "clean      {}\ncorrupted  {}",
            pairs.first().clean.row(),
            pairs.first().corrupted.row()
        ));
        report.line(args.model.bos_in_words(&studied.pretrained, bos));
        report.line(format!("\nmodel      {}", studied.label()));
        report.line(format!("method     {method}, {direction}; cut edges carry {}", replaced_in_words(args)));
        report.line("           edges between embeddings, heads (q, k and v apart) and MLPs, at all positions at once;");
        report.line("           what is cut is the complement of the circuit");
        report.line(format!("metric     {}", pairs.label));
        pairs.say_ends(report, &self.ends, args.engine.engine)?;
        report.fact("base_metric", Endpoints::mean(&self.ends, |ends| ends.base))?;
        report.fact("source_metric", Endpoints::mean(&self.ends, Endpoints::source))?;
        Ok(())
    }

    /// How often each edge is chosen where the pairs are drawn anew.
    fn stability(&self, args: &Args) -> Option<Stability> {
        let selection = self.selection.filter(|_| self.by_pair.len() > 1)?;
        Some(stability(&self.by_pair, selection, self.by, args.set.resamples, args.set.seed))
    }

    fn say_circuit(
        &self,
        report: &mut Report,
        args: &Args,
        stability: Option<&Stability>,
    ) -> Result<(), Failure> {
        let (n_edges, n) = (self.graph.edges().count(), self.circuit.len());
        let share = |edge: Edge| {
            let found = stability?.shares.iter().find(|(other, _)| *other == edge);
            found.map(|(_, share)| *share)
        };
        let scored = |edge: Edge| Scored {
            edge: edge.to_string(),
            score: Some(self.scores.at(edge)).filter(|score| score.is_finite()),
            stability: share(edge),
        };
        report.fact("n_edges", n_edges)?;
        report.fact("chosen", self.chosen)?;
        report.fact("circuit", self.circuit.edges().map(scored).collect::<Vec<_>>())?;
        let heads: BTreeSet<gpt2::Head> = nodes(&self.circuit)
            .into_iter()
            .filter_map(|node| if let Writer::Head(head) = node { Some(head) } else { None })
            .collect();
        let n_mlps = nodes(&self.circuit).len() - heads.len();
        let pruned = match self.chosen - n {
            0 => String::new(),
            n => format!(" ({n} more lead nowhere)"),
        };
        let how = self
            .selection
            .map_or_else(String::new, |selection| format!("; {}", selection_in_words(selection, self.by)));
        report.line(format!(
            "\ncircuit    {n} of {n_edges} edges{pruned}, {} heads and {n_mlps} MLPs{how}",
            heads.len()
        ));
        if let Some(found) = &self.acdc {
            report.fact("tests", found.tests)?;
            report.fact("runs", found.runs)?;
            report.line(format!(
                "           threshold {}, {} edges tested in {} runs",
                args.threshold.unwrap_or_default(),
                found.tests,
                found.runs
            ));
        }
        if let Some(stability) = stability {
            report.fact("jaccard", stability.jaccard)?;
            report.line(format!(
                "           mean Jaccard index with the circuits of resampled pairs {:.3}",
                stability.jaccard
            ));
        }
        Ok(())
    }

    fn say_verdict(&self, report: &mut Report) -> Result<(), Failure> {
        let verdict = &self.verdict;
        report.fact("verdict", VerdictReport::of(verdict))?;
        report.line(format!(
            "value      {:+.4} alone; {:+.4} the whole model, {:+.4} no edge, {:+.4} the complement",
            verdict.circuit, verdict.whole, verdict.empty, verdict.complement
        ));
        let spread = match &verdict.by_pair[..] {
            [_] => String::new(),
            pairs => {
                let mut all: Vec<f64> =
                    pairs.iter().map(|pair| pair.faithfulness).filter(|f| f.is_finite()).collect();
                all.sort_by(f64::total_cmp);
                let at = |share: f64| {
                    all.get(((all.len().max(1) - 1) as f64 * share).round() as usize)
                        .copied()
                        .unwrap_or(f64::NAN)
                };
                format!(" (by pair: {:.3} to {:.3}, median {:.3})", at(0.0), at(1.0), at(0.5))
            }
        };
        report.line(format!("faithful   {:.4}{spread}", verdict.faithfulness));
        if let Some(curve) = &verdict.curve {
            report.line(format!("           CPR {:.4}, CMD {:.4}", curve.cpr, curve.cmd));
            for point in &curve.points {
                report.line(format!("           {:>6} edges  {:.4}", point.n_edges, point.faithfulness));
            }
        }
        if !verdict.completeness.is_empty() {
            let largest =
                verdict.completeness.iter().map(|it| (it.circuit - it.model).abs()).fold(0.0, f64::max);
            report.line(format!(
                "complete   without {} random sets of its nodes, circuit and model differ by at most {largest:.4}",
                verdict.completeness.len()
            ));
        }
        let mut minimality = verdict.minimality.clone();
        minimality.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        let least: Vec<String> =
            minimality.iter().take(5).map(|(node, change)| format!("{node} {change:.4}")).collect();
        if !least.is_empty() {
            report.line(format!("minimal    the nodes that matter least: {}", least.join(", ")));
        }
        Ok(())
    }

    fn say_largest(&self, report: &mut Report, top: usize) {
        let mut edges: Vec<Edge> =
            self.circuit.edges().filter(|edge| !self.scores.at(*edge).is_nan()).collect();
        edges.sort_by(|a, b| self.scores.at(*b).abs().total_cmp(&self.scores.at(*a).abs()));
        report.line("\n    score  edge");
        edges
            .iter()
            .take(top)
            .for_each(|edge| report.line(format!("{:>+9.4}  {edge}", self.scores.at(*edge))));
    }

    /// How well the scores agree with the exact effects.
    fn say_agreement(&self, report: &mut Report, pairs: &Pairs) -> Result<(), Failure> {
        let Some(exact) = &self.exact else { return Ok(()) };
        let list = |scores: &Scores| scores.iter().map(|(_, score)| score).collect::<Vec<f32>>();
        let (exact, predicted) = (list(exact), list(&self.scores));
        let agreement = Agreement::of(&exact, &predicted);
        let tau = kendall(&exact, &predicted);
        report.fact("pearson", agreement.pearson)?;
        report.fact("spearman", agreement.spearman)?;
        report.fact("kendall", tau)?;
        report.fact("largest_error", agreement.largest_error)?;
        let line = format!(
            "Pearson {:.4}, Spearman {:.4}, Kendall {tau:.4}, largest error {:.4}, over {} edges",
            agreement.pearson, agreement.spearman, agreement.largest_error, agreement.n
        );
        report.line(format!("\nagainst the exact effects: {line}"));
        let points = exact.iter().zip(&predicted).map(|(exact, predicted)| [*exact, *predicted]).collect();
        report.draw_figure(
            SCATTER,
            Scatter {
                title: format!("Edges: {} against exact", self.method),
                subtitle: vec![line],
                x_label: format!("exact {}", pairs.label),
                y_label: format!("predicted by {}", self.method),
                groups: vec![(String::new(), points)],
                ..Scatter::default()
            },
        );
        Ok(())
    }

    fn say_known(&self, report: &mut Report) -> Result<(), Failure> {
        let Some(known) = &self.known else { return Ok(()) };
        let roc = known.roc(&self.scores);
        let what = match known {
            Known::Heads(heads) => format!("{} known heads", heads.len()),
            Known::Edges(edges) => format!("{} known edges", edges.len()),
        };
        report.fact("auc", finite(roc.auc))?;
        report.fact("roc", &roc.points)?;
        report.line(format!("\nagainst {what}: AUC {:.4}", roc.auc));
        Ok(())
    }

    /// The scores as matrices of writers × readers.
    fn study(&self, args: &Args, pairs: &Pairs, studied: &Studied) -> Result<Study, Failure> {
        let axis =
            |name: &str, labels: Vec<String>| AxisLabels::at(name, (0..labels.len()).collect(), labels);
        let axes = vec![
            axis("writer", self.graph.writers().map(|it| it.to_string()).collect()),
            axis("reader", self.graph.readers().map(|it| it.to_string()).collect()),
        ];
        let grid = |name: &str, scores: &Scores| Grid {
            name: name.to_owned(),
            title: format!("Edges, {name}"),
            axes: axes.clone(),
            values: scores.by_writer(),
            value_label: pairs.label.clone(),
            center: Some(0.0),
            ..Grid::default()
        };
        let mut grids = vec![grid("scores", &self.scores)];
        grids.extend(self.exact.as_ref().map(|exact| grid("exact", exact)));
        let facts = [
            ("method", format!("{:?}", self.method)),
            ("from", args.from.as_ref().map_or_else(String::new, |path| path.display().to_string())),
            ("ablation", args.ablation.to_string()),
            ("threshold", args.threshold.map_or_else(String::new, |threshold| threshold.to_string())),
            ("order", args.order.to_string()),
        ];
        let bos = args.model.bos(&studied.pretrained)?;
        let provenance =
            pairs.provenance(studied, pairs.computation(bos, args.engine.engine, &args.set, facts))?;
        let (_, mut study) = pairs.studies(&self.title(), provenance, grids, Vec::new());
        study.title = self.title();
        Ok(study)
    }

    fn title(&self) -> String {
        format!("Circuit of {} edges ({})", self.circuit.len(), self.method)
    }

    /// The picture.
    pub fn figure(&self, args: &Args, pairs: &Pairs, studied: &Studied) -> CircuitFigure {
        let first = pairs.first();
        let mut subtitle =
            vec![format!("clean: {}", first.clean.text), format!("corrupted: {}", first.corrupted.text)];
        if pairs.many {
            subtitle = vec![format!("{} pairs, the first: {}", pairs.list.len(), first.clean.text)];
        }
        subtitle.push(format!(
            "model: {}, {}; faithfulness {:.3}",
            studied.label(),
            args.pair.direction,
            self.verdict.faithfulness
        ));
        let measured = self.method == Method::Exact || self.acdc.is_some();
        let predicted = if measured { "" } else { "predicted " };
        CircuitFigure {
            title: self.title(),
            subtitle,
            score_label: format!("{predicted}{} if the edge is cut", pairs.label),
            ..circuit_figure(&self.circuit, &self.scores)
        }
    }
}

fn replaced_in_words(args: &Args) -> &'static str {
    use patching::circuit::Replacement;
    match args.ablation {
        Replacement::Source => "what the source run writes",
        Replacement::Zero => "zeros",
        Replacement::Mean => "means over positions",
    }
}

fn selection_in_words(selection: Selection, by: By) -> String {
    let by = match by {
        By::Rise => "that let the metric rise most if cut",
        By::Fall => "that let the metric fall most if cut",
        By::Magnitude => "that move the metric most if cut",
    };
    match selection {
        Selection::Top(n) => format!("the {n} {by}"),
        Selection::Greedy(n) => format!("{n} from the logits on {by}"),
        Selection::Threshold(least) => format!("those {by}, by {least} and more"),
    }
}
