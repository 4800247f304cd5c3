//! How good is a circuit?
//!
//! With m(M) the metric of the whole model, and m(∅) that without any edge:
//!
//! - **Faithfulness** f(C) = (m(C) − m(∅)) / (m(M) − m(∅)): 1 if the circuit alone does what the model does.
//! - **Completeness** (Wang et al. 2022, section 4): for random sets K of nodes of C, m(C ∖ K) is near m(M ∖ K): nothing
//!   outside C stands in for K.
//! - **Minimality** of a node v: by what share of m(M) − m(∅) the metric changes if v is taken out of C.
//! - **CPR** = ∫ f and **CMD** = ∫ |1 − f| over the share of edges that are kept, of circuits chosen from one ranking
//!   at [`SHARES`] (MIB: Mueller et al. 2025, arXiv 2504.13151), by trapezoids from the first share to the last.
//!
//! Over many pairs, m is the mean of the pairs' metrics.

use gpt2::graph::{Circuit, Edge, Writer};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::{By, Scores, Selection};

/// The shares of all edges at which MIB looks.
pub const SHARES: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// (m(C) − m(∅)) / (m(M) − m(∅)); NaN if the two ends are the same.
pub fn faithfulness(circuit: f64, empty: f64, whole: f64) -> f64 {
    let f = (circuit - empty) / (whole - empty);
    if f.is_finite() { f } else { f64::NAN }
}

/// The circuits of a ranking at [`SHARES`] of all edges.
pub fn nested(scores: &Scores, by: By) -> Vec<Circuit> {
    let n_edges = scores.graph().edges().count();
    SHARES.iter().map(|share| Selection::Top((share * n_edges as f64) as usize).circuit(scores, by)).collect()
}

/// CPR and CMD from the faithfulness at each of [`SHARES`].
///
/// # Panics
/// If there is not one for each.
#[track_caller]
pub fn areas(faithfulness: &[f64]) -> [f64; 2] {
    assert!(faithfulness.len() == SHARES.len(), "{} values for {} shares", faithfulness.len(), SHARES.len());
    let area = |of: &dyn Fn(f64) -> f64| -> f64 {
        let steps = SHARES.windows(2).zip(faithfulness.windows(2));
        steps.map(|(x, f)| (x[1] - x[0]) * (of(f[0]) + of(f[1])) / 2.0).sum()
    };
    [area(&|f| f), area(&|f| (1.0 - f).abs())]
}

/// The nodes of a circuit: writers with an edge that is kept, other than the input.
pub fn nodes(circuit: &Circuit) -> Vec<Writer> {
    let is_in = |writer: &Writer| circuit.edges().any(|edge| edge.writer == *writer);
    circuit.graph().writers().filter(|writer| *writer != Writer::Input).filter(is_in).collect()
}

/// A circuit without some nodes: all edges from them are cut.
pub fn without(circuit: &Circuit, nodes: &[Writer]) -> Circuit {
    let mut rest = circuit.clone();
    let edges: Vec<Edge> = circuit.edges().filter(|edge| nodes.contains(&edge.writer)).collect();
    edges.into_iter().for_each(|edge| rest.set(edge, false));
    rest
}

/// Random sets of a circuit's nodes, each node with probability ½; the same for the same seed.
pub fn random_subsets(circuit: &Circuit, n: usize, seed: u64) -> Vec<Vec<Writer>> {
    let nodes = nodes(circuit);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..n).map(|_| nodes.iter().copied().filter(|_| rng.random_bool(0.5)).collect()).collect()
}

/// What is asked about a circuit beside its faithfulness and that of its complement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// CPR and CMD, of edges chosen by this.
    pub curve: Option<By>,
    /// How many random sets of nodes completeness is asked with.
    pub subsets: usize,
    /// Whether minimality is asked of every node.
    pub minimality: bool,
    /// The seed of the random sets.
    pub seed: u64,
}

/// The circuits whose values judge a circuit.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The whole model, no edge, the circuit, its complement; the curve; for each set K the circuit and the model
    /// without it; the circuit without each node.
    circuits: Vec<Circuit>,
    has_curve: bool,
    subsets: Vec<Vec<Writer>>,
    nodes: Vec<Writer>,
}

/// How a circuit is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// m(M), the base run's metric.
    pub whole: f64,
    /// m(∅)
    pub empty: f64,
    /// m(C)
    pub circuit: f64,
    /// m(M ∖ C)
    pub complement: f64,
    /// f(C); NaN if m(M) and m(∅) are the same.
    pub faithfulness: f64,
    /// The same for each pair.
    pub by_pair: Vec<OfPair>,
    /// Faithfulness over the share of edges.
    pub curve: Option<Curve>,
    /// For each random set of nodes.
    pub completeness: Vec<Subset>,
    /// For each node by what share of m(M) − m(∅) the metric changes without it.
    pub minimality: Vec<(Writer, f64)>,
}

/// The values of one pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OfPair {
    /// m(M)
    pub whole: f64,
    /// m(∅)
    pub empty: f64,
    /// m(C)
    pub circuit: f64,
    /// f(C)
    pub faithfulness: f64,
}

/// Faithfulness of nested circuits.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// At each of [`SHARES`].
    pub points: Vec<Point>,
    /// ∫ f
    pub cpr: f64,
    /// ∫ |1 − f|
    pub cmd: f64,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The share of edges.
    pub share: f64,
    /// How many that are.
    pub n_edges: usize,
    /// f
    pub faithfulness: f64,
}

/// A set of nodes, taken out of the circuit and out of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// K
    pub nodes: Vec<Writer>,
    /// m(C ∖ K)
    pub circuit: f64,
    /// m(M ∖ K)
    pub model: f64,
}

impl Trial {
    /// What is to be run to judge a circuit. `scores` are those that the curve is chosen from.
    pub fn of(circuit: &Circuit, scores: &Scores, wanted: Wanted) -> Self {
        let graph = circuit.graph();
        let whole = Circuit::whole(graph);
        let mut circuits = vec![whole.clone(), Circuit::empty(graph), circuit.clone(), circuit.complement()];
        circuits.extend(wanted.curve.map(|by| nested(scores, by)).unwrap_or_default());
        let subsets = random_subsets(circuit, wanted.subsets, wanted.seed);
        circuits.extend(subsets.iter().flat_map(|nodes| [without(circuit, nodes), without(&whole, nodes)]));
        let nodes = if wanted.minimality { nodes(circuit) } else { Vec::new() };
        circuits.extend(nodes.iter().map(|node| without(circuit, &[*node])));
        Self { circuits, has_curve: wanted.curve.is_some(), subsets, nodes }
    }

    /// The circuits, whose values [`Trial::verdict`] wants.
    pub fn circuits(&self) -> &[Circuit] {
        &self.circuits
    }

    /// The verdict, from the values of all circuits in each pair.
    ///
    /// # Panics
    /// If a pair has not a value for each, or there is no pair.
    #[track_caller]
    pub fn verdict(&self, pairs: &[Vec<f32>]) -> Verdict {
        let n = self.circuits.len();
        assert!(
            !pairs.is_empty() && pairs.iter().all(|pair| pair.len() == n),
            "not {n} values for each pair"
        );
        let mean = |i: usize| pairs.iter().map(|pair| f64::from(pair[i])).sum::<f64>() / pairs.len() as f64;
        let mut means = (0..n).map(mean);
        let mut next = || means.next().unwrap_or(f64::NAN);
        let [whole, empty, circuit, complement] = std::array::from_fn(|_| next());
        let curve = self.has_curve.then(|| {
            let point = |(&share, circuit): (&f64, &Circuit)| {
                let faithfulness = faithfulness(next(), empty, whole);
                Point { share, n_edges: circuit.len(), faithfulness }
            };
            let points: Vec<Point> = SHARES.iter().zip(&self.circuits[4..]).map(point).collect();
            let [cpr, cmd] = areas(&points.iter().map(|point| point.faithfulness).collect::<Vec<f64>>());
            Curve { points, cpr, cmd }
        });
        let subset = |nodes: &Vec<Writer>| Subset { nodes: nodes.clone(), circuit: next(), model: next() };
        let completeness = self.subsets.iter().map(subset).collect();
        let change = |node: &Writer| (*node, ((next() - circuit) / (whole - empty)).abs());
        let minimality = self.nodes.iter().map(change).collect();
        let of_pair = |values: &Vec<f32>| {
            let [whole, empty, circuit] = std::array::from_fn(|i| f64::from(values[i]));
            OfPair { whole, empty, circuit, faithfulness: faithfulness(circuit, empty, whole) }
        };
        let by_pair = pairs.iter().map(of_pair).collect();
        let faithfulness = faithfulness(circuit, empty, whole);
        Verdict { whole, empty, circuit, complement, faithfulness, by_pair, curve, completeness, minimality }
    }
}

/// How much a selection depends on the pairs at hand: from resamples of the pairs, with replacement.
#[derive(Clone, Debug, PartialEq)]
pub struct Stability {
    /// For each edge of the circuit in how many of the resamples it is in theirs, as a share.
    pub shares: Vec<(Edge, f64)>,
    /// The mean Jaccard index |A ∩ B| / |A ∪ B| of the circuit and those of the resamples.
    pub jaccard: f64,
}

/// The stability of a selection over the scores of several pairs.
///
/// # Panics
/// If there are no pairs.
pub fn stability(pairs: &[Scores], selection: Selection, by: By, resamples: usize, seed: u64) -> Stability {
    let circuit = selection.circuit(&Scores::mean(pairs), by);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut shares: Vec<(Edge, f64)> = circuit.edges().map(|edge| (edge, 0.0)).collect();
    let mut jaccard = 0.0;
    for _ in 0..resamples {
        let drawn: Vec<&Scores> = pairs.iter().map(|_| &pairs[rng.random_range(0..pairs.len())]).collect();
        let other = selection.circuit(&Scores::mean(drawn), by);
        let mut common = 0;
        for (edge, share) in &mut shares {
            if other.has(*edge) {
                *share += 1.0 / resamples as f64;
                common += 1;
            }
        }
        let either = shares.len() + other.len() - common;
        jaccard += if either == 0 { 1.0 } else { common as f64 / either as f64 } / resamples as f64;
    }
    Stability { shares, jaccard }
}
