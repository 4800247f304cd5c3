//! The description of a circuit: which nodes of a model hear which others, and how much that matters.

use std::fmt;

use super::color::{ColorMap, Rgb};

/// A graph of nodes in rows and of weighted edges that run upwards, as circuits are drawn.
///
/// As for a [`Heatmap`](super::Heatmap), all texts are shown as they are but for what cannot be seen. Nodes
/// without an edge are drawn too. Of very many edges the strongest are drawn, and the picture says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CircuitFigure {
    /// The heading. Wrapped if it is long; empty for none.
    pub title: String,
    /// Short lines under the title.
    pub subtitle: Vec<String>,
    /// What writes and what reads.
    pub nodes: Vec<Node>,
    /// Who hears whom.
    pub edges: Vec<Edge>,
    /// What the score of an edge is, for example `predicted change of logit( Smith) − logit( Jones)`.
    pub score_label: String,
    /// A line or two under the picture.
    pub legend: Vec<String>,
    /// Edges with a positive score have the colour of its high end, those with a negative one that of its low end.
    pub color_map: ColorMap,
}

/// A node of a [`CircuitFigure`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What it is called in the names of edges: `input`, `a5.h1`, `m3` or `logits`.
    pub name: String,
    /// How high it stands: 0 for the input, 1 + 2l for the heads of layer l, 2 + 2l for its MLP, and the row
    /// after all layers for the logits.
    pub row: usize,
    /// What is written in its box; empty for its name.
    pub label: String,
}

impl Node {
    /// The layer, of a head or an MLP.
    pub fn layer(&self) -> Option<usize> {
        match self.name.as_str() {
            "input" | "logits" => None,
            _ => self.row.checked_sub(1).map(|above| above / 2),
        }
    }

    /// Whether it is a head, by its row.
    pub fn is_head(&self) -> bool {
        self.layer().is_some() && self.row % 2 == 1
    }

    /// What is written in its box.
    pub fn shown(&self) -> &str {
        if self.label.is_empty() { &self.name } else { &self.label }
    }
}

/// An edge of a [`CircuitFigure`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// The index of the node that writes.
    pub from: usize,
    /// The index of the node that reads, which stands in a higher row.
    pub to: usize,
    /// What a head reads it as; none for nodes with one input.
    pub input: Option<Input>,
    /// How much the edge matters, and in which direction. If it is not finite, the edge is drawn as one
    /// without a number.
    pub score: f32,
}

/// What an attention head reads an input as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// As a query.
    Q,
    /// As a key.
    K,
    /// As a value.
    V,
}

impl Input {
    /// All of them, from left to right.
    pub const ALL: [Self; 3] = [Self::Q, Self::K, Self::V];
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
        })
    }
}

impl CircuitFigure {
    /// Panics unless every edge is between two nodes: anything else is a mistake in the program.
    #[track_caller]
    pub fn check_shape(&self) {
        for edge in &self.edges {
            let count = self.nodes.len();
            assert!(
                edge.from < count && edge.to < count,
                "an edge from node {} to node {} of {count}",
                edge.from,
                edge.to
            );
        }
    }

    /// The name of an edge, as EAP-IG and MIB write it: `a5.h5->a8.h6<v>`.
    pub fn edge_name(&self, edge: &Edge) -> String {
        let name = format!("{}->{}", self.nodes[edge.from].name, self.nodes[edge.to].name);
        match edge.input {
            Some(input) => format!("{name}<{input}>"),
            None => name,
        }
    }

    /// The indices of the edges, those with the largest scores in either direction first, and those without a
    /// number last.
    pub fn strongest(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.edges.len()).collect();
        order.sort_by(|&a, &b| strength(&self.edges[b]).total_cmp(&strength(&self.edges[a])));
        order
    }

    /// The largest magnitude of a score that is a number.
    pub fn largest_score(&self) -> f32 {
        self.edges.iter().map(strength).fold(0.0, f32::max)
    }

    /// The colour of an edge, by the sign of its score.
    pub fn edge_color(&self, score: f32) -> Rgb {
        match score {
            _ if !score.is_finite() => NO_SCORE,
            0.0.. => self.color_map.color(HIGH),
            _ => self.color_map.color(LOW),
        }
    }

    /// Every text, and every list of lines.
    pub(crate) fn texts(
        &mut self,
        text: &mut dyn FnMut(&mut String),
        lines: &mut dyn FnMut(&mut Vec<String>),
    ) {
        [&mut self.title, &mut self.score_label].into_iter().for_each(&mut *text);
        self.subtitle.iter_mut().chain(&mut self.legend).for_each(&mut *text);
        self.nodes.iter_mut().flat_map(|node| [&mut node.name, &mut node.label]).for_each(text);
        [&mut self.subtitle, &mut self.legend].into_iter().for_each(lines);
    }
}

/// Weaker edges than so many are left out of pictures, because nobody could tell them apart.
pub(crate) const MOST_EDGES: usize = 1000;

/// Where on the colour map the two signs are: full colours, which are not the near-black of the ends.
const LOW: f32 = 0.14;
const HIGH: f32 = 0.87;
/// The colour of an edge whose score is not a number.
const NO_SCORE: Rgb = [140, 140, 140];

/// The magnitude of an edge's score; −1 if that is not a number.
pub fn strength(edge: &Edge) -> f32 {
    if edge.score.is_finite() { edge.score.abs() } else { -1.0 }
}
