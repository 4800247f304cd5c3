//! The model as a graph: what writes to the residual stream, and what reads from it.
//!
//! The residual stream is a sum, so what a part of the model reads is the sum of what the parts before it have
//! written. Each of these terms is an *edge* from a [`Writer`] to a [`Reader`] (Syed et al. 2023, *Attribution
//! Patching Outperforms Automated Circuit Discovery*, arXiv 2310.10348; the names are those of EAP-IG and MIB):
//!
//! | | name | |
//! |---|---|---|
//! | writers | `input` | the token embeddings |
//! | | `a5.h1` | a head: z W_O without the bias |
//! | | `m5` | an MLP, with its bias |
//! | readers | `a5.h1<q>`, `a5.h1<k>`, `a5.h1<v>` | a head, for its queries, keys or values |
//! | | `m5` | an MLP |
//! | | `logits` | the last layer norm and the unembedding |
//!
//! Position embeddings and the biases of attention belong to no node. All edges together are a dense matrix,
//! writers × readers, in which each reader hears a first part of the writers ([`Graph::n_heard`]).
//!
//! ```
//! use gpt2::Config;
//! use gpt2::graph::{Edge, Graph};
//!
//! let graph = Graph::of(&Config::GPT2);
//! assert_eq!((graph.n_writers(), graph.n_readers(), graph.edges().count()), (157, 445, 32_491));
//! let edge: Edge = "a5.h1->a8.h6<v>".parse()?;
//! assert!(graph.has(edge) && !graph.has("a8.h6->a5.h1<v>".parse()?));
//! # Ok::<(), String>(())
//! ```

use std::fmt;
use std::str::FromStr;

use crate::{Config, Head, Site, SiteKind};

/// What a head computes from the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HeadInput {
    /// Its queries.
    Q,
    /// Its keys.
    K,
    /// Its values.
    V,
}

impl HeadInput {
    /// Queries, keys and values.
    pub const ALL: [Self; 3] = [Self::Q, Self::K, Self::V];

    /// The activation of one layer that it is a part of, `(T, n_head, head_size)`.
    pub fn site(self, layer: usize) -> Site {
        match self {
            Self::Q => SiteKind::Q.at(layer),
            Self::K => SiteKind::K.at(layer),
            Self::V => SiteKind::V.at(layer),
        }
    }
}

impl fmt::Display for HeadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
        })
    }
}

/// What writes to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// The token embeddings.
    Input,
    /// A head.
    Head(Head),
    /// The MLP of a layer.
    Mlp(usize),
}

/// What reads from the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reader {
    /// A head, for its queries, keys or values.
    Head(Head, HeadInput),
    /// The MLP of a layer.
    Mlp(usize),
    /// The last layer norm, from which logits are made.
    Logits,
}

impl Reader {
    /// The layer in which it reads; none for the logits.
    pub fn layer(self) -> Option<usize> {
        match self {
            Self::Head(head, _) => Some(head.layer),
            Self::Mlp(layer) => Some(layer),
            Self::Logits => None,
        }
    }

    /// The writer that passes on what this reader has read; none for the logits.
    pub fn writer(self) -> Option<Writer> {
        match self {
            Self::Head(head, _) => Some(Writer::Head(head)),
            Self::Mlp(layer) => Some(Writer::Mlp(layer)),
            Self::Logits => None,
        }
    }
}

/// One term of what a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// What has written it.
    pub writer: Writer,
    /// What reads it.
    pub reader: Reader,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input => f.pad("input"),
            Self::Head(Head { layer, head }) => f.pad(&format!("a{layer}.h{head}")),
            Self::Mlp(layer) => f.pad(&format!("m{layer}")),
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(Head { layer, head }, input) => f.pad(&format!("a{layer}.h{head}<{input}>")),
            Self::Mlp(layer) => f.pad(&format!("m{layer}")),
            Self::Logits => f.pad("logits"),
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}->{}", self.writer, self.reader))
    }
}

/// The layer of `m5`.
fn mlp(text: &str) -> Option<usize> {
    let digits = text.strip_prefix('m')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

impl FromStr for Writer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let head = || text.starts_with('a').then(|| text.parse().ok().map(Self::Head)).flatten();
        let writer =
            (text == "input").then_some(Self::Input).or_else(|| mlp(text).map(Self::Mlp)).or_else(head);
        writer.ok_or_else(|| {
            format!("invalid writer \"{text}\": expected input, a head such as a5.h1, or an MLP such as m5")
        })
    }
}

impl FromStr for Reader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let head = || {
            let (head, input) = text.strip_suffix('>')?.split_once('<')?;
            let input = HeadInput::ALL.into_iter().find(|known| known.to_string() == input)?;
            head.starts_with('a').then(|| head.parse().ok().map(|head| Self::Head(head, input)))?
        };
        let reader =
            (text == "logits").then_some(Self::Logits).or_else(|| mlp(text).map(Self::Mlp)).or_else(head);
        reader.ok_or_else(|| {
            format!("invalid reader \"{text}\": expected a head's input such as a5.h1<q>, an MLP such as m5, or logits")
        })
    }
}

impl FromStr for Edge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (writer, reader) = text.split_once("->").ok_or_else(|| {
            format!("invalid edge \"{text}\": expected WRITER->READER, such as a5.h1->a8.h6<v>")
        })?;
        Ok(Self { writer: writer.parse()?, reader: reader.parse()? })
    }
}

/// The writers and readers of a model, in the order of the forward pass.
///
/// Writers are `input` and, layer by layer, the heads and the MLP; readers are, layer by layer, the queries of all
/// heads, their keys, their values and the MLP, and last the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Graph {
    /// How many layers there are.
    pub n_layer: usize,
    /// How many heads each has.
    pub n_head: usize,
}

impl Graph {
    /// The graph of a model of these sizes.
    pub fn of(config: &Config) -> Self {
        Self { n_layer: config.n_layer, n_head: config.n_head }
    }

    /// 1 + L (H + 1)
    pub fn n_writers(&self) -> usize {
        1 + self.n_layer * (self.n_head + 1)
    }

    /// L (3 H + 1) + 1
    pub fn n_readers(&self) -> usize {
        self.n_layer * (3 * self.n_head + 1) + 1
    }

    /// Every writer, in order.
    pub fn writers(&self) -> impl Iterator<Item = Writer> + use<> {
        let Self { n_layer, n_head } = *self;
        let of_layer = move |layer| {
            let heads = (0..n_head).map(move |head| Writer::Head(Head { layer, head }));
            heads.chain([Writer::Mlp(layer)])
        };
        [Writer::Input].into_iter().chain((0..n_layer).flat_map(of_layer))
    }

    /// Every reader, in order.
    pub fn readers(&self) -> impl Iterator<Item = Reader> + use<> {
        let Self { n_layer, n_head } = *self;
        let of_layer = move |layer| {
            let head = move |input| (0..n_head).map(move |head| Reader::Head(Head { layer, head }, input));
            HeadInput::ALL.into_iter().flat_map(head).chain([Reader::Mlp(layer)])
        };
        (0..n_layer).flat_map(of_layer).chain([Reader::Logits])
    }

    /// A writer's place among the writers.
    pub fn place_of_writer(&self, writer: Writer) -> usize {
        match writer {
            Writer::Input => 0,
            Writer::Head(Head { layer, head }) => 1 + layer * (self.n_head + 1) + head,
            Writer::Mlp(layer) => (layer + 1) * (self.n_head + 1),
        }
    }

    /// A reader's place among the readers.
    pub fn place_of_reader(&self, reader: Reader) -> usize {
        let in_layer = 3 * self.n_head + 1;
        match reader {
            Reader::Head(Head { layer, head }, input) => {
                layer * in_layer + input as usize * self.n_head + head
            }
            Reader::Mlp(layer) => layer * in_layer + 3 * self.n_head,
            Reader::Logits => self.n_layer * in_layer,
        }
    }

    /// An edge's place in a matrix readers × writers.
    pub fn place_of(&self, Edge { writer, reader }: Edge) -> usize {
        self.place_of_reader(reader) * self.n_writers() + self.place_of_writer(writer)
    }

    /// How many writers a reader hears: the first so many. An MLP hears the heads of its own layer, which write
    /// before it reads.
    pub fn n_heard(&self, reader: Reader) -> usize {
        let before = |layer: usize| 1 + layer * (self.n_head + 1);
        match reader {
            Reader::Head(head, _) => before(head.layer),
            Reader::Mlp(layer) => before(layer) + self.n_head,
            Reader::Logits => before(self.n_layer),
        }
    }

    /// Whether the model has this edge.
    pub fn has(&self, Edge { writer, reader }: Edge) -> bool {
        let exists = |head: Head| head.layer < self.n_layer && head.head < self.n_head;
        let reads = match reader {
            Reader::Head(head, _) => exists(head),
            Reader::Mlp(layer) => layer < self.n_layer,
            Reader::Logits => true,
        };
        let writes = match writer {
            Writer::Input => true,
            Writer::Head(head) => exists(head),
            Writer::Mlp(layer) => layer < self.n_layer,
        };
        reads && writes && self.place_of_writer(writer) < self.n_heard(reader)
    }

    /// Every edge, reader by reader.
    pub fn edges(&self) -> impl Iterator<Item = Edge> + use<> {
        let graph = *self;
        let into = move |reader| {
            graph.writers().take(graph.n_heard(reader)).map(move |writer| Edge { writer, reader })
        };
        graph.readers().flat_map(into)
    }
}

/// Some edges of a graph. A reader hears along them what the run itself writes, and along all others what is put
/// in its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Circuit {
    graph: Graph,
    /// Readers × writers.
    kept: Vec<bool>,
}

impl Circuit {
    /// Every edge.
    pub fn whole(graph: Graph) -> Self {
        let mut circuit = Self::empty(graph);
        graph.edges().for_each(|edge| circuit.set(edge, true));
        circuit
    }

    /// No edge.
    pub fn empty(graph: Graph) -> Self {
        Self { graph, kept: vec![false; graph.n_readers() * graph.n_writers()] }
    }

    /// The graph.
    pub fn graph(&self) -> Graph {
        self.graph
    }

    /// Whether an edge is in the circuit.
    pub fn has(&self, edge: Edge) -> bool {
        self.kept[self.graph.place_of(edge)]
    }

    /// Puts an edge into the circuit, or takes it out.
    ///
    /// # Panics
    /// If the model does not have the edge.
    #[track_caller]
    pub fn set(&mut self, edge: Edge, kept: bool) {
        assert!(self.graph.has(edge), "no edge {edge} in {:?}", self.graph);
        self.kept[self.graph.place_of(edge)] = kept;
    }

    /// For each writer that a reader hears whether that edge is in the circuit.
    pub fn into_reader(&self, reader: Reader) -> &[bool] {
        let row = self.graph.place_of_reader(reader) * self.graph.n_writers();
        &self.kept[row..row + self.graph.n_heard(reader)]
    }

    /// The edges, reader by reader.
    pub fn edges(&self) -> impl Iterator<Item = Edge> + '_ {
        self.graph.edges().filter(|edge| self.has(*edge))
    }

    /// How many edges it has.
    pub fn len(&self) -> usize {
        self.kept.iter().filter(|kept| **kept).count()
    }

    /// Whether it has no edge.
    pub fn is_empty(&self) -> bool {
        !self.kept.contains(&true)
    }

    /// The edges that are not in it.
    pub fn complement(&self) -> Self {
        let mut other = Self::empty(self.graph);
        self.graph.edges().filter(|edge| !self.has(*edge)).for_each(|edge| other.set(edge, true));
        other
    }

    /// The first layer in which a reader hears other edges than in another circuit; the last layer, if only the
    /// logits do; none if they are the same.
    pub fn first_layer_unlike(&self, other: &Self) -> Option<usize> {
        let last = self.graph.n_layer.saturating_sub(1);
        let differs = |reader: &Reader| self.into_reader(*reader) != other.into_reader(*reader);
        self.graph.readers().find(differs).map(|reader| reader.layer().unwrap_or(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graphs_of_known_models_have_the_published_numbers_of_edges() {
        let edges = |n_layer, n_head| Graph { n_layer, n_head }.edges().count();
        assert_eq!([edges(12, 12), edges(24, 16), edges(12, 4)], [32_491, 231_877, 4_555]);
    }

    #[test]
    fn every_node_has_its_place_and_is_read_by_its_name() {
        let graph = Graph { n_layer: 3, n_head: 2 };
        for (place, writer) in graph.writers().enumerate() {
            assert_eq!(graph.place_of_writer(writer), place);
            assert_eq!(writer.to_string().parse(), Ok(writer));
        }
        for (place, reader) in graph.readers().enumerate() {
            assert_eq!(graph.place_of_reader(reader), place);
            assert_eq!(reader.to_string().parse(), Ok(reader));
        }
        assert_eq!(
            (graph.writers().count(), graph.readers().count()),
            (graph.n_writers(), graph.n_readers())
        );
        for edge in graph.edges() {
            assert_eq!(edge.to_string().parse(), Ok(edge));
        }
        assert!(graph.edges().any(|edge| edge.to_string() == "a1.h0->m1"));
        assert!(!graph.edges().any(|edge| edge.to_string() == "a1.h0->a1.h1<q>"));
    }

    #[test]
    fn what_is_no_edge_is_refused() {
        let graph = Graph { n_layer: 3, n_head: 2 };
        for text in ["a2.h0->m1", "m1->m1", "a0.h2->logits", "input->m3", "m3->logits", "input->a0.h2<q>"] {
            assert!(!graph.has(text.parse().unwrap()), "{text}");
        }
        for text in
            ["", "input", "input->", "logits->m0", "a0.h0->a1.h0", "m->m1", "m+1->m2", "a0.h0->a1.h0<z>"]
        {
            assert!(text.parse::<Edge>().is_err(), "{text}");
        }
    }
}
