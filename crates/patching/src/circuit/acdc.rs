//! ACDC (Conmy et al. 2023, arXiv 2304.14997): edges are cut one after the other, as long as the metric does not rise.
//!
//! Readers are visited from the logits down. For each edge into a reader: cut it, and measure. If the metric has
//! risen by less than τ, the edge is gone for good; else it is restored. A head or an MLP that nobody hears any more
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

use super::{Order, Runs};
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

impl Runs<'_> {
    /// The circuit that ACDC leaves with a threshold τ. [`Engine::Plain`] tests one edge at a time. None if it was
    /// stopped, or a metric could not be computed.
    pub fn acdc(&self, threshold: f32, order: Order, engine: Engine) -> Option<Found> {
        let (memory, longest) = match engine {
            Engine::Plain => (0, 1),
            Engine::Incremental { memory } => (memory, LONGEST),
        };
        let whole = Circuit::whole(self.graph);
        let mut found =
            Found { value: self.values_beside(&whole, &[]).0?, circuit: whole, tests: 0, runs: 1 };
        let n_edges = found.circuit.len() as f64;
        for group in groups(self.graph) {
            let candidates = self.candidates(&group, order, threshold, &mut found.circuit);
            (self.watch.progress)((n_heard(self.graph, &group) - candidates.len()) as f64 / n_edges);
            let layer = group[0].layer().unwrap_or(self.graph.n_layer.saturating_sub(1));
            let most = self.together(layer, memory).min(longest);
            let mut length = most.min(16);
            let mut rest = &candidates[..];
            while !rest.is_empty() {
                let chain = &rest[..length.min(rest.len())];
                let (kept, tested) = self.test(chain, threshold, &mut found)?;
                // As long as about twice the way to a rejection.
                length = if kept { (2 * tested).clamp(1, most) } else { (2 * length).min(most) };
                rest = &rest[tested..];
                (self.watch.progress)(tested as f64 / n_edges);
            }
        }
        Some(found)
    }

    /// Tests a chain. Says whether an edge was kept, and how many were decided.
    fn test(&self, chain: &[Edge], threshold: f32, found: &mut Found) -> Option<(bool, usize)> {
        let mut without = found.circuit.clone();
        let cut = |edge: &Edge| {
            without.set(*edge, false);
            without.clone()
        };
        let circuits: Vec<Circuit> = chain.iter().map(cut).collect();
        let (_, values) = self.values_beside(&found.circuit, &circuits);
        found.runs += circuits.len();
        for (i, value) in values.into_iter().enumerate() {
            let value = value.filter(|value| value.is_finite())?;
            found.tests += 1;
            if value - found.value >= threshold {
                return Some((true, i + 1));
            }
            found.value = value;
            found.circuit.set(chain[i], false);
        }
        Some((false, chain.len()))
    }

    /// The edges into some readers, in the order in which they are tested. Those of readers that nobody hears are cut
    /// at once.
    fn candidates(&self, group: &[Reader], order: Order, threshold: f32, circuit: &mut Circuit) -> Vec<Edge> {
        let mut candidates = Vec::new();
        for &reader in group {
            let heard = reader.writer().is_none_or(|writer| {
                let mut outgoing = self.graph.readers().map(|reader| Edge { writer, reader });
                outgoing.any(|edge| self.graph.has(edge) && circuit.has(edge))
            });
            let mut edges: Vec<Edge> = self
                .graph
                .writers()
                .take(self.graph.n_heard(reader))
                .map(|writer| Edge { writer, reader })
                .collect();
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
