//! A circuit as a picture.

use std::collections::BTreeMap;

use figures::CircuitFigure;
use figures::circuit::{Edge, Input, Node};
use gpt2::graph::{Circuit, HeadInput, Reader, Writer};
use patching::circuit::Scores;

/// The nodes and edges of a circuit, with their scores; titles and legend are the caller's.
pub fn circuit_figure(circuit: &Circuit, scores: &Scores) -> CircuitFigure {
    let n_layer = circuit.graph().n_layer;
    // By row and head, so that the order is that of the graph.
    let mut places: BTreeMap<(usize, usize), String> = BTreeMap::new();
    let of_writer = |writer: Writer| match writer {
        Writer::Input => (0, 0),
        Writer::Head(head) => (1 + 2 * head.layer, head.head),
        Writer::Mlp(layer) => (2 + 2 * layer, 0),
    };
    let of_reader = |reader: Reader| reader.writer().map_or((1 + 2 * n_layer, 0), of_writer);
    for edge in circuit.edges() {
        places.insert(of_writer(edge.writer), edge.writer.to_string());
        let name = edge.reader.writer().map_or_else(|| edge.reader.to_string(), |writer| writer.to_string());
        places.insert(of_reader(edge.reader), name);
    }
    let index = |place: (usize, usize)| places.keys().position(|other| *other == place).unwrap_or_default();
    let edge = |edge: gpt2::graph::Edge| Edge {
        from: index(of_writer(edge.writer)),
        to: index(of_reader(edge.reader)),
        input: match edge.reader {
            Reader::Head(_, HeadInput::Q) => Some(Input::Q),
            Reader::Head(_, HeadInput::K) => Some(Input::K),
            Reader::Head(_, HeadInput::V) => Some(Input::V),
            _ => None,
        },
        score: scores.at(edge),
    };
    let edges = circuit.edges().map(edge).collect();
    let nodes =
        places.iter().map(|((row, _), name)| Node { name: name.clone(), row: *row, label: String::new() });
    CircuitFigure { nodes: nodes.collect(), edges, ..CircuitFigure::default() }
}

#[cfg(test)]
mod tests {
    use gpt2::graph::Graph;

    use super::*;

    #[test]
    fn a_circuit_has_its_nodes_in_rows_and_its_edges_by_name() {
        let graph = Graph { n_layer: 2, n_head: 2 };
        let mut circuit = Circuit::empty(graph);
        let names = ["input->m0", "m0->a1.h1<v>", "a1.h1->logits"];
        let edges = names.map(|name| name.parse().unwrap());
        edges.iter().for_each(|edge| circuit.set(*edge, true));
        let figure = circuit_figure(&circuit, &Scores::of(graph, &edges, &[1.0, -2.0, 3.0]));
        let rows: Vec<(&str, usize)> = figure.nodes.iter().map(|node| (&*node.name, node.row)).collect();
        assert_eq!(rows, [("input", 0), ("m0", 2), ("a1.h1", 3), ("logits", 5)]);
        let named: Vec<String> = figure.edges.iter().map(|edge| figure.edge_name(edge)).collect();
        assert_eq!(named, names);
        assert_eq!(figure.edges[1].score, -2.0);
    }
}
