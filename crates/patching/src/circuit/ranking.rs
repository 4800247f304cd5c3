//! Rankings of edges or heads, beside each other and beside known circuits.

use gpt2::Head;
use gpt2::graph::{Edge, Graph, Reader, Writer};

use super::Scores;

/// What is known to be in a circuit.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// These heads.
    Heads(Vec<Head>),
    /// These edges.
    Edges(Vec<Edge>),
}

impl Known {
    /// The names of the lists that are here.
    pub const NAMES: [&str; 2] = ["ioi", "greater-than"];

    /// A list that is here, of heads of GPT-2 small.
    pub fn named(name: &str) -> Option<&'static str> {
        match name {
            "ioi" => Some(include_str!("known/ioi.txt")),
            "greater-than" => Some(include_str!("known/greater-than.txt")),
            _ => None,
        }
    }

    /// Reads a list: names of heads, or names of edges, between blanks; what follows a `#` is a comment.
    ///
    /// # Errors
    /// If a name cannot be read, heads and edges are mixed, there are none, or the model does not have one.
    pub fn read(text: &str, graph: Graph) -> Result<Self, String> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let names: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        let Graph { n_layer, n_head } = graph;
        let strange =
            |name: &str| format!("this model, of {n_layer} layers with {n_head} heads each, has no {name}");
        let edges = names.iter().filter(|name| name.contains("->")).count();
        if names.is_empty() || edges != 0 && edges != names.len() {
            return Err(
                "expected a list of heads, such as 9.9, or of edges, such as a9.h9->logits".to_owned()
            );
        }
        if edges == 0 {
            let heads: Vec<Head> = names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
            let other = heads.iter().find(|head| head.layer >= n_layer || head.head >= n_head);
            return other
                .map_or(Ok(Self::Heads(heads.clone())), |head| Err(strange(&format!("head {head}"))));
        }
        let edges: Vec<Edge> = names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        let other = edges.iter().find(|edge| !graph.has(**edge));
        other.map_or(Ok(Self::Edges(edges.clone())), |edge| Err(strange(&format!("edge {edge}"))))
    }

    /// How well the magnitudes of scores find what is known.
    pub fn roc(&self, scores: &Scores) -> Roc {
        let (weights, known): (Vec<f32>, Vec<bool>) = match self {
            Self::Heads(known) => {
                heads(scores).into_iter().map(|(head, most)| (most, known.contains(&head))).unzip()
            }
            Self::Edges(known) => {
                scores.iter().map(|(edge, score)| (score.abs(), known.contains(&edge))).unzip()
            }
        };
        roc(&weights, &known)
    }
}

/// How well a ranking finds what is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Roc {
    /// The false and the true positive rate of each cut of the ranking, from (0, 0) to (1, 1).
    pub points: Vec<[f64; 2]>,
    /// The area under these: ½ for a ranking by chance. NaN if all, or none, are known.
    pub auc: f64,
}

/// The receiver operating characteristic of weights, the highest first; `known` says what should be there. Equal
/// weights are one step, and what has no number comes last.
///
/// # Panics
/// If the two are not equally many.
#[track_caller]
pub fn roc(weights: &[f32], known: &[bool]) -> Roc {
    assert!(weights.len() == known.len(), "{} weights and {} answers", weights.len(), known.len());
    let weight = |i: usize| if weights[i].is_nan() { f32::NEG_INFINITY } else { weights[i] };
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&i, &j| weight(j).total_cmp(&weight(i)));
    let n_known = known.iter().filter(|known| **known).count();
    let [all, others] = [n_known as f64, (known.len() - n_known) as f64];
    let (mut points, mut auc, [mut x, mut y]) = (vec![[0.0, 0.0]], 0.0, [0.0, 0.0]);
    for step in order.chunk_by(|&i, &j| weight(i) == weight(j)) {
        let found = step.iter().filter(|&&i| known[i]).count() as f64;
        let [dx, dy] = [(step.len() as f64 - found) / others, found / all];
        auc += dx * (y + dy / 2.0);
        [x, y] = [x + dx, y + dy];
        points.push([x, y]);
    }
    Roc { points, auc: if auc.is_finite() { auc } else { f64::NAN } }
}

/// For each head, layer by layer, the largest magnitude of an edge to or from it: as edges are added by magnitude, the
/// head joins the circuit with that one. NaN if none has a number.
pub fn heads(scores: &Scores) -> Vec<(Head, f32)> {
    let graph = scores.graph();
    let heads = (0..graph.n_layer).flat_map(|layer| (0..graph.n_head).map(move |head| Head { layer, head }));
    let mut heads: Vec<(Head, f32)> = heads.map(|head| (head, f32::NAN)).collect();
    for (edge, score) in scores.iter() {
        let ends = [
            if let Writer::Head(head) = edge.writer { Some(head) } else { None },
            if let Reader::Head(head, _) = edge.reader { Some(head) } else { None },
        ];
        for head in ends.into_iter().flatten() {
            let most = &mut heads[head.layer * graph.n_head + head.head].1;
            *most = most.max(score.abs());
        }
    }
    heads
}

/// Kendall's τ-b of two lists: of all pairs of places how many more are in the same order than in the opposite one, as a
/// share, with ties counted out (Kendall 1945). Places where one is not a number are left out; NaN if nothing is left
/// to compare.
pub fn kendall(x: &[f32], y: &[f32]) -> f64 {
    let mut pairs: Vec<[f32; 2]> =
        x.iter().zip(y).filter(|(x, y)| !x.is_nan() && !y.is_nan()).map(|(x, y)| [*x, *y]).collect();
    pairs.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    let choose = |n: usize| (n * n.saturating_sub(1) / 2) as f64;
    let ties =
        |values: &[f32]| -> f64 { values.chunk_by(|a, b| a == b).map(|same| choose(same.len())).sum() };
    let [firsts, mut seconds]: [Vec<f32>; 2] = [0, 1].map(|i| pairs.iter().map(|pair| pair[i]).collect());
    let both: f64 = pairs.chunk_by(|a, b| a == b).map(|same| choose(same.len())).sum();
    let swaps = sort_counting(&mut seconds) as f64; // (now they are sorted)
    let (all, tied_x, tied_y) = (choose(pairs.len()), ties(&firsts), ties(&seconds));
    let agreement = all - tied_x - tied_y + both - 2.0 * swaps;
    let tau = agreement / ((all - tied_x) * (all - tied_y)).sqrt();
    if tau.is_finite() { tau } else { f64::NAN }
}

/// Sorts by merging, and counts how many pairs were in the wrong order.
fn sort_counting(values: &mut [f32]) -> u64 {
    let n = values.len();
    if n < 2 {
        return 0;
    }
    let (left, right) = values.split_at_mut(n / 2);
    let mut swaps = sort_counting(left) + sort_counting(right);
    let mut merged = Vec::with_capacity(n);
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        if right[j] < left[i] {
            swaps += (left.len() - i) as u64;
            merged.push(right[j]);
            j += 1;
        } else {
            merged.push(left[i]);
            i += 1;
        }
    }
    merged.extend_from_slice(&left[i..]);
    merged.extend_from_slice(&right[j..]);
    values.copy_from_slice(&merged);
    swaps
}
