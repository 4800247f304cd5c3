//! A circuit from the scores of its edges.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use gpt2::graph::{Circuit, Edge, Reader, Writer};

use super::Scores;
use crate::Endpoints;

/// By what edges are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum By {
    /// Those that let the metric rise most.
    #[default]
    Rise,
    /// Those that let it fall most.
    Fall,
    /// Those that move it most, either way.
    Magnitude,
}

impl By {
    /// By what edges are chosen that carry the answer: those that, cut, move the metric from the base run's towards
    /// the source run's.
    pub fn towards_source(ends: Endpoints) -> Self {
        if ends.source() >= ends.base { Self::Rise } else { Self::Fall }
    }

    /// The weight of an edge with this score: the higher, the sooner it is chosen.
    pub fn weight(self, score: f32) -> f32 {
        match self {
            Self::Rise => score,
            Self::Fall => -score,
            Self::Magnitude => score.abs(),
        }
    }
}

/// Which edges are chosen. Edges without a number never are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Selection {
    /// So many edges.
    Top(usize),
    /// So many edges, one by one from the logits on: always the best of those into what is already there.
    Greedy(usize),
    /// All edges of at least this weight.
    Threshold(f32),
}

impl Selection {
    /// The circuit of the chosen edges.
    pub fn circuit(self, scores: &Scores, by: By) -> Circuit {
        let graph = scores.graph();
        let mut circuit = Circuit::empty(graph);
        let weighted = scores.iter().map(|(edge, score)| Weighted {
            weight: by.weight(score),
            edge,
            place: graph.place_of(edge),
        });
        let mut weighted: Vec<Weighted> = weighted.filter(|it| !it.weight.is_nan()).collect();
        match self {
            Self::Top(n) => {
                weighted.sort_by(|a, b| b.cmp(a));
                weighted.iter().take(n).for_each(|it| circuit.set(it.edge, true));
            }
            Self::Threshold(least) => {
                weighted.iter().filter(|it| it.weight >= least).for_each(|it| circuit.set(it.edge, true));
            }
            Self::Greedy(n) => greedy(n, weighted, &mut circuit),
        }
        circuit
    }
}

fn greedy(n: usize, weighted: Vec<Weighted>, circuit: &mut Circuit) {
    let is_into = |it: &Weighted, writer: Writer| it.edge.reader.writer() == Some(writer);
    let (mut open, mut rest): (Vec<Weighted>, Vec<Weighted>) =
        weighted.into_iter().partition(|it| it.edge.reader == Reader::Logits);
    let mut open: BinaryHeap<Weighted> = open.drain(..).collect();
    for _ in 0..n {
        let Some(best) = open.pop() else { return };
        circuit.set(best.edge, true);
        let (new, others): (Vec<Weighted>, Vec<Weighted>) =
            rest.into_iter().partition(|it| is_into(it, best.edge.writer));
        open.extend(new);
        rest = others;
    }
}

/// An edge by its weight; of equal ones the one that comes first in the graph is the greater.
struct Weighted {
    weight: f32,
    edge: Edge,
    place: usize,
}

impl Ord for Weighted {
    fn cmp(&self, other: &Self) -> Ordering {
        self.weight.total_cmp(&other.weight).then(other.place.cmp(&self.place))
    }
}

impl PartialOrd for Weighted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Weighted {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Weighted {}

/// A circuit without the edges that lead nowhere: from writers that hear nobody, and to readers whose own writer nobody
/// hears, again and again until none is left.
pub fn pruned(circuit: &Circuit) -> Circuit {
    let mut pruned = circuit.clone();
    loop {
        let edges: Vec<Edge> = pruned.edges().collect();
        let hears = |writer: Writer| {
            writer == Writer::Input || edges.iter().any(|edge| edge.reader.writer() == Some(writer))
        };
        let is_heard = |reader: Reader| {
            reader.writer().is_none_or(|writer| edges.iter().any(|edge| edge.writer == writer))
        };
        let leads_nowhere = |edge: &&Edge| !hears(edge.writer) || !is_heard(edge.reader);
        let dead: Vec<Edge> = edges.iter().filter(leads_nowhere).copied().collect();
        if dead.is_empty() {
            return pruned;
        }
        dead.into_iter().for_each(|edge| pruned.set(edge, false));
    }
}
