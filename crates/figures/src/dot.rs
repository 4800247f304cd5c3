//! A circuit as text for Graphviz.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use visible::visible_line;

use super::circuit::{CircuitFigure, Edge, Node, strength};
use super::number::NumberStyle;

/// The thickness of the strongest edge in points, and the least of any.
const WIDEST: f32 = 6.0;
const NARROWEST: f32 = 0.4;

/// A circuit in the DOT language, which Graphviz lays out (`dot -Tsvg`): nodes of one row at one height, edges
/// as thick as their scores are large and coloured by their signs, a port for each of q, k and v of a head.
///
/// # Panics
/// If an edge names a node that is not there.
pub fn dot(figure: &CircuitFigure) -> String {
    figure.check_shape();
    let mut dot = String::from("digraph circuit {\n");
    let mut heading = vec![figure.title.as_str()];
    heading.extend(figure.subtitle.iter().map(String::as_str));
    let heading: Vec<String> =
        heading.into_iter().map(visible_line).filter(|line| !line.is_empty()).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(dot, "  graph [rankdir=BT, labelloc=t, label={}];", quoted(&heading.join("\n")));
    dot +=
        "  node [shape=box, fontname=\"DejaVu Sans\", fontsize=11, style=filled, fillcolor=\"#f4f4f4\"];\n";
    dot += "  edge [fontname=\"DejaVu Sans\", fontsize=9, arrowsize=0.5];\n";
    let has_ports = |node: usize| figure.edges.iter().any(|edge| edge.to == node && edge.input.is_some());
    for (index, node) in figure.nodes.iter().enumerate() {
        let _ = writeln!(dot, "  {}", node_line(node, index, has_ports(index)));
    }
    let mut rows: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (index, node) in figure.nodes.iter().enumerate() {
        rows.entry(node.row).or_default().push(format!("n{index};"));
    }
    for nodes in rows.values() {
        let _ = writeln!(dot, "  {{ rank=same; {} }}", nodes.join(" "));
    }
    for edge in &figure.edges {
        let _ = writeln!(dot, "  {}", edge_line(figure, edge));
    }
    dot += "}\n";
    dot
}

/// A node; a head with ports is a table of two rows, with its name over q, k and v.
fn node_line(node: &Node, index: usize, has_ports: bool) -> String {
    let label = visible_line(node.shown());
    let name = quoted(&visible_line(&node.name));
    if !has_ports {
        return format!("n{index} [label={}, tooltip={name}];", quoted(&label));
    }
    let label = label.chars().fold(String::new(), |mut escaped, character| {
        // In the label of a record these have a meaning.
        if matches!(character, '{' | '}' | '|' | '<' | '>' | ' ' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
        escaped
    });
    // Backslashes of a record's label stay as they are between quotes.
    let label = label.replace('"', "\\\"");
    format!("n{index} [shape=record, label=\"{{{label}|{{<q> q|<k> k|<v> v}}}}\", tooltip={name}];")
}

fn edge_line(figure: &CircuitFigure, edge: &Edge) -> String {
    let largest = figure.largest_score();
    let share = if largest > 0.0 { strength(edge).max(0.0) / largest } else { 0.0 };
    let width = NARROWEST + (WIDEST - NARROWEST) * share;
    let [red, green, blue] = figure.edge_color(edge.score);
    let port = edge.input.map(|input| format!(":{input}:s")).unwrap_or_default();
    let style = NumberStyle { plus: true, ..NumberStyle::for_largest(largest) };
    let score = style.format(edge.score.into());
    let name = quoted(&format!("{}: {score}", visible_line(&figure.edge_name(edge))));
    format!(
        "n{} -> n{}{port} [penwidth={width:.2}, color=\"#{red:02x}{green:02x}{blue:02x}\", label=\"{score}\", \
         tooltip={name}];",
        edge.from, edge.to
    )
}

/// A text as DOT quotes it, in lines.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
