//! The page of a circuit, looked at and used in a browser.

use figures::CircuitFigure;
use figures::circuit::{Edge, Input, Node};
use figures::page::{CircuitPage, render_circuit_page};

use crate::browser::{Browser, DOWN, ENTER, LEFT, RIGHT, TAB, UP};
use crate::util::Folder;

const ESCAPE: &str = "\u{e00c}";
const MARKUP: &str = "</script><img src=x onerror=alert(1)>";

/// Two heads of layer 0 that a head of layer 1 reads, and an MLP; the last edge has no number.
fn figure() -> CircuitFigure {
    let nodes = [("input", 0), ("a0.h1", 1), ("a0.h3", 1), ("m0", 2), ("a1.h0", 3), ("logits", 5)];
    let edges = [
        (0, 1, Some(Input::V), 0.25),
        (0, 2, Some(Input::K), -0.125),
        (0, 3, None, 0.5),
        (1, 4, Some(Input::K), 0.75),
        (2, 4, Some(Input::Q), -0.0625),
        (3, 4, Some(Input::V), 0.375),
        (4, 5, None, 1.5),
        (3, 5, None, f32::NAN),
    ];
    CircuitFigure {
        title: "The circuit of Michelle Jones".into(),
        subtitle: vec![MARKUP.into()],
        nodes: nodes.map(|(name, row)| Node { name: name.into(), row, label: String::new() }).to_vec(),
        edges: edges.map(|(from, to, input, score)| Edge { from, to, input, score }).to_vec(),
        score_label: "change of the metric".into(),
        ..CircuitFigure::default()
    }
}

/// The page in a browser, and its folder; nothing where there is no browser.
fn open(figure: CircuitFigure) -> Option<(Browser, Folder)> {
    let browser = Browser::start()?;
    let folder = Folder::new();
    let provenance = vec![("command".to_owned(), MARKUP.to_owned())];
    let page = CircuitPage { provenance, figure, ..CircuitPage::default() };
    let file = folder.file("circuit.html");
    std::fs::write(&file, render_circuit_page(&page, "test 0").unwrap()).unwrap();
    browser.open(&file);
    Some((browser, folder))
}

/// How many elements a selector finds.
fn count(browser: &Browser, selector: &str) -> u64 {
    let found = browser.script("return document.querySelectorAll(arguments[0]).length", &[selector.into()]);
    found.as_u64().unwrap()
}

/// The names of the edges in the table, in its order.
fn listed(browser: &Browser) -> Vec<String> {
    let script = "return [...document.querySelectorAll('#edges td button')].map((it) => it.textContent)";
    serde_json::from_value(browser.script(script, &[])).unwrap()
}

/// What the focus is on: the label that a screen reader says.
fn focus(browser: &Browser) -> String {
    let label = browser.script("return document.activeElement.getAttribute('aria-label')", &[]);
    label.as_str().unwrap_or_default().to_owned()
}

#[test]
fn pointing_at_an_edge_shows_its_name_and_number() {
    let Some((browser, _folder)) = open(figure()) else {
        return;
    };
    assert_eq!(browser.text("#title"), "The circuit of Michelle Jones");
    assert_eq!(browser.text("#subtitle"), MARKUP);
    // The point of the line that is halfway along it.
    let script = "const path = document.querySelector(`[data-edge='${arguments[0]}'] path`);
        path.scrollIntoView({block: 'center'});
        const {x, y} = path.getPointAtLength(path.getTotalLength() / 2).matrixTransform(path.getScreenCTM());
        const under = document.elementFromPoint(x, y);
        const at = {clientX: x, clientY: y, bubbles: true};
        under.dispatchEvent(new MouseEvent('mousemove', at));
        return [...document.querySelectorAll('#tooltip:not([hidden]) dd')].map((it) => it.textContent);";
    for (edge, facts) in [
        (3, ["a0.h1->a1.h0<k>", "+0.7500", "2 of 8"]),
        (1, ["input->a0.h3<k>", "−0.1250", "6 of 8"]),
        (7, ["m0->logits", "no number", "8 of 8"]),
    ] {
        let shown = browser.script(script, &[edge.into()]);
        assert_eq!(serde_json::from_value::<Vec<String>>(shown).unwrap(), facts);
        assert_eq!(count(&browser, &format!(".lit[data-edge='{edge}']")), count(&browser, ".lit"));
    }
    browser.script("document.querySelector('svg').dispatchEvent(new MouseEvent('mouseleave'))", &[]);
    assert_eq!(count(&browser, ".lit"), 0);
    assert_eq!(count(&browser, "#tooltip[hidden]"), 1);
}

#[test]
fn a_click_on_a_node_leaves_its_edges_and_escape_all() {
    let Some((browser, _folder)) = open(figure()) else {
        return;
    };
    assert_eq!(listed(&browser).len(), 8);
    assert_eq!(listed(&browser)[0], "a1.h0->logits");
    assert_eq!(browser.text("#chosen"), "8 edges between 6 nodes. Scores: change of the metric");
    browser.click("[data-node='3']");
    assert_eq!(browser.text("#chosen"), "m0: 1 edge in, 2 out");
    assert_eq!(listed(&browser), ["input->m0", "m0->a1.h0<v>", "m0->logits"]);
    assert_eq!(count(&browser, "[data-edge]:not(.dimmed):has(path)"), 3);
    assert_eq!(count(&browser, "[data-node].dimmed"), 2);
    assert_eq!(count(&browser, "[data-node='3'][aria-pressed='true']"), 1);
    browser.press(ESCAPE);
    assert_eq!((listed(&browser).len(), count(&browser, ".dimmed")), (8, 0));

    // Fewer edges, the strongest of them.
    let script = "const range = document.getElementById('count');
        range.value = 3;
        range.dispatchEvent(new Event('input', {bubbles: true}));";
    browser.script(script, &[]);
    assert_eq!(listed(&browser), ["a1.h0->logits", "a0.h1->a1.h0<k>", "input->m0"]);
    assert_eq!(count(&browser, "[data-edge]:not(.gone):has(path)"), 3);
}

#[test]
fn the_keyboard_reaches_every_node_and_edge() {
    let Some((browser, _folder)) = open(figure()) else {
        return;
    };
    // All nodes are one tab stop.
    browser.script("document.getElementById('count').focus()", &[]);
    browser.press(TAB);
    assert_eq!(focus(&browser), "input: 0 edges in, 3 out");
    for _ in 0..5 {
        browser.press(UP);
    }
    assert_eq!(focus(&browser), "logits: 2 edges in, 0 out");
    browser.press(DOWN);
    assert_eq!(focus(&browser), "a1.h0: 3 edges in, 1 out");
    browser.press(ENTER);
    assert_eq!(listed(&browser).len(), 4);
    for _ in 0..2 {
        browser.press(DOWN);
    }
    let one = focus(&browser);
    browser.press(LEFT);
    browser.press(RIGHT);
    browser.press(RIGHT);
    browser.press(LEFT);
    assert!(one.starts_with("a0.h") && focus(&browser).starts_with("a0.h"), "{one}");

    browser.press(ESCAPE);
    browser.script("document.querySelector('#edges td button').focus()", &[]);
    assert_eq!(count(&browser, ".lit[data-edge='6']"), count(&browser, ".lit"));
    browser.press(TAB);
    assert!(count(&browser, ".lit[data-edge='3']") > 0);
}

#[test]
fn the_page_of_a_circuit_requests_nothing() {
    let Some((browser, folder)) = open(figure()) else {
        return;
    };
    browser.click("[data-node='4']");
    browser.click("#theme");
    let address = format!("file://{}", folder.file("circuit.html").display());
    assert_eq!(browser.requests(), [address]);
    assert_eq!(browser.console(), [""; 0]);
}
