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
