//! Circuits: which edges of the graph carry an answer?
//!
//! # The question
//!
//! A patch changes everything behind it. An *edge* is narrower: one reader alone (the queries of a head, say) hears one
//! writer as it is in another run, and everybody else hears it as it is ([`gpt2::graph`]). Which edges does the answer
//! need, and how small a part of the model, a *circuit*, gives it alone?
//!
//! Where an edge from u is *cut*, its reader reads `other_u` in the place of `now_u`, what u writes in the run under
//! way: `other_u` is what u writes in the source run (or zeros, or its mean: [`Replacement`]). The value of a circuit,
//! m(C), is the metric of the base run in which all edges outside C are cut. So m(all edges) is the base run's metric,
//! and m(no edge) that of the source run.
//!
//! # What there is
//!
//! | | what it gives | from |
//! |---|---|---|
//! | [`Runs::predict`] | a score for every edge from gradients | EAP: Syed et al. 2023, arXiv 2310.10348; EAP-IG: Hanna et al. 2024, arXiv 2403.17806 |
//! | [`Runs::measure`] | the change of the metric if one edge is cut, exactly, for any number of edges | |
//! | [`acdc()`] | what is left if edges are cut one after the other | ACDC: Conmy et al. 2023, arXiv 2304.14997 |
//! | [`Selection`] | a circuit from scores | EAP-IG |
//! | [`Runs::values`] | m(C) of any circuits | |
//! | [`judge`] | faithfulness, completeness, minimality, CPR and CMD | Wang et al. 2022, arXiv 2211.00593; MIB: Mueller et al. 2025, arXiv 2504.13151 |
//! | [`file`](mod@file) | the file form of EAP-IG and MIB | |
//!
//! `plain` is to be read: each run is a forward pass with hooks. What is used is [`gpt2::walk`], with many runs
//! together; tests hold it to the plain way.

mod acdc;
mod exact;
pub mod file;
pub mod judge;
mod plain;
mod predicted;
pub mod ranking;
mod runs;
mod select;

use std::fmt;
use std::str::FromStr;

use gpt2::graph::{Edge, Graph};

pub use self::acdc::{Found, acdc};
pub use self::runs::Runs;
pub use self::select::{By, Selection, pruned};

/// What is put in the place of what a writer writes, where an edge from it is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Replacement {
    /// What it writes in the source run.
    #[default]
    Source,
    /// Zeros.
    Zero,
    /// The mean of what it writes in the base run, over its positions.
    Mean,
}

impl Replacement {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Source, Self::Zero, Self::Mean];
}

impl fmt::Display for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Source => "source",
            Self::Zero => "zero",
            Self::Mean => "mean",
        })
    }
}

impl FromStr for Replacement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|known| known.to_string() == text);
        found.ok_or_else(|| format!("there is no ablation \"{text}\"; give source, zero or mean"))
    }
}

/// How the effects of edges are predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Prediction {
    /// The gradient in the base run (EAP).
    #[default]
    Eap,
    /// The gradient averaged over runs with token embeddings source + k/m (base − source), k = 0 … m − 1
    /// (EAP-IG-inputs).
    EapIg {
        /// m, at least 1.
        steps: usize,
    },
    /// The gradient averaged over runs in which the embeddings, or all heads of one layer, or one MLP write
    /// source + k/m (base − source), k = 1 … m (EAP-IG-activations).
    EapIgActivations {
        /// m, at least 1.
        steps: usize,
    },
    /// The mean of the gradients in the two runs.
    CleanCorrupted,
}

impl Prediction {
    /// Its name; the number of steps is not part of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eap => "eap",
            Self::EapIg { .. } => "eap-ig",
            Self::EapIgActivations { .. } => "eap-ig-activations",
            Self::CleanCorrupted => "clean-corrupted",
        }
    }

    /// The same with so many steps; none if it has none.
    pub fn with_steps(self, steps: usize) -> Option<Self> {
        match self {
            Self::EapIg { .. } => Some(Self::EapIg { steps }),
            Self::EapIgActivations { .. } => Some(Self::EapIgActivations { steps }),
            Self::Eap | Self::CleanCorrupted => None,
        }
    }
}

/// How a circuit is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// From predicted effects of edges.
    Predict(Prediction),
    /// From the exact effects of all edges.
    Exact,
    /// By ACDC.
    Acdc,
}

impl Method {
    /// All of them, with five steps where there are steps.
    pub const ALL: [Self; 6] = [
        Self::Predict(Prediction::Eap),
        Self::Predict(Prediction::EapIg { steps: 5 }),
        Self::Predict(Prediction::EapIgActivations { steps: 5 }),
        Self::Predict(Prediction::CleanCorrupted),
        Self::Exact,
        Self::Acdc,
    ];
}

impl Default for Method {
    /// EAP-IG with five steps.
    fn default() -> Self {
        Self::Predict(Prediction::EapIg { steps: 5 })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Predict(prediction) => prediction.name(),
            Self::Exact => "exact",
            Self::Acdc => "acdc",
        })
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|known| known.to_string() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(|known| known.to_string()).join(", ");
            format!("there is no method \"{text}\"; give one of {names}")
        })
    }
}

/// In which order ACDC tests the edges into a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// From the last writer to the input.
    #[default]
    LateFirst,
    /// From the input to the last writer.
    EarlyFirst,
}

impl Order {
    /// Both orders.
    pub const ALL: [Self; 2] = [Self::LateFirst, Self::EarlyFirst];
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LateFirst => "late-first",
            Self::EarlyFirst => "early-first",
        })
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|known| known.to_string() == text);
        found.ok_or_else(|| format!("there is no order \"{text}\"; give late-first or early-first"))
    }
}

/// A number for every edge of a graph: a predicted or measured change of the metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    graph: Graph,
    /// Readers × writers; NaN where there is no edge, or no number.
    values: Vec<f32>,
}

impl Scores {
    /// These numbers for these edges, and none for the others.
    ///
    /// # Panics
    /// If there are not as many numbers as edges.
    #[track_caller]
    pub fn of(graph: Graph, edges: &[Edge], numbers: &[f32]) -> Self {
        assert!(edges.len() == numbers.len(), "{} numbers for {} edges", numbers.len(), edges.len());
        let mut values = vec![f32::NAN; graph.n_readers() * graph.n_writers()];
        edges.iter().zip(numbers).for_each(|(edge, number)| values[graph.place_of(*edge)] = *number);
        Self { graph, values }
    }

    /// The mean of the scores of several pairs.
    ///
    /// # Panics
    /// If there are none, or they are of different graphs.
    #[track_caller]
    pub fn mean<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = all.into_iter();
        let Some(first) = all.next() else { panic!("a mean over no scores") };
        let mut sums: Vec<f64> = first.values.iter().map(|x| f64::from(*x)).collect();
        let mut n = 1.0;
        for scores in all {
            assert!(scores.graph == first.graph, "scores of {:?} and {:?}", scores.graph, first.graph);
            sums.iter_mut().zip(&scores.values).for_each(|(sum, x)| *sum += f64::from(*x));
            n += 1.0;
        }
        Self { graph: first.graph, values: sums.into_iter().map(|sum| (sum / n) as f32).collect() }
    }

    /// The graph.
    pub fn graph(&self) -> Graph {
        self.graph
    }

    /// The number of an edge; NaN if it has none.
    pub fn at(&self, edge: Edge) -> f32 {
        self.values[self.graph.place_of(edge)]
    }

    /// Every edge with its number, reader by reader.
    pub fn iter(&self) -> impl Iterator<Item = (Edge, f32)> + '_ {
        self.graph.edges().map(|edge| (edge, self.at(edge)))
    }

    /// The numbers as a matrix writers × readers, NaN where there is no edge.
    pub fn by_writer(&self) -> Vec<f32> {
        let (writers, readers) = (self.graph.n_writers(), self.graph.n_readers());
        (0..writers)
            .flat_map(|writer| (0..readers).map(move |reader| self.values[reader * writers + writer]))
            .collect()
    }
}

#[cfg(test)]
mod tests;
