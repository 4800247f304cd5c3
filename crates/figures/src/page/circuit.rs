//! The page of a circuit: its picture, which answers to the mouse and the keyboard, and a table of its edges.

use serde::Serialize;
use visible::visible_line;

use super::{data, filled, hash};
use crate::circuit::{CircuitFigure, MOST_EDGES};
use crate::figure::Figure;
use crate::layout::layout;
use crate::svg::render_svg;
use crate::text::Fonts;

const TEMPLATE: &str = include_str!("circuit.html");
const STYLE: &str = concat!(include_str!("page.css"), include_str!("circuit.css"));
const SCRIPT: &str = concat!(include_str!("common.js"), include_str!("circuit.js"));

/// Everything that the page of a circuit shows.
#[derive(Clone, Debug, Default)]
pub struct CircuitPage {
    /// What made it: names with their values, in the order of reading.
    pub provenance: Vec<(String, String)>,
    /// The circuit, with the title and the words of the page.
    pub figure: CircuitFigure,
    /// The fonts that it is laid out with.
    pub fonts: Fonts,
}

/// What the script reads.
#[derive(Serialize)]
struct Data<'a> {
    provenance: &'a [(String, String)],
    title: String,
    subtitle: Vec<String>,
    score_label: String,
    nodes: Vec<Node>,
    /// The strongest first.
    edges: Vec<Edge>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    label: String,
}

#[derive(Serialize)]
struct Edge {
    /// What the picture calls it.
    id: usize,
    from: usize,
    to: usize,
    input: Option<String>,
    score: f32,
}

/// The page as an HTML file; `software` is as for [`render_page`](super::render_page). Where no script runs, the
/// picture is there all the same.
///
/// # Errors
/// If a number cannot be written as JSON.
///
/// # Panics
/// If an edge names a node that is not there.
pub fn render_circuit_page(page: &CircuitPage, software: &str) -> Result<String, serde_json::Error> {
    let figure: Figure = page.figure.clone().into();
    let Figure::Circuit(figure) = figure.bounded().into_owned() else { unreachable!("it was a circuit") };
    let data = data(&read_by_script(page, &figure))?;
    // The page has the heading itself.
    let picture = CircuitFigure { title: String::new(), subtitle: Vec::new(), ..figure };
    let scene = layout(&picture.into(), &page.fonts);
    let svg = render_svg(&scene, &page.fonts, &[]).expect("a circuit has no pictures inside");
    // Without the declaration and the comment of a file of its own.
    let svg = &svg[svg.find("<svg").unwrap_or_default()..];
    let (script_hash, style_hash) = (hash(SCRIPT), hash(STYLE));
    Ok(filled(
        TEMPLATE,
        &[
            ("data", &data),
            ("script", SCRIPT),
            ("script_hash", &script_hash),
            ("software", software),
            ("style", STYLE),
            ("style_hash", &style_hash),
            ("svg", svg),
        ],
    ))
}

fn read_by_script<'a>(page: &'a CircuitPage, figure: &CircuitFigure) -> Data<'a> {
    let node = |node: &crate::circuit::Node| Node {
        name: visible_line(&node.name),
        label: visible_line(node.shown()),
    };
    let edge = |id: usize| {
        let crate::circuit::Edge { from, to, input, score } = figure.edges[id];
        Edge { id, from, to, input: input.map(|input| input.to_string()), score }
    };
    Data {
        provenance: &page.provenance,
        title: visible_line(&figure.title),
        subtitle: figure.subtitle.iter().map(|line| visible_line(line)).collect(),
        score_label: visible_line(&figure.score_label),
        nodes: figure.nodes.iter().map(node).collect(),
        edges: figure.strongest().into_iter().take(MOST_EDGES).map(edge).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::data_of;
    use super::*;
    use crate::layout::circuit::tests::circuit;

    fn page(figure: CircuitFigure) -> String {
        let provenance = vec![("command".to_owned(), "patch-cli circuit".to_owned())];
        render_circuit_page(&CircuitPage { provenance, figure, ..CircuitPage::default() }, "test 0").unwrap()
    }

    #[test]
    fn the_picture_and_the_data_name_the_same_edges_and_nodes() {
        let figure = circuit(80, 12);
        let html = page(figure.clone());
        let data = data_of(&html);
        assert_eq!(data["edges"].as_array().unwrap().len(), 80);
        assert_eq!(data["nodes"].as_array().unwrap().len(), figure.nodes.len());
        assert_eq!(data["edges"][0]["id"], figure.strongest()[0]);
        for edge in 0..80 {
            assert_eq!(html.matches(&format!("<g data-edge=\"{edge}\" ")).count(), 1);
        }
        assert_eq!(html.matches("<g data-node=").count(), figure.nodes.len());
        assert!(html.len() < 300_000, "{} bytes", html.len());
    }

    #[test]
    fn markup_in_names_stays_text_and_ends_nothing() {
        for text in ["</script><img src=x onerror=alert(1)>", "</svg><script>", "{{script}} }} {{", "\"\u{0}"]
        {
            let mut figure = circuit(12, 2);
            figure.title = text.into();
            figure.score_label = text.into();
            figure.legend = vec![text.into()];
            figure.subtitle = vec![text.into()];
            figure.nodes[1].label = text.into();
            figure.nodes[1].name = text.into();
            let html = page(figure);
            assert_eq!(html.matches("</script").count(), 2, "{text}");
            assert!(!html.contains("<img"));
            assert_eq!((html.matches("<svg ").count(), html.matches("</svg>").count()), (1, 1));
            assert_eq!(html.matches(SCRIPT).count(), 1);
            assert_eq!(data_of(&html)["title"], visible_line(text));
        }
    }

    #[test]
    fn the_policy_names_the_script_and_the_style_and_nothing_needs_more() {
        let html = page(circuit(25, 4));
        assert!(html.contains(&format!(
            "script-src '{}'; style-src '{}'; img-src data:;",
            hash(SCRIPT),
            hash(STYLE)
        )));
        assert!(html.contains(&format!("<script>{SCRIPT}</script>")));
        assert!(html.contains(&format!("<style>{STYLE}</style>")));
        // Attributes named style, and handlers, would be refused by the browser.
        let (_, body) = html.split_once("<body>").unwrap();
        assert!(!body.contains(" style=") && !body.contains(" onclick="));
    }

    #[test]
    fn an_edge_without_a_number_has_none_in_the_data() {
        let mut figure = circuit(12, 2);
        figure.edges[5].score = f32::NAN;
        let data = data_of(&page(figure));
        assert_eq!(data["edges"][11]["id"], 5);
        assert!(data["edges"][11]["score"].is_null());
    }
}
