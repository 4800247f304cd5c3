//! A circuit: nodes in rows, with edges that run upwards between them.

mod place;
mod route;

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::circuit::{CircuitFigure, Edge, Input, MOST_EDGES, strength};
use crate::scene::{Curve, Group};
use route::Row;

/// Nodes beyond these, which no model has, are left out.
const MOST_ROWS: usize = 110;
const MOST_IN_A_ROW: usize = 64;
/// Up to so many edges have their scores written at them.
const MOST_SCORES: usize = 25;
/// Up to so many edges are all drawn in full colour.
const FEW_EDGES: usize = 40;

const LABEL_SIZE: f32 = 10.5;
const PORT_SIZE: f32 = 8.5;
const SCORE_SIZE: f32 = 9.0;
/// A label is cut beyond this length.
const LONGEST_NODE: f32 = 130.0;
const LEAST_NODE: f32 = 34.0;
const LEAST_HEAD: f32 = 50.0;
/// The room that an edge needs at a box, and how wide a box becomes to give it.
const EDGE_ROOM: f32 = 5.0;
const WIDEST_NODE: f32 = 300.0;
const NODE_HEIGHT: f32 = 22.0;
const PORTS_HEIGHT: f32 = 12.0;
const NODE_GAP: f32 = 20.0;
/// Between the rows of a layer, and between layers.
const ROW_GAP: f32 = 34.0;
const LAYER_GAP: f32 = 42.0;

const WIDEST_EDGE: f32 = 6.5;
const NARROWEST_EDGE: f32 = 0.8;
/// The length of a sample of an edge in the legend, and the space after its text.
const SAMPLE_LENGTH: f32 = 26.0;
const SAMPLE_GAP: f32 = 16.0;

const BAND: Rgb = [246, 246, 248];
const NODE_FILL: Rgb = [255, 255, 255];
const MLP_FILL: Rgb = [232, 232, 232];
const END_FILL: Rgb = [70, 70, 70];
const NODE_FRAME: Rgb = [110, 110, 110];

/// Arranges a circuit.
pub(super) fn layout(figure: &CircuitFigure, mut setter: Typesetter) -> Scene {
    figure.check_shape();
    let mut graph = Graph::new(figure, &mut setter);
    let curves = graph.curves();
    let mut drawing = Drawing { setter, margin: MARGIN, scene: Scene::default() };
    drawing.edges(&graph, &curves);
    drawing.nodes(&graph);
    if graph.edges.len() <= MOST_SCORES {
        drawing.scores(&graph, &curves);
    }
    let items = std::mem::take(&mut drawing.scene.items);

    let (left, right) = graph.extent(&curves);
    let names = graph.layers().map(|(name, _)| drawing.setter.width(&name, TICK_SIZE, Weight::Regular));
    let names: f32 = widest(names.collect::<Vec<_>>().into_iter());
    let graph_x = MARGIN + SMALL_GAP + names + 2.0 * SMALL_GAP;
    let content = graph_x + (right - left) + SMALL_GAP + MARGIN;
    let width = content.max(LEAST_WIDTH).ceil();
    drawing.scene.width = width;
    let y = drawing.heading(&figure.title, &figure.subtitle, width) + SMALL_GAP;
    drawing.bands(&graph, y);
    let shift = graph_x - left + ((width - content) / 2.0).floor();
    drawing.scene.items.extend(items.iter().map(|item| item.moved(shift, y)));
    let bottom = drawing.circuit_legend(&graph, y + graph.height() + SMALL_GAP);
    drawing.scene.height = (bottom + MARGIN).ceil();
    drawing.scene
}

/// A circuit in places of its own: 0 is the middle of the picture and the top of the highest box.
struct Graph<'a> {
    figure: &'a CircuitFigure,
    /// The edges that are drawn, the strongest first.
    edges: Vec<&'a Edge>,
    /// Their indices among all.
    indices: Vec<usize>,
    /// Whether each node is drawn.
    shown: Vec<bool>,
    boxes: Vec<NodeBox>,
    /// The rows with nodes, the lowest first.
    rows: Vec<route::Row>,
    largest: f32,
    number: NumberStyle,
}

/// The box of a node.
struct NodeBox {
    /// The middle.
    x: f32,
    top: f32,
    width: f32,
    height: f32,
    label: String,
    /// Whether there is a port for each of q, k and v.
    has_ports: bool,
    /// The index of its row among those with nodes.
    rank: usize,
}

impl NodeBox {
    fn bottom(&self) -> f32 {
        self.top + self.height
    }

    /// The middle of a port.
    fn port(&self, input: Input) -> f32 {
        self.x + (input as usize as f32 - 1.0) * self.width / 3.0
    }
}

impl<'a> Graph<'a> {
    fn new(figure: &'a CircuitFigure, setter: &mut Typesetter) -> Self {
        let (indices, shown) = chosen(figure);
        let edges: Vec<&Edge> = indices.iter().map(|&index| &figure.edges[index]).collect();
        let mut boxes = boxes(figure, &edges, setter);
        let mut by_row: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, node) in figure.nodes.iter().enumerate().filter(|&(index, _)| shown[index]) {
            by_row.entry(node.row).or_default().push(index);
        }
        let largest = figure.largest_score();
        let link = |edge: &&Edge| {
            let share = if largest > 0.0 { strength(edge).max(0.0) / largest } else { 0.0 };
            let [from, to] = [edge.from, edge.to];
            // The lower one first, whatever the data says; a link within a row says nothing about places.
            let ends = if figure.nodes[from].row <= figure.nodes[to].row { (from, to) } else { (to, from) };
            (ends.0, ends.1, 0.05 + share)
        };
        let links = edges.iter().map(link);
        let links = links.filter(|&(from, to, _)| figure.nodes[from].row != figure.nodes[to].row).collect();
        let rows: Vec<Vec<usize>> = by_row.into_values().collect();
        let widths = boxes.iter().map(|node| node.width).collect();
        let places = place::place(&place::Graph {
            rows: rows.clone(),
            widths,
            links,
            gap: NODE_GAP + more_room(edges.len()),
        });
        for (node, x) in boxes.iter_mut().zip(&places.x) {
            node.x = *x;
        }
        let rows = stack(figure, &rows, &mut boxes, more_room(edges.len()));
        let number = NumberStyle { plus: true, ..NumberStyle::for_largest(largest) };
        Self { figure, edges, indices, shown, boxes, rows, largest, number }
    }

    fn height(&self) -> f32 {
        self.rows.first().map_or(0.0, |row| row.bottom)
    }

    /// The width of an edge, and how much it covers what is below.
    fn stroke(&self, score: f32) -> (f32, f32) {
        let share = if self.largest > 0.0 && score.is_finite() { score.abs() / self.largest } else { 0.0 };
        let palest = if self.edges.len() <= FEW_EDGES { 0.6 } else { 0.3 };
        ((WIDEST_EDGE * share).max(NARROWEST_EDGE), palest + (1.0 - palest) * share.sqrt())
    }

    /// The curve of each edge, in their order.
    fn curves(&mut self) -> Vec<Curve> {
        let starts = self.ends(|edge| (edge.from, None), |edge| edge.to);
        let ends = self.ends(|edge| (edge.to, edge.input), |edge| edge.from);
        let mut curves = Vec::with_capacity(self.edges.len());
        for (index, edge) in self.edges.clone().into_iter().enumerate() {
            let (width, opacity) = self.stroke(edge.score);
            let [low, high] = [edge.from, edge.to].map(|node| self.boxes[node].rank);
            let from = [starts[index], self.boxes[edge.from].top];
            let to = [ends[index], self.boxes[edge.to].bottom()];
            let between = self.rows.iter_mut().take(high).skip(low + 1);
            let points = route::route(from, to, between, width);
            let color = self.figure.edge_color(edge.score);
            curves.push(Curve { points, width, color, opacity });
        }
        curves
    }

    /// Where each edge begins or ends: those at one place beside each other, in the order of where they go.
    fn ends(
        &self,
        place: impl Fn(&Edge) -> (usize, Option<Input>),
        other: impl Fn(&Edge) -> usize,
    ) -> Vec<f32> {
        // By node and port: where the other end is, and which edge.
        type Port = (usize, Option<usize>);
        let mut at: HashMap<Port, Vec<(f32, usize)>> = HashMap::new();
        for (index, edge) in self.edges.iter().enumerate() {
            let (node, input) = place(edge);
            let (here, there) = (&self.boxes[node], &self.boxes[other(edge)]);
            let rows = here.rank.abs_diff(there.rank).max(1) as f32;
            let key = (node, input.map(|input| input as usize));
            at.entry(key).or_default().push(((there.x - here.x) / rows, index));
        }
        let mut ends = vec![0.0; self.edges.len()];
        for ((node, _), mut edges) in at {
            edges.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let node = &self.boxes[node];
            let input = place(self.edges[edges[0].1]).1;
            let (middle, room) = match input {
                Some(input) => (node.port(input), node.width / 3.0 - 5.0),
                None => (node.x, node.width - 10.0),
            };
            let last = edges.len() as f32 - 1.0;
            let apart = (room / last.max(1.0)).min(7.0);
            for (order, (_, index)) in edges.into_iter().enumerate() {
                ends[index] = middle + (order as f32 - last / 2.0) * apart;
            }
        }
        ends
    }

    /// The left and the right end of all that is drawn.
    fn extent(&self, curves: &[Curve]) -> (f32, f32) {
        let boxes = self.boxes.iter().zip(&self.shown).filter(|(_, shown)| **shown);
        let boxes = boxes.flat_map(|(node, _)| [node.x - node.width / 2.0, node.x + node.width / 2.0]);
        let curves = curves.iter().flat_map(|curve| {
            let half = curve.width / 2.0 + 1.0;
            curve.points.iter().flat_map(move |[x, _]| [x - half, x + half])
        });
        let ends = boxes.chain(curves);
        let (left, right) = ends.fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(x), high.max(x)));
        if left > right { (0.0, 0.0) } else { (left, right) }
    }

    /// The layers with nodes, with their upper and lower ends.
    fn layers(&self) -> impl Iterator<Item = (String, [f32; 2])> {
        let mut layers: BTreeMap<usize, [f32; 2]> = BTreeMap::new();
        let nodes = self.figure.nodes.iter().zip(&self.boxes).zip(&self.shown);
        for ((node, shown), _) in nodes.filter(|(_, shown)| **shown) {
            if let Some(layer) = node.layer() {
                let Row { top, bottom, .. } = &self.rows[shown.rank];
                let [low, high] = layers.entry(layer).or_insert([*top, *bottom]);
                (*low, *high) = (low.min(*top), high.max(*bottom));
            }
        }
        layers.into_iter().map(|(layer, ends)| (format!("layer {layer}"), ends))
    }
}

/// The indices of the edges that are drawn, the strongest first, and whether each node is.
fn chosen(figure: &CircuitFigure) -> (Vec<usize>, Vec<bool>) {
    let mut shown = vec![false; figure.nodes.len()];
    let mut rows: HashMap<usize, usize> = HashMap::new();
    let mut admit = |node: usize| {
        let row = figure.nodes[node].row;
        let room = rows.get(&row).map_or(rows.len() < MOST_ROWS, |&count| count < MOST_IN_A_ROW);
        if room && !shown[node] {
            shown[node] = true;
            *rows.entry(row).or_insert(0) += 1;
        }
        shown[node]
    };
    let mut chosen = Vec::new();
    for index in figure.strongest() {
        let Edge { from, to, .. } = figure.edges[index];
        if chosen.len() < MOST_EDGES && admit(from) && admit(to) {
            chosen.push(index);
        }
    }
    for node in 0..figure.nodes.len() {
        admit(node);
    }
    (chosen, shown)
}

/// How much further apart boxes stand so that so many edges can be told apart.
fn more_room(edges: usize) -> f32 {
    (edges as f32 / 14.0).min(24.0)
}

/// The boxes of all nodes, without their places: as wide as their labels and their edges need.
fn boxes(figure: &CircuitFigure, edges: &[&Edge], setter: &mut Typesetter) -> Vec<NodeBox> {
    let mut count = vec![[0_usize; 2]; figure.nodes.len()];
    let mut has_ports = vec![false; figure.nodes.len()];
    for edge in edges {
        count[edge.from][0] += 1;
        count[edge.to][1] += 1;
        has_ports[edge.to] |= edge.input.is_some();
    }
    let node_box = |(index, node): (usize, &crate::circuit::Node)| {
        let label = setter.shorten(&visible_line(node.shown()), LABEL_SIZE, Weight::Regular, LONGEST_NODE);
        let text = setter.width(&label, LABEL_SIZE, Weight::Regular) + 14.0;
        let has_ports = has_ports[index];
        let least = if has_ports { LEAST_HEAD } else { LEAST_NODE };
        let [out, into] = count[index];
        let of_edges = match node.is_head() {
            true => 0.0,
            false => (out.max(into) as f32 * EDGE_ROOM + 10.0).min(WIDEST_NODE),
        };
        NodeBox {
            x: 0.0,
            top: 0.0,
            width: text.max(least).max(of_edges).ceil(),
            height: NODE_HEIGHT + if has_ports { PORTS_HEIGHT } else { 0.0 },
            label,
            has_ports,
            rank: 0,
        }
    };
    figure.nodes.iter().enumerate().map(node_box).collect()
}

/// Stacks the rows, the lowest at the bottom, and gives each box its height in the picture.
fn stack(figure: &CircuitFigure, rows: &[Vec<usize>], boxes: &mut [NodeBox], more: f32) -> Vec<Row> {
    let mut y = 0.0;
    let mut above = None;
    let mut stacked = Vec::new();
    for (rank, row) in rows.iter().enumerate().rev() {
        let layer = row.iter().find_map(|&node| figure.nodes[node].layer());
        if rank + 1 < rows.len() {
            y += more + if layer.is_some() && layer == above { ROW_GAP } else { LAYER_GAP };
        }
        above = layer;
        let height = widest(row.iter().map(|&node| boxes[node].height));
        for &node in row {
            boxes[node].rank = rank;
            boxes[node].top = y + (height - boxes[node].height) / 2.0;
        }
        let ends = |&node: &usize| {
            let NodeBox { x, width, .. } = boxes[node];
            [x - width / 2.0, x + width / 2.0]
        };
        let boxes = row.iter().map(ends).collect();
        stacked.push(Row { top: y, bottom: y + height, boxes, lanes: Vec::new() });
        y += height;
    }
    stacked.reverse();
    stacked
}

impl Drawing {
    /// Draws some things under a common name.
    fn group(&mut self, title: String, data: Vec<(&'static str, String)>, draw: impl FnOnce(&mut Self)) {
        let start = self.scene.items.len();
        draw(self);
        let items = self.scene.items.split_off(start);
        self.scene.items.push(Item::Group(Group { title, data, items }));
    }

    /// The edges, the strongest last.
    fn edges(&mut self, graph: &Graph<'_>, curves: &[Curve]) {
        for (at, curve) in curves.iter().enumerate().rev() {
            self.group(graph.title(at), graph.data(at), |drawing| {
                drawing.scene.items.push(Item::Curve(curve.clone()));
            });
        }
    }

    fn nodes(&mut self, graph: &Graph<'_>) {
        let nodes = graph.figure.nodes.iter().zip(&graph.boxes).enumerate();
        for (index, (node, shown)) in nodes.filter(|&(index, _)| graph.shown[index]) {
            let title = visible_line(&node.name);
            self.group(title, vec![("node", index.to_string())], |drawing| {
                let fill = match node.layer() {
                    None => END_FILL,
                    Some(_) if node.is_head() => NODE_FILL,
                    Some(_) => MLP_FILL,
                };
                drawing.node(graph, index, shown, fill);
            });
        }
    }

    fn node(&mut self, graph: &Graph<'_>, index: usize, node: &NodeBox, fill: Rgb) {
        let NodeBox { x, top, width, height, .. } = *node;
        let rect = Rect { x: x - width / 2.0, y: top, w: width, h: height, fill: NODE_FRAME };
        self.scene.items.push(Item::Rect(rect));
        const FRAME_WIDTH: f32 = 1.0;
        self.scene.items.push(Item::Rect(Rect {
            x: rect.x + FRAME_WIDTH,
            y: rect.y + FRAME_WIDTH,
            w: width - 2.0 * FRAME_WIDTH,
            h: height - 2.0 * FRAME_WIDTH,
            fill,
        }));
        let middle = top + NODE_HEIGHT / 2.0;
        let place = [x, middle + LABEL_SIZE * CAP_HEIGHT / 2.0];
        self.text(node.label.clone(), place, LABEL_SIZE, Anchor::Middle, ink_on(fill), Weight::Regular);
        if !node.has_ports {
            return;
        }
        for input in Input::ALL {
            let is_heard = graph.edges.iter().any(|edge| edge.to == index && edge.input == Some(input));
            let (color, weight) = match is_heard {
                true => (INK, Weight::Bold),
                false => (PALE_INK, Weight::Regular),
            };
            let place = [node.port(input), node.bottom() - 4.5];
            self.text(input.to_string(), place, PORT_SIZE, Anchor::Middle, color, weight);
        }
    }

    /// The scores, each at its edge where the least is in the way.
    fn scores(&mut self, graph: &Graph<'_>, curves: &[Curve]) {
        let samples: Vec<Vec<[f32; 2]>> = curves
            .iter()
            .map(|curve| curve.samples(3.0).into_iter().map(|(point, _)| point).collect())
            .collect();
        let of_node = |node: &NodeBox| {
            let half = node.width / 2.0;
            [node.x - half, node.top, node.x + half, node.bottom()]
        };
        let mut taken: Vec<[f32; 4]> = graph.boxes.iter().map(of_node).collect();
        for (at, edge) in graph.edges.iter().enumerate() {
            let string = graph.number.typeset(edge.score.into());
            let half = self.setter.width(&string, SCORE_SIZE, Weight::Regular) / 2.0 + 2.0;
            let tall = SCORE_SIZE * 0.62;
            let around = |[x, y]: [f32; 2]| [x - half, y - tall, x + half, y + tall];
            let crowd = |of: &[f32; 4]| {
                let others = samples.iter().enumerate().filter(|&(other, _)| other != at);
                others.flat_map(|(_, points)| points).filter(|point| is_inside(of, point)).count()
            };
            let count = samples[at].len();
            let candidate = |(index, &point): (usize, &[f32; 2])| {
                let of = around(point);
                let from_middle = (2 * index).abs_diff(count) as f32 / count as f32;
                let is_free = taken.iter().all(|other| !overlaps(other, &of));
                is_free.then(|| (crowd(&of) as f32 + 4.0 * from_middle, point))
            };
            let candidates = samples[at].iter().enumerate().filter_map(candidate);
            let Some((_, point)) = candidates.min_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
            let of = around(point);
            taken.push(of);
            let [left, top, right, bottom] = of;
            self.group(graph.title(at), graph.data(at), |drawing| {
                let rect = Rect { x: left, y: top, w: right - left, h: bottom - top, fill: NODE_FILL };
                drawing.scene.items.push(Item::Rect(rect));
                let place = [point[0], point[1] + SCORE_SIZE * CAP_HEIGHT / 2.0];
                let color = graph.figure.edge_color(edge.score);
                drawing.text(string, place, SCORE_SIZE, Anchor::Middle, color, Weight::Regular);
            });
        }
    }

    /// A stripe behind every second layer, and the names of all.
    fn bands(&mut self, graph: &Graph<'_>, y: f32) {
        let width = self.scene.width - 2.0 * MARGIN;
        for (index, (name, [top, bottom])) in graph.layers().enumerate() {
            let (top, bottom) = (y + top, y + bottom);
            if index % 2 == 0 {
                let air = LAYER_GAP / 2.0 - 4.0;
                let h = bottom - top + 2.0 * air;
                self.scene.items.push(Item::Rect(Rect { x: MARGIN, y: top - air, w: width, h, fill: BAND }));
            }
            let place = [MARGIN + SMALL_GAP, (top + bottom) / 2.0 + TICK_SIZE * CAP_HEIGHT / 2.0];
            self.text(name, place, TICK_SIZE, Anchor::Start, SOFT_INK, Weight::Regular);
        }
    }

    /// What widths, colours and ports mean, and what the figure says of itself.
    fn circuit_legend(&mut self, graph: &Graph<'_>, y: f32) -> f32 {
        let figure = graph.figure;
        let mut y = self.samples(graph, y + 12.0);
        let mut lines = Vec::new();
        if !figure.edges.is_empty() {
            lines.push(
                "An edge runs from the node that writes, below, to the node that reads it, above; the thicker \
                 it is, the larger its score."
                    .to_owned(),
            );
        }
        if graph.boxes.iter().any(|node| node.has_ports) {
            lines.push("Heads read an edge as query, key or value: it ends at their q, k or v.".to_owned());
        }
        if graph.edges.len() < figure.edges.len() {
            let (shown, all) = (graph.edges.len(), figure.edges.len());
            lines.push(format!("Only the {shown} strongest of {all} edges are drawn."));
        }
        if graph.shown.contains(&false) {
            let shown = graph.shown.iter().filter(|shown| **shown).count();
            lines.push(format!("Only {shown} of {} nodes are drawn.", graph.shown.len()));
        }
        let limit = self.scene.width - 2.0 * MARGIN;
        let style = (LEGEND_SIZE, Weight::Regular, SOFT_INK);
        for line in lines.iter().chain(&figure.legend) {
            y = self.paragraph(line, MARGIN, y, limit, style);
        }
        y
    }

    /// A line of edges with their scores.
    fn samples(&mut self, graph: &Graph<'_>, y: f32) -> f32 {
        let Some(high) = round_below(graph.largest) else { return y };
        let scores = graph.edges.iter().map(|edge| edge.score);
        let has = |sign: f32| scores.clone().any(|score| score * sign > 0.0);
        let mut shown = Vec::new();
        for sign in [1.0, -1.0].into_iter().filter(|&sign| has(sign)) {
            shown.extend([sign * high, sign * high / 5.0]);
        }
        if scores.clone().any(|score| !score.is_finite()) {
            shown.push(f32::NAN);
        }
        let baseline = y + LEGEND_SIZE * ASCENT;
        let middle = baseline - LEGEND_SIZE * CAP_HEIGHT / 2.0;
        let style = NumberStyle { plus: true, ..NumberStyle::for_largest(high / 5.0) };
        let mut x = MARGIN;
        for score in shown {
            let (width, opacity) = graph.stroke(score);
            let end = x + SAMPLE_LENGTH;
            let points = [0.0, 1.0, 2.0, 3.0].map(|third| [x + SAMPLE_LENGTH * third / 3.0, middle]);
            let color = graph.figure.edge_color(score);
            self.scene.items.push(Item::Curve(Curve { points: points.to_vec(), width, color, opacity }));
            let text = match score.is_finite() {
                true => style.typeset(score.into()),
                false => "not a finite number".to_owned(),
            };
            x = end + SMALL_GAP + self.setter.width(&text, LEGEND_SIZE, Weight::Regular) + SAMPLE_GAP;
            let place = [end + SMALL_GAP, baseline];
            self.text(text, place, LEGEND_SIZE, Anchor::Start, SOFT_INK, Weight::Regular);
        }
        let style = (LEGEND_SIZE, Weight::Regular, SOFT_INK);
        let limit = self.scene.width - MARGIN - x;
        // What a score is stands beside the samples if there is room, or else below them.
        match self.setter.width(&visible_line(&graph.figure.score_label), LEGEND_SIZE, Weight::Regular) {
            width if width <= limit => {
                self.paragraph(&graph.figure.score_label, x, y, limit, style);
                y + LEGEND_SIZE * LINE_HEIGHT + 4.0
            }
            _ => {
                let y = y + LEGEND_SIZE * LINE_HEIGHT + 2.0;
                let limit = self.scene.width - 2.0 * MARGIN;
                self.paragraph(&graph.figure.score_label, MARGIN, y, limit, style) + 2.0
            }
        }
    }
}

impl Graph<'_> {
    /// What an edge is called where one points at it.
    fn title(&self, at: usize) -> String {
        let edge = self.edges[at];
        format!("{}: {}", visible_line(&self.figure.edge_name(edge)), self.number.typeset(edge.score.into()))
    }

    fn data(&self, at: usize) -> Vec<(&'static str, String)> {
        let edge = self.edges[at];
        vec![
            ("edge", self.indices[at].to_string()),
            ("from", edge.from.to_string()),
            ("to", edge.to.to_string()),
        ]
    }
}

/// The largest of 1, 2, 5, 10… (times any power of ten) that is not above `value`; none below zero.
fn round_below(value: f32) -> Option<f32> {
    if !value.is_normal() || value < 0.0 {
        return None;
    }
    let power = 10_f64.powf(f64::from(value).log10().floor());
    let found =
        [5.0, 2.0, 1.0].map(|factor| (factor * power) as f32).into_iter().find(|&round| round <= value);
    Some(found.unwrap_or(value))
}

fn is_inside([left, top, right, bottom]: &[f32; 4], [x, y]: &[f32; 2]) -> bool {
    (*left..=*right).contains(x) && (*top..=*bottom).contains(y)
}

fn overlaps(a: &[f32; 4], b: &[f32; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::circuit::Node;

    /// A circuit like those of GPT-2 small: of `count` edges between twelve layers, a few of them strong.
    pub fn circuit(count: usize, heads: usize) -> CircuitFigure {
        let mut nodes = vec![Node { name: "input".into(), ..Node::default() }];
        for layer in 0..12 {
            let head = |head: usize| (format!("a{layer}.h{head}"), 1 + 2 * layer);
            let of_layer = (0..heads).map(head).chain([(format!("m{layer}"), 2 + 2 * layer)]);
            nodes.extend(of_layer.map(|(name, row)| Node { name, row, label: String::new() }));
        }
        nodes.push(Node { name: "logits".into(), row: 25, label: String::new() });
        // A generator of Knuth's, so that the picture is the same everywhere.
        let mut state = 11_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut edges = Vec::new();
        while edges.len() < count {
            // The ends of the model take part in most circuits.
            let from = if random(3) == 0 { 0 } else { random(nodes.len()) };
            let to = if random(4) == 0 { nodes.len() - 1 } else { random(nodes.len()) };
            if nodes[from].row < nodes[to].row {
                let input = nodes[to].is_head().then(|| Input::ALL[random(3)]);
                let score = (random(2000) as f32 / 1000.0 - 1.0).powi(3) * 3.0;
                edges.push(Edge { from, to, input, score });
            }
        }
        let ends: Vec<usize> = edges.iter().flat_map(|edge| [edge.from, edge.to]).collect();
        let kept: Vec<usize> = (0..nodes.len()).filter(|node| ends.contains(node)).collect();
        for edge in &mut edges {
            let place = |node: usize| kept.binary_search(&node).unwrap();
            (edge.from, edge.to) = (place(edge.from), place(edge.to));
        }
        CircuitFigure {
            title: format!("Circuit of {count} edges"),
            subtitle: vec!["clean: When John and Mary went to the shops, John gave the bag to".into()],
            nodes: kept.into_iter().map(|node| nodes[node].clone()).collect(),
            edges,
            score_label: "predicted change of logit( John) − logit( Mary)".into(),
            legend: vec!["Blue: towards John; red: towards Mary.".into()],
            ..CircuitFigure::default()
        }
    }

    fn scene(figure: &CircuitFigure) -> Scene {
        layout(figure, Typesetter::new(&Fonts::default()))
    }

    /// The curves of the edges, by the index that the picture gives them; the weakest first.
    fn curves(scene: &Scene) -> Vec<(usize, Curve)> {
        let mut curves = Vec::new();
        for item in &scene.items {
            if let Item::Group(Group { data, items, .. }) = item
                && let (Some(("edge", index)), [Item::Curve(curve)]) = (data.first(), &items[..])
            {
                curves.push((index.parse().unwrap(), curve.clone()));
            }
        }
        curves
    }

    #[test]
    fn every_edge_and_every_node_is_drawn_once_and_named() {
        let figure = circuit(80, 12);
        let scene = scene(&figure);
        let curves = curves(&scene);
        let mut indices: Vec<usize> = curves.iter().map(|(index, _)| *index).collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..80).collect::<Vec<_>>());
        let titles = scene.items.iter().filter_map(|item| match item {
            Item::Group(group) => Some(group.title.clone()),
            _ => None,
        });
        let titles: Vec<String> = titles.collect();
        for node in &figure.nodes {
            assert_eq!(titles.iter().filter(|title| **title == node.name).count(), 1);
        }
        let name = figure.edge_name(&figure.edges[7]);
        assert!(titles.iter().any(|title| title.starts_with(&format!("{name}: "))), "{name}");
    }

    #[test]
    fn the_strongest_edge_is_on_top_and_the_thickest() {
        let figure = circuit(80, 12);
        let curves = curves(&scene(&figure));
        let (last, thickest) = curves.last().unwrap();
        assert_eq!(*last, figure.strongest()[0]);
        assert_eq!(thickest.width, WIDEST_EDGE);
        for pair in curves.windows(2) {
            assert!(pair[0].1.width <= pair[1].1.width && pair[0].1.opacity <= pair[1].1.opacity);
        }
        for (index, curve) in curves {
            assert_eq!(curve.color, figure.edge_color(figure.edges[index].score));
        }
    }

    #[test]
    fn no_edge_runs_behind_a_box_of_a_row_that_it_passes() {
        for (count, heads) in [(25, 4), (80, 12), (300, 12)] {
            let figure = circuit(count, heads);
            let mut graph = Graph::new(&figure, &mut Typesetter::new(&Fonts::default()));
            let curves = graph.curves();
            for (edge, curve) in graph.edges.iter().zip(&curves) {
                let [low, high] = [edge.from, edge.to].map(|node| graph.boxes[node].rank);
                for ([x, y], _) in curve.samples(2.0) {
                    let is_hidden = |node: &&NodeBox| {
                        (low + 1..high).contains(&node.rank)
                            && (x - node.x).abs() < node.width / 2.0
                            && (node.top..node.bottom()).contains(&y)
                    };
                    let name = figure.edge_name(edge);
                    assert!(!graph.boxes.iter().any(|node| is_hidden(&node)), "{count}: {name} at {x}, {y}");
                }
            }
        }
    }

    #[test]
    fn no_two_boxes_overlap() {
        let figure = circuit(300, 12);
        let graph = Graph::new(&figure, &mut Typesetter::new(&Fonts::default()));
        for (index, one) in graph.boxes.iter().enumerate() {
            for other in &graph.boxes[index + 1..] {
                let apart = (one.x - other.x).abs() >= (one.width + other.width) / 2.0 + NODE_GAP - 0.1;
                assert!(one.rank != other.rank || apart, "{} {}", one.label, other.label);
            }
        }
    }

    #[test]
    fn scores_stand_at_the_edges_of_small_circuits_only() {
        let count = |edges: usize| {
            let figure = circuit(edges, 4);
            let scene = scene(&figure);
            let scores = scene
                .flat()
                .into_iter()
                .filter(|item| matches!(item, Item::Text(text) if text.size == SCORE_SIZE));
            scores.count()
        };
        assert_eq!(count(12), 12);
        assert!(count(25) >= 23);
        assert_eq!(count(26), 0);
    }

    #[test]
    fn an_edge_without_a_number_is_grey_and_explained() {
        let mut figure = circuit(12, 2);
        figure.edges[3].score = f32::NAN;
        figure.edges[4].score = f32::INFINITY;
        let scene = scene(&figure);
        let curves = curves(&scene);
        assert!(curves[..2].iter().all(|(index, curve)| [3, 4].contains(index) && curve.color == [140; 3]));
        let explained =
            |item: &&Item| matches!(item, Item::Text(text) if text.string == "not a finite number");
        assert!(scene.flat().into_iter().any(|item| explained(&item)));
        assert!(curves.iter().all(|(_, curve)| curve.width.is_finite()));
    }

    #[test]
    fn of_too_many_edges_and_nodes_the_strongest_are_drawn() {
        let mut figure = circuit(1, 1);
        let (from, to) = (figure.edges[0].from, figure.edges[0].to);
        let edge = |index: usize| Edge { from, to, input: None, score: index as f32 };
        figure.edges = (0..40_000).map(edge).collect();
        let more = |index: usize| Node {
            name: format!("a0.h{index}"),
            row: index % 3 * (usize::MAX / 2),
            label: String::new(),
        };
        figure.nodes.extend((0..5_000).map(more));
        let scene = scene(&figure);
        assert_eq!(curves(&scene).len(), MOST_EDGES);
        assert_eq!(curves(&scene)[0].0, 39_000);
        assert!(scene.width < 8_000.0 && scene.height < 8_000.0);
        let says = |start: &str| {
            scene.items.iter().any(|item| matches!(item, Item::Text(text) if text.string.starts_with(start)))
        };
        assert!(says("Only the 1000 strongest of 40000 edges") && says("Only 19"), "{}", scene.width);
    }

    #[test]
    fn edges_that_do_not_run_upwards_are_drawn_all_the_same() {
        let mut figure = circuit(12, 2);
        for edge in &mut figure.edges {
            (edge.from, edge.to) = (edge.to, edge.from);
        }
        figure.edges[0].to = figure.edges[0].from;
        assert_eq!(curves(&scene(&figure)).len(), 12);
    }

    #[test]
    #[should_panic(expected = "an edge from node 0 to node 99 of")]
    fn an_edge_to_a_node_that_is_not_there_panics() {
        let mut figure = circuit(12, 2);
        figure.edges[0] = Edge { from: 0, to: 99, input: None, score: 1.0 };
        scene(&figure);
    }

    #[test]
    fn three_hundred_edges_make_files_of_sensible_size() {
        let figure = circuit(300, 12);
        let fonts = Fonts::default();
        let scene = scene(&figure);
        assert!(scene.width < 3_000.0 && scene.height < 3_000.0, "{} {}", scene.width, scene.height);
        let png = crate::render_png(&scene, &fonts, 2.0, &[]).unwrap();
        let svg = crate::render_svg(&scene, &fonts, &[]).unwrap();
        assert!(png.len() < 6_000_000 && svg.len() < 500_000, "{} {}", png.len(), svg.len());
        assert_eq!(svg.matches("<path ").count(), 300 + 4);
        assert!(!svg.contains("NaN"));
    }
}
