//! The walk along a circuit: the exact effect of every edge into one reader, and what a circuit of pinned edges is worth.

use gpt2::Pretrained;
use gpt2::graph::{Circuit, Edge, Graph, HeadInput, Reader, Writer};
use patching::circuit::judge::faithfulness;
use patching::circuit::{Replacement, Runs, Scores, file, pruned};
use serde::{Deserialize, Serialize};

use crate::ask::{Question, Refused};
use crate::studies::{ENGINE, Job};

/// An edge as the page knows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Known {
    pub name: String,
    /// The change of the metric if it alone is cut, if that has been measured.
    #[serde(default)]
    pub score: Option<f32>,
    /// Whether it is in the circuit.
    #[serde(default)]
    pub pinned: bool,
}

/// An edge into a reader.
#[derive(Serialize)]
struct Into {
    name: String,
    writer: String,
    effect: f32,
    /// The readers of what has written it, along which the walk can go on.
    readers: Vec<String>,
}

/// All edges into a reader, the largest effect first.
#[derive(Serialize)]
struct Walked {
    reader: String,
    edges: Vec<Into>,
    clean_metric: f32,
    corrupted_metric: f32,
}

/// What a circuit is worth.
#[derive(Serialize)]
struct Worth {
    /// How many edges it has, and how many the model.
    edges: usize,
    of: usize,
    /// How many of its edges lie on a path from the embeddings to the logits: the others do nothing.
    of_use: usize,
    /// The metric with all edges, with none, and with those of the circuit.
    whole: f32,
    empty: f32,
    value: f32,
    faithfulness: f64,
}

/// The effects of all edges into a reader, the largest first.
pub fn into_reader(
    model: &Pretrained,
    question: &Question,
    reader: &str,
    job: &Job<'_>,
) -> Result<(), Refused> {
    let graph = Graph::of(&model.model.config);
    let reader: Reader = reader.parse()?;
    let edges: Vec<Edge> = graph.edges().filter(|edge| edge.reader == reader).collect();
    if edges.is_empty() {
        return Err(Refused::from(format!("this model has no reader {reader}")));
    }
    let Some(runs) = runs(model, question, job)? else { return Ok(()) };
    let Some(scores) = runs.measure(&edges, ENGINE) else { return Ok(()) };
    let readers = |writer: Writer| match writer {
        Writer::Input => Vec::new(),
        Writer::Head(head) => HeadInput::ALL.map(|input| Reader::Head(head, input).to_string()).to_vec(),
        Writer::Mlp(layer) => vec![Reader::Mlp(layer).to_string()],
    };
    let mut into: Vec<Into> = (edges.iter())
        .map(|&edge| Into {
            name: edge.to_string(),
            writer: edge.writer.to_string(),
            effect: scores.at(edge),
            readers: readers(edge.writer),
        })
        .collect();
    into.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
    let ends = runs.ends();
    let (clean_metric, corrupted_metric) = (ends.clean, ends.corrupted);
    job.client
        .send("walk", &Walked { reader: reader.to_string(), edges: into, clean_metric, corrupted_metric });
    Ok(())
}

/// The value of the circuit of these edges, between that of no edge and that of all.
pub fn worth(model: &Pretrained, question: &Question, edges: &[Known], job: &Job<'_>) -> Result<(), Refused> {
    let graph = Graph::of(&model.model.config);
    let (_, circuit) = circuit_of(graph, edges)?;
    let Some(runs) = runs(model, question, job)? else { return Ok(()) };
    let circuits = [Circuit::whole(graph), Circuit::empty(graph), circuit];
    let values: Option<Vec<f32>> = runs.values(&circuits, ENGINE).into_iter().collect();
    let Some([whole, empty, value]) = values.as_deref().and_then(|it| <[f32; 3]>::try_from(it).ok()) else {
        return Ok(());
    };
    let faithfulness = faithfulness(f64::from(value), f64::from(empty), f64::from(whole));
    let (edges, of) = (circuits[2].len(), graph.edges().count());
    job.client.send(
        "worth",
        &Worth { edges, of, of_use: pruned(&circuits[2]).len(), whole, empty, value, faithfulness },
    );
    Ok(())
}

/// The file of a circuit, in the form of EAP-IG.
pub fn save(model: &Pretrained, edges: &[Known]) -> Result<String, Refused> {
    let (scores, circuit) = circuit_of(Graph::of(&model.model.config), edges)?;
    file::to_json(&scores, &circuit, model.model.config.n_embd)
        .map_err(|error| Refused::from(error.to_string()))
}

/// The edges of a file: those that are in its circuit.
pub fn load(model: &Pretrained, text: &str) -> Result<Vec<Known>, Refused> {
    let read = file::from_json(text, Graph::of(&model.model.config));
    let (scores, circuit) = read.map_err(|error| Refused::from(error.to_string()))?;
    let known = |edge: Edge| {
        let score = Some(scores.at(edge)).filter(|score| score.is_finite());
        Known { name: edge.to_string(), score, pinned: true }
    };
    Ok(circuit.edges().map(known).collect())
}

fn circuit_of(graph: Graph, known: &[Known]) -> Result<(Scores, Circuit), Refused> {
    let mut circuit = Circuit::empty(graph);
    let (mut edges, mut numbers) = (Vec::new(), Vec::new());
    for it in known {
        let edge: Edge = it.name.parse()?;
        if !graph.has(edge) {
            return Err(Refused::from(file::Error::NoSuchEdge(it.name.clone()).to_string()));
        }
        if it.pinned {
            circuit.set(edge, true);
        }
        edges.push(edge);
        numbers.push(it.score.unwrap_or(f32::NAN));
    }
    Ok((Scores::of(graph, &edges, &numbers), circuit))
}

fn runs<'a>(
    model: &'a Pretrained,
    question: &'a Question,
    job: &'a Job<'_>,
) -> Result<Option<Runs<'a>>, Refused> {
    let metric = question.measure.metric();
    Ok(Runs::new(&model.model, &question.experiment, metric, Replacement::Source, job.watch())?)
}
