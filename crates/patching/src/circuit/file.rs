//! The file form of circuits in EAP-IG and MIB:
//!
//! ```json
//! {"cfg": {"n_layers": 12, "n_heads": 12, "parallel_attn_mlp": false, "d_model": 768},
//!  "nodes": {"a0.h0": {"in_graph": true}},
//!  "edges": {"a5.h5->a8.h6<v>": {"score": 0.25, "in_graph": true}}}
//! ```

use std::collections::{BTreeMap, HashSet};

use gpt2::graph::{Circuit, Edge, Graph, Writer};
use serde::{Deserialize, Serialize};

use super::Scores;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not of this form.
    #[error("not a circuit in the form of EAP-IG: {0}")]
    Form(String),
    /// It is of a model with other sizes.
    #[error(
        "a circuit of {found} layers with {found_heads} heads each; this model has {n_layer} with {n_head}"
    )]
    OtherModel {
        /// Its layers.
        found: usize,
        /// Its heads.
        found_heads: usize,
        /// The model's layers.
        n_layer: usize,
        /// The model's heads.
        n_head: usize,
    },
    /// Attention and MLP of its blocks read the same stream.
    #[error("a circuit of a model with parallel attention and MLP, which GPT-2 does not have")]
    Parallel,
    /// An edge that the model does not have.
    #[error("there is no edge \"{0}\" in this model")]
    NoSuchEdge(String),
}

#[derive(Serialize, Deserialize)]
struct File {
    cfg: Cfg,
    nodes: BTreeMap<String, Node>,
    edges: BTreeMap<String, Scored>,
}

#[derive(Serialize, Deserialize)]
struct Cfg {
    n_layers: usize,
    n_heads: usize,
    parallel_attn_mlp: bool,
    d_model: usize,
}

#[derive(Serialize, Deserialize)]
struct Node {
    in_graph: bool,
}

#[derive(Serialize, Deserialize)]
struct Scored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    in_graph: bool,
}

/// A circuit and its scores as a file; `n_embd` is the width of the model.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn to_json(scores: &Scores, circuit: &Circuit, n_embd: usize) -> Result<String, serde_json::Error> {
    let graph = scores.graph();
    let ends: HashSet<String> = circuit
        .edges()
        .flat_map(|edge| [Some(edge.writer), edge.reader.writer()])
        .flatten()
        .map(|it| it.to_string())
        .collect();
    let writers = graph.writers().map(|writer: Writer| writer.to_string());
    let node = |name: String| {
        (name.clone(), Node { in_graph: ends.contains(&name) || name == "input" || name == "logits" })
    };
    let scored = |(edge, score): (Edge, f32)| {
        let score = Some(score).filter(|score| score.is_finite());
        (edge.to_string(), Scored { score, in_graph: circuit.has(edge) })
    };
    let file = File {
        cfg: Cfg {
            n_layers: graph.n_layer,
            n_heads: graph.n_head,
            parallel_attn_mlp: false,
            d_model: n_embd,
        },
        nodes: writers.chain(["logits".to_owned()]).map(node).collect(),
        edges: scores.iter().map(scored).collect(),
    };
    serde_json::to_string(&file)
}

/// The scores and the circuit of a file; edges that it does not name have no score and are not in the circuit.
///
/// # Errors
/// If it is not of this form, or of another model.
pub fn from_json(text: &str, graph: Graph) -> Result<(Scores, Circuit), Error> {
    let File { cfg, edges, .. } =
        serde_json::from_str(text).map_err(|error| Error::Form(error.to_string()))?;
    let Graph { n_layer, n_head } = graph;
    if (cfg.n_layers, cfg.n_heads) != (n_layer, n_head) {
        return Err(Error::OtherModel { found: cfg.n_layers, found_heads: cfg.n_heads, n_layer, n_head });
    }
    if cfg.parallel_attn_mlp {
        return Err(Error::Parallel);
    }
    let mut circuit = Circuit::empty(graph);
    let (mut named, mut scores) = (Vec::new(), Vec::new());
    for (name, scored) in edges {
        let edge = name.parse().ok().filter(|edge| graph.has(*edge));
        let edge: Edge = edge.ok_or(Error::NoSuchEdge(name))?;
        circuit.set(edge, scored.in_graph);
        named.push(edge);
        scores.push(scored.score.unwrap_or(f32::NAN));
    }
    Ok((Scores::of(graph, &named, &scores), circuit))
}
