//! ACDC (Conmy et al. 2023, arXiv 2304.14997): edges are cut one after the other, as long as the metric stays.
//!
//! Readers are visited from the logits down. For each edge into a reader: cut it, and measure. If the metric has
//! moved by less than τ, the edge is gone for good; else it is restored. (The way that counts is the caller's: from the
//! base run's metric to the source run's, say; a divergence rises.) A head or an MLP that nobody hears any more
//! loses all edges without a test (if τ > 0), as nothing can change.
//!
//! # Many tests at once
//!
//! Which test comes next depends on the outcome of the one before, so the algorithm seems to be sequential. But most
//! edges go. So a *chain* is tested together: the first run lacks one edge more, the second two, and so on, as if
//! every cut before it had been accepted. Up to the first rejection these are just the runs that the sequential
//! algorithm would have made; what follows it is thrown away, and the next chain begins there. A run has the same
//! bits whatever runs are beside it, so the decisions are the same.

use gpt2::graph::{Circuit, Edge, Graph, Reader};

use super::{By, Order, Runs};
use crate::Engine;

/// The longest chain.
const LONGEST: usize = 256;

/// What ACDC has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The edges that are left.
    pub circuit: Circuit,
    /// m(C) of these.
    pub value: f32,
    /// How many edges were tested.
    pub tests: usize,
    /// How many runs that took: more than tests, where chains were cut short.
    pub runs: usize,
}

/// The circuit that ACDC leaves with a threshold τ, where `by` says which way the metric must not move; over several
/// pairs it is the mean of their metrics. [`Engine::Plain`] tests one edge at a time. None if it was stopped, or a metric
/// could not be computed.
///
/// # Panics
/// If there are no pairs, or they are of several models.
pub fn acdc(pairs: &[Runs<'_>], threshold: f32, by: By, order: Order, engine: Engine) -> Option<Found> {
    let Some(Runs { graph, watch, .. }) = pairs.first() else { panic!("ACDC of no pairs") };
    assert!(pairs.iter().all(|pair| pair.graph == *graph), "ACDC of pairs of several models");
    let (memory, longest) = match engine {
        Engine::Plain => (0, 1),
        Engine::Incremental { memory } => (memory, LONGEST),
    };
    let circuit = Circuit::whole(*graph);
    let n_edges = circuit.len() as f64;
    let test = Test { pairs, threshold, by };
    let mut found = Found {
        value: test.mean(pairs.iter().map(|pair| Some(pair.ends().base)))?,
        circuit,
        tests: 0,
        runs: 0,
    };
    for group in groups(*graph) {
        let candidates = candidates(&group, order, threshold, &mut found.circuit);
        (watch.progress)((n_heard(*graph, &group) - candidates.len()) as f64 / n_edges);
        let layer = group[0].layer().unwrap_or(graph.n_layer.saturating_sub(1));
        let most = pairs.iter().map(|pair| pair.together(layer, memory)).min().unwrap_or(1).min(longest);
        let mut length = most.min(16);
        let mut rest = &candidates[..];
        while !rest.is_empty() {
            let (kept, tested) = test.chain(&rest[..length.min(rest.len())], &mut found)?;
            // As long as about twice the way to a rejection.
            length = if kept { (2 * tested).clamp(1, most) } else { (2 * length).min(most) };
            rest = &rest[tested..];
            (watch.progress)(tested as f64 / n_edges);
        }
    }
    Some(found)
}

/// How an edge is tested.
struct Test<'a> {
    pairs: &'a [Runs<'a>],
    threshold: f32,
    by: By,
}

impl Test<'_> {
    /// Tests a chain. Says whether an edge was kept, and how many were decided.
    fn chain(&self, chain: &[Edge], found: &mut Found) -> Option<(bool, usize)> {
        let mut without = found.circuit.clone();
        let cut = |edge: &Edge| {
            without.set(*edge, false);
            without.clone()
        };
        let circuits: Vec<Circuit> = chain.iter().map(cut).collect();
        let of_pair = |pair: &Runs<'_>| pair.values_beside(&found.circuit, &circuits);
        let values: Vec<Vec<Option<f32>>> = self.pairs.iter().map(of_pair).collect();
        found.runs += circuits.len() * self.pairs.len();
        for (i, edge) in chain.iter().enumerate() {
            let value = self.mean(values.iter().map(|values| values[i]))?;
            found.tests += 1;
            if self.by.weight(value - found.value) >= self.threshold {
                return Some((true, i + 1));
            }
            found.value = value;
            found.circuit.set(*edge, false);
        }
        Some((false, chain.len()))
    }

    fn mean(&self, values: impl Iterator<Item = Option<f32>>) -> Option<f32> {
        let sum = values.map(|value| value.map(f64::from)).sum::<Option<f64>>()?;
        Some((sum / self.pairs.len() as f64) as f32).filter(|mean| mean.is_finite())
    }
}

/// The edges into some readers, in the order in which they are tested. Those of readers that nobody hears are cut at
/// once.
fn candidates(group: &[Reader], order: Order, threshold: f32, circuit: &mut Circuit) -> Vec<Edge> {
    let graph = circuit.graph();
    let mut candidates = Vec::new();
    for &reader in group {
        let heard = reader.writer().is_none_or(|writer| {
            let mut outgoing = graph.readers().map(|reader| Edge { writer, reader });
            outgoing.any(|edge| graph.has(edge) && circuit.has(edge))
        });
        let heard_writers = graph.writers().take(graph.n_heard(reader));
        let mut edges: Vec<Edge> = heard_writers.map(|writer| Edge { writer, reader }).collect();
        if order == Order::LateFirst {
            edges.reverse();
        }
        if heard || threshold <= 0.0 {
            candidates.extend(edges);
        } else {
            edges.into_iter().for_each(|edge| circuit.set(edge, false));
        }
    }
    candidates
}

fn n_heard(graph: Graph, group: &[Reader]) -> usize {
    group.iter().map(|reader| graph.n_heard(*reader)).sum()
}

/// The readers from the logits down; those that do not hear each other together.
fn groups(graph: Graph) -> Vec<Vec<Reader>> {
    let mut groups: Vec<Vec<Reader>> = Vec::new();
    let of_heads = |reader: &Reader| match reader {
        Reader::Head(head, _) => Some(head.layer),
        _ => None,
    };
    let readers: Vec<Reader> = graph.readers().collect();
    for &reader in readers.iter().rev() {
        match groups.last_mut() {
            Some(group) if of_heads(&reader).is_some() && of_heads(&group[0]) == of_heads(&reader) => {
                group.push(reader)
            }
            _ => groups.push(vec![reader]),
        }
    }
    groups
}
